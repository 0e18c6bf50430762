"""Audit of device-TLBs: every translated request has to rest on a translation still in force.

VT-d 4.2.5, 6.5.3.3. A unit trusts the address of a translated request unless a host permission
table says otherwise; the audit knows what the unit gave to whom, and what was taken back. Between a
change of the tables and the completion of the invalidation that it calls for, the old translation
may be used: an invalidation that is sent before software waits excuses it, a missing one does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from devices.dma import READ, WRITE, AddressType, InvalidationRequest, Request
from devices.source_id import SourceId
from pagetables.bits import BitRecord
from vtd.auditing.waits import tells
from vtd.severity import ERROR, WARNING, Severity
from vtd.unit.observer import Observer
from vtd.unit.reporting.events import (
    DeviceTlbInvalidationCompleted,
    DeviceTlbInvalidationSent,
    DeviceTlbInvalidationTimedOut,
    Event,
    TranslatedRequestPassed,
    TranslationGiven,
)
from vtd.unit.translation.ats import answer
from vtd.unit.translation.remapping import onlooker
from vtd.unit.unit import RemappingUnit


class Misuse(Enum):
    """What is wrong with a translated request."""

    NEVER_GIVEN = "the address was never given to the requester"
    INVALIDATED = "the translation was invalidated, and the device said so"
    NOT_GRANTED = "the translation does not grant this access"
    OUTDATED = "the tables changed and no device-TLB invalidation followed"


class DeviceTlbFinding(NamedTuple):
    """A translated request that went to memory and should not have been sent."""

    misuse: Misuse
    request: Request
    given: TranslationGiven | None
    """The translation it seems to rest on."""

    @property
    def title(self) -> str:
        """What the verdict is called."""
        return self.misuse.value

    @property
    def severity(self) -> Severity:
        """Of a driver that forgot: an error. Devices may do what nobody can hold them from."""
        return ERROR if self.misuse is Misuse.OUTDATED else WARNING

    def __str__(self) -> str:
        kind = "write" if self.request.access & WRITE else "read"
        source = SourceId(self.request.source_id)
        origin = f" for {self.given.address:#x}" if self.given else ""
        return (
            f"translated {kind} of {source} at {self.request.address:#x}{origin}: "
            f"{self.misuse.value} (VT-d 4.2.5)"
        )


@dataclass
class _Grant:
    given: TranslationGiven
    number: int
    """Place in the order of events."""
    in_force: bool = True

    @property
    def rights(self) -> int:
        entry = self.given.entry
        return (READ if entry.r else 0) | (WRITE if entry.w else 0)

    def covered_by(self, request: InvalidationRequest) -> bool:
        given = self.given
        tagged = given.pasid is not None if request.global_ else given.pasid == request.pasid
        start = given.address & -given.entry.size
        end = start + given.entry.size
        return tagged and start < request.address + request.size and request.address < end


class DeviceTlbAudit(Observer):
    """Watches the device-TLBs behind ``unit`` from now on.

    ``uses`` counts the translated requests that were checked. ``line`` is where the reader of a
    log is.
    """

    def __init__(self, unit: RemappingUnit) -> None:
        self.uses = 0
        self.line = 0
        self._judged: list[tuple[int, DeviceTlbFinding]] = []
        self._open: list[tuple[int, DeviceTlbFinding, _Grant]] = []
        """Uses of translations that an invalidation may still take back in time."""
        self._unit = unit
        self._number = 0
        self._grants: dict[tuple[int, int, int], list[_Grant]] = {}
        """By source-id, log2 of the size and output page."""
        self._shifts: set[int] = set()
        self._sent: dict[tuple[int, InvalidationRequest], int] = {}
        unit.subscribe(self._event)
        unit.observe(self)

    def detach(self) -> None:
        """Watch no more; the findings stay."""
        self._unit.unsubscribe(self._event)
        self._unit.ignore(self)

    @property
    def findings(self) -> list[DeviceTlbFinding]:
        """Every misuse, as if all ended now."""
        return [finding for _, finding in self.judged()]

    def judged(self) -> list[tuple[int, DeviceTlbFinding]]:
        """Every misuse with the line of the log."""
        still_open = [(line, finding) for line, finding, _ in self._open]
        return sorted([*self._judged, *still_open], key=lambda each: each[0])

    def invalidated(self, command: BitRecord) -> None:
        """Software has waited: what it has not taken back by now is missing."""
        if tells(command):
            self._judged += [(line, finding) for line, finding, _ in self._open]
            self._open.clear()

    def _event(self, event: Event) -> None:
        match event:
            case TranslationGiven():
                self._give(event)
            case DeviceTlbInvalidationSent(source_id, request):
                self._sent[source_id, request] = self._number
                self._open = [
                    (line, finding, grant)
                    for line, finding, grant in self._open
                    if not (grant.given.source_id == source_id and grant.covered_by(request))
                ]
            case DeviceTlbInvalidationCompleted(source_id, request):
                before = self._sent.pop((source_id, request), self._number)
                for grant in self._covered(source_id, request):
                    grant.in_force &= grant.number > before
            case DeviceTlbInvalidationTimedOut(source_id, request):
                self._sent.pop((source_id, request), None)
            case TranslatedRequestPassed(request=passed):
                self._judge(passed)

    def _give(self, given: TranslationGiven) -> None:
        entry = given.entry
        if entry.u or not (entry.r or entry.w):
            return
        self._number += 1
        shift = entry.size.bit_length() - 1
        self._shifts.add(shift)
        grants = self._grants.setdefault((given.source_id, shift, entry.address >> shift), [])
        grants[:] = [each for each in grants if each.given != given]
        grants.append(_Grant(given, self._number))

    def _covered(self, source_id: int, request: InvalidationRequest) -> list[_Grant]:
        return [
            grant
            for (owner, _, _), grants in self._grants.items()
            if owner == source_id
            for grant in grants
            if grant.covered_by(request)
        ]

    def _judge(self, request: Request) -> None:
        self.uses += 1
        known = [
            grant
            for shift in self._shifts
            for grant in self._grants.get((request.source_id, shift, request.address >> shift), ())
        ]
        in_force = [grant for grant in known if grant.in_force]
        granting = [grant for grant in in_force if not request.access & ~grant.rights]
        if any(self._up_to_date(grant, request) for grant in granting):
            return
        if granting:
            misuse, grants = Misuse.OUTDATED, granting
        elif in_force:
            misuse, grants = Misuse.NOT_GRANTED, in_force
        elif known:
            misuse, grants = Misuse.INVALIDATED, known
        else:
            misuse, grants = Misuse.NEVER_GIVEN, []
        finding = DeviceTlbFinding(misuse, request, grants[-1].given if grants else None)
        if misuse is Misuse.OUTDATED:
            self._open.append((self.line, finding, grants[-1]))
        else:
            self._judged.append((self.line, finding))

    def _up_to_date(self, grant: _Grant, request: Request) -> bool:
        """Whether the tables still give this translation, or an invalidation is on its way."""
        for source_id, sent in self._sent:
            if source_id == request.source_id and grant.covered_by(sent):
                return True
        given, size = grant.given, grant.given.entry.size
        offset = request.address & size - 1
        address = (given.address & -size) + offset
        now = answer(
            onlooker(self._unit.remapping),
            Request(
                given.source_id,
                address,
                READ,
                8,
                given.pasid,
                given.privileged,
                AddressType.TRANSLATION_REQUEST,
            ),
        ).completion.entries
        if not now:
            return False
        entry = now[0]
        rights = (READ if entry.r else 0) | (WRITE if entry.w else 0)
        where = entry.address & -entry.size | address & entry.size - 1
        return where == request.address and not request.access & ~rights
