"""A log file as lines of text: decoded, without what a crash or a mail left in it, with a limit.

The file is read in blocks, so that a log of any length needs little memory.
"""

from __future__ import annotations

import codecs
import html
import re
from collections.abc import Iterator
from typing import BinaryIO

from vtd.mail import unquoted

BLOCK = 1 << 20
JOINED = "\0"
"""Stands for a line that a mail broke off the one above, which has it again."""
LARGEST_LOG = 1 << 30
"""Bytes; a year of a talkative server has less."""
MOST_STRANGE = 0.25
"""Share of a log's characters that may be none of text; a console that colours lines adds some."""

_CONTROLS: dict[int, None] = {
    code: None for code in (*range(32), 0x7F) if chr(code) not in "\t\n\v\f\r\b\x1b"
}


_ENTITY = re.compile(r"&(?:lt|gt|quot|nbsp|amp|#\d{2,3}|#[xX][0-9a-fA-F]{2});")
_NUMBERS = re.compile(r'(?P<name>"MESSAGE"\s*:\s*)\[(?P<codes>(?:\s*\d{1,3},?)+)\s*\]', re.ASCII)
"""A message in the journal's JSON that has characters which are not printable."""


class LogError(ValueError):
    """A file that holds no log; the message says why."""


def lines_of(stream: BinaryIO) -> Iterator[str]:
    """The lines of a log without their ends; LogError for what is no text, or too much of it.

    A mail, which is not larger than a block, is read as its author wrote it (:mod:`vtd.mail`).
    """
    block = stream.read(BLOCK)
    utf_16 = block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    decoder = codecs.getincrementaldecoder("utf-16" if utf_16 else "utf-8")("replace")
    size = strange = characters = 0
    blank = True
    rest = ""
    while block:
        # NULs, which a crash leaves in a log, count only where there is nothing else
        size += len(block)
        if size > LARGEST_LOG:
            raise LogError(f"more than {LARGEST_LOG >> 20} MiB, not read")
        text = decoder.decode(block)
        bare = text.replace("\0", "") or text
        characters += len(bare)
        strange += _strange(bare)
        if strange > MOST_STRANGE * characters:
            raise LogError("not the text of a kernel log")
        *whole, rest = (rest + _plain(bare, is_mail=size == len(block))).split("\n")
        blank = blank and not rest.strip() and not any(map(str.strip, whole))
        yield from whole
        if len(rest) > BLOCK:
            yield rest
            rest = ""
        block = stream.read(BLOCK)
    if blank:
        raise LogError("empty")
    yield rest + decoder.decode(b"", final=True)


def _plain(text: str, *, is_mail: bool) -> str:
    """Text without NULs, and without what mails and web pages put in the place of characters."""
    text = text.replace("\0", "")
    text = (unquoted(text, JOINED) if is_mail else text).replace("\xa0", " ")
    if '"MESSAGE"' in text:
        text = _NUMBERS.sub(_message, text)
    return html.unescape(text) if _ENTITY.search(text) else text


def _message(match: re.Match[str]) -> str:
    """The message as text; the lines of its numbers are kept, empty."""
    codes = map(int, match["codes"].replace(",", " ").split())
    text = bytes(code for code in codes if code < 256).decode("utf-8", "replace")
    return f'{match["name"]}"{" ".join(text.split())}"' + "\n" * match[0].count("\n")


def _strange(text: str) -> int:
    """Characters that no text has."""
    return len(text) - len(text.translate(_CONTROLS)) + text.count("\ufffd")
