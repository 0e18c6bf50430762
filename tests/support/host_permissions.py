"""Worlds whose translated requests are checked against a host permission table."""

from __future__ import annotations

from typing import Any

from devices.dma import READ, WRITE, AddressType, CompletionStatus, Request
from pagetables.bits import BitRecord
from tests.support.world import HOST, PAGE, Mode, Started, World, capabilities
from vtd.layouts.entries import (
    HostPermissionL1Entry,
    HostPermissionL2Entry,
    HostPermissionL3Entry,
    HostPermissionL4Entry,
)
from vtd.unit.registers.capabilities import Capabilities

UNIT = capabilities(haw=52, mgaw=56, hpts=1, hpt1gps=1, ptrs=1)
TABLES = 0x18000


def permitting_world(
    mode: Mode = Mode.SECOND, pasid: int | None = None, unit: Capabilities = UNIT
) -> World:
    """Host permission tables at TABLES, level 4 first, that allow everything at HOST | PAGE."""
    world = World(mode, unit, pasid=pasid)
    world.change("context", hpte=True, eptr=True)
    world.change("pasid", hptptr=TABLES)
    add_tables(world, HOST | PAGE, READ | WRITE)
    return world


def add_tables(world: World, address: int, permissions: int) -> None:
    """Tables that lead to ``permissions`` (READ, WRITE) of the 4 KiB page of an address."""
    levels: tuple[tuple[str, type[BitRecord], int], ...] = (
        ("hpt4", HostPermissionL4Entry, 41),
        ("hpt3", HostPermissionL3Entry, 33),
        ("hpt2", HostPermissionL2Entry, 25),
        ("hpt1", HostPermissionL1Entry, 17),
    )
    for number, (name, record, bit) in enumerate(levels):
        table = TABLES + 0x1000 * number
        where = table + (address >> bit & 0xFF) * 16
        if record is HostPermissionL1Entry:
            world.add(name, where, record(permissions << 4 * (address >> 12 & 31)))
        else:
            world.add(name, where, record.of(av=True, addr=table + 0x1000))


def translated(world: World, access: int = READ, length: int = 4, **changes: Any) -> Request:
    """A translated request of the device of a world."""
    request = Request(
        world.source_id,
        HOST | PAGE,
        access,
        length,
        world.pasid,
        address_type=AddressType.TRANSLATED,
    )
    return request._replace(**changes)


def admitted(started: Started, request: Request) -> CompletionStatus:
    """How the unit answers; what it lets through keeps its address."""
    answer = started.unit.admit(request)
    if isinstance(answer, int):
        assert answer == request.address
        return CompletionStatus.SUCCESS
    return answer.status
