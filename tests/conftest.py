"""What all tests share: where the reference data is, and how hard hypothesis tries.

The repository carries enough vectors and captures for its tests. A folder `shared` beside the
repository may hold the whole collection; where it does, the tests run on all of it.
"""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ("tests.support.fault_coverage",)

REFERENCE_FOLDER = Path(__file__).resolve().parents[2] / "shared"

# No deadline and no check for slowness in either: a test may not depend on how busy the machine is.
settings.register_profile(
    "default",
    derandomize=True,
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "slow",
    max_examples=5_000,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("default")


def find_reference_folder() -> Path | None:
    """The folder with all reference data, or None where the repository has to do."""
    return REFERENCE_FOLDER if REFERENCE_FOLDER.is_dir() else None


@pytest.fixture(scope="session")
def reference_folder() -> Path | None:
    """The folder with all reference data, or None where the repository has to do."""
    return find_reference_folder()


def pytest_report_header() -> str:
    """Say which of the two collections this run uses."""
    folder = find_reference_folder()
    if folder is None:
        return "reference data: the repository's own (no collection beside it)"
    return f"reference data: all of {folder}"
