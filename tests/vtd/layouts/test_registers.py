from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.dma import AddressType
from pagetables.bits import Access
from vtd.layouts import registers as r
from vtd.unit.registers.register_map import REGISTERS

FIXED_OFFSETS = {
    0x000: r.Version,
    0x008: r.Capability,
    0x010: r.ExtendedCapability,
    0x018: r.GlobalCommand,
    0x01C: r.GlobalStatus,
    0x020: r.RootTableAddress,
    0x028: r.ContextCommand,
    0x034: r.FaultStatus,
    0x038: r.FaultEventControl,
    0x03C: r.FaultEventData,
    0x040: r.FaultEventAddress,
    0x044: r.FaultEventUpperAddress,
    0x064: r.ProtectedMemoryEnable,
    0x068: r.ProtectedLowMemoryBase,
    0x06C: r.ProtectedLowMemoryLimit,
    0x070: r.ProtectedHighMemoryBase,
    0x078: r.ProtectedHighMemoryLimit,
    0x080: r.InvalidationQueueHead,
    0x088: r.InvalidationQueueTail,
    0x090: r.InvalidationQueueAddress,
    0x09C: r.InvalidationCompletionStatus,
    0x0A0: r.InvalidationEventControl,
    0x0A4: r.InvalidationEventData,
    0x0A8: r.InvalidationEventAddress,
    0x0AC: r.InvalidationEventUpperAddress,
    0x0B0: r.InvalidationQueueErrorRecord,
    0x0B8: r.InterruptRemappingTableAddress,
    0x0C0: r.PageRequestQueueHead,
    0x0C8: r.PageRequestQueueTail,
    0x0D0: r.PageRequestQueueAddress,
    0x0DC: r.PageRequestStatus,
    0x0E0: r.PageRequestEventControl,
    0x0E4: r.PageRequestEventData,
    0x0E8: r.PageRequestEventAddress,
    0x0EC: r.PageRequestEventUpperAddress,
    0x100: r.MtrrCapability,
    0x108: r.MtrrDefaultType,
    0x120: r.FixedRangeMtrr,
    0x180: r.VariableRangeMtrrBase,
    0x188: r.VariableRangeMtrrMask,
    0x300: r.PerformanceMonitoringCapability,
    0x310: r.PerformanceMonitoringConfigurationOffset,
    0x314: r.PerformanceMonitoringFreezeOffset,
    0x318: r.PerformanceMonitoringOverflowOffset,
    0x31C: r.PerformanceMonitoringCounterOffset,
    0x324: r.PerformanceMonitoringInterruptStatus,
    0x328: r.PerformanceMonitoringInterruptControl,
    0x32C: r.PerformanceMonitoringInterruptData,
    0x330: r.PerformanceMonitoringInterruptAddress,
    0x334: r.PerformanceMonitoringInterruptUpperAddress,
    0x380: r.PerformanceMonitoringEventCapability,
    0x400: r.EnhancedCommand,
    0x408: r.EnhancedCommandExtendedOperand,
    0x410: r.EnhancedCommandResponse,
    0x420: r.EnhancedCommandStatus,
    0x430: r.EnhancedCommandCapability,
    0xDC0: r.RdtConfiguration,
    0xE00: r.VirtualCommand,
    0xE08: r.VirtualCommandExtendedOperand,
    0xE10: r.VirtualCommandResponse,
    0xE30: r.VirtualCommandCapability,
}
"""The table of 11.4."""


@pytest.mark.section("11.4")
def test_registers_sit_where_the_table_of_the_specification_says() -> None:
    declared = {register.OFFSET: register for register in REGISTERS if register.OFFSET is not None}
    assert declared == FIXED_OFFSETS


@pytest.mark.section("11.4")
def test_registers_are_aligned_to_their_width_and_end_before_the_next() -> None:
    assert {register.WIDTH for register in REGISTERS} == {32, 64, 128}
    ends = [(offset, offset + FIXED_OFFSETS[offset].WIDTH // 8) for offset in sorted(FIXED_OFFSETS)]
    assert [start for start, end in ends if start % min(end - start, 8)] == []
    assert [end for (_, end), (start, _) in pairwise(ends) if end > start] == []


@pytest.mark.parametrize(
    "register",
    [r.InvalidationQueueAddress, r.PageRequestQueueAddress],
    ids=lambda each: each.__name__,
)
@pytest.mark.section("11.4.9.3", "11.4.11.3")
def test_queues_have_up_to_128_pages(register: type[r.Register]) -> None:
    size = register.FIELDS["qs" if register is r.InvalidationQueueAddress else "pqs"]
    assert size.mask == 7


def test_arrays_reach_the_last_offset_of_the_table() -> None:
    last = {
        register: register.OFFSET + (register.COUNT - 1) * register.STRIDE
        for register in REGISTERS
        if register.OFFSET is not None and register.COUNT > 1
    }
    assert last == {
        r.FixedRangeMtrr: 0x170,
        r.VariableRangeMtrrBase: 0x210,
        r.VariableRangeMtrrMask: 0x218,
        r.PerformanceMonitoringEventCapability: 0x3F8,
        r.EnhancedCommandStatus: 0x428,
        r.EnhancedCommandCapability: 0x448,
    }


@pytest.mark.section("11.4")
def test_only_event_controls_do_not_reset_to_zero() -> None:
    resets = {register: register.RESET for register in REGISTERS if register.RESET}
    assert resets == dict.fromkeys(
        (
            r.FaultEventControl,
            r.InvalidationEventControl,
            r.PageRequestEventControl,
            r.PerformanceMonitoringInterruptControl,
        ),
        0x8000_0000,
    )


@pytest.mark.section("11.4.4.1")
def test_commands_and_their_status_sit_at_the_same_bits() -> None:
    status_of = {
        "te": "tes",
        "srtp": "rtps",
        "wbf": "wbfs",
        "qie": "qies",
        "ire": "ires",
        "sirtp": "irtps",
        "cfi": "cfis",
    }
    for command, status in status_of.items():
        assert r.GlobalCommand.FIELDS[command].mask == r.GlobalStatus.FIELDS[status].mask
    assert status_of.keys() == r.GlobalCommand.FIELDS.keys()
    assert set(status_of.values()) == r.GlobalStatus.FIELDS.keys()


@pytest.mark.parametrize(
    ("register", "kind", "mask"),
    [
        (r.FaultStatus, Access.RW1CS, 0x71),
        (r.FaultStatus, Access.ROS, 0xFF02),
        (r.InvalidationCompletionStatus, Access.RW1CS, 0x1),
        (r.PageRequestStatus, Access.RW1CS, 0x3),
        (r.PerformanceMonitoringInterruptStatus, Access.RW1C, 0x1),
        (r.FaultRecording, Access.RW1CS, 1 << 127),
        (r.ContextCommand, Access.WO, 0x3_FFFF_0000),
        (r.InvalidateAddress, Access.WO, 0xFFFF_FFFF_FFFF_F07F),
        (r.InvalidationQueueHead, Access.RO, 0x7FFF0),
    ],
)
def test_fields_that_are_not_read_write(
    register: type[r.Register], kind: Access, mask: int
) -> None:
    assert sum(bits.mask for bits in register.FIELDS.values() if bits.access is kind) == mask


@pytest.mark.section("11.4.7.6")
def test_worked_encoding_of_a_fault_record() -> None:
    record = r.FaultRecording.of(f=True, t1=True, fr=0x06, sid=0x0100, fi=0x7000)
    assert record == 0xC000_0006_0000_0100 << 64 | 0x7000
    assert record.request_type is r.RequestType.READ
    assert record.at == AddressType.UNTRANSLATED


@pytest.mark.section("11.4.2", "11.4.3")
def test_capability_values_decode() -> None:
    cap = r.Capability(0x80D2_008C_222F_0606)
    assert cap.flags() == {"esrtps", "drd", "dwd", "psi"}
    assert (cap.mamv, cap.nfr, cap.fro, cap.mgaw, cap.nd) == (18, 0, 0x220, 47, 6)
    assert cap.sslps == r.LargePages.PAGE_2M | r.LargePages.PAGE_1G
    assert cap.sagaw == r.AddressWidths.AGAW_39 | r.AddressWidths.AGAW_48
    ecap = r.ExtendedCapability(0x0000_0000_00F0_0F4A)
    assert ecap.flags() == {"qi", "ir", "pt"}
    assert (ecap.iro, ecap.mhmv) == (0xF0, 15)


@pytest.mark.section("11.4.1")
@pytest.mark.fields("Version.max.min")
def test_a_version_has_a_major_and_a_minor_half() -> None:
    version = r.Version(0x5A)
    assert (version.max, version.min) == (5, 0xA)


@pytest.mark.section("11.4.12.3")
@pytest.mark.fields("FixedRangeMtrr.r0.r1.r2.r3.r4.r5.r6.r7")
def test_a_fixed_range_register_has_a_byte_for_each_of_its_ranges() -> None:
    ranges = r.FixedRangeMtrr(0x0605_0401_0006_0504)
    low = (ranges.r0, ranges.r1, ranges.r2, ranges.r3)
    high = (ranges.r4, ranges.r5, ranges.r6, ranges.r7)
    assert (low, high) == ((4, 5, 6, 0), (1, 4, 5, 6))


@pytest.mark.parametrize("register", REGISTERS)
@given(data=st.data())
def test_every_field_has_a_value_for_all_bits(
    register: type[r.Register], data: st.DataObject
) -> None:
    value = register(data.draw(st.integers(0, (1 << register.WIDTH) - 1)))
    for name, bits in register.FIELDS.items():
        ones = (1 << bits.high - bits.low + 1) - 1
        assert int(getattr(value, name)) == (value >> bits.low & ones) << bits.shift
