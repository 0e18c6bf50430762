"""Which fault reasons the tests reached: by code, mode, kind of test, with and without FPD.

A pytest plugin: tests call :func:`reached`, the table is printed with the terminal summary.
:data:`LEGAL` says where each code can occur at all without device-TLBs and page requests.
"""

from __future__ import annotations

from typing import Any

import pytest

LEGACY, LEGACY_PASS_THROUGH = "legacy", "legacy pass-through"
FIRST, SECOND, NESTED, PASS_THROUGH = "first stage", "second stage", "nested", "pass-through"
ROOT, INTERRUPT = "root pointer", "interrupt"
MODES = (LEGACY, LEGACY_PASS_THROUGH, FIRST, SECOND, NESTED, PASS_THROUGH, ROOT, INTERRUPT)
_LEGACY = (LEGACY, LEGACY_PASS_THROUGH)
_SCALABLE = (FIRST, SECOND, NESTED, PASS_THROUGH)
_FIRST = (FIRST, NESTED)
_SECOND = (SECOND, NESTED)

LEGAL: dict[int, tuple[str, ...]] = {
    **dict.fromkeys((0x01, 0x02, 0x03, 0x04, 0x08, 0x09, 0x0A, 0x0B), _LEGACY),
    **dict.fromkeys((0x05, 0x06, 0x07, 0x0C, 0x0E), (LEGACY,)),
    **dict.fromkeys(range(0x20, 0x2C), (INTERRUPT,)),
    **dict.fromkeys((0x30, 0x31, 0x33), (ROOT,)),
    **dict.fromkeys((0x38, 0x39, 0x3A, 0x40, 0x41, 0x42, 0x43, 0x45, 0x46, 0x48), _SCALABLE),
    **dict.fromkeys((0x50, 0x51, 0x52, 0x58, 0x59, 0x5A, 0x5B, 0x5D, 0x87, 0x89), _SCALABLE),
    **dict.fromkeys((0x70, 0x71, 0x72, 0x73, 0x80, 0x81, 0x90, 0x91), _FIRST),
    **dict.fromkeys((0x74, 0x75, 0x76, 0x77), (NESTED,)),
    **dict.fromkeys((0x78, 0x79, 0x7A, 0x7B, 0x7C, 0x7D, 0x86), _SECOND),
    0x83: (PASS_THROUGH,),
    0x84: (SECOND,),
    0x85: (FIRST, SECOND, NESTED),
}
"""Modes of each code. In pass-through without PASID the interrupt range is never translated."""

UNQUALIFIED = frozenset(
    {
        *(0x01, 0x08, 0x09, 0x0A),
        *(0x20, 0x21, 0x23, 0x25, 0x29, 0x2A, 0x2B),
        *(0x30, 0x31, 0x32, 0x33, 0x34, 0x38, 0x39, 0x3A, 0x40, 0x50, 0x58),
    }
)
"""Codes that FPD does not suppress (Table 15, Table 30)."""

REACHED: set[tuple[int, str, str, bool]] = set()
"""Code, mode, ``"directed"`` or ``"generated"``, whether FPD was set."""


def reached(code: int, mode: str, how: str, *, fpd: bool) -> None:
    """Note that a test met a fault."""
    REACHED.add((int(code), mode, how, fpd))


def table() -> list[str]:
    """The coverage as lines: D and G without FPD, d and g with it, ``.`` where none."""
    marks = (("directed", False, "D"), ("directed", True, "d"),
             ("generated", False, "G"), ("generated", True, "g"))  # fmt: skip
    lines = ["code  " + "  ".join(f"{mode:>8}" for mode in MODES)]
    for code, legal in sorted(LEGAL.items()):
        cells = [
            "".join(mark if (code, mode, how, fpd) in REACHED else "." for how, fpd, mark in marks)
            if mode in legal
            else ""
            for mode in MODES
        ]
        padded = (f"{cell:>{max(8, len(mode))}}" for cell, mode in zip(cells, MODES, strict=True))
        lines.append(f" {code:02X}h  " + "  ".join(padded))
    return lines


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table if any test contributed."""
    if REACHED:
        terminalreporter.section("fault codes reached (D directed, G generated; small: FPD set)")
        for line in table():
            terminalreporter.write_line(line)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of a distributed run hands over what its tests reached."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["fault_coverage"] = sorted(REACHED)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """The controller of a distributed run takes it."""
    REACHED.update(map(tuple, getattr(node, "workeroutput", {}).get("fault_coverage", ())))
