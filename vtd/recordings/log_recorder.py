"""A platform log of what a driver does, from any object with memory and one with registers.

The log is for ``vtd audit`` and ``vtd lint``. Stores and register writes are noted as they pass;
what devices do is told with :meth:`LogRecorder.step`. Left out: live units, which
:mod:`vtd.recordings.live_recorder` records.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from vtd.unit.registers.capabilities import Capabilities


class LogRecorder:
    """Gives ``write`` a line of text at a time: first the head, then a step for each access.

    ``capabilities``: of the unit, or of each of several. ``regions``: start and length of the
    memory. ``devices``: source-ids by name, with the number of the unit where it is not the first.
    ``stores_wait``: units that do not snoop see stores once they are flushed.
    """

    def __init__(
        self,
        write: Callable[[str], object],
        capabilities: Capabilities | Iterable[Capabilities],
        regions: Iterable[tuple[int, int]],
        devices: Mapping[str, int | tuple[int, int]],
        *,
        stores_wait: bool = False,
    ) -> None:
        self._write = write
        units = [capabilities] if isinstance(capabilities, Capabilities) else capabilities
        behind = {name: (at, 0) if isinstance(at, int) else at for name, at in devices.items()}
        head = {
            "format": 1,
            "units": [
                {
                    "version": hex(each.version),
                    "cap": hex(each.cap),
                    "ecap": hex(each.ecap),
                    "host_address_width": each.host_address_width,
                }
                for each in units
            ],
            "memory": [[hex(start), hex(length)] for start, length in regions],
            "devices": {
                name: {"source_id": hex(source_id), "unit": unit}
                for name, (source_id, unit) in behind.items()
            },
            "stores_wait": stores_wait,
        }
        write(json.dumps(head) + "\n")

    def step(self, op: str, **fields: Any) -> None:
        """Note a step of ``tests/vectors/FORMAT.md``, such as the DMA of a device."""
        self._write(json.dumps({"op": op, **fields}) + "\n")

    def memory(self, memory: Any) -> Any:
        """The memory, for a driver: what stores there, and ``flush``, is noted."""
        return _Recorded(
            memory,
            {
                "write": self._stored,
                "load": self._stored,
                "compare_exchange": partial(self._exchanging, memory),
                "flush": self._flushed,
            },
        )

    def registers(self, registers: Any, unit: int = 0) -> Any:
        """The registers of a unit, for a driver: its ``write_register`` is noted."""
        return _Recorded(registers, {"write_register": partial(self._register_written, unit)})

    def _stored(self, address: int, data: bytes) -> None:
        self.step("mem_write", addr=hex(address), hex=bytes(data).hex())

    def _exchanging(self, memory: Any, address: int, size: int, expected: int, new: int) -> None:
        if memory.read_record(address, size) == expected:
            self._stored(address, new.to_bytes(size, "little"))

    def _flushed(self, address: int, length: int) -> None:
        self.step("mem_flush", addr=hex(address), length=length)

    def _register_written(self, unit: int, offset: int, size: int, value: int) -> None:
        of_unit = {"unit": unit} if unit else {}
        self.step("reg_write", offset=hex(offset), size=size, value=hex(value), **of_unit)


class _Recorded:
    """An object, some of whose methods are noted before they are called."""

    def __init__(self, recorded: Any, noted: Mapping[str, Callable[..., None]]) -> None:
        self._recorded = recorded
        self._noted = noted

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._recorded, name)
        note = self._noted.get(name)
        if note is None:
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            note(*arguments, *named.values())
            return found(*arguments, **named)

        return call
