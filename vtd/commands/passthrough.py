"""``vtd passthrough``: judge a passthrough plan, run it, and drill for what goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NamedTuple, NoReturn

import typer

from vtd.commands.command_group import command_group
from vtd.commands.counted import counted
from vtd.commands.exit_codes import FOUND, UNUSABLE
from vtd.commands.machine import machine_errors
from vtd.commands.platform_files import MemoryMap, PlatformFiles, Registers, read_platform
from vtd.commands.reading import Lspci, read_table, read_text, unusable_input
from vtd.commands.rendering.answer import CommandAnswer, Format, Output, show
from vtd.commands.rendering.picture import SvgFile, show_or_draw
from vtd.host.attempts import Reach, try_everything
from vtd.host.drills.all_drills import DRILLS
from vtd.host.drills.drill import DrillResult
from vtd.host.plan import Plan, PlanFile, read_plan
from vtd.host.plan_picture import plan_svg
from vtd.host.plan_rows import plan_row, verdict_row
from vtd.host.planner import Judgement, Nearest, judge, nearest
from vtd.host.rules import Kind
from vtd.host.running import HostError, RunningHost
from vtd.host.surroundings import Surroundings
from vtd.host.workload import WorkDone, do_work
from vtd.machine.assembly import Assembly, assemble
from vtd.machine.description import Machine, read_machine
from vtd.rows import Hex
from vtd.software.registers import NoAnswerError
from vtd.unit.caching.cache import Shape
from vtd.unit.caching.policy import CachePolicy
from vtd.unit.options import Options

PlanArgument = Annotated[
    str, typer.Argument(metavar="PLAN.toml", help="A passthrough plan; - is stdin.")
]
MachineOption = Annotated[
    Path | None,
    typer.Option("--machine", help="A machine description; that in the plan if not given."),
]
Dmar = Annotated[
    str | None,
    typer.Option(help="DMAR table of a real machine, or a collection of vtd collect."),
]

app = command_group("Judge a passthrough plan, run it, and drill for what goes wrong.")


class Design(NamedTuple):
    """A plan and its machine."""

    plan: Plan
    around: Surroundings
    assembly: Assembly | None
    """None for a real machine."""


def _read(file: str, machine: Path | None) -> tuple[PlanFile, Machine | None, str]:
    name = "stdin" if file == "-" else file
    with unusable_input(file), machine_errors():
        described = read_plan(read_text(file), name)
    if machine is None:
        return described, described.machine, name
    with unusable_input(str(machine)), machine_errors():
        return described, read_machine(read_text(machine), str(machine)), str(machine)


def _assembled(
    file: str, machine: Path | None, options: Options | None = None, *, run: bool = False
) -> Design:
    described, found, name = _read(file, machine)
    if found is None:
        _refuse(f"{file}: no machine: neither in the plan nor by --machine")
    with unusable_input(file), machine_errors():
        shares = any(each.policy.shared_tables for each in described.plan.assignments)
        assembly = assemble(found, options, file=name, stores_wait=run and shares)
    return Design(described.plan, Surroundings.of(assembly), assembly)


def _refuse(message: str) -> NoReturn:
    typer.echo(f"vtd: {message}", err=True)
    raise typer.Exit(UNUSABLE)


@app.command("plan")
def plan_command(
    file: PlanArgument,
    machine: MachineOption = None,
    dmar: Dmar = None,
    lspci: Lspci = None,
    memory_map: MemoryMap = None,
    registers: Registers = None,
    svg: SvgFile = None,
    format: Output = Format.TEXT,
) -> None:
    """Tell what of a plan works, what is refused and why, and the nearest plan that works.

    The machine is that of the plan, a description (--machine), or a real one (--dmar and what else
    is known of it). Exit code 1 if something is refused or not known, 2 for a plan that contradicts
    itself or the machine.
    """
    if dmar is not None:
        described, _, _ = _read(file, None)
        table = read_table(dmar)
        files = PlatformFiles(memory_map=memory_map, lspci=lspci, registers=registers)
        design = Design(described.plan, Surroundings(table, read_platform(files, dmar)), None)
    else:
        design = _assembled(file, machine)
    judgement = judge(design.plan, design.around)
    better = None if judgement.works else nearest(judgement, design.around)
    answer = CommandAnswer(
        plan_row(judgement, better, design.around),
        [verdict_row(each) for each in judgement.verdicts],
        _lines(judgement, better, design.around),
    )
    show_or_draw(answer, format, svg, lambda: plan_svg(judgement, better, design.around))
    if judgement.contradictory:
        name = "stdin" if file == "-" else file
        for each in judgement.verdicts:
            if each.kind is Kind.CONTRADICTION:
                line = "" if each.where.line is None else f"{each.where.line}:"
                typer.echo(f"vtd: {name}:{line} {each.subject}: {each.text}", err=True)
        raise typer.Exit(UNUSABLE)
    if not judgement.works or judgement.undecided:
        raise typer.Exit(FOUND)


def _lines(judgement: Judgement, better: Nearest | None, around: Surroundings) -> Iterator[str]:
    for device in judgement.devices:
        unit = "no unit" if device.unit is None else f"unit {device.unit.register_base:#x}"
        group = ", ".join(map(around.name, around.group(device.bdf, device.policy.acs_override)))
        yield f"{device.name} ({device.bdf}) to {device.guest}: {unit}, group {group}"
    for each in judgement.verdicts:
        yield f"{each.kind.value}: {each.subject}: {each.text} ({each.rule.id})"
        if each.kind is Kind.NOTE:
            continue
        known = {name: saying for name, saying in each.rule.sayings.items() if saying}
        for name, saying in known.items():
            yield f"  {name}: {saying.text} ({saying.source})"
        silent = [name for name in each.rule.sayings if name not in known]
        if silent:
            yield f"  {', '.join(silent)}: no source found"
    for cost in judgement.costs:
        yield (
            f"{cost.guest} behind {cost.unit:#x}: {counted(cost.leaves, 'entry', 'entries')} in "
            f"{counted(cost.tables, 'table')}, {counted(cost.unmap, 'descriptor')} to unmap a "
            f"page, {counted(cost.interrupts, 'interrupt entry', 'interrupt entries')}"
        )
    if judgement.works:
        yield "works, as far as is known" if judgement.undecided else "works"
    elif better is None:
        yield "does not work, and no change was found that makes it"
    else:
        yield "does not work; the nearest plan that does:"
        yield from (f"  {change}" for change in better.changes)


@app.command("run")
def run_command(
    file: PlanArgument,
    machine: MachineOption = None,
    iotlb: Annotated[
        str, typer.Option(metavar="SETSxWAYS", help="Shape of the IOTLB, such as 8x8; unbounded.")
    ] = "",
    force: Annotated[bool, typer.Option(help="Run what the planner refuses.")] = False,
    seed: Annotated[int, typer.Option(help="Of requests at random addresses.")] = 0,
    format: Output = Format.TEXT,
) -> None:
    """Set a plan up on its machine, have every device try what it can reach, and do its work.

    Exit code 1 if a device reached what it is not meant to, or an audit found something; 2 for a
    plan that does not work.
    """
    design = _assembled(file, machine, _options(iotlb), run=True)
    assert design.assembly is not None  # as it was put together
    with _not_run(file):
        judgement = judge(design.plan, design.around)
        host = RunningHost(judgement, design.around, design.assembly, forced=force)
        reach = list(try_everything(host))
        work = list(do_work(host, seed))
    findings = list(host.findings())
    done = {each.device: _work_row(each) for each in work}
    rows = [{**_reach_row(each), "work": done.get(each.device)} for each in reach]
    isolated = all(each.isolated for each in reach)
    document = {"isolated": isolated, "devices": rows, "findings": findings}
    show(CommandAnswer(document, rows, _run_lines(reach, work, findings)), format)
    if findings or not isolated:
        raise typer.Exit(FOUND)


def _options(iotlb: str) -> Options:
    """Options with an IOTLB of a shape, LRU in each set."""
    if not iotlb:
        return Options()
    sets, _, ways = iotlb.partition("x")
    if not (sets.isdecimal() and ways.isdecimal() and int(sets) and int(ways)):
        raise typer.BadParameter(f"{iotlb!r} is no shape such as 8x8", param_hint="--iotlb")
    return Options(caches=CachePolicy(iotlb=Shape(ways=int(ways), sets=int(sets))))


@contextmanager
def _not_run(file: str) -> Iterator[None]:
    try:
        yield
    except (HostError, NoAnswerError) as error:
        _refuse(f"{file}: {error}")


def _reach_row(each: Reach) -> dict[str, object]:
    return {
        "device": each.device,
        "guest": each.guest,
        "isolated": each.isolated,
        "granted": each.granted,
        "missed": list(map(Hex, each.missed)),
        "beyond": list(map(Hex, each.beyond)),
        "touched": list(each.touched),
        "shares_memory_with_processor": each.shared,
        "interrupt": each.interrupt,
        "forged": list(each.forged),
        "any_interrupt": each.any_interrupt,
    }


def _work_row(each: WorkDone) -> dict[str, object]:
    return {
        "operation": each.operation,
        "operations": each.operations,
        "requests": each.requests,
        "refused": each.refused,
        "bytes": each.bytes,
        "iotlb_hits": each.hits,
        "iotlb_misses": each.misses,
        "reads": each.reads,
        "reads_per_request": round(each.reads_per_request, 3),
        "posted": each.posted,
        "exits": each.exits,
        "unmaps": each.unmaps,
        "late": each.late,
        "invalidations": each.invalidations,
    }


def _run_lines(reach: list[Reach], work: list[WorkDone], findings: list[str]) -> Iterator[str]:
    for each in reach:
        wrong = [
            *(f"can't reach {address:#x}" for address in each.missed),
            *(f"reaches {address:#x}" for address in each.beyond),
            *(["does not see what its guest's processor writes"] if each.shared is False else []),
            *(f"changes memory of {guest}" for guest in each.touched),
            *(f"sends the interrupt of {device}" for device in each.forged),
            *(["sends any interrupt"] if each.any_interrupt else []),
        ]
        what = "; ".join(wrong) if wrong else "reaches its guest's memory and nothing else"
        yield f"{each.device} of {each.guest}: {what}; its interrupt: {each.interrupt}"
    for done in work:
        yield (
            f"{done.device}: {done.operations} {done.operation}, {done.bytes} bytes; "
            f"{counted(done.requests, 'DMA request')}, {done.refused} refused; "
            f"IOTLB {counted(done.hits, 'hit')}, {counted(done.misses, 'miss', 'misses')}; "
            f"{done.reads_per_request:.2f} reads per DMA request; "
            f"interrupts: {done.posted} posted, {counted(done.exits, 'exit')}"
        )
        if done.unmaps:
            yield (
                f"  its guest unmapped {counted(done.unmaps, 'page')} meanwhile, {done.late} still "
                f"reached afterwards; {counted(done.invalidations, 'invalidation')}"
            )
    yield from (f"audit: {each}" for each in findings)


@app.command("drill")
def drill_command(
    name: Annotated[str | None, typer.Argument(help="One drill; all if not given.")] = None,
    format: Output = Format.TEXT,
) -> None:
    """Play what goes wrong with passed-through devices, each with its guard and without.

    Exit code 1 if a drill is not green with its guard and red without.
    """
    if name is not None and name not in DRILLS:
        _refuse(f"{name!r} is none of {', '.join(DRILLS)}")
    chosen = list(DRILLS.values()) if name is None else [DRILLS[name]]
    played = [(each.run(), each.run(guarded=False)) for each in chosen]
    rows = [_drill_row(with_guard, without) for with_guard, without in played]
    show(CommandAnswer(rows, rows, _drill_lines(played)), format)
    if not all(with_guard.green and not without.green for with_guard, without in played):
        raise typer.Exit(FOUND)


def _drill_row(with_guard: DrillResult, without: DrillResult) -> dict[str, object]:
    drill = with_guard.drill
    return {
        "name": drill.name,
        "title": drill.title,
        "guard": drill.guard,
        "section": drill.section,
        "guarded": [each._asdict() for each in with_guard.checks],
        "unguarded": [each._asdict() for each in without.checks],
        "green": with_guard.green,
        "red_without_guard": not without.green,
    }


def _drill_lines(played: list[tuple[DrillResult, DrillResult]]) -> Iterator[str]:
    for with_guard, without in played:
        drill = with_guard.drill
        yield f"{drill.name}: {drill.title} ({drill.section})"
        yield f"  guard: {drill.guard}"
        for result, name in ((with_guard, "with it"), (without, "without it")):
            for check in result.checks:
                yield f"  {name}: {'holds' if check.holds else 'FAILS'}: {check.text}"
