"""The 82576 behind a unit: what SR-IOV isolates and VMDq does not, forks, and machine files."""

from __future__ import annotations

from pathlib import Path

from hypothesis import find, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from devices.dma import READ, WRITE
from devices.models.nic82576.controller import Nic82576
from devices.network.capture import CapturedFrame, write_pcap
from devices.network.link import Sink
from devices.topology import Topology
from pagetables.build import FramePool
from pagetables.memory import PhysicalMemory
from tests.devices.models.nic82576.drivers import MiniIgb, Rings
from tests.devices.models.nic82576.machines import SECOND, frame_for, vf_mac
from vtd.cli import main
from vtd.dmar.description import build as build_table
from vtd.layouts.entries import PasidTranslationType as Kind
from vtd.platform import Platform
from vtd.software.driver import Driver
from vtd.unit.registers.capabilities import PROFILES
from vtd.unit.reporting.events import Event, RequestBlocked

TABLE = """
[[structure]]
type = "DRHD"
flags = ["include_pci_all"]
register_base = 0xfed90000
"""
TENANTS = 2
IOVA, SIZE = 0x1_0000, 0x2_0000
TENANT = 0x40_0000
"""Where the memory of the first tenant is; the others' follows, each of ``SIZE`` bytes."""
PATTERN = b"secret of tenant"


class Shared:
    """Two tenants on one port: each a virtual function, or each a pool of VMDq.

    As a virtual function a tenant has a domain of its own, in which its memory is at ``IOVA``. As a
    pool it shares the domain of the port with all others, one after the other from ``IOVA`` on.
    """

    def __init__(self, *, sriov: bool) -> None:
        self.sriov = sriov
        self.memory = PhysicalMemory()
        self.memory.add_region(0, 0x80_0000)
        topology = Topology()
        self.nic = Nic82576()
        topology.add(self.nic, topology.add_root_bus(number=1), 0)
        topology.add_sriov(self.nic.sriov)
        self.nic.config.write(4, 2, 6)
        if sriov:
            self.nic.config.write(0x170, 2, TENANTS)
            self.nic.config.write(0x168, 2, 9)
        self.platform = Platform.build(self.memory, topology, build_table(TABLE), PROFILES["xeon"])
        self.unit = self.platform.unit_of(self.nic)
        driver = Driver(self.unit, self.memory, FramePool(0x10_0000, 0x20_0000), scalable=False)
        driver.start()
        functions = list(self.nic.sriov.functions) if sriov else [self.nic]
        for index, function in enumerate(functions):
            function.config.write(4, 2, 4)
            domain = driver.domain(Kind.SECOND_STAGE, largest=12)
            size = SIZE if sriov else SIZE * TENANTS
            domain.map(IOVA, TENANT + index * SIZE, size, READ | WRITE)
            driver.attach(topology.requester_id(function), domain)
        self.sink = Sink()
        self.nic.attach(self.sink)
        self.nic.config.write(4, 2, 6)
        self.nic.clock.advance(SECOND)
        port = MiniIgb(self.nic, self.memory)
        for offset, value in ((0x0100, 0x0400_803A), (0x0400, 0xA), (0x5818, 3), (0x581C, 7 << 7)):
            port.write(offset, value)
        for pool in range(TENANTS):
            mac = vf_mac(pool)
            port.write(0x5400 + 8 * pool, int.from_bytes(mac[:4], "little"))
            port.write(
                0x5404 + 8 * pool, int.from_bytes(mac[4:], "little") | 1 << 31 | 1 << 18 + pool
            )
            port.set(0x5AD0 + 4 * pool, 1 << 16)
            port.set(0x0C8C, 1 << pool)
            port.set(0x0C90, 1 << pool)

    def base(self, tenant: int) -> int:
        """The bus address of a tenant's memory."""
        return IOVA + (0 if self.sriov else tenant * SIZE)

    def rings(self, tenant: int) -> Rings:
        """The queue that belongs to a tenant."""
        physical = TENANT + tenant * SIZE
        shift = self.base(tenant) - physical
        if self.sriov:
            bar = self.nic.sriov.functions[tenant].bars[0]
            return Rings(bar, self.memory, physical, 0x2800, 0x3800, shift)
        at = 0x40 * tenant
        return Rings(self.nic.bars[0], self.memory, physical, 0xC000 + at, 0xE000 + at, shift)


def attack(shared: Shared, targets: list[int]) -> tuple[bool, bool]:
    """Tenant 0 names any addresses in its descriptors: was tenant 1 written to, or read?

    Tenant 1 does nothing, so each change of its memory is tenant 0's doing.
    """
    victim = PATTERN * (SIZE // len(PATTERN))
    shared.memory.write(TENANT + SIZE, victim)
    rings = shared.rings(0)
    rings.start()
    for slot, target in enumerate(targets):
        descriptor = target.to_bytes(8, "little") + bytes(8)
        shared.memory.write(rings.rx_ring + 16 * slot, descriptor)
    sent = len(shared.sink.frames)
    for target in targets:
        shared.nic.receive(frame_for(vf_mac(0), 200))
        rings.descriptor(target + 2048, 0x2B30_0000 | 100 | 100 << 46)
        rings.ring_bell()
    told = b"".join(shared.sink.frames[sent:])
    return shared.memory.read(TENANT + SIZE, SIZE) != victim, PATTERN in told


PAGES = (
    st.integers(0, 0x7F).map(lambda page: page << 12)
    | st.integers(0, 0x7FF).map(lambda page: page << 12)
    | st.sampled_from([TENANT + SIZE, IOVA + SIZE, 1 << 39, (1 << 64) - 8192])
)
TARGETS = st.lists(PAGES.filter(lambda page: page != IOVA), min_size=1, max_size=10)
"""Any pages but the one in which tenant 0 has its rings."""


def test_no_virtual_function_reaches_the_memory_of_another() -> None:
    shared = Shared(sriov=True)
    events: list[Event] = []
    shared.unit.subscribe(events.append)
    sender = shared.platform.topology.requester_id(shared.nic.sriov.functions[0])
    own = range(IOVA, IOVA + SIZE)

    @given(targets=TARGETS)
    @settings(max_examples=200)
    def property_holds(targets: list[int]) -> None:
        events.clear()
        assert attack(shared, targets) == (False, False)
        faults = [event for event in events if isinstance(event, RequestBlocked)]
        assert bool(faults) == any(target not in own for target in targets)
        assert all(fault.request.source_id == sender for fault in faults)

    property_holds()


def test_a_pool_of_vmdq_reaches_the_memory_of_another() -> None:
    """The same property, and the smallest address that breaks it: its neighbour's first page."""
    shared = Shared(sriov=False)
    quiet = settings(database=None, derandomize=True)
    found = find(TARGETS, lambda targets: attack(shared, targets)[0], settings=quiet)
    assert found == [IOVA + SIZE]
    assert attack(Shared(sriov=False), found) == (True, True)
    assert attack(Shared(sriov=True), found) == (False, False)


def test_a_fork_has_a_controller_of_its_own() -> None:
    shared = Shared(sriov=True)
    fork = shared.platform.fork()
    theirs = fork.topology.find(shared.platform.topology.bdf(shared.nic))
    assert isinstance(theirs, Nic82576)
    theirs.bars[0].write(0x0028, 4, 7)
    assert (shared.nic.bars[0].read(0x0028, 4), theirs.bars[0].read(0x0028, 4)) == (0, 7)
    theirs.bars[0].write(0x0000, 4, 1 << 26)
    assert shared.nic.bars[0].read(0x0400, 4) == 0xA
    assert theirs.bars[0].read(0x0400, 4) == 0xA404_00F8
    assert len(theirs.sriov.functions) == TENANTS


def test_a_machine_file_with_a_cut_capture_is_wrong_use(tmp_path: Path) -> None:
    capture, file = tmp_path / "cut.pcap", tmp_path / "m.toml"
    capture.write_bytes(write_pcap([CapturedFrame(0, bytes(60))])[:-1])
    file.write_text(
        '[[unit]]\nbase = 0xfed90000\nprofile = "qemu"\ninclude_all = true\n'
        'io_apic = [{ id = 2, at = "00:1e.7" }]\nhpet = [{ id = 0, at = "00:1e.6" }]\n'
        '[[function]]\nat = "00:02.0"\nmodel = "nic82576"\nvfs = 2\n'
        f'parameters = {{ link = "replay:{capture}" }}\n'
    )
    result = CliRunner().invoke(main, ["machine", "check", str(file)])
    assert result.exit_code == 2
    assert f"{capture}: byte 0x18: frame 1 has 60 bytes" in result.stderr
    capture.write_bytes(write_pcap([CapturedFrame(0, bytes(60))]))
    assert CliRunner().invoke(main, ["machine", "check", str(file)]).exit_code == 0
