"""``vtd dmar edit``: a changed table with Length and Checksum right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from vtd.commands.dmar_output import OutputFile, write_output
from vtd.commands.option_groups import with_option_groups
from vtd.commands.reading import TableFile, read_table, unusable_input
from vtd.dmar.written_edits import written_edits

Texts = list[str] | None


@dataclass(frozen=True)
class Edits:
    """An option for each of :data:`~vtd.dmar.written_edits.EDITS`, in their order."""

    drop_rmrr: Annotated[
        Texts, typer.Option(metavar="BASE|all", help="Drop the RMRR with this base, or all.")
    ] = None
    move_rmrr: Annotated[
        Texts,
        typer.Option(metavar="BASE=BASE-LIMIT", help="Give an RMRR other bounds."),
    ] = None
    add_rmrr: Annotated[
        Texts,
        typer.Option(
            metavar="BASE-LIMIT=BDF[,BDF]", help="Add an RMRR; the limit is its last byte."
        ),
    ] = None
    drop_drhd: Annotated[
        Texts,
        typer.Option(metavar="BASE", help="Drop a unit and its RHSA."),
    ] = None
    move_drhd: Annotated[
        Texts, typer.Option(metavar="BASE=BASE", help="Put a unit and its RHSA elsewhere.")
    ] = None
    add_drhd: Annotated[
        Texts,
        typer.Option(
            metavar="BASE[@SEGMENT][=BDF[,BDF]]",
            help="Add a unit for devices; without any, INCLUDE_PCI_ALL.",
        ),
    ] = None
    drop_atsr: Annotated[
        Texts, typer.Option(metavar="OFFSET|all", help="Drop the ATSR at an offset, or all.")
    ] = None
    add_atsr: Annotated[
        Texts,
        typer.Option(
            metavar="BDF[,BDF]|all[@SEGMENT]", help="Add an ATSR for root ports, or ALL_PORTS."
        ),
    ] = None
    drop_andd: Annotated[
        Texts, typer.Option(metavar="NAME", help="Drop an ACPI device, its entries included.")
    ] = None
    add_andd: Annotated[
        Texts,
        typer.Option(
            metavar="NAME=BDF@BASE", help="Declare an ACPI device, listed by the unit at BASE."
        ),
    ] = None
    move: Annotated[
        Texts,
        typer.Option(metavar="BDF=BASE", help="List a device under the unit with this base."),
    ] = None
    set_flag: Annotated[
        Texts,
        typer.Option(
            metavar="FLAG[@WHERE]=0|1",
            help="Set or clear a flag of the table, or of the structure with this base or offset.",
        ),
    ] = None
    oem_id: Annotated[str | None, typer.Option(help="OEM ID, up to 6 characters.")] = None
    oem_table_id: Annotated[
        str | None,
        typer.Option(help="OEM Table ID, up to 8 characters."),
    ] = None
    oem_revision: Annotated[
        str | None,
        typer.Option(metavar="N", help="OEM Revision, decimal, or hexadecimal with 0x."),
    ] = None

    def by_name(self) -> dict[str, Texts]:
        """The texts of each edit, as :func:`~vtd.dmar.written_edits.written_edits` has them."""
        return {
            name.replace("_", "-"): [text] if isinstance(text, str) else text
            for name, text in vars(self).items()
        }


@with_option_groups
def edit_command(file: TableFile, output: OutputFile, edits: Edits) -> None:
    """Change a table; Length and Checksum come out right, without any option too.

    Edits apply in the order of these options. Addresses and offsets are hexadecimal, with or
    without 0x.
    """
    table = read_table(file)
    with unusable_input("edit"):
        table = written_edits(table, edits.by_name())
    write_output(output, table.pack())
