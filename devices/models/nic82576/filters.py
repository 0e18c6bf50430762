"""Which pools a frame goes to, in the order of the data sheet, and which a pool may not send.

Without VMDq (MRQC bit 0 clear) there is one answer for the whole port. With it the steps are: the
VLAN table, the address (exact, by hash, promiscuous), VLAN filters of the pools, the default pool,
which pools are enabled, and the length of the frame.
"""

from __future__ import annotations

from devices.models.nic82576.register_bank import RegisterBank
from devices.models.nic82576.registers import (
    ADDRESSES,
    DECLARED,
    DTXSWC,
    MTA,
    POOLS,
    RAH,
    RAH_16,
    RAH_POOLS,
    RAH_VALID,
    RAL,
    RAL_16,
    RCTL,
    RCTL_BROADCAST,
    RCTL_HASH_BITS,
    RCTL_LONG,
    RCTL_MULTICAST_PROMISCUOUS,
    RCTL_UNICAST_PROMISCUOUS,
    RCTL_VLAN_FILTER,
    RLPML,
    UTA,
    VET,
    VFRE,
    VFTA,
    VLVF,
    VLVF_ENABLE,
    VLVF_POOLS,
    VMOLR,
    VMOLR_BROADCAST,
    VMOLR_LENGTH,
    VMOLR_LONG,
    VMOLR_MULTICAST_PROMISCUOUS,
    VMOLR_OVERFLOW_MULTICAST,
    VMOLR_OVERFLOW_UNICAST,
    VMOLR_UNTAGGED,
    VT_CTL,
    VT_CTL_DEFAULT_POOL,
    VT_CTL_NO_DEFAULT,
    VT_CTL_REPLICATION,
    address_entry,
)
from devices.network.frames import BROADCAST, ETHERNET_HEADER, FCS, VLAN_TAG

STANDARD = 1518
"""The longest frame with FCS that is not a long one; a VLAN tag comes on top."""
_HASH_SHIFTS = (4, 3, 2, 0)
_VLVF_ENTRIES = DECLARED[VLVF].count


class Filters:
    """The receive filters; the exact addresses are kept ready until one of them is written."""

    def __init__(self, bank: RegisterBank) -> None:
        self._values = bank.values
        self.forget()
        for register in (RAL, RAH, RAL_16, RAH_16):
            bank.on_write[register] = self._changed

    def forget(self) -> None:
        """The receive addresses have changed."""
        self._exact: dict[bytes, int] | None = None

    def _changed(self, _: int, value: int) -> None:
        self.forget()

    def vlan(self, frame: bytes) -> int | None:
        """The VLAN of a tagged frame."""
        ethertype = self._values[VET]
        tagged = frame[12] == ethertype >> 8 & 0xFF and frame[13] == ethertype & 0xFF
        if tagged and len(frame) >= ETHERNET_HEADER + VLAN_TAG:
            return (frame[14] << 8 | frame[15]) & 0xFFF
        return None

    def accepts(self, frame: bytes) -> bool:
        """Whether the port takes a frame, without VMDq."""
        control = self._values[RCTL]
        if len(frame) + FCS > STANDARD:
            vlan = self.vlan(frame)
            longest = self._longest(control & RCTL_LONG, self._values[RLPML], vlan)
            if len(frame) + FCS > longest:
                return False
        if control & RCTL_VLAN_FILTER:
            vlan = self.vlan(frame)
            if vlan is not None and not self._in_vlan_table(vlan):
                return False
        destination = frame[:6]
        if destination in (self._exact or self._addresses()):
            return True
        if destination == BROADCAST:
            return bool(control & RCTL_BROADCAST)
        if destination[0] & 1:
            promiscuous = control & RCTL_MULTICAST_PROMISCUOUS
        else:
            promiscuous = control & RCTL_UNICAST_PROMISCUOUS
        return bool(promiscuous) or self._hashed(destination)

    def pools(self, frame: bytes, sender: int | None = None) -> int:
        """A bit for each pool that gets the frame; ``sender`` is the pool it comes from, if any."""
        values = self._values
        control = values[RCTL]
        vlan = self.vlan(frame)
        if control & RCTL_VLAN_FILTER and vlan is not None and not self._in_vlan_table(vlan):
            return 0
        destination = frame[:6]
        group = destination[0] & 1
        found = 0
        if destination == BROADCAST:
            found = self._with(VMOLR_BROADCAST)
        else:
            found = (self._exact or self._addresses()).get(destination, 0)
            if not found and self._hashed(destination):
                found = self._with(VMOLR_OVERFLOW_MULTICAST if group else VMOLR_OVERFLOW_UNICAST)
            if group:
                found |= self._with(VMOLR_MULTICAST_PROMISCUOUS)
        if control & RCTL_VLAN_FILTER:
            found &= self._with(VMOLR_UNTAGGED) if vlan is None else self.vlan_pools(vlan)
        default = values[VT_CTL] >> VT_CTL_DEFAULT_POOL & 7
        if not found and not group and sender is None and not values[VT_CTL] & VT_CTL_NO_DEFAULT:
            found = 1 << default
        if group and not values[VT_CTL] & VT_CTL_REPLICATION:
            found &= 1 << default
        found &= values[VFRE]
        return self._short_enough(found, len(frame) + FCS, vlan)

    def known(self, destination: bytes) -> bool:
        """Whether an address is exactly that of some pool."""
        return destination in (self._exact or self._addresses())

    def vlan_pools(self, vlan: int) -> int:
        """The pools that belong to a VLAN."""
        pools = 0
        for index in range(_VLVF_ENTRIES):
            entry = self._values[VLVF + index]
            if entry & VLVF_ENABLE and entry & 0xFFF == vlan:
                pools |= entry >> VLVF_POOLS & 0xFF
        return pools

    def spoofs(self, pool: int, frame: bytes) -> bool:
        """Whether a pool under anti-spoofing sends an address or a VLAN that it has not."""
        checks = self._values[DTXSWC] >> pool
        if checks & 1:
            owners = (self._exact or self._addresses()).get(frame[6:12], 0)
            if not owners >> pool & 1:
                return True
        if checks & 0x100:
            vlan = self.vlan(frame)
            if vlan is not None and not self.vlan_pools(vlan) >> pool & 1:
                return True
        return False

    def _addresses(self) -> dict[bytes, int]:
        """The exact addresses and their pools."""
        exact: dict[bytes, int] = {}
        for index in range(ADDRESSES):
            low, high = (self._values[offset] for offset in address_entry(index))
            if high & RAH_VALID:
                address = low.to_bytes(4, "little") + (high & 0xFFFF).to_bytes(2, "little")
                exact[address] = exact.get(address, 0) | high >> RAH_POOLS & 0xFF
        self._exact = exact
        return exact

    def _in_vlan_table(self, vlan: int) -> bool:
        return bool(self._values[VFTA + (vlan >> 5)] >> (vlan & 31) & 1)

    def _hashed(self, destination: bytes) -> bool:
        """Whether the hash table of multicast or of unicast addresses has it."""
        shift = _HASH_SHIFTS[self._values[RCTL] >> RCTL_HASH_BITS & 3]
        bits = (destination[5] << 8 | destination[4]) >> shift & 0xFFF
        table = MTA if destination[0] & 1 else UTA
        return bool(self._values[table + (bits >> 5)] >> (bits & 31) & 1)

    def _with(self, flag: int) -> int:
        """The pools that have this flag in VMOLR."""
        values = self._values
        return sum(1 << pool for pool in range(POOLS) if values[VMOLR + pool] & flag)

    def _short_enough(self, pools: int, length: int, vlan: int | None) -> int:
        if length <= STANDARD:
            return pools
        for pool in range(POOLS):
            entry = self._values[VMOLR + pool]
            if length > self._longest(entry & VMOLR_LONG, entry & VMOLR_LENGTH, vlan):
                pools &= ~(1 << pool)
        return pools

    @staticmethod
    def _longest(long: int, limit: int, vlan: int | None) -> int:
        return limit if long else STANDARD + VLAN_TAG * (vlan is not None)
