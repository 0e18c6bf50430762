"""A function's use of ATS: translate, keep, send translated requests, answer invalidations.

VT-d chapter 4, PCI Express Address Translation Services. Requests that need a translation ask for
one first; the enable bits of the capabilities decide what may be sent at all. Page requests are the
business of :mod:`devices.pri`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from devices.capabilities import (
    Ats,
    AtsControl,
    ExtendedCapabilityId,
    Pasid,
    PasidControl,
    add_ats,
    add_pri,
)
from devices.config_space import PCI_EXPRESS_SIZE
from devices.device_tlb import DeviceTlb, tag
from devices.dma import (
    ATOMIC,
    MESSAGE,
    READ,
    REFUSED,
    WRITE,
    AddressType,
    Completion,
    CompletionStatus,
    DmaPort,
    InvalidationRequest,
    NoWrite,
    PageGroupResponse,
    Request,
    ResponseCode,
    part_of,
    split_pages,
)
from devices.function import BME, PciFunction
from devices.pri import PageRequestInterface
from pagetables.memory import FRAME_SIZE

UNTRANSLATED = AddressType.UNTRANSLATED


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


class AtsAgent(DmaPort):
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

    def request(self, request: Request) -> Completion:
        """Send a request as the function does: a transfer goes through the device-TLB.

        The function refuses itself what no translation grants. A translation request keeps what it
        gives; after an unsupported one the function behaves as if ATS were disabled, until it is
        enabled anew. Atomic operations go untranslated. Within an isolation boundary (VT-d 4.4) it
        learns no translated address and sends none.
        """
        if not self._may_send(request):
            return REFUSED
        if request.address_type is not UNTRANSLATED:
            return self._of_device_tlb(request)
        if request.access in (ATOMIC, MESSAGE):
            return self._outside.request(request)
        data = bytearray()
        for start, size in split_pages(request.address, request.length):
            part = self._resolve(part_of(request, start, size))
            if part is None:
                return REFUSED
            done = self._outside.request(part)
            if not done.ok:
                return done
            data += done.data
        return Completion(CompletionStatus.SUCCESS, bytes(data))

    def _of_device_tlb(self, request: Request) -> Completion:
        """A request that names no untranslated address, as only the device-TLB makes them."""
        inside = self._function.boundary is not None
        if request.address_type is not AddressType.TRANSLATION_REQUEST:
            return REFUSED if inside else self._outside.request(request)
        completion = self._translation(request)
        if not inside:
            return completion
        hidden = (entry._replace(address=0) for entry in completion.entries)
        return completion._replace(entries=tuple(hidden))

    @property
    def _outside(self) -> DmaPort:
        """Where requests leave, past the isolation boundary of an integrated device."""
        return self._function.boundary or self._function.bus_master

    def missing(self, request: Request) -> tuple[int, ...]:
        """The pages of a transfer that no translation grants, after asking for one."""
        return tuple(
            start & -FRAME_SIZE
            for start, size in split_pages(request.address, request.length)
            if self._resolve(part_of(request, start, size)) is None
        )

    def request_pages(self, request: Request, pages: Sequence[int]) -> int | None:
        """Send one group of page requests for ``pages`` with the attributes of ``request``.

        Returns the index of the group, or None if that is not allowed.
        """
        if self.pages is None or not self._may_send(request):
            return None
        return self.pages.send(self._outside, request, pages)

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

    def _may_send(self, request: Request) -> bool:
        """Whether bus mastering is on, and the PASID capability allows these attributes."""
        pasid, privileged = request.pasid, request.privileged
        if not self._function.command.value & BME:
            return False
        if pasid is None:
            return not privileged
        if self.pasid is None or not self.pasid.control.value.enable:
            return False
        if privileged and not self.pasid.control.value.privileged:
            return False
        return pasid >> self.pasid.capabilities.value.width == 0

    def _translation(self, request: Request) -> Completion:
        if not self.enabled:
            return REFUSED
        address = request.address & -FRAME_SIZE
        completion = self._outside.request(request._replace(address=address))
        if completion.status is CompletionStatus.UNSUPPORTED_REQUEST:
            self._refused_by_root = True
        for entry in completion.entries:
            self.tlb.insert(address, entry, tag(request))
            address = (address & -entry.size) + entry.size
        return completion

    def _resolve(self, request: Request) -> Request | None:
        """A request within one page as it is to be sent; None if no translation grants it."""
        if self.misbehaviour is Misbehaviour.FORGE_ADDRESS:
            return self._translated(request, request.address)
        if self.enabled or self.misbehaviour is Misbehaviour.USE_WHILE_DISABLED:
            known = tag(request)
            translated = self.tlb.lookup(request.address, request.access, known)
            if translated is not None:
                return self._translated(request, translated)
        return self._ask(request) if self.enabled else request

    def _ask(self, request: Request) -> Request | None:
        """What a new translation request grants."""
        completion = self._translation(
            request._replace(
                access=READ,
                length=8,
                address_type=AddressType.TRANSLATION_REQUEST,
                payload=None if request.access & WRITE else NoWrite(),
            )
        )
        if not completion.entries:
            return None if self.enabled else request
        entry = completion.entries[0]
        if entry.u:
            return request
        if request.access & ~(READ * entry.r | WRITE * entry.w):
            return None
        offset = entry.size - 1
        return self._translated(request, entry.address & ~offset | request.address & offset)

    def _translated(self, request: Request, address: int) -> Request:
        """The translated request in place of an untranslated one; its PASID only if enabled."""
        keeps = self.pasid is not None and self.pasid.control.value.translated
        return request._replace(
            address=address,
            pasid=request.pasid if keeps else None,
            privileged=False,
            address_type=AddressType.TRANSLATED,
        )

    def _complete(self, request: InvalidationRequest) -> None:
        itag = request.itag
        if self.misbehaviour is Misbehaviour.ANSWER_WRONG_TAG:
            itag = (itag + 1) % 32
        repeat = 2 if self.misbehaviour is Misbehaviour.ANSWER_TWICE else 1
        for _ in range(self.traffic_classes * repeat):
            outside = self._function.boundary or self._function.port
            outside.complete_invalidation(1 << itag, self.traffic_classes)

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


class PageRequester(DmaPort):
    """A port that asks for the pages of a transfer that are missing, and then sends it again.

    While the response is outstanding the transfer is refused; the next one finds what came of it.
    """

    def __init__(self, agent: AtsAgent, pages: PageRequestInterface) -> None:
        self._agent = agent
        self._pages = pages

    def request(self, request: Request) -> Completion:
        """Send a request, after asking for what it needs."""
        completion = self._agent.request(request)
        if completion.ok or request.access not in (READ, WRITE):
            return completion
        missing = self._agent.missing(request)[: self._pages.allocation]
        group = self._agent.request_pages(request, missing)
        if group is None or self._pages.take_response(group) != ResponseCode.SUCCESS:
            return completion
        return self._agent.request(request)


def put_device_tlb(
    function: PciFunction,
    tlb: DeviceTlb | None = None,
    misbehaviour: Misbehaviour = Misbehaviour.NONE,
    *,
    page_requests: int = 0,
) -> AtsAgent:
    """Give a function of any model ATS: its transfers go through a device-TLB from now on.

    With ``page_requests`` it has a page request interface for so many, and asks for what it lacks.
    One without the express capability and the configuration space that ATS needs gets them.
    ValueError if it has ATS already.
    """
    config = function.config
    if config.find_extended_capability(ExtendedCapabilityId.ATS) is not None:
        raise ValueError("has a device-TLB already")
    config.size = PCI_EXPRESS_SIZE
    if function.pcie is None:
        function.add_pci_express()
    ats, pages = add_ats(config), None
    if page_requests:
        pages = PageRequestInterface(add_pri(config, page_requests, pasid_required=False))
    agent = AtsAgent(function, ats, pages=pages, tlb=tlb, misbehaviour=misbehaviour)
    function.dma = agent if pages is None else PageRequester(agent, pages)
    return agent
