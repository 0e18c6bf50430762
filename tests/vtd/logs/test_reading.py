"""Log files: any encoding and any length of line are read, what is no text is refused early."""

import io
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtd.logs.log import read_log
from vtd.logs.reading import BLOCK, LogError, lines_of

TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="\xa0&"), max_size=50
)


@given(st.lists(TEXT, min_size=1), st.sampled_from(["\n", "\r\n"]))
def test_lines_are_those_of_the_text(lines: list[str], end: str) -> None:
    if not any(map(str.strip, lines)):
        return
    read = list(lines_of(io.BytesIO(end.join(lines).encode())))
    assert [line.rstrip("\r") for line in read] == [line.rstrip("\r") for line in lines]


def test_lines_do_not_depend_on_blocks() -> None:
    lines = [f"{number} äö" + "x" * (number % 97) for number in range(40_000)]
    data = "\n".join(lines).encode()
    assert len(data) > BLOCK
    assert list(lines_of(io.BytesIO(data))) == lines


def test_windows_writes_logs_in_utf_16() -> None:
    assert list(lines_of(io.BytesIO("DMAR: ä\nx".encode("utf-16")))) == ["DMAR: ä", "x"]


def test_what_web_pages_put_into_text_is_undone() -> None:
    data = "&gt; DMAR:\xa0x &lt;3&gt; a&b".encode()
    assert list(lines_of(io.BytesIO(data))) == ["> DMAR: x <3> a&b"]


def test_brackets_that_web_pages_write_as_numbers_are_undone() -> None:
    data = b"&#91;DMA Read&#93; &#x5B;00:02.0&#x5d;"
    assert list(lines_of(io.BytesIO(data))) == ["[DMA Read] [00:02.0]"]


@pytest.mark.parametrize("indent", [None, 4])
def test_a_message_that_the_journal_writes_as_numbers_is_read(indent: int | None) -> None:
    """As it does where characters are not printable; lines keep their numbers."""
    message = "\x1b[1mDMAR: Host address width 39"
    entry = {"PRIORITY": "6", "MESSAGE": list(message.encode()), "_TRANSPORT": "kernel"}
    text = json.dumps(entry, indent=indent)
    lines = list(lines_of(io.BytesIO(text.encode())))
    assert [f'"{message}"' in line for line in lines].count(True) == 1
    assert len(lines) == len(text.splitlines())


def test_a_mail_that_was_not_decoded_is_read_as_it_was_written() -> None:
    mail = (
        "Content-Transfer-Encoding: quoted-printable\n\n"
        "> =09[   8.400001] DMAR: [DMA Read NO_PASID] Request device [04:00.1] fault a=\n"
        "ddr 0x7a00=\n0000\n> [fault reason 0x06] PTE Read access is not set\n"
        "> =09[   8.400002] DMAR: DRHD: handling fault status reg 2\n"
    )
    log = read_log(lines_of(io.BytesIO(mail.encode())))
    (fault,) = log.faults
    assert (str(fault.source), fault.reason) == ("0000:04:00.1", 6)
    assert fault.ranges == ((0x7A000000, 0x7A001000),)
    assert [line.line for group in log.messages for line in group.lines] == [7]


class Endless(io.RawIOBase):
    """A file without end, such as /dev/full."""

    def __init__(self, fill: Callable[[int], bytes]) -> None:
        self.fill = fill
        self.given = 0

    def read(self, size: int = -1) -> bytes:
        self.given += size
        assert self.given <= 8 * BLOCK, "read on and on"
        return self.fill(size)


def test_a_file_of_zeros_ends_at_once() -> None:
    with pytest.raises(LogError, match="not the text"):
        list(lines_of(Endless(bytes)))  # type: ignore[arg-type]


def test_a_line_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vtd.logs.reading.LARGEST_LOG", 4 * BLOCK)
    with pytest.raises(LogError, match="more than 4 MiB"):
        for line in lines_of(Endless(lambda size: b"x" * size)):  # type: ignore[arg-type]
            assert len(line) <= 2 * BLOCK


@pytest.mark.parametrize("data", [b"", b"\n \0", b"\0"])
def test_nothing_is_no_log(data: bytes) -> None:
    with pytest.raises(LogError):
        list(lines_of(io.BytesIO(data)))
