"""Making a kit: which cases can run on a machine, what may come of them, where all of it goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType
from typing import Any, NamedTuple

from pagetables.memory import BusError
from vtd.conformance.devices import REACHES, Numbered
from vtd.conformance.format import MOST_DEVICES, Driver, Mode, Op, Reset
from vtd.conformance.image import Image, KitError, make_image, occupied
from vtd.conformance.observing import Observed, observe
from vtd.conformance.probe import Probe
from vtd.conformance.program import Place, Program, Slot, UnfitError, program_of
from vtd.conformance.retargeting import retargeted
from vtd.fuzz.case import Case, Outcome, case_of
from vtd.fuzz.targets import EndlessError
from vtd.unit.caching.policy import AGGRESSIVE, KEEPS_STALE, UNCACHED, CachePolicy
from vtd.unit.departures import FLAGS, QEMU, Departures

FORMAT = "vtd-kit-1"
LOWEST_BASE = 0x10_0000
HIGHEST_END = 1 << 32
SERVING_BASE = 0x500_0000
"""Above what generated cases use."""
OPEN = tuple(each.name for each in FLAGS if each.permitted)
CHOICES = tuple(
    Departures(**dict.fromkeys(chosen, True))
    for size in range(len(OPEN) + 1)
    for chosen in combinations(OPEN, size)
)
"""What the specification leaves open, in every way to decide it."""
ERROR_RECORD = hex(0xB0)
Variant = tuple[CachePolicy, Departures]
VARIANTS: tuple[Variant, ...] = (
    (KEEPS_STALE, CHOICES[0]),
    (KEEPS_STALE, CHOICES[-1]),
    (AGGRESSIVE, CHOICES[0]),
    (AGGRESSIVE, CHOICES[-1]),
    (UNCACHED, CHOICES[0]),
)
"""What the specification allows: a unit may cache or not, and do what is left open."""
RECORDED: tuple[Variant, ...] = ((KEEPS_STALE, QEMU),)
"""What a recording of QEMU's unit was made of."""


class Wanted(NamedTuple):
    """A case that is to be in a kit."""

    name: str
    source: str
    """Where it comes from: ``recorded``, or a property of the fuzzer."""
    case: Case
    compared: frozenset[int] | None = None
    """The steps whose outcome counts; None for all."""
    cut: Mapping[str, int] = MappingProxyType({})
    """How many steps were cut out because devices there can't take them, by reason."""


class Left(NamedTuple):
    """A case that is not in a kit."""

    name: str
    why: str


@dataclass(frozen=True)
class KitCase:
    """A case of a kit, ready to be judged."""

    number: int
    name: str
    source: str
    case: Case
    allowed: list[list[Outcome]]
    """Outcomes that are right, by step; none where it is not compared."""
    vectors: dict[int, list[list[int]]]
    """Interrupts that are right to come up to a step since the last such, in order of vectors."""
    unsent: frozenset[int]
    slots: list[Slot]
    places: dict[int, Place]
    reset: Reset

    def to_json(self) -> Any:
        """As a document of an image has it."""
        return {
            "number": self.number,
            "name": self.name,
            "source": self.source,
            "case": {**self.case.head(), "about": self.case.rule, "steps": self.case.steps},
            "allowed": self.allowed,
            "vectors": {str(step): lists for step, lists in self.vectors.items()},
            "unsent": sorted(self.unsent),
            "slots": self.slots,
            "places": {str(step): place for step, place in self.places.items()},
            "reset": self.reset,
        }

    @classmethod
    def from_json(cls, raw: Any) -> KitCase:
        """The case in a document; KitError if it is none."""
        try:
            return cls(
                int(raw["number"]),
                str(raw["name"]),
                str(raw["source"]),
                case_of(raw["case"]),
                [list(each) for each in raw["allowed"]],
                {int(step): lists for step, lists in raw["vectors"].items()},
                frozenset(raw["unsent"]),
                [Slot(*each) for each in raw["slots"]],
                {int(step): Place(*place) for step, place in raw["places"].items()},
                Reset(raw["reset"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise KitError(f"a case with broken values: {error!r}") from error


@dataclass(frozen=True)
class Prepared:
    """A case with its program."""

    wanted: Wanted
    case: Case
    allowed: list[list[Outcome]]
    vectors: dict[int, list[list[int]]]
    unsent: frozenset[int]
    program: Program
    frames: set[int]
    undrained: bool
    """Whether it switches off a queue that is not empty, which software must not (6.5.2)."""

    def kit_case(self, number: int, reset: Reset) -> KitCase:
        """The same, ready to be judged."""
        return KitCase(
            number,
            self.wanted.name,
            self.wanted.source,
            self.case,
            self.allowed,
            self.vectors,
            self.unsent,
            self.program.slots,
            self.program.places,
            reset,
        )


class Builder:
    """Takes cases for one machine, and makes the image.

    ``overwrite``: NVMe disks may lose what they hold, and are left alone without. Without a reset
    cases only read registers, and need no device; a real machine gets no others.
    """

    def __init__(
        self, probe: Probe, *, reset: Reset = Reset.SOFTWARE, overwrite: bool = False
    ) -> None:
        if reset is not Reset.NONE and not probe.virtual:
            bases = ", ".join(f"{each.base:#x}" for each in probe.units)
            raise KitError(f"a real machine: --metal looks at one of its units, {bases}")
        self.probe = probe
        self._base = probe.unit.base
        self.reset = reset
        there = probe.devices()
        found = {
            source_id: device
            for source_id, device in there.items()
            if overwrite or device.driver != Driver.NVME
        }
        if not found and reset is not Reset.NONE:
            disks = ", ".join(f"{source_id:04x}h" for source_id in there)
            raise KitError(
                f"no device that does DMA on demand may be used: --overwrite allows disks {disks}"
                if disks
                else "no device that does DMA on demand: add edu devices, or NVMe with cmb_size_mb"
            )
        used = list(found.items())[:MOST_DEVICES]
        self.devices = [device for _, device in used]
        self.numbers = {
            source_id: Numbered(number, REACHES[device.driver])
            for number, (source_id, device) in enumerate(used)
        }
        self.left: list[Left] = []
        self._ready: list[Prepared] = []
        self._memory = probe.frames

    def add(self, wanted: Wanted, variants: Sequence[Variant] = VARIANTS) -> bool:
        """Take a case if it can run on this machine; else note why it can't."""
        try:
            self._ready.append(self.prepared(wanted, variants))
        except (UnfitError, EndlessError) as error:
            self.left.append(Left(wanted.name, str(error)))
            return False
        for why, steps in wanted.cut.items():
            self.left.append(Left(f"{wanted.name} without {steps} of its steps", why))
        return True

    def prepared(self, wanted: Wanted, variants: Sequence[Variant] = VARIANTS) -> Prepared:
        """The program of a case; UnfitError or EndlessError if it can't run on this machine."""
        try:
            return self._prepare(wanted, variants)
        except BusError as error:
            raise _lacking(error.address) from error

    def _prepare(self, wanted: Wanted, variants: Sequence[Variant]) -> Prepared:
        case = wanted.case
        unit, here = case.capabilities, self.probe.capabilities
        only_reads = all(step["op"] == "reg_read" for step in case.steps)
        if self.reset is Reset.NONE and not only_reads:
            raise UnfitError("does more than read registers")
        if (unit.version, unit.cap, unit.ecap) != (here.version, here.cap, here.ecap):
            raise UnfitError("made for a unit with other capabilities")
        if unit.host_address_width != here.host_address_width:
            raise UnfitError(f"made for a host address width of {unit.host_address_width}")
        numbers = {
            name: self.numbers[source_id]
            for name, source_id in case.devices
            if source_id in self.numbers
        }
        program_of(case, numbers, {})  # before the model is asked for anything
        case, unsent = retargeted(case, variants[0][1])
        runs = [observe(case, *variant) for variant in variants]
        if variants is VARIANTS and runs[0].outcomes != runs[1].outcomes:
            runs += [observe(case, KEEPS_STALE, choice) for choice in CHOICES[1:-1]]
        frames = set().union(*(run.frames for run in runs))
        queue = runs[0].queue
        if queue is not None:
            frames |= set(range(queue.start >> 12, queue.stop >> 12))
        stored = set().union(*(frames for run in runs for frames in run.stored))
        outside = sorted(frame for frame in frames | stored if not self._holds(frame))
        if outside:
            raise _lacking(outside[0] << 12)
        looked = [] if self.reset is Reset.NONE else _looked(case, runs)
        waited = {step: max(map(len, vectors_of(runs, looked)[step])) for step in looked}
        program = program_of(case, numbers, waited, unsent)
        if queue is not None:
            program.add(Op.DRAIN, address=queue.start)
        return Prepared(
            wanted,
            case,
            [_allowed(wanted, number, runs, unsent) for number in range(len(case.steps))],
            vectors_of(runs, looked),
            unsent,
            program,
            frames,
            runs[0].undrained is not None,
        )

    def _holds(self, frame: int) -> bool:
        return any(each.start <= frame < each.stop for each in self._memory)

    def image(self) -> Image:
        """The image of all cases; KitError if there is none, or no room for it."""
        if not self._ready:
            why = Counter(left.why for left in self.left).most_common(1)
            raise KitError(f"no case can run there{f': {why[0][0]}' if why else ''}")
        program = b"".join(self._programs())
        output = max(each.program.output for each in self._ready)
        base = self._place(occupied(len(program), output))
        cases = [
            each.kit_case(number, self.reset).to_json() for number, each in enumerate(self._ready)
        ]
        document = {
            "format": FORMAT,
            "unit": self._unit(),
            "cases": cases,
            "left": [left._asdict() for left in self.left],
        }
        return make_image(
            Mode.CASES,
            base,
            program,
            cases=len(cases),
            unit=self._base,
            devices=self.devices,
            document=document,
        )

    def _programs(self) -> Iterator[bytes]:
        """Each case on cleared memory: also where only a unit that is wrong would look."""
        before: set[int] = set()
        for number, each in enumerate(self._ready):
            yield each.program.pack(number, self.reset, each.frames | before)
            before = each.frames

    def _unit(self) -> dict[str, str]:
        unit = self.probe.capabilities
        return {
            "version": hex(unit.version),
            "capability": hex(unit.cap),
            "extended_capability": hex(unit.ecap),
        }

    def serving_image(self, room: int) -> Image:
        """An image that is sent its cases, each with a program and an output of ``room`` bytes.

        Its memory is no case's from now on. KitError if there is none for it.
        """
        size = occupied(room, room)
        base = self._place(size, SERVING_BASE)
        kit = range(base >> 12, (base + size) >> 12)
        self._memory = [
            part
            for each in self._memory
            for part in (
                range(each.start, min(each.stop, kit.start)),
                range(max(each.start, kit.stop), each.stop),
            )
            if part
        ]
        return make_image(
            Mode.SERVE,
            base,
            bytes(room),
            unit=self._base,
            devices=self.devices,
            document={"format": FORMAT, "unit": self._unit()},
        )

    def _place(self, size: int, lowest: int = LOWEST_BASE) -> int:
        """The lowest address with so much memory below 4 GiB that no case looks at."""
        used = set().union(*(each.frames for each in self._ready))
        wanted = size + 4095 >> 12
        for span in self._memory:
            start = max(span.start, lowest >> 12)
            while start + wanted <= min(span.stop, HIGHEST_END >> 12):
                taken = [frame for frame in range(start, start + wanted) if frame in used]
                if not taken:
                    return start << 12
                start = taken[-1] + 1
        raise KitError(f"no {size >> 10} KiB of memory to spare beside the cases")


def _lacking(address: int) -> UnfitError:
    """Why a case can't run that needs memory which is not there: cases that need like are one."""
    place = f"{address >> 30} GiB" if address >> 30 else f"{address >> 20} MiB"
    return UnfitError(f"needs memory at {place}, which the machine does not have")


def _looked(case: Case, runs: Sequence[Observed]) -> list[int]:
    """The steps after which interrupts are looked for: whenever one may have come, and last."""
    last = len(case.steps) - 1
    return [
        number
        for number, step in enumerate(case.steps)
        if step["op"] in ("msi", "events")
        or number == last
        or any(run.delivered[number] or run.events[number] for run in runs)
    ]


def vectors_of(runs: Sequence[Observed], looked: Sequence[int]) -> dict[int, list[list[int]]]:
    """By step of ``looked``: the vectors that may have come since the one before."""
    found: dict[int, list[list[int]]] = {}
    before = 0
    for step in looked:
        lists: list[list[int]] = []
        for run in runs:
            came = [each for number in range(before, step + 1) for each in _both(run, number)]
            if sorted(came) not in lists:
                lists.append(sorted(came))
        found[step] = lists
        before = step + 1
    return found


def _both(run: Observed, number: int) -> Iterator[int]:
    for interrupt in (*run.delivered[number], *run.events[number]):
        yield interrupt.vector


def _allowed(
    wanted: Wanted, number: int, runs: Sequence[Observed], unsent: frozenset[int]
) -> list[Outcome]:
    """The different outcomes of a step; what can't be seen in a guest is not compared."""
    step = wanted.case.steps[number]
    if step["op"] in ("dma_write", "events") or number in unsent:
        return []
    if wanted.compared is not None and number not in wanted.compared:
        return []
    return different(wanted.case, number, runs)


def different(case: Case, number: int, runs: Sequence[Observed]) -> list[Outcome]:
    """The different outcomes of a step.

    IQERCD_REG means something after an error only, and keeps it through a reset by software. A unit
    of version 1 need not have it, as later revisions brought it: it may read 0.
    """
    found: list[Outcome] = []
    for run in runs:
        outcome = reduced(run.outcomes[number])
        if outcome is not None and outcome not in found:
            found.append(outcome)
    if case.steps[number].get("offset") == ERROR_RECORD:
        old = case.capabilities.version >> 4 <= 1
        return [] if 0 in found else [*found, *([0] if old else [])]
    return found


def reduced(outcome: Outcome) -> Outcome:
    """An outcome without what a guest can't see of an interrupt."""
    if isinstance(outcome, dict) and "delivered" in outcome:
        return {"delivered": {"vector": outcome["delivered"]["vector"]}}
    return outcome
