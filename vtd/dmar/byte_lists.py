"""Tables as programs write bytes: arrays, lists and strings of C, Python, JSON and others, base64.

A list is found by the signature it begins with, in each of the writings of a byte. It goes on
until something else than a byte, punctuation, a comment or the word for "bytes follow" comes.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

SIGNATURES = (b"DMAR", b"RMAD", b"RAMD", b"APIC", b"HPET", b"SRAT")
"""Of the tables that are read."""
_GAP = r"[^0-9A-Za-z-]*(?:(?:db|byte|u8|[0-9A-F]{7}\b)[^0-9A-Za-z-]*)*"
"""Regular expression: between two elements. od and hexdump print offsets of seven digits."""


class Writing(NamedTuple):
    """A way to write a byte, or a word of two."""

    form: str
    """For ``format``; of a signature, whose bytes have two digits in every base but 8."""
    element: str
    """Regular expression, whose group has the digits."""
    base: int
    size: int = 1
    """Bytes of an element, least significant first."""
    gap: str = _GAP
    """Regular expression: what is between two elements."""


_LINE_END = r"(?:[\"' \t>|+\\]*\n[\"' \t>|]*(?=(?:[0-9A-F]{2})+(?![0-9A-Z])))?"
"""Regular expression: between two lines of digits."""
_BITS_GAP = r"[ \t]*(?:[^\n]*\n[\s>|]*[0-9A-F]+: )??"
"""Regular expression: between two bytes in binary, as ``xxd -b`` prints them."""
WRITINGS = (
    Writing("{:08b}", r"([01]{8})(?![0-9A-Z])", 2, gap=_BITS_GAP),
    Writing("0x{:x}", r"0x([0-9A-F]{1,2})(?![0-9A-F])", 16),
    Writing("{:x}h", r"([0-9A-F]{2})h", 16, gap=_GAP + "0?"),
    Writing("{:d}", r"(-?\d{1,3})(?![0-9A-Z])", 10),
    Writing("{:o}", r"([0-7]{3})(?![0-9A-Z])", 8),
    Writing("{:06o}", r"([0-7]{6})(?![0-9A-Z])", 8, size=2),
    Writing("{:x}", r"([0-9A-F]{2})(?![0-9A-Z])", 16, gap=r"[^0-9A-Za-z]*"),
    Writing("{:x}", r"([0-9A-F]{2})", 16, gap=_LINE_END),
)
_BEFORE = re.compile(r"(?:^|[^0-9A-Z])(?:0x?)?$", re.IGNORECASE)
"""What may be before the first element, as the end of three characters."""
_COMMENT = re.compile(r"/\*.*?\*/|(?://|[#;])[^\n]*", re.DOTALL)
_LITERAL = re.compile(r"([\"'])((?:\\.|(?!\1)[^\\\n])*)\1")
_JOIN = re.compile(r'"[\s>|+\\]*\n[\s>|]*[bB]?"|\\\n')
"""Between two parts of one string."""


def _any(patterns: Iterable[str]) -> str:
    return f"(?:{'|'.join(patterns)})"


def _escaped(signature: bytes) -> str:
    """A signature as a string has it before more escapes, or as escapes."""
    escapes = "".join(rf"\\(?:x{byte:x}|0?{byte:o})" for byte in signature)
    return rf"{signature.decode()}(?=.?\\)|{escapes}"


_STRING = re.compile(rf"{_any(map(_escaped, SIGNATURES))}(?:\\.|[ !#-\[\]-~])*", re.IGNORECASE)
_BASE64 = re.compile(
    rf"(?<![A-Za-z0-9+/]){_any(base64.b64encode(each)[:5].decode() for each in SIGNATURES)}"
    r"[A-Za-z0-9+/=_-]*(?:[ \t\r>|*]*\n[ \t>|*]*[A-Za-z0-9+/=_-]+)*"
)
_CHARACTER = re.compile(r"\\x([0-9A-F]{2})|\\([0-7]{1,3})|\\(.)|(.)", re.IGNORECASE)
ESCAPES = dict(zip("abtnvfr", range(7, 14), strict=True))


def listed_tables(text: str) -> Iterator[list[bytes]]:
    """For each writing what begins like a known table in a text, whole or not.

    What looks like a comment is one, unless the list is in it.
    """
    plain = _COMMENT.sub(" ", text)
    for writing in WRITINGS:
        yield list(_lists(plain, writing)) or list(_lists(text, writing))
    yield list(_strings(text))
    yield list(map(_decoded, _BASE64.findall(text)))


def _lists(text: str, writing: Writing) -> Iterator[bytes]:
    element = re.compile(f"{writing.gap}{writing.element}", re.IGNORECASE)
    position = 0
    for start in _starts(text, writing):
        if start < position:
            continue
        data = bytearray()
        position = start
        while match := element.match(text, position):
            value = int(match[1], writing.base)
            if not -0x80 <= value < 1 << 8 * writing.size:
                break
            data += (value & (1 << 8 * writing.size) - 1).to_bytes(writing.size, "little")
            position = match.end()
        yield bytes(data)


def _starts(text: str, writing: Writing) -> list[int]:
    """Where a signature stands."""
    words = (
        [int.from_bytes(each[at : at + writing.size], "little") for at in range(0, 4, writing.size)]
        for each in SIGNATURES
    )
    signature = _any(writing.gap.join(map(writing.form.format, each)) for each in words)
    found = (match.start() for match in re.finditer(signature, text, re.IGNORECASE))
    return [start for start in found if _BEFORE.search(text[max(0, start - 3) : start])]


def _strings(text: str) -> Iterator[bytes]:
    """The bytes of strings with escapes, up to the quote that ends them."""
    alike = _LITERAL.sub(lambda literal: '"' + literal[2].replace('"', r"\x22") + '"', text)
    for string in _STRING.findall(_JOIN.sub("", alike)):
        yield bytes(map(_character, _CHARACTER.finditer(string)))


def _character(match: re.Match[str]) -> int:
    hexadecimal, octal, escaped, plain = match.groups()
    if hexadecimal:
        return int(hexadecimal, 16)
    if octal:
        return int(octal, 8) & 0xFF
    return ESCAPES.get(escaped, ord(escaped)) if escaped else ord(plain)


def _decoded(text: str) -> bytes:
    """The bytes of base64, of either alphabet, cut where it was."""
    digits = re.sub(r"[\s>|*]", "", text).translate(str.maketrans("-_", "+/")).partition("=")[0]
    whole = len(digits) // 4 * 4 if len(digits) % 4 == 1 else len(digits)
    return base64.b64decode(digits[:whole] + "=" * (-whole % 4))
