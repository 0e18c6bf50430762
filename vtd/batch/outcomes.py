"""What became of each row of an array of requests.

An array of type :data:`OUTCOMES`, 16 bytes a row:

=======  ===  ===================================================================================
address  u64  where the first byte of a request lies in memory; 0 if it was refused, answered by
              the unit itself, or is no request
status   u8   :class:`Status`
reason   u8   of a refused request: the fault reason (``FaultReason``), 0 if there is none
hit      u8   1 if the IOTLB had every page of the request
reads    u32  entries of tables and structures that were read from memory for it
=======  ===  ===================================================================================

A request of several pages is refused as a port refuses it: a read by its first refused part, after
which nothing is tried any more, a write although its other parts are carried out.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Outcomes = NDArray[np.void]
"""An array of type OUTCOMES."""

OUTCOMES = np.dtype(
    {
        "names": ["address", "status", "reason", "hit", "reads"],
        "formats": ["<u8", "u1", "u1", "u1", "<u4"],
        "offsets": [0, 8, 9, 10, 12],
        "itemsize": 16,
    }
)


class Status(IntEnum):
    """How a row ended."""

    NOTHING = 0
    """It is no request."""
    PASSED = 1
    """The request reaches memory."""
    REFUSED = 2
    """Unsupported Request."""
    ABORTED = 3
    """Completer Abort."""
    ANSWERED = 4
    """The unit has answered: an interrupt was taken, or translations were given."""
