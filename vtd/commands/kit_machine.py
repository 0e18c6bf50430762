"""Machines that a conformance kit runs in, as the command line names them."""

from __future__ import annotations

import shlex
import shutil
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vtd.commands.live_guest import QemuOption, store
from vtd.live.qemu import PROGRAM, command_of

if TYPE_CHECKING:
    from vtd.conformance.guest_target import GuestTarget
    from vtd.conformance.running import Machine

TARGET_HELP = (
    "qemu, or command:COMMAND in which {image} stands for the image to boot by multiboot, {efi} "
    "for it as a UEFI application or {elf} for a kernel to boot by PVH, and whose standard output "
    "is the guest's first serial port."
)
TargetArgument = Annotated[str, typer.Argument(metavar="TARGET", help=TARGET_HELP)]


class DeviceKind(StrEnum):
    """What does DMA in a machine that is made for the purpose."""

    EDU = "edu"
    NVME = "nvme"
    E1000E = "e1000e"
    IGB = "igb"


@dataclass(frozen=True)
class MachineOptions:
    """Options of the target ``qemu``."""

    qemu: QemuOption = None
    unit: Annotated[
        str, typer.Option("--unit", help="qemu: options of intel-iommu, such as scalable-mode=on.")
    ] = ""
    memory: Annotated[str, typer.Option("--memory", help="qemu: memory of the guest.")] = "8G"
    device: Annotated[
        DeviceKind,
        typer.Option(
            "--device",
            help="qemu: what does DMA; nvme has disks in memory, e1000e and igb loopback.",
        ),
    ] = DeviceKind.EDU
    firmware: Annotated[
        Path | None,
        typer.Option("--firmware", help="qemu: UEFI firmware that boots the kit, as OVMF.fd."),
    ] = None


def machine_of(target: str, options: MachineOptions) -> Machine:
    """The machine; BadParameter if there is none of the name."""
    from vtd.conformance.running import CommandMachine, QemuMachine  # noqa: PLC0415

    kind, _, words = target.partition(":")
    if kind == "qemu" and not words:
        if options.firmware is not None and not options.firmware.is_file():
            raise typer.BadParameter(f"{options.firmware}: no such file", param_hint="--firmware")
        return QemuMachine(
            _qemu(options.qemu),
            options.unit,
            options.memory,
            options.device.value,
            options.firmware,
        )
    if kind == "command" and words.strip():
        try:
            return CommandMachine(tuple(shlex.split(words)))
        except ValueError as error:
            raise typer.BadParameter(f"{words!r}: {error}", param_hint="TARGET") from error
    raise typer.BadParameter(f"{target!r}: neither qemu nor command:COMMAND", param_hint="TARGET")


def _qemu(asked: str | None) -> tuple[str, ...]:
    if asked is not None:
        return command_of(asked)
    fetched = store().qemu
    return (str(fetched) if fetched.exists() else shutil.which(PROGRAM) or PROGRAM,)


def open_guest(argument: str) -> GuestTarget:
    """The machine of a target ``guest:ARGUMENT`` of the fuzzer.

    ``qemu``, ``qemu@OPTIONS`` of its unit, or ``command:COMMAND``. TargetError if it is none.
    """
    from vtd.conformance.guest_target import GuestTarget  # noqa: PLC0415 - needs an extra
    from vtd.conformance.image import SERIAL  # noqa: PLC0415
    from vtd.conformance.running import QemuMachine  # noqa: PLC0415
    from vtd.fuzz.targets import TargetError  # noqa: PLC0415

    kind, _, unit = argument.partition("@")
    try:
        machine = (
            QemuMachine(_qemu(None), unit, output=SERIAL)
            if kind == "qemu"
            else machine_of(argument, MachineOptions())
        )
    except typer.BadParameter as error:
        raise TargetError(f"guest:{argument}: {error}") from error
    return GuestTarget(f"guest:{argument}", machine, time.monotonic)
