"""Kits: which cases go in, where they go, and that the engine passes every one of them."""

from dataclasses import replace

import pytest

from tests.vtd.conformance.interpreter import Machine
from tests.vtd.conformance.kits import built, judged, probed
from vtd.conformance.format import Case as CaseHead
from vtd.conformance.format import Driver, Header, Instruction, Op, Scratch
from vtd.conformance.image import Image, KitError
from vtd.conformance.kit import Builder, Wanted
from vtd.conformance.probe import Probe, Span
from vtd.conformance.sources import PROPERTIES, generated
from vtd.fuzz.case import Case, dma_read, dma_write, msi, reg_read, store
from vtd.unit.registers.capabilities import PROFILES


@pytest.mark.parametrize("profile", ["qemu", "qemu-scalable", "qemu-scalable-first"])
def test_the_engine_passes_every_generated_case(profile: str) -> None:
    """With the most eager caches there are, and whatever the cases are about."""
    image = built(probed(profile), 3, *PROPERTIES)
    verdicts = judged(image, Machine(PROFILES[profile]))
    assert len(verdicts) > 8
    assert [(each.name, each.why) for each in verdicts if not each.passed] == []


def test_the_engine_passes_every_case_that_is_made_for_nvme() -> None:
    probe = probed(driver=Driver.NVME)
    image = built(probe, 5, *PROPERTIES)
    verdicts = judged(image, Machine(PROFILES["qemu"], driver=Driver.NVME))
    assert len(verdicts) > 12
    assert [(each.name, each.why) for each in verdicts if not each.passed] == []
    moved = [
        (address, length)
        for op, address, length in instructions(image)
        if op in (Op.DEVICE_READ, Op.DEVICE_WRITE)
    ]
    assert moved
    assert all(length % 512 == 0 and address % 4 == 0 for address, length in moved)


@pytest.mark.parametrize("driver", [Driver.NIC, Driver.IOAT])
@pytest.mark.parametrize("profile", ["qemu", "qemu-scalable-first"])
def test_the_engine_passes_every_case_that_is_made_for_devices_with_descriptors(
    profile: str, driver: Driver
) -> None:
    image = built(probed(profile, driver), 3, "tables", "driver")
    verdicts = judged(image, Machine(PROFILES[profile], driver=driver))
    assert [(each.name, each.why) for each in verdicts if not each.passed] == []
    operations = [op for op, _, _ in instructions(image)]
    transfers = operations.count(Op.DEVICE_READ) + operations.count(Op.DEVICE_WRITE)
    assert transfers == operations.count(Op.DESCRIPTORS) > 20


@pytest.mark.parametrize(
    ("driver", "step", "why"),
    [
        (Driver.NIC, dma_read("d0", 0x20_0000, 64), "NIC reaches no memory for its descriptors"),
        (Driver.IOAT, dma_read("d0", 0x20_0000, 8), "I/OAT reaches no memory for its descriptors"),
        (Driver.IOAT, msi("d0", 0xFEE0_0010, 0), "I/OAT sends no message by itself"),
    ],
)
def test_what_needs_descriptors_and_has_none_is_left_out(
    driver: Driver, step: dict[str, object], why: str
) -> None:
    builder = Builder(probed(driver=driver))
    assert not builder.add(wanted(step))
    assert builder.left[0].why == why


def test_steps_that_a_device_can_not_take_are_cut_out_and_told() -> None:
    probe = probed(driver=Driver.IOAT)
    builder = Builder(probe)
    cases = [each for each in generated(probe, "driver", 6, 0) if builder.add(each)]
    cut = {why: sum(each.cut.get(why, 0) for each in cases) for each in cases for why in each.cut}
    assert cut["I/OAT sends no message by itself"] > 0
    assert {left.why for left in builder.left} >= set(cut)
    assert all("without" in left.name for left in builder.left if left.why in cut)


def test_disks_are_left_alone_unless_they_may_be_overwritten() -> None:
    probe = probed(driver=Driver.NVME)
    with pytest.raises(KitError, match="--overwrite allows disks 0020h, 0021h, 0028h, 0090h"):
        Builder(probe)
    assert all(each.driver == Driver.NVME for each in Builder(probe, overwrite=True).devices)


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ([dma_read("d0", 0x20_0000, 8)], "NVMe moves 512 bytes from a multiple of 4"),
        ([dma_read("d0", 0x20_0002, 512)], "NVMe moves 512 bytes from a multiple of 4"),
        ([dma_read("d0", 0x20_0F00, 8192)], "NVMe moves 2 pages at once"),
        ([dma_read("d0", 0x20_0000, 512)] * 129, "65536 bytes NVMe has"),
        ([msi("d0", 0xFEE0_0010, 0)] * 255, "254 transfers and messages"),
    ],
)
def test_what_nvme_can_not_do_is_left_out_with_its_reason(
    steps: list[dict[str, object]], why: str
) -> None:
    builder = Builder(probed(driver=Driver.NVME), overwrite=True)
    assert not builder.add(wanted(*steps))
    assert why in builder.left[0].why


def instructions(image: Image) -> list[tuple[Op, int, int]]:
    """Kind, address and length of every instruction of an image."""
    raw = Header.build(image.header) + image.payload
    position, found = image.header.program, []
    for _ in range(image.header.cases):
        case = CaseHead.parse(raw[position:])
        position += CaseHead.sizeof()
        end = position + case.size
        for _ in range(case.instructions):
            what = Instruction.parse(raw[position:])
            position += Instruction.sizeof()
            if what.op in (Op.STORE, Op.FILL):
                position += (what.length + 7) & ~7
            found.append((Op(what.op), what.address, what.length))
        assert position == end
    return found


def test_nothing_is_stored_outside_the_memory_of_the_probe_or_over_the_kit() -> None:
    probe = probed()
    image = built(probe, 3, *PROPERTIES)
    header = image.header
    kit = range(header.base, header.scratch + Scratch.SIZE)
    assert any(each.start <= kit.start and kit.stop <= each.end for each in probe.memory)
    for op, address, length in instructions(image):
        if op in (Op.STORE, Op.CLEAR):
            assert any(m.start <= address and address + length <= m.end for m in probe.memory)
            assert address + length <= kit.start or address >= kit.stop


def test_what_a_case_stores_is_cleared_before_the_next_one() -> None:
    """A unit that is wrong may look where the next case has nothing."""
    builder = Builder(probed())
    for name, steps in (("a", [store(0x40_0000, 1)]), ("b", [reg_read(0, 4, 0xFF)])):
        assert builder.add(Wanted(name, "test", Case(PROFILES["qemu"], tuple(steps))))
    kinds = [(op, address, length) for op, address, length in instructions(builder.image())]
    stored = kinds.index((Op.STORE, 0x40_0000, 8))
    assert (Op.CLEAR, 0x40_0000, 4096) in kinds[:stored]
    assert (Op.CLEAR, 0x40_0000, 4096) in kinds[stored:]


def wanted(
    *steps: dict[str, object], devices: tuple[tuple[str, int], ...] = (("d0", 0x20),)
) -> Wanted:
    return Wanted("a", "test", Case(PROFILES["qemu"], steps, devices=devices))


@pytest.mark.parametrize(
    ("case", "why"),
    [
        (wanted(dma_read("d0", 0, 8, pasid=1)), "pasid"),
        (wanted(dma_read("d0", 0, 8), devices=(("d0", 0x777),)), "source-id 0x0777"),
        (wanted(dma_read("d0", 0, 0)), "reads nothing"),
        (wanted(dma_read("d0", 0, 5000)), "4096 bytes edu has"),
        (wanted({"op": "reset"}), "no way to do reset"),
        (wanted(dma_write("d0", 1 << 40, b"12345678")), "needs memory at 1024 GiB"),
        (wanted(store(0xA_0000, 1)), "needs memory at 0 MiB"),
        (wanted(store(0x3000_0000, 1)), "needs memory at 768 MiB"),
        (
            wanted({"op": "msi", "device": "d0", "address": "0xfee00000", "data": "0x10030"}),
            "32 bits",
        ),
    ],
)
def test_what_can_not_run_is_left_out_with_its_reason(case: Wanted, why: str) -> None:
    builder = Builder(probed())
    assert not builder.add(case)
    assert why in builder.left[0].why


def test_a_case_for_another_unit_is_left_out() -> None:
    builder = Builder(probed("qemu-scalable"))
    builder.add(wanted(reg_read(0, 4, 0xFF)))
    assert "other capabilities" in builder.left[0].why
    with pytest.raises(KitError, match="no case can run there"):
        builder.image()


def test_a_machine_without_devices_or_memory_is_refused() -> None:
    probe = probed()
    with pytest.raises(KitError, match="no device"):
        Builder(replace(probe, functions={}))
    small = Probe((Span(0, 0x9_0000),), probe.dmar, probe.units, probe.functions)
    builder = Builder(small)
    builder.add(wanted(reg_read(0, 4, 0xFF)))
    with pytest.raises(KitError, match="to spare"):
        builder.image()


def test_the_same_cases_make_the_same_image() -> None:
    probe = probed()
    assert built(probe, 3, "driver").pack() == built(probe, 3, "driver").pack()
    assert len(list(generated(probe, "tables", 3, 0))) == 3
