"""A driver that is tried: what it has to do, in Python, in C, or as a process with line-JSON.

A driver gets registers and memory, and is told what its users want. It may fail an operation with
:class:`DriverError`, which then counts as not done. ``docs/fuzzing.md`` has the messages.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from pagetables.memory import BusError
from vtd.software.memory import FlushableMemory
from vtd.software.registers import Registers

READ, WRITE = 1, 2


class DriverError(Exception):
    """An operation that the driver does not carry out."""


class BrokenDriverError(Exception):
    """A driver that crashed, stopped answering or said what makes no sense."""


class TriedDriver(Protocol):
    """What a driver under test implements; domains are numbers that the harness chooses.

    Its memory is from ``memory_start`` to ``memory_end``; pages that it is to map lie elsewhere.
    A unit may see stores there once they are flushed (``memory.flush``), as ``vtd drive
    --stores-wait`` has it. When an operation returns, its invalidations are complete. ``access``:
    1 read, 2 write, 3 both.
    """

    def reset(self) -> None:
        """Start from nothing: tables, queue, translation on."""

    def attach(self, source_id: int, domain: int) -> None:
        """Have the requests of a function translated by a domain, which may be new."""

    def detach(self, source_id: int) -> None:
        """Block the requests of a function."""

    def map(self, domain: int, address: int, physical: int, length: int, access: int) -> None:
        """Map pages where nothing is mapped."""

    def unmap(self, domain: int, address: int, length: int) -> None:
        """Take pages away; their memory is used again when this returns."""

    def protect(self, domain: int, address: int, length: int, access: int) -> None:
        """Change the rights of mapped pages."""

    def interrupt_allocate(self, source_id: int, vector: int) -> int:
        """An interrupt-remapping entry; its index."""
        ...

    def interrupt_free(self, index: int) -> None:
        """Take an entry away."""

    # What follows a driver need not have.

    def attach_pasid(self, source_id: int, pasid: int, domain: int) -> None:
        """Have requests of a function with a PASID translated by a domain."""

    def detach_pasid(self, source_id: int, pasid: int) -> None:
        """Block requests of a function with a PASID."""

    def set_dirty_tracking(self, domain: int, enabled: int) -> None:
        """Have the unit note which pages of a domain are written, or not (1 or 0)."""

    def read_dirty(self, domain: int, address: int, length: int) -> list[int]:
        """Pages of a range that were written since it was asked last, or since tracking began."""
        ...


OPTIONAL = "attach_pasid", "detach_pasid", "set_dirty_tracking", "read_dirty"
"""Operations that count as not done where a driver has none."""
DriverMaker = Callable[[Registers, FlushableMemory, int, int], TriedDriver]
"""Makes a driver of registers, memory, and the start and end of the memory that is its own."""


def driver_maker(text: str) -> tuple[DriverMaker, Callable[[], None]]:
    """The driver of ``python:FILE:CLASS``, ``module:NAME:CLASS``, ``command:COMMAND`` or
    ``library:FILE``, and what ends it; ValueError if there is none.
    """
    kind, _, rest = text.partition(":")
    if kind in ("python", "module"):
        place, _, name = rest.rpartition(":")
        maker = getattr(_module(kind, place), name, None)
        if maker is None:
            raise ValueError(f"{place} has no {name}")
        return maker, lambda: None
    if kind in ("command", "library") and rest:
        command = shlex.split(rest)
        if kind == "library":
            if not Path(rest).is_file():
                raise ValueError(f"{rest}: no shared library")
            command = [sys.executable, "-m", "vtd.fuzz.library_driver", rest]
        processes: list[ProcessDriver] = []

        def make(
            registers: Registers, memory: FlushableMemory, start: int, end: int
        ) -> TriedDriver:
            for old in processes:
                old.end()
            processes[:] = [ProcessDriver(command, registers, memory, start, end)]
            return processes[0]

        def end() -> None:
            for process in processes:
                process.end()

        return make, end
    raise ValueError(f"{text!r}: none of python:FILE:CLASS, command:COMMAND and library:FILE")


def _module(kind: str, place: str) -> ModuleType:
    if kind == "module":
        return importlib.import_module(place)
    spec = importlib.util.spec_from_file_location("tried_driver", Path(place))
    if spec is None or spec.loader is None or not Path(place).exists():
        raise ValueError(f"{place}: no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class ProcessDriver:
    """A driver in a process of its own: one JSON object a line in each direction.

    It is sent ``{"op": "map", "domain": 1, ...}``, may ask for ``{"read": [address, length]}``,
    ``{"write": [address, hex]}``, ``{"flush": [address, length]}``,
    ``{"reg_read": [offset, size]}`` and ``{"reg_write": [offset, size, value]}``, which are
    answered with ``{"value": ...}``, and ends with ``{"done": result}`` or ``{"error": why}``.
    """

    def __init__(
        self,
        command: list[str],
        registers: Registers,
        memory: FlushableMemory,
        start: int,
        end: int,
    ) -> None:
        self._registers = registers
        self._memory = memory
        self._where = {"memory_start": start, "memory_end": end}
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
            )
        except OSError as error:
            raise BrokenDriverError(f"{command[0]}: {error.strerror}") from error

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def reset(self) -> None:
        """Start from nothing."""
        self._call("reset", **self._where)

    def attach(self, source_id: int, domain: int) -> None:
        """Have a function use a domain."""
        self._call("attach", source_id=source_id, domain=domain)

    def detach(self, source_id: int) -> None:
        """Block a function."""
        self._call("detach", source_id=source_id)

    def map(self, domain: int, address: int, physical: int, length: int, access: int) -> None:
        """Map pages."""
        self._call(
            "map", domain=domain, address=address, physical=physical, length=length, access=access
        )

    def unmap(self, domain: int, address: int, length: int) -> None:
        """Take pages away."""
        self._call("unmap", domain=domain, address=address, length=length)

    def protect(self, domain: int, address: int, length: int, access: int) -> None:
        """Change rights."""
        self._call("protect", domain=domain, address=address, length=length, access=access)

    def interrupt_allocate(self, source_id: int, vector: int) -> int:
        """An interrupt-remapping entry."""
        index = self._call("interrupt_allocate", source_id=source_id, vector=vector)
        if not isinstance(index, int):
            raise BrokenDriverError(f"interrupt_allocate: {index!r} is no index")
        return index

    def interrupt_free(self, index: int) -> None:
        """Take an entry away."""
        self._call("interrupt_free", index=index)

    def attach_pasid(self, source_id: int, pasid: int, domain: int) -> None:
        """Have a PASID use a domain."""
        self._call("attach_pasid", source_id=source_id, pasid=pasid, domain=domain)

    def detach_pasid(self, source_id: int, pasid: int) -> None:
        """Block a PASID."""
        self._call("detach_pasid", source_id=source_id, pasid=pasid)

    def set_dirty_tracking(self, domain: int, enabled: int) -> None:
        """Have written pages noted, or not."""
        self._call("set_dirty_tracking", domain=domain, enabled=enabled)

    def read_dirty(self, domain: int, address: int, length: int) -> list[int]:
        """Pages that were written."""
        pages = self._call("read_dirty", domain=domain, address=address, length=length)
        if not isinstance(pages, list) or not all(type(page) is int for page in pages):
            raise BrokenDriverError(f"read_dirty: {str(pages)[:80]} is no list of addresses")
        return pages

    def _call(self, op: str, **arguments: int) -> object:
        self._say({"op": op, **arguments})
        while True:
            message = self._hear(op)
            match message:
                case {"done": result}:
                    return result
                case {"error": why}:
                    raise DriverError(str(why))
            try:
                self._say({"value": self._serve(message)})
            except (BusError, ValueError, TypeError, OverflowError) as error:
                raise BrokenDriverError(f"{op}: {message}: {error}") from error

    def _serve(self, message: dict[str, Any]) -> object:
        match message:
            case {"read": [int(address), int(length)]}:
                return self._memory.read(address, length).hex()
            case {"write": [int(address), str(data)]}:
                self._memory.write(address, bytes.fromhex(data))
                return None
            case {"flush": [int(address), int(length)]}:
                self._memory.flush(address, length)
                return None
            case {"reg_read": [int(offset), int(size)]}:
                return self._registers.read_register(offset, size)
            case {"reg_write": [int(offset), int(size), int(value)]}:
                self._registers.write_register(offset, size, value)
                return None
        raise ValueError("not a message of a driver")

    def _say(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise BrokenDriverError(f"the driver has gone: {error.strerror}") from error

    def _hear(self, op: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise BrokenDriverError(f"{op}: the driver ended with {code}")
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise BrokenDriverError(f"{op}: {line.strip()[:80]!r} is no JSON object")
        return message
