"""Ports for the device tests: memory behind them, interrupt messages kept aside."""

from devices.dma import (
    Completion,
    CompletionStatus,
    DirectPort,
    PageRequest,
    TranslationCompletion,
    TranslationEntry,
)
from pagetables.memory import PhysicalMemory

RAM_SIZE = 0x100000


class RecordingPort(DirectPort):
    """1 MiB of memory at 0; 4-byte writes to FEEx_xxxxh end up in ``messages``."""

    def __init__(self) -> None:
        self.ram = PhysicalMemory()
        self.ram.add_region(0, RAM_SIZE)
        super().__init__(self.ram)
        self.messages: list[tuple[int, int]] = []

    def write(
        self, address: int, data: bytes, *, pasid: int | None = None, privileged: bool = False
    ) -> Completion:
        if address >> 20 == 0xFEE:
            self.messages.append((address, int.from_bytes(data, "little")))
            return Completion(CompletionStatus.SUCCESS)
        return super().write(address, data, pasid=pasid, privileged=privileged)


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

    def read(
        self, address: int, length: int, *, pasid: int | None = None, privileged: bool = False
    ) -> Completion:
        frame, r, _ = self.pages.get((address & -4096, pasid), (0, False, False))
        if not r:
            return Completion(CompletionStatus.UNSUPPORTED_REQUEST)
        return super().read(frame | address & 4095, length)

    def write(
        self, address: int, data: bytes, *, pasid: int | None = None, privileged: bool = False
    ) -> Completion:
        if address >> 20 == 0xFEE:
            return super().write(address, data)
        frame, _, w = self.pages.get((address & -4096, pasid), (0, False, False))
        if not w:
            return Completion(CompletionStatus.UNSUPPORTED_REQUEST)
        return super().write(frame | address & 4095, data)

    def translate(
        self,
        address: int,
        count: int = 1,
        *,
        no_write: bool = False,
        pasid: int | None = None,
        privileged: bool = False,
    ) -> TranslationCompletion:
        self.translations += 1
        if self.status is not CompletionStatus.SUCCESS:
            return TranslationCompletion(self.status)
        entries = []
        for page in range(address, address + count * 4096, 4096):
            frame, r, w = self.pages.get((page, pasid), (0, False, False))
            entries.append(
                TranslationEntry(
                    address=frame,
                    size=4096,
                    r=r,
                    w=w and not no_write,
                    u=self.untranslated_only,
                    n=False,
                    x=False,
                    priv=privileged,
                    global_=False,
                )
            )
        return TranslationCompletion(CompletionStatus.SUCCESS, tuple(entries))

    def read_translated(self, address: int, length: int, *, pasid: int | None = None) -> Completion:
        self.translated.append(address)
        self.translated_pasids.append(pasid)
        return RecordingPort.read(self, address, length)

    def write_translated(
        self, address: int, data: bytes, *, pasid: int | None = None
    ) -> Completion:
        self.translated.append(address)
        self.translated_pasids.append(pasid)
        return RecordingPort.write(self, address, data)

    def page_request(self, request: PageRequest) -> None:
        self.page_requests.append(request)

    def complete_invalidation(self, itag_vector: int, count: int) -> None:
        self.completions.append((itag_vector, count))
