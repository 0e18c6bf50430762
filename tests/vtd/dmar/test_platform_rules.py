"""The K rules: each one on data that breaks it and on data that does not."""

import pytest

from devices.source_id import Bdf
from vtd.dmar.description import build
from vtd.dmar.memory_map import parse_memory_map
from vtd.dmar.pci_tree import NTB_CLASS, PciFunction, PciTree
from vtd.dmar.platform_data import (
    PlatformData,
    UnitRegisters,
    parse_namespace,
)
from vtd.dmar.rules import RULES, check
from vtd.layouts.registers import Capability, ExtendedCapability

TABLE = build(
    r"""
[header]
flags = ["intr_remap"]
[[structure]]
type = "DRHD"
register_base = 0xfed90000
[[structure.scope]]
type = "pci_endpoint"
path = ["02.0"]
[[structure.scope]]
type = "pci_sub_hierarchy"
path = ["1c.0"]
[[structure.scope]]
type = "ioapic"
enumeration_id = 2
path = ["1f.0"]
[[structure.scope]]
type = "msi_hpet"
enumeration_id = 0
path = ["0f.0"]
[[structure.scope]]
type = "acpi_namespace"
enumeration_id = 1
path = ["15.0"]
[[structure]]
type = "RMRR"
base = 0x7a000000
limit = 0x7a000fff
[[structure.scope]]
type = "pci_endpoint"
path = ["02.0"]
[[structure]]
type = "ATSR"
[[structure.scope]]
type = "pci_sub_hierarchy"
path = ["1c.0"]
[[structure]]
type = "RHSA"
register_base = 0xfed90000
proximity_domain = 1
[[structure]]
type = "ANDD"
device_number = 1
object_name = '\_SB.PCI0.I2C0'
"""
)
BASE = 0xFED90000
OPTED_OUT = build('[header]\nflags = ["x2apic_opt_out"]\n[[structure]]\ntype = "DRHD"\n'
                  f"register_base = {BASE}")  # fmt: skip


def tree(
    *bridges: str, functions: tuple[str, ...] = ("00:02.0", "00:1c.0"), ntb: bool = False
) -> PciTree:
    class_code = NTB_CLASS if ntb else None
    return PciTree(
        PciFunction(
            Bdf.parse(text), class_code=class_code, secondary_bus=1 if text in bridges else None
        )
        for text in functions
    )


def registers(cap: int = 0, ecap: int = 0, ver: int = 0x10) -> dict[int, UnitRegisters]:
    return {BASE: UnitRegisters(Capability(cap), ExtendedCapability(ecap), ver)}


DT = ExtendedCapability.of(dt=1)
IRREQ, EIMER = ExtendedCapability.of(irreq=1, dt=1), ExtendedCapability.of(eimer=1, dt=1)
FAR_RECORDS = Capability.of(fro=0xFF0, nfr=1)
SOUND = {
    "K01": PlatformData(reserved_memory=parse_memory_map("7a000000-7a0fffff : Reserved")),
    "K02": PlatformData(io_apics=frozenset({2})),
    "K03": PlatformData(io_apics=frozenset({2})),
    "K04": PlatformData(hpets=frozenset({0})),
    "K05": PlatformData(proximity_domains=frozenset({0, 1})),
    "K06": PlatformData(pci=tree("00:1c.0")),
    "K07": PlatformData(namespace=parse_namespace("\\_SB_.PCI0.I2C0")),
    "K08": PlatformData(registers=registers(ecap=DT)),
    "K09": PlatformData(registers=registers(ecap=IRREQ)),
    "K10": PlatformData(registers=registers(Capability.of(fro=0xFE0, nfr=1), DT)),
    "K11": PlatformData(registers=registers(ecap=DT)),
    "K14": PlatformData(registers=registers(Capability.of(mgaw=38))),
    "K15": PlatformData(registers=registers(Capability.of(nd=0)), pci=tree("00:1c.0")),
    "K12": PlatformData(pci=tree("00:1c.0")),
    "K13": PlatformData(pci=tree("00:1c.0")),
    "K16": PlatformData(pci=tree("00:1c.0", functions=("00:02.0", "00:1c.0", "01:00.0"))),
}
SEVENTEEN = ("00:1c.0", *(f"01:{number:02x}.0" for number in range(16)))
SIXTEEN = SEVENTEEN[:-1]
ALL_ONES = (1 << 64) - 1
ADDRESS = TABLE.units[0].offset
BROKEN = [
    ("K01", PlatformData(reserved_memory=parse_memory_map("7a000000-7a0007ff : Reserved")), 112),
    ("K02", PlatformData(io_apics=frozenset({2, 3})), 37),
    ("K03", PlatformData(io_apics=frozenset({1})), 80),
    ("K04", PlatformData(hpets=frozenset({1})), 88),
    ("K05", PlatformData(proximity_domains=frozenset({0})), 168),
    ("K06", PlatformData(pci=tree("00:1c.0", functions=("00:1c.0",))), 64),
    ("K06", PlatformData(pci=tree("00:1c.0", "00:02.0")), 64),
    ("K06", PlatformData(pci=tree()), 72),
    ("K07", PlatformData(namespace=frozenset()), 180),
    ("K08", PlatformData(registers=registers(ALL_ONES, ALL_ONES)), 56),
    ("K10", PlatformData(registers=registers(FAR_RECORDS, DT)), 53),
    ("K11", PlatformData(registers=registers()), 136),
    ("K14", PlatformData(registers=registers(Capability.of(mgaw=37))), 36),
    ("K15", PlatformData(registers=registers(), pci=tree("00:1c.0", functions=SEVENTEEN)), 48),
    (
        "K15",
        PlatformData(
            registers=registers(Capability.of(cm=1)), pci=tree("00:1c.0", functions=SIXTEEN)
        ),
        48,
    ),
    ("K12", PlatformData(pci=tree(functions=("0001:00:01.0", "00:02.0"))), 48),
    ("K16", PlatformData(pci=PciTree([PciFunction(Bdf.parse("00:03.0"), header_known=True)])), 48),
]


@pytest.mark.parametrize("rule", SOUND)
def test_sound_data_breaks_no_rule(rule: str) -> None:
    assert check(TABLE, SOUND[rule], {f"DMAR-{rule}"}) == []


@pytest.mark.parametrize(("rule", "data", "offset"), BROKEN)
def test_broken_data_is_reported_where_the_table_is_wrong(
    rule: str, data: PlatformData, offset: int
) -> None:
    findings = check(TABLE, data, {f"DMAR-{rule}"})
    assert findings[0].offset == offset
    assert {each.rule for each in findings} == {f"DMAR-{rule}"}


def test_flags_have_to_agree_with_what_the_hardware_requires() -> None:
    for ecap in (IRREQ, EIMER):
        findings = check(OPTED_OUT, PlatformData(registers=registers(ecap=ecap)), {"DMAR-K09"})
        assert [each.offset for each in findings] == [37]


def test_non_transparent_bridges_may_be_listed_as_bridges() -> None:
    data = PlatformData(pci=tree("00:02.0", "00:1c.0", ntb=True))
    assert check(TABLE, data, {"DMAR-K06"}) == []


def test_every_k_rule_is_shown_broken() -> None:
    shown = {rule for rule, _, _ in BROKEN} | {"K09", "K13"}
    assert {f"DMAR-{rule}" for rule in shown} == {id for id in RULES if id[5] == "K"}


REGION_OF_BUS_3 = build(
    """
[[structure]]
type = "DRHD"
flags = ["include_pci_all"]
register_base = 0xfed90000
[[structure]]
type = "RMRR"
base = 0x7a000000
limit = 0x7a000fff
[[structure.scope]]
type = "pci_endpoint"
start_bus = 3
path = ["00.0"]
"""
)


def test_a_path_that_starts_behind_a_bridge_is_shown_with_the_right_one() -> None:
    """Seen on HPE servers: the bus of the device itself, which software may renumber."""
    port = PciFunction(Bdf.parse("00:03.0"), secondary_bus=3, subordinate_bus=4)
    disk = PciFunction(Bdf.parse("03:00.0"))
    data = PlatformData(pci=PciTree([port, disk]))
    (finding,) = check(REGION_OF_BUS_3, data, {"DMAR-K13"})
    assert finding.offset == REGION_OF_BUS_3.entries[0][1].offset
    assert "behind 0000:00:03.0, the path is 03.0/00.0 from bus 00" in finding.message
    alone = PlatformData(pci=PciTree([disk]))
    assert check(REGION_OF_BUS_3, alone, {"DMAR-K13"}) == []


def test_a_listing_without_headers_or_buses_proves_no_mismatch() -> None:
    """``lspci`` without options shows a class at most."""
    functions = [
        PciFunction(Bdf.parse("00:02.0"), header_known=False),
        PciFunction(Bdf.parse("00:1c.0"), class_code=0x0604, header_known=False),
    ]
    data = PlatformData(pci=PciTree(functions))
    assert check(TABLE, data, {"DMAR-K06"}) == []
    deep = build(
        """
[[structure]]
type = "DRHD"
register_base = 0xfed90000
[[structure.scope]]
type = "pci_endpoint"
path = ["1c.0", "00.0"]
[[structure.scope]]
type = "pci_endpoint"
path = ["1d.0", "00.0"]
"""
    )
    (finding,) = check(deep, data, {"DMAR-K06"})
    assert "1d.0/00.0 does not exist" in finding.message


def test_domains_behind_vmd_are_no_segments() -> None:
    behind = PciFunction(Bdf(0x10000, Bdf.parse("e0:06.0").source_id))
    data = PlatformData(pci=PciTree([*tree().functions.values(), behind]))
    assert check(TABLE, data, {"DMAR-K12"}) == []
