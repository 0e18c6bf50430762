"""What commands read: files or stdin, DMAR tables in them, data of the platform; and how they fail.

Wrong use and unusable input end a command with exit code 2 and one line on stderr. Every reader has
a limit, so that a device such as /dev/zero ends at once. A collection of ``vtd collect``, folder or
archive, stands in for every single file.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, BinaryIO, NamedTuple

import typer

from vtd.commands.exit_codes import UNUSABLE
from vtd.dmar.inputs import Found, find_tables
from vtd.dmar.listing import parse_pci_tree
from vtd.dmar.listing.sysfs import is_sysfs, sysfs_functions
from vtd.dmar.pci_tree import PciFunction, PciTree, PciTreeError
from vtd.dmar.rules import validate
from vtd.dmar.rules.header import SIGNATURES
from vtd.dmar.table import Table, TableError
from vtd.inspection import collection
from vtd.inspection.collection import Files, is_archive, read_archive, read_folder

DOUBTFUL = frozenset({"DMAR-H02", "DMAR-H03", "DMAR-H14"})
"""Rules that what is not a whole table, or a hidden one, breaks."""
NO_DMAR_TABLE = "DMAR-H01"
"""The rule that a table of another signature breaks."""
LARGEST_TABLE_FILE = 64 << 20
"""Bytes; an acpidump of every table of a large server has a few MiB."""
LARGEST_TEXT_FILE = 256 << 20
"""Bytes of a log or listing; the journal of months has some ten MiB."""

TableFile = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="A DMAR table: raw, hex dump of any tool, iasl source, collection; - is stdin.",
    ),
]
Lspci = Annotated[
    Path | None,
    typer.Option(help="PCI tree: lspci output of any form, a copy of sysfs, or JSON."),
]


@contextmanager
def unusable_input(what: str) -> Iterator[None]:
    """End the command with exit code 2 when ``what`` can't be read or understood.

    That is an input, - for stdin, or the command itself, such as ``vtd sweep``.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        by = "" if what.startswith("vtd ") else "vtd: "
        typer.echo(f"{by}{_reason(what, error)}", err=True)
        raise typer.Exit(UNUSABLE) from error


def _reason(what: str, error: OSError | ValueError) -> str:
    """What is wrong with an input, in one line that begins with its name."""
    name, reason = "stdin" if what == "-" else what, str(error)
    cause = error.__cause__ or error
    if isinstance(cause, UnicodeDecodeError):
        reason = reason.replace(str(cause), "not text")
    elif what == "-" and isinstance(cause, FileNotFoundError):
        reason = "not read by this command: name a file"
    elif isinstance(error, OSError) and error.strerror:
        inside = "" if error.filename in (None, name) else f"{error.filename}: "
        reason = f"{inside}{error.strerror}"
    text = reason if reason.startswith(f"{name}: ") else f"{name}: {reason}"
    return " ".join(text.split())


def read_bytes(file: str, limit: int = LARGEST_TEXT_FILE) -> bytes:
    """The bytes of a file, of stdin for ``-``; ValueError for more than ``limit``."""
    with _opened(file) as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"more than {limit >> 20} MiB")
    return data


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


def read_part(file: str | Path, name: str) -> str:
    """The text of a file, or of the part of a collection with this name."""
    files = read_files(file)
    if files is None:
        return read_text(file)
    text = files.text(name)
    if text is None:
        raise ValueError(f"no {name} in it")
    return text


def read_files(file: str | Path) -> Files | None:
    """The files of a folder or archive; None for a single file."""
    path = Path(file)
    if str(file) != "-" and path.is_dir():
        return read_folder(path)
    if str(file) == "-" or not path.is_file():
        return None
    with path.open("rb") as stream:
        start = stream.read(512)
    return read_archive(read_bytes(str(file))) if is_archive(start) else None


class NamedTable(NamedTuple):
    """The bytes of one table and what to call them."""

    name: str
    data: bytes


class Unreadable(NamedTuple):
    """A file of which nothing can be judged, and why."""

    name: str
    reason: str


def read_tables(file: str) -> list[NamedTable]:
    """The DMAR tables of a file; several are numbered from 1."""
    with unusable_input(file):
        files = read_files(file)
        if files is None:
            return _tables_of(file, read_bytes(file, LARGEST_TABLE_FILE))
        tables = tables_in(file, files)
        if not tables:
            raise TableError("no DMAR table in it")
        return tables


def tables_in(folder: str, files: Files) -> list[NamedTable]:
    """The DMAR tables of a folder; what can't be read is passed over."""
    return [each for each in _tables_of_folder(folder, files) if isinstance(each, NamedTable)]


def every_table(file: str) -> Iterator[NamedTable | Unreadable]:
    """The DMAR tables of a file, or of all files of a folder, and the files that can't be read."""
    try:
        files = read_files(file)
        if files is None:
            yield from _tables_of(file, read_bytes(file, LARGEST_TABLE_FILE))
        else:
            yield from _tables_of_folder(file, files)
    except (OSError, ValueError) as error:
        name = "stdin" if file == "-" else file
        yield Unreadable(name, _reason(file, error).removeprefix(f"{name}: "))


def _tables_of_folder(folder: str, files: Files) -> Iterator[NamedTable | Unreadable]:
    """The tables of a folder; whole ACPI tables of other kinds are passed over."""
    found = False
    for path, data in files.contents.items():
        if files.is_collection and not path.startswith(collection.TABLES):
            continue
        name = f"{folder.rstrip('/')}/{path}"
        try:
            if len(data) > LARGEST_TABLE_FILE:
                raise TableError(f"more than {LARGEST_TABLE_FILE >> 20} MiB")
            if data[:4] not in SIGNATURES and _whole_acpi_table(data):
                continue
            yield from _tables_of(name, data)
        except ValueError as error:
            yield Unreadable(name, str(error))
        found = True
    for path, reason in files.unreadable.items():
        yield Unreadable(f"{folder.rstrip('/')}/{path}", reason)
        found = True
    if not found:
        yield Unreadable(folder, "no DMAR table in it")


def _whole_acpi_table(data: bytes) -> bool:
    return len(data) >= 36 and int.from_bytes(data[4:8], "little") == len(data)


def _tables_of(file: str, data: bytes) -> list[NamedTable]:
    name = "stdin" if file == "-" else file
    if not data:
        raise TableError("empty")
    tables = find_tables(data)
    named = [name] if len(tables) == 1 else [f"{name}#{n}" for n in range(1, len(tables) + 1)]
    return [_told(each, found) for each, found in zip(named, tables, strict=True)]


def _told(name: str, found: Found) -> NamedTable:
    for note in found.notes:
        typer.echo(f"vtd: {name}: {note}", err=True)
    return NamedTable(name, found.data)


def table_beside(file: str, given: Path | None) -> Table | None:
    """The DMAR table that was given, else that of the collection ``file``; None without either."""
    if given is not None:
        return read_table(str(given))
    with unusable_input(file):
        files = read_files(file)
    below = collection.TABLES
    tables = tables_in(f"{file.rstrip('/')}/{below}", files.below(below)) if files else []
    return decoded(_first(tables)) if tables else None


def read_table(file: str) -> Table:
    """The first DMAR table of a file, decoded; what makes it doubtful is told on stderr."""
    return decoded(first_table(file))


def first_table(file: str) -> NamedTable:
    """The first DMAR table of a file; that there are others is told on stderr."""
    return _first(read_tables(file))


def _first(tables: list[NamedTable]) -> NamedTable:
    if len(tables) > 1:
        typer.echo(f"vtd: {tables[0].name}: the first of {len(tables)} tables", err=True)
    return tables[0]


def decoded(given: NamedTable) -> Table:
    """A table decoded; what makes it doubtful is told on stderr."""
    with unusable_input(given.name):
        table = Table.parse(given.data)
    tell_doubts(given, DOUBTFUL | {NO_DMAR_TABLE})
    return table


def tell_doubts(given: NamedTable, rules: Collection[str]) -> bool:
    """Tell on stderr what rules find in a table, and whether it is anything."""
    findings = validate(given.data, rules=rules)
    for finding in findings:
        typer.echo(f"vtd: {given.name}: {finding.rule}: {finding.message}", err=True)
    return bool(findings)


def read_pci_tree(lspci: Path | str | None) -> PciTree | None:
    """The PCI tree in a file, a copy of sysfs or a collection; None without one."""
    if lspci is None:
        return None
    with unusable_input(str(lspci)):
        files = read_files(lspci)
        if files is None:
            return parse_pci_tree(read_text(lspci))
        tree = tree_in(files)
        if tree is None:
            raise PciTreeError("PCI tree: neither lspci output nor a copy of sysfs in it")
        return tree


def tree_in(files: Files) -> PciTree | None:
    """The functions of a folder: of its copy of sysfs and of its listings."""
    functions: list[PciFunction] = []
    if is_sysfs(files.contents):
        functions += sysfs_functions(files.contents, files.links)
    text = files.text(collection.LSPCI)
    if text and text.strip():
        functions += parse_pci_tree(text).functions.values()
    return PciTree(functions) if functions else None
