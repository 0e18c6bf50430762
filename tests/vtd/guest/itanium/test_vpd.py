"""The VPD: where public headers have its fields, and files that are none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetables.memory import PhysicalMemory
from vtd.fuzz.guest_strategies import vpds
from vtd.guest.itanium.registers import Cr, Psr
from vtd.guest.itanium.vpd import (
    LAYOUT,
    PARTS,
    VPD_SIZE,
    Vac,
    Vdc,
    Vpd,
    VpdError,
    parse_vpd,
    remarks,
)

HEADERS = {
    "vac": 0, "vdc": 8, "virt_env_vaddr": 16, "vhpi": 256, "vgr": 1024, "vbgr": 1152,
    "vnat": 1280, "vbnat": 1288, "vcpuid": 1296, "vpsr": 1424, "vpr": 1432, "vrse_cfle": 1440,
    "vcr": 2048, "vrr": 3072, "vmm_avail": 31744,
}  # fmt: skip
"""Offsets as the headers of two monitors, Xen's and Linux's, have them."""
CR_OFFSETS = {"TPR": 2576, "LID": 2560, "IRR0": 2592, "IPSR": 2176, "LRR1": 2696, "IHA": 2248}


def test_offsets_are_those_of_the_headers() -> None:
    assert {name: part.offset for name, part in PARTS.items() if not part.reserved} == HEADERS
    assert LAYOUT.sizeof() == VPD_SIZE
    for name, offset in CR_OFFSETS.items():
        assert PARTS["vcr"].offset + 8 * Cr[name] == offset


def test_control_bits_are_those_of_the_headers() -> None:
    assert [(name, bits.low) for name, bits in Vac.FIELDS.items()] == [
        ("a_int", 0), ("a_from_int_cr", 1), ("a_to_int_cr", 2), ("a_from_psr", 3),
        ("a_from_cpuid", 4), ("a_cover", 5), ("a_bsw", 6),
    ]  # fmt: skip
    assert [(name, bits.low) for name, bits in Vdc.FIELDS.items()] == [
        ("d_vmsw", 0), ("d_extint", 1), ("d_ibr_dbr", 2), ("d_pmc", 3), ("d_to_pmd", 4),
        ("d_itm", 5),
    ]  # fmt: skip


@given(st.data())
def test_a_view_and_a_file_say_the_same(data: st.DataObject) -> None:
    memory = PhysicalMemory()
    memory.add_region(0, 0x2_0000)
    vpd = Vpd(memory, 0x8000)
    names = [name for name, part in PARTS.items() if not part.reserved and name != "vmm_avail"]
    values = {}
    for name in data.draw(st.lists(st.sampled_from(names), unique=True)):
        limit = {"vac": 0x7F, "vdc": 0x3F, "vpsr": Psr.of(i=1, ic=1)}.get(name, (1 << 64) - 1)
        index = data.draw(st.integers(0, PARTS[name].size // 8 - 1))
        values[name, index] = data.draw(st.integers(0, limit)) & limit
        vpd.write(name, values[name, index], index)
    parsed = parse_vpd(memory.read(0x8000, VPD_SIZE))
    for (name, index), value in values.items():
        found = parsed[name]
        assert (
            (found[index] if isinstance(found, list) else found) == value == vpd.read(name, index)
        )
    assert LAYOUT.build(LAYOUT.parse(memory.read(0x8000, VPD_SIZE))) == memory.read(
        0x8000, VPD_SIZE
    )


@given(vpds())
def test_any_vpd_is_read_without_loss(data: bytes) -> None:
    assert LAYOUT.build(LAYOUT.parse(data)) == data
    parsed = parse_vpd(data)
    for name in ("vac", "vdc", "vpsr", "vpr"):
        at = PARTS[name].offset
        assert parsed[name] == int.from_bytes(data[at : at + 8], "little")
    assert all(each.startswith(("a_int", "virt", "vhpi", "vcr")) for each in remarks(data))


def vpd_bytes(**values: int) -> bytearray:
    data = bytearray(VPD_SIZE)
    for name, value in values.items():
        at = PARTS[name].offset
        data[at : at + 8] = value.to_bytes(8, "little")
    return data


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "cut: 0 bytes"),
        (bytes(VPD_SIZE - 1), "cut: 65535 bytes"),
        (bytes(VPD_SIZE + 8), "65544 bytes: a VPD has 65536"),
        (b"\x7fELF".ljust(VPD_SIZE, b"\0"), "unknown revision"),
        (bytes(vpd_bytes(vac=0x80)), "only vac bits 6:0 and vdc bits 5:0 are known"),
        (bytes(vpd_bytes(vdc=0x40)), "unknown revision"),
        (bytes(vpd_bytes(vpsr=1)), "vpsr 0x1: no VPD"),
    ],
)
def test_what_is_no_vpd_is_named(data: bytes, words: str) -> None:
    with pytest.raises(VpdError, match=words):
        parse_vpd(data)


def test_remarks_name_what_pal_would_find() -> None:
    data = vpd_bytes(vac=1, vdc=2, virt_env_vaddr=0x10, vhpi=17)
    data[2048 + 8 * 3] = 1
    data[30] = 1
    words = list(remarks(bytes(data)))
    assert len(words) == 5
    for one, expected in zip(
        words,
        ("a_int and d_extint", "virt_env_vaddr", "vhpi 0x11", "vcr[3]", "bytes 24 to 255"),
        strict=True,
    ):
        assert expected in one
    assert list(remarks(bytes(VPD_SIZE))) == []


@given(st.integers(0, 1), st.integers(0, 1))
def test_a_bank_is_switched_and_back(bank: int, start: int) -> None:
    memory = PhysicalMemory()
    memory.add_region(0, VPD_SIZE)
    vpd, registers = Vpd(memory, 0), list(range(16))
    for number in range(16):
        vpd.write("vbgr" if start else "vgr", 100 + number, number)
    psr = vpd.switch_bank(registers, bank, Psr.of(bn=start))
    assert psr.bn == bank
    assert registers == list(range(16) if bank == start else range(100, 116))
    assert vpd.switch_bank(registers, start, psr).bn == start
    assert registers == list(range(16))
