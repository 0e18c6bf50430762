"""A log read as a whole: its faults, its messages about remapping, what it tells of the platform.

Every line that speaks of DMA or interrupt remapping is accounted for: as a fault or part of one, as
a message of a known kind, or as unknown. Lines that a mail program or terminal broke are put
together again where that gives something known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from vtd.logs import facts as platform_facts
from vtd.logs.catalogue import MESSAGES, linux_core, linux_mapping, linux_units, other_systems
from vtd.logs.facts import Facts
from vtd.logs.fault import FaultGroup, FaultGroups, FoldedFaults, LoggedFault
from vtd.logs.fault_forms import LINUX_TARGET, LINUX_WHOLE, Reading, Role, read_fault
from vtd.logs.fault_forms import WORDS as FAULT_WORDS
from vtd.logs.fault_record import settled
from vtd.logs.lines import strip, without_colours
from vtd.logs.message import Catalogue, Message, Weight, shape_of
from vtd.logs.pairing import Pairing
from vtd.logs.queue_errors import read_queue_error
from vtd.logs.table_dump import TableDump
from vtd.logs.topic import candidates, is_about, is_source

MOST_JOINED = 4
"""Lines that one message may have been broken into."""
LEAST_WRAPPED = 40
"""Characters of the shortest line, time and host included, that a mail program breaks."""
MOST_WORDS_IN_FRONT = 3
"""As in ``DMAR: [Firmware Bug]:``."""
SAME_HEAD = 6
"""Characters that lines behind times and hosts mostly have in common, and their rests do not."""
LONGEST = 4096
"""Characters of a line that are looked at together; no message is longer."""
MOST_SHAPES = 10_000
"""Kinds of lines that are remembered."""
_MARKS = re.compile(r"[\s>|`*#+]*")
_OTHERS = re.compile(
    r"(?:[0-9a-f]{4}:)?[0-9a-f]{2}:[01][0-9a-f]\.[0-7] [A-Z\"]|[\w.-]+: (?:error|warning|fatal)\b|"
    r"[\w.-]+\.(?:c|cc|cpp|go|rs|py): *\d+:|EAL: ",
    re.ASCII,
)
"""How a function begins in a listing of lspci, or what a program says: no rest of a message."""
SAME_EVENT = 8
"""Lines within which messages about the invalidation queue are about one stop."""

FAULT_STATUS = {
    0: "records overflowed, faults were lost",
    1: "a fault record is pending",
    2: "the advanced fault log overflowed, faults were lost",
    3: "a fault is pending in the advanced fault log",
    4: "the invalidation queue met an error",
    5: "an invalidation completion was wrong",
    6: "an invalidation timed out",
    7: "the page request queue overflowed",
}
"""Bits of FSTS_REG (11.4.7.1; 2, 3 and 7 of earlier revisions)."""
COMMON_FEATURES = frozenset({"smts", "flts", "slts", "nest", "pasid"})
"""Features that Linux from 5.13 to 6.12 uses only where all units have them."""

CATALOGUE = Catalogue(MESSAGES)
DUMPS = linux_mapping.DUMP_ENTRY, linux_mapping.DUMP_END, other_systems.XEN_DUMP
"""Messages that print table entries for the fault before."""
_CUT_SHORT = ("Request", "[DMA", "[DMA Read", "[DMA Write", "NO_PASID]", "INTR-REMAP:")
"""Ends of a line that is the start of a fault."""
_RUN_ON = re.compile(
    r"(?<=\S)\s+(?=\[ *\d+\.\d{6}\])|"
    r"(?<=\S)(?<!DMAR:)(?<!dmar:)\s*"
    r"(?=(?:DMAR: ?)?(?:\[DMA (?:[Rr]ead|[Ww]rite)|INTR-REMAP\]?: ?Request))",
    re.ASCII,
)
"""Where another message begins in a line that lost its line feeds, or that two processors wrote."""
_BEGINS = re.compile(
    r"(?:DMAR|dmar|IOMMU|Intel-IOMMU|PCI-DMA|VT-d|\[VT-D\])[\w-]*(?: \d+)?:", re.ASCII
)
"""A text that is no rest of another."""
_FACT = re.compile(platform_facts.WORDS)
_STATUS = re.compile(r"fault status reg (?:0x)?([0-9a-f]+)", re.ASCII)
_VALUE = re.compile(r"\b(?:0x)?[0-9a-f]*[0-9][0-9a-f]*\b", re.ASCII)
"""Numbers, in which unknown lines of one group differ."""
_FAULT_LIKE = re.compile(
    r"\bfault (?:addr|index|reason)\b|Request device ?\[[^\]]*\] fault\b", re.IGNORECASE
)
"""What no line has that tells of no fault."""
_FEATURE_NAME = re.compile(r"IOMMU feature (\w+) inconsistent", re.ASCII)


class LogLine(NamedTuple):
    """A line about remapping that is no fault."""

    line: int
    whole: str
    """The line as it stands in the log; the parts of a broken one joined."""

    @property
    def text(self) -> str:
        """The line without time, host and log level in front."""
        return strip(self.whole).text


@dataclass
class MessageGroup:
    """Lines of one meaning; unknown lines are grouped by their text."""

    weight: Weight
    meaning: str | None
    look_at: str | None
    lines: list[LogLine] = field(default_factory=list)


class Log(NamedTuple):
    """What a log tells."""

    faults: list[FoldedFaults]
    messages: list[MessageGroup]
    """By weight, then in the order of the log."""
    facts: Facts

    @property
    def is_clean(self) -> bool:
        """No fault, no problem, and something understood where there is something to understand."""
        weights = {group.weight for group in self.messages}
        return not (self.faults or Weight.PROBLEM in weights or weights == {Weight.UNKNOWN})


def read_log(lines: Iterable[str]) -> Log:
    """Read the lines of a log, numbered from 1."""
    reader = _Reader()
    previous = ""
    for number, line, is_candidate in candidates(lines):
        if line[:SAME_HEAD] != previous[:SAME_HEAD] and reader.mends(number, previous, line):
            previous = f"{previous.rstrip()} {strip(line).text}"
            continue
        if is_candidate or reader.is_open:
            reader.read(number, line, is_candidate)
        previous = line
    return reader.finish()


def is_wrapped(previous: str, line: str) -> bool:
    """Whether a line may be the rest of the one before, which a mail program wrapped."""
    text, has_head = strip(line)
    return (
        len(previous) >= LEAST_WRAPPED
        and not has_head
        and any(map(str.isalnum, text))
        and strip(previous).has_head
        and _marks(line) in ("", _marks(previous))
        and _OTHERS.match(text) is None
    )


def _marks(line: str) -> str:
    """The marks of a quote in front of a line, without blanks."""
    match = _MARKS.match(line)
    return "".join(match[0].split()) if match else ""


def message_of(text: str) -> Message | None:
    """The known kind of a text that is a message by itself."""
    return CATALOGUE.find(text) if is_about(text) else None


class _Open(NamedTuple):
    """A line that may go on in the next."""

    number: int
    whole: str
    parts: int
    began: bool = False
    """Whether it began a fault, which waits for its other half."""
    message: Message | None = None
    """What it is taken for if it stands alone; None for unknown."""

    @property
    def text(self) -> str:
        """The line without what stands in front of its message."""
        return strip(self.whole).text


@dataclass
class _Latest:
    """The last line of a known kind, which may have been wrapped."""

    message: Message
    lines: list[LogLine]
    """Where it is counted, as the last one."""
    last: int
    """The number of the line that it ends with."""

    @property
    def parts(self) -> int:
        """How many lines it is made of."""
        return self.last - self.lines[-1].line + 1


class _Shape(NamedTuple):
    """What lines are that differ in their numbers only."""

    message: Message | None
    """None for unknown."""
    has_fact: bool
    """Whether they tell something of the platform too."""


class _Reader:
    def __init__(self) -> None:
        self._faults = FaultGroups()
        self._pairing = Pairing()
        self._dump = TableDump()
        self._reason: int | None = None
        self._facts = Facts()
        self._groups: dict[tuple[Weight, str], MessageGroup] = {}
        self._queue_events: list[list[LogLine]] = []
        self._open: _Open | None = None
        self._latest: _Latest | None = None
        self._repeated: dict[tuple[object, ...], tuple[FaultGroup, int | None]] = {}
        """Groups, and their reasons, by what their lines say apart from the address."""
        self._shapes: dict[str, _Shape] = {}

    @property
    def is_open(self) -> bool:
        """Whether the last line may go on in the next."""
        return self._open is not None

    def mends(self, number: int, previous: str, line: str) -> bool:
        """Whether a line is the rest of the one before, and counted in as that.

        The one before is of no kind without its rest, of one that others begin with, or cut short
        within its message.
        """
        if self._open is not None or not is_wrapped(previous, line):
            return False
        latest = self._latest if self._latest and self._latest.last == number - 1 else None
        start, text = strip(previous).text, strip(line).text
        message = message_of(f"{start} {text}")
        stands_alone = _BEGINS.match(text) or message_of(text) or read_fault(text, number)
        if message is None or stands_alone:
            return False
        first = number - 1
        if latest is not None:
            if latest.message.weight is Weight.PROBLEM is not message.weight:
                return False
            if latest.parts >= MOST_JOINED:
                return False
            first = latest.lines.pop().line
        elif message_of(start) is not None:
            return False
        whole = f"{previous.rstrip()} {text}"
        self._add_message(first, whole, message, last=number)
        if _FACT.search(whole):
            self._facts.read(whole)
        return True

    def read(self, number: int, line: str, is_candidate: bool) -> None:
        """Read the next line; those that are no candidates may be left out while none is open."""
        if len(line) > LONGEST or line.count("DMAR") > 1 or line.count("Request device") > 1:
            for piece in _pieces(line):
                self._read_piece(number, piece, is_candidate)
        else:
            self._read_piece(number, line, is_candidate)

    def _read_piece(self, number: int, line: str, is_candidate: bool) -> None:
        """Read a line, or one of several messages that stand in it."""
        line = without_colours(line.rstrip())
        if self._open is not None and self._goes_on(number, line):
            return
        if not is_candidate or ("Request device" in line and self._repeats(number, line)):
            return
        if "reason" in line or "Request device" in line:
            reading = read_fault(line, number)
            if reading is not None and reading.fault is not None:
                self._take(number, line, reading, 1)
                return
        shape = shape_of(line)
        known = self._shapes.get(shape)
        if known is not None:
            if known.message is None:
                self._open = _Open(number, line, 1)
            else:
                self._add_message(number, line, known.message)
            if known.has_fact:
                self._facts.read(line)
            return
        has_fact = _FACT.search(line) is not None
        if is_about(line):
            self._read_about(number, line, shape, has_fact)
        if has_fact:
            self._facts.read(line)

    def _repeats(self, number: int, line: str) -> bool:
        """Count in a fault that differs from an earlier one in its address only.

        A device that goes astray floods the log, so these take the short way.
        """
        match = LINUX_WHOLE.pattern.search(line)
        if match is None:
            return False
        groups = match.groups()
        target = groups[LINUX_TARGET]
        key = *groups[:LINUX_TARGET], *groups[LINUX_TARGET + 1 :], "(XEN)" in line
        known = self._repeated.get(key)
        if known is not None:
            self._faults.latest, self._reason = known
            known[0].add(number, int(target, 16))
            return True
        fault = LINUX_WHOLE.decode(match, number)
        self._take(number, line, Reading(LINUX_WHOLE, fault), 1)
        if self._faults.latest and fault and fault.kind is settled(fault).kind:
            self._repeated[key] = self._faults.latest, fault.reason
        return True

    def finish(self) -> Log:
        """What was read."""
        self._close()
        for fault in self._pairing.give_up():
            self._add(fault)
        for event in filter(None, self._queue_events):
            error = read_queue_error([line.text for line in event])
            group = self._group(Weight.PROBLEM, error.meaning, error.look_at)
            group.lines += event
        order = list(Weight)
        groups = (group for group in self._groups.values() if group.lines)
        messages = sorted(groups, key=lambda group: order.index(group.weight))
        return Log(self._faults.folded(), messages, self._facts)

    def _read_about(self, number: int, line: str, shape: str, has_fact: bool) -> None:
        reading = read_fault(line, number)
        if reading is not None and reading.fault is not None:
            self._take(number, line, reading, 1)
            return
        message = CATALOGUE.find_by_shape(shape, line)
        if message is None or message is linux_core.FIRMWARE_BUG:
            self._open = _Open(number, line, 1, message=message)
            if message is None and not any(word in line for word in FAULT_WORDS):
                self._remember(shape, None, has_fact)
            return
        self._add_message(number, line, message)
        if reading is None:
            self._remember(shape, message, has_fact)

    def _remember(self, shape: str, message: Message | None, has_fact: bool) -> None:
        if len(self._shapes) < MOST_SHAPES:
            self._shapes[shape] = _Shape(message, has_fact)

    def _take(self, number: int, line: str, reading: Reading, parts: int) -> None:
        """A line that is a fault, or part of one."""
        fault = reading.fault
        assert fault is not None
        for given_up in self._pairing.give_up(number):
            self._add(given_up)
        if reading.form.role is Role.WHOLE:
            self._add(settled(fault))
        elif reading.form.role is Role.BEGINS:
            self._pairing.begin(fault)
            self._open = _Open(number, line, parts, began=True)
        else:
            for each in self._pairing.complete(fault):
                self._add(each)

    def _goes_on(self, number: int, line: str) -> bool:
        """Whether the line is the rest of the one before, broken by a mail program or terminal."""
        opened = self._open
        assert opened is not None
        text, has_head = strip(line)
        is_rest = not has_head and text and opened.parts < MOST_JOINED
        if is_rest and not _stands_alone(text, opened):
            start = opened.text
            joined = [f"{start} {text}", start + text]
            if start.endswith("="):  # a soft break of quoted-printable text
                joined.append(start[:-1] + text)
            if any(self._join_fault(opened, each) for each in joined):
                return True
            if self._join_message(opened, text, joined) or self._extend(opened, text, joined[0]):
                return True
        self._close()
        return False

    def _join_fault(self, opened: _Open, joined: str) -> bool:
        """A line that is a fault together with its rest, unless it is the half of another."""
        reading = read_fault(joined, opened.number)
        if reading is None or reading.fault is None or reading.form.role is Role.COMPLETES:
            return False
        if opened.began:
            if reading.form.role is Role.BEGINS or self._pairing.waits(reading.fault.system) > 1:
                return False
            if self._pairing.last.target is not None and reading.fault.target is None:
                return False
            self._pairing.withdraw()
        self._open = None
        self._take(opened.number, joined, reading, opened.parts + 1)
        return True

    def _join_message(self, opened: _Open, text: str, joined: list[str]) -> bool:
        """A line that is of a known kind together with its rest, which is of none by itself.

        Or one of which no more is left than the words in front of its message.
        """
        is_start = (
            opened.message is None
            and len(opened.text.split()) <= MOST_WORDS_IN_FRONT
            and strip(opened.whole).has_head
        )
        if opened.began or (message_of(text) is not None and not is_start):
            return False
        found = ((each, CATALOGUE.find(each)) for each in joined)
        for line, message in found:
            if message not in (None, opened.message):
                assert message is not None
                self._open = None
                self._add_message(opened.number, line, message)
                return True
        return False

    def _extend(self, opened: _Open, text: str, joined: str) -> bool:
        """A line and its rest that are still cut short: the next line may tell more."""
        is_cut = "Request device" in joined or opened.text.endswith(_CUT_SHORT)
        if opened.began and not text.startswith("[fault"):
            stands_alone = is_about(text)
        else:
            stands_alone = CATALOGUE.find(text) is not None
        if not is_cut or stands_alone:
            return False
        self._open = opened._replace(whole=joined, parts=opened.parts + 1)
        return True

    def _close(self) -> None:
        """The open line stands alone."""
        opened, self._open = self._open, None
        if opened is None or opened.began:
            return
        text = opened.text
        if opened.message is not None:
            self._add_message(opened.number, text, opened.message)
            return
        line = LogLine(opened.number, text)
        if _FAULT_LIKE.search(text):
            group = self._group(
                Weight.PROBLEM, "a fault, in no form that is known", "the line itself"
            )
            group.lines.append(line)
            return
        self._group(Weight.UNKNOWN, _VALUE.sub("0", text), None).lines.append(line)

    def _add(self, fault: LoggedFault) -> None:
        self._reason = fault.reason
        self._dump = TableDump()
        self._faults.add(fault)

    def _add_message(self, number: int, text: str, message: Message, last: int = 0) -> None:
        line = LogLine(number, text)
        if message is linux_units.QUEUE_ERROR:
            events = self._queue_events
            if events and (not events[-1] or number - events[-1][-1].line <= SAME_EVENT):
                events[-1].append(line)
            else:
                events.append([line])
            self._latest = _Latest(message, events[-1], last or number)
            return
        meaning, look_at = message.meaning, message.look_at
        if message is linux_units.FAULT_STATUS and (match := _STATUS.search(text)):
            meaning = _status(int(match[1], 16))
        elif message is linux_units.FEATURE and (match := _FEATURE_NAME.search(text)):
            meaning = _feature(match[1])
        elif message in DUMPS:
            self._dump.read(text)
            self._faults.add_dump(self._dump.level, self._dump.contradiction(self._reason))
        lines = self._group(message.weight, meaning, look_at).lines
        lines.append(line)
        self._latest = _Latest(message, lines, last or number)

    def _group(self, weight: Weight, key: str, look_at: str | None) -> MessageGroup:
        group = self._groups.get((weight, key))
        if group is None:
            meaning = None if weight is Weight.UNKNOWN else key
            group = self._groups[weight, key] = MessageGroup(weight, meaning, look_at)
        return group


def _pieces(line: str) -> Iterator[str]:
    """The messages of a line."""
    for piece in _RUN_ON.split(line):
        for start in range(0, len(piece), LONGEST):
            yield piece[start : start + LONGEST]


def _stands_alone(text: str, opened: _Open) -> bool:
    """Whether a line is no rest of the one before: source, or a fault that is told on one line."""
    if is_source(text):
        return True
    reading = read_fault(text, 0)
    is_fault = reading is not None and reading.form.role is Role.WHOLE
    return is_fault and len(opened.text.split()) > MOST_WORDS_IN_FRONT


@lru_cache(1024)
def _status(value: int) -> str:
    bits = [words for bit, words in FAULT_STATUS.items() if value >> bit & 1]
    return f"the unit reports: {'; '.join(bits) or 'nothing'}"


def _feature(name: str) -> str:
    if name in COMMON_FEATURES:
        return (
            f"units differ in {name}; Linux (5.13 to 6.12) uses it only where all units have it, "
            "so it is not used"
        )
    return linux_units.FEATURE.meaning
