"""The contract between a device and whatever carries its requests to memory.

A device makes a :class:`Request` and hands it to a :class:`DmaPort`, whose one method answers with
a :class:`Completion` of a PCI Express status; the device never learns why a request was refused. A
device with a device-TLB also answers the messages of :class:`AtsClient` (VT-d chapters 4 and 7).

A posted write has no completion on the bus. Ports return its outcome all the same, for test devices
and records; a model of real hardware does not act on it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import NamedTuple, Protocol

from pagetables.memory import BusError

READ = 1
WRITE = 2
ATOMIC = READ | WRITE
"""What a request needs of a translation."""
MESSAGE = 4
"""The access of a message, which no translation grants."""
EXECUTE_REQUESTED = 8
"""Set beside READ where what is read is to be executed (ER); only with a PASID."""
NO_SNOOP = 16
"""Set beside READ or WRITE where processor caches need not be snooped."""


class AddressType(IntEnum):
    """The AT field of a request (VT-d 4.2.1)."""

    UNTRANSLATED = 0
    TRANSLATION_REQUEST = 1
    TRANSLATED = 2
    RESERVED = 3
    """Of no request that is carried out."""


class CompletionStatus(Enum):
    """How a request ended, as the requester learns it."""

    SUCCESS = "SC"
    UNSUPPORTED_REQUEST = "UR"
    COMPLETER_ABORT = "CA"


SUCCESS = CompletionStatus.SUCCESS


class TranslationEntry(NamedTuple):
    """One translation of a translation completion (VT-d 4.2.3)."""

    address: int
    """Translated address of the first byte of the range; no meaning without permission."""
    size: int
    """Bytes the translation covers: a power of two, 4096 or more."""
    r: bool
    w: bool
    u: bool
    """Only untranslated requests may be used in this range."""
    n: bool
    """Non-snooped accesses."""
    x: bool
    priv: bool
    """The permissions are those of privileged mode."""
    global_: bool
    """The translation is the same for every PASID."""


class Completion(NamedTuple):
    """The answer to a request.

    A page request message succeeds if software will find it in its queue, an invalidation
    completion if anybody waits for one.
    """

    status: CompletionStatus
    data: bytes = b""
    """Of a successful read or atomic."""
    entries: tuple[TranslationEntry, ...] = ()
    """Of a successful translation request: consecutive ranges, perhaps without any permission."""
    interrupt: object = None
    """What an interrupt request became, where something remaps it; None for all others."""

    @property
    def ok(self) -> bool:
        """Whether the request succeeded."""
        return self.status is SUCCESS


DONE = Completion(SUCCESS)
REFUSED = Completion(CompletionStatus.UNSUPPORTED_REQUEST)


class AtomicOp(Enum):
    """Atomic operations of PCI Express; operands and old value are little-endian."""

    FETCH_ADD = "FetchAdd"
    SWAP = "Swap"
    CAS = "CAS"

    def size(self, operands: bytes) -> int:
        """Bytes of memory the operation covers; ValueError when the operands don't fit it.

        FetchAdd and Swap take one operand of 4 or 8 bytes, CAS the value to compare and the value
        to store, of 4, 8 or 16 bytes each.
        """
        count, sizes = (2, (4, 8, 16)) if self is AtomicOp.CAS else (1, (4, 8))
        if len(operands) not in {count * size for size in sizes}:
            raise ValueError(f"operands: {len(operands)} bytes are no operands of {self.value}")
        return len(operands) // count

    def apply(self, old: bytes, operands: bytes) -> bytes:
        """What memory that held ``old`` holds afterwards."""
        size = self.size(operands)
        if self is AtomicOp.FETCH_ADD:
            total = int.from_bytes(old, "little") + int.from_bytes(operands, "little")
            return (total % (1 << 8 * size)).to_bytes(size, "little")
        if self is AtomicOp.SWAP:
            return operands
        return operands[size:] if old == operands[:size] else old


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A page request message (VT-d 7.4). ``address`` is that of a 4 KiB page."""

    address: int
    read: bool
    write: bool
    group_index: int
    """Page request group index, 9 bits."""
    last: bool
    """The last request of its group: the one that asks for a response."""
    pasid: int | None = None
    privileged: bool = False
    execute: bool = False
    """The page is to be executed too; only with a PASID and ``read``."""


class ResponseCode(IntEnum):
    """Response codes of a page group response (VT-d 7.7); other numbers may arrive too."""

    SUCCESS = 0
    INVALID_REQUEST = 1
    RESPONSE_FAILURE = 15


@dataclass(frozen=True, slots=True)
class PageGroupResponse:
    """A page group response message: the fate of one whole group."""

    code: int
    group_index: int
    pasid: int | None = None


@dataclass(frozen=True, slots=True)
class InvalidationRequest:
    """An invalidation message to a device-TLB (VT-d 4.3): drop ``address`` up to ``+ size``."""

    address: int
    size: int
    """Bytes, a power of two; ``1 << 64`` with address 0 is everything."""
    global_: bool
    """With a PASID: for all PASIDs, including entries marked global."""
    pasid: int | None
    """None concerns the entries obtained without a PASID."""
    itag: int
    """What the completion is to name, 0 to 31."""


class Atomic(NamedTuple):
    """What an atomic operation does, and with what."""

    op: AtomicOp
    operands: bytes

    def is_of(self, size: int) -> bool:
        """Whether it covers this many bytes, and its operands fit it."""
        try:
            return self.op.size(self.operands) == size
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class NoWrite:
    """The NW flag of a translation request: only reading is wanted (VT-d 4.2.1)."""


@dataclass(frozen=True, slots=True)
class InvalidationCompletion:
    """The answer to invalidation requests: bit n of the 32-bit vector is ITag n.

    ``count`` is the number of answers, 1 to 8, that make one completion.
    """

    itag_vector: int
    count: int


Payload = bytes | Atomic | NoWrite | PageRequest | InvalidationCompletion | None
"""The data of a write, or what a request of another kind carries."""


class Request(NamedTuple):
    """One request on its way from a requester to memory (VT-d 3.1, 4.2.1)."""

    source_id: int
    """The requester id; bridges and ports put in what arrives at the root."""
    address: int
    access: int
    """READ, WRITE, ATOMIC or MESSAGE; READ for translation requests. EXECUTE_REQUESTED and NO_SNOOP
    may be set beside it."""
    length: int = 1
    """Bytes, not limited to a page; 0 is the zero-length read, 8 for each translation wanted."""
    pasid: int | None = None
    privileged: bool = False
    """Privileged mode requested; only with a PASID."""
    address_type: AddressType = AddressType.UNTRANSLATED
    payload: Payload = None

    @property
    def well_formed(self) -> bool:
        """Whether a requester can send this: an access there is, a length, a PASID of 20 bits."""
        _, _, access, length, pasid, _, _, _ = self
        known = 0 < access <= MESSAGE or self._has_known_attributes
        return known and length >= 0 and (pasid is None or not pasid >> 20)

    @property
    def _has_known_attributes(self) -> bool:
        executes = self.access == READ | EXECUTE_REQUESTED and self.pasid is not None
        return executes or self.access in (READ | NO_SNOOP, WRITE | NO_SNOOP)

    @property
    def zero_length_read(self) -> bool:
        """Whether the request only asks if it may read."""
        return self.length == 0 and self.access & (ATOMIC | MESSAGE) == READ

    @property
    def plain(self) -> Request:
        """The request without EXECUTE_REQUESTED and NO_SNOOP."""
        return self._replace(access=self.access & (ATOMIC | MESSAGE))


class DmaPort(ABC):
    """Where a function sends its requests: :meth:`request`, and short forms of it.

    A transfer that is refused part of the way stays done up to there. ``privileged`` is the
    privileged-mode-requested bit, sent only with a PASID. What no short form says, such as
    EXECUTE_REQUESTED or a privileged translation request, a :class:`Request` does.
    """

    source_id: int = 0
    """The requester id of what is sent by the short forms."""

    @abstractmethod
    def request(self, request: Request) -> Completion:
        """Carry out a request, or refuse it."""

    def way(self) -> DmaPort:
        """The port that answers for this one until something on the way to memory changes."""
        return self

    def read(
        self, address: int, length: int, *, pasid: int | None = None, privileged: bool = False
    ) -> Completion:
        """Read ``length`` bytes."""
        send, source_id = self.request, self.source_id
        request = source_id, address, 1, length, pasid, privileged, _UNTRANSLATED, None
        return send(_new(Request, request))

    def write(
        self, address: int, data: bytes, *, pasid: int | None = None, privileged: bool = False
    ) -> Completion:
        """Write all of ``data``; 4 bytes to FEEx_xxxxh are an interrupt request."""
        send, source_id = self.request, self.source_id
        request = source_id, address, 2, len(data), pasid, privileged, _UNTRANSLATED, data
        return send(_new(Request, request))

    def atomic(
        self,
        op: AtomicOp,
        address: int,
        operands: bytes,
        *,
        pasid: int | None = None,
        privileged: bool = False,
    ) -> Completion:
        """Change memory as ``op`` says; the completion's data is the old value.

        ValueError when the operands don't fit the operation. An address that is not a multiple of
        the operand's size makes a malformed request.
        """
        size, payload = op.size(operands), Atomic(op, operands)
        return self.request(
            Request(
                self.source_id, address, ATOMIC, size, pasid, privileged, _UNTRANSLATED, payload
            )
        )

    def translate(
        self,
        address: int,
        count: int = 1,
        *,
        no_write: bool = False,
        pasid: int | None = None,
    ) -> Completion:
        """Ask for up to ``count`` translations from ``address`` on; ``no_write`` is the NW bit."""
        kind, flags = AddressType.TRANSLATION_REQUEST, NoWrite() if no_write else None
        return self.request(
            Request(self.source_id, address, READ, 8 * count, pasid, False, kind, flags)
        )

    def read_translated(self, address: int, length: int, *, pasid: int | None = None) -> Completion:
        """Read at an address that a translation completion gave (AT=10b)."""
        kind = AddressType.TRANSLATED
        return self.request(
            Request(self.source_id, address, READ, length, pasid, address_type=kind)
        )

    def write_translated(
        self, address: int, data: bytes, *, pasid: int | None = None
    ) -> Completion:
        """Write at an address that a translation completion gave (AT=10b)."""
        kind = AddressType.TRANSLATED
        return self.request(
            Request(self.source_id, address, WRITE, len(data), pasid, False, kind, data)
        )

    def page_request(self, message: PageRequest) -> Completion:
        """Ask software to make a page usable."""
        return self.request(
            Request(
                self.source_id,
                message.address,
                MESSAGE,
                0,
                message.pasid,
                message.privileged,
                payload=message,
            )
        )

    def complete_invalidation(self, itag_vector: int, count: int) -> Completion:
        """Answer invalidations: bit n of the 32-bit vector is ITag n, of ``count`` answers each."""
        payload = InvalidationCompletion(itag_vector, count)
        return self.request(Request(self.source_id, 0, MESSAGE, 0, payload=payload))


_new = tuple.__new__  # a named tuple's own constructor costs twice as much
_UNTRANSLATED = AddressType.UNTRANSLATED


class ClosedPort(DmaPort):
    """A port that lets nothing through: every request ends with ``status``."""

    def __init__(self, status: CompletionStatus = CompletionStatus.UNSUPPORTED_REQUEST) -> None:
        self._answer = Completion(status)

    def request(self, request: Request) -> Completion:
        """Refused."""
        return self._answer


class AtsClient(Protocol):
    """The messages a function with a device-TLB receives."""

    def invalidate(self, request: InvalidationRequest) -> None:
        """Drop translations. The answer may come before this returns, later, or never."""
        ...

    def page_response(self, response: PageGroupResponse) -> None:
        """The group of page requests was serviced, or was not."""
        ...


class SilentDevice:
    """Messages come to nothing here: those to a function without a device-TLB, for one."""

    def invalidate(self, request: InvalidationRequest) -> None:
        """Never answered."""

    def page_response(self, response: PageGroupResponse) -> None:
        """Nothing waits for it."""


def split_pages(address: int, length: int) -> Iterator[tuple[int, int]]:
    """Start and size of the parts of a transfer, cut at 4 KiB boundaries; at least one."""
    end = address + length
    while True:
        size = min(end, (address | 0xFFF) + 1) - address
        yield address, size
        address += size
        if address >= end:
            return


def part_of(request: Request, start: int, size: int) -> Request:
    """The part of a transfer that lies in one page."""
    payload = request.payload
    if isinstance(payload, bytes):
        payload = payload[start - request.address : start - request.address + size]
    return request._replace(address=start, length=size, payload=payload)


class Memory(Protocol):
    """Physical memory; both methods raise :class:`pagetables.memory.BusError`."""

    def read(self, address: int, length: int) -> bytes:
        """``length`` bytes from ``address`` on."""
        ...

    def write(self, address: int, data: bytes) -> None:
        """Store all of ``data`` from ``address`` on."""
        ...


def move(memory: Memory, request: Request, address: int) -> Completion:
    """Carry out a read, write or atomic at a physical address.

    Unsupported where there is no memory, for an atomic that is not aligned, for a request that is
    none of these, and for one that does not carry as many bytes as its length says.
    """
    if request.access > MESSAGE:
        request = request.plain
    length, payload = request.length, request.payload
    try:
        if request.access == READ:
            return Completion(SUCCESS, memory.read(address, length))
        if request.access == ATOMIC:
            if not isinstance(payload, Atomic) or not payload.is_of(length) or address % length:
                return REFUSED
            before = memory.read(address, length)
            memory.write(address, payload.op.apply(before, payload.operands))
            return Completion(SUCCESS, before)
        if request.access != WRITE or not isinstance(payload, bytes) or len(payload) != length:
            return REFUSED
        memory.write(address, payload)
    except BusError:
        return REFUSED
    return DONE


class DirectPort(DmaPort):
    """A port without remapping: addresses are physical, transfers happen whole or not at all."""

    def __init__(self, memory: Memory, source_id: int = 0) -> None:
        self.memory = memory
        self.source_id = source_id

    def request(self, request: Request) -> Completion:
        """Unsupported where there is no memory, and for whatever is no transfer (AT 01b, 11b)."""
        if request.access == MESSAGE or request.address_type & 1:
            return REFUSED
        return move(self.memory, request, request.address)
