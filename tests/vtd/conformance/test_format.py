"""The formats are declared once: the payload's header is written from them, and they keep bytes."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from scripts.conformance_payload import FOLDER
from vtd.conformance.format import Frame, Header, Instruction, Kind, Scratch, State, c_header


def test_the_header_of_the_payload_is_what_is_declared() -> None:
    assert (FOLDER / "format.h").read_text() == c_header(), "python -m scripts.conformance_payload"


@given(st.binary(min_size=Instruction.sizeof(), max_size=Instruction.sizeof()))
def test_an_instruction_keeps_every_byte(data: bytes) -> None:
    assert Instruction.build(Instruction.parse(data)) == data


def test_the_code_finds_its_fields_where_it_looks() -> None:
    """``start.S`` has two numbers of its own: where scratch is, and where code begins."""
    raw = (FOLDER / "kit.bin").read_bytes()
    header = Header.parse(raw)
    assert header.jump[0] == 0xE9
    assert 0x2A + int.from_bytes(header.jump[1:], "little") == Header.sizeof()
    marked = Header.build({**header, "scratch": 0x1122334455667788})
    assert marked[0x30:0x38] == bytes.fromhex("8877665544332211")


def test_scratch_memory_has_room_for_each_part() -> None:
    places = sorted(each for each in Scratch if each is not Scratch.SIZE)
    assert all(after - before >= 0x1000 for before, after in pairwise(places))
    assert Scratch.SIZE - places[-1] >= State.sizeof()


def test_a_frame_names_its_kind() -> None:
    data = Frame.build({"kind": Kind.END, "number": 7, "status": 0, "length": 0, "check": 0})
    assert data[:4] == b"VDRF"
    assert Frame.parse(data).number == 7
