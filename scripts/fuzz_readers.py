"""Feed mutated text to every reader: ``python -m scripts.fuzz_readers [COUNT] [SEED] [FOLDER]``.

Listings, registers, table dumps and lists of bytes, source and printed fields, memory maps and
debugfs dumps, each mutated from small sound ones and from the files of a folder (text, and tables).
The readers take turns, so each gets an eighth of COUNT. A reader has to answer or refuse with a
ValueError, in less time than the limit. Logs have a campaign of their own, ``scripts.fuzz_logs``.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from vtd.dmar.inputs import find_tables
from vtd.dmar.listing import parse_pci_tree
from vtd.dmar.listing.sysfs import sysfs_functions
from vtd.dmar.memory_map import parse_memory_map
from vtd.dmar.pci_tree import PciTree
from vtd.dmar.source import write_source
from vtd.dmar.table import Table, TableError
from vtd.inspection.collection import Files, read_archive
from vtd.inspection.debugfs import dumped_units
from vtd.inspection.isolation_groups import isolation_groups
from vtd.inspection.register_listings import listed_units

LIMIT = 1.0
"""Seconds of processor time an input may take."""
TESTS = Path(__file__).resolve().parents[1] / "tests"
TABLES, CAPTURES = TESTS / "dmar", TESTS / "captures"

LISTING = """\
00:02.0 VGA compatible controller [0300]: Acme [8086:1234] (rev 04)
\tCapabilities: [70] Express (v2) Root Complex Integrated Endpoint, MSI 00
\tCapabilities: [320 v1] Single Root I/O Virtualization (SR-IOV)
\t\tIOVCtl:\tEnable+ Migration-
\t\tInitial VFs: 7, Total VFs: 7, Number of VFs: 3, Function Dependency Link: 00
\t\tVF offset: 1, stride: 1, Device ID: 1234
00:1c.0 PCI bridge [0604]: Acme Port [8086:a33c] (rev f0)
\tBus: primary=00, secondary=01, subordinate=02, sec-latency=0
\tCapabilities: [40] Express (v2) Root Port (Slot+), MSI 00
\tCapabilities: [140 v1] Access Control Services
\t\tACSCap:\tSrcValid+ TransBlk+ ReqRedir+ CmpltRedir+ UpstreamFwd- EgressCtrl- DirectTrans-
\t\tACSCtl:\tSrcValid+ TransBlk- ReqRedir+ CmpltRedir+ UpstreamFwd- EgressCtrl- DirectTrans-
10000:e1:00.0 Non-Volatile memory controller: Acme
\tMemory at 80000000 (64-bit) [size=16K]
00: 86 80 34 12 06 04 10 00 02 00 00 02 00 00 80 00
10: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
-+-[0000:80]-+-00.0
 |           \\-02.0-[81]--
 \\-[0000:00]-+-00.0  Acme
             \\-1c.0-[01-02]--+-00.0
[{"bdf": "0000:00:02.0", "class_code": 768, "secondary_bus": null}]
"""
LOG = """\
DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap d2008c40660462 ecap f050da
IOMMU fed91000: ver 1:0 cap c9008020630262 ecap f0105a
(XEN) [VT-D]drhd->address = fed91000 iommu->reg = ffff82c000203000
(XEN) [VT-D]cap = d2008c40660462 ecap = f050da
"""
MAP = """\
[    0.000000] BIOS-e820: [mem 0x0000000000001000-0x000000000009efff] usable
 BIOS-e820: 000000007a000000 - 000000007b000000 (reserved)
7a000000-7affffff : Reserved
Reserved   000000007A000000-000000007AFFFFFF 0000000000001000 000000000000000F
[{"start": 4096, "end": 8191, "type": 2}]
"""
PRINTED = (
    """\
  DMAR: Length=112, Revision=1, Checksum=161,
\tOEMID=ACME, OEM Table ID=BOARD, OEM Revision=0x3,
\tCreator ID=INTL, Creator Revision=0x1
\tHost Address Width=39
\tFlags={INTR_REMAP}

\tType=DRHD
\tLength=32
\tFlags={INCLUDE_ALL}
\tSegment=0
\tAddress=0x00000000fed91000
\tDevice Scope:
\t\tType=IOAPIC
\t\tLength=8
\t\tEnumerationId=2
\t\tStartBusNumber=240
\t\tPath={31:0}

\t\tType=5
\t\tLength=8
\t\tEnumerationId=1
\t\tStartBusNumber=0
\t\tPath={21:0}

\tType=4
\tLength=32
 */
""",
    """\
DMAR address ............................................. 0x000000007A5F6018
    Host Address Width ................................... 0x26
    Flags ................................................ 0x01
    Type ................................................. 0x0001
    Segment Number ....................................... 0x0000
    Reserved Memory Region Base Address .................. 0x000000007B000000
    Reserved Memory Region Limit Address ................. 0x000000007F7FFFFF
      Device Scope Entry Type ............................ 0x01
      Enumeration ID ..................................... 0x00
      Starting Bus Number ................................ 0x00
      Device ............................................. 0x02
      Function ........................................... 0x00
""",
)
DUMPS = {
    "iommu_regset": """\
IOMMU: dmar0 Register Base Address: fed90000
VER             \t0x00\t\t0x0000000000000010
GSTS            \t0x1c\t\t0x00000000c7000000
CAP             \t0x08\t\t0x80d2008c222f0606
ECAP            \t0x10\t\t0x0000000000f00f4a
RTADDR          \t0x20\t\t0x0000000000001000
IRTA            \t0xb8\t\t0x0000000000100000
""",
    "dmar_translation_struct": """\
IOMMU dmar0: Root Table Address: 0x1000
00:02.0\t0x0000000000000000:0x0000000000002001\t0x0000000000000102:0x0000000000003001\t-1\t\
0x0000000000000000:0x0000000000000000:0x0000000000000000
""",
    "domain_translation_struct": """\
Device 0000:00:02.0 @0x3000
0x0000000000010 |\t0x0000000000000000\t0x0000000000004003\t0x0000000000005003\t\
0x0000000000006003\t0x00000000000aa003
""",
    "ir_translation_struct": """\
 IR table address:100000
 1     00:02.0 00000000 30  0000000000040010\t0000000000300009
""",
}
LISTS: tuple[Callable[[bytes], str], ...] = (
    lambda data: str(list(data)),
    repr,
    lambda data: ", ".join(map(hex, data)),
    lambda data: base64.b64encode(data).decode(),
)
"""How programs write bytes."""
ALPHABET = '0123456789abcdefABCDEFx:.,-|>+[]() \t\n"{}=/\\\0\ufffd'


class Outcome(NamedTuple):
    """What a campaign found."""

    inputs: Counter[str]
    refused: Counter[str]
    slowest: float
    failures: list[str]


def _listing(text: str) -> None:
    tree = parse_pci_tree(text)
    if len(text) % 4 == 0 and parse_pci_tree(tree.to_json()).functions != tree.functions:
        raise AssertionError("functions lost in JSON")
    isolation_groups(tree)
    for bdf in tree.functions:
        tree.alias(bdf)


def _table(text: str) -> None:
    for found in find_tables(text.encode("utf-8", "replace")):
        if len(found.data) >= 48 and Table.parse(found.data).pack() != found.data:
            raise AssertionError("bytes lost")


def _sysfs(text: str) -> None:
    data = text.encode("latin-1", "replace")
    tree = PciTree(sysfs_functions({"0000:00:02.0/config": data, "0000:00:02.0/class": data[:9]}))
    isolation_groups(tree)


def _debugfs(text: str) -> None:
    parts = text.split("\f")
    names = list(DUMPS)
    dumped_units({names[n % 4]: part.encode("utf-8", "replace") for n, part in enumerate(parts)})


def _archive(text: str) -> None:
    read_archive(text.encode("latin-1", "replace"))


READERS: dict[str, Callable[[str], object]] = {
    "lspci": _listing,
    "registers": listed_units,
    "dumps": _table,
    "source": _table,
    "memory map": parse_memory_map,
    "debugfs": _debugfs,
    "sysfs": _sysfs,
    "archive": _archive,
}


def dump(data: bytes, start: int = 0) -> str:
    """A hex dump as acpidump prints it."""
    return "\n".join(
        f"    {start + at:04X}: {data[at : at + 16].hex(' ').upper():47}  ...."
        for at in range(0, len(data), 16)
    )


def seeds(folder: Path | None) -> dict[str, list[str]]:
    """Sound inputs of every reader."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()] if folder else []
    binaries = [each for each in files if each.suffix in (".bin", ".dmar")]
    tables = [file.read_bytes() for file in (*sorted(TABLES.rglob("*.bin")), *binaries)]
    tables = [data for data in tables if 48 <= len(data) < 600]
    sources = []
    for data in (each for each in tables if len(each) < 200):
        try:
            sources.append(write_source(Table.parse(data))[0])
        except TableError:
            continue
    listings = [LISTING, *LISTING.splitlines()]
    found = {
        "lspci": listings,
        "registers": [LOG],
        "dumps": [
            *map(dump, tables),
            *(dump(each, 0x7000) for each in tables),
            *(form(each) for each in tables[::5] for form in LISTS),
        ],
        "source": [*sources, *PRINTED],
        "memory map": [MAP, *MAP.splitlines()],
        "debugfs": ["\f".join(DUMPS.values()), *map(_captured, sorted(CAPTURES.glob("*/debugfs")))],
        "sysfs": [bytes(range(256)).decode("latin-1") * 2],
        "archive": [Files({"lspci.txt": LISTING.encode()}).archive().decode("latin-1")],
    }
    for file in files:
        text = file.read_bytes()[:20000].decode("utf-8", "replace")
        for name in ("lspci", "registers", "dumps", "source", "memory map"):
            found[name].append(text)
    return {name: list(filter(accepted(name), texts)) for name, texts in found.items()}


def _captured(folder: Path) -> str:
    """The beginning of each kind of dump of a captured guest."""
    dumps = (gzip.decompress(next(folder.glob(f"*{name}*")).read_bytes()) for name in DUMPS)
    return "\f".join("\n".join(each.decode().splitlines()[:40]) for each in dumps)


def accepted(name: str) -> Callable[[str], bool]:
    """Whether a reader takes a text; mutations start from those only."""

    def taken(text: str) -> bool:
        try:
            return READERS[name](text) != []
        except ValueError:
            return False

    return taken


def mutated(rng: random.Random, text: str, others: list[str]) -> str:
    """A text with a few places changed, cut, doubled or taken from another one."""
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(text) + 1)
        match rng.randrange(6):
            case 0:
                text = text[:at] + rng.choice(ALPHABET) + text[at + 1 :]
            case 1:
                text = text[:at] + text[at + rng.randrange(60) :]
            case 2:
                text = text[:at] + text[at : at + rng.randrange(200)] + text[at:]
            case 3:
                other = rng.choice(others)
                start = rng.randrange(len(other) + 1)
                text = text[:at] + other[start : start + rng.randrange(200)] + text[at:]
            case 4:
                lines = text.splitlines(keepends=True)
                rng.shuffle(lines)
                text = "".join(lines) if rng.random() < 0.2 else text
            case _:
                junk = "".join(rng.choice(ALPHABET) for _ in range(rng.randrange(12)))
                text = text[:at] + junk + text[at:]
    return text


def campaign(count: int, seed: int, folder: Path | None = None) -> Outcome:
    """Give ``count`` inputs to the readers in turn; the same seed gives the same inputs."""
    rng = random.Random(seed)
    known = seeds(folder)
    outcome = Outcome(Counter(), Counter(), 0.0, [])
    slowest = 0.0
    for number in range(count):
        name = list(READERS)[number % len(READERS)]
        text = mutated(rng, rng.choice(known[name]), known[name])
        start = time.process_time()
        try:
            READERS[name](text)
        except ValueError:
            outcome.refused[name] += 1
        except Exception as error:
            outcome.failures.append(f"{name}: {type(error).__name__}: {error}: {text[:300]!r}")
        spent = time.process_time() - start
        slowest = max(slowest, spent)
        outcome.inputs[name] += 1
        if spent > LIMIT:
            outcome.failures.append(f"{name}: {spent:.1f} s: {text[:300]!r}")
    return outcome._replace(slowest=slowest)


def main() -> None:
    """Run a campaign and print its outcome; exit code 1 if something failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("inputs", nargs="?", type=int, default=100_000)
    parser.add_argument("seed", nargs="?", type=int, default=1)
    parser.add_argument("folder", nargs="?", type=Path, help="of texts to start from as well")
    asked = parser.parse_args()
    start = time.perf_counter()
    outcome = campaign(asked.inputs, asked.seed, asked.folder)
    minutes = (time.perf_counter() - start) / 60
    for name, number in outcome.inputs.items():
        print(f"{name:12} {number:8} inputs, {outcome.refused[name]:8} refused")
    print(f"{len(outcome.failures)} failures, slowest {outcome.slowest:.2f} s, {minutes:.1f} min")
    for failure in outcome.failures[:20]:
        print(failure)
    sys.exit(bool(outcome.failures))


if __name__ == "__main__":
    main()
