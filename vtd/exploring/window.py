"""The window on places: a tree, what is selected beside it, and a line to search with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Footer, Header, Input, Static, Tree
from textual.widgets.tree import TreeNode

from vtd.exploring.places import Place, lines, printable
from vtd.exploring.unit_places import SEARCH_FORM, SearchError, UnitPlaces

NOTHING = "Arrows move, Enter opens or follows, / searches an address, f lists faults, q ends."


class Explorer(App[None]):  # type: ignore[misc]  # textual is an extra, unknown to mypy
    """Browses places; addresses are searched in ``unit``, which a description does not have."""

    CSS = """
    Tree { width: 55%; min-width: 30; }
    #beside { width: 1fr; padding: 0 1; border-left: solid $primary; }
    #search { display: none; dock: bottom; }
    #search.open { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "search", "Search an address"),
        Binding("f", "faults", "Faults"),
        Binding("escape", "leave", "Back to the tree", show=False),
        Binding("q", "quit", "End"),
    ]

    def __init__(self, name: str, places: Sequence[Place], unit: UnitPlaces | None) -> None:
        super().__init__()
        self.title = printable(name)
        self._places, self._unit = places, unit
        self._said: tuple[TreeNode[Place] | None, str] = (None, "")

    def compose(self) -> ComposeResult:
        """Tree and details, and the search line below."""
        yield Header()
        tree: Tree[Place] = Tree(Text(self.title), id="places")
        with Horizontal():
            yield tree
            with VerticalScroll(id="beside", can_focus=True):
                yield Static(Text(NOTHING), id="details")
        yield Input(placeholder=SEARCH_FORM, id="search")
        yield Footer()

    def on_mount(self) -> None:
        """Show the places at the top."""
        _fill(self.tree.root, self._places)
        self.tree.root.expand()
        self.tree.focus()

    @property
    def tree(self) -> Tree[Place]:
        """The tree of places."""
        found: Tree[Place] = self.query_one("#places", Tree)
        return found

    def on_tree_node_expanded(self, event: Tree.NodeExpanded[Place]) -> None:
        """What is inside is looked up when somebody opens it."""
        _open(event.node)

    def on_tree_node_highlighted(self, event: Tree.NodeHighlighted[Place]) -> None:
        """The row of the place beside the tree."""
        self._describe(event.node)

    def on_tree_node_selected(self, event: Tree.NodeSelected[Place]) -> None:
        """A fault leads to the entry that its request met."""
        place = event.node.data
        if place is not None and place.leads_to:
            self._go(place.leads_to, place.text)

    def action_search(self) -> None:
        """Ask for an address."""
        if self._unit is None:
            self._show("A description has no tables to search in.")
            return
        search = self.query_one("#search", Input)
        search.add_class("open")
        search.focus()

    def action_leave(self) -> None:
        """Close the search line."""
        self.query_one("#search", Input).remove_class("open")
        self.tree.focus()

    def action_faults(self) -> None:
        """Go to the list of faults, and open it."""
        self._go(("faults",), "")
        if (node := self._said[0]) is not None:
            node.expand()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Go to the entry that translates the address."""
        assert self._unit is not None
        try:
            way, said = self._unit.search(event.value, self._beside())
        except SearchError as error:
            self._show(printable(str(error)))
            return
        event.input.clear()
        self.action_leave()
        self._go(way, said)

    def _beside(self) -> tuple[str, ...]:
        """Titles from the top to what is selected."""
        titles, node = [], self.tree.cursor_node
        while node is not None and node.data is not None:
            titles.append(node.data.title)
            node = node.parent
        return tuple(reversed(titles))

    def _go(self, way: Sequence[str], said: str) -> None:
        """Open the way to a place and select it; ``said`` stands above its row."""
        node = self.tree.root
        for title in way:
            _open(node)
            node.expand()
            found = _child(node, title)
            if found is None and node.data is not None:
                node.remove_children()  # an entry that is not present was met since
                _open(node)
                found = _child(node, title)
            if found is None:
                break
            node = found
        self._said = (node, said)
        # The tree has no line for a new node until it has drawn itself.
        self.call_after_refresh(self._arrive, node)

    def _arrive(self, node: TreeNode[Place]) -> None:
        self.tree.move_cursor(node)
        self._describe(node)

    def _describe(self, node: TreeNode[Place]) -> None:
        """Show the row of a place, below what led to it."""
        reached, said = self._said
        above = [printable(said), ""] if said and node is reached else []
        rows = [NOTHING] if node.data is None else list(lines(node.data))
        self._show("\n".join([*above, *rows]))

    def _show(self, text: str) -> None:
        self.query_one("#details", Static).update(Text(text))


def _open(node: TreeNode[Place]) -> None:
    if node.data is not None and not node.children:
        _fill(node, node.data.below())


def _child(node: TreeNode[Place], title: str) -> TreeNode[Place] | None:
    found = [each for each in node.children if each.data and each.data.title == title]
    return found[0] if found else None


def _fill(node: TreeNode[Place], places: Sequence[Place]) -> None:
    for each in places:
        node.add(Text(printable(each.title)), data=each, allow_expand=each.opens)
