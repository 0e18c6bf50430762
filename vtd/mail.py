"""Text as a mail carries it: quoted-printable (RFC 2045, section 6.7) undone.

Mail archives hand out messages undecoded, and people copy lines out of them: ``=3D`` stands for an
equals sign, and an equals sign at the end of a line says that the line goes on in the next.
"""

from __future__ import annotations

import re

_HEADER = re.compile(
    r"^content-transfer-encoding:\s*quoted-printable", re.IGNORECASE | re.MULTILINE
)
_BYTES = r"(?:(?:0x)?[0-9a-fA-F]{1,16}h?[,\s]\s*){4}|(?:[0-9a-fA-F]{16}\s+){2}"
_BROKEN = re.compile(
    rf"^(?=.{{69,75}}(?<![=\s])=\r?$)(?=.*\S\s+\S)(?!.*(?<!\w)(?:{_BYTES})).*$", re.MULTILINE
)
"""A line as long as lines are broken at (76 characters, less where an escape would be cut).

Rows of bytes, with the equals sign in their text, and base64 may look like one.
"""
_SOFT_BREAK = re.compile(r"^.*=\r?$", re.MULTILINE)
_TELLING = re.compile(r"=(?:3D|09|20$|[C-F][0-9A-F]=[89AB][0-9A-F])", re.MULTILINE)
"""Escapes that encoders write most, and that plain text hardly has."""
_ESCAPES = re.compile(r"(?:=[0-9A-F]{2})+")


def unquoted(text: str, mark: str | None = None) -> str:
    """Text without quoted-printable; other text as it is.

    With a mark, a line that was joined of several is followed by one mark for each break, so that
    lines keep their numbers.
    """
    has_header = _HEADER.search(text) is not None
    if not has_header and _BROKEN.search(text) is None:
        return text
    is_escaped = has_header or _TELLING.search(text) is not None
    broken = _SOFT_BREAK if is_escaped else _BROKEN
    lines: list[str] = []
    whole, breaks = "", 0
    for line in text.split("\n"):
        if broken.fullmatch(line):
            whole += line.rstrip("\r")[:-1]
            breaks += 1
            continue
        lines += [whole + line, *([] if mark is None else [mark] * breaks)]
        whole, breaks = "", 0
    if breaks:
        lines.append(whole)
    undone = "\n".join(lines)
    return _ESCAPES.sub(_characters, undone) if is_escaped else undone


def _characters(match: re.Match[str]) -> str:
    data = bytes.fromhex(match[0].replace("=", ""))
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")
