"""Every planted bug has its place in the packages as they are now."""

from pathlib import Path

import pytest

from scripts.mutants import ROOT, Found, changed, command_of, page, page_of_targets, plant
from scripts.planted_bugs import MUTANTS, OF_UNITS_IN_THE_FIELD, Mutant
from vtd.fuzz.campaign import jobs_of
from vtd.fuzz.job import run_job
from vtd.fuzz.target_names import close_targets, default_properties


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


def test_there_are_sixty_bugs_of_the_unit_with_names_of_their_own() -> None:
    of_units = [mutant for mutant in MUTANTS if "guest" not in mutant.file]
    assert len(of_units) >= 60
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_bugs_of_units_in_the_field_are_planted_ones() -> None:
    assert set(OF_UNITS_IN_THE_FIELD) <= {mutant.name for mutant in MUTANTS}


def fails(mutant: Mutant | None, folder: Path) -> bool:
    """Whether eight seeds of ``vtd fuzz --target`` find that a copy of the engine is not right."""
    plant(mutant, folder)
    target = command_of(folder)
    jobs = jobs_of(default_properties(target), target, range(8))
    try:
        return any(run_job(job, shrink=False).failures for job in jobs)
    finally:
        close_targets()


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_UNITS_IN_THE_FIELD)
def test_a_bug_of_a_unit_in_the_field_is_found_from_outside(name: str, tmp_path: Path) -> None:
    (mutant,) = (each for each in MUTANTS if each.name == name)
    assert fails(mutant, tmp_path)


@pytest.mark.slow
def test_the_engine_itself_as_a_target_fails_nothing(tmp_path: Path) -> None:
    assert not fails(None, tmp_path)


def test_the_page_of_targets_says_what_was_found() -> None:
    found, survivor = MUTANTS[:2]
    text = page_of_targets([(found, Found("driver", 7, 1.5)), (survivor, None)])
    assert "found 1 of 2" in text
    assert f"| {found.name} | driver | 7 | 1.5 |" in text


def test_the_page_has_a_row_for_each_bug() -> None:
    found, survivor = MUTANTS[:2]
    text = page([(found, Found("tables", 7, 1.5)), (survivor, None)], 60)
    assert "1 of 2 bugs" in text
    assert f"| {found.name} | `{found.file}` | tables | 7 | 1.5 |" in text
    assert f"| {survivor.name} | `{survivor.file}` | survives | | |" in text


def test_the_page_in_the_documentation_has_every_bug_as_found() -> None:
    rows = (ROOT / "docs" / "planted-bugs.md").read_text().splitlines()[6:]
    for mutant, row in zip(MUTANTS, rows, strict=True):
        assert row.startswith(f"| {mutant.name} | `{mutant.file}` | ")
        assert "survives" not in row.removeprefix(f"| {mutant.name}")
