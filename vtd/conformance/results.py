"""Results of a run in a file: a head, a line for each case with what came of it, and an end.

A file stands alone: the cases are in it with what may come of them, as the image had them.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtd.conformance.format import Kind, ResetProof, Status
from vtd.conformance.image import Image, KitError
from vtd.conformance.kit import KitCase, Left
from vtd.conformance.running import Collected
from vtd.recordings.whole_file import read_whole

FORMAT = "vtd-results-1"


@dataclass(frozen=True)
class CaseResult:
    """What came of a case."""

    case: KitCase
    status: Status | None
    """None: the machine went silent."""
    output: bytes


@dataclass(frozen=True)
class Results:
    """What came of an image."""

    target: str
    image: str
    cases: tuple[CaseResult, ...]
    left: tuple[Left, ...]


def results_of(image: Image, collected: Collected, target: str) -> Results:
    """What came of an image; KitError if the machine left cases out."""
    cases = [KitCase.from_json(each) for each in image.document["cases"]]
    came: dict[int, tuple[Status | None, bytes]] = dict.fromkeys(collected.hung, (None, b""))
    for each in collected.frames:
        if each.kind is Kind.CASE:
            came[each.number] = Status(each.status), each.data
    missing = [number for number in range(len(cases)) if number not in came]
    if missing:
        raise KitError(f"results are cut: nothing of case {missing[0]} and {len(missing) - 1} more")
    found = tuple(CaseResult(case, *came[number]) for number, case in enumerate(cases))
    left = tuple(Left(**each) for each in image.document["left"])
    return Results(target, image.digest.hex(), found, left)


def lines_of(results: Results) -> Iterator[str]:
    """The lines of a results file."""
    yield json.dumps(
        {
            "format": FORMAT,
            "target": results.target,
            "image": results.image,
            "cases": len(results.cases),
            "left": [left._asdict() for left in results.left],
        }
    )
    for each in results.cases:
        output = each.output.hex()
        yield json.dumps({"case": each.case.to_json(), "status": each.status, "output": output})
    yield json.dumps({"end": len(results.cases)})


def write_results(path: Path, lines: Iterator[str]) -> None:
    """The file, gzipped where its name says so."""
    data = "".join(f"{line}\n" for line in list(lines)).encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def read_results(path: Path) -> Results:
    """The results in a file; KitError names it, and the line, if it is none or cut."""
    try:
        text = read_whole(path).decode()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise KitError(f"{path}: results are cut: {error}") from error
    except UnicodeDecodeError as error:
        raise KitError(f"{path}: no results: not text") from error
    except ValueError as error:
        raise KitError(f"{path}: {error}") from error
    lines = text.splitlines()
    head = _head(lines)
    if head.get("format") != FORMAT:
        raise KitError(f"{path}: not results of format {FORMAT}")
    last = _line(path, len(lines), lines[-1])
    if "end" not in last or len(lines) != head.get("cases", -1) + 2:
        raise KitError(f"{path}: results are cut: {len(lines) - 1} of {head.get('cases')} cases")
    found = [_case(path, number, _line(path, number, line)) for number, line in _cases(lines)]
    try:
        left = tuple(Left(each["name"], each["why"]) for each in head["left"])
        return Results(str(head["target"]), str(head["image"]), tuple(found), left)
    except (KeyError, TypeError) as error:
        raise KitError(f"{path}: line 1: broken values: {error!r}") from error


def _head(lines: list[str]) -> dict[str, Any]:
    try:
        found = json.loads(lines[0])
    except (IndexError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _cases(lines: list[str]) -> Iterator[tuple[int, str]]:
    return enumerate(lines[1:-1], 2)


def _line(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise KitError(f"{path}: line {number}: results are cut or damaged: {error}") from error
    if not isinstance(found, dict):
        raise KitError(f"{path}: line {number}: no object")
    return found


def _case(path: Path, number: int, raw: dict[str, Any]) -> CaseResult:
    try:
        status = None if raw["status"] is None else Status(raw["status"])
        result = CaseResult(KitCase.from_json(raw["case"]), status, bytes.fromhex(raw["output"]))
    except (KitError, KeyError, TypeError, ValueError) as error:
        raise KitError(f"{path}: line {number}: {error}") from error
    wanted = ResetProof.sizeof() + sum(slot.length for slot in result.case.slots)
    if status is Status.DONE and len(result.output) != wanted:
        got = len(result.output)
        raise KitError(f"{path}: line {number}: of another image: {got} bytes, not {wanted}")
    return result
