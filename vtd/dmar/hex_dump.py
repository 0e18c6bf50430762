"""Bytes from hex dumps in text, whoever printed them, wherever they start, however quoted.

Reads what acpidump, ``iasl -d``, xxd, hexdump, hexyl, od, the UEFI shell's ``dmem`` and
``acpiview``, U-Boot's ``md``, gdb, crash, WinDbg, chipsec and the kernel's own dumps print, plain
digits, and lists of bytes (:mod:`vtd.dmar.byte_lists`). A dump starts with offset 0, or with the
address of the first byte of a table. Words of more than one byte are turned round if only that
makes a table.
"""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from vtd.dmar.byte_lists import ESCAPES, SIGNATURES, listed_tables
from vtd.dmar.records import ACPI_HEADER

MOST_BYTES_OF_A_LINE = 64
ACPI_SIGNATURE = re.compile(rb"[A-Z][A-Z0-9!_]{3}")

KNOWN = (b"DMAR", b"APIC", b"HPET", b"SRAT")
"""Signatures that are read; turned round they look like others."""

_OFFSET = re.compile(
    r"(?:^|(?<=[\s>|\]*:+]))(?:0[xX])?([0-9A-Fa-f]{1,16})(?: <[^>]*>)?"
    r"(?:[ \t]*\|[ \t]*|:[ \t]*|[ \t]+)(?=\S)",
    re.ASCII,
)
_TIME = re.compile(r"\b\d\d:\d\d:\d\d\b")
_DRAWN = {ord("\u2502"): "|", ord("\u250a"): None, ord("`"): None}
"""Lines that hexyl draws around its columns, and marks that WinDbg has in its numbers."""
_FIELD = " : "
"""Between name and value in fields that iasl prints, and in no dump but behind its bytes."""
_ACPIVIEW = re.compile(r"[\s>|*]*([0-9A-F]{8}) : (?=[0-9A-F]{2}\b)", re.ASCII)
_BREAK = re.compile(r"(?:<br\b[^>\n]*>|</(?:p|div|tr|li)>)(?!\r?\n)", re.IGNORECASE)
_MARKUP = re.compile(r"</?(?:br|p|pre|code|div|span|tt)\b[^>\n]*>", re.IGNORECASE)
_WORD = re.compile(r"(?:0[xX])?([0-9A-Fa-f]{2,16})(?=[ \t,|-]|$)", re.ASCII)
_GAP = re.compile(r"[ \t,-]")
_MIDDLE = re.compile(r"[0-9A-F]{2}(?: [0-9A-F]{2}){7}(?= - )", re.ASCII)
"""The bytes before the dash with spaces that acpiview has in the middle of a row."""
_SPACED = re.compile(
    r"[0-9A-F]{2}(?: {2,4}[0-9A-F]{2})+|[0-9A-F]{4}(?: {2,4}[0-9A-F]{4})+", re.ASCII | re.IGNORECASE
)
"""Words with wide gaps and nothing behind them, as of ``hexdump -x`` and of od with two formats."""
_UNBROKEN = re.compile(r"((?:[0-9A-F]{2}){9,64})(?=\s{2}|\s*$)", re.ASCII | re.IGNORECASE)
"""The bytes of a row without gaps, as ``xxd -g 0`` prints them."""
_BYTE = r"(?:[0-9A-F]{2}(?:[ \t-]|(?=\||$)))"
_ROW = re.compile(
    rf"(?:\[[ \d.]+\] (?:[\w. ]+: )?)?({_BYTE}{{8}} ?{_BYTE}{{1,56}}|{_BYTE}{{1,8}})"
    r"(?:[ \t]+\S.*|\|.*)?",
    re.IGNORECASE,
)
"""A row of bytes without an offset, perhaps with its text, and behind the prefix of a log.

Behind the eighth byte the gap may be wider; any other wider gap ends the bytes.
"""
_QUOTE = re.compile(r"^[\s>|*+]*")
_NUMBERED = re.compile(
    r"^([\s>|*]*)(\d{1,6})(?=[ \t:]+(?:0x)?[0-9A-F]{4,16}:?[ \t]+[0-9A-F]{2,8}[ \t])[ \t:]+",
    re.IGNORECASE | re.MULTILINE,
)
"""The number of a line that is a row of a dump with its offset."""
_CHARACTERS = re.compile(
    r"^([\s>|*]*[0-9a-f]{7})((?: (?:  \S|   | \\[0abtnvfr]|[0-7]{3}))+)[ \t]*$"
    r"(?=(\n[\s>|*]*[0-9a-f]{7}[ \t]*$)?)",
    re.MULTILINE,
)
"""A row of characters, or their octal codes, as od -c and hexdump -c print it."""
WORD_BYTES = (1, 2, 4, 8)
MOST_REPEATED = 1 << 20
"""Bytes that a * may stand for."""
CLEARLY_A_DUMP = 8
"""Bytes of a line that nobody writes by chance."""


class DumpError(ValueError):
    """A dump with a gap; the message says at which line."""


@dataclass
class Dump:
    """The bytes of one dump as they grow."""

    start: int
    """Offset of its first byte."""
    data: bytearray = field(default_factory=bytearray)
    word: int = 1
    """Bytes of a word."""
    row: bytes = b""
    """The bytes of the last line."""
    width: int = MOST_BYTES_OF_A_LINE
    """How many the line before it has."""
    rest: bytes = b""
    """What a line below it begins with, which may be more of the last line, wrapped by mail."""
    repeats: bool = False
    """Whether a * says that lines like the last one follow."""

    @property
    def end(self) -> int:
        return self.start + len(self.data)

    @property
    def row_start(self) -> int:
        """Offset of the last line."""
        return self.end - len(self.row)

    def add(self, row: bytes) -> None:
        """Add the bytes of a line."""
        self.width, self.row, self.rest = len(self.row), row, b""
        self.data += row

    def unwrap(self, size: int) -> None:
        """Add that many bytes from the line below to the last one, if it has them."""
        if 0 < size <= len(self.rest):
            self.row += self.rest[:size]
            self.data += self.rest[:size]

    def cut_row(self, size: int) -> None:
        """Take from the last line what is beyond its size: text that looks like bytes."""
        del self.data[self.row_start + size - self.start :]
        self.row = self.row[:size]

    def repeat_to(self, offset: int) -> None:
        """Add lines like the last one up to an offset, if whole ones reach it."""
        missing = offset - self.end
        if missing > 0 and self.row and missing % len(self.row) == 0:
            self.data += self.row * (missing // len(self.row))
        self.repeats = False

    def table(self) -> bytes:
        """The bytes in the order of memory."""
        straight = bytes(self.data)
        if self.word == 1:
            return straight
        turned = b"".join(
            straight[position : position + self.word][::-1]
            for position in range(0, len(straight), self.word)
        )
        known = turned[:4] in KNOWN or not table_starts(straight)
        return turned if table_starts(turned) and known else straight

    @property
    def complete(self) -> bool:
        """Whether a table starts here and all of it was read."""
        data = self.table()
        return table_starts(data) and _length(data) <= len(data)

    @property
    def cut_short(self) -> bool:
        """Whether a table starts here and more of it is to come."""
        data = self.table()
        return table_starts(data) and _length(data) > len(data)


def table_starts(data: bytes) -> bool:
    """Whether the bytes begin as an ACPI table does, with a Length that can be."""
    if len(data) < 8 or not ACPI_SIGNATURE.match(data):
        return False
    return ACPI_HEADER <= int.from_bytes(data[4:8], "little") < 1 << 24


def hex_blobs(text: str) -> list[bytes]:
    """The bytes of every dump in a text, none if it has none; DumpError for one with a gap.

    A list with the checksum of a table goes before all else, since a dump might be read into it; a
    list that was cut comes last.
    """
    written, text = text, _without_numbers(_without_markup(text))
    if any("   ".join(each.decode()) in text for each in SIGNATURES):
        text = _CHARACTERS.sub(_in_digits, text)
    listed = [
        list(filter(table_starts, found))
        for each in dict.fromkeys((written, text))
        for found in (*_rows(each), *listed_tables(each))
    ]
    if sound := _first(listed, _is_sound):
        return sound
    whole = _first(listed, lambda table: _length(table) <= len(table))
    words = text.split()
    digits = "".join(words)
    plain = len(digits) % 2 == 0 and re.fullmatch(r"[0-9A-Fa-f]+", digits, re.ASCII)
    if words and words[0].strip("0") and plain and not _has_offsets(text):
        return whole or [bytes.fromhex(digits)]
    try:
        dumps = _dumps(text)
    except DumpError:
        if whole:
            return whole
        raise
    if any(map(table_starts, dumps)):
        return dumps
    return whole or dumps or _first(listed, table_starts)


def _first(listed: list[list[bytes]], fits: Callable[[bytes], bool]) -> list[bytes]:
    """The tables that fit, of the first writing in which there are some."""
    return next(filter(None, (list(filter(fits, tables)) for tables in listed)), [])


def _length(table: bytes) -> int:
    return int.from_bytes(table[4:8], "little")


def _is_sound(data: bytes) -> bool:
    """Whether a table is whole and its checksum right."""
    return _length(data) <= len(data) and sum(data[: _length(data)]) % 256 == 0


def _dumps(text: str) -> list[bytes]:
    """The bytes of every dump whose lines have offsets."""
    dumps: list[Dump] = []
    before: DumpError | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if dumps and _QUOTE.sub("", line).strip() == "" and line.rstrip().endswith("*"):
            dumps[-1].repeats = True
            continue
        try:
            _read_line(line, number, dumps)
        except DumpError as error:
            if dumps:
                raise
            before = before or error
    if before and not dumps:
        raise before
    for dump in dumps:
        dump.cut_row(dump.width)
        if not dump.complete:
            dump.unwrap(min(len(dump.rest), dump.width - len(dump.row)))
    return [dump.table() for dump in dumps]


def _without_markup(text: str) -> str:
    """The text of a web page that shows a dump."""
    if "&" in text or "<" in text:
        text = _MARKUP.sub("", _BREAK.sub("\n", text))
        text = html.unescape(text).replace("\xa0", " ")
    return text


def _in_digits(row: re.Match[str]) -> str:
    """A row of characters as a row of bytes; blanks at the end of the last one fill it up."""
    whole = row[2] if row[3] is None else row[2].rstrip()
    cells = (whole[at + 1 : at + 4] for at in range(0, len(whole), 4))
    return row[1] + "".join(f" {_code(cell):02x}" for cell in cells)


def _code(cell: str) -> int:
    if cell.strip().isdecimal() and cell[0] != " ":
        return int(cell, 8)
    letter = cell[-1]
    return {"0": 0, **ESCAPES}[letter] if cell[1] == "\\" else ord(letter)


def _without_numbers(text: str) -> str:
    """Text without numbers of lines, where each is one more than the one before."""
    numbers = [int(match[2]) for match in _NUMBERED.finditer(text)]
    if len(numbers) > 1 and all(two - one == 1 for one, two in itertools.pairwise(numbers)):
        return _NUMBERED.sub(r"\1", text)
    return text


def dump_lines(text: str) -> Iterator[tuple[int, bytes]]:
    """Offset and bytes, in the order of memory, of every line that a dump may have."""
    for read in map(_parts, text.splitlines()):
        if read:
            digits, data, word = read
            words = (data[at : at + word][::-1] for at in range(0, len(data), word))
            yield int(digits, 16), b"".join(words)


def _has_offsets(text: str) -> bool:
    """Whether the first two lines begin with the offsets of dump lines."""
    lines = [line for line in text.splitlines() if line.strip()][:2]
    first = [read for read in map(_parts, lines) if read]
    if len(first) < 2:
        return False
    return int(first[1][0], 16) - int(first[0][0], 16) == len(first[0][1])


def _read_line(line: str, number: int, dumps: list[Dump]) -> None:
    """Add the bytes of a line to the last dump, or begin one with it."""
    read = _parts(line)
    if read is None:
        if dumps:
            dumps[-1].rest = _row(line)
        return
    digits, data, word = read
    offset, last = int(digits, 16), dumps[-1] if dumps else None
    if last and last.word == 1 and word == len(data):
        word = 1  # the short end of rows without gaps
    if last and last.repeats:
        last.repeat_to(offset if offset <= last.end + MOST_REPEATED else last.end)
    offsets = (offset, *_other_offsets(digits))
    follows = last and (last.end in offsets or offset == last.row_start + last.width < last.end)
    if last and not follows and last.cut_short and len(digits) == 2 and (rest := _row(line)):
        last.rest = rest
        return
    if last:
        if last.row_start < offset < last.end:
            last.cut_row(offset - last.row_start)
        last.unwrap(min((each - last.end for each in offsets if each > last.end), default=0))
    if last and word == last.word and last.end in offsets:
        last.add(data)
        return
    begun = Dump(offset, bytearray(data), word, data)
    signed = data in KNOWN or data[::-1] in KNOWN  # no more in the line
    if offset == 0 or signed or table_starts(begun.table()):
        dumps.append(begun)
    elif len(data) >= CLEARLY_A_DUMP and (last is None or not last.complete):
        raise DumpError(f"line {number}: hex data of offset 0x{offset:x} is out of order")


def _other_offsets(digits: str) -> Iterator[int]:
    """What digits can be as an offset of od, octal or decimal, or of ``xxd -d``, decimal."""
    for base in {7: (8, 10), 8: (10,)}.get(len(digits), ()):
        if set(digits) <= set("0123456789"[:base]):
            yield int(digits, base)


def _parts(line: str) -> tuple[str, bytes, int] | None:
    """A line of a dump: digits of its offset, bytes in the order printed, bytes of a word."""
    if match := _ACPIVIEW.match(line):
        data, word = _line_bytes(line[match.end() :])
        return (match[1], data, word) if data else None
    line = _TIME.sub("", line.translate(_DRAWN), count=1)
    for match in _OFFSET.finditer(line.partition(_FIELD)[0]):
        data, word = _line_bytes(line[match.end() :])
        if data:
            return match[1], data, word
    return None


def _line_bytes(text: str) -> tuple[bytes, int]:
    """The hex column of a dump line, without the text column, and the bytes of a word."""
    if match := _UNBROKEN.match(text):
        return bytes.fromhex(match[1]), 1
    if _SPACED.fullmatch(text.rstrip()):
        text = " ".join(text.split())
    elif match := _MIDDLE.match(text):
        text = f"{match[0]} {text[match.end() + 3 :]}"
    words: list[str] = []
    position = 0
    while len(words) <= MOST_BYTES_OF_A_LINE and (match := _WORD.match(text, position)):
        if words and len(match[1]) != len(words[0]) and not _short_end(text, match, words):
            break
        words.append(match[1])
        position = match.end()
        if not (gap := _GAP.match(text, position)):
            break
        position = gap.end()
        if text[position - 1] == "," and text[position : position + 1] == " ":
            position += 1
        if text[position : position + 1] == " ":
            if len(words) != 8 or len(words[0]) != 2 or text[position + 1 : position + 2] == " ":
                break
            position += 1
    digits = "".join(words)
    word, half = divmod(len(words[0]), 2) if words else (1, 0)
    if half or len(digits) % 2 or len(digits) > 2 * MOST_BYTES_OF_A_LINE or word not in WORD_BYTES:
        return b"", 1
    return bytes.fromhex(digits), word


def _short_end(text: str, match: re.Match[str], words: list[str]) -> bool:
    """Whether this is the last, shorter word of a line, as xxd prints an odd number of bytes."""
    return len(match[1]) < len(words[0]) and text[match.end() : match.end() + 2].strip() == ""


def _row(line: str) -> bytes:
    """The bytes of a row without an offset."""
    match = _ROW.fullmatch(_QUOTE.sub("", line).rstrip())
    return bytes.fromhex(match[1].replace("-", " ")) if match else b""


def _rows(text: str) -> Iterator[list[bytes]]:
    """The bytes of rows without offsets, from the first one on that begins a table.

    First with rows no longer than that one, whose text begins with the signature: text behind
    others may look like bytes.
    """
    rows = filter(None, map(_row, text.splitlines()))
    table = list(itertools.dropwhile(lambda row: row[:4] not in SIGNATURES, rows))
    if table:
        yield [b"".join(row[: len(table[0])] for row in table)]
        yield [b"".join(table)]
