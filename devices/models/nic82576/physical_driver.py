"""A driver of the physical function that only serves virtual ones: port up, mailboxes answered.

It does through registers what igb does for its virtual functions, so that these can be given to
guests although nobody has the physical function. The messages are those of igb and igbvf.
"""

from __future__ import annotations

from devices.function import Region
from devices.models.nic82576.mailbox import (
    PF_ACKNOWLEDGE,
    PF_LOCK,
    PF_SEND,
    WORDS,
)
from devices.models.nic82576.registers import (
    CTRL_EXT,
    CTRL_EXT_PF_RESET_DONE,
    DECLARED,
    DTXSWC,
    DTXSWC_LOOPBACK,
    MBVFICR,
    MRQC,
    MTA,
    P2VMAILBOX,
    POOLS,
    RAH_POOLS,
    RAH_VALID,
    RAL_16,
    RCTL,
    RCTL_BROADCAST,
    RCTL_ENABLE,
    RCTL_LONG,
    RCTL_STRIP_CRC,
    RCTL_VLAN_FILTER,
    TCTL,
    TCTL_ENABLE,
    TCTL_PAD_SHORT,
    VFLRE,
    VFRE,
    VFTA,
    VFTE,
    VLVF,
    VLVF_ENABLE,
    VLVF_POOLS,
    VMBMEM,
    VMOLR,
    VMOLR_BROADCAST,
    VMOLR_LENGTH,
    VMOLR_LONG,
    VMOLR_MULTICAST_PROMISCUOUS,
    VMOLR_OVERFLOW_MULTICAST,
    VMOLR_STRIP_CRC,
    VMOLR_UNTAGGED,
    VT_CTL,
    VT_CTL_NO_DEFAULT,
    VT_CTL_REPLICATION,
    offset_of,
)

RESET, SET_MAC, SET_MULTICAST, SET_VLAN, SET_LENGTH, PROMISCUOUS = range(1, 7)
GRANTED, REFUSED, READY = 1 << 31, 1 << 30, 1 << 29
_VMDQ = 3
_HASHES = 30
_ALL_MULTICAST = 2


class PhysicalDriver:
    """Drives the registers ``bar`` for the virtual functions; ``mac`` is that of the port.

    The address of virtual function n is that of the port, plus n + 1.
    """

    def __init__(self, bar: Region, mac: bytes) -> None:
        self._bar = bar
        self._mac = mac
        self._ready: set[int] = set()
        self._vlans: list[int] = []

    def start(self) -> None:
        """Bring the port up, with switching between virtual functions, and let these go on."""
        write = self._write
        write(offset_of(RCTL), RCTL_ENABLE | RCTL_LONG | RCTL_BROADCAST | RCTL_STRIP_CRC)
        write(offset_of(TCTL), TCTL_ENABLE | TCTL_PAD_SHORT)
        write(offset_of(MRQC), _VMDQ)
        write(offset_of(VT_CTL), VT_CTL_NO_DEFAULT | VT_CTL_REPLICATION)
        write(offset_of(DTXSWC), DTXSWC_LOOPBACK)
        for pool in range(POOLS):
            options = VMOLR_STRIP_CRC | VMOLR_BROADCAST | VMOLR_UNTAGGED
            write(offset_of(VMOLR, pool), options)
        write(offset_of(VLVF), VLVF_ENABLE | 0xFF << VLVF_POOLS)
        self._vlans = [0]
        self._add(offset_of(VFTA), 1)
        self._add(offset_of(RCTL), RCTL_VLAN_FILTER)
        self._add(offset_of(CTRL_EXT), CTRL_EXT_PF_RESET_DONE)

    def service(self) -> None:
        """Take what virtual functions have said: resets first, then requests."""
        resets, news = self._read(offset_of(VFLRE)), self._read(offset_of(MBVFICR))
        self._write(offset_of(VFLRE), resets)
        self._write(offset_of(MBVFICR), news)
        for vf in range(POOLS):
            if resets >> vf & 1:
                self._ready.discard(vf)
            if news >> vf & 1:
                self._answer(vf)

    def _answer(self, vf: int) -> None:
        mailbox = offset_of(P2VMAILBOX, vf)
        words = [self._read(offset_of(VMBMEM, WORDS * vf + at)) for at in range(WORDS)]
        self._write(mailbox, PF_ACKNOWLEDGE)
        reply = self._reset(vf) if words[0] & 0xFFFF == RESET else self._reply(vf, words)
        self._write(mailbox, PF_LOCK)
        for at, word in enumerate(reply):
            self._write(offset_of(VMBMEM, WORDS * vf + at), word)
        self._write(mailbox, PF_SEND)

    def _reset(self, vf: int) -> list[int]:
        """Enable the queues of a virtual function, and tell it its address."""
        self._leave_vlans(vf)
        options = VMOLR_STRIP_CRC | VMOLR_BROADCAST | VMOLR_UNTAGGED
        self._write(offset_of(VMOLR, vf), options)
        for register in (VFRE, VFTE):
            self._add(offset_of(register), 1 << vf)
        self._ready.add(vf)
        address = (int.from_bytes(self._mac, "big") + vf + 1 & (1 << 48) - 1).to_bytes(6, "big")
        low, high = int.from_bytes(address[:4], "little"), int.from_bytes(address[4:], "little")
        self._set_address(vf, low, high)
        return [RESET | GRANTED, low, high]

    def _reply(self, vf: int, words: list[int]) -> list[int]:
        if vf not in self._ready:
            return [words[0] | REFUSED]
        done = self._perform(vf, words)
        return [words[0] | READY | (GRANTED if done else REFUSED)]

    def _perform(self, vf: int, words: list[int]) -> bool:
        """Do what a message asks for; whether that can be done."""
        kind, detail = words[0] & 0xFFFF, words[0] >> 16 & 0xFF
        if kind == SET_MAC and not detail:
            self._set_address(vf, words[1], words[2] & 0xFFFF)
        elif kind == SET_MULTICAST and detail <= _HASHES:
            self._hear(vf, words, detail)
        elif kind == SET_VLAN and detail <= 1:
            return self._vlan(vf, words[1] & 0xFFF, add=bool(detail))
        elif kind == SET_LENGTH and words[1] <= VMOLR_LENGTH:
            at = offset_of(VMOLR, vf)
            self._write(at, self._read(at) & ~VMOLR_LENGTH | words[1] | VMOLR_LONG)
        elif kind == PROMISCUOUS and detail == _ALL_MULTICAST:
            self._add(offset_of(VMOLR, vf), VMOLR_MULTICAST_PROMISCUOUS)
        else:
            return False
        return True

    def _set_address(self, vf: int, low: int, high: int) -> None:
        """The receive addresses from the end of the table on are those of virtual functions."""
        at = offset_of(RAL_16, POOLS - 1 - vf)
        self._write(at, low)
        self._write(at + 4, high | RAH_VALID | 1 << RAH_POOLS + vf)

    def _hear(self, vf: int, words: list[int], count: int) -> None:
        """Take multicast frames by hash: two hashes of 12 bits a word."""
        for number in range(count):
            value = words[1 + number // 2] >> 16 * (number & 1) & 0xFFF
            self._add(offset_of(MTA, value >> 5), 1 << (value & 31))
        self._add(offset_of(VMOLR, vf), VMOLR_OVERFLOW_MULTICAST)

    def _vlan(self, vf: int, vlan: int, *, add: bool) -> bool:
        """Join or leave a VLAN; False if there are too many."""
        if vlan not in self._vlans:
            if not add or len(self._vlans) == DECLARED[VLVF].count:
                return not add
            self._vlans.append(vlan)
        at = offset_of(VLVF, self._vlans.index(vlan))
        pools = self._read(at) & 0xFF << VLVF_POOLS
        bit = 1 << VLVF_POOLS + vf
        self._write(at, vlan | VLVF_ENABLE | (pools | bit if add else pools & ~bit))
        self._add(offset_of(VFTA, vlan >> 5), 1 << (vlan & 31))
        return True

    def _leave_vlans(self, vf: int) -> None:
        for vlan in self._vlans[1:]:
            self._vlan(vf, vlan, add=False)

    def _read(self, offset: int) -> int:
        return self._bar.read(offset, 4)

    def _write(self, offset: int, value: int) -> None:
        self._bar.write(offset, 4, value)

    def _add(self, offset: int, bits: int) -> None:
        self._write(offset, self._read(offset) | bits)
