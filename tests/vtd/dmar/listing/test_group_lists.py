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


@pytest.mark.parametrize("text", [NAMES, LONG, RECURSIVE])
def test_ls_of_a_group_shows_what_is_in_it(text: str) -> None:
    tree = parse_pci_tree(f"It is this:\n{text}so both are in one.\n0000:05:00.0\n")
    groups = {str(each): function.group for each, function in tree.functions.items()}
    assert (groups["0000:00:1c.0"], groups["0000:02:00.0"]) == (3, 3)
    assert groups.get("0000:00:1f.0") in (None, 4)
    assert groups.get("0000:05:00.0") is None
