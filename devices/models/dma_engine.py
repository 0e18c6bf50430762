"""A DMA engine for tests: does whatever request it is told to, with every attribute chosen.

No hardware to match. It issues reads, writes and atomics with or without PASID, directly, through
its device-TLB or as translated requests of any address; translation requests; page requests;
interrupt messages; and any of them under another requester id. Commands run in order; one that
needs a page waits for the page response, then goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from devices import dma
from devices.ats import AtsAgent, Misbehaviour
from devices.capabilities import add_ats, add_pasid, add_pri
from devices.device_tlb import DeviceTlb
from devices.dma import (
    ATOMIC,
    READ,
    REFUSED,
    WRITE,
    AddressType,
    AtomicOp,
    Completion,
    DmaPort,
    NoWrite,
    PageRequest,
    Payload,
    Request,
    ResponseCode,
)
from devices.function import Identity, PciFunction
from devices.pri import PageRequestInterface
from devices.source_id import SourceId

IDENTITY = Identity(vendor_id=0x1234, device_id=0x11E9, class_code=0x00FF00)

PAGE_REQUEST_ATTEMPTS = 8
"""How often the engine asks for the same pages before it gives up."""


class Via(Enum):
    """How a read or write leaves the engine."""

    UNTRANSLATED = "untranslated"
    DEVICE_TLB = "through the device-TLB, asking for pages where needed"
    TRANSLATED = "as a translated request of the address as given"


@dataclass(frozen=True, slots=True)
class Read:
    """Read ``length`` bytes."""

    address: int
    length: int
    pasid: int | None = None
    privileged: bool = False
    via: Via = Via.UNTRANSLATED


@dataclass(frozen=True, slots=True)
class Write:
    """Write ``data``."""

    address: int
    data: bytes
    pasid: int | None = None
    privileged: bool = False
    via: Via = Via.UNTRANSLATED


@dataclass(frozen=True, slots=True)
class Atomic:
    """An atomic operation, untranslated."""

    op: AtomicOp
    address: int
    operands: bytes
    pasid: int | None = None
    privileged: bool = False


@dataclass(frozen=True, slots=True)
class Translate:
    """A translation request; what it gives is kept in the device-TLB."""

    address: int
    count: int = 1
    no_write: bool = False
    pasid: int | None = None
    privileged: bool = False


@dataclass(frozen=True, slots=True)
class SendPageRequest:
    """A single page request message as given, outside any rule; its response is unexpected."""

    request: PageRequest


@dataclass(frozen=True, slots=True)
class SendMessage:
    """An interrupt message as given."""

    address: int
    data: int


@dataclass(frozen=True, slots=True)
class As:
    """A read, write, atomic or message under another requester id, always untranslated."""

    source_id: SourceId
    command: Read | Write | Atomic | SendMessage


Sent = Read | Write | Atomic | Translate | SendMessage
"""What is sent as one request."""
Command = Sent | SendPageRequest | As
"""What the engine can be told."""


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    """How a command ended."""

    command: Command
    completion: Completion


class DmaEngine(PciFunction):
    """The engine: ``submit`` commands, then ``run``; ``blocked`` while it waits for a page.

    ``impersonate`` gives the port of another requester id; without it :class:`As` is refused.
    """

    def __init__(
        self,
        *,
        tlb: DeviceTlb | None = None,
        misbehaviour: Misbehaviour = Misbehaviour.NONE,
        page_request_capacity: int = 32,
        msix_vectors: int = 8,
    ) -> None:
        super().__init__(IDENTITY)
        self.add_pci_express()
        self.add_bar(0, 0x1_0000)
        self.add_msix(msix_vectors, table=(0, 0), pending=(0, 0x8000))
        ats = add_ats(self.config)
        self._pages = PageRequestInterface(add_pri(self.config, page_request_capacity))
        self.ats = AtsAgent(
            self,
            ats,
            pages=self._pages,
            pasid=add_pasid(self.config, translated=True),
            tlb=tlb,
            misbehaviour=misbehaviour,
        )
        self.impersonate: Callable[[SourceId], DmaPort] | None = None
        self._queue: deque[Command] = deque()
        self._waiting: int | None = None
        self._missing: tuple[int, ...] = ()
        self._attempts = 0
        self.at_reset.append(self._forget)

    def submit(self, *commands: Command) -> None:
        """Append commands to the queue."""
        self._queue.extend(commands)

    @property
    def blocked(self) -> bool:
        """Whether the first command waits for a page response."""
        return self._waiting is not None

    def run(self) -> list[CommandOutcome]:
        """Carry commands out until none is left or one has to wait; how each ended."""
        outcomes = []
        while self._queue:
            completion = self._attempt(self._queue[0])
            if completion is None:
                break
            outcomes.append(CommandOutcome(self._queue.popleft(), completion))
            self._missing = ()
        return outcomes

    def _attempt(self, command: Command) -> Completion | None:
        """The completion of a command, or None if it has to wait for a page response."""
        match command:
            case Read(via=Via.DEVICE_TLB) | Write(via=Via.DEVICE_TLB):
                return self._through_device_tlb(command)
            case Read(via=Via.TRANSLATED) | Write(via=Via.TRANSLATED):
                return self._translated(command)
            case As():
                return self._impersonated(command)
            case SendPageRequest(request):
                return self.dma.page_request(request)
            case Translate():
                return _send(self.ats, command)
        return _send(self.dma, command)

    def _through_device_tlb(self, command: Read | Write) -> Completion | None:
        """Ask for pages as long as some are missing and asking helps."""
        request = _request(0, command)
        while True:
            if self._waiting is not None:
                code = self._pages.take_response(self._waiting)
                if code is None:
                    return None
                self._waiting = None
                if code != ResponseCode.SUCCESS:
                    return REFUSED
            missing = self.ats.missing(request)
            if not missing:
                return self.ats.request(request)
            self._attempts = self._attempts + 1 if missing == self._missing else 1
            self._missing = missing
            if self._attempts > PAGE_REQUEST_ATTEMPTS:
                return REFUSED
            wanted = request if request.access == READ else request._replace(access=ATOMIC)
            self._waiting = self.ats.request_pages(wanted, missing[: self._pages.allocation])
            if self._waiting is None:
                return REFUSED

    def _impersonated(self, command: As) -> Completion:
        if self.impersonate is None or not self.command.value.bme:
            return REFUSED
        return _send(self.impersonate(command.source_id), command.command)

    def _translated(self, command: Read | Write) -> Completion:
        """As given: the enable bits of the capabilities are not asked."""
        if isinstance(command, Write):
            return self.dma.write_translated(command.address, command.data, pasid=command.pasid)
        return self.dma.read_translated(command.address, command.length, pasid=command.pasid)

    def _forget(self) -> None:
        self._queue.clear()
        self._waiting = None
        self._missing = ()


def _send(port: DmaPort, command: Sent) -> Completion:
    return port.request(_request(port.source_id, command))


def _request(source_id: int, command: Sent) -> Request:
    """What a command sends."""
    payload: Payload = None
    address_type = AddressType.UNTRANSLATED
    match command:
        case Read():
            access, length = READ, command.length
        case Write():
            access, length, payload = WRITE, len(command.data), command.data
        case Atomic(op, _, operands):
            access, length, payload = ATOMIC, op.size(operands), dma.Atomic(op, operands)
        case Translate():
            address_type = AddressType.TRANSLATION_REQUEST
            access, length = READ, 8 * command.count
            payload = NoWrite() if command.no_write else None
        case SendMessage(address, data):
            return Request(source_id, address, WRITE, 4, payload=data.to_bytes(4, "little"))
    kind = command.pasid, command.privileged
    return Request(source_id, command.address, access, length, *kind, address_type, payload)
