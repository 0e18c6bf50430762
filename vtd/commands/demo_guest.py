"""``vtd demo guest``: what guest and device share, and what each forgotten step lets through."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from vtd.commands import demo_guest_machine, demo_itanium_machine
from vtd.commands.demo_scene import Scene
from vtd.commands.rendering.answer import CommandAnswer
from vtd.commands.rendering.terminal import styled


def answer() -> CommandAnswer:
    """Every scene, for all forms."""
    scenes = [*demo_guest_machine.run(), *demo_itanium_machine.run()]
    rows = [_row(scene) for scene in scenes]
    return CommandAnswer({"scenes": rows}, rows, _lines(scenes))


def _row(scene: Scene) -> Mapping[str, object]:
    return {
        "title": scene.title,
        "steps": [step._asdict() for step in scene.steps],
        "figures": scene.figures,
    }


def _lines(scenes: Sequence[Scene]) -> Iterator[str]:
    for number, scene in enumerate(scenes, 1):
        if number > 1:
            yield ""
        yield styled(f"{number}. {scene.title}", bold=True)
        for step in scene.steps:
            yield f"  {step.who} {step.does}"
            yield f"    => {step.outcome}"
            if step.finding is not None:
                yield styled(f"    audit: {step.finding}", "red")
        for name, value in scene.figures.items():
            yield from _figure(name.replace("_", " "), value)


def _figure(name: str, value: object) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield f"  {name}: {value}"
        return
    for key, inner in value.items():
        counts = inner if isinstance(inner, Mapping) else {key: inner}
        shown = ", ".join(f"{each} {count}" for each, count in counts.items())
        yield f"  {name}, {key}: {shown}"
