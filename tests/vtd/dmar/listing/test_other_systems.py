"""Listings of FreeBSD, the UEFI shell and U-Boot name the functions and what bridges are."""

from __future__ import annotations

import pytest

from devices.source_id import Bdf
from vtd.dmar.listing import parse_pci_tree
from vtd.dmar.pci_tree import Acs

PCICONF = """\
hostb0@pci0:0:0:0:\tclass=0x060000 rev=0x07 hdr=0x00 vendor=0x8086 device=0x1918 subvendor=0x1
    vendor     = 'Intel Corporation'
pcib1@pci0:0:1:0:\tclass=0x060400 rev=0x07 hdr=0x01 vendor=0x8086 device=0x1901 subvendor=0x1
    bus range  = 1-1
    cap 10[a0] = PCI-Express 2 root port max data 256(256)
vgapci0@pci0:1:0:0:\tclass=0x030000 rev=0xa1 hdr=0x00 vendor=0x10de device=0x1c03 subvendor=0x1
    cap 10[78] = PCI-Express 2 legacy endpoint max data 256(256) RO NS
"""
OLD_PCICONF = (
    "vgapci0@pci0:1:0:0:\tclass=0x030000 card=0x38421462 chip=0x1c0310de rev=0xa1 hdr=0x00\n"
)
UEFI = """\
   Seg  Bus  Dev  Func
   ---  ---  ---  ----
    00   00   1C    00 ==> Bridge Device - PCI/PCI bridge
             Vendor 8086 Device A110 Prog Interface 0
    00   01   00    00 ==> Display Controller - VGA/8514 controller
             Vendor 10DE Device 1C03 Prog Interface 0
"""
UBOOT = """\
BusDevFun  VendorId   DeviceId   Device Class       Sub-Class
_____________________________________________________________
00.1c.00   0x8086     0xa110     Bridge device           0x04
01.00.00   0x10de     0x1c03     Display controller      0x00
"""


ESXCLI = """\
0000:00:1c.0
   Address: 0000:00:1c.0
   Segment: 0x0000
   Bus: 0x00
   VMkernel Name: PCIe RP[0000:00:1c.0]
   Vendor ID: 0x8086
   Device ID: 0xa110
   SubVendor ID: 0x15d9
   SubDevice ID: 0x0000
   Device Class: 0x0604
   Device Class Name: PCI bridge
   Spawned Bus: 0x01
   Flags: 0x3001

0000:01:00.0
   Address: 0000:01:00.0
   Bus: 0x01
   Vendor ID: 0x10de
   Device ID: 0x1c03
   Device Class: 0x0300
   Spawned Bus: 0x00
   Parent Device: PCI 0:0:28:0
"""


@pytest.mark.parametrize("listing", [PCICONF, OLD_PCICONF, UEFI, UBOOT, ESXCLI])
def test_the_card_is_listed_with_its_ids(listing: str) -> None:
    functions = {str(bdf): each for bdf, each in parse_pci_tree(listing).functions.items()}
    card = functions["0000:01:00.0"]
    assert (card.vendor_id, card.device_id) == (0x10DE, 0x1C03)


@pytest.mark.parametrize("listing", [UEFI, UBOOT])
def test_a_bridge_of_a_firmware_listing_has_unknown_buses(listing: str) -> None:
    (bridge,) = parse_pci_tree(listing).closed_bridges
    assert str(bridge.bdf) == "0000:00:1c.0"


def test_esxcli_tells_the_bus_behind_a_bridge() -> None:
    tree = parse_pci_tree(ESXCLI)
    port, card = tree.functions.values()
    assert (port.class_code, port.secondary_bus, port.is_bridge) == (0x0604, 1, True)
    assert (card.class_code, card.secondary_bus) == (0x0300, None)
    assert tree.bridges_above(card.bdf) == [port.bdf]


def test_freebsd_tells_kinds_and_buses() -> None:
    tree = parse_pci_tree(PCICONF)
    port, card = (each for each in tree.functions.values() if each.express_known)
    assert (port.express_type, port.secondary_bus, card.express_type) == (4, 1, 1)
    assert tree.bridges_above(card.bdf) == [port.bdf]
    assert not card.acs_known


def test_freebsd_tells_the_bits_of_acs() -> None:
    acs = """\
    ecap 000d[140] = ACS 1 Source Validation enabled, Translation Blocking disabled
                     P2P Req Redirect enabled, P2P Cmpl Redirect enabled
                     P2P Upstream Forwarding enabled, P2P Egress Control unavailable
                     P2P Direct Translated unavailable, Enhanced Capability unavailable
"""
    tree = parse_pci_tree(
        PCICONF + acs.replace("enabled", "unavailable").replace("disabled", "unavailable")
    )
    card = list(tree.functions.values())[-1]
    assert (card.acs, card.express_type) == (Acs(0, 0), 1)
    endpoint = parse_pci_tree(PCICONF.replace("legacy endpoint", "endpoint") + acs)
    card = list(endpoint.functions.values())[-1]
    assert (card.acs, card.acs_known, card.express_type) == (Acs(0x1F, 0x1D), True, 0)


ESXI = """\
Segm:Bu:De.F Vend:Dvid Subv:Subd ISA/irq/Vect P M Module       Name
0000:00:1c.0 8086:a190 15d9:0963  11/   /     A V              PCIe RP[0000:00:1c.0]
0000:04:00.0 8086:1533 1043:8557 255/   /     A V igbn         vmnic0
"""


def test_lspci_of_esxi_tells_ids_and_no_class() -> None:
    port, card = parse_pci_tree(ESXI).functions.values()
    assert (port.vendor_id, port.device_id, port.class_code) == (0x8086, 0xA190, None)
    assert (card.vendor_id, card.device_id, card.class_code) == (0x8086, 0x1533, None)


def test_without_buses_of_bridges_a_function_may_be_behind_one() -> None:
    tree = parse_pci_tree(ESXI)
    assert tree.may_be_below_a_bridge(Bdf.parse("0000:04:00.0"))
    assert not tree.may_be_below_a_bridge(Bdf.parse("0000:00:1c.0"))


@pytest.mark.parametrize("line", ["x@pci0:999:0:0: class=0x060000", "00 00 FF 00 ==> x", ""])
def test_a_place_that_can_t_be_is_no_function(line: str) -> None:
    with pytest.raises(ValueError, match="no function"):
        parse_pci_tree(line)
