"""Lists of isolation groups: what ``ls`` shows of their directories."""

from __future__ import annotations

import pytest

from vtd.dmar.listing import parse_pci_tree

NAMES = """\
# ls /sys/kernel/iommu_groups/3/devices/
0000:00:1c.0  0000:02:00.0
"""
LONG = """\
> $ ls -l /sys/kernel/iommu_groups/3/devices
> total 0
> lrwxrwxrwx 1 root root 0 Mar  3 10:00 0000:00:1c.0 -> ../../../../devices/pci0000:00/0000:00:1c.0
> lrwxrwxrwx. 1 root root 0 Mar  3 10:00 0000:02:00.0 -> ../../../../devices/x/0000:02:00.0
"""
RECURSIVE = """\
/sys/kernel/iommu_groups/3/devices:
0000:00:1c.0
0000:02:00.0

/sys/kernel/iommu_groups/4/devices:
0000:00:1f.0
"""


DRAWN = """\
/sys/kernel/iommu_groups/
├── 3
│   ├── devices
│   │   ├── 0000:00:1c.0 -> ../../../../devices/pci0000:00/0000:00:1c.0
│   │   └── 0000:02:00.0 -> ../../../../devices/x/0000:02:00.0
│   └── type
└── 4
    ├── devices
    │   └── 0000:00:1f.0 -> ../../../../devices/pci0000:00/0000:00:1f.0
    └── type
"""
DRAWN_WIDE = DRAWN.replace("\u2502   ", "\u2502\xa0\xa0 ")
RUN_ON = (
    " ".join(
        f"/sys/kernel/iommu_groups/{group}/devices: total 0 "
        + " ".join(
            f"lrwxrwxrwx 1 root root 0 Feb 4 10:29 {each} -> ../../x/{each}" for each in names
        )
        for group, names in ((3, ("0000:00:1c.0", "0000:02:00.0")), (4, ("0000:00:1f.0",)))
    )
    + "\n"
)
PASTED = "0000:00:1c.0\t3\tIntel Corporation\tRoot Port\tNo\n0000:02:00.0\t3\tAcme\tCard\tYes\n"


@pytest.mark.parametrize("text", [NAMES, LONG, RECURSIVE, DRAWN, DRAWN_WIDE, RUN_ON, PASTED])
def test_ls_of_a_group_shows_what_is_in_it(text: str) -> None:
    tree = parse_pci_tree(f"It is this:\n{text}so both are in one.\n0000:05:00.0\n")
    groups = {str(each): function.group for each, function in tree.functions.items()}
    assert (groups["0000:00:1c.0"], groups["0000:02:00.0"]) == (3, 3)
    assert groups.get("0000:00:1f.0") in (None, 4)
    assert groups.get("0000:05:00.0") is None


def test_json_of_proxmox_tells_class_ids_and_group() -> None:
    listing = (
        '[{"class":"0x030000","device":"0x1f08","id":"0000:01:00.0","iommugroup":1,'
        '"vendor":"0x10de","device_name":"TU106"},'
        '{"class":"0x060400","device":"0x1901","id":"0000:00:01.0","iommugroup":-1,'
        '"vendor":"0x8086"}]'
    )
    card, port = parse_pci_tree(listing).functions.values()
    assert (str(card.bdf), card.class_code, card.vendor_id, card.device_id, card.group) == (
        *("0000:01:00.0", 0x0300, 0x10DE, 0x1F08, 1),
    )
    assert (port.class_code, port.group, port.express_known) == (0x0604, None, False)


@pytest.mark.parametrize("field", ['"id":1', '"id":"0000:01:00.0","class":"x"'])
def test_json_of_proxmox_without_its_fields_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match="function 0: no id, class"):
        parse_pci_tree(f'[{{{field},"iommugroup":1}}]')
