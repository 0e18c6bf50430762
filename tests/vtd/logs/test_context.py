"""A log against its platform: who a source-id is, and nothing claimed that can't be known."""

from pathlib import Path
from unittest.mock import patch

import pytest

from devices.source_id import Bdf
from vtd.dmar.description import build
from vtd.dmar.listing import parse_pci_tree
from vtd.dmar.pci_tree import PciTree
from vtd.dmar.ranges import RangeSet
from vtd.dmar.scopes import Owner
from vtd.dmar.table import Table
from vtd.logs.context import NO_TREE, Context, Whose, contradictions
from vtd.logs.log import read_log
from vtd.logs.message import Weight

FAULT = "DMAR: [{}] Request device [{}] fault addr {:x} [fault reason 06] x"
TABLE = """
[[structure]]
type = "DRHD"
register_base = 0xfed90000
[[structure.scope]]
type = "pci_endpoint"
path = ["02.0"]
[[structure.scope]]
type = "pci_sub_hierarchy"
path = ["1c.0"]
[[structure]]
type = "DRHD"
flags = ["include_pci_all"]
register_base = 0xfed91000
[[structure.scope]]
type = "ioapic"
enumeration_id = 2
start_bus = 0xf0
path = ["1f.0"]
[[structure.scope]]
type = "msi_hpet"
enumeration_id = 0
start_bus = 0xf0
path = ["0f.0"]
[[structure]]
type = "RMRR"
base = 0x7a000000
limit = 0x7a00ffff
[[structure.scope]]
type = "pci_endpoint"
path = ["1c.0", "00.0"]
[[structure]]
type = "RMRR"
base = 0x7b000000
limit = 0x7b00ffff
[[structure.scope]]
type = "pci_endpoint"
path = ["02.0"]
"""
LSPCI = """\
00:02.0 VGA compatible controller [0300]: Graphics
00:1c.0 PCI bridge [0604]: Root Port
\tBus: primary=00, secondary=01, subordinate=01, sec-latency=0
\tCapabilities: [40] Express (v2) Root Port (Slot+), MSI 00
01:00.0 Ethernet controller [0200]: Card
\tCapabilities: [a0] Express (v2) Endpoint, MSI 00
"""
NO_CAPABILITIES = "\n".join(line for line in LSPCI.split("\n") if "Capabilities" not in line)


@pytest.fixture
def table() -> Table:
    return build(TABLE)


def context(log: str, table: Table | None = None, lspci: str = "") -> Context:
    tree: PciTree | None = parse_pci_tree(lspci) if lspci else None
    return Context(read_log(log.splitlines()).facts, table, tree)


def hits(log: str, where: Context) -> list[Whose]:
    (fault,) = read_log(log.splitlines()).faults
    return [hit.whose for hit in where.regions(fault)]


def fault(device: str, address: int = 0x7A000000) -> str:
    return FAULT.format("DMA Read", device, address)


def base(owner: Owner | str | None) -> int | str | None:
    return owner.unit.register_base if isinstance(owner, Owner) else owner


def test_the_io_apic_and_hpet_of_the_table_are_named(table: Table) -> None:
    log = (
        "DMAR: [INTR-REMAP] Request device [f0:1f.0] fault index 0 [fault reason 37] x\n"
        "DMAR: [INTR-REMAP] Request device [f0:0f.0] fault index 0 [fault reason 37] x\n"
    )
    first, second = read_log(log.splitlines()).faults
    where = context(log, table, LSPCI)
    assert first.source is not None
    assert second.source is not None
    assert where.system_device(first.source) == "I/O APIC 2, listed under the unit 0xfed91000"
    assert where.system_device(second.source).startswith("HPET 0")
    assert where.hint(first) == ""
    listed = "DMAR-IR: IOAPIC id 2 under DRHD base  0xfed91000 IOMMU 1\n"
    assert "I/O APIC 2 under the unit 0xfed91000" in context(listed + log).hint(first)
    assert "probably an I/O APIC" in context(log).hint(first)


def test_a_unit_over_bridges_is_not_guessed(table: Table) -> None:
    (behind,) = read_log([fault("01:00.0")]).faults
    (listed,) = read_log([fault("00:02.0")]).faults
    (root,) = read_log([fault("00:14.0")]).faults
    assert behind.source and listed.source and root.source
    assert context("", table).owner(behind.source) == NO_TREE
    assert base(context("", table, LSPCI).owner(behind.source)) == 0xFED90000
    assert base(context("", table).owner(listed.source)) == 0xFED90000
    assert base(context("", table).owner(root.source)) == 0xFED91000
    short = "00:1c.0 PCI bridge [0604]: Root Port\n01:00.0 Ethernet controller [0200]: Card\n"
    assert context("", table, short).owner(behind.source) == NO_TREE


def test_a_region_over_bridges_is_not_denied(table: Table) -> None:
    log = fault("01:00.0")
    assert hits(log, context(log, table)) == [Whose.UNKNOWN]
    assert hits(log, context(log, table, LSPCI)) == [Whose.OWN]
    log = fault("01:00.0", 0x7B000000)
    assert hits(log, context(log, table, LSPCI)) == [Whose.OTHER]
    log = fault("00:02.0", 0x7B000000)
    assert hits(log, context(log, table)) == [Whose.OWN]


def test_the_log_itself_has_buses_regions_and_the_memory_map(table: Table) -> None:
    log = (
        "BIOS-e820: [mem 0x000000007a000000-0x000000007a00ffff] reserved\n"
        "DMAR: RMRR base: 0x0000007a000000 end: 0x0000007a00ffff\n"
        "DMAR: RMRR base: 0x0000007c000000 end: 0x0000007c00ffff\n"
        "pci 0000:00:1c.0: [8086:a110] type 01 class 0x060400\n"
        "pci 0000:01:00.0: [8086:1533] type 00 class 0x020000\n"
        "pci 0000:00:1c.0: PCI bridge to [bus 01]\n" + fault("01:00.0")
    )
    (group,) = read_log(log.splitlines()).faults
    assert group.source is not None
    (hit,) = context(log).regions(group)
    assert (hit.whose, hit.is_reserved) == (Whose.UNNAMED, True)
    assert base(context(log, table).owner(group.source)) == 0xFED90000
    assert context(log).in_reserved_memory(group)
    identity = (
        log + "\nDMAR: Setting identity map for device 0000:01:00.0 [0x7a000000 - 0x7a00ffff]"
    )
    assert hits(log, context(identity)) == [Whose.OWN]


@pytest.mark.parametrize(
    ("line", "reserved"),
    [
        ("[mem 0x000000007a000000-0x000000007a00ffff]  device reserved", True),
        ("[mem 0x000000007a000000-0x000000007a00ffff] reserved", True),
        ("[mem 0x000000007a000000-0x000000007a00ffff]  ACPI NVS", True),
        ("[mem 0x000000007a000000-0x000000007a00ffff]  soft reserved", False),
        ("[mem 0x000000007a000000-0x000000007a00ffff]  System RAM", False),
        ("[gap 0x000000007a000000-0x000000007a00ffff]", False),
        ("000000007a000000 - 000000007a010000 (type 20)", True),
    ],
)
def test_memory_is_reserved_in_the_words_of_every_kernel(line: str, reserved: bool) -> None:
    log = f"BIOS-e820: {line}\n" + fault("00:14.0", 0x7A00_0000)
    (group,) = read_log(log.splitlines()).faults
    assert context(log).in_reserved_memory(group) is reserved


def test_given_data_come_before_those_of_the_log(table: Table) -> None:
    log = "BIOS-e820: [mem 0x000000007a000000-0x000000007a00ffff] reserved\n" + fault("00:14.0")
    (group,) = read_log(log.splitlines()).faults
    assert context(log).in_reserved_memory(group)
    facts = read_log(log.splitlines()).facts
    assert not Context(facts, reserved_memory=RangeSet()).in_reserved_memory(group)


def test_xen_prints_what_explains_its_fault() -> None:
    log = (
        "(XEN)  0000000000100000 - 0000000080000000 (usable)\n"
        '(XEN) [VT-D]  RMRR address range 7a000000..7a00ffff not in reserved memory; need "x"?\n'
        + fault("00:02.0")
    )
    (group,) = read_log(log.splitlines()).faults
    (hit,) = context(log).regions(group)
    assert (hit.base, hit.limit, hit.is_reserved) == (0x7A000000, 0x7A00FFFF, False)


@pytest.mark.parametrize(
    "region",
    [
        "(XEN) [VT-D]dmar.c:615:   RMRR region: base_addr 7a000000 end_addr 7a00ffff",
        "dmar3 ctx pci0:2:0 RMRR [0x7a000000, 0x7a00ffff]",
    ],
)
def test_other_systems_name_the_regions_of_the_table(region: str) -> None:
    log = f"{region}\n{fault('00:02.0')}"
    (group,) = read_log(log.splitlines()).faults
    (hit,) = context(log).regions(group)
    assert (hit.base, hit.limit) == (0x7A000000, 0x7A00FFFF)


def test_a_listing_is_gone_through_once_whatever_the_number_of_faults() -> None:
    of_log = context("", None, LSPCI)
    assert of_log.pci is not None
    with patch.object(PciTree, "alias", autospec=True, side_effect=PciTree.alias) as alias:
        assert [of_log.alias(Bdf.parse(f"{bus:02x}:00.0")) for bus in range(256)] == [[]] * 256
    assert alias.call_count == len(of_log.pci.functions)


def test_no_alias_is_claimed_from_capabilities_that_were_not_shown() -> None:
    (group,) = read_log([fault("00:1c.0")]).faults
    assert group.source is not None
    assert context("", None, NO_CAPABILITIES).alias(group.source) is None
    assert context("", None, LSPCI).alias(group.source) == []
    assert context("").alias(group.source) is None


def test_a_ghost_is_the_device_that_sends_with_its_id() -> None:
    (group,) = read_log([fault("07:00.1")]).faults
    assert group.source is not None
    for listing in ("07:00.0 0106: 1b4b:9128 (rev 11)\n", LSPCI + "\n07:00.0 0106: 1b4b:9128\n"):
        assert context("", None, listing).alias(group.source) == [Bdf.parse("07:00.0")]
    others = context("", None, "07:00.0 0106: 1b4b:9128\n")
    assert others.alias(Bdf.parse("07:00.2")) is None


def test_a_table_of_another_machine_is_told(table: Table) -> None:
    log = read_log(
        [
            "DMAR: dmar0: reg_base_addr fec10000 ver 1:0 cap 1c0000c40660462 ecap f0505e",
            "DMAR: RMRR base: 0x0000001a000000 end: 0x0000001a00ffff",
        ]
    )
    found = list(contradictions(log, Context(log.facts, table)))
    assert [each.weight for each in found] == [Weight.PROBLEM, Weight.NOTICE]
    assert "0xfec10000" in (found[0].meaning or "")
    entry = read_log(["DMAR-IR: IOAPIC id 9 under DRHD base  0xfed91000 IOMMU 1"])
    (stranger,) = contradictions(entry, Context(entry.facts, table))
    assert "IOAPIC 9 under 0xfed91000" in (stranger.meaning or "")
    fitting = read_log(["DMAR: DRHD base: 0x000000fed90000 flags: 0x0"])
    assert not list(contradictions(fitting, Context(fitting.facts, table)))
    assert not list(contradictions(log, Context(log.facts)))


def test_facts_of_any_text_are_read(tmp_path: Path) -> None:
    lines = [
        "BIOS-e820: [mem 0xffff-0x0] reserved", "DMAR: RMRR base: 0xff end: 0x0",
        "pci 0000:00:1c.0: PCI bridge to [bus ff]", "pci 0000:ff:ff.7: [8086:1] type 00 class 0",
        "IOMMU: Setting identity map for device xyz [0x0 - 0x1]", "Linux version 6.1.0-x",
    ]  # fmt: skip
    facts = read_log(lines).facts
    assert facts.kernel == "6.1.0"
    assert not facts.regions
