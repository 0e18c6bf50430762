"""Audits and assignment policies: what a table says about protection and about guests."""

from devices.source_id import Bdf
from tests.support.dmar_corpus import clean_tables
from vtd.dmar.assignment import reserved_regions
from vtd.dmar.description import build
from vtd.dmar.edit import add_rmrr, set_flag
from vtd.dmar.memory_map import parse_memory_map
from vtd.dmar.pci_tree import PciFunction, PciTree
from vtd.dmar.platform_data import PlatformData
from vtd.dmar.protection import Verdict, audit
from vtd.dmar.table import Table

TABLE = build(
    """
[header]
flags = ["intr_remap", "dma_ctrl_platform_opt_in"]
[[structure]]
type = "DRHD"
flags = ["include_pci_all"]
register_base = 0xfed90000
"""
)


def verdicts(table: Table, pci: PciTree | None = None) -> dict[str, Verdict]:
    return {each.topic: each.verdict for each in audit(table, pci)}


def test_a_protecting_table_is_good_and_the_rest_is_open() -> None:
    found = verdicts(TABLE)
    assert {topic for topic, verdict in found.items() if verdict is Verdict.GOOD} == {
        "DMA_CTRL_PLATFORM_OPT_IN",
        "interrupt remapping",
        "x2APIC",
        "coverage",
        "regions",
    }
    assert found["use"] is found["firmware"] is Verdict.OPEN


def test_flags_that_weaken_protection_are_bad() -> None:
    for flag, value, topic in (
        ("dma_ctrl_platform_opt_in", False, "DMA_CTRL_PLATFORM_OPT_IN"),
        ("intr_remap", False, "interrupt remapping"),
        ("x2apic_opt_out", True, "x2APIC"),
        ("include_pci_all@0xfed90000", False, "coverage"),
    ):
        assert verdicts(set_flag(TABLE, flag, value))[topic] is Verdict.BAD


def test_a_table_without_units_remaps_nothing() -> None:
    assert verdicts(build("[header]"))["units"] is Verdict.BAD


def test_a_region_of_a_device_behind_a_bridge_may_be_reached_from_outside() -> None:
    inside = add_rmrr(TABLE, 0x1000, 0x1FFF, ["00:14.0"])
    assert verdicts(inside)["regions"] is Verdict.OPEN
    behind = add_rmrr(TABLE, 0x1000, 0x1FFF, ["00:1c.0/00.0"])
    assert verdicts(behind)["regions"] is Verdict.BAD
    bridge = PciFunction(Bdf.parse("00:1c.0"), secondary_bus=1)
    on_bus_1 = add_rmrr(TABLE, 0x1000, 0x1FFF, ["01:00.0"])
    assert verdicts(on_bus_1)["regions"] is Verdict.OPEN
    assert verdicts(on_bus_1, PciTree([bridge]))["regions"] is Verdict.BAD


def test_every_statement_about_bytes_says_which() -> None:
    for known in clean_tables():
        table = Table.parse(known.data)
        for each in audit(table):
            if each.place:
                assert 0 <= each.place.offset < table.size


def test_linux_relaxes_regions_of_usb_and_graphics_only() -> None:
    table = add_rmrr(TABLE, 0x1000, 0x1FFF, ["00:14.0"])
    for class_code, word in ((0x0C03, "allowed"), (0x0300, "allowed"), (0x0200, "refused")):
        pci = PciTree([PciFunction(Bdf.parse("00:14.0"), class_code=class_code)])
        (found,) = reserved_regions(table, PlatformData(pci=pci))
        assert found.policies["Linux"].startswith(word)
    (found,) = reserved_regions(table)
    assert found.policies["Linux"].startswith("refused, unless")


def test_xen_minds_devices_that_share_a_region() -> None:
    shared = reserved_regions(add_rmrr(TABLE, 0x1000, 0x1FFF, ["00:14.0", "00:1d.0"]))
    assert [each.policies["Xen"].startswith("shares") for each in shared] == [True, True]


def test_a_region_of_a_bridge_is_one_of_every_function_below_it() -> None:
    port = PciFunction(Bdf.parse("00:1c.0"), class_code=0x0604, secondary_bus=1)
    usb = PciFunction(Bdf.parse("01:00.0"), class_code=0x0C03)
    text = """
[[structure]]
type = "RMRR"
base = 0x1000
limit = 0x1fff
[[structure.scope]]
type = "pci_sub_hierarchy"
path = ["1c.0"]
"""
    pci = PciTree([port, usb, PciFunction(Bdf.parse("00:02.0"))])
    found = reserved_regions(build(text), PlatformData(pci=pci))
    assert [each.device for each in found] == [port.bdf, usb.bdf]
    assert found[1].policies["Linux"].startswith("allowed")
    (bridge,) = reserved_regions(build(text))
    assert bridge.device == port.bdf


def test_regions_are_compared_with_the_memory_map() -> None:
    table = add_rmrr(TABLE, 0x1000, 0x1FFF, ["00:14.0"])
    for text, reserved in (("1000-1fff : Reserved", True), ("1000-1fff : System RAM", False)):
        data = PlatformData(reserved_memory=parse_memory_map(text))
        assert [each.reserved for each in reserved_regions(table, data)] == [reserved]
    assert [each.reserved for each in reserved_regions(table)] == [None]
