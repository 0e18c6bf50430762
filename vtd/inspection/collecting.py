"""Gathering what the commands use from a running Linux, as far as the user may read it.

Files come from ``/sys``, ``/proc`` and debugfs below a root; what programs print is given by the
caller. Whatever can't be read is noted with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vtd.inspection import collection
from vtd.inspection.collection import Files
from vtd.inspection.redaction import Redaction

ACPI = "sys/firmware/acpi/tables"
SIGNATURES = ("DMAR", "APIC", "HPET", "SRAT")
PCI = "sys/bus/pci/devices"
OF_A_FUNCTION = (
    "config", "class", "vendor", "device", "resource", "uevent", "secondary_bus_number",
    "subordinate_bus_number",
)  # fmt: skip
LINKS = ("physfn", "iommu_group", "driver")
UNITS = "sys/class/iommu"
OF_A_UNIT = ("address", "cap", "ecap", "version", "domains_supported", "domains_used")
DEBUGFS = "sys/kernel/debug/iommu/intel"
NAMESPACE = "sys/bus/acpi/devices"
MEMORY_MAP = "proc/iomem"
LARGEST_FILE = 64 << 20
"""Bytes of one file; a dump of page tables of a large machine has some ten MiB."""


@dataclass
class Gathered:
    """Files so far, and what is missing with the reason."""

    root: Path
    contents: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def file(self, name: str, path: Path) -> bool:
        """Add a file under a name; note why if it can't be read."""
        try:
            with path.open("rb") as stream:
                data = stream.read(LARGEST_FILE + 1)
        except OSError as error:
            self.missing[name] = error.strerror or str(error)
            return False
        if len(data) > LARGEST_FILE:
            self.missing[name] = f"more than {LARGEST_FILE >> 20} MiB"
            return False
        self.contents[name] = data
        return True

    def entries(self, name: str, folder: str) -> list[Path]:
        """What is in a folder; the reason is noted under ``name`` if there is nothing to see."""
        try:
            found = sorted((self.root / folder).iterdir())
        except OSError as error:
            self.missing[name] = error.strerror or str(error)
            return []
        if not found:
            self.missing[name] = f"nothing in /{folder}"
        return found


def collect(
    root: Path, printed: Mapping[str, bytes | str], redaction: Redaction | None = None
) -> tuple[Files, dict[str, str]]:
    """The collection of the machine below ``root``, and what is missing in it.

    ``printed`` has what programs print under the names of the collection, or, as text, why they
    print nothing.
    """
    gathered = Gathered(root)
    _tables(gathered)
    _functions(gathered)
    _units(gathered)
    _debugfs(gathered)
    _namespace(gathered)
    _memory_map(gathered)
    for name, output in printed.items():
        if isinstance(output, bytes):
            gathered.contents[name] = output
        else:
            gathered.missing[name] = output
    contents = gathered.contents
    if redaction is not None:
        contents = {name: redaction.cleaned(name, data) for name, data in contents.items()}
    contents[collection.MANIFEST] = collection.manifest(gathered.missing)
    return Files(contents, gathered.links), gathered.missing


def _tables(gathered: Gathered) -> None:
    found = gathered.entries(collection.TABLES, ACPI)
    for path in found:
        if path.name.startswith(SIGNATURES):
            gathered.file(collection.TABLES + path.name, path)
    if found and not any(path.name.startswith("DMAR") for path in found):
        gathered.missing[collection.TABLES + "DMAR"] = "firmware has no DMAR table"


def _functions(gathered: Gathered) -> None:
    for folder in gathered.entries(collection.PCI, PCI):
        place = collection.PCI + folder.name
        for name in OF_A_FUNCTION:
            if (folder / name).exists():
                gathered.file(f"{place}/{name}", folder / name)
        for name in LINKS:
            if (folder / name).is_symlink():
                gathered.links[f"{place}/{name}"] = str((folder / name).readlink())
        if folder.is_symlink():
            gathered.contents[f"{place}/devpath"] = str(folder.readlink()).encode()
    short = [
        name
        for name, data in gathered.contents.items()
        if name.endswith("/config") and len(data) < 0x100
    ]
    if short:
        gathered.missing["capabilities of PCI functions"] = "configuration space needs root"


def _units(gathered: Gathered) -> None:
    for folder in gathered.entries(collection.UNITS, UNITS):
        for name in OF_A_UNIT:
            path = folder / "intel-iommu" / name
            if path.exists():
                gathered.file(f"{collection.UNITS}{folder.name}/intel-iommu/{name}", path)


def _debugfs(gathered: Gathered) -> None:
    for path in _files(gathered.entries(collection.DEBUGFS, DEBUGFS)):
        name = path.relative_to(gathered.root / DEBUGFS).as_posix()
        gathered.file(collection.DEBUGFS + name, path)


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            yield from _files(sorted(path.iterdir()))
        elif path.is_file():
            yield path


def _namespace(gathered: Gathered) -> None:
    names = []
    for folder in gathered.entries(collection.NAMESPACE, NAMESPACE):
        try:
            names.append((folder / "path").read_bytes().strip())
        except OSError:
            continue  # objects such as buttons have none
    if names:
        gathered.contents[collection.NAMESPACE] = b"\n".join(names) + b"\n"


def _memory_map(gathered: Gathered) -> None:
    """Ordinary users see the names but not the addresses."""
    name = collection.MEMORY_MAP
    if gathered.file(name, gathered.root / MEMORY_MAP):
        digits = b"".join(line.partition(b" :")[0] for line in gathered.contents[name].splitlines())
        if not digits.strip(b" -0"):
            del gathered.contents[name]
            gathered.missing[name] = "addresses need root"
