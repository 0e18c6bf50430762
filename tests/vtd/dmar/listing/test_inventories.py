"""Inventories of other tools than lspci name the functions, and the buses that they show."""

from __future__ import annotations

import json

import pytest

from devices.source_id import Bdf
from vtd.dmar.listing import parse_pci_tree
from vtd.dmar.pci_tree import PciTreeError

GRAPHICS, BRIDGE, CARD = Bdf.parse("00:02.0"), Bdf.parse("00:1c.0"), Bdf.parse("01:00.0")
LSHW = """\
     *-pci
          description: Host bridge
        *-display
             description: VGA compatible controller
             bus info: pci@0000:00:02.0
        *-pci:0
             description: PCI bridge
             bus info: pci@0000:00:1c.0
           *-network
                description: Ethernet interface
                bus info: pci@0000:01:00.0
"""
LSHW_ROWS = """\
Bus info          Device     Class          Description
=======================================================
pci@0000:00:02.0             display        Graphics
pci@0000:00:1c.0             bridge         Port
pci@0000:01:00.0  enp1s0     network        Ethernet
"""
LSHW_JSON = json.dumps(
    {
        "id": "core",
        "children": [
            {"businfo": "pci@0000:00:02.0", "description": "VGA compatible controller"},
            {
                "businfo": "pci@0000:00:1c.0",
                "description": "PCI bridge",
                "children": [{"businfo": "pci@0000:01:00.0", "class": "network"}],
            },
        ],
    }
)
INXI = """\
Graphics:
  Device-1: Acme driver: i915 bus-ID: 00:02.0 chip-ID: 8086:46d1 class-ID: 0300
Network:
  Device-1: Acme port: N/A bus-ID: 01:00.0 chip-ID: 8086:125c
  Device-2: Acme bus-ID: 00:1c.0 chip-ID: 8086:a110 class-ID: 0604
"""
HWINFO = "".join(
    f"0{number}: PCI {place}: {kind}\n  SysFS BusID: 0000:{bus}:{place}\n"
    f'  Vendor: pci 0x8086 "Intel"\n  Device: pci 0x{device} "Acme"\n'
    for number, (bus, place, kind, device) in enumerate(
        (
            ("00", "02.0", "0300 VGA compatible controller (VGA)", "46d1"),
            ("00", "1c.0", "0604 PCI bridge (Normal decode)", "a110"),
            ("01", "00.0", "0200 Ethernet controller", "125c"),
        )
    )
)
QEMU = """\
(qemu) info pci
  Bus  0, device   2, function 0:
    VGA controller: PCI device 1234:1111
      PCI subsystem 1af4:1100
  Bus  0, device  28, function 0:
    PCI bridge: PCI device 1b36:000c
      BUS 0.
      secondary bus 1.
      subordinate bus 1.
  Bus  1, device   0, function 0:
    Ethernet controller: PCI device 1af4:1041
"""
WINDOWS = """\
InstanceId                                             LocationInfo
PCI\\VEN_8086&DEV_46D1&SUBSYS_00000000&REV_00\\3&1&0&10  PCI bus 0, device 2, function 0
PCI\\VEN_8086&DEV_A110&SUBSYS_00000000&CC_0604\\3&1&0&E0 PCI-Bus 0, Gerät 28, Funktion 0
PCI\\VEN_8086&DEV_125C&SUBSYS_00000000&REV_04\\4&1&0&00  PCI bus 1, device 0, function 0
"""
TRUENAS = json.dumps(
    {
        f"pci_0000_{place}": {
            "capability": {"class": code, "domain": "0"},
            "iommu_group": group and {"number": group, "addresses": []},
            "description": "Acme",
        }
        for place, code, group in (
            ("00_02_0", "0x030000", 1), ("00_1c_0", "0x060400", 2), ("01_00_0", None, None),
        )
    }
)  # fmt: skip
FORMS = {
    "lshw": LSHW, "lshw -businfo": LSHW_ROWS, "lshw -json": LSHW_JSON, "inxi": INXI,
    "hwinfo": HWINFO, "QEMU": QEMU, "Windows": WINDOWS, "TrueNAS": TRUENAS,
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("quote", ["", "> "])
def test_every_inventory_names_the_functions(form: str, quote: str) -> None:
    text = FORMS[form]
    lines = text if text.startswith("{") else "".join(f"{quote}{e}\n" for e in text.splitlines())
    tree = parse_pci_tree(lines)
    assert set(tree.functions) == {GRAPHICS, BRIDGE, CARD}
    assert not any(each.acs_known or each.header_known for each in tree.functions.values())


@pytest.mark.parametrize("form", ["lshw", "lshw -json", "inxi", "hwinfo", "QEMU", "TrueNAS"])
def test_a_bridge_is_known_by_its_class(form: str) -> None:
    tree = parse_pci_tree(FORMS[form])
    assert tree.functions[BRIDGE].is_bridge
    assert tree.functions[GRAPHICS].is_bridge is None


@pytest.mark.parametrize("form", ["lshw", "lshw -json", "QEMU"])
def test_a_drawing_tells_the_bus_behind_a_bridge(form: str) -> None:
    assert parse_pci_tree(FORMS[form]).bridge_above(CARD) == BRIDGE


@pytest.mark.parametrize("form", ["inxi", "hwinfo", "QEMU", "Windows"])
def test_ids_are_those_of_the_function(form: str) -> None:
    function = parse_pci_tree(FORMS[form]).functions[CARD]
    assert (function.vendor_id, function.device_id) in ((0x8086, 0x125C), (0x1AF4, 0x1041))


def test_groups_of_truenas_are_known() -> None:
    tree = parse_pci_tree(TRUENAS)
    assert [tree.functions[each].group for each in (GRAPHICS, BRIDGE, CARD)] == [1, 2, None]


def test_own_json_with_a_group_of_linux_is_no_inventory() -> None:
    listing = '[{"bdf": "0000:00:02.0", "class_code": 768, "iommu_group": 1}]'
    assert set(parse_pci_tree(listing).functions) == {GRAPHICS}


@pytest.mark.parametrize(
    "broken", ['{"businfo": "pci@x"}', TRUENAS[:-1], "[pci@", '{"devices": {"businfo": "pci@0"']
)
def test_a_broken_inventory_is_refused(broken: str) -> None:
    with pytest.raises(PciTreeError):
        parse_pci_tree(broken)
