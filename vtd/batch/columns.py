"""What an array of requests is made of: one row for each request, or for what happens between them.

An array has the type :data:`REQUESTS`, 40 bytes a row; traces in files have the same columns by the
same names and types. Rows are in the order in which things happen. Columns that a kind of row does
not use are 0, except ``pasid``, which is :data:`NO_PASID`. Needs numpy, which the ``batch`` extra
brings.

==========  ===  ====================================================================
time        u64  nanoseconds since the trace began; never less than in the row before
address     u64  of the first byte: input address of a request, or of the range of a row of another
                 kind; of a marker, whatever its writer wants to tell
target      u64  of a map: the physical address that ``address`` is to lead to
length      u32  bytes; of a request 0 is the zero-length read; of a translation request 8 for each
                 translation wanted; of an invalidation 0 is everything that the domain has
pasid       u32  0 to 2^20 - 1, or NO_PASID
source_id   u32  segment in bits 31:16, bus, device and function in 15:0, as the request arrives at
                 its unit: of a function behind a PCI bridge, that of the bridge
kind        u8   :class:`RowKind`
access      u8   of a request: READ, WRITE or both for an atomic, with EXECUTE_REQUESTED or NO_SNOOP
                 beside it (``devices.dma``); of a map: READ and WRITE that it grants
attributes  u8   of a request: PRIVILEGED, and the address type (``AddressType``) in bits 2:1; of an
                 invalidation: ONLY_LEAVES (IH, 6.5.2.3)
==========  ===  ====================================================================

Maps, unmaps and invalidations concern the domain that ``source_id`` and ``pasid`` are attached to.
A map covers ``length`` bytes in pages as large as fit; more than 4 GiB are several rows.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Requests = NDArray[np.void]
"""An array of type REQUESTS."""

REQUESTS = np.dtype(
    [
        ("time", "<u8"),
        ("address", "<u8"),
        ("target", "<u8"),
        ("length", "<u4"),
        ("pasid", "<u4"),
        ("source_id", "<u4"),
        ("kind", "u1"),
        ("access", "u1"),
        ("attributes", "u1"),
    ],
    align=True,
)
"""The columns of a request array."""

NO_PASID = 0xFFFF_FFFF
"""The PASID of rows that have none."""
PRIVILEGED = 1
"""In ``attributes`` of a request: privileged mode is asked for."""
ADDRESS_TYPE_SHIFT = 1
"""Where the address type is in ``attributes``."""
ONLY_LEAVES = 1
"""In ``attributes`` of an invalidation: paging-structure caches may stay (IH)."""


class RowKind(IntEnum):
    """What a row is about."""

    DMA = 0
    """A request of a device."""
    INVALIDATE = 1
    """Software has a range invalidated, or a whole domain."""
    MAP = 2
    """Software maps a range."""
    UNMAP = 3
    """Software takes a range out of the tables; what caches have of it stays."""
    MARKER = 4
    """A doorbell or another event of the trace: nothing happens to the unit."""


def new_rows(count: int, **columns: Any) -> Requests:
    """An array of ``count`` rows with these columns, the others 0 and without PASID.

    ValueError for a column that there is not.
    """
    unknown = set(columns) - set(REQUESTS.names or ())
    if unknown:
        raise ValueError(f"no such column: {', '.join(sorted(unknown))}")
    rows = np.zeros(count, REQUESTS)
    rows["pasid"] = NO_PASID
    for name, values in columns.items():
        rows[name] = values
    return rows
