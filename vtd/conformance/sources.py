"""Where the cases of a kit come from: scenario files, and the strategies of the fuzzer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from pagetables.memory import BusError
from vtd.conformance.descriptors import OWN, with_descriptors
from vtd.conformance.devices import REACHES, Reach
from vtd.conformance.kit import Wanted
from vtd.conformance.observing import observe
from vtd.conformance.probe import Probe
from vtd.fuzz import protocol, strategies
from vtd.fuzz.case import Case, Step, case_of, mem_read
from vtd.fuzz.targets import EndlessError
from vtd.layouts.registers import GlobalStatus
from vtd.recordings.scenario import broken, load_scenario
from vtd.unit.caching.policy import KEEPS_STALE
from vtd.unit.departures import SPECIFICATION

BATCH = 50
"""Cases of one seed."""
STICKY = GlobalStatus.of(rtps=True, irtps=True)


def scenario_case(path: Path) -> Wanted:
    """The case of a scenario file; ScenarioError names what is wrong with it."""
    raw = load_scenario(path)
    with broken(str(path)):
        steps = raw["steps"]
        compared = frozenset(number for number, step in enumerate(steps) if "expect" in step)
        name, area = str(raw.get("name", path.name)), str(raw.get("area", "scenario"))
        return Wanted(name, area, case_of(raw), compared)


def is_recorded(path: Path) -> bool:
    """Whether a scenario file was recorded on QEMU's unit."""
    return str(load_scenario(path).get("oracle", "")).startswith("QEMU")


def generated(probe: Probe, name: str, count: int, seed: int) -> Iterator[Wanted]:
    """``count`` cases of a property for the unit of a machine, from a seed on."""
    cases = _strategies(probe)[name]
    done = 0
    while done < count:
        for case in _batch(cases, seed, min(BATCH, count - done)):
            done += 1
            fitted, cut = _for_guest(case, probe)
            yield Wanted(f"{name}-{seed}-{done}", name, fitted, cut=cut)
        seed += 1


def strategy(probe: Probe, name: str) -> st.SearchStrategy[Case]:
    """The cases of a property for the unit, the devices and the memory of a machine."""
    return _strategies(probe)[name].map(lambda case: _for_guest(case, probe)[0])


def _strategies(probe: Probe) -> Mapping[str, st.SearchStrategy[Case]]:
    unit = probe.capabilities
    scalable = strategies.supports_scalable(unit)
    units = st.just(unit)
    room = any(REACHES[each.driver].fetches for each in probe.devices().values())
    return {
        "tables": strategies.table_cases(
            units=units, scalable=scalable, with_pasids=False, settled=True, descriptors=room
        ),
        "driver": strategies.driver_cases(units, descriptors=room),
        "interrupts": strategies.interrupt_cases(units, wide_data=False, settled=True),
        "protocol": protocol.protocol_cases([unit]),
    }


PROPERTIES: Mapping[str, frozenset[str]] = {
    "tables": frozenset(),
    "driver": frozenset(),
    "interrupts": frozenset({"ir"}),
    "protocol": frozenset({"qi"}),
}
"""What can be generated, and the functions of a unit that it needs."""


def _batch(cases: st.SearchStrategy[Case], seed: int, count: int) -> list[Case]:
    found: list[Case] = []

    @seeded(seed)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def collect(case: Case) -> None:
        found.append(case)

    collect()
    return found


def _for_guest(case: Case, probe: Probe) -> tuple[Case, Counter[str]]:
    """The case on the memory that there is, with a look at what devices write.

    Steps that its devices can't take are cut out, and counted by the reason. A reset by software
    leaves RTPS and IRTPS set: they are not looked at. A case ends before it switches off a queue
    that is not empty, which software must not (6.5.2).
    """
    cut: Counter[str] = Counter()
    memory = tuple((each.start << 12, len(each) << 12) for each in probe.frames if each)
    reaches = _reaches(case, probe)
    steps = [_widened(step, reaches.get(step.get("device", ""))) for step in case.steps]
    case = replace(case, memory=memory, steps=tuple(steps))
    try:
        case, cut = _with_descriptors(case, reaches)
        seen = observe(case, KEEPS_STALE, SPECIFICATION)
    except (EndlessError, BusError):
        return case, cut  # which is then left out
    steps = []
    for step, where in list(zip(case.steps, seen.landed, strict=True))[: seen.undrained]:
        steps.append(_without_sticky(step))
        looked = step["op"] == "dma_write" and OWN not in step
        if looked and where is not None and _holds(probe, *where):
            steps.append(mem_read(*where))
    return replace(case, steps=tuple(steps)), cut


def _with_descriptors(case: Case, reaches: Mapping[str, Reach]) -> tuple[Case, Counter[str]]:
    """Descriptors for those that need them, without the steps that can't have any."""
    fetching = {name: reach for name, reach in reaches.items() if reach.fetches}
    wide = with_descriptors(case, fetching)
    cut: Counter[str] = Counter()
    steps = []
    for step in wide.steps:
        reach = fetching.get(step.get("device", ""))
        why = "" if reach is None else reach.without_descriptors(step)
        if why:
            cut[why] += 1
        else:
            steps.append(step)
    return replace(wide, steps=tuple(steps)), cut


def _reaches(case: Case, probe: Probe) -> dict[str, Reach]:
    """What the devices of a case can do, by their names there."""
    found = probe.devices()
    return {
        name: REACHES[found[source_id].driver]
        for name, source_id in case.devices
        if source_id in found
    }


def _widened(step: Step, reach: Reach | None) -> Step:
    """A transfer as the device can do it; what it writes is repeated."""
    if reach is None or not step.get("length"):
        return step
    address, length = reach.widened(int(step["iova"], 0), step["length"])
    wide = {**step, "iova": hex(address), "length": length}
    if "hex" in step:
        wide["hex"] = (step["hex"] * (length // step["length"] + 1))[: 2 * length]
    return wide


def _holds(probe: Probe, address: int, length: int) -> bool:
    return any(each.start <= address and address + length <= each.end for each in probe.memory)


def _without_sticky(step: dict[str, Any]) -> Step:
    if step["op"] != "reg_read" or int(step["offset"], 0) != 0x1C:
        return step
    return {**step, "mask": hex(int(step.get("mask", "0xffffffff"), 0) & ~STICKY)}
