"""Compares the engine with QEMU's intel-iommu on generated cases; see docs/fuzzing.md.

Table sets with requests, valid, with one rule broken and hostile, or interrupt-remapping tables
with messages, run on a QEMU without a guest and on the engine. Prints how many agree, how many
differ in a way the table of known differences explains, and what else differs; exits with 1 then.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections import defaultdict
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis.strategies import SearchStrategy

from vtd.fuzz.asking import target_cases
from vtd.fuzz.case import Case
from vtd.fuzz.departures import (
    KNOWN_DIFFERENCES,
    differences,
    known_differences,
    request_of,
)
from vtd.fuzz.qemu import UNITS, QemuTarget
from vtd.fuzz.strategies import Flavour
from vtd.fuzz.target_names import TARGET_PROPERTIES
from vtd.fuzz.targets import TargetError, engine_as_qemu


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prefix", default="", help="words before qemu-system-x86_64")
    parser.add_argument("--cases", type=int, default=1000, help="cases wanted that agree in all")
    parser.add_argument("--unit", choices=sorted(UNITS), default="qemu")
    parser.add_argument("--property", choices=TARGET_PROPERTIES["qemu"], default="tables")
    parser.add_argument("--flavour", choices=[each.name.lower() for each in Flavour])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, help="folder for scenarios that differ unexplained")
    options = parser.parse_args()
    try:
        qemu = QemuTarget(f"{options.prefix}@{options.unit}")
    except TargetError as error:
        print(error, file=sys.stderr)
        return 2
    flavour = None if options.flavour is None else Flavour[options.flavour.upper()]
    run = Comparison(qemu, target_cases(options.property, qemu, flavour), options.save)
    start = time.monotonic()
    seed = options.seed
    try:
        while len(run.agreeing) < options.cases and len(run.unexplained) < 10:
            run.batch(seed)
            seed += 1
    finally:
        qemu.close()
    seconds = time.monotonic() - start
    print(f"{qemu.name}, {run.version}: {run.total} cases in {seconds:.0f} s")
    print(f"{len(run.agreeing):7} different cases agree in every outcome and fault record")
    print(f"{len(run.departing):7} more differ for causes that are known:")
    for each in KNOWN_DIFFERENCES:
        if each.name in run.known:
            print(f"{len(run.known[each.name]):11} {each.name}: {each.departure.what}")
    print(f"{len(run.unexplained):7} differ unexplained")
    print("fault codes met: " + ", ".join(f"{code:#04x}" for code in sorted(run.codes)))
    return int(bool(run.unexplained))


class Comparison:
    """The counts of one comparison."""

    def __init__(self, qemu: QemuTarget, cases: SearchStrategy[Case], save: Path | None) -> None:
        self.qemu = qemu
        self.cases = cases
        self.version = qemu.version
        self.engine = engine_as_qemu()
        self.total = 0
        self.agreeing: set[int] = set()
        self.departing: set[int] = set()
        """Cases that differ as known."""
        self.known: defaultdict[str, set[int]] = defaultdict(set)
        """The same by departure; a case may meet several."""
        self.unexplained: set[int] = set()
        self.codes: set[int] = set()
        self._save = save

    def batch(self, seed: int) -> None:
        """Run the cases of one seed."""

        @seeded(seed)
        @settings(
            max_examples=200,
            deadline=None,
            database=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )
        @given(self.cases)
        def run(case: Case) -> None:
            self.one(seed, case)

        run()

    def one(self, seed: int, case: Case) -> None:
        """Run one case of a seed on both."""
        self.total += 1
        engine, qemu = self.engine.run(case), self.qemu.run(case)
        found = differences(case, engine, qemu)
        for step, outcome in zip(case.steps, engine, strict=True):
            if step.get("offset") == "0x228" and step["op"] == "reg_read" and outcome >> 63:
                self.codes.add(outcome >> 32 & 0xFF)
        identity = hash(json.dumps(case.steps))
        if not found:
            self.agreeing.add(identity)
            return
        requests = {request_of(case, each) for each in found}
        causes = {number: known_differences(case, number, qemu) for number in requests}
        names = {known.name for known in itertools.chain(*filter(None, causes.values()))}
        unexplained = [each for each in found if not causes[request_of(case, each)]]
        if unexplained:
            self.unexplained.add(identity)
            print(f"seed {seed}: {case.rule}\n  {unexplained[0]}", flush=True)
            if self._save is not None:
                name = f"qemu-{len(self.unexplained)}"
                scenario = case.scenario(name, str(unexplained[0]), "engine", engine)
                (self._save / f"{name}.json").write_text(json.dumps(scenario, indent=1))
        else:
            self.departing.add(identity)
            for name in names:
                self.known[name].add(identity)


if __name__ == "__main__":
    raise SystemExit(main())
