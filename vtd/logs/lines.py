"""What stands in front of a message in a log: quotes, times, hosts, levels, and colours.

Reads the forms of dmesg, journal, syslog, /dev/kmsg, serial and hypervisor consoles, alone or one
after the other, and what mail programs and web pages put in front of them.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

_COLOUR = re.compile(r"(?:\x1b|\^\[|ESC|#033|\\(?:0?33|x1b|u001b|e)|\u241b)\[[0-9;?]*[A-Za-z]")
"""Also as cat -v, less, syslog, strace and JSON write the first character of it."""
_ESCAPES = "^[[", "ESC[", "33[", "1b[", "\\e[", "\u241b["
_QUOTE = r"[\s>|`*#+\ufeff]*"
_WORD = r"[^\s\[\]:]{1,10}"
"""A day or month in the language of the reporter: Wed, Mi, mer., Mär, 11月."""

_HEADS = (
    r"<\d{1,3}>(?:1 )?",  # syslog priority
    r"\d+,\d+,\d+,[-c+](?:,[^;]*)?;",  # /dev/kmsg
    r"(?:kern|user|daemon|syslog)\s*:\s*[a-z]+\s*:",  # dmesg -x
    r"\[\s*[+<]?\s*\d+\.\d+(?:[,<>][^\]]*)?\]",  # seconds since the start, or since the last
    r"\[\s*[TC]\d+\]",  # the thread or processor that printed
    rf"\[{_WORD} {_WORD} +\d+ [\d:]+ \d{{4}}\]",  # dmesg -T
    r"\[?\d{4}-\d\d-\d\d[T ][\d:.,]{5,18}(?:Z|[+-]\d\d:?\d\d)?\]?:?",
    rf"{_WORD} +\d{{1,2}} (?:\d{{4}} )?\d\d:\d\d:\d\d(?:\.\d+)?",
    r"\d\d:\d\d:\d\d(?:[.,]\d+)?",
    r"(?:[\w.-]+ )?(?:kernel|vmunix|vmkernel)(?:\[\d+\])?:",
    r"\((?:XEN|d\d+)\)",
    r"cpu\d+:\d+(?: [\w=]+)?\)",  # ESXi
    r"\[init(?: -> [^\]]*)?\]",  # Genode
    r"\[\d+us\](?:\[[^\]]*\])+:",  # ACRN
)
_PREFIX = re.compile(rf"{_QUOTE}((?:(?:{'|'.join(_HEADS)})\s*)*)", re.ASCII)


class Stripped(NamedTuple):
    """A line without what stands in front of its message."""

    text: str
    has_head: bool
    """Whether a time, host, level or the like was there: a new message, not more of the last."""


def without_colours(line: str) -> str:
    """A line without what makes a terminal show colours."""
    if "\x1b" in line or ("[" in line and any(each in line for each in _ESCAPES)):
        return _COLOUR.sub("", line)
    return line


@lru_cache(8)  # a line is looked at as the next of one, and as the one before the next
def strip(line: str) -> Stripped:
    """The message of a line."""
    line = without_colours(line)
    match = _PREFIX.match(line)
    if match is None:
        return Stripped(line.strip(), False)
    return Stripped(line[match.end() :].rstrip(), bool(match[1]))
