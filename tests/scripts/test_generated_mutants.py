"""Random small changes of the engine meet tests that notice them, and are forgotten afterwards."""

import subprocess
import sys
from pathlib import Path

from scripts.generated_mutants import drawn
from scripts.small_changes import ROOT, changes

ENTRIES = ("--only", "layouts/interrupt", "--tests", "tests/vtd/layouts/test_interrupt_entries.py")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "scripts.generated_mutants", *arguments)
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_folder_keeps_what_was_noticed(tmp_path: Path) -> None:
    folder = ("--folder", str(tmp_path))
    first = run(*ENTRIES, "--count", "3", "--seed", "4", "--allowed", "0", *folder)
    known = (tmp_path / "results.jsonl").read_text().splitlines()
    assert len(known) == 3, first.stderr
    survived = [line for line in known if line.endswith('""]')]
    assert f"{len(survived)} of 3 changes (of " in first.stdout
    assert first.returncode == bool(survived)
    again = run(*ENTRIES, "--count", "3", "--seed", "4", "--allowed", "100", *folder)
    assert again.returncode == 0
    assert again.stdout.splitlines()[:-1] == first.stdout.splitlines()[:-1]
    assert (tmp_path / "results.jsonl").read_text().splitlines()[:3] == known


def test_a_folder_about_other_sources_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tests.json").write_text("[{}, {}, {}]")
    refused = run(*ENTRIES, "--count", "1", "--folder", str(tmp_path))
    assert refused.returncode == 1
    assert refused.stderr.strip() == f"{tmp_path} is about other sources: give another folder"


def test_what_is_drawn_stays_when_other_files_come_and_go() -> None:
    some, others = changes("pagetables/walk.py"), changes("pagetables/extents.py")
    chosen = drawn([*some, *others], 40, 1)
    assert len(set(chosen)) == 40
    kept = [each for each in chosen if each in some]
    assert 0 < len(kept) < 40
    assert kept == drawn(some, len(kept), 1)
    assert chosen != drawn([*some, *others], 40, 2)
