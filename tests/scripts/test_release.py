"""What is released holds what git does, and what does not is found."""

import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from scripts import release
from scripts.release import ROOT, build, sdist_faults, tracked, trial_faults, wheel_faults

if not (ROOT / ".git").exists():
    pytest.skip("compares with what git has, and this is no clone", allow_module_level=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", tmp_path_factory.mktemp("sdist"))


def changed(wheel: Path, folder: Path, name: str, old: str = "", new: str = "") -> Path:
    """The wheel without the file of which this is the end of the name, or with another text."""
    copy = folder / wheel.name
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(copy, "w") as target:
        for each in source.namelist():
            if not each.endswith(name):
                target.writestr(each, source.read(each))
            elif old:
                text = source.read(each).decode()
                assert old in text
                target.writestr(each, text.replace(old, new))
    return copy


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    assert list(wheel_faults(wheel, tracked())) == []


@pytest.mark.parametrize("name", ["vtd/py.typed", "licenses/LICENSE", "devices/dma.py"])
def test_what_a_wheel_lacks_is_found(wheel: Path, tmp_path: Path, name: str) -> None:
    (fault,) = wheel_faults(changed(wheel, tmp_path, name), tracked())
    assert fault.endswith(f"{name} is missing")


def test_what_a_wheel_has_too_much_is_found(wheel: Path, tmp_path: Path) -> None:
    copy = changed(wheel, tmp_path, "no such name")
    with zipfile.ZipFile(copy, "a") as archive:
        archive.writestr("tests/test_readme.py", "")
    assert list(wheel_faults(copy, tracked())) == ["tests/test_readme.py should not be there"]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("Name: vtd-emulator", "Name: vtd", "Name is vtd, not vtd-emulator"),
        ("License-Expression: MIT", "X: Y", "License-Expression is None, not MIT"),
        ("Provides-Extra: fuzz", "X: Y", "extra fuzz is missing"),
        ("Provides-Extra: fuzz", "Provides-Extra: fuzz\nProvides-Extra: gui", "extra gui should"),
    ],
)
def test_wrong_metadata_is_found(
    wheel: Path, tmp_path: Path, old: str, new: str, fault: str
) -> None:
    (found,) = wheel_faults(changed(wheel, tmp_path, "/METADATA", old, new), tracked())
    assert found.startswith(fault)


def test_the_sdist_holds_what_git_does_and_builds_the_same_wheel(sdist: Path, wheel: Path) -> None:
    assert list(sdist_faults(sdist, tracked(), wheel)) == []


def test_an_sdist_that_builds_another_wheel_is_found(
    sdist: Path, wheel: Path, tmp_path: Path
) -> None:
    copy = tmp_path / sdist.name
    with tarfile.open(sdist) as source, tarfile.open(copy, "w:gz") as target:
        for each in source:
            data = source.extractfile(each)
            assert data is not None
            content = data.read() + (b"#\n" if each.name.endswith("/vtd/cli.py") else b"")
            each.size = len(content)
            target.addfile(each, io.BytesIO(content))
    found = list(sdist_faults(copy, tracked(), wheel))
    assert any(each.startswith("vtd/cli.py (") and "should not be" in each for each in found)
    assert all("in the wheel that it builds" in each for each in found)


def test_commands_that_do_not_go_as_they_should_are_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(release, "TRIALS", release.TRIALS[:4])  # without what takes long
    (tmp_path / "core").write_bytes(release.CORE)
    python = Path(sys.executable)  # has every extra, which is wrong where none is expected
    assert list(trial_faults(python, {"cores"}, tmp_path)) == []
    (found,) = trial_faults(python, set(), tmp_path)
    assert found.startswith("vtd walk core 0 ")
    assert "exit code 0" in found


def test_a_step_that_fails_is_said_in_a_line_with_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*command: str, **_: object) -> object:
        return subprocess.CompletedProcess(command, 1, "", "much\nno network\n")

    monkeypatch.setattr(sys, "argv", ["release.py"])
    monkeypatch.setattr(subprocess, "run", refuse)
    assert release.main() == 2
    assert capsys.readouterr().err == "scripts/release: git status --porcelain: no network\n"
