"""Plants bugs that real remapping units and drivers of them had, and shows that fuzzing finds each.

Each mutant changes one line of a copy of the packages; the properties of ``vtd fuzz`` then run on
the copy until one fails. Prints who was found by which property, after how many cases and seconds;
exits with 1 if one survives.
"""

from __future__ import annotations

import argparse
import ast
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("vtd", "devices", "pagetables")


class Mutant(NamedTuple):
    """A change of one text in one file, and the properties that may find it."""

    name: str
    file: str
    old: str
    new: str
    properties: str


MUTANTS = (
    Mutant(
        "IOTLB key without the PASID",
        "vtd/unit/caching/iotlb.py",
        "get(kind)\n        if space is None:\n            space = self._spaces[kind]",
        "get(kind := (kind[0], None, kind[2]))\n"
        "        if space is None:\n            space = self._spaces[kind]",
        "driver",
    ),
    Mutant(
        "inverted function mask",
        "vtd/unit/caching/caches.py",
        "kept = 0xFFFF & ~FUNCTION_MASKS[function_mask]",
        "kept = 0xFFF8 | FUNCTION_MASKS[function_mask]",
        "driver",
    ),
    Mutant(
        "reserved masks of 2 MiB and 1 GiB pages swapped",
        "pagetables/geometry.py",
        "21: second_stage.SecondStagePage2M,\n        30: second_stage.SecondStagePage1G,",
        "21: second_stage.SecondStagePage1G,\n        30: second_stage.SecondStagePage2M,",
        "tables",
    ),
    Mutant(
        "index not checked against the interrupt table",
        "vtd/unit/interrupts/interrupt_remapping.py",
        "if index >= 2 << self.table.s or beyond_width:",
        "if beyond_width:",
        "interrupts",
    ),
    Mutant(
        "present bit of the PASID entry ignored",
        "vtd/unit/translation/lookup.py",
        "if not entry.p:\n        raise TranslationFault(FaultReason.PASID_NOT_PRESENT",
        "if False:\n        raise TranslationFault(FaultReason.PASID_NOT_PRESENT",
        "tables",
    ),
    Mutant(
        "end of an invalidated range off by one page",
        "vtd/unit/queues/invalidation.py",
        "return start, start + size",
        "return start, start + max(size - 0x1000, 0x1000)",
        "driver",
    ),
    Mutant(
        "fault record: source-id and reason packed the wrong way round",
        "vtd/unit/reporting/fault_recording.py",
        "| reason << _FR\n            | source_id << _SID",
        "| (source_id & 0xFF) << _FR\n            | reason << _SID",
        "tables",
    ),
    Mutant(
        "descriptors taken for 128 bits although DW is set",
        "vtd/unit/queues/invalidation.py",
        "size = 32 if queue.dw else 16",
        "size = 16",
        "driver",
    ),
    Mutant(
        "head moves on by 128 bits although DW is set",
        "vtd/unit/queues/invalidation.py",
        "(head + size) % (0x1000 << queue.qs)",
        "(head + 16) % (0x1000 << queue.qs)",
        "driver",
    ),
    Mutant(
        "PASID cache keeps an entry that moved to another domain",
        "vtd/unit/caching/caches.py",
        "self.pasid.remove(lambda key, entry: key[1] == pasid and entry.domain_id == domain_id)",
        "self.pasid.remove(lambda key, entry: False)",
        "driver",
    ),
    Mutant(
        "interrupt entry cache is not invalidated",
        "vtd/unit/interrupts/interrupt_remapping.py",
        "self.cache.remove(lambda key, _: index <= key < index + count)",
        "self.cache.remove(lambda key, _: False)",
        "driver",
    ),
    Mutant(
        "a superpage survives the invalidation of a part of it",
        "vtd/unit/caching/iotlb.py",
        "first, last = start >> shift, end - 1 >> shift",
        "first, last = -(-start >> shift), end - 1 >> shift",
        "driver",
    ),
    Mutant(
        "domain-id used again meets old translations",
        "vtd/unit/caching/caches.py",
        "self.iotlb.remove(domain_id)",
        "self.iotlb.remove(domain_id, lambda tags: False)",
        "driver",
    ),
    Mutant(
        "page invalidation keeps paging-structure entries whatever IH says",
        "vtd/unit/caching/caches.py",
        "if not hint:\n            _remove_tables(self.second_stage,",
        "if False:\n            _remove_tables(self.second_stage,",
        "driver",
    ),
    Mutant(
        "invalidation of the second stage keeps nested paging-structure entries",
        "vtd/unit/caching/caches.py",
        "if len(self.first_stage):\n            self.first_stage.remove(",
        "if False:\n            self.first_stage.remove(",
        "driver",
    ),
    Mutant(
        "context cache: domain of an entry not compared",
        "vtd/unit/caching/caches.py",
        "key & kept == source_id & kept and entry.domain_id in (None, domain_id)",
        "key & kept == source_id & kept and entry.domain_id is None",
        "driver",
    ),
    Mutant(
        "page size taken in 32 bits",
        "pagetables/walk.py",
        "FRAME_NUMBER = (1 << 40) - 1",
        "FRAME_NUMBER = (1 << 11) - 1",
        "tables",
    ),
    Mutant(
        "a write needs only the rights of the last level",
        "pagetables/walk.py",
        "            rights &= entry\n",
        "            rights = entry & geometry.rights\n",
        "tables",
    ),
    Mutant(
        "FPD of the context entry does not reach the fault",
        "vtd/unit/translation/lookup.py",
        "fpd = context.fpd or directory.fpd",
        "fpd = directory.fpd",
        "tables",
    ),
    Mutant(
        "dirty flag not set by the first write",
        "vtd/unit/translation/translate.py",
        "rights = without_dirty(rights)\n    except",
        "pass\n    except",
        "flags",
    ),
    Mutant(
        "INVEPT keeps guest-physical mappings",
        "vtd/guest/x86/mappings.py",
        "if ept in (None, tag):",
        "if False:",
        "guest",
    ),
    Mutant(
        "EPT dirty flag not set by a write after a read",
        "vtd/guest/x86/translation.py",
        "granted &= ~WRITE",
        "pass",
        "guest",
    ),
    Mutant(
        "EPT: a write-only page is a violation, not a misconfiguration",
        "vtd/guest/x86/ept.py",
        "if entry & WRITE and not entry & READ:",
        "if False:",
        "ept",
    ),
    Mutant(
        "VM entry does not look at the guest's state",
        "vtd/guest/x86/entry.py",
        "in _GROUPS:",
        "in _GROUPS[:2]:",
        "vmcs",
    ),
    Mutant(
        "an accelerated bsw forgets the registers",
        "vtd/guest/itanium/optimizations.py",
        "current.vpd.switch_bank(cpu.bank, bank, cpu.vpsr)",
        "cpu.vpsr.replace(bn=bank)",
        "vpd",
    ),
    Mutant(
        "an accelerated read of IVR is always spurious",
        "vtd/guest/itanium/optimizations.py",
        "spurious = current.vac.a_int and not unmasked(cpu.kept.vhpi, ENABLED, _tpr(cpu))",
        "spurious = current.vac.a_int",
        "vpd",
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="for each mutant and property")
    parser.add_argument("--only", default="", help="mutants whose name has this text")
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if options.only in mutant.name]
    killed = 0
    print(f"{'mutant':62} {'property':10} {'cases':>7} {'seconds':>8}")
    for mutant in chosen:
        with tempfile.TemporaryDirectory() as folder:
            plant(mutant, Path(folder))
            found = hunt(mutant, Path(folder), options.seconds)
        killed += found is not None
        cases, seconds = found or ("survives", "")
        print(f"{mutant.name:62} {mutant.properties:10} {cases:>7} {seconds:>8}", flush=True)
    print(f"{killed} of {len(chosen)} mutants killed")
    return int(killed < len(chosen))


def plant(mutant: Mutant, folder: Path) -> None:
    """Copy the packages and change one of them."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package)
    (folder / mutant.file).write_text(changed(mutant))


def changed(mutant: Mutant) -> str:
    """The file with the bug; ValueError if the text is not there once, or the rest no Python."""
    text = (ROOT / mutant.file).read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(
            f"{mutant.name}: {mutant.file} has the text {text.count(mutant.old)} times"
        )
    text = text.replace(mutant.old, mutant.new)
    try:
        ast.parse(text)
    except SyntaxError as error:
        raise ValueError(f"{mutant.name}: {mutant.file} is no Python: {error}") from error
    return text


def hunt(mutant: Mutant, folder: Path, seconds: float) -> tuple[str, str] | None:
    """Cases and seconds until the property fails on the copy; None if it does not."""
    try:
        run = subprocess.run(
            [sys.executable, "-c", HUNTER, mutant.properties, str(seconds)],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=2 * seconds + 30,
        )
    except subprocess.TimeoutExpired:
        return "hangs", ""
    if run.returncode != 0:
        raise RuntimeError(f"{mutant.name}: {run.stderr[-2000:]}")
    words = run.stdout.split()
    return (words[1], words[2]) if words[0] == "killed" else None


HUNTER = """
import sys, time
from vtd.fuzz.campaign import run_until_found
found = run_until_found(sys.argv[1], float(sys.argv[2]), time.monotonic)
print("killed" if found.failures else "survives", found.tally.cases, f"{found.seconds:.1f}")
"""

if __name__ == "__main__":
    raise SystemExit(main())
