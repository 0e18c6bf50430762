"""Kits and what comes of them on the engine, for tests."""

from __future__ import annotations

from collections.abc import Iterator

from tests.vtd.conformance.interpreter import Machine
from vtd.conformance.format import Driver, Kind, Mode, Status
from vtd.conformance.frames import Frames, Received
from vtd.conformance.image import DEBUG_CONSOLE, Image, make_image
from vtd.conformance.judgement import Judged, judge_all
from vtd.conformance.kit import Builder, KitCase
from vtd.conformance.probe import Probe
from vtd.conformance.results import CaseResult, Results
from vtd.conformance.sources import generated
from vtd.unit.registers.capabilities import PROFILES


def received(machine: Machine, image: Image) -> Iterator[Received]:
    """The frames of an image on a machine."""
    return Frames().feed(b"".join(machine.run(image.told(DEBUG_CONSOLE))))


def probed(profile: str = "qemu", driver: Driver = Driver.EDU) -> Probe:
    """A machine with the unit of a profile."""
    machine = Machine(PROFILES[profile], driver=driver)
    return Probe.of_frames(received(machine, make_image(Mode.PROBE, 0x200_0000)))


def built(probe: Probe, count: int, *properties: str, seed: int = 0) -> Image:
    """A kit of generated cases; disks may be overwritten."""
    builder = Builder(probe, overwrite=True)
    for name in properties:
        for wanted in generated(probe, name, count, seed):
            builder.add(wanted)
    return builder.image()


def judged(image: Image, machine: Machine, *, explain: bool = False) -> list[Judged]:
    """The verdicts on a machine."""
    cases = [KitCase.from_json(each) for each in image.document["cases"]]
    results = tuple(
        CaseResult(cases[each.number], Status(each.status), each.data)
        for each in received(machine, image)
        if each.kind is Kind.CASE
    )
    return list(judge_all(Results("engine", image.digest.hex(), results, ()), explain=explain))
