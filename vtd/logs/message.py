"""What kinds of messages are: a pattern, how much it matters, what it means, what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple


class Weight(Enum):
    """How much a message matters, most first; the values are what commands print."""

    PROBLEM = "problem"
    NOTICE = "notice"
    NORMAL = "normal"
    UNKNOWN = "unknown"


class Message(NamedTuple):
    """One kind of message; ``since`` and ``until`` are the first and last version seen to have it.

    Of Linux these versions were looked at: see ``tests/vtd/logs/linux_formats.txt``. Empty means
    that it is in the newest, or that versions do not matter.
    """

    weight: Weight
    pattern: str
    """Regular expression found in the line; it quotes the message, nothing else here does."""
    meaning: str
    look_at: str
    """What to do, empty if there is nothing to do."""
    since: str
    until: str
    system: str


def _message(weight: Weight, versions: str, pattern: str, meaning: str, look_at: str) -> Message:
    since, _, until = versions.partition("-")
    return Message(weight, pattern, meaning, look_at, since, until, "Linux")


def problem(versions: str, pattern: str, meaning: str, look_at: str) -> Message:
    """Something is wrong: with firmware, the machine, a driver or the kernel."""
    return _message(Weight.PROBLEM, versions, pattern, meaning, look_at)


def notice(versions: str, pattern: str, meaning: str, look_at: str = "") -> Message:
    """Worth knowing, and not wrong."""
    return _message(Weight.NOTICE, versions, pattern, meaning, look_at)


def normal(versions: str, pattern: str, meaning: str) -> Message:
    """What a healthy machine prints."""
    return _message(Weight.NORMAL, versions, pattern, meaning, "")


_NUMBER = re.compile(r"(?<=0x)[0-9a-f]+|[0-9][0-9a-f]*")
_TELLING = (
    *("address 0", "dma_map(", "DmaMap(", "DMA remapping, error", "(os error"),
    *("heck was: 0x", "Arg1: ", "x2apic_opt_out:"),
)
"""Where one of these is in a line, its numbers can make it another message."""
_REMEMBERED = 20_000


class Catalogue:
    """Messages to look up; of several that fit a line the first counts."""

    def __init__(self, messages: Iterable[Message]) -> None:
        self.messages = tuple(messages)
        self._compiled = [(re.compile(each.pattern), each) for each in self.messages]
        self._known: dict[str, Message | None] = {}

    def find(self, text: str) -> Message | None:
        """The message of a line, None if there is none."""
        return self.find_by_shape(shape_of(text), text)

    def find_by_shape(self, shape: str, text: str) -> Message | None:
        """The message of a line of a shape; lines of one shape are looked up once."""
        if shape in self._known:
            return self._known[shape]
        found = next((each for pattern, each in self._compiled if pattern.search(text)), None)
        if len(self._known) < _REMEMBERED:
            self._known[shape] = found
        return found


def shape_of(text: str) -> str:
    """What lines have in common that differ in their numbers only and are of one kind."""
    if any(map(text.__contains__, _TELLING)):
        return text
    return _NUMBER.sub("0", text)
