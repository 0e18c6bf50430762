"""``vtd dmar edit``: a changed table with Length and Checksum right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from vtd.commands.dmar_output import OutputFile, write_output
from vtd.commands.numbers import parse_count, parse_hexadecimal
from vtd.commands.reading import TableFile, read_table, unusable_input
from vtd.dmar import edit, edit_units
from vtd.dmar.edit import EditError
from vtd.dmar.table import Table

Texts = list[str] | None


def edit_command(
    file: TableFile,
    output: OutputFile,
    drop_rmrr: Annotated[
        Texts, typer.Option(metavar="BASE|all", help="Drop the RMRR with this base, or all.")
    ] = None,
    move_rmrr: Annotated[
        Texts,
        typer.Option(metavar="BASE=BASE-LIMIT", help="Give an RMRR other bounds."),
    ] = None,
    add_rmrr: Annotated[
        Texts,
        typer.Option(
            metavar="BASE-LIMIT=BDF[,BDF]", help="Add an RMRR; the limit is its last byte."
        ),
    ] = None,
    drop_drhd: Annotated[
        Texts, typer.Option(metavar="BASE", help="Drop a unit and its RHSA.")
    ] = None,
    move_drhd: Annotated[
        Texts, typer.Option(metavar="BASE=BASE", help="Put a unit and its RHSA elsewhere.")
    ] = None,
    add_drhd: Annotated[
        Texts,
        typer.Option(
            metavar="BASE[@SEGMENT][=BDF[,BDF]]",
            help="Add a unit for devices; without any, INCLUDE_PCI_ALL.",
        ),
    ] = None,
    drop_atsr: Annotated[
        Texts, typer.Option(metavar="OFFSET|all", help="Drop the ATSR at an offset, or all.")
    ] = None,
    add_atsr: Annotated[
        Texts,
        typer.Option(
            metavar="BDF[,BDF]|all[@SEGMENT]", help="Add an ATSR for root ports, or ALL_PORTS."
        ),
    ] = None,
    drop_andd: Annotated[
        Texts, typer.Option(metavar="NAME", help="Drop an ACPI device, its entries included.")
    ] = None,
    add_andd: Annotated[
        Texts,
        typer.Option(
            metavar="NAME=BDF@BASE", help="Declare an ACPI device, listed by the unit at BASE."
        ),
    ] = None,
    move: Annotated[
        Texts,
        typer.Option(metavar="BDF=BASE", help="List a device under the unit with this base."),
    ] = None,
    set_flag: Annotated[
        Texts,
        typer.Option(
            metavar="FLAG[@WHERE]=0|1",
            help="Set or clear a flag of the table, or of the structure with this base or offset.",
        ),
    ] = None,
    oem_id: Annotated[str | None, typer.Option(help="OEM ID, up to 6 characters.")] = None,
    oem_table_id: Annotated[
        str | None, typer.Option(help="OEM Table ID, up to 8 characters.")
    ] = None,
    oem_revision: Annotated[
        str | None,
        typer.Option(metavar="N", help="OEM Revision, decimal, or hexadecimal with 0x."),
    ] = None,
) -> None:
    """Change a table; Length and Checksum come out right, without any option too.

    Edits apply in the order of these options. Addresses and offsets are hexadecimal, with or
    without 0x.
    """
    table = read_table(file)
    edits: tuple[tuple[Texts, Callable[[Table, str], Table]], ...] = (
        (drop_rmrr, _drop_rmrr),
        (move_rmrr, _move_rmrr),
        (add_rmrr, _add_rmrr),
        (drop_drhd, lambda table, text: edit_units.drop_unit(table, _address(text))),
        (move_drhd, _move_drhd),
        (add_drhd, _add_drhd),
        (drop_atsr, _drop_atsr),
        (add_atsr, _add_atsr),
        (drop_andd, edit_units.drop_andd),
        (add_andd, _add_andd),
        (move, _move),
        (set_flag, _set_flag),
    )
    with unusable_input("edit"):
        edit.require_whole(table)
        for texts, change in edits:
            for text in texts or []:
                table = change(table, text)
        revision = None if oem_revision is None else parse_count(oem_revision)
        table = edit.identify(table, oem_id, oem_table_id, revision)
    write_output(output, table.pack())


def _address(text: str) -> int:
    try:
        return parse_hexadecimal(text)
    except ValueError as error:
        raise EditError(str(error)) from error


def _halves(text: str, separator: str, form: str) -> tuple[str, str]:
    first, found, second = text.partition(separator)
    if not found:
        raise EditError(f"{text!r} is not {form}")
    return first, second


def _bounds(text: str) -> tuple[int, int]:
    base, limit = _halves(text, "-", "BASE-LIMIT")
    return _address(base), _address(limit)


def _drop_rmrr(table: Table, text: str) -> Table:
    return edit.drop_all_rmrrs(table) if text == "all" else edit.drop_rmrr(table, _address(text))


def _move_rmrr(table: Table, text: str) -> Table:
    base, bounds = _halves(text, "=", "BASE=BASE-LIMIT")
    return edit.move_rmrr(table, _address(base), *_bounds(bounds))


def _add_rmrr(table: Table, text: str) -> Table:
    bounds, devices = _halves(text, "=", "BASE-LIMIT=BDF")
    return edit.add_rmrr(table, *_bounds(bounds), devices.split(","))


def _move_drhd(table: Table, text: str) -> Table:
    base, new_base = _halves(text, "=", "BASE=BASE")
    return edit_units.move_unit(table, _address(base), _address(new_base))


def _add_drhd(table: Table, text: str) -> Table:
    place, _, devices = text.partition("=")
    base, _, segment = place.partition("@")
    listed = devices.split(",") if devices else []
    return edit_units.add_unit(table, _address(base), listed, _address(segment or "0"))


def _drop_atsr(table: Table, text: str) -> Table:
    return edit_units.drop_atsr(table, None if text == "all" else _address(text))


def _add_atsr(table: Table, text: str) -> Table:
    ports, _, segment = text.partition("@")
    listed = [] if ports == "all" else ports.split(",")
    return edit_units.add_atsr(table, listed, _address(segment or "0"))


def _add_andd(table: Table, text: str) -> Table:
    name, place = _halves(text, "=", "NAME=BDF@BASE")
    source, base = _halves(place, "@", "NAME=BDF@BASE")
    return edit_units.add_andd(table, name, source, _address(base))


def _move(table: Table, text: str) -> Table:
    device, base = _halves(text, "=", "BDF=BASE")
    return edit.move_device(table, device, _address(base))


def _set_flag(table: Table, text: str) -> Table:
    flag, value = _halves(text, "=", "FLAG=0|1")
    if value not in ("0", "1"):
        raise EditError(f"{text!r}: a flag is 0 or 1")
    return edit.set_flag(table, flag, value == "1")
