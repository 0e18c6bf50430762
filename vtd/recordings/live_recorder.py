"""Writes recordings of live units line by line, in the format of :mod:`vtd.recordings.live`.

What units read, store and send during an operation stands before it. Left out: the answers of
device-TLBs to invalidations, which a replay gives at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import astuple
from functools import partial
from typing import Any

from devices.dma import MESSAGE, Completion, PageRequest, Request
from devices.interrupt_messages import INTERRUPT_RANGE
from pagetables.observer import Structure
from vtd.dmar.table import Table
from vtd.recordings.live import FORMAT, replayable
from vtd.recordings.live_lines import Tagged
from vtd.unit.caching.policy import POLICIES
from vtd.unit.observer import Observer
from vtd.unit.reporting.events import Event, MessageSent
from vtd.unit.unit import RemappingUnit


class LiveRecorder:
    """Records ``units``, one for each DRHD of ``table``, from reset on.

    ``sink`` takes each line of text. ``about`` is added to the first line for its readers.
    """

    def __init__(
        self,
        sink: Callable[[str], object],
        table: Table,
        units: Iterable[RemappingUnit],
        **about: Any,
    ) -> None:
        self._sink = sink
        self._before: list[list[Any]] = []
        self._known: dict[tuple[int, int], int] = {}
        units = list(units)
        sink(json.dumps(_head(table, units, about)) + "\n")
        for number, unit in enumerate(units):
            unit.observe(_Accesses(self, number))
            unit.subscribe(partial(self._sent, number))

    def saw(self, address: int, size: int, value: int) -> None:
        """What memory holds now: a unit is about to read it, or an audit found it changed."""
        if self._known.get((address, size)) != value:
            self._known[address, size] = value
            self._before.append(["m", address, size, value])

    def stored(self, kind: str, address: int, size: int, value: int) -> None:
        """A unit stores something itself."""
        self._known[address, size] = value
        self._before.append(["u", kind, address, size, value])

    def _sent(self, number: int, event: Event) -> None:
        if isinstance(event, MessageSent):
            self._before.append(["e", number, *event.message])

    def ended(self, *line: Any) -> None:
        """An operation of software or of a device, whose line this is, has been dealt with."""
        for each in (*self._before, line):
            self._sink(json.dumps(each, separators=(",", ":")) + "\n")
        self._before.clear()


def _head(table: Table, units: list[RemappingUnit], about: dict[str, Any]) -> dict[str, Any]:
    names = {policy: name for name, policy in POLICIES.items()}
    (options,) = {unit.options for unit in units}
    return {
        "format": FORMAT,
        **about,
        "dmar_hex": table.pack().hex(),
        "units": [
            {
                "version": int(unit.capabilities.version),
                "cap": hex(unit.capabilities.cap),
                "ecap": hex(unit.capabilities.ecap),
                "host_address_width": unit.capabilities.host_address_width,
                "registers": _constants(unit),
            }
            for unit in units
        ],
        "caches": names[options.caches],
        "reads_ahead": replayable(options.caches) != options.caches,
        "departures": list(options.departures.names),
    }


def _constants(unit: RemappingUnit) -> dict[str, str]:
    *_, constants = unit.made_of
    return {hex(offset): hex(value) for offset, value in constants.items()}


class _Accesses(Observer):
    """What happens to one unit."""

    def __init__(self, recorder: LiveRecorder, number: int) -> None:
        self._recorder = recorder
        self._number = number
        self._updating = 0

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        self._recorder.saw(address, size, value)

    def update(self, structure: Structure, address: int, size: int, old: int, new: int) -> None:
        self._updating = size

    def updated(self, structure: Structure, address: int, new: int, *, done: bool) -> None:
        if done:
            self._recorder.stored("update", address, self._updating, new)

    def write(self, structure: Structure, address: int, data: bytes) -> None:
        self._recorder.stored("write", address, len(data), int.from_bytes(data, "little"))

    def register_read(self, offset: int, size: int, value: int) -> None:
        self._recorder.ended("r", self._number, offset, size, int(value))

    def register_written(self, offset: int, size: int, value: int) -> None:
        self._recorder.ended("w", self._number, offset, size, int(value))

    def answered(self, request: Request, answer: int | Completion) -> None:
        source_id, address, access, _, pasid, _, address_type, payload = request.plain
        if access == MESSAGE:
            if isinstance(payload, PageRequest):
                queued = isinstance(answer, Completion) and answer.ok
                self._recorder.ended("p", int(source_id), *astuple(payload), queued)
            return
        if pasid is not None or address_type:
            self._recorder.ended("t", *Tagged.of(request, answer))
            return
        if address in INTERRUPT_RANGE and isinstance(payload, bytes) and len(payload) == 4:
            data = int.from_bytes(payload, "little")
            delivered = isinstance(answer, Completion) and answer.ok
            self._recorder.ended("i", int(source_id), address, data, delivered)
        else:
            physical = answer if isinstance(answer, int) else None
            self._recorder.ended("d", int(source_id), address, access, physical)
