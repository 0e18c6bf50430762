"""A generated case: a unit, and the steps of a scenario that software and devices take on it.

Steps are those of scenario files (``vtd.recordings.scenario``), without the outcomes: any target
carries them out and says what came of each, and a case with the outcomes of one is a scenario.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vtd.layouts.registers import FaultStatus, GlobalCommand, RootTableAddress
from vtd.unit.registers.capabilities import Capabilities

Json = Any
Step = dict[str, Any]
Outcome = Any
"""What a step led to; None where it only acts, or where a target can't tell."""

DEVICES: Mapping[str, int] = {"d0": 0x20, "d1": 0x21, "d2": 0x28, "d3": 0x90}
"""Names and source-ids: two functions of one device, another one, and one above device 15."""
MEMORY = ((0, 0xA_0000), (0x10_0000, 0x3F0_0000))
"""Start and length of the memory of a case: what a small virtual machine has too."""
FAULT_STATUS = FaultStatus.FIELDS["pfo"].mask | FaultStatus.FIELDS["ppf"].mask
RECORD_LOW = (1 << 64) - (1 << 12)
RECORD_HIGH = 1 << 63 | 1 << 62 | 0xFF << 32 | 0xFFFF
"""Fields of a fault record with a meaning for every reason: F, T1, FR and SID."""


@dataclass(frozen=True, repr=False)
class Case:
    """What a target is to carry out, from reset with memory zeroed."""

    capabilities: Capabilities
    steps: tuple[Step, ...]
    rule: str = ""
    """What the case breaks, if anything."""
    memory: tuple[tuple[int, int], ...] = MEMORY
    devices: tuple[tuple[str, int], ...] = tuple(DEVICES.items())

    def __repr__(self) -> str:
        return f"Case of {len(self.steps)} steps, {self.rule or 'no rule broken'}"

    def head(self) -> Step:
        """The scenario without its steps."""
        unit = self.capabilities
        return {
            "format": 1,
            "tags": [],
            "unit": {
                "version": hex(unit.version),
                "cap": hex(unit.cap),
                "ecap": hex(unit.ecap),
                "aw_bits": unit.max_guest_address_width,
                "host_address_width": unit.host_address_width,
                "register_base": "0xfed90000",
            },
            "memory": [[hex(start), hex(length)] for start, length in self.memory],
            "devices": {name: {"source_id": hex(sid)} for name, sid in self.devices},
        }

    def scenario(self, name: str, about: str, oracle: str, outcomes: Sequence[Outcome]) -> Step:
        """A scenario that expects ``outcomes``; those that are None are not compared."""
        steps = [
            step if outcome is None else {**step, "expect": outcome}
            for step, outcome in zip(self.steps, outcomes, strict=True)
        ]
        head = self.head()
        return {**head, "name": name, "about": about, "oracle": oracle, "steps": steps}


def case_of(scenario: Mapping[str, Any]) -> Case:
    """The case of a scenario as JSON; KeyError, TypeError or ValueError if it is none."""
    unit = scenario["unit"]
    return Case(
        Capabilities.of(
            int(unit["version"], 0),
            int(unit["cap"], 0),
            int(unit["ecap"], 0),
            unit["host_address_width"],
        ),
        tuple({key: step[key] for key in step if key != "expect"} for step in scenario["steps"]),
        str(scenario.get("about", "")),
        tuple((int(start, 0), int(length, 0)) for start, length in scenario["memory"]),
        tuple((name, int(device["source_id"], 0)) for name, device in scenario["devices"].items()),
    )


def mem_write(address: int, data: bytes) -> Step:
    """Software stores bytes."""
    return {"op": "mem_write", "addr": hex(address), "hex": data.hex()}


def store(address: int, value: int, size: int = 8) -> Step:
    """Software stores a little-endian number."""
    return mem_write(address, value.to_bytes(size, "little"))


def mem_read(address: int, length: int) -> Step:
    """Software reads bytes."""
    return {"op": "mem_read", "addr": hex(address), "length": length}


def reg_write(offset: int, size: int, value: int) -> Step:
    """Software writes a register."""
    return {"op": "reg_write", "offset": hex(offset), "size": size, "value": hex(value)}


def reg_read(offset: int, size: int, mask: int) -> Step:
    """Software reads a register; only ``mask`` counts."""
    return {"op": "reg_read", "offset": hex(offset), "size": size, "mask": hex(mask)}


def dma_read(device: str, address: int, length: int, pasid: int | None = None) -> Step:
    """A device reads."""
    step = {"op": "dma_read", "device": device, "iova": hex(address), "length": length}
    return step if pasid is None else {**step, "pasid": hex(pasid)}


def dma_write(device: str, address: int, data: bytes, pasid: int | None = None) -> Step:
    """A device writes."""
    step = {
        "op": "dma_write",
        "device": device,
        "iova": hex(address),
        "length": len(data),
        "hex": data.hex(),
    }
    return step if pasid is None else {**step, "pasid": hex(pasid)}


def msi(device: str, address: int, data: int) -> Step:
    """A device sends an interrupt message."""
    return {"op": "msi", "device": device, "address": hex(address), "data": hex(data)}


def enable(root: int, mode: int = 0) -> Iterator[Step]:
    """RTADDR_REG, then SRTP, then TE; ``mode`` is TTM."""
    yield reg_write(0x20, 8, RootTableAddress.of(rta=root, ttm=mode))
    yield reg_write(0x18, 4, GlobalCommand.of(srtp=True))
    yield reg_write(0x18, 4, GlobalCommand.of(te=True))


def take_faults(capabilities: Capabilities) -> Iterator[Step]:
    """Read the fault status and all records, and clear them."""
    base = capabilities.fault_recording_offset
    yield reg_read(0x34, 4, FAULT_STATUS)
    for index in range(capabilities.fault_records):
        record = base + 16 * index
        yield reg_read(record, 8, RECORD_LOW)
        yield reg_read(record + 8, 8, RECORD_HIGH)
        yield reg_write(record + 12, 4, 1 << 31)
    yield reg_write(0x34, 4, FaultStatus.of(pfo=True))
