"""Who owns a device: the precedence of VT-d 8.3 over topologies, regions, ATS and interrupts."""

from hypothesis import given
from hypothesis import strategies as st

from devices.source_id import Bdf, SourceId
from vtd.dmar.bridges import Bridges
from vtd.dmar.description import build
from vtd.dmar.records import DeviceScope, Drhd
from vtd.dmar.scopes import Reason, Scopes
from vtd.dmar.table import Table

TABLE = build(
    r"""
[header]
flags = ["intr_remap"]
[[structure]]
type = "DRHD"
register_base = 0x1000
[[structure.scope]]
type = "pci_endpoint"
path = ["02.0"]
[[structure]]
type = "DRHD"
register_base = 0x2000
[[structure.scope]]
type = "pci_sub_hierarchy"
path = ["1c.0"]
[[structure.scope]]
type = "pci_endpoint"
path = ["1d.0", "00.1"]
[[structure]]
type = "DRHD"
register_base = 0x3000
flags = ["include_pci_all"]
[[structure.scope]]
type = "ioapic"
enumeration_id = 2
start_bus = 0xf0
path = ["1f.0"]
[[structure.scope]]
type = "msi_hpet"
path = ["1e.6"]
[[structure.scope]]
type = "acpi_namespace"
enumeration_id = 1
path = ["15.0"]
[[structure]]
type = "DRHD"
register_base = 0x4000
segment = 1
[[structure.scope]]
type = "pci_sub_hierarchy"
path = ["01.0"]
[[structure]]
type = "RMRR"
base = 0x10000
limit = 0x10fff
[[structure.scope]]
type = "pci_endpoint"
path = ["1d.0", "00.1"]
[[structure]]
type = "ATSR"
[[structure.scope]]
type = "pci_sub_hierarchy"
path = ["1c.0"]
[[structure]]
type = "ATSR"
segment = 1
flags = ["all_ports"]
[[structure]]
type = "ANDD"
device_number = 1
object_name = '\_SB.PCI0.I2C0'
[[structure]]
type = "SATC"
flags = ["atc_required"]
[[structure.scope]]
type = "pci_endpoint"
path = ["02.0"]
[[structure]]
type = "SIDP"
[[structure.scope]]
type = "pci_endpoint"
flags = 24
path = ["02.0"]
"""
)
BRIDGES = Bridges(
    {
        Bdf.parse("00:1c.0"): 1,
        Bdf.parse("01:00.0"): 2,
        Bdf.parse("00:1d.0"): 5,
        Bdf.parse("0001:00:01.0"): 1,
    }
)
SCOPES = Scopes(TABLE, BRIDGES)


def owner(text: str) -> tuple[int, Reason] | None:
    found = SCOPES.owner(Bdf.parse(text))
    return (found.unit.register_base, found.reason) if found else None


def test_a_listed_device_belongs_to_the_unit_that_lists_it() -> None:
    assert owner("00:02.0") == (0x1000, Reason.EXPLICIT)
    assert owner("05:00.1") == (0x2000, Reason.EXPLICIT)


def test_devices_below_a_listed_bridge_and_the_bridge_itself_belong_to_its_unit() -> None:
    for text in ("00:1c.0", "01:00.0", "02:1f.7"):
        assert owner(text) == (0x2000, Reason.SUB_HIERARCHY)


def test_other_devices_of_the_segment_belong_to_the_include_all_unit() -> None:
    for text in ("00:14.0", "05:00.0", "80:00.0"):
        assert owner(text) == (0x3000, Reason.INCLUDE_PCI_ALL)


def test_a_segment_without_include_all_leaves_unlisted_devices_without_a_unit() -> None:
    assert owner("0001:01:00.0") == (0x4000, Reason.SUB_HIERARCHY)
    assert owner("0001:00:02.0") is None
    assert owner("0002:00:02.0") is None


def test_without_a_topology_only_the_root_bus_can_be_resolved() -> None:
    found = Scopes(TABLE).owner(Bdf.parse("05:00.1"))
    assert found is not None
    assert found.reason is Reason.INCLUDE_PCI_ALL


def test_regions_and_ats_follow_the_path_over_bridges() -> None:
    assert [each.base for each in SCOPES.regions(Bdf.parse("05:00.1"))] == [0x10000]
    assert SCOPES.regions(Bdf.parse("05:00.0")) == []
    below = SCOPES.root_port_ats(Bdf.parse("02:00.0"))
    assert below is not None
    assert not below.flags.all_ports
    assert SCOPES.root_port_ats(Bdf.parse("00:02.0")) is None
    every = SCOPES.root_port_ats(Bdf.parse("0001:01:00.0"))
    assert every is not None
    assert every.flags.all_ports


def test_translation_caches_and_properties_of_integrated_devices() -> None:
    graphics = Bdf.parse("00:02.0")
    cache, properties = SCOPES.translation_cache(graphics), SCOPES.properties(graphics)
    assert cache is not None
    assert cache.flags.atc_required
    assert properties is not None
    assert properties.atc_hardened
    assert properties.atc_required
    assert SCOPES.translation_cache(Bdf.parse("00:05.0")) is None
    assert SCOPES.properties(Bdf.parse("00:05.0")) is None


def test_io_apics_hpets_and_namespace_devices_have_a_source_id_and_a_unit() -> None:
    apic = SCOPES.io_apic(2)
    assert apic is not None
    assert (apic.source_id, apic.unit.register_base) == (SourceId.parse("f0:1f.0"), 0x3000)
    assert SCOPES.io_apic(3) is None
    assert [each.source_id for each in SCOPES.hpet(0)] == [SourceId.parse("00:1e.6")]
    for name in ("\\_SB.PCI0.I2C0", "\\_SB_.PCI0.I2C0"):
        serial = SCOPES.namespace_device(name)
        assert [each.source_id for each in serial] == [SourceId.parse("00:15.0")]


class WithVirtualFunction(Bridges):
    """A topology where 01:10.0 is a virtual function of 00:02.0."""

    def physical_function(self, bdf: Bdf) -> Bdf | None:
        return Bdf.parse("00:02.0") if bdf == Bdf.parse("01:10.0") else None


def test_a_virtual_function_follows_its_physical_function() -> None:
    scopes = Scopes(TABLE, WithVirtualFunction({Bdf.parse("00:1c.0"): 1}))
    found = scopes.owner(Bdf.parse("01:10.0"))
    assert found is not None
    assert (found.unit.register_base, found.device) == (0x1000, Bdf.parse("00:02.0"))


def test_bridges_in_a_circle_end() -> None:
    loop = Bridges({Bdf.parse("01:00.0"): 2, Bdf.parse("02:00.0"): 1})
    assert len(Scopes(TABLE, loop).bridges_above(Bdf.parse("01:03.0"))) == 2


PAIRS = st.tuples(st.integers(0, 40), st.integers(0, 9))


@given(st.integers(0, 255), st.lists(PAIRS, max_size=3).map(tuple))
def test_resolving_any_path_gives_a_function_or_none(
    bus: int, path: tuple[tuple[int, int], ...]
) -> None:
    entry = DeviceScope.of(1, path, start_bus=bus)
    bdf = SCOPES.resolve(0, entry)
    if len(path) == 1 and path[0][0] < 32 and path[0][1] < 8:
        assert bdf == Bdf(0, SourceId.of(bus, *path[0]))
    elif not path or any(device > 31 or function > 7 for device, function in path):
        assert bdf is None


def test_of_contradicting_entries_the_first_unit_counts() -> None:
    entry = DeviceScope.of(DeviceScope.PCI_ENDPOINT, ((2, 0),))
    units = Drhd(register_base=1, scopes=(entry,)), Drhd(register_base=2, scopes=(entry,))
    found = Scopes(Table(TABLE.header, units)).owner(Bdf.parse("00:02.0"))
    assert found is not None
    assert found.unit is units[0]


HPET_AND_RESERVED = build(
    """
[[structure]]
type = "DRHD"
register_base = 0x1000
[[structure.scope]]
type = 9
path = ["03.0"]
[[structure.scope]]
type = "msi_hpet"
path = ["1f.0"]
[[structure.scope]]
type = "msi_hpet"
path = ["1e.0"]
[[structure]]
type = "DRHD"
register_base = 0x2000
[[structure.scope]]
type = "pci_endpoint"
path = ["1f.0"]
[[structure]]
type = "RMRR"
base = 0x10000
limit = 0x10fff
[[structure.scope]]
type = 9
path = ["03.0"]
[[structure]]
type = "RMRR"
base = 0x20000
limit = 0x20fff
[[structure.scope]]
type = "pci_sub_hierarchy"
path = ["1c.0"]
[[structure]]
type = "SATC"
[[structure.scope]]
type = 9
path = ["03.0"]
[[structure]]
type = "SIDP"
[[structure.scope]]
type = 9
flags = 16
path = ["03.0"]
"""
)


def test_an_entry_of_a_reserved_type_names_no_device() -> None:
    scopes = Scopes(HPET_AND_RESERVED)
    device = Bdf.parse("00:03.0")
    assert scopes.owner(device) is None
    assert scopes.regions(device) == []
    assert scopes.translation_cache(device) is None
    assert scopes.properties(device) is None


def test_an_endpoint_entry_comes_before_a_system_device_with_the_same_source_id() -> None:
    scopes = Scopes(HPET_AND_RESERVED)
    for text, base in (("00:1f.0", 0x2000), ("00:1e.0", 0x1000)):
        found = scopes.owner(Bdf.parse(text))
        assert found is not None
        assert found.unit.register_base == base


def test_a_region_of_a_sub_hierarchy_belongs_to_the_bridge_and_all_below() -> None:
    scopes = Scopes(HPET_AND_RESERVED, BRIDGES)
    for text in ("00:1c.0", "01:00.0", "02:1f.7"):
        assert [each.base for each in scopes.regions(Bdf.parse(text))] == [0x20000]
    assert scopes.regions(Bdf.parse("05:00.0")) == []
