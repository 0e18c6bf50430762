"""Writes recordings of live units line by line, in the format of :mod:`vtd.recordings.live`.

Whoever carries out operations on the units tells the recorder of each when it has ended; what the
units read, stored and sent meanwhile is noted here and stands before it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from pagetables.observer import Structure
from vtd.dmar.table import Table
from vtd.recordings.live import FORMAT
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
            unit.observe(_Accesses(self))
            unit.subscribe(partial(self._sent, number))

    def register_read(self, unit: int, offset: int, size: int, value: int) -> None:
        """Software has read a register of a unit."""
        self._ended("r", unit, offset, size, value)

    def register_written(self, unit: int, offset: int, size: int, value: int) -> None:
        """Software has written a register of a unit."""
        self._ended("w", unit, offset, size, value)

    def page_requested(
        self, source_id: int, address: int, access: int, physical: int | None
    ) -> None:
        """A request, or its part in one page, was let through to ``physical`` or refused."""
        self._ended("d", source_id, address, access, physical)

    def interrupt_requested(
        self, source_id: int, address: int, data: int, *, delivered: bool
    ) -> None:
        """An interrupt request has been dealt with."""
        self._ended("i", source_id, address, data, delivered)

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

    def _ended(self, *line: Any) -> None:
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
            }
            for unit in units
        ],
        "caches": names[options.caches],
        "departures": list(options.departures.names),
    }


class _Accesses(Observer):
    """What a unit reads and stores."""

    def __init__(self, recorder: LiveRecorder) -> None:
        self._recorder = recorder
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
