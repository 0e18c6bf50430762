"""What a driver under test has been asked for: which operations make sense, what comes of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

PAGE = 0x1000
REMEMBERED = 6
"""How many pages that have gone are tried again."""
Requester = tuple[int, int | None]
"""A function, or a PASID of it."""


class DriverOperation(NamedTuple):
    """One thing that a user of the driver wants."""

    name: str
    arguments: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(hex(each) for each in self.arguments)})"


@dataclass
class DriverModel:
    """Domains, who uses them, and their pages.

    An operation makes sense if ``may_`` and its name says so, or there is no such method; ``did_``
    and its name takes the result and the arguments, and tells what is wrong with the result.
    """

    attached: dict[Requester, int] = field(default_factory=dict)
    pages: dict[int, dict[int, tuple[int, int]]] = field(default_factory=dict)
    """By domain: pages with where they lead and their rights."""
    gone: dict[int, list[int]] = field(default_factory=dict)
    interrupts: list[int] = field(default_factory=list)
    had: dict[Requester, int] = field(default_factory=dict)
    """The last domain of functions and PASIDs that are detached."""
    dirty: dict[int, set[int]] = field(default_factory=dict)
    """Pages that devices have written, by the domains that are tracked."""

    def makes_sense(self, operation: DriverOperation) -> bool:
        """Whether a driver can be asked for it now."""
        may = getattr(self, f"may_{operation.name}", None)
        return may is None or may(*operation.arguments)

    def note(self, operation: DriverOperation, result: Any) -> list[str]:
        """The driver has done it; what is wrong with its answer."""
        wrong: str | None = getattr(self, f"did_{operation.name}")(result, *operation.arguments)
        return [wrong] if wrong else []

    def may_attach(self, device: int, _: int) -> bool:
        return (device, None) not in self.attached

    def did_attach(self, _: Any, device: int, domain: int) -> None:
        self._attached((device, None), domain)

    def may_detach(self, device: int) -> bool:
        return (device, None) in self.attached

    def did_detach(self, _: Any, device: int) -> None:
        self.had[device, None] = self.attached.pop((device, None))

    def may_attach_pasid(self, device: int, pasid: int, _: int) -> bool:
        return (device, pasid) not in self.attached

    def did_attach_pasid(self, _: Any, device: int, pasid: int, domain: int) -> None:
        self._attached((device, pasid), domain)

    def may_detach_pasid(self, device: int, pasid: int) -> bool:
        return (device, pasid) in self.attached

    def did_detach_pasid(self, _: Any, device: int, pasid: int) -> None:
        self.had[device, pasid] = self.attached.pop((device, pasid))

    def _attached(self, requester: Requester, domain: int) -> None:
        self.attached[requester] = domain
        self.pages.setdefault(domain, {})

    def may_map(self, domain: int, address: int, _: int, length: int, __: int) -> bool:
        pages = self.pages.get(domain, {})
        free = not any(page in pages for page in range(address, address + length, PAGE))
        return domain in self.attached.values() and free

    def did_map(
        self, _: Any, domain: int, address: int, physical: int, length: int, access: int
    ) -> None:
        for offset in range(0, length, PAGE):
            self.pages[domain][address + offset] = physical + offset, access

    def may_unmap(self, domain: int, address: int, length: int) -> bool:
        pages = self.pages.get(domain, {})
        return all(page in pages for page in range(address, address + length, PAGE))

    def did_unmap(self, _: Any, domain: int, address: int, length: int) -> None:
        gone = self.gone.setdefault(domain, [])
        for page in range(address, address + length, PAGE):
            del self.pages[domain][page]
            self.dirty.get(domain, set()).discard(page)
            gone.append(page)
        del gone[:-REMEMBERED]

    def may_protect(self, domain: int, address: int, length: int, _: int) -> bool:
        return self.may_unmap(domain, address, length)

    def did_protect(self, _: Any, domain: int, address: int, length: int, access: int) -> None:
        for page in range(address, address + length, PAGE):
            self.pages[domain][page] = self.pages[domain][page][0], access

    def did_interrupt_allocate(self, index: int, *_: int) -> None:
        self.interrupts.append(index)

    def may_interrupt_free(self, index: int) -> bool:
        return index in self.interrupts

    def did_interrupt_free(self, _: Any, index: int) -> None:
        self.interrupts.remove(index)

    def may_set_dirty_tracking(self, domain: int, enabled: int) -> bool:
        return domain in self.attached.values() and (domain in self.dirty) is not bool(enabled)

    def did_set_dirty_tracking(self, _: Any, domain: int, enabled: int) -> None:
        if enabled:
            self.dirty[domain] = set()
        else:
            del self.dirty[domain]

    def may_read_dirty(self, domain: int, *_: int) -> bool:
        return domain in self.dirty

    def did_read_dirty(self, told: Any, domain: int, address: int, length: int) -> str | None:
        asked = {page for page in self.dirty[domain] if address <= page < address + length}
        self.dirty[domain] -= asked
        untold = sorted(asked - set(told))
        return f"page {untold[0]:#x} was written, and is not told as dirty" if untold else None
