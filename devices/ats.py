"""A function's use of ATS: translate, keep, send translated requests, answer invalidations.

VT-d chapter 4, PCI Express Address Translation Services. Requests that need a translation ask for
one first; the enable bits of the capabilities decide what may be sent at all. Page requests are the
business of :mod:`devices.pri`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from devices.capabilities import Ats, AtsControl, Pasid, PasidControl
from devices.device_tlb import DeviceTlb, tag
from devices.dma import (
    READ,
    WRITE,
    AtomicOp,
    AtsPort,
    Completion,
    CompletionStatus,
    InvalidationRequest,
    PageGroupResponse,
    TranslationCompletion,
    split_pages,
)
from devices.function import BME, REFUSED, PciFunction
from devices.pri import PageRequestInterface

PAGE_SIZE = 4096

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


class _Route(NamedTuple):
    """How a request within one page leaves: translated through ``ats``, or untranslated."""

    address: int
    ats: AtsPort | None = None


class AtsAgent:
    """The translation agent of one function: a port through its device-TLB, and an AtsClient.

    ``pages`` and ``pasid`` are those of the physical function when ``function`` is a virtual one.
    ``traffic_classes`` is how many completions answer one invalidation (1 to 8).
    """

    def __init__(
        self,
        function: PciFunction,
        ats: Ats,
        *,
        pages: PageRequestInterface | None = None,
        pasid: Pasid | None = None,
        tlb: DeviceTlb | None = None,
        misbehaviour: Misbehaviour = Misbehaviour.NONE,
        traffic_classes: int = 1,
    ) -> None:
        if not 1 <= traffic_classes <= 8:
            raise ValueError(f"traffic_classes: {traffic_classes} is not in 1..8")
        self.ats = ats
        self.pasid = pasid
        self.pages = pages
        self.tlb = DeviceTlb() if tlb is None else tlb
        self.misbehaviour = misbehaviour
        self.traffic_classes = traffic_classes
        self.delayed: list[InvalidationRequest] = []
        """Invalidation requests held back under :attr:`Misbehaviour.DELAY`."""
        self._function = function
        self._refused_by_root = False
        ats.control.on_write = self._ats_control
        if pasid is not None and pasid.control.on_write is None:
            pasid.control.on_write = self._pasid_control
        function.client = self
        function.at_reset.append(self._reset)

    @property
    def enabled(self) -> bool:
        """Whether translation requests may be sent."""
        return bool(self.ats.control.value.enable) and not self._refused_by_root

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
        if not self._may_send(pasid, privileged):
            return REFUSED
        data = bytearray()
        for start, size in split_pages(address, length):
            route = self._resolve(start, READ, pasid, privileged)
            if route is None:
                return REFUSED
            if route.ats is not None:
                part = route.ats.read_translated(
                    route.address, size, pasid=self._translated_pasid(pasid)
                )
            else:
                part = self._function.port.read(
                    route.address, size, pasid=pasid, privileged=privileged
                )
            if not part.ok:
                return part
            data += part.data
        return Completion(CompletionStatus.SUCCESS, bytes(data))

    def write(
        self, address: int, data: bytes, *, pasid: int | None = None, privileged: bool = False
    ) -> Completion:
        """Write through the device-TLB; the function refuses itself what no translation grants."""
        if not self._may_send(pasid, privileged):
            return REFUSED
        for start, size in split_pages(address, len(data)):
            route = self._resolve(start, WRITE, pasid, privileged)
            if route is None:
                return REFUSED
            part = data[start - address : start - address + size]
            if route.ats is not None:
                done = route.ats.write_translated(
                    route.address, part, pasid=self._translated_pasid(pasid)
                )
            else:
                done = self._function.port.write(
                    route.address, part, pasid=pasid, privileged=privileged
                )
            if not done.ok:
                return done
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
            for start, _ in split_pages(address, length)
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
        """Send one group of page requests; returns its index, or None if that is not allowed."""
        port = self._function.ats_port
        if port is None or self.pages is None or not self._may_send(pasid, privileged):
            return None
        return self.pages.send(port, pages, need, pasid=pasid, privileged=privileged)

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
        """Hand a response to the page request interface; without one it is lost."""
        if self.pages is not None:
            self.pages.respond(response)

    def _may_send(self, pasid: int | None, privileged: bool) -> bool:
        """Whether bus mastering is on, and the PASID capability allows these attributes."""
        if not self._function.command.value & BME:
            return False
        if pasid is None:
            return not privileged
        if self.pasid is None or not self.pasid.control.value.enable:
            return False
        if privileged and not self.pasid.control.value.privileged:
            return False
        return pasid >> self.pasid.capabilities.value.width == 0

    def _translated_pasid(self, pasid: int | None) -> int | None:
        """The PASID that a translated request carries: none unless that is enabled."""
        if self.pasid is None or not self.pasid.control.value.translated:
            return None
        return pasid

    def _resolve(
        self, address: int, need: int, pasid: int | None, privileged: bool
    ) -> _Route | None:
        """How to send a request within one page; None if no translation grants it."""
        port = self._function.ats_port
        if self.misbehaviour is Misbehaviour.FORGE_ADDRESS:
            return _Route(address, port)
        if self.enabled or self.misbehaviour is Misbehaviour.USE_WHILE_DISABLED:
            translated = self.tlb.lookup(address, need, tag(pasid, privileged))
            if translated is not None:
                return _Route(translated, port)
        return self._ask(address, need, pasid, privileged) if self.enabled else _Route(address)

    def _ask(self, address: int, need: int, pasid: int | None, privileged: bool) -> _Route | None:
        """What a new translation request grants."""
        completion = self.translate(
            address, no_write=not need & WRITE, pasid=pasid, privileged=privileged
        )
        if not completion.entries:
            return None if self.enabled else _Route(address)
        entry = completion.entries[0]
        if entry.u:
            return _Route(address)
        if (READ * entry.r | WRITE * entry.w) & need != need:
            return None
        offset = entry.size - 1
        return _Route(entry.address & ~offset | address & offset, self._function.ats_port)

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

    def _reset(self) -> None:
        self.tlb.clear()
        self.delayed.clear()
        self._refused_by_root = False
        if self.pages is not None:
            self.pages.reset()
