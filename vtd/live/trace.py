"""What goes on in a unit as lines of text: registers, requests, faults, invalidations."""

from __future__ import annotations

from collections.abc import Callable

from devices.dma import Completion, Request
from devices.source_id import SourceId
from pagetables.bits import BitRecord
from vtd.unit.observer import Observer
from vtd.unit.requests.faults import FaultReason
from vtd.unit.unit import RemappingUnit

ACCESSES = {1: "reads", 2: "writes", 3: "changes", 4: "sends"}


class Trace(Observer):
    """Tells ``note`` of every step of ``unit`` that software or a device sees."""

    def __init__(self, name: str, unit: RemappingUnit, note: Callable[[str], None]) -> None:
        self._name = name
        self._unit = unit
        self._note = note
        self._reason: FaultReason | None = None
        unit.observe(self)

    def register_read(self, offset: int, size: int, value: int) -> None:
        """A read of software."""
        self._note(f"{self._name}: reads {self._register(offset)} ({size}): {value:#x}")

    def register_written(self, offset: int, size: int, value: int) -> None:
        """A write of software."""
        self._note(f"{self._name}: writes {self._register(offset)} ({size}): {value:#x}")

    def invalidated(self, command: BitRecord) -> None:
        """An invalidation."""
        self._note(f"{self._name}: {command}")

    def fault(self, request: Request, reason: FaultReason) -> None:
        """Why the request that is answered next is refused."""
        self._reason = reason

    def answered(self, request: Request, answer: int | Completion) -> None:
        """A request and what became of it."""
        pasid = "" if request.pasid is None else f" PASID {request.pasid:#x}"
        if isinstance(answer, int):
            result = f"{answer:#x}"
        elif self._reason is not None:
            result = f"fault {int(self._reason):#04x}: {self._reason.text}"
        elif answer.interrupt is not None:
            result = str(answer.interrupt)
        else:
            result = answer.status.value
        self._reason = None
        self._note(
            f"{SourceId(request.source_id)}{pasid} {ACCESSES.get(request.access, 'sends')} "
            f"{request.address:#x} ({request.length}): {result}"
        )

    def _register(self, offset: int) -> str:
        values = self._unit.registers.values
        for start in (offset, offset - 4, offset - 8, offset - 12):
            if start in values and offset < start + values[start].WIDTH // 8:
                part = f" + {offset - start}" if offset > start else ""
                return f"{type(values[start]).__name__}{part}"
        return f"{offset:#x}"
