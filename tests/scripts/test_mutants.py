"""Every planted bug has its place in the packages as they are now."""

import pytest

from scripts.mutants import MUTANTS, ROOT, Mutant, changed


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_its_file(mutant: Mutant) -> None:
    assert changed(mutant) != (ROOT / mutant.file).read_text()


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("no such text", "", "has the text 0 times"),
        ("FRAME_NUMBER", "", r"has the text \d+ times"),
        ("FRAME_NUMBER = (1 << 40) - 1", "FRAME_NUMBER =", "is no Python"),
    ],
)
def test_a_mutant_without_its_place_is_refused(old: str, new: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"lost: pagetables/walk.py {why}"):
        changed(Mutant("lost", "pagetables/walk.py", old, new, "tables"))
