"""Drills of a host that sleeps, and of one that crashes."""

from __future__ import annotations

from collections.abc import Iterator

from devices.function import BME
from vtd.host.drills.drill import Check, Drill
from vtd.host.drills.scene import PAGE, Scene
from vtd.host.running import COMMAND
from vtd.software.registers import command

TEXT = b"of the host"


def suspend(guarded: bool) -> Iterator[Check]:
    """Units wake up with remapping off; devices do not wait for the host to remember that."""
    scene = Scene()
    scene.physical.write(PAGE, TEXT)
    scene.host.platform.suspend()
    scene.host.platform.resume()
    scene.topology.assign_bus_numbers()
    if guarded:
        scene.driver.resume()
    scene.device("engine").config.write(COMMAND, 2, BME)
    answer = scene.write("engine", PAGE, b"of a guest ")
    yield Check("memory of the host is not written", scene.physical.read(PAGE, 11) == TEXT)
    there = scene.memory("a", PAGE, 11) == b"of a guest "
    yield Check("the guest's device works as before", answer.ok and there)


def crash(guarded: bool) -> Iterator[Check]:
    """A second kernel starts while transfers of the first one's devices are on their way."""
    scene = Scene()
    scene.physical.write(PAGE, TEXT)
    scene.start_transfer(PAGE, b"from before")
    if not guarded:
        command(scene.unit, te=False)
    scene.land()
    yield Check("nothing lands in the new kernel", scene.physical.read(PAGE, 11) == TEXT)
    scene.device("engine").reset()
    driver = scene.second_driver()
    command(scene.unit, te=False)
    driver.start()
    scene.device("engine").config.write(COMMAND, 2, BME)
    late = scene.write("engine", PAGE, b"from before")
    yield Check("with tables of its own, old devices reach nothing", not late.ok)


DRILLS = (
    Drill("suspend", "the host sleeps and wakes up", "the units are programmed again first",
          "11.3", suspend),
    Drill("crash", "the host crashes, and a second kernel starts",
          "translation goes on with the old tables until devices are quiet", "6.6", crash),
)  # fmt: skip
