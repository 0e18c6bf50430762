"""The requests of a replay, explained before each is made, with what the IOTLB holds for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from devices.dma import Request
from vtd.inspection.request_explanation import (
    RequestExplanation,
    cached,
    explain_request,
    is_interrupt,
)
from vtd.inspection.request_rows import request_row
from vtd.layouts.registers import GlobalStatus
from vtd.rows import Hex
from vtd.unit.caching.iotlb import IotlbEntry
from vtd.unit.unit import RemappingUnit


@dataclass(frozen=True)
class TracedRequest:
    """A request, the way its tables have for it, and what the IOTLB holds for it already."""

    step: str
    request: Request
    explained: RequestExplanation | None
    """None where nothing is translated."""
    held: IotlbEntry | None

    @property
    def stale(self) -> bool:
        """Whether the IOTLB leads elsewhere than the tables."""
        if self.held is None or self.explained is None:
            return False
        now = self.explained.outcome and self.explained.outcome.physical
        return now != self.held.physical + self.request.address - self.held.address


class TracedRequests:
    """The requests of one file; those of the last run, if there were two."""

    def __init__(self) -> None:
        self._unit: RemappingUnit | None = None
        self._requests: list[TracedRequest] = []

    def __iter__(self) -> Iterator[TracedRequest]:
        return iter(self._requests)

    def follow(self, unit: RemappingUnit, step: str, request: Request) -> None:
        """Explain a request before it happens; a :data:`vtd.recordings.replay.Trace`."""
        if unit is not self._unit:
            self._unit = unit
            self._requests.clear()
        remapped = unit.registers[GlobalStatus].tes and not is_interrupt(request)
        explained = explain_request(unit.remapping, request) if remapped else None
        held = cached(unit.caches.iotlb, request) if remapped else None
        self._requests.append(TracedRequest(step, request, explained, held))

    def rows(self) -> Iterator[Mapping[str, object]]:
        """The requests that are translated: step, explanation, address in the IOTLB."""
        for each in self._requests:
            if each.explained is not None:
                held = None if each.held is None else Hex(each.held.physical)
                yield {"step": each.step, **vars(request_row(each.explained)), "cached": held}
