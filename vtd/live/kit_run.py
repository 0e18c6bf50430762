"""The conformance kit on a served machine: QEMU boots it instead of a kernel, and units are judged.

Each case is a check of the outcome. Left out: which departure explains a failure, as the unit here
has none.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from vtd.conformance import sources
from vtd.conformance.format import Mode
from vtd.conformance.image import DEBUG_CONSOLE, Image, Output, make_image
from vtd.conformance.judgement import Judged, judge_all
from vtd.conformance.kit import Builder
from vtd.conformance.probe import PROBE_BASE, Probe
from vtd.conformance.results import results_of
from vtd.conformance.running import Collected, Form
from vtd.conformance.running import run as run_image
from vtd.live.boot import Boot, Outcome, Verdict
from vtd.live.defects import plant
from vtd.live.machine import LiveMachine
from vtd.live.qemu import Qemu
from vtd.live.qemu_arguments import qemu_arguments
from vtd.live.server import Server
from vtd.machine.assembly import assemble
from vtd.machine.description import read_machine
from vtd.unit.caching.policy import POLICIES
from vtd.unit.options import Options

STEP = 0.2


@dataclass(frozen=True)
class ServedMachine:
    """QEMU with the functions of a served machine."""

    words: tuple[str, ...]
    output: Output = DEBUG_CONSOLE
    form: Form = Form.MULTIBOOT

    def command(self, image: Path) -> list[str]:
        """The command line."""
        return [*self.words, "-kernel", str(image), "-debugcon", "stdio"]


def run_kit(
    qemu: Qemu,
    boot: Boot,
    cases: int,
    now: Callable[[], int],
    note: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Make a kit for the machine of a boot, ``cases`` of each property, and carry it out.

    KitError if the machine can't run it; MachineError, LiveError or OSError if it can't be served.
    """
    with served(qemu, boot, now, note) as machine:

        def carried_out(image: Image) -> Collected:
            return run_image(image, machine, lambda: now() / 1e9, silence=boot.silence)

        probe = Probe.of_frames(carried_out(make_image(Mode.PROBE, PROBE_BASE)).frames)
        builder = Builder(probe)
        for name, needed in sources.PROPERTIES.items():
            if needed <= probe.capabilities.features:
                for wanted in sources.generated(probe, name, cases, 0):
                    builder.add(wanted)
        image = builder.image()
        results = results_of(image, carried_out(image), "live")
    outcome = Outcome(ended=True, verdicts=list(map(_verdict, judge_all(results, explain=False))))
    for verdict in outcome.verdicts:
        note(" ".join(verdict))
    return outcome


def _verdict(judged: Judged) -> Verdict:
    state = "ok" if judged.passed else "FAILED" if judged.result else "skipped"
    return Verdict(judged.name, state, judged.why)


@contextmanager
def served(
    qemu: Qemu, boot: Boot, now: Callable[[], int], note: Callable[[str], None]
) -> Iterator[ServedMachine]:
    """A machine that is served meanwhile, by a thread."""
    with ExitStack() as stack:
        assembly = assemble(read_machine(boot.machine), Options(caches=POLICIES[boot.caches]))
        machine = LiveMachine(assembly.platform, assembly.clock, note=note)
        plant(boot.defects, assembly.platform.units.values())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vtd-live-")))
        server = Server(machine, folder, now)
        stack.callback(server.close)
        table = folder / "dmar.bin"
        table.write_bytes(assembly.table.pack())
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                server.serve(STEP)

        thread = threading.Thread(target=serve)
        thread.start()
        stack.callback(thread.join)
        stack.callback(stop.set)
        words = [*qemu.command, *qemu_arguments(machine, table, server.path)]
        more = ("-nodefaults", "-display", "none", "-cpu", boot.cpu)
        yield ServedMachine((*words, *more))
