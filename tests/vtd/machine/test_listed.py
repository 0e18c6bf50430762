"""A machine described from what lspci and its DMAR table say of it is that machine again."""

from __future__ import annotations

from hypothesis import given, settings

from devices.source_id import Bdf
from tests.support.machine_strategies import machines
from vtd.dmar.diff import diff
from vtd.dmar.listing import parse_pci_tree
from vtd.dmar.pci_tree import PciFunction, PciTree, SrIov
from vtd.dmar.table import Table
from vtd.machine.assembly import Assembly, assemble
from vtd.machine.description import Machine, read_machine
from vtd.machine.listed import describe_listing
from vtd.machine.writing import write_machine

VMD = """
[[unit]]
base = 0xfed90000
profile = "qemu"
devices = ["vmd"]
[[unit]]
base = 0xfed91000
profile = "qemu"
include_all = true
[[vmd]]
name = "vmd"
at = "00:0e.0"
domain = 0x10000
[[bridge]]
name = "port"
at = "10000:00:1c.0"
kind = "root_port"
buses = "e1"
[[function]]
name = "disk"
at = "port/00.0"
bus_master = true
[[function]]
name = "other"
at = "00:03.0"
"""


def lspci(assembly: Assembly) -> str:
    """What ``lspci -Dxxxx`` prints of the machine."""
    topology = assembly.platform.topology
    lines = []
    for segment in sorted({bus.segment for bus in topology.roots}):
        for function in topology.functions(segment):
            lines.append(f"{topology.bdf(function)} Device")
            config = function.config.dump()
            lines += [f"{at:02x}: {config[at : at + 16].hex(' ')}" for at in range(0, 4096, 16)]
            lines.append("")
    return "\n".join(lines)


def who(assembly: Assembly) -> dict[Bdf, tuple[int, tuple[int, ...]]]:
    """Unit and requester ids of every function."""
    topology, scopes = assembly.platform.topology, assembly.platform.scopes
    found: dict[Bdf, tuple[int, tuple[int, ...]]] = {}
    for segment in {bus.segment for bus in topology.roots}:
        for function in topology.functions(segment):
            owner = scopes.owner(topology.bdf(function))
            assert owner is not None
            found[topology.bdf(function)] = owner.unit.register_base, topology.aliases(function)
    return found


def again(assembly: Assembly, tree: PciTree, table: Table | None) -> Assembly:
    """The machine built from what is listed of another one, by way of a file."""
    listed = describe_listing(tree, table, assembly.surroundings.registers)
    assert listed.notes == [] or table is None
    return assemble(read_machine(write_machine(listed.machine)))


@given(machines())
@settings(max_examples=15)
def test_configuration_space_table_and_registers_give_the_machine(machine: Machine) -> None:
    assembly = assemble(machine)
    built = again(assembly, parse_pci_tree(lspci(assembly)), assembly.table)
    assert who(built) == who(assembly)
    changes = diff(assembly.table, built.table)
    assert [str(each) for each in changes if "ATSR" not in str(each)] == []
    for each in built.units:
        (original,) = (one for one in assembly.units if one.unit.base == each.unit.base)
        assert each[1:] == original[1:]


@given(machines())
@settings(max_examples=5)
def test_without_a_table_there_is_one_unit_and_that_is_told(machine: Machine) -> None:
    assembly = assemble(machine)
    listed = describe_listing(parse_pci_tree(lspci(assembly)))
    assert "no DMAR table" in listed.notes[0]
    built = assemble(listed.machine)
    assert {bdf: ids for bdf, (_, ids) in who(built).items()} == {
        bdf: ids for bdf, (_, ids) in who(assembly).items()
    }


def test_the_domain_of_a_vmd_endpoint_carries_its_id_and_belongs_to_its_unit() -> None:
    assembly = assemble(read_machine(VMD))
    topology, functions = assembly.platform.topology, assembly.functions
    disk, vmd = functions["disk"], functions["vmd"]
    assert str(topology.bdf(disk)) == "10000:e1:00.0"
    assert topology.requester_id(disk) == topology.requester_id(vmd)
    unit = assembly.platform.unit_of(disk)
    assert unit is assembly.platform.units[0xFED9_0000]
    assert unit is assembly.platform.unit_of(vmd)
    assembly.platform.memory.add_region(0, 0x1000)
    assert disk.dma.write(0x10, b"unmapped").ok
    vmd.config.write(4, 2, 0)
    assert not disk.dma.write(0x10, b"stopped!").ok
    assert assembly.platform.memory.read(0x10, 8) == b"unmapped"
    assert assembly.surroundings.pci is not None
    built = again(assembly, assembly.surroundings.pci, assembly.table)
    assert who(built) == who(assembly)


def test_bus_numbers_are_kept_and_models_found_by_their_identity() -> None:
    tree = PciTree(
        [
            PciFunction(Bdf.parse("00:1c.0"), class_code=0x0604, secondary_bus=5,
                        subordinate_bus=9, express_type=4, vendor_id=0x8086, device_id=1),
            PciFunction(Bdf.parse("05:00.0"), class_code=0x0108, express_type=0,
                        vendor_id=0x1B36, device_id=0x10),
        ]
    )  # fmt: skip
    machine = describe_listing(tree).machine
    assert [str(each.buses) for each in machine.bridges] == ["05-09"]
    assert [each.model for each in machine.functions] == ["nvme"]
    assembly = assemble(machine)
    assert sorted(map(str, who(assembly))) == ["0000:00:1c.0", "0000:05:00.0"]


def test_the_virtual_functions_of_a_controller_are_where_they_were() -> None:
    tree = PciTree(
        [
            PciFunction(Bdf.parse("00:01.0"), class_code=0x0604, secondary_bus=1,
                        subordinate_bus=2, express_type=4, vendor_id=0x8086, device_id=1),
            PciFunction(Bdf.parse("01:00.0"), class_code=0x0200, express_type=0,
                        vendor_id=0x8086, device_id=0x10C9,
                        sriov=SrIov(offset=0x180, stride=2, number=3, total=7)),
            PciFunction(Bdf.parse("00:02.0"), class_code=0x0604, secondary_bus=3,
                        subordinate_bus=3, express_type=4, vendor_id=0x8086, device_id=1),
            PciFunction(Bdf.parse("03:00.0"), class_code=0x0108, express_type=0,
                        vendor_id=0x1B36, device_id=0x10,
                        sriov=SrIov(offset=1, stride=0x100, number=0, total=64)),
        ]
    )  # fmt: skip
    assembly = assemble(describe_listing(tree).machine)
    ids = sorted(map(str, who(assembly)))
    assert ids == [
        "0000:00:01.0", "0000:00:02.0", "0000:01:00.0", "0000:02:10.0", "0000:02:10.2",
        "0000:02:10.4", "0000:03:00.0",
    ]  # fmt: skip


def test_a_model_that_cannot_have_its_virtual_functions_there_is_a_stand_in() -> None:
    tree = PciTree(
        [
            PciFunction(Bdf.parse("00:03.0"), class_code=0x00FF, express_type=0, vendor_id=0x1234,
                        device_id=0x11E8, sriov=SrIov(offset=8, stride=0x100, number=1, total=2)),
            PciFunction(Bdf.parse("00:05.0"), class_code=0x0108, express_type=0, vendor_id=0x1B36,
                        device_id=0x10, sriov=SrIov(offset=1, stride=1, number=2, total=3)),
        ]
    )  # fmt: skip
    listed = describe_listing(tree)
    assert [each.model for each in listed.machine.functions] == ["inert", "nvme"]
    assert "0000:00:03.0: edu can't have such virtual functions" in listed.notes
    ids = sorted(map(str, who(assemble(listed.machine))))
    assert ids == [f"0000:00:{each}" for each in ("03.0", "04.0", "05.0", "05.1", "05.2")]
