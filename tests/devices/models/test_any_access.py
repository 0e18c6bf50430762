"""Whatever a guest reads and writes, no model raises, and what it reads fits the size."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import devices.models
from devices.function import Identity, PciFunction, Region
from devices.hpet import Hpet
from devices.io_apic import IoApic
from devices.models import MODELS, find_model
from devices.models.edu import DMA_NANOSECONDS
from devices.sriov import Sriov, VirtualFunction
from pagetables.memory import PhysicalMemory
from tests.support.ports import RecordingPort

VALUES = st.one_of(
    st.integers(0, 0xFFFF),
    st.integers(0, (1 << 64) - 1),
    st.sampled_from([0, 1, 0xFFFF_FFFF, (1 << 64) - 1, 0x460001, 0x0007_0007]),
)
SIZES = st.sampled_from([1, 2, 4, 8])
ACCESSES = st.lists(
    st.tuples(st.booleans(), st.integers(0, 0x1100), VALUES, SIZES), min_size=1, max_size=30
)


def physical_function() -> PciFunction:
    function = PciFunction(Identity(0x8086, 0x10C9, 0x020000))
    function.add_pci_express()
    function.add_msi(32, maskable=True)
    Sriov(function, total_vfs=8, first_offset=0x80, stride=2, vf_device_id=0x10CA)
    return function


def made(name: str) -> Callable[[], PciFunction]:
    model: Callable[..., PciFunction] = find_model(name)
    needs_memory = "memory" in inspect.signature(model).parameters
    return partial(model, PhysicalMemory()) if needs_memory else model


def test_every_model_has_a_name_for_descriptions() -> None:
    named = {where.partition(":")[2] for where in MODELS.values()}
    there = set()
    for module in pkgutil.walk_packages(devices.models.__path__, "devices.models."):
        for name, each in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            own = each.__module__ == module.name and issubclass(each, PciFunction)
            if own and not issubclass(each, VirtualFunction):
                there.add(name)
    assert named == there


def apply(region: Region, accesses: list[tuple[bool, int, int, int]], align: bool) -> None:
    for write, at, value, size in accesses:
        offset = at & -size if align else at
        if write:
            region.write(offset, size, value & (1 << 8 * size) - 1)
        else:
            assert 0 <= region.read(offset, size) < 1 << 8 * size


@pytest.mark.parametrize("make", [*map(made, MODELS), physical_function])
@given(config=ACCESSES, bar=ACCESSES, align=st.booleans())
@settings(max_examples=40)
def test_a_model_survives_any_access(
    make: Callable[[], PciFunction],
    config: list[tuple[bool, int, int, int]],
    bar: list[tuple[bool, int, int, int]],
    align: bool,
) -> None:
    function = make()
    function.connect(RecordingPort())
    function.config.write(4, 2, 6)
    for _ in range(2):
        for region in function.bars.values():
            apply(region, bar, align)
        function.clock.advance(DMA_NANOSECONDS)
        apply(function.config, config, align)
        function.reset()


@given(ACCESSES, st.booleans(), st.integers(0, 10_000))
def test_an_interrupt_controller_survives_any_access(
    accesses: list[tuple[bool, int, int, int]], align: bool, nanoseconds: int
) -> None:
    port = RecordingPort()
    apic, hpet = IoApic(port, 120), Hpet(port, 32)
    apply(apic, accesses, align)
    for pin in range(120):
        apic.set_pin(pin, True)
    apply(hpet, accesses, align)
    hpet.write(0x10, 4, 1)
    hpet.clock.advance(nanoseconds)
