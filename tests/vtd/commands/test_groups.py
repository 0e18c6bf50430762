"""``vtd groups``: what it prints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.vtd.inspection.test_isolation_groups import GOOD, f
from vtd.cli import main

SHARED = "\n".join(
    (
        f("00:1c.0", "root", "01-01"),
        f("01:00.0", "end"),
        f("00:1d.0", "root", "02-02", GOOD),
        f("02:00.0", "end", ids="8086:1521"),
    )
)


def run(folder: Path, listing: str, *options: str, code: int = 0) -> str:
    (folder / "lspci").write_text(listing)
    result = CliRunner().invoke(main, ["groups", str(folder / "lspci"), *options])
    assert result.exit_code == code, result.output
    return result.stdout or result.stderr


def test_json_has_the_groups_and_the_reasons(tmp_path: Path) -> None:
    answer = json.loads(run(tmp_path, SHARED, "--format", "json"))
    assert answer["groups"] == [
        ["0000:00:1c.0", "0000:01:00.0"], ["0000:00:1d.0"], ["0000:02:00.0"],
    ]  # fmt: skip
    (join,) = answer["joins"]
    assert join["functions"] == ["0000:00:1c.0", "0000:01:00.0"]
    assert "has no ACS capability" in join["reason"]
    assert answer["certain"]
    assert answer["trusted"][0]["function"] == "0000:02:00.0"
    assert "quirks.c" in answer["trusted"][0]["source"]
    assert len(answer["override"]["groups"]) == 4
    assert answer["override"]["shared"][0]["functions"] == join["functions"]


def test_text_names_reasons_exceptions_and_what_the_override_hides(tmp_path: Path) -> None:
    shown = run(tmp_path, SHARED)
    assert "group 1: 0000:00:1c.0, 0000:01:00.0" in shown
    assert "0000:01:00.0 with 0000:00:1c.0: 0000:00:1c.0 has no ACS capability" in shown
    assert "0000:02:00.0 counts as isolated" in shown
    assert "would show 4 groups; these would still share" in shown


def test_groups_of_a_patched_kernel_are_told(tmp_path: Path) -> None:
    listing = SHARED.replace("Acme [1af4:1000]", "Acme [1af4:1000]\n\tIOMMU group: 1", 1)
    first, second = listing.split("01:00.0 ", 1)
    listing = f"{first}01:00.0 {second.replace('Status', 'IOMMU group: 2' + chr(10) + 'Status', 1)}"
    assert "the listing has 0000:00:1c.0, 0000:01:00.0 in groups [1, 2]" in run(tmp_path, listing)


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        ("00:1c.0 PCI bridge [0604]: Port\n01:00.0 Ethernet controller: Card", "no buses of"),
        ("nothing", "no function found"),
    ],
)
def test_a_listing_without_buses_is_refused(tmp_path: Path, listing: str, message: str) -> None:
    assert message in run(tmp_path, listing, code=2)


SCRIPT = """\
IOMMU Group 0:
        00:02.0 Display controller [0380]: Acme Graphics [8086:1912] (rev 06)
IOMMU Group 2:
        00:01.0 PCI bridge [0604]: Acme Controller (x16) [8086:1901] (rev 07)
        01:00.0 VGA compatible controller [0300]: Acme [10de:2184] (rev a1)
        01:00.1 Audio device [0403]: Acme [10de:1aeb] (rev a1)
"""
ONE_LINE = """\
`IOMMU Group 2 00:01.0 PCI bridge [0604]: Acme Controller (x16) [8086:1901] (rev 07)
IOMMU Group 0 00:02.0 Display controller [0380]: Acme Graphics [8086:1912] (rev 06)
IOMMU Group 2 01:00.0 VGA compatible controller [0300]: Acme [10de:2184] (rev a1)
IOMMU Group 2 01:00.1 Audio device [0403]: Acme [10de:1aeb] (rev a1)
"""
FLAGS = """\
00:01.0 PCI bridge: Acme Controller (x16) (rev 07) (prog-if 00 [Normal decode])
\tFlags: bus master, fast devsel, latency 0, IRQ 120, IOMMU group 2
\tBus: primary=00, secondary=01, subordinate=01, sec-latency=0
\tCapabilities: <access denied>
00:02.0 Display controller: Acme Graphics (rev 06)
\tFlags: bus master, fast devsel, latency 0, IRQ 16, IOMMU group 0
01:00.0 VGA compatible controller: Acme (rev a1)
\tFlags: bus master, fast devsel, latency 0, IRQ 16, IOMMU group 2
01:00.1 Audio device: Acme (rev a1)
\tFlags: bus master, fast devsel, latency 0, IRQ 16, IOMMU group 2
"""
DMESG = """\
[    0.4] pci 0000:00:01.0: [8086:1901] type 01 class 0x060400
[    0.4] pci 0000:01:00.0: [10de:2184] type 00 class 0x030000
[    0.5] pci 0000:00:02.0: Adding to iommu group 0
[    0.5] pci 0000:00:01.0: Adding to iommu group 2
[    0.5] pci 0000:01:00.0: Adding to iommu group 2
[    0.5] pci 0000:01:00.1: Adding to iommu group 2
"""
OLD_DMESG = """\
[  +0.000011] iommu: Adding device 0000:00:02.0 to group 0
[  +0.000011] iommu: Adding device 0000:00:01.0 to group 2
[  +0.000011] iommu: Adding device 0000:01:00.0 to group 2
[  +0.000011] iommu: Adding device 0000:01:00.1 to group 2
"""


PREFIXED = """\
Group:  0   0000:00:02.0 Display controller [0380]: Acme Graphics [8086:1912] (rev 06)
Group:  2   0000:00:01.0 PCI bridge [0604]: Acme Controller (x16) [8086:1901] (rev 07)
Group:  2   0000:01:00.0 VGA compatible controller [0300]: Acme [10de:2184]   Driver: vfio-pci
Group:  2   0000:01:00.1 Audio device [0403]: Acme [10de:1aeb] (rev a1)
"""
IDS_FIRST = """\
IOMMU group 0:\t[8086:1912] 00:02.0 Display controller: Acme Graphics (rev 06)
IOMMU group 2:\t[8086:1901] 00:01.0 PCI bridge: Acme Controller (x16) (rev 07)
[10de:2184] 01:00.0 VGA compatible controller: Acme (rev a1)
[10de:1aeb] 01:00.1 Audio device: Acme (rev a1)
"""
COLUMNS = """\
Group 0:\t[8086:1912]     00:02.0  Display controller                  Acme Graphics
Group 2:\t[8086:1901] [R] 00:01.0  PCI bridge                          Acme Controller (x16)
\t\t[10de:2184] [R] 01:00.0  VGA compatible controller           Acme
\t\t[10de:1aeb]     01:00.1  Audio device                        Acme
"""
PATHS = """\
/sys/kernel/iommu_groups/0/devices/0000:00:02.0
/sys/kernel/iommu_groups/2/devices/0000:00:01.0
/sys/kernel/iommu_groups/2/devices/0000:01:00.0
/sys/kernel/iommu_groups/2/devices/0000:01:00.1
"""
PVESH = """\
│ class    │ device │ id           │ iommugroup │ vendor │ device_name
╞══════════╪════════╪══════════════╪════════════╪════════╪════════════
│ 0x038000 │ 0x1912 │ 0000:00:02.0 │          0 │ 0x8086 │ Graphics
├──────────┼────────┼──────────────┼────────────┼────────┼────────────
│ 0x060400 │ 0x1901 │ 0000:00:01.0 │          2 │ 0x8086 │ Controller
│ 0x030000 │ 0x2184 │ 0000:01:00.0 │          2 │ 0x10de │
│ 0x040300 │ 0x1aeb │ 0000:01:00.1 │          2 │ 0x10de │
"""
NAMING = [
    *(SCRIPT, ONE_LINE, FLAGS, DMESG, OLD_DMESG, PREFIXED, IDS_FIRST, COLUMNS, PATHS, PVESH),
]


@pytest.mark.parametrize("listing", NAMING)
def test_groups_that_a_listing_names_are_those_of_the_kernel(tmp_path: Path, listing: str) -> None:
    answer = json.loads(run(tmp_path, listing, "--format", "json"))
    assert answer["groups"] == [["0000:00:01.0", "0000:01:00.0", "0000:01:00.1"], ["0000:00:02.0"]]
    assert answer["certain"]
    assert len(answer["joins"]) == 2
    assert all("the listing has both in group 2" in join["reason"] for join in answer["joins"])
    assert "group 2 (group 0 of the listing): 0000:00:02.0" in run(tmp_path, listing)


def test_a_group_below_a_bridge_that_is_not_listed_may_be_larger(tmp_path: Path) -> None:
    listing = f("0a:00.0", "end")
    assert "0000:0a:00.0: below a bridge that the listing lacks" in run(tmp_path, listing)
    answer = json.loads(run(tmp_path, listing, "--format", "json"))
    assert (answer["unplaced"], answer["certain"]) == (["0000:0a:00.0"], False)


def test_a_downstream_port_is_behind_a_switch_also_one_that_is_not_listed(tmp_path: Path) -> None:
    port = """\
03:08.0 PCI bridge [0604]: Acme
\tBus: primary=03, secondary=04, subordinate=04, sec-latency=0
\tCapabilities: [68] Express (v2) Downstream Port (Slot+), MSI 00
"""
    listing = f("04:00.0", "end") + port
    assert "0000:03:08.0: below a bridge that the listing lacks" in run(tmp_path, listing)
    answer = json.loads(run(tmp_path, listing, "--format", "json"))
    assert (answer["unplaced"], answer["certain"]) == (["0000:03:08.0"], False)


def test_functions_of_a_root_bus_are_below_no_bridge(tmp_path: Path) -> None:
    places = "ff:00.0 Host bridge [0600]", "80:00.0 System peripheral", "80:04.0 System peripheral"
    listing = "\n".join((SHARED, *(f"{place}: Acme" for place in places)))
    assert json.loads(run(tmp_path, listing, "--format", "json"))["unplaced"] == []
