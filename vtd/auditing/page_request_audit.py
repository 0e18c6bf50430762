"""Audit of page requests: every response has to answer a group whose last request was received.

VT-d 7.4 to 7.7 and 7.10. Left out: what software makes of a request.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from devices.source_id import SourceId
from pagetables.bits import BitRecord
from vtd.auditing.waits import tells
from vtd.layouts.descriptors import (
    DeviceTlbInvalidateDescriptor,
    PasidDeviceTlbInvalidateDescriptor,
)
from vtd.severity import ERROR, Severity
from vtd.unit.caching.caches import PasidCacheEntry
from vtd.unit.observer import CacheName, Observer
from vtd.unit.queues.page_requests import is_stop_marker
from vtd.unit.reporting.events import Event, PageGroupResponseSent, PageRequestReceived
from vtd.unit.unit import RemappingUnit


class Wrong(Enum):
    """What is wrong with a page group response, or with a PASID that groups wait for."""

    NO_GROUP = "answers no group that is waiting", "7.6.1"
    TWICE = "answers a group a second time", "7.6.1"
    EARLY = "answers a group whose last request has not been received", "7.6.1"
    UNDRAINED = "a PASID got another address space while a group was waiting for it", "7.10"
    IN_FLIGHT = (
        "a PASID got another address space before a wait descriptor drained them",
        "7.10, 7.11",
    )

    def __init__(self, text: str, section: str) -> None:
        self.text = text
        self.section = section


class PageRequestFinding(NamedTuple):
    """A response, or another use of a PASID, against the rules."""

    wrong: Wrong
    source_id: int
    pasid: int | None
    group: int
    """PRGI."""

    @property
    def title(self) -> str:
        """What the verdict is called."""
        return "page request"

    @property
    def severity(self) -> Severity:
        return ERROR

    @property
    def text(self) -> str:
        """What is wrong, without the section."""
        pasid = "" if self.pasid is None else f", PASID {self.pasid:#x}"
        who = f"{SourceId(self.source_id)}{pasid}, group {self.group}"
        given_away = self.wrong in (Wrong.UNDRAINED, Wrong.IN_FLIGHT)
        subject = "page requests of" if given_away else "response to"
        return f"{subject} {who}: {self.wrong.text}"

    def __str__(self) -> str:
        return f"{self.text} (VT-d {self.wrong.section})"


Group = tuple[int, int | None, int]
Key = tuple[int, int]
"""Source-id and PASID, which is RID_PASID for requests without one."""


@dataclass
class _Waiting:
    key: Key
    complete: bool = False
    """Whether its last request has been received."""


class PageRequestAudit(Observer):
    """Watches the page requests of ``unit`` from now on.

    ``line`` is where the reader of a log is.
    """

    def __init__(self, unit: RemappingUnit) -> None:
        self.line = 0
        self.judged: list[tuple[int, PageRequestFinding]] = []
        self._unit = unit
        self._waiting: dict[Group, _Waiting] = {}
        self._answered: dict[Group, Key] = {}
        self._flushed: set[Group] = set()
        """Of those that were answered: whose device-TLB was invalidated since."""
        self._spaces: dict[Key, object] = {}
        """What each PASID of a source-id stands for."""
        self._asked: Key = (0, 0)
        """Whose PASID entry was looked up last: that of a page request before it is received."""
        unit.subscribe(self._event)
        unit.observe(self)

    @property
    def findings(self) -> list[PageRequestFinding]:
        """What was found so far."""
        return [finding for _, finding in self.judged]

    def detach(self) -> None:
        """Watch no more; the findings stay."""
        self._unit.unsubscribe(self._event)
        self._unit.ignore(self)

    def asked(self, cache: CacheName, key: Any, entry: object) -> None:
        """A PASID entry is looked up."""
        if cache is CacheName.PASID:
            self._asked = key

    def kept(self, cache: CacheName, key: Any, entry: object) -> None:
        """A PASID entry is in use: the same as before, or one for another address space."""
        if cache is not CacheName.PASID or not isinstance(entry, PasidCacheEntry):
            return
        space = _space(entry)
        before = self._spaces.get(key)
        if space is None or before == space:
            return
        self._spaces[key] = space
        if before is None:
            return
        groups = [group for group, waiting in self._waiting.items() if waiting.key == key]
        for group in groups:
            del self._waiting[group]
            self._found(Wrong.UNDRAINED, group)
        if not groups and "pds" in self._unit.capabilities.features:
            self._judge_drained(key)

    def _judge_drained(self, key: Key) -> None:
        """Requests of a PASID may be on their way until they are drained (7.10, 7.11)."""
        for group in [group for group, other in self._answered.items() if other == key]:
            del self._answered[group]
            self._found(Wrong.IN_FLIGHT, group)

    def invalidated(self, command: BitRecord) -> None:
        """A wait descriptor drains what came before the answer to an invalidation (7.10)."""
        if isinstance(command, _OF_DEVICES):
            self._flushed |= {group for group in self._answered if group[0] == command.sid}
        elif tells(command) and command.pd:
            for group in self._flushed:
                self._answered.pop(group, None)
            self._flushed.clear()

    def _event(self, event: Event) -> None:
        match event:
            case PageRequestReceived(source_id=source_id, request=request, queued=True) if (
                not is_stop_marker(request)
            ):  # which asks for no response (11.4.3, SMS)
                group = source_id, request.pasid, request.group_index
                self._answered.pop(group, None)
                waiting = self._waiting.setdefault(group, _Waiting(self._asked))
                waiting.complete |= request.last
            case PageGroupResponseSent(source_id=source_id, response=response, automatic=automatic):
                group = source_id, response.pasid, response.group_index
                waiting_for = self._waiting.pop(group, None)
                if automatic:
                    return
                if waiting_for is None:
                    twice = group in self._answered
                    self._found(Wrong.TWICE if twice else Wrong.NO_GROUP, group)
                    return
                if not waiting_for.complete:
                    self._found(Wrong.EARLY, group)
                self._answered[group] = waiting_for.key
                self._flushed.discard(group)
            case _:
                pass

    def _found(self, wrong: Wrong, group: Group) -> None:
        self.judged.append((self.line, PageRequestFinding(wrong, *group)))


_OF_DEVICES = DeviceTlbInvalidateDescriptor, PasidDeviceTlbInvalidateDescriptor


def _space(entry: PasidCacheEntry) -> object:
    """What tells one address space from another: domain-id and tables; None if there is none."""
    if isinstance(entry.value, Exception):
        return None
    stages = entry.value.first, entry.value.second
    return entry.domain_id, [stage and stage.root for stage in stages]
