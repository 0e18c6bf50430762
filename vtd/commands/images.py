"""What commands look into: a capture, or a memory image with the registers given by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from pagetables.images import load_image
from pagetables.memory import PhysicalMemory
from pagetables.unchanged import UnchangedMemory
from vtd.commands.dumps import Inspected, open_debugfs
from vtd.commands.reading import unusable_input
from vtd.inspection.capability_rows import capabilities_of
from vtd.layouts.registers import GlobalStatus
from vtd.numbers import parse_count, parse_hexadecimal
from vtd.recordings.capture import MANIFEST, Capture
from vtd.recordings.live import is_live
from vtd.recordings.replay_live import live_run
from vtd.software.registers import start
from vtd.unit.departures import SPECIFICATION, Departures, departures_named
from vtd.unit.options import Options
from vtd.unit.registers.capabilities import PROFILES, Capabilities
from vtd.unit.unit import RemappingUnit


def parse_address(text: str) -> int:
    """An address or a register, hexadecimal with or without 0x."""
    try:
        return parse_hexadecimal(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def parse_number(text: str) -> int:
    """A number in decimal, or in hexadecimal with 0x."""
    try:
        return parse_count(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def parse_departures(text: str) -> Departures:
    """Names of departures with commas between them."""
    try:
        return departures_named(text.split(","))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


ChosenDepartures = Annotated[
    Departures | None,
    typer.Option(
        "--departures",
        parser=parse_departures,
        metavar="NAME[,NAME...]",
        help="Where the unit departs from the specification, as docs/known-differences.md names "
        "it; qemu is all that QEMU does, specification nothing.",
    ),
]
Image = Annotated[
    Path,
    typer.Argument(
        metavar="CAPTURE_OR_IMAGE",
        help="A capture folder or live recording; or an ELF core, a LiME dump or, with --base, a "
        "raw image.",
    ),
]
RootTable = Annotated[
    int | None,
    typer.Option(parser=parse_address, metavar="RTADDR", help="Image: RTADDR_REG, mode included."),
]
InterruptTable = Annotated[
    int | None, typer.Option(parser=parse_address, metavar="IRTA", help="Image: IRTA_REG.")
]


Base = Annotated[
    int | None,
    typer.Option(
        parser=parse_address, metavar="ADDRESS", help="Raw image: where it begins, hexadecimal."
    ),
]


@dataclass(frozen=True)
class ImageOptions:
    """What an image does not say by itself, and whom a capture follows."""

    base: Base = None
    profile: Annotated[
        str | None, typer.Option(help=f"Image: capabilities by name: {', '.join(PROFILES)}.")
    ] = None
    cap: Annotated[
        int | None, typer.Option(parser=parse_address, metavar="CAP", help="Image: CAP_REG.")
    ] = None
    ecap: Annotated[
        int | None, typer.Option(parser=parse_address, metavar="ECAP", help="Image: ECAP_REG.")
    ] = None
    host_address_width: Annotated[
        int | None,
        typer.Option(
            help="Image with CAP and ECAP: the HAW in bits; without it, the widest that MGAW "
            "allows."
        ),
    ] = None
    as_specified: Annotated[
        bool,
        typer.Option(
            "--as-specified",
            help="Capture: by the specification, also where the recorded unit departs from it.",
        ),
    ] = False
    departures: ChosenDepartures = None
    until: Annotated[
        int | None,
        typer.Option(min=2, metavar="LINE", help="Live recording: the state before this line."),
    ] = None

    def chosen(self) -> Departures | None:
        """The departures that the options name; None where a capture's own are to be taken."""
        if self.as_specified and self.departures is not None:
            raise typer.BadParameter(
                "--as-specified says so already: none", param_hint="--departures"
            )
        return SPECIFICATION if self.as_specified else self.departures


def open_image(
    path: Path,
    options: ImageOptions,
    *,
    root_table: int | None = None,
    interrupt_table: int | None = None,
) -> Inspected:
    """The unit of a capture or image; ends the command with exit code 2 if there is none."""
    tables = {"--root-table": root_table, "--interrupt-table": interrupt_table}
    with unusable_input(str(path)):
        recorded, name = _split_name(path)
        if is_live(recorded):
            return _of_recording(recorded, name, options, tables)
        _refuse({"--until": options.until}, "for live recordings")
        dumped = open_debugfs(path, as_specified=options.as_specified)
    if dumped is not None:
        return dumped
    with unusable_input(str(path)):
        path.stat()
        if not path.is_dir():
            return _of_image(path, options, tables)
        if not (path / MANIFEST).exists():
            raise ValueError(f"a folder without {MANIFEST} is no capture")
        return _of_capture(path, options, tables)


def _split_name(path: Path) -> tuple[Path, str | None]:
    """A file, and the name of a unit in it if that stands behind ``@``."""
    file, _, name = str(path).rpartition("@")
    return (Path(file), name) if file and not path.exists() else (path, None)


def _of_recording(
    path: Path, name: str | None, options: ImageOptions, tables: Mapping[str, int | None]
) -> Inspected:
    """A unit of a live recording, as the lines have left it; the first has the name dmar0."""
    _refuse(
        {
            **tables,
            "--base": options.base,
            "--profile": options.profile,
            **_registers(options),
        },
        "a recording has its own",
    )
    run = live_run(path, departures=options.chosen(), until=options.until)
    units = {f"dmar{number}": unit for number, unit in enumerate(run.units)}
    if name is None and len(units) == 1:
        name = "dmar0"
    if name not in units:
        raise ValueError(f"name one of the units behind @: {', '.join(units)}")
    typer.echo(f"vtd: {path}: entries that no unit has read count as not present", err=True)
    if not units[name].registers[GlobalStatus].tes and options.until is None:
        say = "DMA remapping is off at its end; --until LINE takes the state before a line"
        typer.echo(f"vtd: {path}: {say}", err=True)
    return Inspected(units[name].fork(UnchangedMemory(run.memory)), None)


def _of_capture(path: Path, options: ImageOptions, tables: Mapping[str, int | None]) -> Inspected:
    """The unit of a capture; ValueError if something is given by hand that it has itself."""
    _refuse(
        {**tables, "--base": options.base, "--profile": options.profile}, "a capture has its own"
    )
    _refuse(_registers(options), "a capture has its own")
    capture, departures = Capture.load(path), options.chosen()
    recorded = capture.options(as_recorded=True)
    if departures is not None:
        recorded = Options(departures=departures)
    return Inspected(capture.unit(recorded, UnchangedMemory(capture.memory)), capture)


def _of_image(path: Path, options: ImageOptions, tables: Mapping[str, int | None]) -> Inspected:
    """A unit in front of a memory image, with its registers given by hand."""
    capabilities = _capabilities(options)
    if all(value is None for value in tables.values()):
        raise ValueError("an image needs --root-table or --interrupt-table")
    for name, value in tables.items():
        if value is not None and value >> 64:
            raise ValueError(f"{name}: {value:#x} has more than 64 bits")
    memory = PhysicalMemory()
    load_image(memory, path, base=options.base)
    departures = options.chosen() or SPECIFICATION
    unit = RemappingUnit(capabilities, UnchangedMemory(memory), Options(departures=departures))
    root, interrupts = tables["--root-table"], tables["--interrupt-table"]
    status = GlobalStatus.of(
        rtps=root is not None,
        tes=root is not None,
        irtps=interrupts is not None,
        ires=interrupts is not None,
    )
    start(unit, status, root or 0, interrupts or 0)
    return Inspected(unit, None)


def _registers(options: ImageOptions) -> dict[str, int | None]:
    return {
        "--cap": options.cap,
        "--ecap": options.ecap,
        "--host-address-width": options.host_address_width,
    }


def _refuse(given: Mapping[str, object], why: str) -> None:
    """ValueError for the first option that is given."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{name}: {why}")


def _capabilities(options: ImageOptions) -> Capabilities:
    profile, cap, ecap = options.profile, options.cap, options.ecap
    if profile is not None:
        _refuse(_registers(options), f"--profile {profile} has its own")
        if profile not in PROFILES:
            raise ValueError(f"--profile: {profile!r} is none of {', '.join(PROFILES)}")
        return PROFILES[profile]
    if cap is None or ecap is None:
        raise ValueError("an image needs --profile, or --cap and --ecap")
    width = options.host_address_width
    for sentence in capabilities_of(cap, ecap, width).check():
        # Told, not refused: units older than the specification report what it has taken back.
        typer.echo(f"vtd: --cap and --ecap contradict themselves: {sentence}", err=True)
    return capabilities_of(cap, ecap, width, version=0x60)
