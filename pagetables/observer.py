"""Who watches the entries that walks and lookups read, and the flags that they set.

An :class:`EntryObserver` is handed to a walk and told of each access as it happens, by its host
physical address. ``read`` and ``update`` may refuse the access with a BusError, which has the
consequence that any error of memory has. Left out: accesses of devices.
"""

from __future__ import annotations

from enum import Enum

from pagetables.memory import BusError


class Structure(Enum):
    """What lies in memory for a remapping unit."""

    ROOT = "root entry"
    CONTEXT = "context entry"
    PASID_DIRECTORY = "PASID directory entry"
    PASID = "PASID table entry"
    FIRST_STAGE = "first-stage entry"
    SECOND_STAGE = "second-stage entry"
    HOST_PERMISSION = "host permission table entry"
    INTERRUPT_ENTRY = "interrupt-remapping entry"
    POSTED_DESCRIPTOR = "posted-interrupt descriptor"
    QUEUE_DESCRIPTOR = "invalidation queue descriptor"
    WAIT_STATUS = "status of a wait descriptor"
    PAGE_REQUEST = "page request descriptor"


class EntryObserver:
    """Told of accesses to structures; each method does nothing unless it is overridden.

    Addresses are host physical ones, sizes are bytes, values little-endian numbers.
    """

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        """A structure was read; a BusError raised here makes the read fail."""

    def unreadable(self, structure: Structure, address: int) -> None:
        """A structure of a lookup could not be read."""

    def update(self, structure: Structure, address: int, size: int, old: int, new: int) -> None:
        """A structure is about to be changed from ``old`` in one atomic access.

        A BusError raised here makes the access fail and leaves memory as it was.
        """

    def updated(self, structure: Structure, address: int, new: int, *, done: bool) -> None:
        """The update ended; not ``done`` if the structure was no longer what had been read."""

    def write(self, structure: Structure, address: int, data: bytes) -> None:
        """A structure is about to be written; a BusError raised here makes the write fail."""


class InjectedError(BusError):
    """A bus error that somebody asked for."""
