"""A scenario: a unit, devices and memory from reset, and the steps that are taken on them.

It stands alone, with memory zeroed; ``tests/vectors/FORMAT.md`` describes the form. Left out:
comparing what a step led to, which :mod:`vtd.recordings.replay` does.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from devices.dma import (
    READ,
    WRITE,
    AtomicOp,
    InvalidationRequest,
    PageGroupResponse,
    PageRequest,
    split_pages,
)
from pagetables.memory import BusError, PhysicalMemory
from vtd.layouts.interrupt_entries import (
    CompatibilityAddress,
    CompatibilityData,
    CompatibilityRte,
    RemappableAddress,
    RemappableRte,
)
from vtd.recordings import outcomes
from vtd.unit.caching.policy import KEEPS_STALE, CachePolicy
from vtd.unit.interrupts.outcome import Interrupt, Posted
from vtd.unit.options import Options
from vtd.unit.port import UnitPort
from vtd.unit.queues.device_messages import ITAGS
from vtd.unit.registers.capabilities import Capabilities
from vtd.unit.reporting.event_interrupt import Message
from vtd.unit.reporting.events import (
    DeviceTlbInvalidationSent,
    Event,
    InterruptDelivered,
    MessageSent,
    PageGroupResponseSent,
)
from vtd.unit.requests.request import ATOMIC, Request
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
MAX_LENGTH = 1 << 24
"""Bytes of one step; a longer one is a mistake."""

Json = Any
"""A value as ``json`` reads it."""


class ScenarioError(ValueError):
    """A file that is no scenario: says which field is wrong."""


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


def load_scenario(path: Path) -> dict[str, Json]:
    """The scenario in a ``.json`` or ``.json.gz`` file."""
    try:
        raw = path.read_bytes()
        scenario = json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ScenarioError(f"{path}: can't be read: {reason}") from error
    if not isinstance(scenario, dict) or scenario.get("format") != 1:
        raise ScenarioError(f"{path}: format: not a scenario of format 1")
    return scenario


def recorded_on_qemu(scenario: Mapping[str, Json]) -> bool:
    """Whether the outcomes are those of QEMU's unit."""
    return str(scenario.get("oracle", "")).startswith("QEMU")


def number(value: Json) -> int:
    """A number of a scenario: plain, or a string in hex with 0x; ScenarioError if it is none."""
    try:
        return int(value, 0) if isinstance(value, str) else int(value)
    except (TypeError, ValueError) as error:
        raise ScenarioError(f"{value!r} is no number") from error


class ScenarioRun:
    """The platform of a scenario, and what each kind of step does to it.

    ``caches``: what the unit keeps; outcomes of a scenario with tags depend on it.
    """

    def __init__(
        self,
        scenario: Mapping[str, Json],
        *,
        as_recorded: bool,
        caches: CachePolicy = KEEPS_STALE,
    ) -> None:
        unit = scenario["unit"]
        tags = scenario.get("tags", ())
        with broken("unit"):
            capabilities = Capabilities.of(
                number(unit["version"]),
                number(unit["cap"]),
                number(unit["ecap"]),
                unit["host_address_width"],
            )
            constants = {
                number(offset): number(value) for offset, value in unit.get("registers", {}).items()
            }
        self.memory = PhysicalMemory()
        with broken("memory"):
            for start, length, *kind in scenario["memory"]:
                self.memory.add_region(number(start), number(length), read_only="ro" in kind)
        options = Options(
            caches=caches,
            compress_faults=recorded_on_qemu(scenario) or "choice:fault-compression" in tags,
            as_recorded=as_recorded,
        )
        self.unit = RemappingUnit(capabilities, self.memory, options, constants)
        self.unit.subscribe(self._event)
        with broken("devices"):
            self.ports = {
                name: UnitPort(self.unit, self.memory, number(device["source_id"]))
                for name, device in scenario["devices"].items()
            }
        self.names = {port.source_id: name for name, port in self.ports.items()}
        if scenario.get("device_tlb") == "manual":
            for source_id in self.names:
                self.unit.attach(source_id, SilentDevice())
        self.responses: list[PageGroupResponseSent] = []
        self.invalidations: list[DeviceTlbInvalidationSent] = []
        self.itags: dict[str, int] = {}
        self.messages: list[Message] = []
        self.delivered: Interrupt | Posted | None = None
        self._operations: dict[str, Callable[[Mapping[str, Json]], Json]] = {
            "mem_write": self._mem_write,
            "mem_read": self._mem_read,
            "reg_write": self._reg_write,
            "reg_read": self._reg_read,
            "dma_read": self._dma_read,
            "dma_write": self._dma_write,
            "dma_atomic": self._dma_atomic,
            "msi": self._msi,
            "ioapic_interrupt": self._ioapic_interrupt,
            "events": self._events,
            "ats_translate": self._ats_translate,
            "translated_read": self._translated_read,
            "translated_write": self._translated_write,
            "page_request": self._page_request,
            "page_group_responses": self._page_group_responses,
            "device_tlb_invalidations": self._device_tlb_invalidations,
            "device_tlb_complete": self._device_tlb_complete,
            "device_tlb_timeout": self._device_tlb_timeout,
        }

    def step(self, step: Mapping[str, Json]) -> tuple[Json, Json]:
        """What the step expects, and what it got; both None for a step that only acts."""
        operation = self._operations.get(step["op"])
        if operation is None:
            raise ScenarioError(f"op: {step['op']!r} is no operation of a scenario")
        got = operation(step)
        return step.get("expect"), got

    def requests(self, step: Mapping[str, Json]) -> list[Request]:
        """The requests that a DMA step makes, one for each page."""
        pasid, privileged = _tags(step)
        length = len(step["hex"]) // 2 if "hex" in step else _length(step)
        source_id, access = self._port(step).source_id, ACCESSES[step["op"]]
        return [
            Request(source_id, start, access, size, pasid, privileged)
            for start, size in split_pages(number(step["iova"]), length)
        ]

    def _port(self, step: Mapping[str, Json]) -> UnitPort:
        name = step["device"]
        if name not in self.ports:
            raise ScenarioError(f"device: {name!r} is not one of devices")
        return self.ports[name]

    def _event(self, event: Event) -> None:
        if isinstance(event, MessageSent):
            self.messages.append(event.message)
        elif isinstance(event, InterruptDelivered):
            self.delivered = event.outcome
        elif isinstance(event, PageGroupResponseSent):
            self.responses.append(event)
        elif isinstance(event, DeviceTlbInvalidationSent):
            self.invalidations.append(event)

    def _mem_write(self, step: Mapping[str, Json]) -> None:
        self.memory.load(number(step["addr"]), bytes.fromhex(step["hex"]))

    def _mem_read(self, step: Mapping[str, Json]) -> str:
        data = self.memory.read(number(step["addr"]), _length(step))
        if "mask" in step:
            data = bytes(map(int.__and__, data, bytes.fromhex(step["mask"])))
        return data.hex()

    def _reg_write(self, step: Mapping[str, Json]) -> None:
        self.unit.write_register(number(step["offset"]), step["size"], number(step["value"]))

    def _reg_read(self, step: Mapping[str, Json]) -> int:
        value = self.unit.read_register(number(step["offset"]), step["size"])
        return value & number(step.get("mask", -1))

    def _dma_read(self, step: Mapping[str, Json]) -> Json:
        port, tags = self._port(step), _tags(step)
        return outcomes.read(
            [
                (start, size, port.read_part(start, size, *tags))
                for start, size in split_pages(number(step["iova"]), _length(step))
            ]
        )

    def _dma_write(self, step: Mapping[str, Json]) -> Json:
        port, tags, iova = self._port(step), _tags(step), number(step["iova"])
        data = bytes.fromhex(step["hex"])
        return outcomes.write(
            [
                (start, size, port.write_part(start, data[start - iova :][:size], *tags))
                for start, size in split_pages(iova, len(data))
            ]
        )

    def _dma_atomic(self, step: Mapping[str, Json]) -> Json:
        pasid, privileged = _tags(step)
        done = self._port(step).atomic(
            ATOMICS[step["kind"]],
            number(step["iova"]),
            bytes.fromhex(step["hex"]),
            pasid=pasid,
            privileged=privileged,
        )
        return {"data": done.data.hex()} if done.ok else {"fault": True}

    def _msi(self, step: Mapping[str, Json]) -> Json:
        return self._interrupt(step, number(step["address"]), number(step["data"]))

    def _ioapic_interrupt(self, step: Mapping[str, Json]) -> Json:
        entry = RemappableRte(number(step["rte"]))
        if entry.format:
            address: int = RemappableAddress.for_handle(entry.index, shv=False)
            return self._interrupt(step, address, entry.v)
        plain = CompatibilityRte(entry)
        address = CompatibilityAddress.of(fee=0xFEE, dst=plain.dst, dm=plain.dm)
        data = CompatibilityData.of(v=plain.v, dlm=plain.dlm, tm=plain.tm, level=plain.tm)
        return self._interrupt(step, address, data)

    def _interrupt(self, step: Mapping[str, Json], address: int, data: int) -> Json:
        self.delivered = None
        self._port(step).write_part(address, data.to_bytes(4, "little"))
        return outcomes.interrupt(self.delivered)

    def _events(self, _: Mapping[str, Json]) -> Json:
        sent, self.messages = self.messages, []
        return [message._asdict() for message in sent]

    def _ats_translate(self, step: Mapping[str, Json]) -> Json:
        pasid, privileged = _tags(step)
        completion = self._port(step).translate(
            number(step["iova"]),
            step["count"],
            no_write=step["no_write"],
            pasid=pasid,
            privileged=privileged,
        )
        expected = step.get("expect", {}).get("entries")
        return outcomes.translations(completion, None if expected is None else len(expected))

    def _translated_read(self, step: Mapping[str, Json]) -> Json:
        port, pasid = self._port(step), _tags(step)[0]
        return outcomes.read(
            [
                (start, size, port.read_translated_part(start, size, pasid))
                for start, size in split_pages(number(step["address"]), _length(step))
            ]
        )

    def _translated_write(self, step: Mapping[str, Json]) -> Json:
        port, pasid = self._port(step), _tags(step)[0]
        first, data = number(step["address"]), bytes.fromhex(step["hex"])
        return outcomes.write(
            [
                (
                    start,
                    size,
                    port.write_translated_part(start, data[start - first :][:size], pasid),
                )
                for start, size in split_pages(first, len(data))
            ]
        )

    def _page_request(self, step: Mapping[str, Json]) -> Json:
        pasid, privileged = _tags(step)
        message = PageRequest(
            number(step["address"]),
            step["read"],
            step["write"],
            step["prgi"],
            step["last"],
            pasid,
            privileged,
        )
        source_id = self._port(step).source_id
        return {"queued": self.unit.request_page(source_id, message)}

    def _page_group_responses(self, _: Mapping[str, Json]) -> Json:
        sent, self.responses = self.responses, []
        return [
            {"device": self.names.get(source_id), **outcomes.group_response(response)}
            for source_id, response, _ in sent
        ]

    def _device_tlb_invalidations(self, step: Mapping[str, Json]) -> Json:
        """Messages sent; one that the step gives a name is known by it from then on."""
        sent, self.invalidations = self.invalidations, []
        messages = [
            {"device": self.names.get(source_id), **outcomes.invalidation(request)}
            for source_id, request in sent
        ]
        for expected, message, (_, request) in zip(step["expect"], messages, sent, strict=False):
            if "tag" in expected:
                message["tag"] = expected["tag"]
                self.itags[expected["tag"]] = request.itag
        return messages

    def _device_tlb_complete(self, step: Mapping[str, Json]) -> None:
        if step.get("all"):
            while self.unit.devices.outstanding:
                itag, pending = next(iter(self.unit.devices.outstanding.items()))
                self.unit.complete_invalidation(pending.source_id, 1 << itag, 1)
            return
        vector = sum(1 << self.itags[tag] for tag in step["tags"])
        if step.get("unallocated"):
            outstanding = self.unit.devices.outstanding
            vector |= 1 << next(itag for itag in range(ITAGS) if itag not in outstanding)
        source_id = self._port(step).source_id
        self.unit.complete_invalidation(source_id, vector, step["count"])

    def _device_tlb_timeout(self, step: Mapping[str, Json]) -> None:
        self.unit.devices.time_out(self.itags[step["tag"]])


class SilentDevice:
    """A device-TLB that leaves answers to the steps of the scenario."""

    def invalidate(self, request: InvalidationRequest) -> None:
        """Not answered here."""

    def page_response(self, response: PageGroupResponse) -> None:
        """Nothing to do."""


ACCESSES = {"dma_read": READ, "dma_write": WRITE, "dma_atomic": ATOMIC}
ATOMICS = {"fetchadd": AtomicOp.FETCH_ADD, "swap": AtomicOp.SWAP, "cas": AtomicOp.CAS}


def _length(step: Mapping[str, Json]) -> int:
    length = step["length"]
    if not isinstance(length, int) or not 0 <= length <= MAX_LENGTH:
        raise ValueError(f"length: {length!r} is not a number from 0 to {MAX_LENGTH}")
    return length


def _tags(step: Mapping[str, Json]) -> tuple[int | None, bool]:
    pasid = step.get("pasid")
    return None if pasid is None else number(pasid), bool(step.get("privileged", False))
