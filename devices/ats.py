"""A function's use of ATS, PRI and PASID: translate, keep, ask for pages, answer invalidations.

VT-d chapters 4 and 7, PCI Express Address Translation Services and Page Request Services. Requests
that need a translation ask for one first; the enable bits of the capabilities decide what may be
sent at all. Translations of several pages in one request are sent only when asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum

from devices.capabilities import Ats, AtsControl, Pasid, PasidControl, Pri, PriControl, PriStatus
from devices.device_tlb import DeviceTlb, tag
from devices.dma import (
    READ,
    WRITE,
    AddressType,
    AtomicOp,
    Completion,
    CompletionStatus,
    InvalidationRequest,
    PageGroupResponse,
    PageRequest,
    ResponseCode,
    TranslationCompletion,
    TranslationEntry,
)
from devices.function import BME, REFUSED, PciFunction

PAGE_SIZE = 4096
PAGE_REQUEST_GROUPS = 512

_UNSUPPORTED = TranslationCompletion(CompletionStatus.UNSUPPORTED_REQUEST)


class Misbehaviour(Enum):
    """What a function does wrong, for tests of the side that has to notice."""

    NONE = "none"
    IGNORE = "drop invalidation requests without an answer"
    DELAY = "hold invalidation requests back until told to go on"
    ANSWER_TWICE = "complete each invalidation twice"
    ANSWER_WRONG_TAG = "complete each invalidation under another ITag"
    KEEP_ENTRIES = "complete invalidations but keep the translations"
    FORGE_ADDRESS = "use the untranslated address as if it had been translated"
    USE_WHILE_DISABLED = "keep using translations after ATS was disabled"


class AtsAgent:
    """The translation agent of one function: its port through the device-TLB, and an AtsClient.

    ``pri`` and ``pasid`` are those of the physical function when ``function`` is a virtual one.
    ``traffic_classes`` is how many completions answer one invalidation (1 to 8).
    """

    def __init__(
        self,
        function: PciFunction,
        ats: Ats,
        *,
        pri: Pri | None = None,
        pasid: Pasid | None = None,
        tlb: DeviceTlb | None = None,
        misbehaviour: Misbehaviour = Misbehaviour.NONE,
        traffic_classes: int = 1,
    ) -> None:
        if not 1 <= traffic_classes <= 8:
            raise ValueError(f"traffic_classes: {traffic_classes} is not in 1..8")
        self.ats = ats
        self.pri = pri
        self.pasid = pasid
        self.tlb = DeviceTlb() if tlb is None else tlb
        self.misbehaviour = misbehaviour
        self.traffic_classes = traffic_classes
        self.delayed: list[InvalidationRequest] = []
        """Invalidation requests held back under :attr:`Misbehaviour.DELAY`."""
        self._function = function
        self._refused_by_root = False
        self._outstanding: dict[int, int] = {}
        self._responses: dict[int, PageGroupResponse] = {}
        ats.control.on_write = self._ats_control
        if pri is not None and pri.control.on_write is None:
            pri.control.on_write = self._pri_control
        if pasid is not None and pasid.control.on_write is None:
            pasid.control.on_write = self._pasid_control
        function.client = self
        function.at_reset.append(self._reset)

    @property
    def enabled(self) -> bool:
        """Whether translation requests may be sent."""
        return bool(self.ats.control.value.enable) and not self._refused_by_root

    @property
    def allocation(self) -> int:
        """Page requests that software allows to be outstanding."""
        return 0 if self.pri is None else self.pri.allocation.value.allocation

    @property
    def outstanding(self) -> int:
        """Page requests sent and not answered."""
        return sum(self._outstanding.values())

    def translate(
        self,
        address: int,
        count: int = 1,
        *,
        no_write: bool = False,
        pasid: int | None = None,
        privileged: bool = False,
    ) -> TranslationCompletion:
        """Send a translation request and keep what it gives.

        After an unsupported request the function behaves as if ATS were disabled, until it is
        enabled anew.
        """
        port = self._function.ats_port
        if port is None or not self.enabled or not self._may_send(pasid, privileged):
            return _UNSUPPORTED
        completion = port.translate(
            address & -PAGE_SIZE, count, no_write=no_write, pasid=pasid, privileged=privileged
        )
        if completion.status is CompletionStatus.UNSUPPORTED_REQUEST:
            self._refused_by_root = True
        start = address
        for entry in completion.entries:
            self.tlb.insert(start, entry, tag(pasid, privileged))
            start = (start & -entry.size) + entry.size
        return completion

    def read(
        self, address: int, length: int, *, pasid: int | None = None, privileged: bool = False
    ) -> Completion:
        """Read through the device-TLB; the function refuses itself what no translation grants."""
        data = b""
        for start, size in _pages(address, length):
            route = self._resolve(start, READ, pasid, privileged)
            completion = self._read_routed(route, size, pasid, privileged)
            if not completion.ok:
                return completion
            data += completion.data
        return Completion(CompletionStatus.SUCCESS, data)

    def write(
        self, address: int, data: bytes, *, pasid: int | None = None, privileged: bool = False
    ) -> Completion:
        """Write through the device-TLB; the function refuses itself what no translation grants."""
        for start, size in _pages(address, len(data)):
            part = data[start - address : start - address + size]
            route = self._resolve(start, WRITE, pasid, privileged)
            completion = self._write_routed(route, part, pasid, privileged)
            if not completion.ok:
                return completion
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
        """An atomic operation, which goes untranslated."""
        if not self._may_send(pasid, privileged):
            return REFUSED
        return self._function.port.atomic(op, address, operands, pasid=pasid, privileged=privileged)

    def missing(
        self,
        address: int,
        length: int,
        need: int,
        *,
        pasid: int | None = None,
        privileged: bool = False,
    ) -> tuple[int, ...]:
        """The pages of a range that no translation grants ``need`` in, after asking for one."""
        return tuple(
            start & -PAGE_SIZE
            for start, _ in _pages(address, length)
            if self._resolve(start, need, pasid, privileged) is None
        )

    def request_pages(
        self,
        pages: Sequence[int],
        need: int,
        *,
        pasid: int | None = None,
        privileged: bool = False,
    ) -> int | None:
        """Send one group of page requests, the last marked so; returns its index.

        None, and nothing sent, if page requests are off or stopped, the allocation does not
        allow that many, or every group index is waiting for a response.
        """
        port, pri = self._function.ats_port, self.pri
        if port is None or pri is None or not pages or not self._may_send(pasid, privileged):
            return None
        control, status = pri.control.value, pri.status.value
        if not control.enable or status.rf:
            return None
        if self.outstanding + len(pages) > self.allocation:
            return None
        busy = self._outstanding.keys() | self._responses.keys()
        group = next((each for each in range(PAGE_REQUEST_GROUPS) if each not in busy), None)
        if group is None:
            return None
        self._outstanding[group] = len(pages)
        for number, page in enumerate(pages, 1):
            port.page_request(
                PageRequest(
                    address=page,
                    read=bool(need & READ),
                    write=bool(need & WRITE),
                    group_index=group,
                    last=number == len(pages),
                    pasid=pasid,
                    privileged=privileged,
                )
            )
        return group

    def take_response(self, group: int) -> int | None:
        """The response code of a group, handed out once; None while it is outstanding."""
        response = self._responses.pop(group, None)
        return None if response is None else response.code

    def invalidate(self, request: InvalidationRequest) -> None:
        """Drop translations and complete the request, as far as the function behaves."""
        if self.misbehaviour is Misbehaviour.IGNORE:
            return
        if self.misbehaviour is Misbehaviour.DELAY:
            self.delayed.append(request)
            return
        if self.misbehaviour is not Misbehaviour.KEEP_ENTRIES:
            self.tlb.invalidate(request)
        self._complete(request)

    def answer_delayed(self) -> None:
        """Drop and complete what was held back."""
        delayed, self.delayed = self.delayed, []
        for request in delayed:
            self.tlb.invalidate(request)
            self._complete(request)

    def page_response(self, response: PageGroupResponse) -> None:
        """Note the fate of a group; failures and unknown indexes show in the PRI status."""
        if self.pri is None:
            return
        status = self.pri.status
        if response.group_index not in self._outstanding:
            status.value = status.value.replace(uprgi=1)
            return
        del self._outstanding[response.group_index]
        self._responses[response.group_index] = response
        if response.code == ResponseCode.RESPONSE_FAILURE:
            status.value = status.value.replace(rf=1)
        self._settle(self.pri)

    def _may_send(self, pasid: int | None, privileged: bool) -> bool:
        """Whether bus mastering is on, and the PASID capability allows these request attributes."""
        if not self._function.command.value & BME:
            return False
        if pasid is None:
            return not privileged
        if self.pasid is None or not self.pasid.control.value.enable:
            return False
        if privileged and not self.pasid.control.value.privileged:
            return False
        return pasid >> self.pasid.capabilities.value.width == 0

    def _resolve(
        self, address: int, need: int, pasid: int | None, privileged: bool
    ) -> tuple[AddressType, int] | None:
        """How to send a request within one page, and to which address; None without permission."""
        if self.misbehaviour is Misbehaviour.FORGE_ADDRESS:
            return AddressType.TRANSLATED, address
        if self.enabled or self.misbehaviour is Misbehaviour.USE_WHILE_DISABLED:
            translated = self.tlb.lookup(address, need, tag(pasid, privileged))
            if translated is not None:
                return AddressType.TRANSLATED, translated
        if not self.enabled:
            return AddressType.UNTRANSLATED, address
        completion = self.translate(
            address, no_write=not need & WRITE, pasid=pasid, privileged=privileged
        )
        if not completion.ok:
            return None if self.enabled else (AddressType.UNTRANSLATED, address)
        return _granted(completion.entries, address, need)

    def _read_routed(
        self,
        route: tuple[AddressType, int] | None,
        length: int,
        pasid: int | None,
        privileged: bool,
    ) -> Completion:
        port = self._function.ats_port
        if route is None or not self._may_send(pasid, privileged):
            return REFUSED
        if route[0] is AddressType.TRANSLATED and port is not None:
            return port.read_translated(route[1], length, pasid=pasid)
        return self._function.port.read(route[1], length, pasid=pasid, privileged=privileged)

    def _write_routed(
        self,
        route: tuple[AddressType, int] | None,
        data: bytes,
        pasid: int | None,
        privileged: bool,
    ) -> Completion:
        port = self._function.ats_port
        if route is None or not self._may_send(pasid, privileged):
            return REFUSED
        if route[0] is AddressType.TRANSLATED and port is not None:
            return port.write_translated(route[1], data, pasid=pasid)
        return self._function.port.write(route[1], data, pasid=pasid, privileged=privileged)

    def _complete(self, request: InvalidationRequest) -> None:
        port = self._function.ats_port
        if port is None:
            return
        itag = request.itag
        if self.misbehaviour is Misbehaviour.ANSWER_WRONG_TAG:
            itag = (itag + 1) % 32
        repeat = 2 if self.misbehaviour is Misbehaviour.ANSWER_TWICE else 1
        for _ in range(self.traffic_classes * repeat):
            port.complete_invalidation(1 << itag, self.traffic_classes)

    def _ats_control(self, before: AtsControl, after: AtsControl) -> AtsControl:
        self._refused_by_root = False
        if not after.enable and self.misbehaviour is not Misbehaviour.USE_WHILE_DISABLED:
            self.tlb.clear()
        return after

    def _pasid_control(self, before: PasidControl, after: PasidControl) -> PasidControl:
        """The PASID control does not change while ATS is enabled."""
        return before if self.ats.control.value.enable else after

    def _pri_control(self, before: PriControl, after: PriControl) -> PriControl:
        if self.pri is not None:
            if after.reset and not after.enable:
                self._outstanding.clear()
                self._responses.clear()
            self.pri.control.value = after = after.replace(reset=0)
            self._settle(self.pri)
        return after

    def _settle(self, pri: Pri) -> None:
        """Stopped: no more page requests will be sent and none is outstanding."""
        status: PriStatus = pri.status.value
        active = pri.control.value.enable and not status.rf
        pri.status.value = status.replace(stopped=not active and not self._outstanding)

    def _reset(self) -> None:
        self.tlb.clear()
        self.delayed.clear()
        self._outstanding.clear()
        self._responses.clear()
        self._refused_by_root = False


def _granted(
    entries: tuple[TranslationEntry, ...], address: int, need: int
) -> tuple[AddressType, int] | None:
    """What the first translation of a completion allows for a request at ``address``."""
    if not entries:
        return None
    entry = entries[0]
    if entry.u:
        return AddressType.UNTRANSLATED, address
    if (READ * entry.r | WRITE * entry.w) & need != need:
        return None
    offset = entry.size - 1
    return AddressType.TRANSLATED, entry.address & ~offset | address & offset


def _pages(address: int, length: int) -> Iterator[tuple[int, int]]:
    """A range cut at page boundaries: (start, bytes) of each part; a range of 0 bytes is one."""
    end = address + length
    yield address, min(length, PAGE_SIZE - address % PAGE_SIZE)
    for start in range((address & -PAGE_SIZE) + PAGE_SIZE, end, PAGE_SIZE):
        yield start, min(PAGE_SIZE, end - start)
