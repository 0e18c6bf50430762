"""Sections of the specification, and how a unit did in the cases that touch each.

Which ones a case touches is what the model meets in it: entries and descriptors that it reads,
registers that are looked at, fault conditions. Left out: whether a case is enough of a test of a
section; a case may fail for one and touch others.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from devices.dma import Request
from pagetables.bits import BitRecord
from pagetables.observer import Structure
from vtd.conformance.judgement import Judged, Verdict
from vtd.conformance.score import SECTIONS
from vtd.fuzz.case import Case
from vtd.fuzz.targets import EngineTarget
from vtd.layouts import entries, interrupt_entries
from vtd.layouts.descriptors import DESCRIPTORS, DescriptorType, type_of
from vtd.layouts.registers import TranslationTableMode
from vtd.unit.caching.policy import KEEPS_STALE
from vtd.unit.departures import SPECIFICATION
from vtd.unit.implementation import implementation_registers
from vtd.unit.observer import Observer
from vtd.unit.registers.register_map import register_map
from vtd.unit.requests.faults import FaultReason
from vtd.unit.unit import RemappingUnit

NUMBER = re.compile(r"\d+(?:\.\d+)+")


_MNEMONICS = ("Pasid", "Iotlb", "Irte")


class Section(NamedTuple):
    """A section, and the capability without which it says nothing about a unit."""

    number: str
    title: str
    needs: str = ""

    @property
    def order(self) -> tuple[int, ...]:
        """Where it comes in the specification."""
        return tuple(map(int, self.number.split(".")))


def section_of(record: type[BitRecord], needs: str = "") -> Section:
    """The section that a record names first in its docstring."""
    found = NUMBER.search(record.__doc__ or "")
    assert found is not None, record
    words = re.sub(r"(?<!^)(?=[A-Z])", " ", record.__name__).split()
    title = " ".join(word.upper() if word in _MNEMONICS else word for word in words)
    return Section(found.group(), title, needs)


_OF_STRUCTURE = {
    (Structure.ROOT, False): section_of(entries.RootEntry),
    (Structure.ROOT, True): section_of(entries.ScalableRootEntry, "smts"),
    (Structure.CONTEXT, False): section_of(entries.ContextEntry),
    (Structure.CONTEXT, True): section_of(entries.ScalableContextEntry, "smts"),
    (Structure.PASID_DIRECTORY, True): section_of(entries.PasidDirectoryEntry, "smts"),
    (Structure.PASID, True): section_of(entries.PasidEntry, "smts"),
    (Structure.FIRST_STAGE, True): Section("9.7", "First Stage Entry", "fsts"),
    (Structure.SECOND_STAGE, False): Section("9.8", "Second Stage Entry"),
    (Structure.SECOND_STAGE, True): Section("9.8", "Second Stage Entry"),
    **{
        (kind, scalable): section_of(record, needs)
        for kind, record, needs in (
            (Structure.INTERRUPT_ENTRY, interrupt_entries.RemappedIrte, "ir"),
            (Structure.POSTED_DESCRIPTOR, interrupt_entries.PostedInterruptDescriptor, "pi"),
        )
        for scalable in (False, True)
    },
}
"""By the structure, and whether translation is in scalable mode."""
_PASS_THROUGH = Section("3.9", "Pass Through", "pt")
_FAULTS = Section("7.1.3", "Fault Conditions")
_INTERRUPT_FAULTS = Section("5.1.4.1", "Interrupt Fault Conditions", "ir")
_ELSEWHERE = (
    Section("3.10", "Snoop Behavior", "smts"),
    Section("5.1.3", "Interrupt Remapping Table", "ir"),
    Section("5.1.4", "Interrupt Remapping Operation", "ir"),
    Section("7.1.1", "Fault Processing Disable"),
    Section("7.2.1", "Primary Fault Logging"),
)
"""Sections of departures about which no structure or register tells."""
_CAUSES = {
    name: NUMBER.findall(where.partition(", Table")[0]) for name, (where, _) in SECTIONS.items()
}
"""Numbers of sections, by departure."""


class _Met(Observer):
    """Collects the sections that a unit meets."""

    def __init__(self, unit: RemappingUnit) -> None:
        self._unit = unit
        self.sections: set[Section] = set()
        unit.observe(self)

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        """An entry or descriptor."""
        if structure is Structure.QUEUE_DESCRIPTOR:
            kind = type_of(value & (1 << 128) - 1)
            if kind in DESCRIPTORS:
                record = DESCRIPTORS[DescriptorType(kind)]
                self.sections.add(section_of(record, "qi" if record.WIDTH == 128 else "smts"))
            return
        scalable = self._unit.remapping.mode is TranslationTableMode.SCALABLE
        if (structure, scalable) in _OF_STRUCTURE:
            self.sections.add(_OF_STRUCTURE[structure, scalable])
        if structure is Structure.CONTEXT and not scalable:
            passed = entries.ContextEntry(value).tt == entries.TranslationType.PASS_THROUGH
        else:
            kind = entries.PasidTranslationType.PASS_THROUGH
            passed = structure is Structure.PASID and entries.PasidEntry(value).pgtt == kind
        if passed:
            self.sections.add(_PASS_THROUGH)

    def fault(self, request: Request, reason: FaultReason) -> None:
        """A condition of Table 30, or one of Table 15."""
        self.sections.add(_FAULTS if reason.condition else _INTERRUPT_FAULTS)


def sections_of(case: Case) -> set[Section]:
    """What a case touches, by the model."""
    run = EngineTarget(KEEPS_STALE, departures=SPECIFICATION).start(case)
    met = _Met(run.unit)
    unit = case.capabilities
    places = register_map(unit.features, unit.cap, unit.ecap, implementation_registers(unit))
    for step in case.steps:
        run.step(step)
        if step["op"] == "reg_read":
            offset, end = int(step["offset"], 0), int(step["offset"], 0) + step["size"]
            met.sections |= {
                section_of(register, register.NEEDS or "")
                for (register, _), place in places.items()
                if place < end and offset < place + register.WIDTH // 8
            }
    return met.sections


class SectionRow(NamedTuple):
    """How the cases that touch a section ended."""

    section: str
    title: str
    needs: str
    """The capability that it is about; empty for what every unit has."""
    cases: int
    passed: int
    failed: int
    """For a departure from this section, alone or with others."""
    elsewhere: int
    """They fail for departures from other sections alone."""
    unexplained: int
    inconclusive: int
    causes: tuple[str, ...]
    """The departures."""


def section_rows(judged: Iterable[Judged]) -> list[SectionRow]:
    """A row for each section that any case touches, in the specification's order."""
    known = {each.number: each for each in (_FAULTS, *_ELSEWHERE, *_OF_STRUCTURE.values())}
    counts: dict[Section, Counter[str]] = {}
    causes: dict[Section, dict[str, None]] = {}
    for each in judged:
        if each.result is None:
            continue
        touched = {section.number: section for section in sections_of(each.result.case.case)}
        blamed: dict[str, list[str]] = {}
        for cause in each.causes:
            numbers = _CAUSES[cause]
            for number in [one for one in numbers if one in touched] or numbers[:1]:
                blamed.setdefault(number, []).append(cause)
                touched.setdefault(number, known.get(number, Section(number, "")))
        for number, section in touched.items():
            counts.setdefault(section, Counter())[_ending(each, number in blamed)] += 1
            causes.setdefault(section, {}).update(dict.fromkeys(blamed.get(number, ())))
    return [
        _row(section, counts[section], tuple(causes[section]))
        for section in sorted(counts, key=lambda each: each.order)
    ]


def _ending(judged: Judged, blamed: bool) -> str:
    if judged.unexplained:
        return "unexplained"
    if judged.verdict is Verdict.FAILED:
        return "failed" if blamed else "elsewhere"
    return str(judged.verdict)


def _row(section: Section, count: Counter[str], causes: tuple[str, ...]) -> SectionRow:
    return SectionRow(
        section.number,
        section.title,
        section.needs.upper(),
        count.total(),
        count["passed"],
        count["failed"],
        count["elsewhere"],
        count["unexplained"],
        count["inconclusive"],
        causes,
    )


def section_lines(rows: Sequence[SectionRow]) -> Iterator[str]:
    """For people."""
    width = max((len(each.title) for each in rows), default=0)
    yield f"{'section':{width + 10}} needs  cases   pass   fail  fail for another section"
    for each in rows:
        more = f", {each.unexplained} unexplained" if each.unexplained else ""
        more += f", {each.inconclusive} inconclusive" if each.inconclusive else ""
        why = f": {', '.join(each.causes)}" if each.causes else ""
        yield (
            f"{each.section:9} {each.title:{width}} {each.needs:5} {each.cases:6} {each.passed:6} "
            f"{each.failed:6} {each.elsewhere:6}{more}{why}"
        )
