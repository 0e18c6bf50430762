"""A scenario: a unit, devices and memory from reset, and the steps that are taken on them.

It stands alone, with memory zeroed; ``tests/vectors/FORMAT.md`` describes the form. Left out:
comparing what a step led to, which :mod:`vtd.recordings.replay` does.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import singledispatchmethod
from pathlib import Path
from typing import NamedTuple, Self

from devices import io_apic
from devices.dma import ATOMIC, PageRequest, Request, SilentDevice, part_of, split_pages
from pagetables.memory import BusError, PhysicalMemory, TableMemory
from pagetables.stores import ProcessorStores, UnsnoopedMemory
from vtd.recordings import outcomes, steps
from vtd.recordings.steps import STEPS, Kinds, Step, parse_step, parse_steps
from vtd.recordings.values import (
    Json,
    ScenarioError,
    anything,
    flag,
    items,
    member,
    members,
    number,
    texts,
)
from vtd.recordings.whole_file import read_whole
from vtd.unit.caching.policy import KEEPS_STALE, CachePolicy
from vtd.unit.departures import QEMU, SPECIFICATION, Departures, departures_named
from vtd.unit.interrupts.outcome import Message
from vtd.unit.options import Options
from vtd.unit.port import UnitPort
from vtd.unit.queues.device_messages import ITAGS
from vtd.unit.registers.capabilities import Capabilities
from vtd.unit.reporting.events import (
    DeviceTlbInvalidationSent,
    Event,
    MessageSent,
    PageGroupResponseSent,
)
from vtd.unit.reporting.snooping import waiting_stores
from vtd.unit.unit import RemappingUnit

BROKEN = (
    ArithmeticError,
    AttributeError,
    BusError,
    LookupError,
    TypeError,
    ValueError,
)
"""What using a file's values can raise where they are not what the format says."""
COMPRESSED = Departures(compress_faults=True)


@contextmanager
def broken(what: str) -> Iterator[None]:
    """Turn what using a broken value raises into a ScenarioError about ``what``."""
    try:
        yield
    except KeyError as error:
        raise ScenarioError(f"{what}: {error} is missing") from error
    except (AttributeError, IndexError, TypeError) as error:
        raise ScenarioError(f"{what}: a value is not of the kind that the format says") from error
    except BROKEN as error:
        raise ScenarioError(f"{what}: {error}") from error


class Region(NamedTuple):
    """Memory of a scenario."""

    start: int
    length: int
    read_only: bool


class UnitValues(NamedTuple):
    """What a unit is made of."""

    capabilities: Capabilities
    constants: Mapping[int, int]
    """Values of implementation-specific registers, 64 bits by offset."""


class Device(NamedTuple):
    """A device, and the number of the unit that it is behind."""

    source_id: int
    unit: int


@dataclass(frozen=True)
class Scenario:
    """A scenario as values."""

    units: tuple[UnitValues, ...]
    memory: tuple[Region, ...]
    devices: Mapping[str, Device]
    """By name."""
    stores_wait: bool
    """Whether stores of software wait in caches and write buffers where the unit does not snoop."""
    answered_by_steps: bool
    """Whether device-TLBs answer in steps of the scenario only."""
    recorded_on_qemu: bool
    """Whether the outcomes are those of QEMU's unit."""
    departures: Departures
    """What the file says that its unit departs in, fault compression included."""
    steps: tuple[Step, ...]

    @classmethod
    def parse(cls, raw: Json, kinds: Kinds = STEPS) -> Self:
        """The scenario in a JSON object; ScenarioError names the field, or the step and field.

        ``kinds`` are the operations that its steps may have.
        """
        parsed_steps = parse_steps(member(raw, "steps", items), kinds)
        on_qemu = member(raw, "oracle", str, "").startswith("QEMU")
        compressed = on_qemu or "choice:fault-compression" in member(raw, "tags", texts, [])
        return cls(
            units=_units(raw),
            memory=member(raw, "memory", _memory),
            devices=member(raw, "devices", _devices),
            stores_wait=member(raw, "stores_wait", flag, False),
            answered_by_steps=member(raw, "device_tlb", anything, None) == "manual",
            recorded_on_qemu=on_qemu,
            departures=departures_of(raw) | (COMPRESSED if compressed else SPECIFICATION),
            steps=parsed_steps,
        )


def departures_of(raw: Json) -> Departures:
    """Where the unit of a recording departs from the specification, by the head of the file.

    ``as_recorded``: true stands for all that QEMU's does, ``departures`` lists single ones.
    """
    everything = QEMU if member(raw, "as_recorded", flag, False) else SPECIFICATION
    single = member(raw, "departures", lambda names: departures_named(texts(names)), [])
    return everything | single


def unit_capabilities(unit: Json) -> Capabilities:
    """The capability registers of a unit in a file; ScenarioError names the field."""
    return Capabilities.of(
        member(unit, "version", number),
        member(unit, "cap", number),
        member(unit, "ecap", number),
        member(unit, "host_address_width", number),
    )


def _units(raw: Json) -> tuple[UnitValues, ...]:
    if member(raw, "units", items, []):
        return member(raw, "units", lambda units: tuple(map(_unit, units)))
    return (member(raw, "unit", _unit),)


def _unit(raw: Json) -> UnitValues:
    return UnitValues(unit_capabilities(raw), unit_constants(raw))


def unit_constants(unit: Json) -> dict[int, int]:
    """Its implementation-specific registers, 64 bits by offset; none where it lists none."""
    constants = member(unit, "registers", members, {})
    return {number(offset): number(value) for offset, value in constants.items()}


def _memory(raw: Json) -> tuple[Region, ...]:
    return tuple(_region(each) for each in items(raw))


def _region(raw: Json) -> Region:
    match raw:
        case [start, length]:
            return Region(number(start), number(length), read_only=False)
        case [start, length, "ro"]:
            return Region(number(start), number(length), read_only=True)
    raise ScenarioError(f"{raw!r} is neither [start, length] nor [start, length, 'ro']")


def _devices(raw: Json) -> dict[str, Device]:
    return {
        name: Device(member(device, "source_id", number), member(device, "unit", number, 0))
        for name, device in members(raw).items()
    }


def load_scenario(path: Path) -> dict[str, Json]:
    """The JSON object of the scenario in a ``.json`` or ``.json.gz`` file."""
    try:
        scenario = json.loads(read_whole(path))
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ScenarioError(f"{path}: can't be read: {reason}") from error
    if not isinstance(scenario, dict) or scenario.get("format") != 1:
        raise ScenarioError(f"{path}: format: not a scenario of format 1")
    return scenario


class ScenarioRun:
    """The platform of a scenario, and what each kind of step does to it.

    ``unit`` is the first of ``units``.

    A scenario as JSON is one whose steps are still to come. ``departures``: of the unit, instead of
    what the scenario says; ``as_recorded``: all that QEMU's unit does. ``caches``: what the unit
    keeps; outcomes of a scenario with tags depend on it.
    """

    def __init__(
        self,
        scenario: Scenario | Mapping[str, Json],
        *,
        as_recorded: bool = False,
        departures: Departures | None = None,
        caches: CachePolicy = KEEPS_STALE,
    ) -> None:
        if not isinstance(scenario, Scenario):
            scenario = Scenario.parse({**scenario, "steps": []})
        if departures is None:
            departures = scenario.departures | (QEMU if as_recorded else SPECIFICATION)
        self.memory = PhysicalMemory()
        with broken("memory"):
            for region in scenario.memory:
                self.memory.add_region(region.start, region.length, read_only=region.read_only)
        self.stores: ProcessorStores | None = None
        if scenario.stores_wait:
            made = (each.capabilities for each in scenario.units)
            self.stores = waiting_stores(self.memory, made)
        options = Options(caches=caches, departures=departures)
        with broken("unit"):
            self.units = [
                RemappingUnit(each.capabilities, self._seen(), options, each.constants)
                for each in scenario.units
            ]
        self.unit = self.units[0]
        for unit in self.units:
            unit.subscribe(self._event)
        with broken("devices"):
            self.ports = {
                name: UnitPort(self.unit_numbered(device.unit), self.memory, device.source_id)
                for name, device in scenario.devices.items()
            }
            self._behind = {each.source_id: each.unit for each in scenario.devices.values()}
        self.names = {port.source_id: name for name, port in self.ports.items()}
        if scenario.answered_by_steps:
            for source_id in self.names:
                self.unit_of(source_id).attach(source_id, SilentDevice())
        self.responses: list[PageGroupResponseSent] = []
        self.invalidations: list[DeviceTlbInvalidationSent] = []
        self.itags: dict[str, tuple[int, int]] = {}
        """The source-id and number of invalidation requests that have a name."""
        self.messages: list[Message] = []

    def _seen(self) -> TableMemory:
        """Memory as a unit sees it."""
        return self.memory if self.stores is None else UnsnoopedMemory(self.stores)

    def unit_numbered(self, number: int) -> RemappingUnit:
        """A unit by its number in the head; ScenarioError if there are not so many."""
        if number >= len(self.units):
            raise ScenarioError(f"unit: {number} is not one of {len(self.units)} units")
        return self.units[number]

    def unit_of(self, source_id: int) -> RemappingUnit:
        """The unit that a device is behind; the first one for a source-id of no device."""
        return self.units[self._behind.get(source_id, 0)]

    def step(self, raw: Mapping[str, Json]) -> tuple[Json, Json]:
        """What a step, given as JSON, expects, and what it got; both None if it only acts."""
        step = parse_step(raw)
        return step.expect, self.carry_out(step)

    def requests(self, step: steps.Dma) -> list[Request]:
        """The requests that a DMA step makes, one for each page; an atomic operation is one."""
        request = step.request(self._port(step).source_id)
        if request.access == ATOMIC:
            return [request]
        pages = split_pages(request.address, request.length)
        return [part_of(request, start, size) for start, size in pages]

    def _parts(self, step: steps.Dma) -> outcomes.Parts:
        """The same, with what became of each."""
        send = self._port(step).request
        return [(each.address, each.length, send(each)) for each in self.requests(step)]

    def _port(self, step: steps.DeviceStep | steps.DeviceTlbComplete) -> UnitPort:
        if step.device not in self.ports:
            raise ScenarioError(f"device: {step.device!r} is not one of devices")
        return self.ports[step.device]

    def _itag(self, tag: str) -> tuple[int, int]:
        if tag not in self.itags:
            raise ScenarioError(f"tag: no invalidation request is called {tag!r}")
        return self.itags[tag]

    def _event(self, event: Event) -> None:
        if isinstance(event, MessageSent):
            self.messages.append(event.message)
        elif isinstance(event, PageGroupResponseSent):
            self.responses.append(event)
        elif isinstance(event, DeviceTlbInvalidationSent):
            self.invalidations.append(event)

    @singledispatchmethod
    def carry_out(self, step: Step) -> Json:
        """Take a step; what it led to, None if it only acts."""
        raise TypeError(f"{step.op}: no step of a scenario")

    @carry_out.register
    def _mem_write(self, step: steps.MemWrite) -> None:
        (self.stores or self.memory).load(step.addr, step.hex)

    @carry_out.register
    def _mem_flush(self, step: steps.MemFlush) -> None:
        if self.stores is not None:
            self.stores.flush(step.addr, step.length)

    @carry_out.register
    def _mem_read(self, step: steps.MemRead) -> str:
        data = self.memory.read(step.addr, step.length)
        if step.mask is not None:
            data = bytes(map(int.__and__, data, step.mask))
        return data.hex()

    @carry_out.register
    def _reg_write(self, step: steps.RegWrite) -> None:
        self.unit_numbered(step.unit).write_register(step.offset, step.size, step.value)

    @carry_out.register
    def _reg_read(self, step: steps.RegRead) -> int:
        return self.unit_numbered(step.unit).read_register(step.offset, step.size) & step.mask

    @carry_out.register
    def _reset(self, step: steps.Reset) -> None:
        self.unit_numbered(step.unit).reset(power_good=step.power_good)

    @carry_out.register
    def _suspend(self, step: steps.Suspend) -> None:
        self.unit_numbered(step.unit).suspend()

    @carry_out.register
    def _resume(self, step: steps.Resume) -> None:
        self.unit_numbered(step.unit).resume()

    @carry_out.register
    def _dma_read(self, step: steps.DmaRead) -> Json:
        return outcomes.read(self._parts(step))

    @carry_out.register
    def _dma_write(self, step: steps.DmaWrite) -> Json:
        return outcomes.write(self._parts(step))

    @carry_out.register
    def _dma_atomic(self, step: steps.DmaAtomic) -> Json:
        ((_, _, done),) = self._parts(step)
        return {"data": done.data.hex()} if done.ok else {"fault": True}

    @carry_out.register
    def _msi(self, step: steps.Msi) -> Json:
        return self._interrupt(step, step.address, step.data)

    @carry_out.register
    def _ioapic_interrupt(self, step: steps.IoapicInterrupt) -> Json:
        return self._interrupt(step, *io_apic.message(step.rte))

    def _interrupt(self, step: steps.DeviceStep, address: int, data: int) -> Json:
        doubleword = address & ~3  # Table 13: bits 1:0 are not looked at
        return outcomes.interrupt(
            self._port(step).write(doubleword, data.to_bytes(4, "little")).interrupt
        )

    @carry_out.register
    def _events(self, _: steps.Events) -> Json:
        sent, self.messages = self.messages, []
        return [message._asdict() for message in sent]

    @carry_out.register
    def _ats_translate(self, step: steps.AtsTranslate) -> Json:
        port = self._port(step)
        completion = port.request(step.request(port.source_id))
        return outcomes.translations(completion, step.entries)

    @carry_out.register
    def _translated_read(self, step: steps.TranslatedRead) -> Json:
        port = self._port(step)
        return outcomes.read(
            [
                (start, size, port.read_translated(start, size, pasid=step.pasid))
                for start, size in split_pages(step.address, step.length)
            ]
        )

    @carry_out.register
    def _translated_write(self, step: steps.TranslatedWrite) -> Json:
        port, first = self._port(step), step.address
        return outcomes.write(
            [
                (
                    start,
                    size,
                    port.write_translated(
                        start, step.hex[start - first :][:size], pasid=step.pasid
                    ),
                )
                for start, size in split_pages(first, len(step.hex))
            ]
        )

    @carry_out.register
    def _page_request(self, step: steps.PageRequestStep) -> Json:
        message = PageRequest(
            step.address,
            step.read,
            step.write,
            step.prgi,
            step.last,
            step.pasid,
            step.privileged,
            step.execute,
        )
        return {"queued": self._port(step).page_request(message).ok}

    @carry_out.register
    def _page_group_responses(self, _: steps.PageGroupResponses) -> Json:
        sent, self.responses = self.responses, []
        return [
            {"device": self.names.get(source_id), **outcomes.group_response(response)}
            for source_id, response, _ in sent
        ]

    @carry_out.register
    def _device_tlb_invalidations(self, step: steps.DeviceTlbInvalidations) -> Json:
        """Messages sent; one that the step gives a name is known by it from then on."""
        sent, self.invalidations = self.invalidations, []
        messages = [
            {"device": self.names.get(source_id), **outcomes.invalidation(request)}
            for source_id, request in sent
        ]
        for tag, message, (source_id, request) in zip(step.tags, messages, sent, strict=False):
            if tag is not None:
                message["tag"] = tag
                self.itags[tag] = source_id, request.itag
        return messages

    @carry_out.register
    def _device_tlb_complete(self, step: steps.DeviceTlbComplete) -> None:
        if step.all:
            for unit in self.units:
                while unit.devices.outstanding:
                    itag, pending = next(iter(unit.devices.outstanding.items()))
                    port = UnitPort(unit, self.memory, pending.source_id)
                    port.complete_invalidation(1 << itag, 1)
            return
        vector = sum(1 << self._itag(tag)[1] for tag in step.tags)
        if step.unallocated:
            outstanding = self.unit_of(self._port(step).source_id).devices.outstanding
            vector |= 1 << next(itag for itag in range(ITAGS) if itag not in outstanding)
        self._port(step).complete_invalidation(vector, step.count or 0)

    @carry_out.register
    def _device_tlb_timeout(self, step: steps.DeviceTlbTimeout) -> None:
        source_id, itag = self._itag(step.tag)
        self.unit_of(source_id).devices.time_out(itag)
