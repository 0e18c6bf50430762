"""Changes to a table as people write them: the name of an edit and a text that says what.

Edits apply in the order of :data:`EDITS`, whatever order they are given in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from vtd.dmar import edit, edit_units
from vtd.dmar.edit import EditError
from vtd.dmar.table import Table
from vtd.numbers import parse_count, parse_hexadecimal


def written_edits(table: Table, edits: Mapping[str, Sequence[str] | None]) -> Table:
    """The table after these edits, by their names; EditError for what does not apply."""
    unknown = edits.keys() - EDITS.keys()
    if unknown:
        raise EditError(f"no edit is called {min(unknown)!r}")
    edit.require_whole(table)
    for name, (_, change) in EDITS.items():
        for text in edits.get(name) or ():
            table = change(table, text)
    return table.sealed()


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


def _oem_revision(table: Table, text: str) -> Table:
    return edit.identify(table, oem_revision=parse_count(text))


EDITS: dict[str, tuple[str, Callable[[Table, str], Table]]] = {
    "drop-rmrr": ("BASE|all", _drop_rmrr),
    "move-rmrr": ("BASE=BASE-LIMIT", _move_rmrr),
    "add-rmrr": ("BASE-LIMIT=BDF[,BDF]", _add_rmrr),
    "drop-drhd": ("BASE", lambda table, text: edit_units.drop_unit(table, _address(text))),
    "move-drhd": ("BASE=BASE", _move_drhd),
    "add-drhd": ("BASE[@SEGMENT][=BDF[,BDF]]", _add_drhd),
    "drop-atsr": ("OFFSET|all", _drop_atsr),
    "add-atsr": ("BDF[,BDF]|all[@SEGMENT]", _add_atsr),
    "drop-andd": ("NAME", edit_units.drop_andd),
    "add-andd": ("NAME=BDF@BASE", _add_andd),
    "move": ("BDF=BASE", _move),
    "set-flag": ("FLAG[@WHERE]=0|1", _set_flag),
    "oem-id": ("ID", lambda table, text: edit.identify(table, oem_id=text)),
    "oem-table-id": ("ID", lambda table, text: edit.identify(table, oem_table_id=text)),
    "oem-revision": ("N", _oem_revision),
}
"""By name, the form of the text and the change."""
