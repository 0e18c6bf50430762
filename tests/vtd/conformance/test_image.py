"""Images: what a file has, what is loaded, and what is no image."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtd.conformance.format import Header, Mode, Scratch
from vtd.conformance.image import SERIAL, Image, KitError, make_image

IMAGE = make_image(Mode.CASES, 0x40_0000, b"program!" * 9, cases=0, document={"cases": []})


def test_an_image_comes_back_from_its_file() -> None:
    assert Image.parse(IMAGE.pack()) == IMAGE


def test_multiboot_finds_its_header_and_loads_all_but_the_document() -> None:
    raw = IMAGE.pack()
    header = Header.parse(raw)
    assert (header.magic + header.flags + header.checksum) % 2**32 == 0
    assert header.load_address == header.header_address == 0x40_0000
    loaded = raw[: header.load_end - header.load_address]
    assert loaded.endswith(b"program!" * 9)
    assert raw[header.program :].startswith(b"program!")
    assert header.entry == header.load_address + 0x20
    assert raw[0x20:0x25] == b"\xbd" + header.base.to_bytes(4, "little")


def test_scratch_memory_is_behind_what_is_loaded_and_what_loaders_put_there() -> None:
    header = IMAGE.header
    assert header.scratch >= header.load_end + 0x1_0000
    assert header.scratch % 4096 == 0
    assert Scratch.SIZE % 4096 == 0


def test_what_the_payload_is_told_does_not_change_which_image_it_is() -> None:
    told = Header.parse(IMAGE.told(SERIAL, 5))
    assert (told.first, told.port, told.door) == (5, 0x3F8, SERIAL.door)
    assert told.digest == IMAGE.digest


@given(st.data())
def test_a_changed_or_cut_file_is_no_image(draw: st.DataObject) -> None:
    raw = IMAGE.pack()
    place = draw.draw(st.integers(0, len(raw) - 1))
    changed = raw[:place] + bytes([raw[place] ^ draw.draw(st.integers(1, 255))]) + raw[place + 1 :]
    for data in (raw[:place], changed):
        try:
            found = Image.parse(data)
        except KitError as error:
            assert "\n" not in str(error)
        else:  # padding has no meaning
            assert found.pack() == raw


@pytest.mark.parametrize("data", [b"", b"\x7fELF" + bytes(300), bytes(4096)])
def test_other_files_are_no_images(data: bytes) -> None:
    with pytest.raises(KitError):
        Image.parse(data)
