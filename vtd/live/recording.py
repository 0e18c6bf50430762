"""What a machine's units saw and did, line by line: the format live-1 (docs/live.md).

A line is a JSON array; the first one is an object that says what units there were. Memory lines
come before the operation that read them, what the unit stored or sent before the line of the
operation that caused it. Left out: what device-TLBs ask, are told and send.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from devices.dma import READ, WRITE, AddressType, Completion, Request
from pagetables.observer import Structure
from vtd.dmar.description import describe
from vtd.dmar.table import Table
from vtd.live.machine import LiveMachine
from vtd.unit.observer import Observer
from vtd.unit.reporting.events import Event, MessageSent
from vtd.unit.translation.translate import INTERRUPT_MEGABYTE
from vtd.unit.unit import RemappingUnit

FORMAT = "live-1"


class Recording:
    """Watches every unit of ``machine``; ``write`` is given each line, with its end.

    ``about`` are further entries of the first line.
    """

    def __init__(
        self,
        machine: LiveMachine,
        table: Table,
        write: Callable[[str], object],
        about: Mapping[str, Any],
    ) -> None:
        self._write = write
        self._known: dict[int, int] = {}
        """What a replay has in memory, by number of the 4 bytes."""
        units = [machine.platform.units[each.register_base] for each in table.units]
        self._line({"format": FORMAT, **about, **_head(machine, table, units)})
        for number, unit in enumerate(units):
            UnitRecorder(self, number, unit)

    def operation(self, *line: Any) -> None:
        """Something that a replay does, or compares."""
        self._line(list(line))

    def memory(self, address: int, size: int, value: int) -> None:
        """A unit read memory; a line for what a replay does not know."""
        if self._learn(address, size, value):
            self._line(["m", address, size, value])

    def store(self, kind: str, address: int, size: int, value: int) -> None:
        """A unit stores something itself."""
        self._learn(address, size, value)
        self._line(["u", kind, address, size, value])

    def _learn(self, address: int, size: int, value: int) -> bool:
        known, news = self._known, False
        for number in range(address >> 2, address + size >> 2):
            part = value & 0xFFFF_FFFF
            value >>= 32
            if known.get(number) != part:
                known[number] = part
                news = True
        return news

    def _line(self, line: object) -> None:
        self._write(json.dumps(line, separators=(",", ":")) + "\n")


class UnitRecorder(Observer):
    """The lines of one unit."""

    def __init__(self, recording: Recording, number: int, unit: RemappingUnit) -> None:
        self._recording = recording
        self._number = number
        self._updating = 0
        unit.observe(self)
        unit.subscribe(self._happened)

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        """Memory that the operation depends on."""
        self._recording.memory(address, size, value)

    def update(self, structure: Structure, address: int, size: int, old: int, new: int) -> None:
        """How many bytes the update that follows has."""
        self._updating = size

    def updated(self, structure: Structure, address: int, new: int, *, done: bool) -> None:
        """A flag or a descriptor was changed."""
        if done:
            self._recording.store("update", address, self._updating, int(new))

    def write(self, structure: Structure, address: int, data: bytes) -> None:
        """A status or a page request is stored."""
        self._recording.store("write", address, len(data), int.from_bytes(data, "little"))

    def answered(self, request: Request, answer: int | Completion) -> None:
        """A page of a transfer, or an interrupt."""
        source_id, address, access, length, pasid, _, address_type, payload = request
        if address_type is not AddressType.UNTRANSLATED or access not in (READ, WRITE):
            return
        interrupt = address >> 20 == INTERRUPT_MEGABYTE and access == WRITE and length == 4
        if interrupt and pasid is None and isinstance(payload, bytes):
            data = int.from_bytes(payload, "little")
            delivered = isinstance(answer, Completion) and answer.ok
            self._recording.operation("i", source_id, address, data, delivered)
            return
        physical = answer if isinstance(answer, int) else None
        line = ["d", source_id, address, access, physical]
        self._recording.operation(*line, *(() if pasid is None else (pasid,)))

    def register_read(self, offset: int, size: int, value: int) -> None:
        """A read of software."""
        self._recording.operation("r", self._number, offset, size, int(value))

    def register_written(self, offset: int, size: int, value: int) -> None:
        """A write of software."""
        self._recording.operation("w", self._number, offset, size, int(value))

    def _happened(self, event: Event) -> None:
        if isinstance(event, MessageSent):
            address, data = event.message
            self._recording.operation("e", self._number, int(address), int(data))


def _head(machine: LiveMachine, table: Table, units: list[RemappingUnit]) -> dict[str, Any]:
    return {
        "dmar_toml": describe(table),
        "dmar_hex": table.pack().hex(),
        "units": [
            {
                "version": int(each.capabilities.version),
                "cap": hex(each.capabilities.cap),
                "ecap": hex(each.capabilities.ecap),
                "host_address_width": each.capabilities.host_address_width,
            }
            for each in units
        ],
        "devices": [
            {
                "bdf": each.name.partition(":")[2],
                "model": type(each.served.function).__name__.lower(),
            }
            for each in machine.endpoints[1:]
        ],
    }
