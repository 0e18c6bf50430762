"""Machines out of descriptions: who remaps whom, what the table says, and what can't be."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from devices.ats import AtsAgent
from devices.capabilities import AtsControl
from devices.models import MODELS
from devices.models.edu import Edu
from devices.source_id import Bdf, SourceId
from devices.topology import Bridge
from pagetables.build import FramePool
from tests.support.machine_strategies import damaged_documents, machines
from vtd.dmar.rules import Severity, validate
from vtd.dmar.table import Table
from vtd.machine.assembly import assemble
from vtd.machine.description import Machine, Slot, read_machine
from vtd.machine.reading import MachineError
from vtd.machine.writing import toml_text, write_machine
from vtd.software.driver import Driver
from vtd.unit.registers.capabilities import PROFILES


class Slow(Edu):
    """An edu device under another name."""


UNIT = '[[unit]]\nbase = 0xfed90000\nprofile = "qemu"\ninclude_all = true\n'
PORT = '[[bridge]]\nname = "port"\nat = "00:1c.0"\nkind = "root_port"\n'


def expected_unit(machine: Machine, name: str) -> int:
    """The base of the unit of a function: its own entry, the nearest bridge's, or the rest."""
    listed = {each: unit.base for unit in machine.units for each in unit.devices}
    places = {bridge.name: bridge.at for bridge in machine.bridges}
    places |= {function.name: function.at for function in machine.functions}
    for switch in machine.switches:
        places[switch.name] = switch.at
        for port in range(switch.ports):
            places[f"{switch.name}.{port}"] = Slot(switch.name, port, 0)
    if name in listed:
        return listed[name]
    above = places[name].bus
    while isinstance(above, str):
        if above in listed:
            return listed[above]
        above = places[above].bus
    return next(unit.base for unit in machine.units if unit.include_all)


@given(machines())
@settings(max_examples=40)
def test_each_function_is_remapped_by_the_unit_that_its_description_names(machine: Machine) -> None:
    assembly = assemble(machine)
    platform = assembly.platform
    for name, function in assembly.functions.items():
        base = expected_unit(machine, name)
        assert platform.unit_of(function) is platform.units[base]
        if function.sriov is not None:
            assert len(function.sriov.functions) == 2
            for virtual in function.sriov.functions:
                assert platform.unit_of(virtual) is platform.units[base]


@given(machines())
@settings(max_examples=40)
def test_the_table_breaks_no_rule_and_the_text_of_a_machine_gives_it_back(machine: Machine) -> None:
    assembly = assemble(machine)
    data = assembly.table.pack()
    assert Table.parse(data) == assembly.table
    findings = validate(data, assembly.surroundings)
    assert [each for each in findings if each.severity is Severity.ERROR] == []
    assert read_machine(write_machine(machine)) == machine


@given(damaged_documents())
@settings(max_examples=200)
def test_a_damaged_description_is_a_machine_or_is_named(document: dict[str, Any]) -> None:
    try:
        machine = read_machine(toml_text(document), "file.toml")
        assemble(machine, file="file.toml")
    except MachineError as error:
        assert error.lines
        assert all(each.startswith("file.toml:") and "\n" not in each for each in error.lines)


WRONG = {
    "loop": (
        UNIT + '[[bridge]]\nname = "a"\nat = "b/00.0"\nkind = "pci_to_pci"\n'
        '[[bridge]]\nname = "b"\nat = "a/00.0"\nkind = "pci_to_pci"\n',
        ["m:5: bridge a: at: a is behind itself", "m:9: bridge b: at: b is behind itself"],
    ),
    "twice": (
        UNIT + '[[function]]\nname = "x"\nat = "00:02.0"\n[[function]]\nat = "0000:00:02.0"\n',
        ["m:8: function 2: at: 0000:00:02.0 is taken by x"],
    ),
    "no ports": (
        UNIT + PORT + '[[switch]]\nname = "s"\nat = "port/00.0"\nports = 0\n',
        ["m:9: switch s: a switch without ports"],
    ),
    "VF beyond": (
        UNIT + '[[function]]\nname = "f"\nat = "ff:02.0"\n'
        "sriov = { total = 4, first_offset = 0x80, stride = 0x40 }\n",
        ["m:5: function f: sriov: virtual functions need bus 0x100, the last one is 0xff"],
    ),
    "VF beyond the buses of its port": (
        UNIT + PORT + 'buses = "01"\n[[function]]\nname = "f"\nat = "port/00.0"\nvfs = 3\n'
        "sriov = { total = 4, first_offset = 0xe0, stride = 0x10 }\n",
        ["m:10: function f: vfs: virtual functions need bus 0x2, the last one behind port is 0x1"],
    ),
    "bridge beyond the buses of its port": (
        UNIT + PORT + 'buses = "01"\n[[switch]]\nname = "s"\nat = "port/00.0"\nports = 1\n',
        ["m:10: switch s: buses: bus: 0x2 is needed, the last one behind the bridge above is 0x1"],
    ),
    "VF on another": (
        UNIT + '[[function]]\nname = "f"\nat = "00:02.0"\n'
        "sriov = { total = 4, first_offset = 8, stride = 8 }\n"
        '[[function]]\nat = "00:04.0"\n',
        [
            "m:5: function f: sriov: a virtual function would be 0000:00:04.0, as 0000:00:04.0 is",
        ],
    ),
    "more VFs than there are": (
        UNIT + '[[function]]\nat = "00:02.0"\nvfs = 1\n',
        ["m:5: function 1: vfs: 1 of 0 virtual functions"],
    ),
    "unknown model": (
        UNIT + '[[function]]\nat = "00:02.0"\nmodel = "floppy"\n',
        [f"m:5: function 1: model: 'floppy' is none of {', '.join(sorted(MODELS))}"],
    ),
    "unknown parameter": (
        UNIT + '[[function]]\nat = "00:02.0"\nmodel = "edu"\nparameters = { speed = 1 }\n',
        ["m:5: function 1: parameters: speed: no parameter of edu; it has dma_mask"],
    ),
    "parameter refused": (
        UNIT + '[[function]]\nat = "00:02.0"\nmodel = "nvme"\nparameters = { blocks = 0 }\n',
        ["m:5: function 1: parameters: blocks: 0 is not in 1..2^32-1"],
    ),
    "units overlap": (
        UNIT + '[[unit]]\nbase = 0xfed8f000\nsize = 0x2000\nprofile = "qemu"\n',
        ["m:5: unit 2: base: its registers overlap those at 0xfed90000"],
    ),
    "window too small": (
        '[[unit]]\nbase = 0xfed90000\nsize = 0x1000\nprofile = "xeon"\n',
        ["m:1: unit 1: size: 0x1000 is less than the registers need: "],
    ),
    "two that include all": (
        UNIT + UNIT.replace("fed90000", "fed91000"),
        ["m:5: unit 2: include_all: segment 0000 has such a unit"],
    ),
    "memory overlaps": (
        UNIT + "[[memory]]\nstart = 0\nsize = 0x2000\n[[memory]]\nstart = 0x1000\nsize = 0x1000\n",
        ["m:8: memory 2: "],
    ),
    "memory over registers": (
        UNIT + '[[memory]]\nstart = 0\nsize = "4 GiB"\n',
        ["m:1: unit 1: base: its registers overlap the memory from 0x0 on"],
    ),
    "unknown device": (
        UNIT + '[[region]]\nstart = 0x1000\nsize = 0x1000\ndevices = ["x"]\n',
        ["m:5: region 1: devices: there is no x"],
    ),
    "a second device on a link": (
        UNIT + PORT + '[[function]]\nat = "port/01.0"\n',
        ["m:9: function 1: at: device 0x1 of the link of port, which has 0"],
    ),
    "behind no bridge": (
        UNIT + '[[function]]\nname = "x"\nat = "00:02.0"\n[[function]]\nat = "x/00.0"\n',
        ["m:8: function 2: at: x is no bridge"],
    ),
    "capabilities that contradict themselves": (
        UNIT + "set = { ir = 0 }\n",
        ["m:1: unit 1: 11.4.3: MHMV is not 0 without IR"],
    ),
    "no unit": ("", ["m: unit: there is none"]),
    "no TOML": ("[[unit\n", ["m: no TOML: "]),
    "unknown key": (UNIT + "colour = 3\n", ["m:1: unit 1: colour: unknown key; there are base, "]),
    "a domain of no VMD endpoint": (
        UNIT + '[[function]]\nat = "10000:00:02.0"\n',
        ["m:5: function 1: at: domain 10000 belongs to no VMD endpoint"],
    ),
    "a VMD endpoint with a segment of tables": (
        UNIT + '[[vmd]]\nname = "v"\nat = "00:02.0"\ndomain = 1\n',
        ["m:5: vmd v: domain: 0x1 is that of a table, not above ffff"],
    ),
    "a bus number in use": (
        UNIT
        + PORT
        + 'buses = "08"\n[[bridge]]\nname = "b"\nat = "00:1d.0"\nkind = "root_port"\n'
        + 'buses = "07-09"\n',
        ["m:10: bridge b: buses: bus: 0x7 is in use already"],
    ),
    "conventional bridge with ACS": (
        UNIT + '[[bridge]]\nname = "b"\nat = "00:01.0"\nkind = "pci_to_pci"\nacs = true\n',
        ["m:5: bridge b: acs: a conventional bridge has no such capability"],
    ),
    "an address width that no host has": (
        "address_bits = 60\n" + UNIT,
        ["m: address_bits: 60 is not from 12 to 52"],
    ),
    "unknown profile": (
        UNIT.replace("qemu", "cray"),
        [f"m:1: unit 1: profile: 'cray' is none of {', '.join(PROFILES)}"],
    ),
    "neither profile nor registers": (
        "[[unit]]\nbase = 0xfed90000\ncap = 1\n",
        ["m:1: unit 1: version: missing, and there is no profile"],
    ),
    "unknown field": (
        UNIT + "set = { colour = 1 }\n",
        ["m:1: unit 1: set: colour: 1 is no value of a field of that name"],
    ),
    "a field that is no number": (
        UNIT + 'set = { mgaw = "x" }\n',
        ["m:1: unit 1: set: mgaw: 'x' is no value of a field of that name"],
    ),
    "a field that is too large": (
        UNIT + "set = { mgaw = 1000 }\n",
        ["m:1: unit 1: set: mgaw: 1000 is no value of a field of that name"],
    ),
    "registers over each other": (
        UNIT + "set = { fro = 0x10 }\n",
        [
            "m:1: unit 1: 11.4: FRO or IRO puts ExtendedCapability over FaultRecording",
            "m:1: unit 1: 11.4: FRO or IRO puts FaultRecording over GlobalCommand",
            "m:1: unit 1: registers overlap: ",
        ],
    ),
    "a window of no power of two": (
        UNIT + "size = 0x3000\n",
        ["m:1: unit 1: size: 0x3000 is no power of two from 4 KiB to 128 MiB"],
    ),
    "registers beyond the address width": (
        UNIT.replace("0xfed90000", "0x10_0000_0000_0000"),
        ["m:1: unit 1: base: registers up to 0x10000000000fff are beyond the address width"],
    ),
    "ACS enabled that is not there": (
        UNIT + PORT + 'acs = ["sv"]\nacs_enabled = ["rr"]\n',
        ["m:5: bridge port: acs_enabled: rr is not in acs"],
    ),
    "VFs for a model that has its own": (
        UNIT + '[[function]]\nat = "00:02.0"\nmodel = "nic82576"\n'
        "sriov = { total = 4, first_offset = 8, stride = 8 }\n",
        ["m:5: function 1: sriov: nic82576 has its own; see its parameters"],
    ),
    "VFs without numbers": (
        UNIT + '[[function]]\nat = "00:02.0"\n'
        "sriov = { total = 4, first_offset = 0, stride = 0 }\n",
        ["m:5: function 1: sriov: 4 VFs from 0x0 on can't be numbered"],
    ),
    "device-TLBs of no VFs": (
        UNIT + '[[function]]\nat = "00:02.0"\nvf_ats = true\n',
        ["m:5: function 1: vf_ats: there are no virtual functions"],
    ),
    "a second device-TLB": (
        UNIT + '[[function]]\nat = "00:02.0"\nmodel = "dma_engine"\nats = true\n',
        ["m:5: function 1: ats: has a device-TLB already"],
    ),
    "a bus number that leads to another": (
        UNIT + PORT + 'buses = "01"\n[[function]]\nname = "f"\nat = "port/00.0"\n'
        '[[function]]\nname = "g"\nat = "01:00.0"\n',
        ["m:10: function f: at: its bus number makes it 0000:01:00.0, as g is"],
    ),
    "a region for a device of another segment": (
        UNIT + '[[function]]\nname = "f"\nat = "0001:00:02.0"\n'
        '[[region]]\nstart = 0x1000\nsize = 0x1000\ndevices = ["f"]\n',
        ["m:8: region 1: devices: f is not in segment 0000"],
    ),
    "a region beyond the address width": (
        UNIT + '[[function]]\nname = "f"\nat = "00:02.0"\n'
        '[[region]]\nstart = 0xffffffffff000\nsize = 0x2000\ndevices = ["f"]\n',
        ["m:8: region 1: size: reaches beyond 48 address bits"],
    ),
    "an I/O APIC of another segment": (
        UNIT + '[[unit.io_apic]]\nid = 1\nat = "0001:00:1f.0"\n',
        ["m:1: unit 1: io_apic 1: at: not on a root bus of the unit's segment"],
    ),
    "a name twice": (
        UNIT + '[[function]]\nname = "f"\nat = "00:02.0"\n'
        '[[function]]\nname = "f"\nat = "00:03.0"\n',
        ["m:8: function f: name: there is another f"],
    ),
    "a domain of two VMD endpoints": (
        UNIT + '[[vmd]]\nname = "v"\nat = "00:02.0"\ndomain = 0x10000\n'
        '[[vmd]]\nname = "w"\nat = "00:03.0"\ndomain = 0x10000\n',
        [
            "m:5: vmd v: domain: 0x10000 belongs to another one too",
            "m:9: vmd w: domain: 0x10000 belongs to another one too",
        ],
    ),
    "a VMD endpoint behind another": (
        UNIT + '[[vmd]]\nname = "v"\nat = "00:02.0"\ndomain = 0x10000\n'
        '[[vmd]]\nname = "w"\nat = "10000:00:02.0"\ndomain = 0x10001\n',
        ["m:9: vmd w: at: a VMD endpoint in the domain of another one"],
    ),
    "a bridge with a name that is none": (
        UNIT + PORT.replace('"port"', '"a/b"'),
        ["m:5: bridge a/b: name: 'a/b' is no name"],
    ),
    "a function with a name that is none": (
        UNIT + '[[function]]\nname = "a/b"\nat = "00:02.0"\n',
        ["m:5: function a/b: name: 'a/b' is no name"],
    ),
    "more ports than devices": (
        UNIT + PORT + '[[switch]]\nname = "s"\nat = "port/00.0"\nports = 33\n',
        ["m:9: switch s: ports: 33 are more than a bus has devices"],
    ),
    "a switch without a port above": (
        UNIT + '[[switch]]\nname = "s"\nat = "00:02.0"\nports = 1\n',
        ["m:5: switch s: at: upstream_port on a root bus, not behind root_port or downstream_port"],
    ),
    "a switch behind a conventional bridge": (
        UNIT
        + PORT.replace("root_port", "pci_to_pci")
        + '[[switch]]\nname = "s"\nat = "port/00.0"\nports = 1\n',
        ["m:9: switch s: at: upstream_port behind pci_to_pci, not root_port or downstream_port"],
    ),
    "a root port behind another": (
        UNIT + PORT + PORT.replace('"port"', '"q"').replace("00:1c.0", "port/00.0"),
        ["m:9: bridge q: at: root_port behind a bridge, not on a root bus"],
    ),
    "a function inside a switch": (
        UNIT + PORT + '[[switch]]\nname = "s"\nat = "port/00.0"\nports = 1\n'
        '[[function]]\nat = "s/02.0"\n',
        ["m:13: function 1: at: s is an upstream_port: use one of its ports"],
    ),
}


def test_virtual_functions_that_are_off_need_no_buses() -> None:
    text = UNIT + PORT + 'buses = "01"\n[[function]]\nname = "f"\nat = "port/00.0"\nvfs = 2\n'
    text += "sriov = { total = 200, first_offset = 0xe0, stride = 0x10 }\n"
    text += '[[bridge]]\nname = "next"\nat = "00:1d.0"\nkind = "root_port"\nbuses = "02"\n'
    text += '[[function]]\nname = "g"\nat = "next/00.0"\n'
    assembly = assemble(read_machine(text))
    topology, functions = assembly.platform.topology, assembly.functions
    port = functions["port"]
    assert isinstance(port, Bridge)
    assert port.buses.value.subordinate == 1
    assert str(topology.bdf(functions["g"])) == "0000:02:00.0"
    assert functions["f"].sriov is not None
    ids = [str(topology.bdf(each)) for each in functions["f"].sriov.functions]
    assert ids == ["0000:01:1c.0", "0000:01:1e.0"]


@pytest.mark.parametrize(("text", "lines"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named_with_line_and_key(text: str, lines: list[str]) -> None:
    with pytest.raises(MachineError) as raised:
        assemble(read_machine(text, "m"), file="m")
    found = raised.value.lines
    assert len(found) == len(lines)
    assert all(map(str.startswith, found, lines)), found


def test_everything_that_is_wrong_is_named_at_once() -> None:
    text = (
        '[[unit]]\nbase = 5\nprofile = "qemu"\n[[function]]\nat = "x/00.0"\n'
        '[[function]]\nat = "00:01.0"\nmodel = "y"\n'
    )
    with pytest.raises(MachineError) as raised:
        assemble(read_machine(text))
    assert len(raised.value.lines) == 3


def test_a_machine_does_dma_through_its_units_and_bridges() -> None:
    text = (
        UNIT + PORT + "[[memory]]\nstart = 0\nsize = 0x1000000\n"
        '[[switch]]\nname = "s"\nat = "port/00.0"\nports = 2\nacs = true\n'
        '[[function]]\nname = "f"\nat = "s.1/00.0"\nvfs = 1\nbus_master = true\n'
        "sriov = { total = 2, first_offset = 0x80, stride = 2 }\n"
    )
    assembly = assemble(read_machine(text))
    topology, function = assembly.platform.topology, assembly.functions["f"]
    assert function.sriov is not None
    (virtual,) = function.sriov.functions
    assert topology.bdf(virtual) == Bdf(0, SourceId.of(4, 0x10, 0))
    port = assembly.functions["s.1"]
    assert isinstance(port, Bridge) and port.acs is not None
    assert port.acs.control.value == 0b11101  # SV, RR, CR, UF
    unit = assembly.platform.unit_of(function)
    driver = Driver(unit, assembly.platform.memory, FramePool(0x10_0000, 0x20_0000))
    driver.start()
    domain = driver.domain()
    driver.attach(topology.requester_id(virtual), domain)
    domain.map(0x5000, 0x40_0000, 0x1000)
    assert virtual.dma.write(0x5123, b"here").ok
    assert not function.dma.write(0x5123, b"none").ok
    assert assembly.platform.memory.read(0x40_0123, 4) == b"here"


class Greedy(Edu):
    """A model that there is no memory for."""

    def __init__(self, size: int = 0) -> None:
        raise MemoryError


def test_a_model_that_there_is_no_memory_for_is_named() -> None:
    text = UNIT + '[[function]]\nname = "f"\nat = "00:02.0"\nmodel = "greedy"\n'
    with pytest.raises(MachineError) as raised:
        assemble(read_machine(text), models={"greedy": Greedy})
    assert raised.value.lines == (
        "5: function f: parameters: they ask for more memory than there is",
    )


def test_models_of_ones_own_and_a_clock_are_taken() -> None:
    text = UNIT + '[[function]]\nname = "f"\nat = "00:02.0"\nmodel = "slow"\n'
    assembly = assemble(read_machine(text), models={"slow": Slow})
    function = assembly.functions["f"]
    assert isinstance(function, Slow)
    assert function.clock is assembly.clock


def test_any_function_of_a_description_can_have_a_device_tlb() -> None:
    """Translations of a function and of a virtual one are dropped when software says so."""
    text = (
        '[[unit]]\nbase = 0xfed90000\nprofile = "xeon"\ninclude_all = true\n'
        "[[memory]]\nstart = 0\nsize = 0x1000000\n"
        + PORT
        + '[[function]]\nname = "f"\nat = "port/00.0"\nvfs = 1\nbus_master = true\n'
        "ats = { capacity = 4 }\nvf_ats = true\n"
        "sriov = { total = 2, first_offset = 8, stride = 2 }\n"
    )
    assembly = assemble(read_machine(text))
    assert [each.name for each in assembly.table.structures] == ["DRHD", "ATSR"]
    platform, function = assembly.platform, assembly.functions["f"]
    assert function.sriov is not None
    driver = Driver(platform.unit_of(function), platform.memory, FramePool(0x10_0000, 0x20_0000))
    driver.start()
    for number, each in enumerate((function, *function.sriov.functions)):
        assert isinstance(each.client, AtsAgent)
        domain = driver.domain()
        driver.attach(platform.topology.requester_id(each), domain, ats=True)
        each.client.ats.control.value = AtsControl.of(enable=1)
        domain.map(0x5000, 0x40_0000 + 0x1000 * number, 0x1000)
        assert each.dma.write(0x5000, b"here").ok
        assert len(each.client.tlb) == 1
        domain.unmap(0x5000, 0x1000)
        assert len(each.client.tlb) == 0
        assert not each.dma.write(0x5000, b"gone").ok
        assert platform.memory.read(0x40_0000 + 0x1000 * number, 4) == b"here"
