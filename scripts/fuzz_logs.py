"""Feed random and mutated logs to the reader: ``python -m scripts.fuzz_logs``.

Logs are put together from the messages of every version of Linux, from faults of every system, from
lines about the platform, and from lines of the logs of a folder, then broken, quoted, joined,
shuffled and changed in single bytes.
Every input has to be read and shown as text and as JSON without an error, and none may take longer
than the limit.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from scripts.log_coverage import formats, sample
from vtd.commands.explain import as_text
from vtd.logs.context import Context
from vtd.logs.log import Log, read_log
from vtd.logs.reading import LogError, lines_of
from vtd.logs.rows import log_row

LIMIT = 2.0
"""Seconds of processor time an input may take."""
LARGE = 9_973
"""One of so many inputs has a line of 64 KiB, or many thousand lines."""
SHOWN = 4
"""One of so many inputs is shown as text and JSON too."""

OTHERS = """\
(XEN) [VT-D]DMAR:[DMA Read] Request device [0000:00:02.0] fault addr 8e480000, iommu reg = ffff82c0
(XEN) [VT-D]DMAR: reason 06 - PTE Read access is not set
(XEN) [VT-D]  RMRR address range 8d800000..8fffffff not in reserved memory; need "x"?
(XEN)  0000000100000000 - 000000016e000000 (usable)
DMAR1: vgapci0: pci0:2:0 sid 10 fault acc 1 adt 0x0 reason 0xc addr 9c000000
fri0: dmar: 00:02.0 read error at 9c000000 fr:12 [reserved] iommu:0 [mapped]
IOMMU: DMA read page fault from 0x10 (bus: 0x0/dev: 0x2/fun: 0x0) on address 0x0:9c0
Error: Fault: hi=0xc000000c00000010, reason=0xc, type=0x1, AT=0x0, Source=0x10, info=0x9c000
Read/Atomic, Reason: 0xc, SID: 0.2.0 @0x9c000000
  FRCD_REG[0] - 0xC000000C00000010 000000009C000000
DMAR:0xffffff81 FRR:0 FR:0xc BDF:0:2:0 FI:0x9c000000
IOMMU Fault detected for 0000:00:02.0 (vmgfx0/x) IOaddr: 0x9c000000 Mask: 6
VT-d fault event reported by IOMMU 0:
 Source Identifier (bus:dev.func): 00:02.0
 Fault Reason: 0xc Fault Info: 9c000 Type 1
generated a fault event when translating DMA read
 on address 0x9c000000 for PCI(0, 2, 0), the reason is:
DMAR: [DMA Read NO_PASID] Request device [00:0d.2] fault addr 0x1026a4000 [fault reason 0x51] x
DMAR: QI PRIOR: Device-TLB Invalidation qw0 = 0x5300530000000003, qw1 = 0x7ffffffffffff001
BIOS-e820: [mem 0x000000007a000000-0x000000007a00ffff] reserved
Linux version 6.1.0-13-amd64 (x)
pci 0000:00:1c.0: [8086:a110] type 01 class 0x060400
pci 0000:00:1c.0: PCI bridge to [bus 01-ff]
usb 1-1: new high-speed USB device number 2 using xhci_hcd
"""
PREFIXES = (
    "",
    "[    1.0] ",
    "<3>",
    ">> ",
    "Nov 24 14:00:01 host kernel: ",
    "(XEN) ",
    "\x1b[31m",
    "    ",
)
ALPHABET = "\n\r\0\x1b >[]()0123456789abcdefx:.-, DMARIOU\ufffdäß"


class Outcome(NamedTuple):
    """What a campaign found."""

    inputs: int
    slowest: float
    """Seconds of processor time of the slowest input."""
    failures: list[str]


def inputs(rng: random.Random, count: int, folder: Path | None = None) -> Iterator[bytes]:
    """Logs of some lines, mutated; now and then a large one.

    With a folder every other input is a run of lines of one of its files.
    """
    known = [line for each in formats() for line in sample(each.text)] + OTHERS.splitlines()
    files = sorted(folder.rglob("*")) if folder else []
    real = [file.read_text("utf-8", "replace").splitlines() for file in files if file.is_file()]
    real = list(filter(None, real))
    for number in range(count):
        large = number % LARGE == LARGE - 1
        if real and number % 2:
            start = rng.randrange(len(log := rng.choice(real)))
            lines = log[start : start + rng.randrange(1, 9)]
        else:
            lines = rng.choices(known, k=rng.randrange(1, 9) if not large else 3000)
        prefix = rng.choice(PREFIXES)
        text = rng.choice(("\n", "\n", "\r\n", "")).join(prefix + line for line in lines)
        for _ in range(rng.choice((0, 1, 1, 2, 5))):
            text = _mutated(rng, text)
        yield text.encode()


def _mutated(rng: random.Random, text: str) -> str:
    """The text broken, cut, doubled, or with other characters in it."""
    first = rng.randrange(len(text) + 1)
    last = min(len(text), first + rng.choice((1, 1, 2, 8, 40)))
    part = text[first:last]
    put = rng.choice(
        (
            "\n", "\n> ", "", part * 2, part[::-1], "".join(rng.choices(ALPHABET, k=len(part))),
            rng.choice(ALPHABET), "f" * 20, "0" * 300, "[" * 50,
        )
    )  # fmt: skip
    return text[:first] + put + text[last:]


def check(data: bytes, shown: bool) -> str:
    """What is wrong with how an input is read, empty if nothing."""
    try:
        log = read_log(lines_of(io.BytesIO(data)))
    except LogError:
        return ""
    if any(not group.lines for group in log.messages):
        return "a message without lines"
    if any(group.count < 1 or group.lines[0] > group.lines[1] for group in log.faults):
        return "a fault that never happened"
    return _shown(log) if shown else ""


def _shown(log: Log) -> str:
    context = Context(log.facts)
    text = "\n".join(as_text(log, context))
    json.dumps(log_row(log, context))
    return "" if text else "nothing shown"


def campaign(seed: int, count: int, folder: Path | None = None) -> Outcome:
    """Read ``count`` inputs."""
    rng = random.Random(seed)
    failures: list[str] = []
    slowest = 0.0
    for number, data in enumerate(inputs(rng, count, folder)):
        began = time.process_time()
        try:
            wrong = check(data, number % SHOWN == 0)
        except Exception as error:  # any error is what is looked for
            wrong = f"{type(error).__name__}: {error}"
        took = time.process_time() - began
        slowest = max(slowest, took)
        if took > LIMIT:
            wrong = wrong or f"took {took:.1f} s"
        if wrong:
            failures.append(f"input {number} of seed {seed}: {wrong}: {data[:200]!r}")
    return Outcome(count, slowest, failures)


def main() -> None:
    """Run a campaign; exit code 1 if it found something."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="of logs to start from as well")
    arguments = parser.parse_args()
    outcome = campaign(arguments.seed, arguments.inputs, arguments.folder)
    for failure in outcome.failures[:20]:
        print(failure)
    print(
        f"{outcome.inputs} inputs, {len(outcome.failures)} failures, "
        f"slowest {outcome.slowest:.3f} s"
    )
    sys.exit(bool(outcome.failures))


if __name__ == "__main__":
    main()
