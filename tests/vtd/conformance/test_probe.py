"""What a machine says of itself is believed if it can be true."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vtd.conformance.interpreter import Machine, frame
from tests.vtd.conformance.kits import probed, received
from vtd.conformance.format import Driver, Kind, Mode
from vtd.conformance.frames import Frames
from vtd.conformance.image import DEBUG_CONSOLE, KitError, make_image
from vtd.conformance.kit import Builder
from vtd.conformance.probe import Probe, Span, UnitFound, read_probe
from vtd.dmar.records import Rmrr
from vtd.dmar.table import Table
from vtd.unit.registers.capabilities import PROFILES

RECORDED = Path(__file__).parent / "qemu-probe.json"
PROBE = probed()


def test_what_qemu_said_is_understood() -> None:
    probe = read_probe(RECORDED)
    assert probe.capabilities == PROFILES["qemu"]
    assert probe.unit.base == 0xFED9_0000
    assert sum(each.end - each.start for each in probe.memory) >> 20 == 8191


def test_requesters_behind_a_bridge_have_its_source_id() -> None:
    """3.9.1: a PCIe-to-PCI bridge puts its secondary bus and devfn 0 in their place."""
    found = read_probe(RECORDED).devices()
    assert list(found) == [0x20, 0x21, 0x28, 0x90, 0x100, 0x300]
    assert (found[0x300].bus, found[0x300].devfn) == (3, 8)


def test_nvme_needs_memory_of_its_own_for_its_queue() -> None:
    probe = probed(driver=Driver.NVME)
    assert list(probe.devices()) == [0x20, 0x21, 0x28, 0x90]
    assert probe.unusable() == {}
    assert Probe.from_json(json.loads(json.dumps(probe.to_json()))) == probe
    plain = replace(probe, controllers={**probe.controllers, 0x21: 0})
    assert list(plain.devices()) == [0x20, 0x28, 0x90]
    assert "no memory for its queue" in plain.unusable()[0x21]
    unseen = replace(probe, controllers={})
    assert unseen.devices() == {}
    assert set(unseen.unusable()) == {0x20, 0x21, 0x28, 0x90}
    assert "can't be seen" in unseen.unusable()[0x20]


def test_a_probe_comes_back_from_its_document() -> None:
    assert Probe.from_json(json.loads(json.dumps(PROBE.to_json()))) == PROBE


def test_a_machine_that_does_not_come_to_its_end_is_not_believed() -> None:
    frames = list(received(Machine(PROFILES["qemu"]), make_image(Mode.PROBE, 0x200_0000)))
    with pytest.raises(KitError, match="cut"):
        Probe.of_frames(frames[:-1])
    with pytest.raises(KitError, match="exception 13"):
        Probe.of_frames([*frames[:-1], *Frames().feed(frame(Kind.PROBLEM, 13))])
    assert DEBUG_CONSOLE.port == 0xE9


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"dmar": b""}, "no DMAR table"),
        ({"units": ()}, "names no unit"),
        ({"memory": (Span(0, 0x2000), Span(0x1000, 0x3000))}, "listed twice"),
        ({"memory": (Span(0, 1 << 40),)}, "lies in memory"),
        ({"units": (UnitFound(0x1000, PROBE.unit.registers),)}, "not one of the table"),
        ({"units": (replace(PROBE.unit, registers=b"\xff" * 256),)}, "no unit at"),
    ],
)
def test_a_probe_that_contradicts_itself_is_refused(changed: dict[str, Any], why: str) -> None:
    with pytest.raises(KitError, match=why):
        replace(PROBE, **changed).checked()


def test_a_unit_in_use_is_left_alone() -> None:
    registers = bytearray(PROBE.unit.registers)
    registers[0x1F] |= 0x80
    used = replace(PROBE, units=(replace(PROBE.unit, registers=bytes(registers)),))
    with pytest.raises(KitError, match="in use"):
        _ = used.unit
    with pytest.raises(KitError, match="2 units"):
        _ = replace(PROBE, units=PROBE.units * 2).unit


LEAVES = st.none() | st.integers() | st.text(max_size=5) | st.just("0x0")
KEYS = st.sampled_from(sorted(PROBE.to_json()))


@settings(max_examples=50)
@given(
    st.recursive(
        LEAVES,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner),
    )
)
def test_any_document_is_a_probe_or_refused(value: Any) -> None:
    whole = PROBE.to_json()
    broken = {**whole, **value} if isinstance(value, dict) else value
    try:
        Probe.from_json(broken)
    except KitError as error:
        assert str(error)


def test_a_unit_with_a_reserved_region_is_refused() -> None:
    """8.4: a device works there all the time, and a case would take its memory away."""
    table = Table.parse(PROBE.dmar)
    region = Rmrr(base=0x7F00_0000, limit=0x7F0F_FFFF)
    reserved = Table(table.header, (*table.structures, region)).sealed()
    probe = replace(PROBE, dmar=reserved.pack()).checked()
    with pytest.raises(KitError, match="reserved memory region at 0x7f000000"):
        Builder(probe)
