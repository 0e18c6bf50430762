"""Descriptors in memory: 16 bytes each, as software writes them and as they are written back."""

from __future__ import annotations

from pagetables.bits import BitRecord, Bits

DESCRIPTOR_SIZE = 16


class LegacyTransmit(BitRecord, width=128):
    """A transmit descriptor without the extension bit."""

    address = Bits(63, 0)
    length = Bits(79, 64)
    checksum_offset = Bits(87, 80)
    eop = Bits(88)  # end of packet
    ifcs = Bits(89)  # insert the frame check sequence
    ic = Bits(90)  # insert a checksum
    rs = Bits(91)  # report status
    dext = Bits(93)  # extension: the descriptor is an advanced one
    vle = Bits(94)  # insert a VLAN tag
    ide = Bits(95)  # interrupt delay
    dd = Bits(96)  # descriptor done
    checksum_start = Bits(111, 104)
    vlan = Bits(127, 112)


class ContextDescriptor(BitRecord, width=128):
    """An advanced context descriptor: how the packets that name it are to be treated."""

    iplen = Bits(8, 0)
    maclen = Bits(15, 9)
    vlan = Bits(31, 16)
    ipv4 = Bits(74)  # the network header is IPv4
    l4t = Bits(76, 75)  # 0 UDP, 1 TCP, 2 SCTP
    dtyp = Bits(87, 84)
    dext = Bits(93)
    idx = Bits(102, 100)
    l4len = Bits(111, 104)
    mss = Bits(127, 112)


class DataDescriptor(BitRecord, width=128):
    """An advanced data descriptor."""

    address = Bits(63, 0)
    dtalen = Bits(79, 64)
    dtyp = Bits(87, 84)
    eop = Bits(88)
    ifcs = Bits(89)
    rs = Bits(91)
    dext = Bits(93)
    vle = Bits(94)
    tse = Bits(95)  # segment
    dd = Bits(96)
    idx = Bits(102, 100)
    ixsm = Bits(104)  # insert the checksum of IPv4
    txsm = Bits(105)  # insert the checksum of layer 4
    paylen = Bits(127, 110)


CONTEXT, DATA = 2, 3
"""Values of DTYP."""


class LegacyReceived(BitRecord, width=128):
    """A legacy receive descriptor, written back."""

    packet = Bits(63, 0)
    length = Bits(79, 64)
    checksum = Bits(95, 80)
    dd = Bits(96)
    eop = Bits(97)
    ixsm = Bits(98)  # ignore the checksum bits
    vp = Bits(99)  # the VLAN tag was taken out
    udpcs = Bits(100)
    l4cs = Bits(101)
    ipcs = Bits(102)
    pif = Bits(103)  # passed by a filter that is not exact
    errors = Bits(111, 104)
    vlan = Bits(127, 112)


class Received(BitRecord, width=128):
    """An advanced receive descriptor, written back."""

    rss_type = Bits(3, 0)
    packet_type = Bits(16, 4)
    header_length = Bits(30, 21)
    sph = Bits(31)  # the header is known and was split off
    rss_hash = Bits(63, 32)
    dd = Bits(64)
    eop = Bits(65)
    ixsm = Bits(66)
    vp = Bits(67)
    udpcs = Bits(68)  # the checksum of UDP was looked at
    l4cs = Bits(69)  # the checksum of layer 4 was looked at
    ipcs = Bits(70)  # the checksum of IPv4 was looked at
    pif = Bits(71)
    l4e = Bits(93)  # it was wrong
    ipe = Bits(94)
    rxe = Bits(95)
    length = Bits(111, 96)
    vlan = Bits(127, 112)
