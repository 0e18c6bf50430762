"""Functions from configuration space: what can be read depends on how much of it was."""

from __future__ import annotations

import pytest

from devices.source_id import Bdf
from vtd.dmar.listing.config_space import from_config
from vtd.dmar.pci_tree import Acs, SrIov

HERE = Bdf.parse("03:00.0")


def space() -> bytearray:
    """An endpoint with phantom functions, ACS and virtual functions."""
    data = bytearray(4096)
    data[0:4] = bytes.fromhex("86803412")
    data[6], data[0x34] = 0x10, 0x40
    data[0x0A:0x0C] = b"\0\x02"
    data[0x40:0x50] = bytes([5, 0x50]) + bytes(14)
    data[0x50:0x5A] = bytes([0x10, 0, 2, 0, 0b10000, 0, 0, 0, 0, 2])
    data[0x100:0x108] = bytes.fromhex("0d00 0114 7f00 0d00")
    data[0x140:0x158] = bytes.fromhex("1000 0100 00000000 0100 0000 0800 0800 0400 0000 8000 0200")
    return data


def test_all_of_it_shows_everything() -> None:
    function = from_config(HERE, bytes(space()), "card")
    assert (function.vendor_id, function.device_id, function.class_code) == (0x8086, 0x1234, 0x200)
    assert (function.express_type, function.phantom_bits) == (0, 2)
    assert function.acs == Acs(0x7F, 0x0D)
    assert function.sriov == SrIov(offset=0x80, stride=2, number=4, total=8)
    assert function.express_known
    assert function.acs_known
    assert function.is_bridge is False


@pytest.mark.parametrize(("size", "express", "acs"), [(64, False, False), (256, True, False)])
def test_less_of_it_leaves_capabilities_unknown(size: int, express: bool, acs: bool) -> None:
    function = from_config(HERE, bytes(space()[:size]))
    assert (function.express_known, function.acs_known) == (express, acs)
    assert function.acs is None
    assert function.sriov is None


def test_without_a_list_there_are_no_capabilities() -> None:
    data = space()
    data[6] = 0
    function = from_config(HERE, bytes(data[:64]))
    assert (function.express_known, function.acs_known) == (True, True)


def test_a_virtual_function_has_no_ids_of_its_own() -> None:
    data = space()
    data[0:4] = b"\xff" * 4
    function = from_config(HERE, bytes(data))
    assert (function.vendor_id, function.device_id) == (None, None)


def test_chains_that_go_round_or_out_end() -> None:
    data = space()
    data[0x41], data[0x51] = 0x50, 0x40
    data[0x102:0x104] = b"\x01\x10"
    assert from_config(HERE, bytes(data)).acs_known
    data[0x41] = 0xFC
    assert from_config(HERE, bytes(data)).express_type is None
