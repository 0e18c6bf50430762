"""``vtd conformance``: cases inside a virtual machine, on whatever remapping unit is there."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from xml.etree import ElementTree

import typer

from vtd.commands.command_group import command_group
from vtd.commands.counted import counted
from vtd.commands.exit_codes import FOUND
from vtd.commands.extras import needing
from vtd.commands.file_names import file_to_write
from vtd.commands.kit_machine import MachineOptions, TargetArgument, machine_of
from vtd.commands.live_guest import ended_by_signals
from vtd.commands.names import check_name
from vtd.commands.option_groups import with_option_groups
from vtd.commands.reading import unusable_input
from vtd.commands.rendering.answer import CommandAnswer, Format, Output, show
from vtd.commands.rendering.progress import StatusLine, shown_progress
from vtd.commands.rendering.terminal import Verbatim
from vtd.numbers import parse_hexadecimal

if TYPE_CHECKING:
    from vtd.conformance.judgement import Judged
    from vtd.conformance.kit import Builder, Left
    from vtd.conformance.probe import Probe


app = command_group("Test the VT-d unit of a virtual machine monitor from inside a guest.")

OutputOption = Annotated[
    Path, typer.Option("--output", "-o", help="The file to write.", callback=file_to_write)
]


class ScoreFormat(StrEnum):
    """Forms of a score card."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"
    JUNIT = "junit"


class By(StrEnum):
    """What a score card counts by."""

    KIND = "kind"
    SECTION = "section"


class ResetBy(StrEnum):
    """How the unit is reset before each case."""

    SOFTWARE = "software"
    MACHINE = "machine"


@app.command()
@with_option_groups
def probe(
    target: TargetArgument,
    output: OutputOption,
    options: MachineOptions,
    format: Output = Format.TEXT,
) -> None:
    """Ask a machine what it is: units, DMAR table, memory, and devices that do DMA on demand.

    Nothing in it is changed. Exit code 0: it said so. 2: wrong use, a machine that does not start,
    that contradicts itself, or that has no unit.
    """
    from vtd.conformance.format import Mode  # noqa: PLC0415
    from vtd.conformance.image import make_image  # noqa: PLC0415
    from vtd.conformance.probe import PROBE_BASE, Probe  # noqa: PLC0415
    from vtd.conformance.running import run as run_image  # noqa: PLC0415

    with unusable_input("vtd conformance probe"), ended_by_signals():
        machine = machine_of(target, options)
        collected = run_image(make_image(Mode.PROBE, PROBE_BASE), machine, time.monotonic)
        found = Probe.of_frames(collected.frames)
    with unusable_input(str(output)):
        output.write_text(json.dumps(found.to_json(), indent=1) + "\n", "utf-8")
    show(CommandAnswer(_probe_row(found), [_probe_row(found)], _probe_lines(found)), format)


def _probe_row(found: Probe) -> dict[str, object]:
    return {
        "units": [
            {
                "base": each.base,
                "version": each.value(0, 4),
                "cap": hex(each.value(8, 8)),
                "ecap": hex(each.value(16, 8)),
            }
            for each in found.units
        ],
        "memory": sum(each.end - each.start for each in found.memory),
        "devices": [f"{source_id:04x}" for source_id in found.devices()],
        "host_address_width": found.host_address_width,
    }


def _probe_lines(found: Probe) -> Iterator[str]:
    from vtd.conformance.devices import REACHES  # noqa: PLC0415

    for each in found.units:
        yield (
            f"unit at {each.base:#x}: VER {each.value(0, 4):#x}, CAP {each.value(8, 8):#x}, "
            f"ECAP {each.value(16, 8):#x}"
        )
    size = sum(each.end - each.start for each in found.memory) >> 20
    yield f"{size} MiB of memory, host address width {found.host_address_width}"
    devices = ", ".join(
        f"{source_id:04x}h {REACHES[device.driver].name}"
        for source_id, device in found.devices().items()
    )
    yield f"devices that do DMA on demand, by source-id: {devices or 'none'}"
    for place, why in found.unusable().items():
        yield f"not usable: NVMe {place >> 8:02x}:{place >> 3 & 31:02x}.{place & 7}: {why}"


@app.command()
def build(
    machine: Annotated[Path, typer.Option("--for", help="What vtd conformance probe wrote.")],
    output: OutputOption,
    scenarios: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[SCENARIO]...", help="Scenario files, or folders of them."),
    ] = None,
    cases: Annotated[
        int | None,
        typer.Option(min=0, help="Generated cases of each property; 100, or none with scenarios."),
    ] = None,
    property: Annotated[
        list[str] | None,
        typer.Option(help="tables, driver, interrupts, protocol; may be repeated. All that fit."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The first seed of generated cases.")] = 0,
    reset: Annotated[
        ResetBy, typer.Option(help="machine is slower, and shows reset values too.")
    ] = ResetBy.SOFTWARE,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="NVMe disks may lose what they hold.")
    ] = False,
    metal: Annotated[
        str | None,
        typer.Option(
            metavar="UNIT", help="A real machine: read the registers of the unit at this address."
        ),
    ] = None,
    format: Output = Format.TEXT,
) -> None:
    """Make an image of cases for a machine, each with all outcomes that are right on its unit.

    Cases that can't run there are listed with the reason. Exit code 0: done. 2: wrong use, an
    unusable probe or scenario, or no case that can run.
    """
    with needing("fuzz", "conformance build"):
        from vtd.conformance import sources  # noqa: PLC0415 - needs an extra
    from vtd.conformance.format import Reset  # noqa: PLC0415
    from vtd.conformance.kit import RECORDED, VARIANTS, Builder  # noqa: PLC0415
    from vtd.conformance.metal import one_unit, register_cases  # noqa: PLC0415
    from vtd.conformance.probe import read_probe  # noqa: PLC0415

    count = cases if cases is not None else 0 if scenarios else 100
    with unusable_input(str(machine)):
        found = read_probe(machine)
        if metal is not None:
            found = one_unit(found, _address(metal))
        how = Reset[reset.name] if metal is None else Reset.NONE
        builder = Builder(found, reset=how, overwrite=overwrite)
        features = found.capabilities.features
    fitting = [name for name, needed in sources.PROPERTIES.items() if needed <= features]
    for name in property or ():
        check_name(name, fitting, "--property")
    for path in shown_progress(list(_files(scenarios or [])), "preparing"):
        with unusable_input(str(path)):
            recorded = sources.is_recorded(path)
            builder.add(sources.scenario_case(path), RECORDED if recorded else VARIANTS)
    if metal is not None:
        for wanted in register_cases(found):
            builder.add(wanted)
    elif count:
        _generate(builder, property or fitting, count, seed)
    with unusable_input(str(machine)):
        image = builder.image()
    with unusable_input(str(output)):
        output.write_bytes(image.pack())
    left = [each._asdict() for each in builder.left]
    row = {"cases": image.header.cases, "base": image.header.base, "left": left}
    show(CommandAnswer(row, left, _build_lines(image.header.cases, builder.left)), format)


def _generate(builder: Builder, properties: list[str], count: int, seed: int) -> None:
    """Add so many cases of each property."""
    from vtd.conformance.sources import generated  # noqa: PLC0415 - needs an extra

    with StatusLine() as status:
        for name in properties:
            for done, wanted in enumerate(generated(builder.probe, name, count, seed), 1):
                builder.add(wanted)
                status.show(f"{name}: {done} of {count}")


def _address(text: str) -> int:
    try:
        return parse_hexadecimal(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--metal") from error


def _files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(each for each in path.iterdir() if each.name.endswith(_SCENARIOS))
        else:
            yield path


_SCENARIOS = (".json", ".json.gz")


def _build_lines(cases: int, left: list[Left]) -> Iterator[str]:
    why = ", for lack of:" if left else ""
    yield f"{counted(cases, 'case')} in the image, {len(left)} not in it as a whole{why}"
    for why, number in Counter(each.why for each in left).most_common():
        names = [each.name for each in left if each.why == why]
        yield f"  {number:5} {why}: {names[0]}{' and others' if number > 1 else ''}"


@app.command()
@with_option_groups
def run(
    target: TargetArgument,
    image: Annotated[Path, typer.Argument(help="What vtd conformance build wrote.")],
    output: OutputOption,
    options: MachineOptions,
    silence: Annotated[
        float, typer.Option(min=1, help="Seconds without a word after which a machine hangs.")
    ] = 30,
    format: Output = Format.TEXT,
) -> None:
    """Boot an image, and write down what came of each case; nothing is judged yet.

    A machine that hangs is started again behind the case. Exit code 0: all cases were tried. 2:
    wrong use, an unusable image, or a machine that does not start.
    """
    from vtd.conformance.image import read_image  # noqa: PLC0415
    from vtd.conformance.results import lines_of, results_of, write_results  # noqa: PLC0415
    from vtd.conformance.running import run as run_image  # noqa: PLC0415

    with unusable_input(str(image)):
        kit = read_image(image)
        if not kit.document:
            raise ValueError("an image that probes has no cases")
    machine = machine_of(target, options)
    total = int(kit.header.cases)
    with unusable_input("vtd conformance run"), ended_by_signals(), StatusLine() as status:
        collected = run_image(
            kit,
            machine,
            time.monotonic,
            silence=silence,
            note=lambda number: status.show(f"case {number + 1} of {total}"),
        )
        found = results_of(kit, collected, target)
    with unusable_input(str(output)):
        write_results(output, lines_of(found))
    row = {"cases": total, "hung": len(collected.hung), "results": str(output)}
    hung = f", {len(collected.hung)} of them hung" if collected.hung else ""
    said = f"{counted(total, 'case')} tried{hung}: vtd conformance compare {output}"
    show(CommandAnswer(row, [row], [Verbatim(said)]), format)


@app.command()
def compare(
    results: Annotated[Path, typer.Argument(help="What vtd conformance run wrote.")],
    before: Annotated[
        Path | None, typer.Argument(help="Earlier results: only what changed counts.")
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(help="Folder for the scenarios of failures; vtd replay and walk open them."),
    ] = None,
    by: Annotated[
        By, typer.Option(help="section: also by section of the specification and capability.")
    ] = By.KIND,
    format: Annotated[ScoreFormat, typer.Option(help="Form of the output.")] = ScoreFormat.TEXT,
) -> None:
    """Judge results: a score card by kind of case, and each failure with its cause.

    A cause is a known departure from the specification that has the same outcome; see
    docs/known-differences.md. Exit code 0: nothing failed, or nothing that passed before. 1: some
    case did. 2: wrong use, or results that are cut, damaged or no results.
    """
    from vtd.conformance.judgement import judge_all  # noqa: PLC0415
    from vtd.conformance.results import read_results  # noqa: PLC0415
    from vtd.conformance.score import changes, score_card  # noqa: PLC0415
    from vtd.conformance.sections import section_lines, section_rows  # noqa: PLC0415

    with unusable_input(str(results)):
        found = read_results(results)
        judged = list(shown_progress(list(judge_all(found)), "judging"))
    earlier: list[Judged] | None = None
    if before is not None:
        with unusable_input(str(before)):
            earlier = list(judge_all(read_results(before)))
    changed = None if earlier is None else list(changes(earlier, judged))
    card = score_card(judged)
    if save is not None:
        with unusable_input(str(save)):
            save.mkdir(parents=True, exist_ok=True)
            for each in judged:
                _save(each, save)
    rows = [_judged_row(each) for each in judged]
    sections = section_rows(shown_progress(judged, "sections")) if by is By.SECTION else []
    if format is ScoreFormat.JUNIT:
        typer.echo(_junit(judged))
    else:
        document = {
            "target": found.target,
            "score": card.rows(),
            "causes": card.cause_rows(),
            "sections": [each._asdict() for each in sections],
            "changed": None if changed is None else [each._asdict() for each in changed],
            "cases": rows,
        }
        listed = section_lines(sections) if sections else ()
        lines = chain(listed, card.lines() if changed is None else map(str, changed))
        show(CommandAnswer(document, rows, lines), Format(format))
    worse = card.failed if changed is None else any(each.worse for each in changed)
    if worse:
        raise typer.Exit(FOUND)


def _judged_row(each: Judged) -> dict[str, object]:
    return {
        "name": each.name,
        "kind": each.source,
        "verdict": str(each.verdict),
        "why": each.why,
        "causes": each.causes,
    }


def _save(each: Judged, folder: Path) -> None:
    """A failed case as a scenario that expects what is right."""
    if each.result is None or not each.failed:
        return
    kit = each.result.case
    expected = [allowed[0] if allowed else None for allowed in kit.allowed]
    scenario = kit.case.scenario(kit.name, each.why, "vtd conformance", expected)
    path = folder / f"{kit.name}.json"
    path.write_text(json.dumps(scenario, indent=1) + "\n", "utf-8")


def _junit(judged: list[Judged]) -> str:
    root = ElementTree.Element("testsuites", name="vtd conformance")
    for source in sorted({each.source for each in judged}):
        suite = ElementTree.SubElement(root, "testsuite", name=source or "not applicable")
        for each in judged:
            if each.source != source:
                continue
            case = ElementTree.SubElement(suite, "testcase", classname=source, name=each.name)
            if each.failed:
                cause = ", ".join(each.causes) or "unexplained"
                ElementTree.SubElement(case, "failure", type=cause, message=each.why)
            elif not each.passed:
                ElementTree.SubElement(case, "skipped", message=f"{each.verdict}: {each.why}")
        suite.set("tests", str(len(suite)))
        suite.set("failures", str(len(suite.findall("testcase/failure"))))
        suite.set("skipped", str(len(suite.findall("testcase/skipped"))))
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)
