"""What commands look into: a capture, or a memory image with the registers given by hand."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pagetables.images import load_image
from pagetables.memory import PhysicalMemory
from pagetables.observed import UnchangedMemory
from vtd.commands.dumps import Inspected, open_debugfs
from vtd.commands.reading import unusable_input
from vtd.layouts.registers import GlobalStatus
from vtd.recordings.capture import MANIFEST, Capture
from vtd.software.driver import start
from vtd.unit.options import Options
from vtd.unit.registers.capabilities import PROFILES, Capabilities
from vtd.unit.unit import RemappingUnit

MAX_HOST_WIDTH = 52


class Format(StrEnum):
    """Forms of output."""

    TEXT = "text"
    JSON = "json"


def parse_number(text: str) -> int:
    """A number in decimal, or in hexadecimal with 0x; negative ones are refused."""
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if value < 0:
        raise typer.BadParameter(f"{text!r} is no number: decimal, or hexadecimal with 0x")
    return value


Output = Annotated[Format, typer.Option("--format", help="Form of the output.")]
Image = Annotated[
    Path,
    typer.Argument(
        metavar="CAPTURE_OR_IMAGE",
        help="A capture folder; or an ELF core, a LiME dump or, with --base, a raw image.",
    ),
]
RootTable = Annotated[
    int | None,
    typer.Option(parser=parse_number, metavar="RTADDR", help="Image: RTADDR_REG, mode included."),
]
InterruptTable = Annotated[
    int | None, typer.Option(parser=parse_number, metavar="IRTA", help="Image: IRTA_REG.")
]
Base = Annotated[
    int | None,
    typer.Option(parser=parse_number, metavar="ADDRESS", help="Raw image: where it begins."),
]
Profile = Annotated[
    str | None, typer.Option(help=f"Image: capabilities by name: {', '.join(PROFILES)}.")
]
Cap = Annotated[
    int | None, typer.Option(parser=parse_number, metavar="CAP", help="Image: CAP_REG.")
]
Ecap = Annotated[
    int | None, typer.Option(parser=parse_number, metavar="ECAP", help="Image: ECAP_REG.")
]
HostWidth = Annotated[
    int | None,
    typer.Option(
        "--host-address-width",
        help="Image with CAP and ECAP: the HAW in bits; without it, the widest that MGAW allows.",
    ),
]
AsSpecified = Annotated[
    bool,
    typer.Option(
        "--as-specified",
        help="Capture: by the specification, also where the recorded unit departs from it.",
    ),
]


def open_image(
    path: Path,
    *,
    root_table: int | None = None,
    interrupt_table: int | None = None,
    base: int | None = None,
    profile: str | None = None,
    cap: int | None = None,
    ecap: int | None = None,
    host_width: int | None = None,
    as_specified: bool = False,
) -> Inspected:
    """The unit of a capture or image; ends the command with exit code 2 if there is none."""
    with unusable_input(str(path)):
        dumped = open_debugfs(path, as_specified=as_specified)
        if dumped is not None:
            return dumped
        path.stat()
        if path.is_dir() and not (path / MANIFEST).exists():
            raise ValueError(f"a folder without {MANIFEST} is no capture")
    with unusable_input(str(path)):
        if path.is_dir():
            by_hand = {
                "--root-table": root_table,
                "--interrupt-table": interrupt_table,
                "--base": base,
                "--profile": profile,
                "--cap": cap,
                "--ecap": ecap,
                "--host-address-width": host_width,
            }
            for name, value in by_hand.items():
                if value is not None:
                    raise ValueError(f"{name}: a capture has its own")
            capture = Capture.load(path)
            options = capture.options(as_recorded=not as_specified)
            return Inspected(capture.unit(options, UnchangedMemory(capture.memory)), capture)
        capabilities = _capabilities(profile, cap, ecap, host_width)
        if root_table is None and interrupt_table is None:
            raise ValueError("an image needs --root-table or --interrupt-table")
        tables = (("--root-table", root_table), ("--interrupt-table", interrupt_table))
        for name, value in tables:
            if value is not None and value >> 64:
                raise ValueError(f"{name}: {value:#x} has more than 64 bits")
        memory = PhysicalMemory()
        load_image(memory, path, base=base)
        unit = RemappingUnit(capabilities, UnchangedMemory(memory), Options())
        status = GlobalStatus.of(
            rtps=root_table is not None,
            tes=root_table is not None,
            irtps=interrupt_table is not None,
            ires=interrupt_table is not None,
        )
        start(unit, status, root_table or 0, interrupt_table or 0)
        return Inspected(unit, None)


def capabilities_of(
    cap: int, ecap: int, host_width: int | None, version: int = 0x10
) -> Capabilities:
    """From register values; ``host_width`` None is the widest that MGAW does not contradict."""
    if host_width is None:
        widest = Capabilities.of(version, cap, ecap, MAX_HOST_WIDTH)
        host_width = max(12, min(widest.max_guest_address_width, MAX_HOST_WIDTH))
    return Capabilities.of(version, cap, ecap, host_width)


def _capabilities(
    profile: str | None, cap: int | None, ecap: int | None, host_width: int | None
) -> Capabilities:
    if profile is not None:
        by_hand = {"--cap": cap, "--ecap": ecap, "--host-address-width": host_width}
        for name, value in by_hand.items():
            if value is not None:
                raise ValueError(f"{name}: --profile {profile} has its own")
        if profile not in PROFILES:
            raise ValueError(f"--profile: {profile!r} is none of {', '.join(PROFILES)}")
        return PROFILES[profile]
    if cap is None or ecap is None:
        raise ValueError("an image needs --profile, or --cap and --ecap")
    for sentence in capabilities_of(cap, ecap, host_width).check():
        # Told, not refused: units older than the specification report what it has taken back.
        typer.echo(f"vtd: --cap and --ecap contradict themselves: {sentence}", err=True)
    return capabilities_of(cap, ecap, host_width, version=0x60)
