"""Stores that units and devices are about to make, and software does not.

Audits of units that share a memory share this: each is told of every store there.
"""

from __future__ import annotations

from devices.dma import Atomic


class OwnStores:
    """What is announced counts once for each of the audits that watch."""

    def __init__(self) -> None:
        self.watchers = 0
        self._address: int | None = None
        self._payload: object = None
        self._left = 0
        """Watchers that are still to be told of the store."""

    def unit_stores(self, address: int | None) -> None:
        """The next store to this address is a unit's; None: it made none."""
        self._address, self._left = address, self.watchers

    def device_sends(self, payload: object) -> None:
        """A store of just this object is a device's."""
        self._payload, self._left = payload, self.watchers

    def make(self, address: int, data: bytes) -> bool:
        """Whether a store that a watcher is told of is one of these."""
        units = address == self._address
        devices = self._payload is not None and (
            data is self._payload or isinstance(self._payload, Atomic)
        )
        if not (units or devices):
            return False
        self._left -= 1
        if self._left <= 0 and units:
            self._address = None
        elif self._left <= 0:
            self._payload = None
        return True
