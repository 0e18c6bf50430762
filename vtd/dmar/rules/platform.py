"""Rules K: the table against other data of the platform (memory map, ACPI tables, PCI, registers).

A rule finds nothing when the data it needs was not given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from devices.source_id import Bdf, SourceId
from vtd.dmar.pci_tree import NTB_CLASS, PciTree
from vtd.dmar.platform_data import PlatformData, UnitRegisters
from vtd.dmar.records import (
    FIXED_PART,
    Andd,
    Atsr,
    DeviceScope,
    Drhd,
    Place,
    Rhsa,
    Rmrr,
    Satc,
    padded_name,
)
from vtd.dmar.rules.rule import Hits, platform_rule
from vtd.dmar.scopes import Scopes
from vtd.dmar.table import Table
from vtd.severity import ERROR, WARNING


@platform_rule(
    "DMAR-K01",
    ERROR,
    "every page of a region is reserved in the memory map",
    "8.4",
    "memory map",
    linux='"No firmware reserved region can cover this RMRR", "bad RMRR"; uses the region anyway',
)
def region_not_reserved(table: Table, platform: PlatformData) -> Hits:
    """Otherwise the system hands out memory that devices write to. Seen on Microsoft Surface.

    Linux wants the whole range in one entry of type reserved or, since 2022, ACPI NVS.
    """
    if platform.reserved_memory is None:
        return
    for each in table.all(Rmrr):
        if each.limit > each.base and not platform.reserved_memory.holds(each.base, each.end):
            message = f"region 0x{each.base:x}-0x{each.limit:x} is not reserved in the memory map"
            yield each.place("base"), message


def _listed(table: Table, type: int) -> Iterator[DeviceScope]:
    return (entry for unit in table.units for entry in unit.scopes if entry.type == type)


@platform_rule(
    "DMAR-K02",
    ERROR,
    "with INTR_REMAP every I/O APIC of the MADT is listed",
    "8.3.1.1",
    "MADT",
    judges_absence=True,
    linux='"ioapic N has no mapping iommu, interrupt remapping will be disabled"',
)
def io_apic_not_listed(table: Table, platform: PlatformData) -> Hits:
    """Interrupts of an I/O APIC without a known source-id can't be let through."""
    if platform.io_apics is None or not table.header.flags.intr_remap:
        return
    listed = {entry.enumeration_id for entry in _listed(table, DeviceScope.IOAPIC)}
    for number in sorted(platform.io_apics - listed):
        yield table.header.place("flags"), f"I/O APIC {number} of the MADT is listed by no unit"


@platform_rule("DMAR-K03", WARNING, "a listed I/O APIC exists in the MADT", "8.3.1.1", "MADT")
def io_apic_unknown(table: Table, platform: PlatformData) -> Hits:
    """The entry is left over from another board, or its id is wrong."""
    for entry in _listed(table, DeviceScope.IOAPIC):
        if platform.io_apics is not None and entry.enumeration_id not in platform.io_apics:
            yield entry.place(), f"the MADT has no I/O APIC {entry.enumeration_id}"


@platform_rule(
    "DMAR-K04", WARNING, "a listed HPET number exists in an HPET table", "8.3.1.2", "HPET table"
)
def hpet_unknown(table: Table, platform: PlatformData) -> Hits:
    """The number is wrong. Whether the block can send messages only its registers tell."""
    for entry in _listed(table, DeviceScope.MSI_CAPABLE_HPET):
        if platform.hpets is not None and entry.enumeration_id not in platform.hpets:
            yield entry.place(), f"no HPET table has number {entry.enumeration_id}"


@platform_rule(
    "DMAR-K05", WARNING, "the proximity domain of an RHSA exists in the SRAT", "8.6", "SRAT"
)
def domain_unknown(table: Table, platform: PlatformData) -> Hits:
    """Software can't place the memory of the unit near it."""
    domains = platform.proximity_domains
    for each in table.all(Rhsa):
        if domains is not None and each.proximity_domain not in domains:
            message = f"the SRAT has no proximity domain {each.proximity_domain}"
            yield each.place("proximity_domain"), message


@platform_rule(
    "DMAR-K06",
    WARNING,
    "PCI entries name functions that exist, endpoints as type 1 and bridges as type 2",
    "8.3.1",
    "PCI tree",
    linux='"Device scope type does not match"',
    xen="drops an RMRR none of whose devices exists",
    fwts='"DevScopeDevNotFound", "DevScopeTypeNoMatch"',
)
def function_mismatch(table: Table, platform: PlatformData) -> Hits:
    """The entry is left over from another board, or the device is switched off or hidden.

    Non-transparent bridges (class 0680h) may be listed as bridges.
    """
    if platform.pci is None:
        return
    scopes = Scopes(table, platform.pci)
    for each, entry in table.entries:
        if not entry.is_pci or not entry.path:
            continue
        bdf = scopes.resolve(each.segment, entry)
        function = platform.pci.functions.get(bdf) if bdf else None
        listed_as_bridge = entry.type == DeviceScope.PCI_SUB_HIERARCHY
        if function is None:
            if not _leads_into_the_dark(platform.pci, each.segment, entry):
                yield entry.place(), f"{entry} does not exist"
        elif function.is_bridge is None or function.class_code == NTB_CLASS:
            continue
        elif listed_as_bridge != function.is_bridge:
            kind = "a bridge" if function.is_bridge else "no bridge"
            yield entry.place(), f"{entry} is {kind}"


def _leads_into_the_dark(pci: PciTree, segment: int, entry: DeviceScope) -> bool:
    """Whether the path goes over a function whose buses the listing does not show."""
    bus = entry.start_bus
    for device, function in entry.path[:-1]:
        if device > 31 or function > 7:
            return False
        above = pci.functions.get(Bdf(segment, SourceId.of(bus, device, function)))
        if above is None:
            return False
        if above.secondary_bus is None:
            return above.is_bridge is not False
        bus = above.secondary_bus
    return False


@platform_rule(
    "DMAR-K07",
    ERROR,
    "a declared ACPI object exists",
    "8.7",
    "names of ACPI objects",
    linux='"Failed to find handle for ACPI object"',
)
def object_unknown(table: Table, platform: PlatformData) -> Hits:
    """The device can't be matched to its source-id, so its requests are blocked."""
    for each in table.all(Andd):
        name = each.object_name
        if platform.namespace is not None and padded_name(name) not in platform.namespace:
            yield each.name_place, f"there is no ACPI object {name}"


def _read(table: Table, platform: PlatformData) -> Iterator[tuple[Drhd, UnitRegisters]]:
    """Units whose registers were given."""
    for unit in table.units:
        registers = (platform.registers or {}).get(unit.register_base)
        if registers is not None:
            yield unit, registers


def _answering(table: Table, platform: PlatformData) -> list[tuple[Drhd, UnitRegisters]]:
    return [(unit, read) for unit, read in _read(table, platform) if read.answers]


@platform_rule(
    "DMAR-K08",
    ERROR,
    "the registers of a unit answer",
    "8.3",
    "CAP and ECAP",
    linux='"DMAR reported at address X returns all ones!", gives up',
)
def no_answer(table: Table, platform: PlatformData) -> Hits:
    """All ones means that no hardware is there: the base is wrong, or the unit is switched off."""
    for unit, registers in _read(table, platform):
        if not registers.answers:
            message = f"registers at 0x{unit.register_base:x} read as all ones"
            yield unit.place("register_base"), message


@platform_rule(
    "DMAR-K09",
    ERROR,
    "INTR_REMAP is set if a unit has IRREQ, X2APIC_OPT_OUT clear if one has EIMER",
    "8.1",
    "CAP and ECAP",
)
def flags_against_ecap(table: Table, platform: PlatformData) -> Hits:
    """The hardware demands interrupt remapping, or x2APIC mode, that the table denies."""
    flags = table.header.flags
    for unit, registers in _answering(table, platform):
        base = unit.register_base
        if registers.ecap.irreq and not flags.intr_remap:
            yield table.header.place("flags"), f"the unit at 0x{base:x} requires INTR_REMAP"
        if registers.ecap.eimer and flags.x2apic_opt_out:
            yield table.header.place("flags"), f"the unit at 0x{base:x} rules out X2APIC_OPT_OUT"


@platform_rule(
    "DMAR-K10",
    WARNING,
    "the register set covers the fault records and IOTLB registers",
    "8.3",
    "CAP and ECAP",
    windows="did not boot on boards whose Size was wrong",
)
def size_too_small(table: Table, platform: PlatformData) -> Hits:
    """CAP.FRO, CAP.NFR and ECAP.IRO say where those registers are."""
    for unit, registers in _answering(table, platform):
        if registers.end > unit.register_bytes:
            message = f"registers reach 0x{registers.end:x}, Size covers 0x{unit.register_bytes:x}"
            yield unit.place("size"), message


@platform_rule(
    "DMAR-K11",
    WARNING,
    "there is an ATSR or SATC only if some unit supports Device-TLBs",
    "8.5, 8.8",
    "CAP and ECAP of all units",
)
def no_device_tlb(table: Table, platform: PlatformData) -> Hits:
    """Without ECAP.DT translation requests of devices are refused."""
    known = _answering(table, platform)
    if len(known) < len(table.units) or any(read.ecap.dt for _, read in known):
        return
    for each in (*table.all(Atsr), *table.all(Satc)):
        yield each.place(), f"{each.name}, but no unit supports Device-TLBs"


@platform_rule(
    "DMAR-K14",
    ERROR,
    "every unit takes guest addresses as wide as the host's",
    "11.4.2",
    "CAP and ECAP",
)
def width_against_mgaw(table: Table, platform: PlatformData) -> Hits:
    """CAP.MGAW has to be at least the host address width: identity mappings would not fit."""
    width = table.header.address_bits
    for unit, registers in _answering(table, platform):
        if registers.cap.mgaw + 1 < width:
            guest = f"the unit at 0x{unit.register_base:x} takes {registers.cap.mgaw + 1} bits"
            place = table.header.place("host_address_width")
            yield place, f"the host has addresses of {width} bits, {guest}"


@platform_rule(
    "DMAR-K15",
    WARNING,
    "a unit has a domain-id for every function that it covers",
    "11.4.2",
    "CAP and ECAP, and PCI tree",
)
def too_few_domain_ids(table: Table, platform: PlatformData) -> Hits:
    """CAP.ND: with fewer, functions have to share address spaces, or some get none."""
    if platform.pci is not None:
        scopes = Scopes(table, platform.pci)
        yield from short_of_domain_ids(scopes, platform.pci.functions, platform.registers or {})


def short_of_domain_ids(
    scopes: Scopes, functions: Iterable[Bdf], registers: Mapping[int, UnitRegisters]
) -> Hits:
    """Units of ``registers`` that cover more functions than they have domain-ids."""
    owners = (scopes.owner(bdf) for bdf in functions)
    counts = Counter(owner.unit.register_base for owner in owners if owner is not None)
    for unit in scopes.table.units:
        read = registers.get(unit.register_base)
        if read is not None and read.answers and counts[unit.register_base] > read.domain_ids:
            message = f"{counts[unit.register_base]} functions, {read.domain_ids} domain-ids"
            yield unit.place(), message


@platform_rule(
    "DMAR-K12",
    ERROR,
    "every PCI segment with functions has a unit",
    "8.3",
    "PCI tree",
    judges_absence=True,
    linux="finds no unit for the devices and leaves them without translation",
)
def functions_without_unit(table: Table, platform: PlatformData) -> Hits:
    """DMA and interrupts of devices in such a segment are not remapped.

    Domains above ffffh are no segments: their requests carry the id of a VMD endpoint.
    """
    if platform.pci is None:
        return
    covered = {unit.segment for unit in table.units}
    for segment in sorted(platform.pci.segments - covered):
        count = sum(bdf.segment == segment for bdf in platform.pci.functions)
        functions = "1 function" if count == 1 else f"{count} functions"
        message = f"segment {segment} has {functions} in the PCI tree and no unit"
        yield Place(FIXED_PART, 0), message


@platform_rule(
    "DMAR-K16",
    WARNING,
    "every function of a segment that has units is under one",
    "8.3",
    "PCI tree",
    judges_absence=True,
    linux="leaves it without translation",
)
def function_without_unit(table: Table, platform: PlatformData) -> Hits:
    """Its DMA and interrupts go past all units. Bridges are left out: they rarely send anything."""
    if platform.pci is None:
        return
    covered = {unit.segment for unit in table.units}
    scopes = Scopes(table, platform.pci)
    for bdf, function in sorted(platform.pci.functions.items()):
        known = bdf.segment in covered and function.is_bridge is False
        if known and scopes.owner(bdf) is None and not scopes.undecided(bdf, Drhd):
            yield Place(FIXED_PART, 0), f"{bdf} is under no unit"


@platform_rule(
    "DMAR-K13",
    WARNING,
    "the start bus of a PCI entry is a root bus",
    "8.3.1",
    "PCI tree",
    linux='"RMRR entry for device X is broken - applying workaround"; only for paths of one pair',
)
def start_bus_behind_bridge(table: Table, platform: PlatformData) -> Hits:
    """A path starts below a host bridge: other buses get their numbers from software.

    Seen on HPE servers and others, which give the bus of the device itself.
    """
    if platform.pci is None:
        return
    scopes = Scopes(table, platform.pci)
    for each, entry in table.entries:
        if not entry.is_pci or not entry.path:
            continue
        bridge = platform.pci.bridge_above(Bdf(each.segment, SourceId.of(entry.start_bus, 0, 0)))
        if bridge is None:
            continue
        message = f"{entry}: bus {entry.start_bus:02x} is no root bus but behind {bridge}"
        bdf = scopes.resolve(each.segment, entry)
        if bdf is not None:
            root, steps = platform.pci.path(bdf)
            way = "/".join(f"{device:02x}.{function:x}" for device, function in steps)
            message += f", the path is {way} from bus {root:02x}"
        yield entry.place(), message
