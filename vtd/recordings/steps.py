"""The steps of a scenario: one class for each operation, with its fields as values.

``tests/vectors/FORMAT.md`` describes them. A field has the name that it has in the file, and its
type says how it is read from there. Left out: what a step does, which
:mod:`vtd.recordings.scenario` carries out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, ClassVar, NamedTuple, get_type_hints

from devices.dma import (
    ATOMIC,
    EXECUTE_REQUESTED,
    READ,
    WRITE,
    AddressType,
    Atomic,
    AtomicOp,
    NoWrite,
    Request,
)
from vtd.recordings.values import (
    Json,
    ScenarioError,
    access_size,
    anything,
    atomic,
    byte_string,
    flag,
    items,
    length,
    member,
    number,
    optional,
    text,
    texts,
)

Number = Annotated[int, number]
Length = Annotated[int, length]
AccessSize = Annotated[int, access_size]
Bytes = Annotated[bytes, byte_string]
Flag = Annotated[bool, flag]
Text = Annotated[str, text]
Texts = Annotated[tuple[str, ...], texts]
Items = Annotated[list[Json], items]
Operation = Annotated[AtomicOp, atomic]
Anything = Annotated[Json, anything]
OptionalNumber = Annotated[int | None, optional(number)]
OptionalLength = Annotated[int | None, optional(length)]
OptionalBytes = Annotated[bytes | None, optional(byte_string)]


@dataclass(frozen=True, kw_only=True)
class Step:
    """What software or a device does, and the outcome that the file has of it."""

    op: ClassVar[str]

    expect: Anything = None
    """None where the step only acts."""


@dataclass(frozen=True, kw_only=True)
class UnitStep(Step):
    """What happens to one unit, by its number among those of the head."""

    unit: Number = 0


@dataclass(frozen=True, kw_only=True)
class MemWrite(Step):
    """Software writes memory."""

    op: ClassVar = "mem_write"

    addr: Number
    hex: Bytes


@dataclass(frozen=True, kw_only=True)
class MemFlush(Step):
    """Software writes back the cache lines of a range."""

    op: ClassVar = "mem_flush"

    addr: Number
    length: Length


@dataclass(frozen=True, kw_only=True)
class MemRead(Step):
    """Software reads memory; ``mask`` has as many bytes, and those bits count."""

    op: ClassVar = "mem_read"

    addr: Number
    length: Length
    mask: OptionalBytes = None

    def __post_init__(self) -> None:
        if self.mask is not None and len(self.mask) != self.length:
            raise ScenarioError(f"mask: has {len(self.mask)} bytes, not {self.length}")


@dataclass(frozen=True, kw_only=True)
class RegWrite(UnitStep):
    """Software writes a register."""

    op: ClassVar = "reg_write"

    offset: Number
    size: AccessSize
    value: Number


@dataclass(frozen=True, kw_only=True)
class RegRead(UnitStep):
    """Software reads a register; the bits of ``mask`` count."""

    op: ClassVar = "reg_read"

    offset: Number
    size: AccessSize
    mask: Number = (1 << 64) - 1


@dataclass(frozen=True, kw_only=True)
class Reset(UnitStep):
    """The unit is reset; sticky fields are lost unless ``power_good`` is false (11.3)."""

    op: ClassVar = "reset"

    power_good: Flag = True


@dataclass(frozen=True, kw_only=True)
class Suspend(UnitStep):
    """The unit loses its power."""

    op: ClassVar = "suspend"


@dataclass(frozen=True, kw_only=True)
class Resume(UnitStep):
    """Power comes back, and with it a power-good reset."""

    op: ClassVar = "resume"


@dataclass(frozen=True, kw_only=True)
class DeviceStep(Step):
    """A device sends something."""

    device: Text


@dataclass(frozen=True, kw_only=True)
class _Tagged(DeviceStep):
    """A request that may have a PASID."""

    pasid: OptionalNumber = None
    privileged: Flag = False

    @property
    def tags(self) -> tuple[int | None, bool]:
        """Both, in the order in which a request has them."""
        return self.pasid, self.privileged


@dataclass(frozen=True, kw_only=True)
class Dma(_Tagged, ABC):
    """An untranslated request for memory."""

    iova: Number

    @abstractmethod
    def request(self, source_id: int) -> Request:
        """All that it asks for at once."""


@dataclass(frozen=True, kw_only=True)
class DmaRead(Dma):
    """A device reads; length 0 is a zero-length read."""

    op: ClassVar = "dma_read"

    length: Length
    execute: Flag = False

    def __post_init__(self) -> None:
        _check_execute(self)

    def request(self, source_id: int) -> Request:
        access = READ | EXECUTE_REQUESTED if self.execute else READ
        return Request(source_id, self.iova, access, self.length, *self.tags)


@dataclass(frozen=True, kw_only=True)
class DmaWrite(Dma):
    """A device writes."""

    op: ClassVar = "dma_write"

    hex: Bytes
    length: OptionalLength = None

    def __post_init__(self) -> None:
        _check_length(self.hex, self.length)

    def request(self, source_id: int) -> Request:
        return Request(source_id, self.iova, WRITE, len(self.hex), *self.tags, payload=self.hex)


@dataclass(frozen=True, kw_only=True)
class DmaAtomic(Dma):
    """A device changes memory in one operation; ``hex`` holds the operands."""

    op: ClassVar = "dma_atomic"

    kind: Operation
    hex: Bytes

    def __post_init__(self) -> None:
        try:
            self.kind.size(self.hex)
        except ValueError as error:
            raise ScenarioError(f"hex: {error}") from error

    def request(self, source_id: int) -> Request:
        size, payload = self.kind.size(self.hex), Atomic(self.kind, self.hex)
        return Request(source_id, self.iova, ATOMIC, size, *self.tags, payload=payload)


@dataclass(frozen=True, kw_only=True)
class Msi(DeviceStep):
    """A device sends an interrupt message."""

    op: ClassVar = "msi"

    address: Number
    data: Number

    def __post_init__(self) -> None:
        if self.data >> 32:
            raise ScenarioError(f"data: {self.data:#x} has more than 32 bits")


@dataclass(frozen=True, kw_only=True)
class IoapicInterrupt(DeviceStep):
    """A pin of an I/O APIC with this redirection entry fires."""

    op: ClassVar = "ioapic_interrupt"

    rte: Number


@dataclass(frozen=True, kw_only=True)
class Events(Step):
    """The messages that the unit itself has sent since the last such step."""

    op: ClassVar = "events"


@dataclass(frozen=True, kw_only=True)
class AtsTranslate(_Tagged):
    """A translation request for ``count`` translations."""

    op: ClassVar = "ats_translate"

    iova: Number
    count: Number
    no_write: Flag
    execute: Flag = False

    def __post_init__(self) -> None:
        _check_execute(self)

    def request(self, source_id: int) -> Request:
        """What the device sends."""
        access = READ | EXECUTE_REQUESTED if self.execute else READ
        asks, flags = AddressType.TRANSLATION_REQUEST, NoWrite() if self.no_write else None
        return Request(source_id, self.iova, access, 8 * self.count, *self.tags, asks, flags)

    @property
    def entries(self) -> int | None:
        """How many translations are compared; None for all."""
        wanted = self.expect.get("entries") if isinstance(self.expect, dict) else None
        return len(wanted) if isinstance(wanted, list) else None


@dataclass(frozen=True, kw_only=True)
class TranslatedRead(_Tagged):
    """A device reads with a translated address."""

    op: ClassVar = "translated_read"

    address: Number
    length: Length


@dataclass(frozen=True, kw_only=True)
class TranslatedWrite(_Tagged):
    """A device writes with a translated address."""

    op: ClassVar = "translated_write"

    address: Number
    hex: Bytes
    length: OptionalLength = None

    def __post_init__(self) -> None:
        _check_length(self.hex, self.length)


@dataclass(frozen=True, kw_only=True)
class PageRequestStep(_Tagged):
    """A page request message."""

    op: ClassVar = "page_request"

    address: Number
    read: Flag
    write: Flag
    prgi: Number
    last: Flag
    execute: Flag = False

    def __post_init__(self) -> None:
        _check_execute(self)


@dataclass(frozen=True, kw_only=True)
class PageGroupResponses(Step):
    """The page group responses sent since the last such step."""

    op: ClassVar = "page_group_responses"


@dataclass(frozen=True, kw_only=True)
class DeviceTlbInvalidations(Step):
    """The invalidation requests sent since the last such step, some of which get a name."""

    op: ClassVar = "device_tlb_invalidations"

    expect: Items

    @property
    def tags(self) -> Iterator[str | None]:
        """The name of each request; None where it gets none."""
        for each in self.expect:
            yield member(each, "tag", optional(text), None)


@dataclass(frozen=True, kw_only=True)
class DeviceTlbComplete(Step):
    """A device answers invalidation requests by name, or with ``all`` each device what it owes."""

    op: ClassVar = "device_tlb_complete"

    device: Text = ""
    tags: Texts = ()
    count: OptionalNumber = None
    unallocated: Flag = False
    all: Flag = False

    def __post_init__(self) -> None:
        if not self.all and (not self.device or self.count is None):
            raise ScenarioError("needs 'device', 'tags' and 'count', or 'all'")


@dataclass(frozen=True, kw_only=True)
class DeviceTlbTimeout(Step):
    """The time for the answer to an invalidation request runs out."""

    op: ClassVar = "device_tlb_timeout"

    tag: Text


class Field(NamedTuple):
    """A field of a step, and how its JSON is read."""

    name: str
    read: Callable[[Json], Json]
    required: bool


class Kind(NamedTuple):
    """An operation: the class of its steps and their fields."""

    make: type[Step]
    fields: tuple[Field, ...]


Kinds = Mapping[str, Kind]


def kinds_of(*classes: type[Step]) -> Kinds:
    """The operations of these classes, by name."""
    return {each.op: Kind(each, tuple(_fields(each))) for each in classes}


def _fields(step: type[Step]) -> Iterator[Field]:
    hints = get_type_hints(step, include_extras=True)
    for each in fields(step):
        yield Field(each.name, hints[each.name].__metadata__[0], each.default is MISSING)


STEPS = kinds_of(
    MemWrite,
    MemFlush,
    MemRead,
    RegWrite,
    RegRead,
    Reset,
    Suspend,
    Resume,
    DmaRead,
    DmaWrite,
    DmaAtomic,
    Msi,
    IoapicInterrupt,
    Events,
    AtsTranslate,
    TranslatedRead,
    TranslatedWrite,
    PageRequestStep,
    PageGroupResponses,
    DeviceTlbInvalidations,
    DeviceTlbComplete,
    DeviceTlbTimeout,
)


def parse_step(raw: Json, kinds: Kinds = STEPS) -> Step:
    """A step from its JSON; ScenarioError names the field. Other fields are for the reader."""
    op = member(raw, "op", text)
    if op not in kinds:
        raise ScenarioError(f"op: {op!r} is no operation of a scenario")
    kind = kinds[op]
    values = {}
    for name, read, required in kind.fields:
        if name in raw:
            try:
                values[name] = read(raw[name])
            except ScenarioError as error:
                raise ScenarioError(f"{name}: {error}") from error
        elif required:
            raise ScenarioError(f"{name!r} is missing")
    return kind.make(**values)


def parse_steps(raw: list[Json], kinds: Kinds = STEPS) -> tuple[Step, ...]:
    """All steps of a file; ScenarioError names the step, counted from 0, and the field."""
    return tuple(_numbered(index, each, kinds) for index, each in enumerate(raw))


def _numbered(index: int, raw: Json, kinds: Kinds) -> Step:
    try:
        return parse_step(raw, kinds)
    except ScenarioError as error:
        raise ScenarioError(f"step {index}: {error}") from error


def _check_execute(step: DmaRead | AtsTranslate | PageRequestStep) -> None:
    if step.execute and step.pasid is None:
        raise ScenarioError("execute: is sent with a pasid only")


def _check_length(data: bytes, said: int | None) -> None:
    if said not in (None, len(data)):
        raise ScenarioError(f"length: {said}, but hex holds {len(data)} bytes")
