"""``vtd guest``: the processor's side of a guest: VMCSs, entry checks, EPT, VPDs."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pagetables.ept import EXECUTE, READ, WRITE
from pagetables.images import load_image
from pagetables.memory import PhysicalMemory
from vtd.commands.exit_codes import FOUND
from vtd.commands.images import Base, parse_address
from vtd.commands.reading import read_bytes, read_text, unusable_input
from vtd.commands.rendering.answer import CommandAnswer, Format, Output, show
from vtd.commands.show_guest import (
    check_json,
    check_text,
    field_lines,
    judgement_json,
    judgement_lines,
    step_json,
    step_line,
)
from vtd.guest.x86.capabilities import REVISION, VMX_PROFILES, VmxCapabilities
from vtd.guest.x86.dump import parse_dumps
from vtd.guest.x86.entry import MSR_LOAD_RULE, RULES
from vtd.guest.x86.ept import ept_stage
from vtd.guest.x86.ept_explanation import explain_access
from vtd.guest.x86.judgement import judge, with_ordinary
from vtd.guest.x86.state_file import base_object, parse_states
from vtd.guest.x86.state_file import profile as find_profile
from vtd.guest.x86.vmcs import parse_region

app = typer.Typer(no_args_is_help=True, add_completion=False)

PROFILE_NAMES = ", ".join(VMX_PROFILES)
DEFAULT_PROFILE = "everything"
MARK = REVISION.to_bytes(4, "little")

ProfileName = Annotated[
    str, typer.Option("--profile", help=f"Processor whose rules count: {PROFILE_NAMES}.")
]
TEXTS = {rule.name: rule.text for rule in RULES} | {
    MSR_LOAD_RULE: "the entry MSR-load area: every MSR can be loaded"
}


class AccessName(StrEnum):
    """What a guest does at an address."""

    READ = "read"
    WRITE = "write"
    FETCH = "fetch"


RIGHTS = {AccessName.READ: READ, AccessName.WRITE: WRITE, AccessName.FETCH: EXECUTE}


@app.callback()
def guest() -> None:
    """The processor's side of a guest: VMCSs, entry checks, EPT, and VPDs of Itanium."""


@app.command()
def vmcs(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="A VMCS region (KVM's vmcs12), or a log with the dump that KVM or Xen print; "
            "- is stdin.",
        ),
    ],
    profile: ProfileName = DEFAULT_PROFILE,
    format: Output = Format.TEXT,
) -> None:
    """Decode a VMCS and name the rules of a VM entry that it breaks.

    Fields that a dump does not print are taken as ordinary. Exit code 0 if no rule is broken, 1 if
    one is, 2 for unusable input.
    """
    capabilities = _profile(profile)
    with unusable_input(file):
        data = read_bytes(file)
        found = _read_vmcs(data)
    lines: list[str] = []
    rows, broken = [], False
    for where, values in found:
        judged = judge(with_ordinary(values, capabilities), capabilities)
        broken = broken or bool(judged.broken)
        rows.append(judgement_json(values, judged))
        lines += (*([where] if where else ()), *field_lines(values), *judgement_lines(judged))
    show(CommandAnswer(rows, rows, lines), format)
    if broken:
        raise typer.Exit(FOUND)


def _read_vmcs(data: bytes) -> list[tuple[str, dict[str, int]]]:
    """The VMCSs in a file: where each is, and its fields."""
    if not data:
        raise ValueError("empty")
    if data[:4] == MARK or _binary(data):
        return [("", parse_region(data).values())]
    text = data.decode("utf-8", "replace")
    return [(f"line {dump.line}:", dump.values) for dump in parse_dumps(text)]


def _binary(data: bytes) -> bool:
    """Whether bytes are no text: a text has no control characters but white space."""
    return any(byte < 9 or 13 < byte < 27 for byte in data[:4096])


@app.command()
def check(
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE]",
            help='{"profile": ..., "fields": {"0xENCODING": "0xVALUE"}}, a list, or JSON lines.',
        ),
    ] = None,
    base: Annotated[
        bool, typer.Option("--base", help="Print what fields hold that a file does not name.")
    ] = False,
    profiles: Annotated[bool, typer.Option("--profiles", help="List the profiles.")] = False,
    profile: Annotated[
        str, typer.Option("--profile", help=f"With --base: one of {PROFILE_NAMES}.")
    ] = next(iter(VMX_PROFILES)),
    format: Output = Format.TEXT,
) -> None:
    """Check whether states can be entered: which group of rules fails, and which rules.

    Exit code 0 if all enter, 1 if one does not, 2 for wrong use or unusable input.
    """
    if profiles:
        names = list(VMX_PROFILES)
        show(CommandAnswer(names, names, names), format)
        return
    if base:
        with unusable_input("--profile"):
            typer.echo(json.dumps(base_object(profile), indent=1))
        return
    if file is None:
        raise typer.BadParameter("a file, --base or --profiles is needed", param_hint="FILE")
    with unusable_input(file):
        states, single = parse_states(read_text(file))
    checks = [state.check() for state in states]
    rows = [check_json(each) for each in checks]
    lines = (
        f"{'' if single else f'{number}: '}{check_text(each, TEXTS)}"
        for number, each in enumerate(checks, 1)
    )
    show(CommandAnswer(rows[0] if single else rows, rows, lines), format)
    if not all(each.enters for each in checks):
        raise typer.Exit(FOUND)


@app.command()
def ept(
    image: Annotated[
        Path,
        typer.Argument(metavar="IMAGE", help="An ELF core, a LiME dump, or raw with --base."),
    ],
    gpa: Annotated[
        int,
        typer.Argument(
            parser=parse_address, metavar="GPA", help="Guest-physical address, hexadecimal."
        ),
    ],
    eptp: Annotated[
        int,
        typer.Option(
            parser=parse_address,
            metavar="ADDR",
            help="EPTP; an address alone means 4 levels, write-back.",
        ),
    ],
    access: Annotated[
        AccessName, typer.Option("--access", help="What the guest does.")
    ] = AccessName.READ,
    mode_based: Annotated[
        bool, typer.Option("--mode-based", help="Mode-based execute control is 1.")
    ] = False,
    base: Base = None,
    profile: ProfileName = DEFAULT_PROFILE,
    format: Output = Format.TEXT,
) -> None:
    """Explain an EPT walk: each entry, and the exit that an access comes to.

    Exit code 0: explained, whether allowed or not. 2: wrong use or unusable input.
    """
    capabilities = _profile(profile)
    pointer = eptp if eptp & 0xFFF else eptp | 0x1E
    if pointer >> 64 or not capabilities.valid_eptp(pointer):
        raise typer.BadParameter(f"{eptp:#x} is no EPTP on profile {profile}", param_hint="--eptp")
    if gpa >> 64:
        raise typer.BadParameter(f"{gpa:#x} has more than 64 bits", param_hint="GPA")
    memory = PhysicalMemory()
    with unusable_input(str(image)):
        load_image(memory, image, base=base)
    stage = ept_stage(pointer, capabilities, mode_based=mode_based)
    steps, rights, physical, exits = explain_access(memory, stage, gpa, RIGHTS[access])
    row = {
        "gpa": hex(gpa),
        "eptp": hex(pointer),
        "access": access.value,
        "steps": [step_json(step) for step in steps],
        "physical": None if physical is None else hex(physical),
        "rights": None if rights is None else _rights(rights),
        "exit_reason": None if exits is None else exits.reason,
        "qualification": None if exits is None else exits.qualification,
    }
    lines = [f"guest {access.value}s {gpa:#x}, EPTP {pointer:#x}", *map(step_line, steps)]
    if exits is not None:
        lines.append(f"  => {exits}")
    elif rights is not None:
        lines.append(f"  => allowed: physical address {physical:#x}, {_rights(rights)}")
    show(CommandAnswer(row, [row], lines), format)


@app.command()
def vpd(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="The 64 KiB of a VPD; - is stdin."),
    ],
    format: Output = Format.TEXT,
) -> None:
    """Decode the virtual processor descriptor of an Itanium guest (VT-i).

    Exit code 0 if nothing is remarkable, 1 if something breaks a rule, 2 for what is no VPD.
    """
    from vtd.commands.show_vpd import vpd_json, vpd_lines  # noqa: PLC0415 - construct is slow
    from vtd.guest.itanium.vpd import parse_vpd, remarks  # noqa: PLC0415

    with unusable_input(file):
        data = read_bytes(file)
        fields = parse_vpd(data)
    found = list(remarks(data))
    document = vpd_json(fields, found)
    show(CommandAnswer(document, [document], vpd_lines(fields, found)), format)
    if found:
        raise typer.Exit(FOUND)


def _rights(rights: int) -> str:
    letters = ((READ, "r"), (WRITE, "w"), (EXECUTE, "x"))
    return "".join(letter if rights & bit else "-" for bit, letter in letters)


def _profile(name: str) -> VmxCapabilities:
    with unusable_input("--profile"):
        return find_profile(name)
