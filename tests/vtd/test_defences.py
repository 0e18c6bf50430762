"""What the data of the rogue library says of each behaviour is what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from devices.dma import AddressType
from devices.function import Bar, PciFunction
from devices.models import MODELS
from devices.rogue import BEHAVIOURS, Behaviour, Defence, Keeper
from devices.topology import Topology
from vtd.defences import MACHINE, harm_of
from vtd.machine.assembly import assemble
from vtd.machine.description import read_machine

PAGE = (Path(__file__).parents[2] / "docs" / "rogue-devices.md").read_text()

NEED_TRANSLATION = {Defence.REMOVED, Defence.READ_ONLY, Defence.NO_ATS, Defence.INTERRUPTS}
"""Defences that mean nothing without translation."""

every = pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda each: each.name)


@every
def test_what_is_in_place_does_not_stop_it(behaviour: Behaviour) -> None:
    assert len(harm_of(behaviour, behaviour.in_place)) == 1


@every
def test_each_defence_stops_it_or_not_as_is_said(behaviour: Behaviour) -> None:
    for defence in set(Defence) - set(behaviour.in_place):
        if defence in NEED_TRANSLATION and Defence.TRANSLATION not in behaviour.in_place:
            assert defence not in behaviour.stopped_by
            continue
        harmed = harm_of(behaviour, {*behaviour.in_place, defence})
        assert bool(harmed) != (defence in behaviour.stopped_by), defence


@every
def test_everything_that_is_in_place_is_needed_or_harmless(behaviour: Behaviour) -> None:
    """No defence of the data is there that would stop it by itself."""
    assert not set(behaviour.in_place) & set(behaviour.stopped_by)
    assert behaviour.stopped_by


@pytest.mark.parametrize("model", MODELS)
def test_a_function_of_any_model_can_do_it(model: str) -> None:
    for behaviour in BEHAVIOURS:
        assert harm_of(behaviour, behaviour.in_place, model), behaviour.name
        assert not harm_of(behaviour, {*behaviour.in_place, behaviour.stopped_by[0]}, model)


def test_the_page_has_every_behaviour_and_who_stops_it() -> None:
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (.*) \|$", PAGE, re.MULTILINE))
    for each in BEHAVIOURS:
        cells = [cell.strip() for cell in rows[each.name].split("|")]
        stopped = [
            ", ".join(f"`{one.key}`" for one in each.stopped_by if one.keeper is keeper)
            for keeper in Keeper
        ]
        assert cells == [each.text, *stopped, each.source]
    for defence in Defence:
        assert rows[defence.key] == f"{defence.keeper.value} | {defence.text}"


def test_the_example_runs() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    exec(compile(code, "rogue-devices.md", "exec"), {})


def peer_at(topology: Topology, function: PciFunction, address: int) -> tuple[Bar, int] | None:
    """The BAR of another function that a request reaches without passing the root."""
    source_id = topology.bdf(function).source_id
    met = topology.met_above(function, source_id, AddressType.UNTRANSLATED, address)
    return met if isinstance(met, tuple) else None


def test_a_request_to_a_peer_ends_where_the_port_is_off_or_nobody_claims_it() -> None:
    assembly = assemble(read_machine(MACHINE.format(model="inert")))
    topology, functions = assembly.platform.topology, assembly.functions
    rogue, peer, victim = functions["rogue"], functions["peer"], functions["victim"]
    for function, base in ((peer, 0xC000_0000), (rogue, 0xD000_0000)):
        if function.bars:
            function.config.write(0x10, 4, base)
        function.config.write(4, 2, 2)
    assert peer_at(topology, rogue, 0xC000_0008) == (peer.bars[0], 8)
    assert peer_at(topology, rogue, 0xB000_0000) is None
    assert peer_at(topology, peer, 0xC000_0008) is None  # behind its own port
    assert peer_at(topology, victim, 0xC000_0008) is None  # behind another root port
    functions["switch.0"].config.write(4, 2, 0)
    assert peer_at(topology, rogue, 0xC000_0008) is None
