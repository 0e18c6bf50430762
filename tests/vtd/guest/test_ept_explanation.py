"""What an access by EPT is said to come to is what the oracle has of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pagetables.ept import EXECUTE, READ, WRITE
from tests.support.strategies import Scene, addresses
from tests.vtd.guest.test_ept import MISCONFIGURATION, ROOT, VIOLATION, scenes, stages
from vtd.fuzz.ept_oracle import ept_verdict
from vtd.guest.x86.capabilities import VmxCapabilities
from vtd.guest.x86.ept import EptStage
from vtd.guest.x86.ept_explanation import explain_access


@given(scenes(), stages(), addresses(5), st.sampled_from([READ, WRITE, EXECUTE]))
def test_an_access_comes_to_the_page_or_the_exit_of_the_oracle(
    scene: Scene, setup: tuple[EptStage, VmxCapabilities, int], gpa: int, access: int
) -> None:
    stage, caps, levels = setup
    gpa &= (1 << 9 * levels + 13) - 1
    expected = ept_verdict(scene.frames, ROOT, gpa, levels, caps, mode_based=stage.mode_based)
    _, rights, physical, exits = explain_access(scene.memory(), stage, gpa, access)
    if expected.kind == "page":
        assert rights is not None
        assert rights & stage.tables.geometry.rights == expected.rights
        assert physical == (expected.physical if expected.rights & access else None)
        assert (exits is None) == bool(expected.rights & access)
    else:
        assert (rights, physical) == (None, None)
    if exits is not None:
        wrong = expected.kind == "misconfiguration"
        assert exits.reason == (MISCONFIGURATION if wrong else VIOLATION)
