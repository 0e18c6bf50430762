"""The audit against scenarios: what is stale in them is found, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pagetables.geometry import second_stage_geometry
from pagetables.memory import PhysicalMemory
from pagetables.observer import Structure
from vtd.auditing.audit import Audit
from vtd.auditing.audit_log import audit_scenario
from vtd.auditing.debt import Debt, Kind
from vtd.auditing.writers import calls
from vtd.layouts.entries import AddressWidth, ContextEntry, RootEntry
from vtd.layouts.registers import GlobalCommand
from vtd.recordings.scenario import load_scenario
from vtd.severity import ERROR
from vtd.unit.caching.policy import AGGRESSIVE, KEEPS_STALE, CachePolicy
from vtd.unit.observer import CacheName
from vtd.unit.options import Options
from vtd.unit.port import UnitPort
from vtd.unit.registers.capabilities import PROFILES
from vtd.unit.unit import RemappingUnit

VECTORS = Path(__file__).resolve().parents[2] / "vectors"
ROOT, CONTEXT, TOP, OTHER = 0x1000, 0x2000, 0x10000, 0x20000
SOURCE = 0x0010
DOMAIN = 7

USES_STALE_ENTRIES = {
    "regs_split_invalidation",  # half an invalidation must not invalidate
    "ir_extended_mode",  # changes an entry of a unit that caches none, without iec_inv
    "spec_translated_host_permission_snooping",  # has a walk not snooped meet what was not flushed
}
"""Scenarios that rely on a stale entry, or on a unit without a cache, and have no tag for it."""
ANSWER_NOBODY = {
    "spec_prq_response_descriptor",
    "spec_prq_response_order",
    "spec_qi_abort_mode",
    "spec_qi_legal_256",
}
"""Scenarios about the descriptor of a response, without requests."""


class Platform:
    """A legacy unit with one device whose page 0 leads to 0x80000, and its software."""

    def __init__(
        self, policy: CachePolicy = AGGRESSIVE, writer: Callable[[], object] = calls
    ) -> None:
        self.memory = PhysicalMemory()
        self.memory.add_region(0, 0x100000)
        self.unit = RemappingUnit(PROFILES["qemu"], self.memory, Options(caches=policy))
        self.port = UnitPort(self.unit, self.memory, SOURCE)
        geometry = second_stage_geometry(4, PROFILES["qemu"].implementation)
        for top in (TOP, OTHER):
            for depth in range(len(geometry.levels) - 1):
                self.store(top + (depth << 12), top + (depth + 1 << 12) | 3)
        self.store(TOP + 0x3000, 0x80003)
        self.store(OTHER + 0x3000, 0x90003)
        self.store(ROOT, RootEntry.of(p=True, ctp=CONTEXT), 16)
        self.attach(TOP)
        self.unit.write_register(0x20, 8, ROOT)
        self.unit.write_register(0x18, 4, GlobalCommand.of(srtp=True))
        self.unit.write_register(0x18, 4, GlobalCommand.of(te=True))
        self.audit = Audit(self.unit, writer)

    def store(self, address: int, value: int, size: int = 8) -> None:
        self.memory.write(address, value.to_bytes(size, "little"))

    def attach(self, top: int) -> None:
        entry = ContextEntry.of(p=True, did=DOMAIN, aw=AddressWidth.AGAW_48, ssptptr=top)
        self.store(CONTEXT + SOURCE * 16, entry, 16)

    def invalidate_context(self) -> None:
        """Device-selective, by register: ICC, CIRG = 3."""
        self.unit.write_register(0x28, 8, 1 << 63 | 3 << 61 | SOURCE << 16 | DOMAIN)

    def invalidate_domain(self) -> None:
        """IOTLB, domain-selective, by register."""
        self.unit.write_register(0xF8, 8, 1 << 63 | 2 << 60 | DOMAIN << 32)


def the_only(findings: list[Debt]) -> Debt:
    (finding,) = findings
    return finding


def test_a_changed_leaf_is_reported_with_the_write_and_the_missing_invalidation() -> None:
    platform = Platform(writer=lambda: "line 12")
    assert platform.port.write(0, b"once").ok
    platform.store(TOP + 0x3000, 0x90003)
    platform.port.write(8, b"twice")
    use = the_only(platform.audit.findings)
    assert (use.cache, use.changed.structure) == (CacheName.IOTLB, Structure.SECOND_STAGE)
    assert str(use) == (
        "IOTLB entry (source 00:02.0, domain 7, address 0x0) used after the second-stage entry at "
        "0x13000 changed from 0x80003 to 0x90003 by line 12: missing page-selective iotlb_inv of "
        "domain 7, address 0x0 (VT-d 6.5.3.3)"
    )


def test_a_changed_leaf_with_its_invalidation_is_no_finding() -> None:
    platform = Platform()
    platform.port.write(0, b"once")
    platform.store(TOP + 0x3000, 0x90003)
    platform.invalidate_domain()
    assert platform.port.write(8, b"twice").ok
    assert platform.memory.read(0x90008, 5) == b"twice"
    assert not platform.audit.findings


def test_a_context_entry_needs_both_the_context_cache_and_the_iotlb_invalidated() -> None:
    platform = Platform()
    platform.port.write(0, b"once")
    platform.attach(OTHER)
    platform.invalidate_context()
    platform.port.write(8, b"twice")
    assert the_only(platform.audit.findings).missing == "domain-selective iotlb_inv of domain 7"
    platform.invalidate_domain()
    platform.port.write(16, b"thrice")
    assert not platform.audit.findings  # it came, and nobody had waited for it before
    assert [debt.kind for _, debt in platform.audit.judged()] == [Kind.WINDOW]


def test_an_entry_in_a_context_cache_left_alone_is_reported() -> None:
    platform = Platform()
    platform.port.write(0, b"once")
    platform.attach(OTHER)
    platform.invalidate_domain()
    platform.port.write(8, b"twice")
    use = the_only(platform.audit.findings)
    assert use.cache is CacheName.CONTEXT
    assert use.missing == "device-selective cc_inv of 00:02.0"


@pytest.mark.parametrize("policy", [KEEPS_STALE, AGGRESSIVE])
def test_more_rights_are_a_finding_only_where_the_cache_denies_them(policy: CachePolicy) -> None:
    platform = Platform(policy)
    platform.store(TOP + 0x3000, 0x80001)
    assert platform.port.read(0, 4).ok
    platform.store(TOP + 0x3000, 0x80003)
    assert platform.port.read(4, 4).ok
    assert not platform.audit.findings
    assert platform.port.write(4, b"no").ok is (policy is KEEPS_STALE)
    assert bool(platform.audit.findings) is (policy is AGGRESSIVE)


def test_a_word_changed_and_changed_back_does_no_harm() -> None:
    platform = Platform()
    platform.port.write(0, b"once")
    platform.store(TOP + 0x3000, 0)
    platform.store(TOP + 0x3000, 0x80003)
    platform.port.write(0, b"twice")
    assert not platform.audit.findings


def test_scenarios_that_keep_the_rules_have_no_findings() -> None:
    uses = 0
    for path in sorted(VECTORS.glob("*.json*")):
        scenario = load_scenario(path)
        if any("keeps" in tag for tag in scenario.get("tags", ())):
            continue
        if path.name.split(".")[0] in USES_STALE_ENTRIES:
            continue
        report = audit_scenario(scenario)
        wrong = [
            finding.use
            for finding in report.findings
            if finding.use.severity >= ERROR
            and isinstance(finding.use, Debt)
            and not (
                finding.use.kind is Kind.PAGE_REQUEST and path.name.split(".")[0] in ANSWER_NOBODY
            )
        ]
        assert not wrong, f"{path.name}: {wrong[0]}"
        uses += report.uses
    assert uses > 10_000


def test_the_recorded_stale_translations_are_found() -> None:
    (path,) = VECTORS.glob("caching_leaf_stale.json*")
    scenario = load_scenario(path)
    report = audit_scenario(scenario)
    assert report.window  # the invalidation follows
    assert not report.findings
