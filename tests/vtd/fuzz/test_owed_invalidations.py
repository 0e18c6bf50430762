"""What the fuzzer says that software owes, beside what the driver does: written twice, the same."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from tests.support.world import capabilities
from vtd.fuzz.case import Step
from vtd.fuzz.owed_invalidations import OwedInvalidations
from vtd.layouts.descriptors import DescriptorType
from vtd.layouts.entries import PasidTranslationType
from vtd.software.guidance import Endpoint, Guidance, Owed, User
from vtd.unit.registers.capabilities import Capabilities

SID = 0x0108
FIRST, SECOND = PasidTranslationType.FIRST_STAGE, PasidTranslationType.SECOND_STAGE

units = st.builds(
    capabilities,
    cm=st.booleans(),
    psi=st.booleans(),
    mamv=st.integers(0, 20),
)
ids = st.integers(1, 0xFFFF)
pages = st.tuples(st.integers(0, 1 << 20), st.integers(1, 14))


class Both:
    """The fuzzer's debts and the driver's guidance for one unit."""

    def __init__(self, unit: Capabilities, *, scalable: bool) -> None:
        self.steps: list[Step] = []
        self.owed = OwedInvalidations(unit, self.steps, scalable=scalable, drop=None)
        self.guidance = Guidance(unit, scalable=scalable)

    def agree(self, guided: Iterable[Owed]) -> bool:
        """Whether both want the same descriptors in the same order; a wait closes them."""
        stored = [step for step in self.steps if step["op"] == "mem_write"]
        *debts, last = (int.from_bytes(bytes.fromhex(step["hex"]), "little") for step in stored)
        assert debts
        assert last & 0xF == DescriptorType.INV_WAIT
        return debts == [each.descriptor for each in guided]


def user(domain_id: int, pasid: int, kind: PasidTranslationType) -> User:
    return User(Endpoint(SID), pasid, domain_id, kind)


@given(units, ids)
def test_a_context_entry_costs_the_same(unit: Capabilities, domain_id: int) -> None:
    both = Both(unit, scalable=False)
    both.owed.context_entry(domain_id, SID)
    assert both.agree(both.guidance.context_entry_removed(Endpoint(SID), [domain_id]))


@given(units, ids, st.integers(1, 0xFFFF), st.sampled_from([FIRST, SECOND]))
def test_a_pasid_entry_costs_the_same(
    unit: Capabilities, domain_id: int, pasid: int, kind: PasidTranslationType
) -> None:
    both = Both(unit, scalable=True)
    both.owed.pasid_entry(domain_id, pasid, whole_domain=kind is SECOND)
    assert both.agree(both.guidance.pasid_entry_removed(user(domain_id, pasid, kind)))


@given(units, ids, st.booleans())
def test_a_domain_id_costs_the_same(unit: Capabilities, domain_id: int, scalable: bool) -> None:
    both = Both(unit, scalable=scalable)
    both.owed.reused_domain(domain_id)
    assert both.agree(both.guidance.domain_id_given_up(domain_id))


@given(units, ids, pages, st.booleans(), st.booleans())
def test_second_stage_pages_cost_the_same(
    unit: Capabilities, domain_id: int, where: tuple[int, int], hint: bool, scalable: bool
) -> None:
    both = Both(unit, scalable=scalable)
    start, length = where[0] << 12, where[1] << 12
    both.owed.pages(domain_id, start, length, hint=hint)
    users, ranges = [user(domain_id, 0, SECOND)], [(start, start + length)]
    assert both.agree(both.guidance.second_stage(users, ranges, leaves_only=hint))


@given(units, ids, st.integers(1, 0xFFFF), pages, st.booleans())
def test_first_stage_pages_cost_the_same(
    unit: Capabilities, domain_id: int, pasid: int, where: tuple[int, int], hint: bool
) -> None:
    both = Both(unit, scalable=True)
    start, length = where[0] << 12, where[1] << 12
    both.owed.pasid_pages(domain_id, pasid, start, length, hint=hint)
    users, ranges = [user(domain_id, pasid, FIRST)], [(start, start + length)]
    assert both.agree(both.guidance.first_stage(users, ranges, leaves_only=hint))


@given(units, st.integers(0, 0xFFFF))
def test_an_interrupt_entry_costs_the_same(unit: Capabilities, index: int) -> None:
    both = Both(unit, scalable=False)
    both.owed.interrupt_entry(index)
    assert both.agree(both.guidance.interrupt_entry_changed(index))
