"""Inputs for the *Try it* page: files of the repository, and cases of the collection."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conftest import find_reference_folder
from vtd.page.answers import Inputs

ROOT = Path(__file__).parents[1]
TABLES, CAPTURES = ROOT / "tests" / "dmar", ROOT / "tests" / "captures"
EXAMPLES = ROOT / "docs" / "site" / "try" / "examples"
FAULTS = CAPTURES / "edu-faults-legacy48"
VALUES = b"CAP 0xd2008c222f0606 ECAP 0xf00f5e"


def inputs_of(*files: Path) -> Inputs:
    """Files as they are given to the page."""
    return [(file.name, file.read_bytes()) for file in files]


def _malformed(*beginnings: str) -> dict[str, Inputs]:
    files = [next((TABLES / "malformed").glob(f"{each}-*.bin")) for each in beginnings]
    return {file.stem: inputs_of(file) for file in files}


def _clean(*names: str) -> dict[str, Inputs]:
    return {name: inputs_of(TABLES / "clean" / f"{name}.bin") for name in names}


def collected_cases() -> dict[str, Inputs]:
    """The files of the collection by the beginning of their names, where it is there."""
    collection = find_reference_folder()
    cases: dict[str, list[tuple[str, bytes]]] = {}
    for file in sorted((collection / "cases" / "dmar").iterdir()) if collection else ():
        if file.suffix in (".bin", ".txt", ".log", ".dsl"):
            name = re.sub("-(dmar|lspci|map)$", "", file.stem)
            cases.setdefault(name, []).append((file.name, file.read_bytes()))
    return dict(cases)


INPUTS: dict[str, Inputs] = {
    **_clean("iasl-template-1", "qemu-1", "synthetic-andd-root", "synthetic-multiseg8"),
    **_clean("synthetic-sidp-ns", "synthetic-trailing", "synthetic-unknown-type7"),
    **_malformed("m001", "m002", "m016", "m040", "m060", "m080", "m100", "m120"),
    "log": inputs_of(FAULTS / "dmesg-iommu.txt"),
    "table and log": inputs_of(FAULTS / "DMAR.bin", FAULTS / "dmesg-iommu.txt"),
    "two units": inputs_of(EXAMPLES / "capabilities.txt"),
    "values": [("values", VALUES)],
    "hex dump": [
        ("dump.txt", (TABLES / "clean" / "qemu-2.bin").read_bytes().hex(" ").encode()),
    ],
    "server": [
        *inputs_of(EXAMPLES / "server-log.txt", EXAMPLES / "server-lspci.txt"),
        ("map", b"BIOS-e820: [mem 0x3b00000-0x3b0ffff] reserved"),
        *inputs_of(TABLES / "clean" / "synthetic-spec-table33.bin"),
    ],
    **collected_cases(),
}
"""By name, what is given to the page together: 21 sets without the collection."""
