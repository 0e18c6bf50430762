"""VMCS regions: bytes and fields, there and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetables.memory import PhysicalMemory
from vtd.guest.x86.capabilities import REVISION
from vtd.guest.x86.fields import BY_NAME, FIELDS
from vtd.guest.x86.vmcs import (
    PLACES,
    REGION_SIZE,
    ZERO_STATE,
    RegionError,
    Vmcs,
    VmcsState,
    pack,
    parse_region,
    unpack,
)

states = st.fixed_dictionaries(
    {}, optional={field.name: st.integers(0, (1 << 8 * field.size) - 1) for field in FIELDS}
).map(ZERO_STATE.replace)


@given(states)
def test_what_is_packed_is_unpacked(state: VmcsState) -> None:
    assert parse_region(pack(state)).values() == state.values()


@given(st.binary(min_size=2048, max_size=2048))
def test_any_bytes_are_fields(data: bytes) -> None:
    state = unpack(data)
    for field in FIELDS:
        place = PLACES[field.name]
        assert state[field.name] == int.from_bytes(data[place : place + field.size], "little")


def test_a_region_in_memory() -> None:
    memory = PhysicalMemory()
    memory.add_region(0, 0x2000)
    memory.write(0x1000, pack(ZERO_STATE.replace({"guest_rip": 0x1234})))
    vmcs = Vmcs(memory, 0x1000)
    assert vmcs.state().guest_rip == vmcs.read(BY_NAME["guest_rip"]) == 0x1234
    vmcs.write(BY_NAME["vpid"], 0x1_0002)
    assert vmcs.read(BY_NAME["vpid"]) == 2
    assert not vmcs.launched
    vmcs.launched = True
    assert memory.read(0x1008, 4) == b"\1\0\0\0"
    vmcs.abort(4)
    assert memory.read(0x1004, 4) == b"\4\0\0\0"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "0 bytes"),
        (b"\x12\0\0\0" + bytes(4092), "revision 0x12"),
        (pack(ZERO_STATE)[:4000], "4000 bytes"),
        (pack(ZERO_STATE) + b"\0", "4097 bytes"),
    ],
)
def test_other_bytes_are_no_region(data: bytes, words: str) -> None:
    with pytest.raises(RegionError, match=words):
        parse_region(data)


def test_a_shadow_region_is_one_too() -> None:
    data = pack(ZERO_STATE.replace({"vpid": 3}), revision=REVISION | 1 << 31)
    assert parse_region(data).vpid == 3
    assert len(data) == REGION_SIZE


def test_fields_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="vpid"):
        ZERO_STATE.replace({"vpid": 0x1_0000})
    with pytest.raises(ValueError, match="no VMCS field"):
        ZERO_STATE.replace({"vpids": 1})
    with pytest.raises(AttributeError, match="no VMCS field"):
        _ = ZERO_STATE.vpids
