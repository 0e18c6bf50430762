"""A machine that is kept running and sent one case after the other: a target of the fuzzer.

Cases are made for its unit. A failure that a known departure explains is none here; a machine that
falls silent in a case fails over it, and another one is started for the next.
"""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from hypothesis import strategies as st

from vtd.conformance import sources
from vtd.conformance.format import Begin, Kind, Mode, Reset, Status
from vtd.conformance.frames import Frames, Received
from vtd.conformance.image import Image, KitError, make_image
from vtd.conformance.judgement import Judged, Verdict, judge
from vtd.conformance.kit import Builder, Prepared, Wanted
from vtd.conformance.probe import PROBE_BASE, Probe
from vtd.conformance.program import UnfitError
from vtd.conformance.results import CaseResult
from vtd.conformance.running import (
    STARTING,
    Machine,
    check_devices,
    check_machine,
    command_in,
    run,
    started,
)
from vtd.conformance.wrong import wrong_steps
from vtd.fuzz.case import Case, Outcome
from vtd.fuzz.properties import Violation
from vtd.fuzz.targets import (
    CaseFailedError,
    Difference,
    EndlessError,
    JudgingTarget,
    TargetError,
)

ROOM = 0x8_0000
"""Bytes of a program, and of its output."""
SILENCE = 20.0
"""Seconds of a case after which a machine hangs."""


class GuestTarget(JudgingTarget):
    """A machine with the payload in it; TargetError if it can't be asked anything."""

    def __init__(self, name: str, machine: Machine, clock: Callable[[], float]) -> None:
        self.name = name
        self._machine, self._clock = machine, clock
        try:
            probed = run(make_image(Mode.PROBE, PROBE_BASE), machine, clock)
            self._probe = Probe.of_frames(probed.frames)
            self._builder = Builder(self._probe)
            self._image = self._builder.serving_image(ROOM)
        except KitError as error:
            raise TargetError(f"{name}: {error}") from error
        features = self._probe.capabilities.features
        self.properties = tuple(
            name for name, needed in sources.PROPERTIES.items() if needed <= features
        )
        self._guest: ServingGuest | None = None
        self._before: set[int] = set()
        """Frames of the case before, which is cleared too."""

    def cases(self, name: str) -> st.SearchStrategy[Case]:
        """The cases of a property for this machine."""
        return sources.strategy(self._probe, name)

    def check(self, case: Case) -> None:
        """Violation if something came out otherwise than is right, and no departure explains it."""
        judged = self._judged(case)
        if judged is None or not judged.unexplained or judged.result is None:
            return
        kit = judged.result.case
        expected = [allowed[0] if allowed else None for allowed in kit.allowed]
        if judged.result.status is not Status.DONE:
            raise Violation(f"{self.name}: {judged.why}", case, expected)
        wrong = next(wrong_steps(kit, judged.outcomes, judged.vectors))
        step = case.steps[wrong.step]
        difference = Difference(wrong.step, step, str(wrong.allowed), wrong.got)
        raise Violation(f"{self.name}: {judged.why}", case, expected, difference)

    def run(self, case: Case) -> list[Outcome]:
        """The outcome of each step; None for all of a case that can't run on this machine."""
        judged = self._judged(case)
        return list(judged.outcomes) if judged and judged.outcomes else [None] * len(case.steps)

    def _judged(self, case: Case) -> Judged | None:
        """The verdict; None on a case that can't run there, or whose unit can't be reset."""
        try:
            prepared = self._builder.prepared(Wanted("case", "fuzz", case))
        except (UnfitError, EndlessError):
            return None
        program = prepared.program
        if prepared.undrained or max(len(program.code), program.output) > ROOM // 2:
            return None  # half of it is for what is cleared before
        for _ in range(2):  # the unit may be as the case before left it: another machine is not
            judged = self._carry_out(prepared)
            if judged.verdict is not Verdict.INCONCLUSIVE:
                return judged
            self.close()
        return None

    def _carry_out(self, prepared: Prepared) -> Judged:
        if self._guest is None:
            try:
                self._guest = ServingGuest(self._image, self._machine, self._clock)
            except KitError as error:
                raise TargetError(f"{self.name}: {error}") from error
        frames = prepared.frames | self._before
        self._before = prepared.frames
        received = self._guest.ask(prepared.program.pack(0, Reset.SOFTWARE, frames))
        if received is None:
            self.close()
            raise CaseFailedError("the machine hangs: nothing comes of this case")
        kit = prepared.kit_case(0, Reset.SOFTWARE)
        return judge(CaseResult(kit, Status(received.status), received.data))

    def close(self) -> None:
        """End the machine."""
        if self._guest is not None:
            self._guest.close()
            self._guest = None


class ServingGuest:
    """A started machine that waits for cases; KitError if it does not come so far."""

    def __init__(self, image: Image, machine: Machine, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._frames = Frames()
        self._waiting: list[Received] = []
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="vtd-kit-"))
            complaints = stack.enter_context(tempfile.TemporaryFile())
            command = command_in(Path(folder), image, machine)
            self._process = stack.enter_context(started(command, complaints, subprocess.PIPE))
            first = self._next(STARTING)
            if first is None or first.kind is not Kind.BEGIN:
                complaints.seek(0)
                said = complaints.read().decode("utf-8", "replace").strip().splitlines()
                why = said[-1] if said else "it said nothing"
                raise KitError(f"the machine did not start the image: {why}")
            check_machine(image, Begin.parse(first.data))
            self._image = image
            self._stack = stack.pop_all()

    def ask(self, case: bytes) -> Received | None:
        """What came of a packed case; None if the machine says nothing more."""
        assert self._process.stdin is not None
        end, sent = self._clock() + SILENCE, 0
        port = self._process.stdin.fileno()
        while sent < len(case):
            if self._clock() > end or not select.select([], [port], [], 1)[1]:
                if self._clock() > end:
                    return None
                continue
            try:
                sent += os.write(port, case[sent : sent + 4096])
            except BrokenPipeError:
                return None
        found = self._next(SILENCE)
        if found is not None:
            check_devices(self._image, [found])
        return found if found is not None and found.kind is Kind.CASE else None

    def _next(self, patience: float) -> Received | None:
        assert self._process.stdout is not None
        end = self._clock() + patience
        while not self._waiting and self._clock() < end:
            if not select.select([self._process.stdout], [], [], 0.5)[0]:
                continue
            data = os.read(self._process.stdout.fileno(), 1 << 16)
            if not data:
                return None
            self._waiting += self._frames.feed(data)
        return self._waiting.pop(0) if self._waiting else None

    def close(self) -> None:
        """End the machine."""
        self._stack.close()
