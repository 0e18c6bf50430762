"""The contract between a device and whatever carries its requests to memory.

A device owns a :class:`DmaPort` and sees :class:`Completion` values with a PCI Express status; it
never learns why a request was refused. A device with a device-TLB owns an :class:`AtsPort` and
answers the messages of :class:`AtsClient` (VT-d chapters 4 and 7).

A posted write has no completion on the bus. Ports return its outcome all the same, for test devices
and records; a model of real hardware does not act on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import NamedTuple, Protocol, runtime_checkable

from pagetables.memory import BusError

READ = 1
WRITE = 2
"""What a request needs of a translation: READ, WRITE, or both (an atomic)."""


class AddressType(IntEnum):
    """The AT field of a request (VT-d 4.2.1)."""

    UNTRANSLATED = 0
    TRANSLATION_REQUEST = 1
    TRANSLATED = 2


class CompletionStatus(Enum):
    """How a request ended, as the requester learns it."""

    SUCCESS = "SC"
    UNSUPPORTED_REQUEST = "UR"
    COMPLETER_ABORT = "CA"


@dataclass(frozen=True, slots=True)
class Completion:
    """The answer to a request; ``data`` only after a successful read or atomic."""

    status: CompletionStatus
    data: bytes = b""

    @property
    def ok(self) -> bool:
        """Whether the request succeeded."""
        return self.status is CompletionStatus.SUCCESS


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


class DmaPort(Protocol):
    """Where a function sends its memory requests.

    Addresses are what the device was given, lengths are bytes and not limited to a page. A transfer
    that is refused part of the way stays done up to there. Reading 0 bytes is the zero-length read
    of PCI Express. ``privileged`` is the privileged-mode-requested bit, sent only with a PASID.
    """

    def read(
        self, address: int, length: int, *, pasid: int | None = None, privileged: bool = False
    ) -> Completion:
        """Read ``length`` bytes."""
        ...

    def write(
        self, address: int, data: bytes, *, pasid: int | None = None, privileged: bool = False
    ) -> Completion:
        """Write all of ``data``; 4 bytes to FEEx_xxxxh are an interrupt request."""
        ...

    def atomic(
        self,
        op: AtomicOp,
        address: int,
        operands: bytes,
        *,
        pasid: int | None = None,
        privileged: bool = False,
    ) -> Completion:
        """Change memory as ``op`` says; the completion's data is the old value."""
        ...


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


@dataclass(frozen=True, slots=True)
class TranslationCompletion:
    """The answer to a translation request: consecutive ranges, none unless successful."""

    status: CompletionStatus
    entries: tuple[TranslationEntry, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the request succeeded, which includes entries without any permission."""
        return self.status is CompletionStatus.SUCCESS


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


class AtsClient(Protocol):
    """The messages a function with a device-TLB receives."""

    def invalidate(self, request: InvalidationRequest) -> None:
        """Drop translations. The answer may come before this returns, later, or never."""
        ...

    def page_response(self, response: PageGroupResponse) -> None:
        """The group of page requests was serviced, or was not."""
        ...


@runtime_checkable
class AtsPort(DmaPort, Protocol):
    """A port that also carries address translation services and page requests."""

    def translate(
        self,
        address: int,
        count: int = 1,
        *,
        no_write: bool = False,
        pasid: int | None = None,
        privileged: bool = False,
    ) -> TranslationCompletion:
        """Ask for up to ``count`` translations from ``address`` on; ``no_write`` is the NW bit."""
        ...

    def read_translated(self, address: int, length: int, *, pasid: int | None = None) -> Completion:
        """Read at an address that a translation completion gave (AT=10b)."""
        ...

    def write_translated(
        self, address: int, data: bytes, *, pasid: int | None = None
    ) -> Completion:
        """Write at an address that a translation completion gave (AT=10b)."""
        ...

    def page_request(self, request: PageRequest) -> None:
        """Ask software to make a page usable."""
        ...

    def complete_invalidation(self, itag_vector: int, count: int) -> None:
        """Answer invalidations: bit n of the 32-bit vector is ITag n.

        ``count`` is the number of answers, 1 to 8, that make one completion.
        """
        ...


def split_pages(address: int, length: int) -> Iterator[tuple[int, int]]:
    """Start and size of the parts of a transfer, cut at 4 KiB boundaries; at least one."""
    end = address + length
    while True:
        size = min(end, (address | 0xFFF) + 1) - address
        yield address, size
        address += size
        if address >= end:
            return


class Memory(Protocol):
    """Physical memory; both methods raise :class:`pagetables.memory.BusError`."""

    def read(self, address: int, length: int) -> bytes:
        """``length`` bytes from ``address`` on."""
        ...

    def write(self, address: int, data: bytes) -> None:
        """Store all of ``data`` from ``address`` on."""
        ...


class DirectPort:
    """A port without remapping: addresses are physical, transfers happen whole or not at all."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    def read(
        self, address: int, length: int, *, pasid: int | None = None, privileged: bool = False
    ) -> Completion:
        """Read ``length`` bytes; an unsupported request where there is no memory."""
        try:
            return Completion(CompletionStatus.SUCCESS, self.memory.read(address, length))
        except BusError:
            return Completion(CompletionStatus.UNSUPPORTED_REQUEST)

    def write(
        self, address: int, data: bytes, *, pasid: int | None = None, privileged: bool = False
    ) -> Completion:
        """Write all of ``data``; an unsupported request where there is no memory."""
        try:
            self.memory.write(address, data)
        except BusError:
            return Completion(CompletionStatus.UNSUPPORTED_REQUEST)
        return Completion(CompletionStatus.SUCCESS)

    def atomic(
        self,
        op: AtomicOp,
        address: int,
        operands: bytes,
        *,
        pasid: int | None = None,
        privileged: bool = False,
    ) -> Completion:
        """Change memory as ``op`` says; the completion's data is the old value."""
        before = self.read(address, op.size(operands), pasid=pasid, privileged=privileged)
        if not before.ok:
            return before
        after = op.apply(before.data, operands)
        stored = self.write(address, after, pasid=pasid, privileged=privileged)
        return before if stored.ok else stored
