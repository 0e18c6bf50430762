"""Setting up: what stands in the way is said in one line, exit code 2, and the next start repairs.

The interpreter is the real one; modules before its own on the path stand for what it lacks.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = os.path.realpath(sys.executable)
MAKING = f"scripts/setup: making .venv with pip and {PYTHON}\n"

FILES = (
    "requirements.lock",
    "requirements-extras.lock",
    "pyproject.toml",
    "scripts/setup",
    "scripts/demo",
)
ADDING = "scripts/setup: adding requirements-extras.lock\n"

VENV = """
import os, sys
from pathlib import Path
folder = Path(sys.argv[1], "bin")
folder.mkdir()
(folder / "python").write_text(os.environ["PIP"])
(folder / "python").chmod(0o755)
"""
"""A venv whose pip is the script in the environment variable ``PIP``."""

INSTALLS = """#!/bin/sh
case $* in *' -e .') printf '#!/bin/sh\\n' >.venv/bin/vtd && chmod +x .venv/bin/vtd ;; esac
"""
REFUSES = """#!/bin/sh
echo 'WARNING: Retrying after connection broken'
echo 'ERROR: No matching distribution found for construct==2.10.70' >&2
echo '[notice] A new release of pip is available' >&2
exit 1
"""


class Checkout:
    """A checkout in a folder with blanks in its name, and the environment variables of a start."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "a check out"
        self.fakes = folder / "fakes"
        self.fakes.mkdir()
        for name in FILES:
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
        self.variables = {
            "PATH": os.environ["PATH"],
            "PYTHON": PYTHON,
            "PYTHONPATH": str(self.fakes),
            "INSTALLER": "pip",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def fake(self, module: str, code: str) -> None:
        """Put a module before the interpreter's own."""
        path = self.fakes / f"{module}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)

    def fake_venv(self, pip: str) -> None:
        """Have environments made at once, with this script for their pip."""
        self.fake("venv/__init__", "")
        self.fake("venv/__main__", VENV)
        self.variables["PIP"] = pip

    def start(self, *command: str) -> tuple[int, str]:
        """Exit code, and everything that it says."""
        done = subprocess.run(
            command or ("scripts/setup",),
            cwd=self.folder,
            env=self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.mark.parametrize("command", ["scripts/setup", "scripts/demo"])
def test_a_python_that_is_too_old_is_refused(checkout: Checkout, command: str) -> None:
    checkout.fake("sitecustomize", "import sys; sys.version_info = (3, 10, 13, 'final', 0)")
    line = (
        f"scripts/setup: needs Python 3.11 or newer, found none as: {PYTHON} "
        "(PYTHON=/path/to/python3 names one)\n"
    )
    assert checkout.start(command) == (2, line)
    assert not (checkout.folder / ".venv").exists()


def test_without_any_python_the_names_tried_are_said(checkout: Checkout) -> None:
    del checkout.variables["PYTHON"]
    commands = checkout.fakes / "bin"
    commands.mkdir()
    for name in ("sh", "dirname"):
        (commands / name).symlink_to(str(shutil.which(name)))
    checkout.variables["PATH"] = str(commands)
    code, said = checkout.start()
    assert (code, said.count("\n")) == (2, 1)
    assert "found none as: python3 python3.14 python3.13 python3.12 python3.11 (" in said


@pytest.mark.parametrize("missing", ["venv", "ensurepip"])
def test_a_python_without_venv_is_refused(checkout: Checkout, missing: str) -> None:
    checkout.fake(missing, "raise ModuleNotFoundError")
    line = (
        f"scripts/setup: {PYTHON} has no venv with pip (Debian, Ubuntu: apt install python3-venv)\n"
    )
    assert checkout.start() == (2, line)


def test_an_unknown_installer_is_refused(checkout: Checkout) -> None:
    checkout.variables["INSTALLER"] = "conda"
    line = "scripts/setup: INSTALLER is uv or pip, not conda\n"
    assert checkout.start() == (2, line)


def test_a_checkout_that_cannot_be_written_is_refused(checkout: Checkout) -> None:
    command = ["scripts/setup"]
    if os.geteuid() == 0:  # root may write wherever it likes, unless this is taken from it
        if shutil.which("setpriv") is None:
            pytest.skip("runs as root, without setpriv to give up root's rights")
        command = ["setpriv", "--bounding-set=-dac_override", *command]
    checkout.folder.chmod(0o555)
    line = f"scripts/setup: cannot write to {checkout.folder}, where .venv has to be\n"
    assert checkout.start(*command) == (2, line)


def test_what_was_made_can_be_used_where_nothing_can_be_written(checkout: Checkout) -> None:
    checkout.fake_venv(INSTALLS)
    assert checkout.start() == (0, MAKING)
    checkout.folder.chmod(0o555)
    assert checkout.start() == (0, "")
    assert checkout.start("scripts/demo") == (0, "")


def test_without_network_pip_is_cut_down_to_its_error(checkout: Checkout) -> None:
    checkout.variables |= {"PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0"}
    checkout.variables["PIP_INDEX_URL"] = "http://127.0.0.1:9/simple"
    code, said = checkout.start()
    progress, line = said.splitlines(keepends=True)
    assert (code, progress) == (2, MAKING)
    assert line.startswith("scripts/setup: could not install requirements.lock: ERROR: Could not ")
    assert line.endswith(" (more in .venv/log)\n")


def test_a_package_that_cannot_be_had_is_said_and_tried_again(checkout: Checkout) -> None:
    checkout.fake_venv(REFUSES)
    line = (
        "scripts/setup: could not install requirements.lock: ERROR: No matching distribution "
        "found for construct==2.10.70 (more in .venv/log)\n"
    )
    assert checkout.start() == (2, MAKING + line)
    assert "Retrying" in (checkout.folder / ".venv/log").read_text()
    checkout.variables["PIP"] = INSTALLS
    assert checkout.start() == (0, MAKING)


@pytest.mark.parametrize("step", ["requirements.lock", "-e ."])
def test_an_interrupted_start_is_repaired_by_the_next(checkout: Checkout, step: str) -> None:
    interrupted = f"case $* in *'{step}') kill -9 $PPID ;; esac\n"
    checkout.fake_venv(INSTALLS + interrupted)
    assert checkout.start() == (-9, MAKING)
    checkout.variables["PIP"] = INSTALLS
    assert checkout.start() == (0, MAKING)
    assert checkout.start() == (0, "")


@pytest.mark.parametrize("file", ["requirements.lock", "pyproject.toml", "scripts/setup"])
def test_a_change_of_what_is_installed_makes_it_again(checkout: Checkout, file: str) -> None:
    checkout.fake_venv(INSTALLS)
    assert checkout.start() == (0, MAKING)
    with (checkout.folder / file).open("a") as text:
        text.write("# changed\n")
    assert checkout.start() == (0, MAKING)


def test_extras_are_added_to_what_is_there(checkout: Checkout) -> None:
    checkout.fake_venv(INSTALLS)
    assert checkout.start() == (0, MAKING)
    assert checkout.start("scripts/setup", "--extras") == (0, ADDING)
    assert checkout.start("scripts/setup", "--extras") == (0, "")
    assert checkout.start() == (0, "")
    with (checkout.folder / "requirements-extras.lock").open("a") as text:
        text.write("# changed\n")
    assert checkout.start() == (0, "")
    assert checkout.start("scripts/setup", "--extras") == (0, ADDING)


def test_extras_that_cannot_be_had_are_said_and_tried_again(checkout: Checkout) -> None:
    checkout.fake_venv(
        REFUSES.replace("#!/bin/sh", INSTALLS + "case $* in *extras*) ;; *) exit ;; esac")
    )
    code, said = checkout.start("scripts/setup", "--extras")
    making, adding, error, skipped = said.splitlines(keepends=True)
    assert (code, making, adding) == (0, MAKING, ADDING)
    assert "could not install requirements-extras.lock: ERROR: No matching distribution" in error
    assert skipped == "scripts/setup: the tests of the extras will be skipped\n"
    (checkout.folder / ".venv/bin/python").write_text(INSTALLS)
    assert checkout.start("scripts/setup", "--extras") == (0, ADDING)


def test_an_unknown_option_is_refused(checkout: Checkout) -> None:
    assert checkout.start("scripts/setup", "--all") == (2, "usage: scripts/setup [--extras]\n")


def test_a_checkout_that_was_moved_is_set_up_again(checkout: Checkout) -> None:
    checkout.fake_venv(INSTALLS)
    assert checkout.start() == (0, MAKING)
    checkout.folder = checkout.folder.rename(checkout.folder.with_name("elsewhere"))
    assert checkout.start() == (0, MAKING)


def test_uv_does_the_work_where_there_is_one(checkout: Checkout) -> None:
    del checkout.variables["INSTALLER"]
    uv = checkout.fakes / "uv"
    uv.write_text("#!/bin/sh\necho 'error: no space left on device' >&2\nexit 1\n")
    uv.chmod(0o755)
    checkout.variables["PATH"] = f"{checkout.fakes}:{checkout.variables['PATH']}"
    line = "scripts/setup: could not make .venv: error: no space left on device (more in .venv/log)"
    assert checkout.start() == (2, f"{MAKING.replace('with pip', 'with uv')}{line}\n")
