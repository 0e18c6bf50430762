"""Numbers that people write; bare digits are hexadecimal in registers and addresses.

Registers and addresses are printed in hexadecimal by kernels, sysfs and the specification, mostly
without 0x; counts and revisions are printed in decimal.
"""

from __future__ import annotations

import re

_HEX = re.compile(
    r"(0[xX][0-9A-Fa-f]+(?:_[0-9A-Fa-f]+)*)[uU]?[lL]{0,2}|([0-9A-Fa-f]+(?:_[0-9A-Fa-f]+)*)[hH]?",
    re.ASCII,
)
"""Behind the digits C has a type, and the specification and assemblers an h."""
_COUNT = re.compile(r"0[xX][0-9A-Fa-f]+|[0-9]+", re.ASCII)
HEXADECIMAL = "hexadecimal, with or without 0x"
COUNT = "decimal, or hexadecimal with 0x"


def parse_hexadecimal(text: str) -> int:
    """A register or an address; ValueError if the text is none."""
    match = _HEX.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no number: {HEXADECIMAL}, such as 0x7b000000")
    return int(match[1] or match[2], 16)


def parse_count(text: str) -> int:
    """A count or a revision; ValueError if the text is none."""
    if not _COUNT.fullmatch(text):
        raise ValueError(f"{text!r} is no number: {COUNT}")
    return int(text, 16 if text[:2].lower() == "0x" else 10)
