"""A case as instructions of the payload, and its output as outcomes of steps.

A device's buffer can't be set or seen by software while requests are remapped. What a device will
write is in it before, each read goes to a place of its own, and the buffer is looked at afterwards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from construct import Container

from devices.dma import split_pages
from vtd.conformance.descriptors import OWN, half_of
from vtd.conformance.devices import Numbered
from vtd.conformance.format import Case as CaseHead
from vtd.conformance.format import Instruction, Interrupts, Op, Reset, ResetProof
from vtd.conformance.retargeting import LOWEST
from vtd.fuzz.case import Case, Outcome, Step

BLANK = b"\x5a\xc3\x96\x0f"
"""What the place of a read holds before it."""


class UnfitError(Exception):
    """A case that can't be carried out here: says why."""


class Slot(NamedTuple):
    """A part of the output."""

    step: int
    """The step that it belongs to; -1 for none."""
    what: str
    """``memory``, ``register``, ``interrupts`` or ``buffer``."""
    length: int
    device: str = ""


class Place(NamedTuple):
    """Where in a device's buffer the data of a step is."""

    device: str
    offset: int
    length: int


@dataclass
class Program:
    """The instructions of one case."""

    code: bytearray = field(default_factory=bytearray)
    instructions: int = 0
    slots: list[Slot] = field(default_factory=list)
    places: dict[int, Place] = field(default_factory=dict)
    """By step, of DMA."""

    @property
    def output(self) -> int:
        """Bytes that it gives."""
        return int(ResetProof.sizeof()) + sum(each.length for each in self.slots)

    def add(self, op: Op, *, data: bytes = b"", **operands: int) -> None:
        """One instruction, with the bytes that it brings."""
        fields = {"device": 0, "size": 0, "length": len(data), "address": 0, "value": 0}
        self.code += Instruction.build(Container(op=op, **{**fields, **operands}))
        self.code += data + bytes(-len(data) % 8)
        self.instructions += 1

    def pack(self, number: int, reset: Reset, frames: Iterable[int] = ()) -> bytes:
        """The case as the payload reads it; ``frames`` of memory are cleared before."""
        cleared = Program()
        for start, length in _runs(frames):
            cleared.add(Op.CLEAR, address=start, length=length)
        code = bytes(cleared.code + self.code)
        instructions = cleared.instructions + self.instructions
        head = {"number": number, "reset": reset, "instructions": instructions}
        sizes = {"size": len(code), "output": self.output}
        return bytes(CaseHead.build(Container(**head, **sizes))) + code


def program_of(
    case: Case,
    devices: Mapping[str, Numbered],
    interrupts: Mapping[int, int],
    unsent: frozenset[int] = frozenset(),
) -> Program:
    """The program of a case.

    ``devices``: those that there are, by the names of the case. ``interrupts``: the steps after
    which interrupts are looked for, and how many have to be waited for. UnfitError if the case
    needs something that there isn't.
    """
    program = Program(places=dict(_places(case, devices)))
    used: dict[str, bytearray] = {}
    for number, place in program.places.items():
        buffer = used.setdefault(place.device, bytearray())
        data = bytes.fromhex(case.steps[number].get("hex", ""))
        blank = BLANK * (place.length // len(BLANK) + 1)
        buffer += (data or blank)[: place.length]
    for name, buffer in used.items():
        program.add(Op.FILL, device=devices[name].number, data=bytes(buffer))
    for number, step in enumerate(case.steps):
        if number not in unsent:
            _step(program, number, step, devices)
        if number in interrupts:
            program.add(Op.INTERRUPTS, value=interrupts[number])
            program.slots.append(Slot(number, "interrupts", Interrupts.sizeof()))
    if used:
        program.add(Op.OFF)
    for name, buffer in used.items():
        program.add(Op.DUMP, device=devices[name].number, length=len(buffer))
        program.slots.append(Slot(-1, "buffer", len(buffer), name))
    return program


def _places(case: Case, devices: Mapping[str, Numbered]) -> Iterator[tuple[int, Place]]:
    """A place in the buffer for each transfer."""
    ends: dict[str, int] = {}
    commands: Counter[str] = Counter()
    for number, step in enumerate(case.steps):
        if step["op"] not in _OPERATIONS:
            raise UnfitError(f"no way to do {step['op']} here")
        name = step.get("device")
        if name is None or OWN in step:
            continue
        if name not in devices:
            source_id = dict(case.devices).get(name, 0)
            raise UnfitError(f"no device with source-id {source_id:#06x} that does DMA on demand")
        tagged = [key for key in ("pasid", "privileged", "execute") if step.get(key) is not None]
        if tagged:
            raise UnfitError(f"no device that sends requests with {tagged[0]}")
        reach = devices[name].reach
        commands[name] += 1
        if reach.commands and commands[name] > reach.commands:
            raise UnfitError(f"{reach.name} does {reach.commands} transfers and messages of a case")
        if why := reach.without_descriptors(step):
            raise UnfitError(why)
        if step["op"] == "msi":
            if int(step["data"], 0) >> reach.message_bits or int(step["address"], 0) & 3:
                raise UnfitError("no device whose message has data of 32 bits")
            continue
        length = step.get("length", len(step.get("hex", "")) // 2)
        if not length:
            raise UnfitError("no device that reads nothing")
        if why := reach.refusal(int(step["iova"], 0), length):
            raise UnfitError(why)
        start = ends.get(name, 0)
        if start + length > reach.buffer:
            raise UnfitError(f"transfers need more than the {reach.buffer} bytes {reach.name} has")
        ends[name] = start + length
        yield number, Place(name, start, length)


_OPERATIONS = frozenset(
    ["mem_write", "mem_read", "reg_write", "reg_read", "dma_read", "dma_write", "msi", "events"]
)


def _step(program: Program, number: int, step: Step, devices: Mapping[str, Numbered]) -> None:
    match step["op"]:
        case "mem_write":
            program.add(Op.STORE, address=int(step["addr"], 0), data=bytes.fromhex(step["hex"]))
        case "mem_read":
            program.add(Op.LOAD, address=int(step["addr"], 0), length=step["length"])
            program.slots.append(Slot(number, "memory", step["length"]))
        case "reg_write":
            offset, value = int(step["offset"], 0), int(step["value"], 0)
            program.add(Op.WRITE, address=offset, size=step["size"], value=value)
        case "reg_read":
            program.add(Op.READ, address=int(step["offset"], 0), size=step["size"])
            program.slots.append(Slot(number, "register", 8))
        case "dma_read" | "dma_write" as kind if number in program.places:
            place = program.places[number]
            if half := half_of(step):
                program.add(Op.DESCRIPTORS, address=half.iova, value=half.memory)
            program.add(
                Op.DEVICE_READ if kind == "dma_read" else Op.DEVICE_WRITE,
                device=devices[place.device].number,
                address=int(step["iova"], 0),
                value=place.offset,
                length=place.length,
            )
        case "msi":
            program.add(
                Op.MESSAGE,
                device=devices[step["device"]].number,
                address=int(step["address"], 0),
                value=int(step["data"], 0),
            )


def _runs(frames: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Address and length of runs of frames."""
    start = end = None
    for frame in sorted(frames):
        if frame != end:
            if start is not None and end is not None:
                yield start << 12, end - start << 12
            start = frame
        end = frame + 1
    if start is not None and end is not None:
        yield start << 12, end - start << 12


class Raw(NamedTuple):
    """What came out of a case, by step."""

    reset: Container
    memory: dict[int, bytes]
    registers: dict[int, int]
    vectors: dict[int, list[int]]
    reads: dict[int, bytes]
    """What the places of reads hold afterwards."""


def decode(slots: Sequence[Slot], places: Mapping[int, Place], output: bytes) -> Raw:
    """The parts of an output; one that is cut gives what there is, without the buffers."""
    raw = Raw(ResetProof.parse(output), {}, {}, {}, {})
    position = ResetProof.sizeof()
    buffers: dict[str, bytes] = {}
    for slot in slots:
        data = output[position : position + slot.length]
        if len(data) < slot.length:
            break
        position += slot.length
        match slot.what:
            case "memory":
                raw.memory[slot.step] = data
            case "register":
                raw.registers[slot.step] = int.from_bytes(data, "little")
            case "interrupts":
                seen = Interrupts.parse(data)
                raw.vectors[slot.step] = list(seen.vectors[: seen.count])
            case _:
                buffers[slot.device] = data
    for number, place in places.items():
        if place.device in buffers:
            raw.reads[number] = buffers[place.device][place.offset :][: place.length]
    return raw


def outcomes_of(
    case: Case, raw: Raw, allowed: Sequence[Sequence[Outcome]], unsent: frozenset[int]
) -> list[Outcome]:
    """The outcome of each step as scenario files have it; None where it can't be told.

    ``allowed`` decides where bytes have two meanings: zeroes may be data, or what a device has of
    a read that was refused.
    """
    found: list[Outcome] = []
    for number, step in enumerate(case.steps):
        outcome: Outcome = None
        if number in raw.registers:
            outcome = raw.registers[number] & int(step.get("mask", "0xffffffffffffffff"), 0)
        elif number in raw.memory:
            outcome = _masked(raw.memory[number], step.get("mask")).hex()
        elif step["op"] == "msi" and number not in unsent and number in raw.vectors:
            outcome = _message(raw.vectors[number])
        elif step["op"] == "dma_read" and number in raw.reads:
            outcome = _read(step, raw.reads[number], allowed[number])
        found.append(outcome)
    return found


def _masked(data: bytes, mask: str | None) -> bytes:
    return data if mask is None else bytes(map(int.__and__, data, bytes.fromhex(mask)))


def _message(vectors: Sequence[int]) -> Outcome:
    """Whether the message came; those of the unit's events have low vectors."""
    came = [each for each in vectors if each >= LOWEST]
    return {"delivered": {"vector": came[0]}} if came else {"blocked": True}


def _read(step: Step, data: bytes, allowed: Sequence[Outcome]) -> Outcome:
    """Which of the allowed outcomes the bytes can be, or else what they look like.

    None where they may be data as well as what a device has of a refused read.
    """
    start = int(step["iova"], 0)
    spans = [(first - start, size) for first, size in split_pages(start, len(data))]
    for each in allowed:
        if could_be(step, data, each):
            return None if "data" in each and _any_blank(data, spans) else each
    parts: list[dict[str, Any]] = []
    for first, size in split_pages(start, len(data)):
        offset = first - start
        part = data[offset:][:size]
        shown = {"fault": True} if _blank(part, offset) else {"data": part.hex()}
        parts.append({"offset": offset, "length": size, **shown})
    if all("data" in part for part in parts):
        return {"data": data.hex()}
    if not any("data" in part for part in parts):
        return {"fault": True}
    return {"parts": parts}


def _any_blank(data: bytes, spans: Sequence[tuple[int, int]]) -> bool:
    return any(_blank(data[offset:][:size], offset) for offset, size in spans)


def could_be(step: Step, data: bytes, outcome: Outcome) -> bool:
    """Whether a buffer may look so after a read with this outcome: refused parts have no data."""
    if outcome is None:
        return False
    if "data" in outcome:
        return bytes.fromhex(outcome["data"]) == data
    start = int(step["iova"], 0)
    parts = outcome.get("parts")
    if parts is None:
        spans = [(first - start, size) for first, size in split_pages(start, len(data))]
        return all(_blank(data[offset:][:size], offset) for offset, size in spans)
    return all(
        bytes.fromhex(part["data"]) == data[part["offset"] :][: part["length"]]
        if "data" in part
        else _blank(data[part["offset"] :][: part["length"]], part["offset"])
        for part in parts
    )


def _blank(part: bytes, offset: int) -> bool:
    """Whether a part of a buffer holds nothing from memory, whatever a device makes of refusals."""
    untouched = (BLANK * ((offset + len(part)) // 4 + 1))[offset:][: len(part)]
    return part in (bytes(len(part)), b"\xff" * len(part), untouched)
