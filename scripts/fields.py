"""The page of fields and the tests that name them."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from pagetables.bits import BitRecord, Bits
from scripts.sections import TESTS, link, marks
from vtd.layouts import descriptors, entries, interrupt_entries, registers

HEAD = """# Fields and the tests that name them

This page is written by `python -m scripts.pages`, from the declarations in `vtd/layouts` and the
tests of a unit: their text names a field with its record, or by a name that no other record has, or
their marker `fields` does where they use numbers. Besides, generated tests hold every field of
every register against its access kind and its value after reset
(`tests/vtd/unit/registers/test_register_file.py`), and every field of every entry and descriptor
against the reserved bits and the bytes that it is made of (`tests/vtd/layouts`).

"""
FOLDERS = ("vtd/unit", "vtd/layouts", "vtd/inspection", "vtd/software", "vtd/fuzz", "vtd")
LISTED = 3
"""Tests of a field that the page shows."""
PLACES = {"context": ("ContextEntry", "ScalableContextEntry"), "pasid": ("PasidEntry",),
          "directory": ("PasidDirectoryEntry",), "root": ("RootEntry", "ScalableRootEntry"),
          "hpt4": ("HostPermissionL4Entry",), "hpt3": ("HostPermissionL3Entry",),
          "hpt2": ("HostPermissionL2Entry",), "hpt1": ("HostPermissionL1Entry",)}  # fmt: skip
"""Structures by their names in tests/support/world.py."""
SHARED = {"type_3_0", "type_6_4"}
"""Fields of every descriptor, which tests of any of them need."""

Named = dict[tuple[str, str], list[tuple[Path, str]]]
"""File and name of tests, by record and field."""


def records() -> list[type[BitRecord]]:
    """The registers, entries and descriptors that have fields."""
    found = []
    for module in (registers, entries, interrupt_entries, descriptors):
        for each in vars(module).values():
            own = isinstance(each, type) and each.__module__ == module.__name__
            if own and issubclass(each, BitRecord) and hasattr(each, "FIELDS"):
                found.append(each)
    return [each for each in found if fields(each) and each is not descriptors.DescriptorHead]


def fields(record: type[BitRecord]) -> dict[str, Bits[object]]:
    """The fields that hardware looks at."""
    named = getattr(record, "FIELDS", {})
    return {name: each for name, each in named.items() if not each.ignored and name not in SHARED}


def named() -> Named:
    """The tests of a unit that name a field."""
    owners = defaultdict(list)
    for record in records():
        for name in fields(record):
            owners[name].append(record.__name__)
    found: Named = defaultdict(list)
    for path in _files():
        parts = _parts(ast.parse(path.read_text()))
        of_part = {name: _of_part(node, owners) for name, node in parts.items()}
        for name in parts:
            if name.startswith("test_"):
                keys = set().union(*(of_part[each] for each in _used(name, parts)))
                for key in sorted(keys | _marked(parts[name])):
                    found[key].append((path, name))
    return dict(found)


def _marked(test: ast.stmt) -> set[tuple[str, str]]:
    """What the marker of a test says."""
    found = set()
    for _, mark in marks(ast.Module([test], []), "fields"):
        record, *names = mark.split(".")
        found |= {(record, name) for name in names}
    return found


def _parts(tree: ast.Module) -> dict[str, ast.stmt]:
    """Functions, classes and constants of a module by name."""
    parts: dict[str, ast.stmt] = {}
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                parts[name] = node
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                parts[name] = node
    return parts


def _used(name: str, parts: dict[str, ast.stmt]) -> set[str]:
    """A part, and those of the module that it uses."""
    used, waiting = set(), [name]
    while waiting:
        part = waiting.pop()
        if part not in used:
            used.add(part)
            waiting += [
                each.id
                for each in ast.walk(parts[part])
                if isinstance(each, ast.Name) and each.id in parts
            ]
    return used


def _files() -> Iterator[Path]:
    seen = set()
    for folder in FOLDERS:
        pattern = "test_*.py" if folder == "vtd" else "**/test_*.py"
        for path in sorted((TESTS / folder).glob(pattern)):
            if path not in seen:
                seen.add(path)
                yield path


def _of_part(part: ast.stmt, owners: dict[str, list[str]]) -> set[tuple[str, str]]:
    """Record and field of what a part of a module names."""
    text = {each.id for each in ast.walk(part) if isinstance(each, ast.Name)}
    text |= {each.attr for each in ast.walk(part) if isinstance(each, ast.Attribute)}
    found = set()
    for node in ast.walk(part):
        for name, record in _names(node):
            candidates = owners.get(name, [])
            here = [owner for owner in candidates if owner in (record or text)]
            if len(candidates) == 1 or len(here) == 1 or (record and here):
                found |= {(owner, name) for owner in here or candidates}
    return found


def _names(node: ast.AST) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Names that may be those of fields, with the records that the text gives for them."""
    match node:
        case ast.Attribute(value=ast.Name(id=owner) | ast.Attribute(attr=owner), attr=name):
            yield name, (owner,) if owner[:1].isupper() else ()
        case ast.Attribute(attr=name):
            yield name, ()
        case ast.Call(func=ast.Attribute(value=value, attr="of"), keywords=keywords):
            owner = value.attr if isinstance(value, ast.Attribute) else getattr(value, "id", "")
            yield from ((each.arg or "", (owner,)) for each in keywords)
        case ast.Call(args=[ast.Constant(value=str(place)), *_], keywords=keywords) if (
            place in PLACES
        ):
            yield from ((each.arg or "", PLACES[place]) for each in keywords)
        case ast.Call(keywords=keywords):
            yield from ((each.arg or "", ()) for each in keywords)
        case ast.Constant(value=str(name)):
            yield name, ()


def page(listed: int | None = LISTED) -> str:
    """The page, with so many tests of a field, or all."""
    tests, lines, missing, count = named(), [], [], 0
    for record in records():
        title = (record.__doc__ or "").split("\n", 1)[0].rstrip(".")
        lines += ["", f"## {record.__name__}", "", title, "", "| field | bits | tests |"]
        lines.append("| --- | --- | --- |")
        for name, bits in fields(record).items():
            count += 1
            naming = tests.get((record.__name__, name), [])
            links = [link(*each) for each in naming[:listed]]
            if not naming:
                missing.append(f"{record.__name__} {name.upper()}")
            at = f"{bits.high}" if bits.high == bits.low else f"{bits.high}:{bits.low}"
            lines.append(f"| {name.upper()} | {at} | {'<br>'.join(links)} |")
    total = f"{count - len(missing)} of {count} fields are named by a test of their own.\n"
    without = ["", "## By generated tests only", "", *(f"- {each}" for each in missing), ""]
    return HEAD + total + "\n".join([*lines, *(without if missing else [""])])
