"""Parts of machine descriptions, as text: units, bridges and devices of which cells are made."""

from __future__ import annotations

import json
from collections.abc import Mapping

NO_REMAPPING = {"ir": 0, "eim": 0, "mhmv": 0}
"""Most cells: interrupts are left alone, so that the machine monitor's I/O APIC may stay."""
DISK = 65536
"""Blocks of a disk: 32 MiB."""


def unit(
    profile: str = "qemu",
    fields: Mapping[str, int] | None = None,
    *,
    base: int = 0xFD00_0000,
    devices: tuple[str, ...] = (),
    remapping: bool = False,
) -> str:
    """A unit; ``fields`` differ from its profile, ``devices`` are its scope, all without any."""
    fields = {**({} if remapping else NO_REMAPPING), **(fields or {})}
    scope = f"devices = {list(devices)}" if devices else "include_all = true"
    text = f'[[unit]]\nbase = {base:#x}\nprofile = "{profile}"\n{scope}\n'
    return f"{text}set = {_inline(fields)}\n" if fields else text


def _function(at: str, model: str, more: str, **parameters: object) -> str:
    """A device; ``more`` are lines of its own beside the parameters of its model."""
    values = f"parameters = {_inline(parameters)}\n" if parameters else ""
    return f'[[function]]\nat = "{at}"\nmodel = "{model}"\n{values}{more}'


def _inline(values: Mapping[str, object]) -> str:
    return f"{{ {', '.join(f'{name} = {json.dumps(value)}' for name, value in values.items())} }}"


def disk(at: str = "00:05.0", more: str = "", **parameters: object) -> str:
    """An NVMe controller."""
    return _function(at, "nvme", more, blocks=DISK, **parameters)


def edu(at: str = "00:06.0") -> str:
    """An edu device that reaches every address, at once."""
    return _function(at, "edu", "", dma_mask=2**64 - 1, transfer_time=0)


def bridge(kind: str) -> str:
    """A port or bridge with the name ``above``."""
    return f'[[bridge]]\nname = "above"\nat = "00:04.0"\nkind = "{kind}"\n'


def copy_engine(at: str = "00:08.0") -> str:
    """An I/OAT engine with two channels."""
    return _function(at, "ioat", "", channels=2)


def accelerator() -> str:
    """A Data Streaming Accelerator."""
    return _function("00:08.0", "dsa", "")


def virtio_disk(at: str = "00:08.0", more: str = "") -> str:
    """A virtio block device that has its driver map what it hands over."""
    return _function(at, "virtio_blk", more, blocks=DISK)


def network(at: str = "00:08.0", more: str = "", **parameters: object) -> str:
    """A network controller, and at the other end a host that answers ping."""
    return _function(at, "nic82576", more, link="respond:10.0.0.1", **parameters)


def cabled(at: str) -> str:
    """A network controller, one of two with a cable between them."""
    return _function(at, "nic82576", "", mac=f"02:00:82:57:60:{at[3:5]}", link="cable:between")


def reserved(device: str) -> str:
    """A reserved region of a device, in memory that SeaBIOS reserves at the end of 1 GiB."""
    return f'[[region]]\nstart = 0x3fff0000\nsize = 0x10000\ndevices = ["{device}"]\n'
