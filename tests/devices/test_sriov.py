"""SR-IOV: routing id arithmetic, NumVFs rules, VF BARs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.function import Identity, PciFunction
from devices.source_id import SourceId
from devices.sriov import Sriov, SriovError
from devices.topology import Topology

IDENTITY = Identity(0x8086, 0x10C9, 0x020000)
CONTROL, NUM_VFS, BAR0 = 0x108, 0x110, 0x124


def make(total: int = 8, first_offset: int = 0x80, stride: int = 2) -> tuple[PciFunction, Sriov]:
    physical = PciFunction(IDENTITY)
    sriov = Sriov(
        physical,
        total_vfs=total,
        first_offset=first_offset,
        stride=stride,
        vf_device_id=0x10CA,
        vf_bars={0: (0x4000, True), 3: (0x4000, True)},
    )
    return physical, sriov


def enable(physical: PciFunction, count: int) -> None:
    physical.config.write(NUM_VFS, 2, count)
    physical.config.write(CONTROL, 2, 0x09)


@given(
    device=st.integers(0, 31),
    first_offset=st.integers(1, 0xFFFF),
    stride=st.integers(1, 0xFFFF),
    count=st.integers(0, 8),
)
def test_routing_id_is_16_bit_arithmetic_that_carries_into_the_bus(
    device: int, first_offset: int, stride: int, count: int
) -> None:
    topology = Topology()
    physical, sriov = make(first_offset=first_offset, stride=stride)
    topology.add(physical, topology.add_root_bus(), device)
    topology.add_sriov(sriov)
    enable(physical, count)
    ids = [topology.bdf(function).source_id for function in sriov.functions]
    expected = [(device << 3) + first_offset + index * stride for index in range(count)]
    assert ids == [number % 0x10000 for number in expected]


def test_the_82576_layout_stays_on_its_bus() -> None:
    topology = Topology()
    physical, sriov = make()
    topology.add(physical, topology.add_root_bus(number=1), 0)
    topology.add_sriov(sriov)
    enable(physical, 8)
    assert str(topology.bdf(sriov.functions[0])) == "0000:01:10.0"
    assert str(topology.bdf(sriov.functions[1])) == "0000:01:10.2"
    assert topology.bdf(sriov.functions[7]).source_id == SourceId(0x18E)


@given(st.integers(0, 0xFFFF))
def test_num_vfs_never_exceeds_total_vfs(count: int) -> None:
    physical, sriov = make(total=8)
    enable(physical, count)
    assert physical.config.read(NUM_VFS, 2) == (count if count <= 8 else 0)
    assert len(sriov.functions) == (count if count <= 8 else 0)


def test_vfs_exist_only_while_enabled_and_num_vfs_is_fixed_meanwhile() -> None:
    physical, sriov = make()
    changes: list[int] = []
    sriov.on_change = lambda: changes.append(len(sriov.functions))
    physical.config.write(NUM_VFS, 2, 4)
    assert sriov.functions == ()
    physical.config.write(CONTROL, 2, 1)
    before = sriov.functions
    physical.config.write(NUM_VFS, 2, 6)
    physical.config.write(CONTROL, 2, 9)
    assert physical.config.read(NUM_VFS, 2) == 4
    assert sriov.functions is before
    physical.config.write(CONTROL, 2, 0)
    assert sriov.functions == ()
    assert changes == [4, 0]


def test_reset_takes_the_vfs_away() -> None:
    physical, sriov = make()
    changes: list[int] = []
    enable(physical, 2)
    sriov.on_change = lambda: changes.append(len(sriov.functions))
    physical.reset()
    assert sriov.functions == ()
    assert changes == [0]
    assert physical.config.read(NUM_VFS, 2) == 0


def test_kept_vfs_outlast_resets_of_the_physical_function_and_are_reset() -> None:
    physical, sriov = make()
    enable(physical, 2)
    kept, routes = sriov.functions, [each.routing_offset for each in sriov.functions]
    sriov.keep_enabled()
    kept[0].config.write(4, 2, 4)
    assert kept[0].command.value.bme
    physical.reset()
    assert sriov.functions == kept
    assert [each.routing_offset for each in kept] == routes
    assert not kept[0].command.value.bme
    assert physical.config.read(NUM_VFS, 2) == 2


def test_a_vf_reads_as_no_device_by_itself() -> None:
    physical, sriov = make()
    enable(physical, 1)
    assert sriov.functions[0].config.read(0, 4) == 0xFFFF_FFFF
    assert physical.config.read(0x11A, 2) == 0x10CA


@given(st.integers(0, 7))
def test_vf_bars_lie_side_by_side_in_one_aperture(index: int) -> None:
    physical, sriov = make()
    enable(physical, 8)
    physical.config.write(BAR0, 4, 0xFFFF_FFFF)
    assert physical.config.read(BAR0, 4) & ~0xF == 0xFFFF_C000
    physical.config.write(BAR0, 4, 0x8000_0000)
    physical.config.write(BAR0 + 4, 4, 1)
    function = sriov.functions[index]
    address = 0x1_8000_0000 + index * 0x4000
    assert function.bar_at(address + 0x10) == (function.bars[0], 0x10)
    physical.config.write(CONTROL, 2, 1)
    assert function.bar_at(address) is None


@pytest.mark.parametrize(
    ("total", "first_offset", "stride"), [(0, 1, 1), (1, 0, 1), (2, 1, 0), (0x10000, 1, 1)]
)
def test_vfs_need_distinct_ids(total: int, first_offset: int, stride: int) -> None:
    with pytest.raises(SriovError):
        make(total, first_offset, stride)
