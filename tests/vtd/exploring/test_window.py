"""The window of ``vtd explore``, driven by textual's pilot on every capture."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.reference_data import capture_folders
from vtd.commands.explore import places_of
from vtd.commands.images import ImageOptions

window = pytest.importorskip("vtd.exploring.window", reason="the tui extra is not installed")
widgets = pytest.importorskip("textual.widgets", reason="the tui extra is not installed")
Actions = Callable[[Any, Any], Awaitable[None]]


def drive(path: Path, actions: Actions) -> None:
    """Open the window on a path, and let somebody act in it."""

    async def session() -> None:
        app = window.Explorer(str(path), *places_of(path, ImageOptions()))
        async with app.run_test(size=(120, 40)) as pilot:
            await pilot.pause()
            await actions(app, pilot)

    asyncio.run(session())


def selected(app: Any) -> str:
    return str(app.tree.cursor_node.label)


def details(app: Any) -> str:
    return str(app.query_one("#details", widgets.Static).render())


async def type_text(pilot: Any, text: str) -> None:
    names = {"/": "slash", " ": "space", ":": "colon", ".": "full_stop"}
    await pilot.press(*(names.get(each, each) for each in text))


@pytest.mark.parametrize("folder", capture_folders(), ids=lambda each: each.name)
def test_a_capture_is_browsed_searched_and_left(folder: Path) -> None:
    async def act(app: Any, pilot: Any) -> None:
        titles = [str(each.label) for each in app.tree.root.children]
        assert titles[2:] == ["capabilities", "devices", "interrupt entries", "faults"]
        await pilot.press("down", "enter", "down")
        assert "signature" not in selected(app)
        assert "register_base" in details(app)
        devices = next(each for each in app.tree.root.children if str(each.label) == "devices")
        app.tree.move_cursor(devices)
        await pilot.press("enter", "down", "enter", "down")
        await pilot.pause()
        assert selected(app).startswith("root entry at 0x")
        assert "ctp" in details(app)
        device = str(app.tree.cursor_node.parent.label).partition(": ")[0]
        await pilot.press("slash")
        requester = device.partition(" PASID ")[0]
        await type_text(pilot, f"{requester} 0x1000")
        await pilot.press("enter")
        await pilot.pause()
        await pilot.pause()
        assert f"{requester} reads 0x1000" in details(app)
        assert app.focused is app.tree

    drive(folder, act)


def test_a_fault_leads_to_its_entry_and_a_wrong_search_says_why() -> None:
    folder = next(each for each in capture_folders() if each.name == "edu-faults-legacy48")

    async def act(app: Any, pilot: Any) -> None:
        await pilot.press("f", "down", "down", "down")
        await pilot.pause()
        assert "00:01.0 0x06 no read permission, 0x12345000" in selected(app)
        await pilot.press("enter")
        await pilot.pause()
        await pilot.pause()
        assert selected(app).endswith(" to nothing")
        assert "the entry is not present" in details(app)
        assert "00:01.0 reads 0x12345000: blocked: fault 06h" in details(app)
        await pilot.press("slash")
        await type_text(pilot, "nonsense")
        await pilot.press("enter")
        await pilot.pause()
        assert "'nonsense' is not [BDF" in details(app)
        await pilot.press("escape")
        assert app.focused is app.tree

    drive(folder, act)


def test_a_description_has_no_tables_to_search() -> None:
    async def act(app: Any, pilot: Any) -> None:
        await pilot.press("slash")
        await pilot.pause()
        assert "no tables to search" in details(app)

    drive(Path("examples/machines/server.toml"), act)
