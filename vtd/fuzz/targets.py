"""Who carries out a case: the engine, the slow oracle, or an implementation outside.

A target takes a whole case and gives one outcome for each step; None where it can't tell, which is
then not compared. ``vtd.fuzz.qemu`` is one more.
"""

from __future__ import annotations

import ctypes
import json
import shlex
import signal
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pagetables.observer import Structure
from vtd.fuzz.case import Case, Json, Outcome, Step
from vtd.fuzz.oracle import SlowUnit
from vtd.fuzz.time_limits import OutOfTimeError
from vtd.recordings.scenario import ScenarioRun
from vtd.unit.caching.policy import KEEPS_STALE, UNCACHED, CachePolicy
from vtd.unit.departures import QEMU, SPECIFICATION, Departures
from vtd.unit.observer import Observer
from vtd.unit.registers.capabilities import PROFILES

if TYPE_CHECKING:
    from hypothesis import strategies as st


class TargetError(Exception):
    """A target that can't be started, died, or answers something that is no answer."""


class CaseFailedError(Exception):
    """A target that works died over one case, took too long, or answered what is no answer."""


class FuzzTarget(Protocol):
    """Anything that carries out cases."""

    @property
    def name(self) -> str: ...

    def run(self, case: Case) -> list[Outcome]:
        """The outcome of each step; TargetError if the target fails as a whole."""
        ...

    def close(self) -> None:
        """Give back what the target holds."""
        ...


class JudgingTarget(ABC):
    """A target that makes cases for itself and judges them: a machine with a unit of its own."""

    name: str
    properties: tuple[str, ...]
    """What it can be asked."""

    @abstractmethod
    def cases(self, name: str) -> st.SearchStrategy[Case]:
        """The cases of a property."""

    @abstractmethod
    def check(self, case: Case) -> None:
        """Violation if the outcome is not right; CaseFailedError if the target fails over it."""

    @abstractmethod
    def run(self, case: Case) -> list[Outcome]:
        """The outcome of each step."""

    @abstractmethod
    def close(self) -> None:
        """Give back what the target holds."""


class Difference(NamedTuple):
    """A step whose outcome differs between two targets."""

    number: int
    step: Step
    one: Outcome
    other: Outcome

    def __str__(self) -> str:
        what = " ".join(str(self.step.get(key, "")) for key in ("op", "device", "iova", "offset"))
        return f"step {self.number} ({' '.join(what.split())}): {self.one} and {self.other}"


def compare(case: Case, one: Sequence[Outcome], other: Sequence[Outcome]) -> list[Difference]:
    """The steps with two different outcomes, both known."""
    return [
        Difference(number, step, first, second)
        for number, (step, first, second) in enumerate(zip(case.steps, one, other, strict=True))
        if first is not None and second is not None and first != second
    ]


class EndlessError(Exception):
    """The engine goes on and on: a case took it more memory accesses than any case can."""


@dataclass
class LimitAccesses(Observer):
    """Ends what would never end."""

    left: int

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        """One access of them."""
        self._spend(structure, address)

    def update(self, structure: Structure, address: int, size: int, old: int, new: int) -> None:
        """One access of them."""
        self._spend(structure, address)

    def _spend(self, structure: Structure, address: int) -> None:
        """Raise EndlessError once the accesses are used up."""
        self.left -= 1
        if self.left < 0:
            raise EndlessError(
                f"no end of accesses, the last one: {structure.value} at {address:#x}"
            )


MOST_ACCESSES = 100_000
"""Accesses of the engine in one case, far more than the longest one needs."""


class EngineTarget:
    """The engine, with any cache policy and departures from the specification.

    EndlessError instead of an outcome if a case would keep it busy for ever.
    """

    def __init__(
        self, policy: CachePolicy = KEEPS_STALE, *, departures: Departures = SPECIFICATION
    ) -> None:
        self.name = "engine"
        self._policy = policy
        self._departures = departures

    def run(self, case: Case) -> list[Outcome]:
        """The outcome of each step."""
        run = self.start(case)
        return [run.step(step)[1] for step in case.steps]

    def start(self, case: Case) -> ScenarioRun:
        """The platform of a case, before its first step."""
        run = ScenarioRun(case.head(), departures=self._departures, caches=self._policy)
        run.unit.observe(LimitAccesses(MOST_ACCESSES))
        return run

    def close(self) -> None:
        """Nothing to give back."""


def engine_as_qemu() -> EngineTarget:
    """The engine as :class:`vtd.fuzz.qemu.QemuTarget` has QEMU.

    Translation is switched off before each of its requests, so nothing is cached, and no device
    stays passed through.
    """
    return EngineTarget(UNCACHED, departures=replace(QEMU, keep_pass_through=False))


class OracleTarget:
    """The slow oracle."""

    def __init__(self) -> None:
        self.name = "oracle"

    def run(self, case: Case) -> list[Outcome]:
        """The outcome of each step."""
        unit = SlowUnit(case)
        return [unit.step(step) for step in case.steps]

    def close(self) -> None:
        """Nothing to give back."""


LIMIT = 10.0
"""Seconds that a program has for one case."""
PATIENCE = 0.3
"""Seconds that it has to end when its input does."""
LONGEST_ANSWER = 64 << 20
"""Characters of one answer."""


class CommandTarget:
    """A program that reads a case as one line of JSON and answers with one line of JSON.

    It gets ``{"unit": ..., "memory": ..., "devices": ..., "steps": [...]}`` as in scenario files,
    and answers ``{"outcomes": [...]}``, null where it can't tell. It ends when its input does.
    ``expired`` is asked meanwhile whether there is any time left.
    """

    profiles = tuple(PROFILES)
    """Units that it is asked to be."""

    def __init__(self, command: str, *, limit: float = LIMIT) -> None:
        self.name = command
        self._arguments = shlex.split(command)
        self._limit = limit
        self.expired: Callable[[], bool] = lambda: False
        self._process = self._started()

    def _started(self) -> subprocess.Popen[str]:
        try:
            return subprocess.Popen(
                self._arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        except (OSError, ValueError) as error:
            raise TargetError(
                f"{self.name}: can't be started: {getattr(error, 'strerror', None) or error}"
            ) from error

    def run(self, case: Case) -> list[Outcome]:
        """The outcomes that the program answers with.

        CaseFailedError if it fails over this case; it is started anew then. TargetError if it fails
        over any. OutOfTimeError if it was stopped because time is up.
        """
        try:
            return self._answer({**case.head(), "steps": case.steps}, len(case.steps))
        except OutOfTimeError:
            self._end()
            self._process = self._started()
            raise
        except CaseFailedError:
            self._end()
            self._process = self._started()
            try:
                self._answer({**case.head(), "steps": []}, 0)
            except CaseFailedError as error:
                raise TargetError(f"{self.name}: fails without any step: {error}") from error
            raise

    def _answer(self, question: Json, steps: int) -> list[Outcome]:
        done = threading.Event()
        stopped: list[Exception] = []
        watch = threading.Thread(target=self._watch, args=(done, stopped), daemon=True)
        watch.start()
        try:
            line = self._exchange(json.dumps(question) + "\n")
        finally:
            done.set()
            watch.join()
        if stopped:
            raise stopped[0]
        if not line.endswith("\n"):
            raise CaseFailedError(_ending(self._process.wait()))
        try:
            outcomes = json.loads(line)["outcomes"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise CaseFailedError(f"answered {line[:200]!r}") from error
        if not isinstance(outcomes, list) or len(outcomes) != steps:
            raise CaseFailedError(f"not one outcome for each of {steps} steps")
        return outcomes

    def _watch(self, done: threading.Event, stopped: list[Exception]) -> None:
        """End the program if it takes too long, and say why."""
        end = time.monotonic() + self._limit
        while not done.wait(min(0.1, max(end - time.monotonic(), 0))):
            if self.expired():
                stopped.append(OutOfTimeError())
            elif time.monotonic() >= end:
                stopped.append(CaseFailedError(f"no answer in {self._limit:g} seconds"))
            else:
                continue
            self._process.kill()
            return

    def _exchange(self, question: str) -> str:
        """The line that the program answers with; less than a line if it ends."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(question)
            self._process.stdin.flush()
            return self._process.stdout.readline(LONGEST_ANSWER)
        except (OSError, UnicodeDecodeError):
            return ""

    def _end(self) -> None:
        self._process.kill()
        self.close()

    def close(self) -> None:
        """End the program."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _ending(code: int) -> str:
    if code < 0:
        return f"ended by signal {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


class LibraryProcess(CommandTarget):
    """A shared library in a process of its own, which a crash of it does not take along."""

    profiles = ("qemu", "client", "openvmm")

    def __init__(self, path: str, *, limit: float = LIMIT) -> None:
        LibraryTarget(path)  # or it is told at once what is wrong with it
        super().__init__(
            shlex.join([sys.executable, "-m", "vtd.fuzz.library_runner", path]), limit=limit
        )
        self.name = path


NO_PASID = 0xFFFF_FFFF


class LibraryTarget:
    """A shared library with the functions that ``docs/fuzzing.md`` declares."""

    def __init__(self, path: str) -> None:
        self.name = path
        try:
            self._library = ctypes.CDLL(path)
            for name, (result, arguments) in _FUNCTIONS.items():
                function = getattr(self._library, name)
                function.restype, function.argtypes = result, arguments
        except (OSError, AttributeError) as error:
            raise TargetError(f"{path}: {error}") from error
        self._steps: dict[str, Callable[[Any, Case, Step], Outcome]] = {
            "mem_write": self._mem_write,
            "reg_write": self._reg_write,
            "reg_read": self._reg_read,
            "dma_read": self._dma_read,
            "dma_write": self._dma_write,
        }

    def run(self, case: Case) -> list[Outcome]:
        """The outcome of each step; None for those that the functions don't cover."""
        unit = case.capabilities
        handle = self._library.vtd_new(unit.version, unit.cap, unit.ecap, unit.host_address_width)
        if not handle:
            raise TargetError(f"{self.name}: vtd_new returned no unit")
        try:
            for start, length in case.memory:
                self._library.vtd_add_memory(handle, start, length)
            return [self._step(handle, case, step) for step in case.steps]
        finally:
            self._library.vtd_free(handle)

    def _step(self, handle: Any, case: Case, step: Step) -> Outcome:
        carry_out = self._steps.get(step["op"])
        return None if carry_out is None else carry_out(handle, case, step)

    def _mem_write(self, handle: Any, _: Case, step: Step) -> None:
        data = bytes.fromhex(step["hex"])
        self._library.vtd_store(handle, int(step["addr"], 0), data, len(data))

    def _reg_write(self, handle: Any, _: Case, step: Step) -> None:
        value = int(step["value"], 0)
        self._library.vtd_write_register(handle, int(step["offset"], 0), step["size"], value)

    def _reg_read(self, handle: Any, _: Case, step: Step) -> Outcome:
        value = ctypes.c_uint64()
        offset = int(step["offset"], 0)
        known = self._library.vtd_read_register(handle, offset, step["size"], ctypes.byref(value))
        return value.value & int(step["mask"], 0) if known else None

    def _dma_read(self, handle: Any, case: Case, step: Step) -> Outcome:
        data = ctypes.create_string_buffer(step["length"])
        if not self._dma(handle, case, step, 0, data):
            return {"fault": True}
        return {"data": data.raw.hex()}

    def _dma_write(self, handle: Any, case: Case, step: Step) -> Outcome:
        data = ctypes.create_string_buffer(bytes.fromhex(step["hex"]), step["length"])
        return {"ok": True} if self._dma(handle, case, step, 1, data) else {"fault": True}

    def _dma(self, handle: Any, case: Case, step: Step, write: int, data: Any) -> int:
        pasid = int(step["pasid"], 0) if "pasid" in step else NO_PASID
        source_id = dict(case.devices)[step["device"]]
        address = int(step["iova"], 0)
        length = step["length"]
        done: int = self._library.vtd_dma(handle, source_id, pasid, address, write, data, length)
        return done

    def close(self) -> None:
        """Nothing to give back: a library stays loaded."""


_U32, _U64, _HANDLE = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "vtd_new": (_HANDLE, [_U32, _U64, _U64, _U32]),
    "vtd_free": (None, [_HANDLE]),
    "vtd_add_memory": (None, [_HANDLE, _U64, _U64]),
    "vtd_store": (None, [_HANDLE, _U64, ctypes.c_char_p, _U64]),
    "vtd_write_register": (None, [_HANDLE, _U32, _U32, _U64]),
    "vtd_read_register": (ctypes.c_int, [_HANDLE, _U32, _U32, ctypes.POINTER(_U64)]),
    "vtd_dma": (
        ctypes.c_int,
        [_HANDLE, _U32, _U32, _U64, ctypes.c_int, ctypes.c_void_p, _U64],
    ),
}
