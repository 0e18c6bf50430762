"""What commands read: files or stdin, DMAR tables in them, data of the platform; and how they fail.

Wrong use and unusable input end a command with exit code 2 and one line on stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, BinaryIO, NamedTuple, TypeVar

import typer

from vtd.dmar.inputs import acpi_tables, dmar_tables
from vtd.dmar.listing import parse_pci_tree
from vtd.dmar.memory_map import parse_memory_map
from vtd.dmar.pci_tree import PciTree
from vtd.dmar.platform_data import (
    PlatformData,
    UnitRegisters,
    parse_hpet,
    parse_madt,
    parse_namespace,
    parse_registers,
    parse_srat,
)
from vtd.dmar.rules import validate
from vtd.dmar.table import Table, TableError

T = TypeVar("T")

UNUSABLE = 2
"""Exit code for wrong use and unusable input."""
DOUBTFUL = frozenset({"DMAR-H01", "DMAR-H02", "DMAR-H03"})
"""Rules that what is no DMAR table, or not a whole one, breaks."""
LARGEST_TABLE_FILE = 64 << 20
"""Bytes; an acpidump of every table of a large server has a few MiB."""

TableFile = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="A DMAR table: raw, acpidump or acpixtract text, iasl -d output; - is stdin.",
    ),
]
MemoryMap = Annotated[
    Path | None, typer.Option(help="Memory map: /proc/iomem (as root) or E820 entries in JSON.")
]
Madt = Annotated[Path | None, typer.Option(help="MADT (APIC) table.")]
Hpet = Annotated[Path | None, typer.Option(help="HPET table or tables.")]
Srat = Annotated[Path | None, typer.Option(help="SRAT table.")]
Lspci = Annotated[
    Path | None, typer.Option(help="PCI tree: output of lspci -xxxx or -vvv, or JSON.")
]
Namespace = Annotated[
    Path | None, typer.Option(help="Names of ACPI objects, one per line (sysfs acpi paths).")
]
Registers = Annotated[
    list[str] | None, typer.Option(metavar="BASE:CAP:ECAP[:VER]", help="Registers of a unit, hex.")
]


@contextmanager
def unusable_input(what: str) -> Iterator[None]:
    """End the command with exit code 2 when ``what``, - for stdin, can't be read or understood."""
    try:
        yield
    except (OSError, ValueError) as error:
        name, reason = "stdin" if what == "-" else what, str(error)
        if isinstance(error, OSError) and error.strerror:
            inside = "" if error.filename in (None, name) else f"{error.filename}: "
            reason = f"{inside}{error.strerror}"
        text = reason if reason.startswith(f"{name}: ") else f"{name}: {reason}"
        typer.echo(f"vtd: {text}", err=True)
        raise typer.Exit(UNUSABLE) from error


def read_bytes(file: str) -> bytes:
    """The bytes of a file, of stdin for ``-``."""
    with _opened(file) as stream:
        return stream.read()


def _opened(file: str) -> AbstractContextManager[BinaryIO]:
    """A file to read, stdin for ``-``; ValueError if that is closed."""
    if file != "-":
        return Path(file).open("rb")
    if sys.stdin is None:
        raise ValueError("closed")
    return nullcontext(sys.stdin.buffer)


def read_text(file: str | Path) -> str:
    """The text of a file, of stdin for ``-``; bytes outside UTF-8 become replacement marks."""
    return read_bytes(str(file)).decode("utf-8", "replace")


def _read_table_file(file: str) -> bytes:
    """The bytes of a file with tables; TableError if it is larger than such a file can be."""
    with _opened(file) as stream:
        data = stream.read(LARGEST_TABLE_FILE + 1)
    if len(data) > LARGEST_TABLE_FILE:
        raise TableError(f"more than {LARGEST_TABLE_FILE >> 20} MiB: not a file of tables")
    return data


class NamedTable(NamedTuple):
    """The bytes of one table and what to call them."""

    name: str
    data: bytes


def read_tables(file: str) -> list[NamedTable]:
    """The DMAR tables of a file; several are numbered from 1."""
    name = "stdin" if file == "-" else file
    with unusable_input(name):
        data = _read_table_file(file)
        if not data:
            raise TableError("empty")
        tables = dmar_tables(data)
    if len(tables) == 1:
        return [NamedTable(name, tables[0])]
    return [NamedTable(f"{name}#{number}", data) for number, data in enumerate(tables, 1)]


def read_table(file: str) -> Table:
    """The first DMAR table of a file, decoded; what makes it doubtful is told on stderr."""
    tables = read_tables(file)
    first = tables[0]
    with unusable_input(first.name):
        table = Table.parse(first.data)
    if len(tables) > 1:
        typer.echo(f"vtd: {first.name}: the first of {len(tables)} tables", err=True)
    for finding in validate(first.data, rules=DOUBTFUL):
        typer.echo(f"vtd: {first.name}: {finding.rule}: {finding.message}", err=True)
    return table


def read_platform(
    memory_map: Path | None = None,
    madt: Path | None = None,
    hpet: Path | None = None,
    srat: Path | None = None,
    lspci: Path | None = None,
    namespace: Path | None = None,
    registers: list[str] | None = None,
) -> PlatformData:
    """The data of the platform from whatever files were given."""
    return PlatformData(
        reserved_memory=_text(memory_map, parse_memory_map),
        io_apics=_acpi(madt, b"APIC", lambda tables: parse_madt(tables[0])),
        hpets=_acpi(hpet, b"HPET", lambda tables: frozenset(map(parse_hpet, tables))),
        proximity_domains=_acpi(srat, b"SRAT", lambda tables: parse_srat(tables[0])),
        pci=read_pci_tree(lspci),
        registers=_registers(registers),
        namespace=_text(namespace, parse_namespace),
    )


def read_pci_tree(lspci: Path | None) -> PciTree | None:
    """The PCI tree in a file, None without one."""
    return _text(lspci, parse_pci_tree)


def _text(file: Path | None, parse: Callable[[str], T]) -> T | None:
    if file is None:
        return None
    with unusable_input(str(file)):
        return parse(read_text(file))


def _acpi(file: Path | None, signature: bytes, parse: Callable[[list[bytes]], T]) -> T | None:
    """What ``parse`` makes of the tables with a signature in a file."""
    if file is None:
        return None
    with unusable_input(str(file)):
        tables = [
            each for each in acpi_tables(_read_table_file(str(file))) if each[:4] == signature
        ]
        if not tables:
            raise TableError(f"no {signature.decode()} table")
        return parse(tables)


def _registers(texts: list[str] | None) -> dict[int, UnitRegisters] | None:
    if not texts:
        return None
    with unusable_input("--registers"):
        return dict(map(parse_registers, texts))
