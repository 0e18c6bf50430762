"""A platform log of what a driver does, from any object with memory and one with registers.

The log is for ``vtd audit`` and ``vtd lint``. Stores and register writes are noted as they pass;
what devices do is told with :meth:`LogRecorder.step`. Left out: live units, which
:mod:`vtd.recordings.live_recorder` records.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from vtd.unit.registers.capabilities import Capabilities


class LogRecorder:
    """Gives ``write`` a line of text at a time: first the head, then a step for each access.

    ``regions``: start and length of the memory. ``devices``: source-ids by name.
    """

    def __init__(
        self,
        write: Callable[[str], object],
        capabilities: Capabilities,
        regions: Iterable[tuple[int, int]],
        devices: Mapping[str, int],
    ) -> None:
        self._write = write
        head = {
            "format": 1,
            "unit": {
                "version": hex(capabilities.version),
                "cap": hex(capabilities.cap),
                "ecap": hex(capabilities.ecap),
                "host_address_width": capabilities.host_address_width,
            },
            "memory": [[hex(start), hex(length)] for start, length in regions],
            "devices": {name: {"source_id": hex(each)} for name, each in devices.items()},
        }
        write(json.dumps(head) + "\n")

    def step(self, op: str, **fields: Any) -> None:
        """Note a step of ``tests/vectors/FORMAT.md``, such as the DMA of a device."""
        self._write(json.dumps({"op": op, **fields}) + "\n")

    def memory(self, memory: Any) -> Any:
        """The memory, for a driver: its ``write`` and ``load`` are noted."""
        return _Recorded(memory, {"write": self._stored, "load": self._stored})

    def registers(self, registers: Any) -> Any:
        """The registers, for a driver: its ``write_register`` is noted."""
        return _Recorded(registers, {"write_register": self._register_written})

    def _stored(self, address: int, data: bytes) -> None:
        self.step("mem_write", addr=hex(address), hex=bytes(data).hex())

    def _register_written(self, offset: int, size: int, value: int) -> None:
        self.step("reg_write", offset=hex(offset), size=size, value=hex(value))


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

        def call(*arguments: Any) -> Any:
            note(*arguments)
            return found(*arguments)

        return call
