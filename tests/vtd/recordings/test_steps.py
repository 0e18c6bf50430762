"""Steps are read once, into values; what is wrong with one is said with its number and field."""

from __future__ import annotations

import copy
import gzip
import json
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.dma import ATOMIC, Atomic, AtomicOp, Request
from tests.support.reference_data import VECTORS
from vtd.recordings import steps
from vtd.recordings.scenario import Scenario, ScenarioRun, load_scenario
from vtd.recordings.steps import STEPS, Step, parse_step, parse_steps
from vtd.recordings.values import MAX_LENGTH, Json, ScenarioError
from vtd.unit.departures import QEMU, Departures

READ = {"op": "reg_read", "offset": "0x1c", "size": 4, "expect": "0x0"}
DMA = {"op": "dma_write", "device": "d0", "iova": "0x1000", "length": 2, "hex": "0a0b"}
EXAMPLES: dict[str, dict[str, Json]] = {
    "mem_write": {"addr": "0x10", "hex": "00"},
    "mem_flush": {"addr": "0x10", "length": 64},
    "mem_read": {"addr": 16, "length": 2, "mask": "ff0f"},
    "reg_write": {"offset": "0x18", "size": 4, "value": "0x1"},
    "reg_read": {"offset": "0x18", "size": 8, "mask": "0xf"},
    "reset": {"power_good": False},
    "suspend": {},
    "resume": {},
    "dma_read": {"device": "d", "iova": "0x10", "length": 0, "pasid": "0x5", "privileged": True,
                 "execute": False},
    "dma_write": {"device": "d", "iova": "0x10", "hex": "00", "pasid": None},
    "dma_atomic": {"device": "d", "iova": "0x10", "kind": "cas", "hex": "00" * 8},
    "msi": {"device": "d", "address": "0xfee00000", "data": "0x31"},
    "ioapic_interrupt": {"device": "d", "rte": "0x31"},
    "events": {},
    "ats_translate": {
        "device": "d", "iova": "0x10", "count": 1, "no_write": False, "execute": False,
    },
    "translated_read": {"device": "d", "address": "0x10", "length": 4},
    "translated_write": {"device": "d", "address": "0x10", "hex": "00", "length": 1},
    "page_request": {
        "device": "d", "address": "0x10", "read": True, "write": False, "prgi": 3, "last": True,
        "execute": False,
    },
    "page_group_responses": {},
    "device_tlb_invalidations": {"expect": [{"tag": "a"}, {}]},
    "device_tlb_complete": {"device": "d", "tags": ["a"], "count": 0, "unallocated": True},
    "device_tlb_timeout": {"tag": "a"},
}  # fmt: skip


def test_each_operation_has_an_example_here() -> None:
    assert set(EXAMPLES) == set(STEPS)


@pytest.mark.parametrize("op", EXAMPLES)
def test_a_step_has_the_fields_of_its_file_as_values_that_nothing_changes(op: str) -> None:
    step = parse_step({"op": op, "note": "for the reader", **EXAMPLES[op]})
    assert type(step) is STEPS[op].make
    assert step.op == op
    assert set(EXAMPLES[op]) <= {each.name for each in fields(step)}
    with pytest.raises(FrozenInstanceError):
        step.expect = 1  # type: ignore[misc]


@pytest.mark.parametrize("op", EXAMPLES)
def test_a_field_that_is_needed_and_missing_is_named(op: str) -> None:
    needed = [each.name for each in STEPS[op].fields if each.required]
    for name in needed:
        raw = {"op": op, **EXAMPLES[op]}
        del raw[name]
        with pytest.raises(ScenarioError, match=rf"^step 1: '{name}' is missing$"):
            parse_steps([READ, raw])


@pytest.mark.parametrize("op", EXAMPLES)
@given(value=st.one_of(st.floats(), st.lists(st.none(), min_size=1), st.just({"a": 1})))
def test_a_value_of_another_kind_is_named_with_its_field(op: str, value: Json) -> None:
    for name in EXAMPLES[op]:
        if name == "expect":
            continue
        raw = {"op": op, **EXAMPLES[op], name: value}
        if value in (0.0, 1.0):  # no JSON number of a file is written so
            continue
        with pytest.raises(ScenarioError, match=rf"^step 0: {name}: "):
            parse_steps([raw])


def test_values_are_numbers_bytes_and_operations() -> None:
    step = parse_step({"op": "dma_atomic", **EXAMPLES["dma_atomic"]})
    assert isinstance(step, steps.DmaAtomic)
    assert (step.iova, step.hex, step.kind) == (16, bytes(8), AtomicOp.CAS)
    assert (step.pasid, step.privileged) == (None, False)
    payload = Atomic(AtomicOp.CAS, bytes(8))
    assert step.request(8) == Request(8, 16, ATOMIC, 4, payload=payload)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (17, "step 1: 17 is no object"),
        ({}, "step 1: 'op' is missing"),
        ({**READ, "op": ["reg_read"]}, "step 1: op: ['reg_read'] is no string"),
        ({**READ, "op": "invalidate"}, "step 1: op: 'invalidate' is no operation of a scenario"),
        *(
            ({**READ, "size": size}, f"step 1: size: {size!r} is neither 4 nor 8")
            for size in (0, 1, 2, 3, 5, 16, True, "4", None)
        ),
        ({**READ, "offset": -4}, "step 1: offset: -4 is no number"),
        ({**READ, "offset": "0xzz"}, "step 1: offset: '0xzz' is no number"),
        ({**READ, "offset": 1.5}, "step 1: offset: 1.5 is no number"),
        ({**READ, "offset": True}, "step 1: offset: True is no number"),
        ({**DMA, "hex": "0a0"}, "step 1: hex: '0a0' holds no bytes in hexadecimal"),
        ({**DMA, "length": 3}, "step 1: length: 3, but hex holds 2 bytes"),
        ({**DMA, "privileged": 2}, "step 1: privileged: 2 is neither true nor false"),
        (
            {"op": "dma_read", "device": "d0", "iova": 0, "length": MAX_LENGTH + 1},
            f"step 1: length: {MAX_LENGTH + 1} is not a number from 0 to {MAX_LENGTH}",
        ),
        (
            {"op": "mem_read", "addr": 0, "length": 2, "mask": "ff"},
            "step 1: mask: has 1 bytes, not 2",
        ),
        (
            {"op": "dma_atomic", "device": "d0", "iova": 0, "kind": "swap", "hex": "0000"},
            "step 1: hex: operands: 2 bytes are no operands of Swap",
        ),
        (
            {"op": "dma_atomic", "device": "d0", "iova": 0, "kind": "add", "hex": "00000000"},
            "step 1: kind: 'add' is none of fetchadd, swap, cas",
        ),
        (
            {"op": "msi", "device": "d0", "address": 0, "data": 1 << 32},
            "step 1: data: 0x100000000 has more than 32 bits",
        ),
        (
            {"op": "device_tlb_complete", "tags": []},
            "step 1: needs 'device', 'tags' and 'count', or 'all'",
        ),
    ],
)
def test_what_is_no_step_is_refused_with_its_number_and_field(raw: Json, says: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse_steps([READ, raw])
    assert str(caught.value) == says


@pytest.mark.parametrize("name", ["legacy_cross_page", "spec_zero_length_ss", "ir_basic"])
def test_a_scenario_is_read_as_a_whole(name: str) -> None:
    raw = json.loads(gzip.decompress((VECTORS / f"{name}.json.gz").read_bytes()))
    before = copy.deepcopy(raw)
    scenario = Scenario.parse(raw)
    assert raw == before
    assert [step.op for step in scenario.steps] == [step["op"] for step in raw["steps"]]
    assert scenario.units[0].capabilities.cap == int(raw["unit"]["cap"], 0)
    assert set(scenario.devices) == set(raw["devices"])


def head(**more: Any) -> dict[str, Json]:
    """A scenario with one step that reads PECTL_REG: IM is set unless the unit departs."""
    scenario = load_scenario(VECTORS / "regs_reset_sm_pasid.json.gz")
    return {
        **scenario,
        "oracle": "",
        "steps": [{"op": "reg_read", "offset": "0xe0", "size": 4}],
        **more,
    }


@pytest.mark.parametrize(
    ("more", "departures", "masked"),
    [
        ({}, Departures(), True),
        ({"departures": []}, Departures(), True),
        ({"departures": ["ignore_mhmv"]}, Departures(ignore_mhmv=True), True),
        (
            {"departures": ["unmask_page_request_event"]},
            Departures(unmask_page_request_event=True),
            False,
        ),
        ({"as_recorded": True}, QEMU, False),
        ({"departures": ["qemu"]}, QEMU, False),
        ({"oracle": "QEMU"}, Departures(compress_faults=True), True),
        ({"tags": ["choice:fault-compression"]}, Departures(compress_faults=True), True),
    ],
)
def test_the_head_of_a_scenario_names_departures(
    more: dict[str, Json], departures: Departures, masked: bool
) -> None:
    scenario = Scenario.parse(head(**more))
    assert scenario.departures == departures
    run = ScenarioRun(scenario)
    assert run.carry_out(scenario.steps[0]) >> 31 == masked


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"departures": ["aw"]}, "departures: 'aw' is no departure"),
        ({"departures": "qemu"}, "departures: 'qemu' is no list"),
        ({"as_recorded": "yes"}, "as_recorded: 'yes' is neither true nor false"),
    ],
)
def test_a_head_with_an_unknown_departure_is_refused(more: dict[str, Json], says: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        Scenario.parse(head(**more))
    assert str(caught.value).startswith(says)


def test_a_step_that_a_scenario_does_not_have_is_not_carried_out() -> None:
    class Dance(Step):
        op = "dance"

    run = ScenarioRun(head())
    with pytest.raises(TypeError, match="dance"):
        run.carry_out(Dance())
