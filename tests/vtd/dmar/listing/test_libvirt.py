"""libvirt's tree shows which bridge a function is behind, its XML the isolation groups."""

from __future__ import annotations

from vtd.dmar.listing import parse_pci_tree

TREE = """\
computer
  |
  +- net_lo_00_00_00_00_00_00
  +- pci_0000_00_00_0
  +- pci_0000_00_1c_0
  |   |
  |   +- pci_0000_02_00_0
  |       |
  |       +- pci_0000_03_01_0
  |           |
  |           +- net_enp3s1_00_11_22_33_44_55
  |
  +- pci_0000_00_1f_2
      |
      +- scsi_host0
"""
XML = """\
<device>
  <name>pci_0000_01_00_0</name>
  <parent>pci_0000_00_01_0</parent>
  <capability type='pci'>
    <iommuGroup number='13'>
      <address domain='0x0000' bus='0x00' slot='0x01' function='0x0'/>
      <address domain='0x0000' bus='0x01' slot='0x00' function='0x0'/>
    </iommuGroup>
    <address domain='0x0000' bus='0x05' slot='0x00' function='0x0'/>
  </capability>
</device>
"""


def test_the_tree_shows_the_bridges_above() -> None:
    tree = parse_pci_tree(TREE)
    above = {str(bdf): list(map(str, tree.bridges_above(bdf))) for bdf in tree.functions}
    assert above == {
        "0000:00:00.0": [],
        "0000:00:1c.0": [],
        "0000:02:00.0": ["0000:00:1c.0"],
        "0000:03:01.0": ["0000:02:00.0", "0000:00:1c.0"],
        "0000:00:1f.2": [],
    }
    assert not any(each.express_known or each.acs_known for each in tree.functions.values())


def test_the_xml_shows_the_group() -> None:
    functions = parse_pci_tree(XML).functions
    assert {str(bdf): each.group for bdf, each in functions.items()} == {
        "0000:01:00.0": 13,
        "0000:00:01.0": 13,
    }
