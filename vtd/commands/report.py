"""``vtd report``: everything about what is given together, in one HTML file."""

from __future__ import annotations

import io
import tomllib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pagetables.unchanged import UnchangedMemory
from vtd.auditing.audit_log import audit_log, audit_scenario
from vtd.auditing.lint_structures import lint_structures
from vtd.auditing.live_audit import audit_live
from vtd.auditing.log_lines import AuditLogError
from vtd.auditing.log_report import LogReport
from vtd.commands.dmar_output import OutputFile, write_output
from vtd.commands.dumps import open_named_dumps
from vtd.commands.extras import needing
from vtd.commands.inputs import Inputs
from vtd.commands.lint import reserved_memory
from vtd.commands.machine import machine_errors
from vtd.commands.platform_files import read_platform
from vtd.commands.reading import (
    LARGEST_TEXT_FILE,
    read_bytes,
    read_files,
    tables_in,
    tree_in,
    unusable_input,
)
from vtd.host.plan import TABLES, read_plan
from vtd.host.planner import judge, nearest
from vtd.host.surroundings import Surroundings
from vtd.inspection import collection
from vtd.inspection.collection import Files
from vtd.inspection.debugfs import is_debugfs
from vtd.logs.log import read_log
from vtd.logs.reading import lines_of
from vtd.machine.assembly import assemble
from vtd.machine.description import read_machine
from vtd.page.given import UnknownInputError, recognised
from vtd.page.reporting import add
from vtd.recordings.capture import MANIFEST, Capture
from vtd.recordings.live import is_live
from vtd.recordings.replay import replay
from vtd.recordings.replay_capture import replay_capture
from vtd.recordings.replay_live import live_run, replay_live
from vtd.recordings.scenario import load_scenario
from vtd.recordings.text_lines import open_lines
from vtd.recordings.values import ScenarioError
from vtd.report.contents import Contents, GivenPlan, GivenUnit
from vtd.unit.caching.policy import AGGRESSIVE

EVENTS, KERNEL_LOG = "events.jsonl.gz", "dmesg-iommu.txt"
SCENARIOS = (".json", ".json.gz")
PARQUET, SWEEP = b"PAR1", b'"vtd-sweep-1"'
"""How results of a sweep begin."""


def report(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Captures, collections, DMAR tables, logs, lspci text, CAP and ECAP values, "
            "memory maps, recordings, scenarios, sweeps, machines and plans; - is stdin.",
        ),
    ],
    output: OutputFile,
) -> None:
    """Write one HTML file about everything given: tables, machine, address maps, walks, faults.

    What is given together explains each other. The file needs nothing beside it and asks nobody.
    Exit code 0: written. 2: an input that can't be used, or that is none of these: the report is
    about the others.
    """
    with needing("report", "report"):
        from vtd.report.page import render  # noqa: PLC0415 - needs an extra
    contents, given, names = Contents(), Inputs(), []
    for each in inputs:
        with given.reading(each), machine_errors():
            _read(contents, each)
            names.append("stdin" if each == "-" else each)
    if not names:
        given.end(found=False)
    subject = ", ".join(names)
    with unusable_input(subject):
        page = render(subject, list(contents.sections()))
    write_output(output, page.encode("utf-8", "replace"))
    given.end(found=False)


def _read(contents: Contents, file: str) -> None:
    """Add one input to the contents; ValueError if it is nothing that is known."""
    path = Path(file)
    if (path / MANIFEST).exists():
        _read_capture(contents, file, path)
        return
    if path.is_file() and is_live(path):
        _read_recording(contents, file, path)
        return
    if _read_scenario(contents, file, path):
        return
    files = read_files(file)
    if files is not None:
        _read_files(contents, file, files)
    else:
        data = read_bytes(file, LARGEST_TEXT_FILE)
        if path.is_file() and (data.startswith(PARQUET) or SWEEP in data[:64]):
            _read_sweep(contents, file)
            return
        if not _read_description(contents, file, data):
            _read_single(contents, file, data)


def _read_capture(contents: Contents, file: str, folder: Path) -> None:
    capture = Capture.load(folder)
    contents.tables.append((file, (folder / "DMAR.bin").read_bytes()))
    contents.listings.append((file, capture.pci))
    log = folder / KERNEL_LOG
    if log.exists():
        with log.open("rb") as stream:
            contents.logs.append((file, read_log(lines_of(stream))))
    unit = capture.unit(capture.options(as_recorded=True), UnchangedMemory(capture.memory))
    findings = tuple(lint_structures(unit, reserved_memory(capture)))
    contents.units.append(GivenUnit(file, unit, capture.dmar, findings))
    contents.replays.append((file, replay_capture(folder)))
    events = folder / EVENTS
    if events.exists():
        with open_lines(events) as numbered:
            contents.audits.append((file, audit_log((line for _, line in numbered), AGGRESSIVE)))


def _read_files(contents: Contents, file: str, files: Files) -> None:
    """A collection, or a folder with some of what one holds."""
    before = len(contents.tables), len(contents.listings), len(contents.units)
    contents.tables += [(each.name, each.data) for each in tables_in(file, files)]
    tree = tree_in(files)
    if tree is not None:
        contents.listings.append((file, tree))
    log = files.contents.get(collection.LOG, b"")
    if log.strip():
        contents.logs.append((file, read_log(lines_of(io.BytesIO(log)))))
    if files.is_collection:
        contents.platform = read_platform(beside=file)
    if is_debugfs(files.contents):
        for name, unit in open_named_dumps(files):
            contents.units.append(GivenUnit(f"{file}@{name}", unit, None, ()))
    if before == (len(contents.tables), len(contents.listings), len(contents.units)) and not log:
        raise ValueError("a folder with neither tables, listings, logs nor dumps")


def _read_sweep(contents: Contents, file: str) -> None:
    with needing("batch", "report"):
        from vtd.sweeps.results import load  # noqa: PLC0415 - needs an extra

        contents.sweeps.append((file, load(file)))


def _read_recording(contents: Contents, file: str, path: Path) -> None:
    run = live_run(path)
    for number, unit in enumerate(run.units):
        name = file if len(run.units) == 1 else f"{file}@dmar{number}"
        seen = unit.fork(UnchangedMemory(run.memory))
        contents.units.append(GivenUnit(name, seen, None, tuple(lint_structures(seen, {}))))
    contents.replays.append((file, replay_live(path)))
    contents.audits.append((file, audit_live(partial(open_lines, path), AGGRESSIVE)))


def _read_scenario(contents: Contents, file: str, path: Path) -> bool:
    """Whether a file is a scenario, which was replayed and audited then."""
    if not (path.is_file() and path.name.endswith(SCENARIOS)):
        return False
    try:
        scenario = load_scenario(path)
    except ScenarioError:
        return False
    if "steps" not in scenario:
        return False
    contents.replays.append((file, replay(path)))
    contents.audits.append((file, audit_scenario(scenario, AGGRESSIVE)))
    return True


def _read_description(contents: Contents, file: str, data: bytes) -> bool:
    """Whether a file is a machine description or a plan, which was judged then."""
    try:
        text = data.decode()
        values = tomllib.loads(text)
    except ValueError:
        return False
    name = "stdin" if file == "-" else file
    if TABLES[0] in values:
        described = read_plan(text, name)
        if described.machine is None:
            raise ValueError("a plan without a machine: both have to be in one file here")
        assembly = assemble(described.machine, file=name)
        around = Surroundings.of(assembly)
        judgement = judge(described.plan, around)
        better = None if judgement.works else nearest(judgement, around)
        contents.plans.append((name, GivenPlan(judgement, better, around)))
    elif "unit" in values:
        assembly = assemble(read_machine(text, name), file=name)
    else:
        return False
    contents.machines.append((name, assembly))
    return True


def _read_single(contents: Contents, file: str, data: bytes) -> None:
    """A file of what the *Try it* page takes, or a log of table writes and invalidations."""
    name = "stdin" if file == "-" else file
    try:
        given = recognised(name, data)
    except UnknownInputError:
        contents.audits.append((name, _audited(data)))
        return
    add(contents, given)


def _audited(data: bytes) -> LogReport:
    """The audit of a log of table writes; ValueError if that is none either."""
    lines: Iterator[str] = iter(data.decode("utf-8", "replace").splitlines())
    try:
        found = audit_log(lines, AGGRESSIVE)
    except AuditLogError as error:
        raise ValueError(
            "neither a table, a listing, registers, a memory map, a log, a recording, a scenario, "
            "a machine nor a plan"
        ) from error
    if not found.lines:
        raise ValueError("empty")
    return found
