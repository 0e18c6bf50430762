"""Ports for the device tests: memory behind them, interrupt messages kept aside."""

from devices.dma import (
    DONE,
    MESSAGE,
    READ,
    REFUSED,
    WRITE,
    AddressType,
    Completion,
    CompletionStatus,
    DirectPort,
    InvalidationCompletion,
    NoWrite,
    PageRequest,
    Request,
    TranslationEntry,
)
from pagetables.memory import PhysicalMemory

RAM_SIZE = 0x100000


class RecordingPort(DirectPort):
    """1 MiB of memory at 0; writes to FEEx_xxxxh end up in ``messages``."""

    def __init__(self) -> None:
        self.ram = PhysicalMemory()
        self.ram.add_region(0, RAM_SIZE)
        super().__init__(self.ram)
        self.messages: list[tuple[int, int]] = []

    def request(self, request: Request) -> Completion:
        if request.access == WRITE and request.address >> 20 == 0xFEE:
            assert isinstance(request.payload, bytes)
            self.messages.append((request.address, int.from_bytes(request.payload, "little")))
            return DONE
        return super().request(request)


class PagingPort(RecordingPort):
    """A port with ATS: translates by ``pages``, (page address, PASID) to (frame address, r, w).

    Untranslated requests go through the same pages. ``status`` replaces the answer to translation
    requests.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pages: dict[tuple[int, int | None], tuple[int, bool, bool]] = {}
        self.status = CompletionStatus.SUCCESS
        self.untranslated_only = False
        self.translations = 0
        self.translated: list[int] = []
        self.translated_pasids: list[int | None] = []
        self.page_requests: list[PageRequest] = []
        self.completions: list[tuple[int, int]] = []

    def map(self, page: int, frame: int, access: str = "rw", pasid: int | None = None) -> None:
        self.pages[page, pasid] = (frame, "r" in access, "w" in access)

    def request(self, request: Request) -> Completion:
        if request.access == MESSAGE:
            return self._message(request)
        if request.address_type is AddressType.TRANSLATION_REQUEST:
            return self._translation(request)
        if request.address_type is AddressType.TRANSLATED:
            self.translated.append(request.address)
            self.translated_pasids.append(request.pasid)
            return super().request(request)
        if request.access == WRITE and request.address >> 20 == 0xFEE:
            return super().request(request)
        frame, r, w = self._page(request.address & -4096, request.pasid)
        if request.access & ~(READ * r | WRITE * w):
            return REFUSED
        return super().request(request._replace(address=frame | request.address & 4095))

    def _page(self, page: int, pasid: int | None) -> tuple[int, bool, bool]:
        return self.pages.get((page, pasid), (0, False, False))

    def _translation(self, request: Request) -> Completion:
        self.translations += 1
        if self.status is not CompletionStatus.SUCCESS:
            return Completion(self.status)
        entries = []
        for number in range(request.length // 8):
            frame, r, w = self._page(request.address + number * 4096, request.pasid)
            entries.append(
                TranslationEntry(
                    address=frame,
                    size=4096,
                    r=r,
                    w=w and not isinstance(request.payload, NoWrite),
                    u=self.untranslated_only,
                    n=False,
                    x=False,
                    priv=request.privileged,
                    global_=False,
                )
            )
        return Completion(CompletionStatus.SUCCESS, entries=tuple(entries))

    def _message(self, request: Request) -> Completion:
        if isinstance(request.payload, PageRequest):
            self.page_requests.append(request.payload)
        else:
            assert isinstance(request.payload, InvalidationCompletion)
            self.completions.append((request.payload.itag_vector, request.payload.count))
        return DONE
