"""The counters of the port, which reading clears, and those of virtual functions, which run on."""

from __future__ import annotations

from bisect import bisect_left
from functools import partial

from devices.models.nic82576.register_bank import RegisterBank
from devices.models.nic82576.registers import (
    BPRC,
    BPTC,
    GORCH,
    GORCL,
    GOTCH,
    GOTCL,
    GPRC,
    GPTC,
    MPRC,
    MPTC,
    PRC64,
    PTC64,
    TORH,
    TORL,
    TOTH,
    TOTL,
    TPT,
    VFGORC,
    VFGOTC,
    VFGPRC,
    VFGPTC,
    VFMPRC,
)
from devices.network.frames import BROADCAST, FCS

_SIZES = (64, 127, 255, 511, 1023)


class Statistics:
    """Lengths are counted with FCS. The low registers of octets hold all 64 bits."""

    def __init__(self, bank: RegisterBank) -> None:
        self._values = bank.values
        for low, high in ((GORCL, GORCH), (GOTCL, GOTCH), (TORL, TORH), (TOTL, TOTH)):
            bank.on_read[low] = partial(self._lower, low)
            bank.on_read[high] = partial(self._upper, low)

    def sent(self, frame: bytes, vf: int | None) -> None:
        """A frame left, of a virtual function or of none."""
        values, length = self._values, len(frame) + FCS
        values[TPT] += 1
        values[GPTC] += 1
        values[TOTL] += length
        values[GOTCL] += length
        values[PTC64 + bisect_left(_SIZES, length)] += 1
        if frame[0] & 1:
            values[BPTC if frame.startswith(BROADCAST) else MPTC] += 1
        if vf is not None:
            values[VFGPTC + vf] += 1
            values[VFGOTC + vf] += length

    def received(self, frame: bytes, length: int) -> None:
        """A frame passed the filters."""
        values = self._values
        values[GPRC] += 1
        values[GORCL] += length
        values[PRC64 + bisect_left(_SIZES, length)] += 1
        if frame[0] & 1:
            values[BPRC if frame.startswith(BROADCAST) else MPRC] += 1

    def received_by(self, pool: int, frame: bytes) -> None:
        """A pool got a frame."""
        values = self._values
        values[VFGPRC + pool] += 1
        values[VFGORC + pool] += len(frame) + FCS
        values[VFMPRC + pool] += frame[0] & 1

    def _lower(self, low: int, _: int) -> int:
        return self._values[low]

    def _upper(self, low: int, _: int) -> int:
        value, self._values[low] = self._values[low], 0
        return value >> 32
