"""The prebuilt programs are what their sources give, byte for byte, with the compiler they name."""

import shutil

import pytest

from scripts.conformance_payload import FOLDER, PROGRAMS, compiled, compiler
from vtd.conformance.format import c_header


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_is_what_its_sources_give(name: str) -> None:
    if shutil.which("gcc") is None or shutil.which("objcopy") is None:
        pytest.skip("gcc and binutils are not installed")
    there, named = compiler(), (FOLDER / "kit.txt").read_text().strip()
    if there != named:
        pytest.skip(f"the programs were built by {named}, and {there} is installed")
    built = (FOLDER / f"{name}.bin").read_bytes()
    assert compiled(name) == built, "python -m scripts.conformance_payload"


def test_the_header_in_c_is_what_the_formats_declare() -> None:
    assert (FOLDER / "format.h").read_text() == c_header()


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_is_small_and_names_no_place_of_the_machine_it_was_built_on(name: str) -> None:
    data = (FOLDER / f"{name}.bin").read_bytes()
    assert len(data) < 17 * 1024
    assert b"GCC" not in data
    assert b"/" + b"tmp" not in data
    assert str(FOLDER).encode() not in data
