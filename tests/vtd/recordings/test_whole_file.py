"""Files of any size, and devices that never end, through the commands that read them whole."""

import gzip
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vtd.cli import main
from vtd.recordings import whole_file
from vtd.sweeps.results import load


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_file, "LARGEST", 1 << 20)


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/full"])
@pytest.mark.parametrize("command", ["replay", "conformance compare"])
def test_a_device_without_end_is_too_large(command: str, device: str) -> None:
    if not Path(device).exists():
        pytest.skip(f"needs {device}")
    result = CliRunner().invoke(main, [*command.split(), device])
    assert result.exit_code == 2
    assert "more than 1 MiB" in result.stderr


def test_results_of_a_sweep_have_an_end_too() -> None:
    with pytest.raises(ValueError, match="more than 1 MiB"):
        load("/dev/zero")


def test_what_becomes_too_large_by_unpacking_is_refused(tmp_path: Path) -> None:
    small, large = tmp_path / "small.gz", tmp_path / "large.gz"
    small.write_bytes(gzip.compress(b"[]"))
    large.write_bytes(gzip.compress(bytes((1 << 20) + 1)))
    assert whole_file.read_whole(small) == b"[]"
    with pytest.raises(ValueError, match="more than 1 MiB"):
        whole_file.read_whole(large)
