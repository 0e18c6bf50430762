"""What software owes after a change of what a cache may hold, and how the debt was judged.

VT-d 6.5.3. A :class:`Debt` names the change, the cached entry, the invalidation that would have
paid, and the section. Left out: finding them, which :mod:`vtd.auditing.audit` does.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from devices.source_id import SourceId
from pagetables.observer import Structure
from vtd.layouts.entries import PasidEntry, PasidTranslationType
from vtd.severity import ERROR, INFO, WARNING, Severity
from vtd.software.invalidation_rules import Rule
from vtd.unit.observer import CacheName


class Kind(Enum):
    """How a debt was judged; the value is what it is called."""

    MISSING = "missing", ERROR
    """Used, or the page used again, after the point where it had to be paid."""
    WRONG_ORDER = "wrong order", ERROR
    """Paid before the invalidation of a cache that the entry can be made from again."""
    NOT_WAITED_FOR = "not waited for", ERROR
    """A page or table was used again before a wait descriptor said that nobody has it."""
    SHARED_DOMAIN = "shared domain-id", ERROR
    """One domain-id stands for several tables: no invalidation helps."""
    DISAGREEMENT = "disagreement", ERROR
    """Entries that share tables want them used in different ways."""
    NOT_DRAINED = "not drained", ERROR
    """A page was used again while requests to it may have been under way."""
    TORN = "torn", ERROR
    """A present entry was changed by several stores: inconsistent in between."""
    PAGE_REQUEST = "page request", ERROR
    """A response that answers nothing, or a PASID that was given away while a group waited."""
    TIMED_OUT = "timed out", ERROR
    """Paid at or behind a device-TLB invalidation that timed out, and not again (6.5.2.11)."""
    UNFLUSHED = "unflushed", ERROR
    """Read without the latest store, which waits in a cache line or a write buffer."""
    NO_FUNCTION = "no PFSID", WARNING
    """A device-TLB invalidation counts against no function, where the unit throttles by it."""
    UNPAID = "unpaid", WARNING
    """Not used any more, and not paid at the end."""
    WINDOW = "in the window", INFO
    """Used between the change and the invalidation that followed: legal (6.5.3.6)."""

    def __init__(self, title: str, severity: Severity) -> None:
        self.title = title
        self.severity = severity


class Pointer(Enum):
    """Where tables begin, as far as that is no structure in memory."""

    ROOT = "RTADDR_REG"
    INTERRUPT = "IRTA_REG"


Origin = Structure | Pointer
"""What software changed."""


class Word(NamedTuple):
    """What an entry came from: a record in memory, or a pointer register."""

    structure: Origin
    address: int
    """Of the record; 0 for a register."""
    size: int
    """Bytes; 0 where the record is not in memory."""
    value: int
    mask: int
    """The bits that count."""


class Owner(NamedTuple):
    """The tags of a cache entry, as far as it has them."""

    source_id: int | None = None
    domain_id: int | None = None
    pasid: int | None = None
    address: int | None = None
    """Input address; the index in the interrupt entry cache."""
    kind: PasidTranslationType | None = None
    mask: int = 0
    """Address mask that the page needs: 9 for 2 MiB, 18 for 1 GiB (6.5.3.2)."""

    def __str__(self) -> str:
        known = (
            ("source", None if self.source_id is None else str(SourceId(self.source_id))),
            ("domain", self.domain_id),
            ("PASID", None if self.pasid is None else hex(self.pasid)),
            ("address", None if self.address is None else hex(self.address)),
        )
        return ", ".join(f"{name} {value}" for name, value in known if value is not None)


class Debt(NamedTuple):
    """A cached entry, what software changed of what it came from, and what was owed for that."""

    kind: Kind
    cache: CacheName
    owner: Owner
    changed: Word
    """The word as the entry knows it."""
    now: int | None
    """What it holds now; None where there is no memory any more."""
    writer: str | None
    """Who stored it: a line of a log, or the calls that led there."""
    missing: str
    """The invalidation that would have removed the entry."""
    section: str
    rule: Rule | None = None
    early: str = ""
    """The invalidation that came too early, where the order is wrong."""
    inferred: str | None = None
    """What it was inferred from, where the change of the word itself was not seen."""

    @property
    def title(self) -> str:
        """What the verdict is called."""
        return self.kind.title

    @property
    def severity(self) -> Severity:
        return self.kind.severity

    def __str__(self) -> str:
        word, now = self.changed, "gone" if self.now is None else f"{self.now:#x}"
        where = f" at {word.address:#x}" if word.size else ""
        by = f" by {self.writer}" if self.writer else ""
        change = f"the {word.structure.value}{where} changed from {word.value:#x} to {now}{by}"
        entry = f"{self.cache.value} entry ({self.owner})"
        if self.inferred is not None:
            return (
                f"{entry} from the {word.structure.value}{where} used: {self.inferred}: missing "
                f"{self.missing} (VT-d {self.section})"
            )
        match self.kind:
            case Kind.SHARED_DOMAIN:
                text = f"domain-id {self.owner.domain_id} stands for {self.missing}"
            case Kind.TORN | Kind.PAGE_REQUEST | Kind.NO_FUNCTION | Kind.DISAGREEMENT:
                text = self.missing
            case Kind.UNFLUSHED:
                text = (
                    f"{word.structure.value}{where} read as {word.value:#x}, stored as {now}{by}: "
                    f"missing {self.missing}"
                )
            case Kind.NOT_WAITED_FOR:
                text = f"{self.missing} was used again before a wait descriptor completed: {change}"
            case Kind.NOT_DRAINED:
                text = (
                    f"{entry}: its page was used again after {change}, and requests may have been "
                    f"under way: missing {self.missing}"
                )
            case Kind.WRONG_ORDER if self.rule is Rule.HPT_REDUCED:
                text = (
                    f"{entry} is outdated since {change}: {self.early} came before {self.missing}, "
                    "which it has to follow"
                )
            case Kind.WRONG_ORDER:
                text = (
                    f"{entry} may have been made again after {change}: {self.early} came before "
                    f"what it has to follow; {self.missing} is owed once more"
                )
            case Kind.TIMED_OUT:
                text = (
                    f"{entry} may be there still after {change}: {self.missing} came no sooner "
                    "than a device-TLB invalidation that timed out, and is owed once more"
                )
            case Kind.UNPAID:
                text = f"{entry} is outdated since {change}: {self.missing} was not given"
            case Kind.WINDOW:
                text = f"{entry} used after {change}, before {self.missing}"
            case _:
                text = f"{entry} used after {change}: missing {self.missing}"
        return f"{text} (VT-d {self.section})"


def owed_for(
    cache: CacheName, owner: Owner, word: Word, now: int | None, *, reuse: bool = False
) -> tuple[Rule, str]:
    """The rule that a change breaks unless it is paid, and the invalidation that pays, in words.

    ``reuse``: not the word changed, but the domain-id of the entry stands for another table.
    """
    rule = Rule.DOMAIN_REUSE_IOTLB if reuse else _rule(cache, word, now)
    return rule, _invalidation(rule, cache, owner)


def _rule(cache: CacheName, word: Word, now: int | None) -> Rule:
    structure = word.structure
    if cache is CacheName.HOST_PERMISSION_TABLE:
        cache = CacheName.HOST_PERMISSION
    by_cache = _RULES.get((structure, cache))
    if by_cache is not None:
        return by_cache
    if structure is Structure.PASID and cache is not CacheName.HOST_PERMISSION:
        whole = cache is CacheName.SECOND_STAGE or _needs_domain(word, now)  # Table 24
        return Rule.PASID_ENTRY_DOMAIN_IOTLB if whole else Rule.PASID_ENTRY_IOTLB
    return _OTHERS.get(structure, Rule.SECOND_STAGE_IOTLB)


def _needs_domain(word: Word, now: int | None) -> bool:
    """Whether a PASID entry with a second stage lost P or got SSADE (Table 28)."""
    before, after = PasidEntry(word.value), PasidEntry(now or 0)
    second = before.pgtt in (PasidTranslationType.SECOND_STAGE, PasidTranslationType.NESTED)
    return second and (not after.p or (after.ssade and not before.ssade))


def _invalidation(rule: Rule, cache: CacheName, owner: Owner) -> str:
    name, granularity = rule.descriptor, rule.granularity
    if cache is CacheName.DEVICE_TLB:
        source = SourceId(owner.source_id or 0)
        tag = "dev_tlb_inv of" if owner.pasid is None else "p_dev_tlb_inv of"
        pasid = "" if owner.pasid is None else f", PASID {owner.pasid:#x}"
        pages = f", {_pages(owner)}" if granularity == "page-selective" else ""
        return f"{tag} {source}{pasid}{pages}"
    if granularity == "global":
        return f"global {name}"
    if name == "iec_inv":
        return f"iec_inv of index {owner.address}"
    return f"{granularity} {name} of {_operands(rule, cache, owner)}"


def _operands(rule: Rule, cache: CacheName, owner: Owner) -> str:
    """What a cc_inv, pc_inv, iotlb_inv, p_iotlb_inv or hpt_inv has to name."""
    domain, pasid = f"domain {owner.domain_id}", f"PASID {owner.pasid or 0:#x}"
    paging = cache in (CacheName.FIRST_STAGE, CacheName.SECOND_STAGE)
    pages = _pages(owner) + (", IH = 0" if paging else "")
    hint = "IH = 3" if cache is CacheName.HOST_PERMISSION_TABLE else ""
    nested = owner.kind is PasidTranslationType.NESTED or cache is CacheName.FIRST_STAGE
    if rule is Rule.CONTEXT_ENTRY_CONTEXT:
        return str(SourceId(owner.source_id or 0))
    if rule is Rule.FIRST_STAGE_IOTLB:
        return f"{domain}, {pasid}, {pages}"
    if rule is Rule.SECOND_STAGE_IOTLB:  # of second-stage addresses, which nesting hides
        return domain if nested else f"{domain}, {pages}"
    if rule.granularity == "PASID-selective":
        return f"{domain}, {pasid}"
    if rule.descriptor == "hpt_inv":
        pages = pages if rule is Rule.HPT_TABLES else ""
        return ", ".join(each for each in (f"HPT {domain}", pages, hint) if each)
    return domain


def _pages(owner: Owner) -> str:
    mask = f", AM = {owner.mask}" if owner.mask else ""
    return f"address {owner.address or 0:#x}{mask}"


_ROOT_POINTER = {
    CacheName.CONTEXT: Rule.ROOT_POINTER_CONTEXT,
    CacheName.PASID: Rule.ROOT_POINTER_PASID,
    CacheName.HOST_PERMISSION: Rule.ROOT_POINTER_HPT,
}
_ROOT_ENTRY = {
    CacheName.CONTEXT: Rule.ROOT_ENTRY_CONTEXT,
    CacheName.PASID: Rule.ROOT_ENTRY_PASID,
    CacheName.DEVICE_TLB: Rule.ROOT_ENTRY_DEVICE_TLB,
}
_CONTEXT = {
    CacheName.CONTEXT: Rule.CONTEXT_ENTRY_CONTEXT,
    CacheName.PASID: Rule.CONTEXT_ENTRY_PASID,
    CacheName.DEVICE_TLB: Rule.CONTEXT_ENTRY_DEVICE_TLB,
    CacheName.HOST_PERMISSION: Rule.HPT_CONTEXT,
}
_DIRECTORY = {
    CacheName.PASID: Rule.PASID_DIRECTORY_PASID,
    CacheName.DEVICE_TLB: Rule.PASID_DIRECTORY_DEVICE_TLB,
}
_PASID = {
    CacheName.PASID: Rule.PASID_ENTRY_PASID,
    CacheName.DEVICE_TLB: Rule.PASID_ENTRY_DEVICE_TLB,
    CacheName.HOST_PERMISSION: Rule.HPT_PASID,
}
_RULES: dict[tuple[Origin, CacheName], Rule] = {
    (structure, cache): rule
    for structure, rules in (
        (Pointer.ROOT, _ROOT_POINTER),
        (Structure.ROOT, _ROOT_ENTRY),
        (Structure.CONTEXT, _CONTEXT),
        (Structure.PASID_DIRECTORY, _DIRECTORY),
        (Structure.PASID, _PASID),
        (Structure.FIRST_STAGE, {CacheName.DEVICE_TLB: Rule.FIRST_STAGE_DEVICE_TLB}),
        (Structure.SECOND_STAGE, {CacheName.DEVICE_TLB: Rule.SECOND_STAGE_DEVICE_TLB}),
    )
    for cache, rule in rules.items()
}
_OTHERS: dict[Origin, Rule] = {
    Pointer.ROOT: Rule.ROOT_POINTER_IOTLB,
    Pointer.INTERRUPT: Rule.INTERRUPT_POINTER,
    Structure.ROOT: Rule.ROOT_ENTRY_IOTLB,
    Structure.CONTEXT: Rule.CONTEXT_ENTRY_IOTLB,
    Structure.PASID_DIRECTORY: Rule.PASID_DIRECTORY_IOTLB,
    Structure.PASID: Rule.HPT_PASID,
    Structure.FIRST_STAGE: Rule.FIRST_STAGE_IOTLB,
    Structure.HOST_PERMISSION: Rule.HPT_TABLES,
    Structure.INTERRUPT_ENTRY: Rule.INTERRUPT_ENTRY,
}
