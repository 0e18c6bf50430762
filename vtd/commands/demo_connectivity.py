"""``vtd demo connectivity``: SR-IOV, VMDq and I/OAT side by side, and who can reach what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from devices.source_id import SourceId
from vtd.commands import demo_connectivity_machine as example
from vtd.commands.demo_connectivity_machine import PLACES, Actor, Attempt
from vtd.commands.rendering.answer import CommandAnswer
from vtd.commands.rendering.terminal import Verbatim, styled
from vtd.rows import Hex


def answer() -> CommandAnswer:
    """Every device and every attempt, for all forms."""
    actors = example.run()
    rows = list(map(_row, actors))
    return CommandAnswer({"actors": rows}, rows, _lines(actors))


def _row(actor: Actor) -> Mapping[str, object]:
    return {
        "name": actor.name,
        "owner": actor.owner,
        "requester_id": str(actor.requester_id),
        "domain": actor.domain,
        "reach": list(actor.reach),
        "attempts": [
            {
                "target": each.target,
                "reached": each.reached,
                "fault": None if each.fault is None else Hex(each.fault.reason),
                "address": None if each.fault is None else Hex(each.fault.request.address),
            }
            for each in actor.attempts
        ],
    }


def _lines(actors: Sequence[Actor]) -> Iterator[str]:
    yield "Two guests, A and B, on one host: each device is told to read everybody's memory."
    for actor in actors:
        yield ""
        yield styled(f"{_who(actor)}: {actor.requester_id}, domain {actor.domain}", bold=True)
        for attempt in actor.attempts:
            yield f"  {_attempt(actor, attempt)}"
    yield ""
    yield "Who can reach whose memory:"
    yield ""
    yield from map(Verbatim, picture(actors))
    yield ""
    yield (
        "Requests with one requester id share one domain: a virtual function has an id of its "
        "own, a queue has not, and an engine without a domain reaches everything."
    )


def _who(actor: Actor) -> str:
    return f"{actor.name} of {'the host' if actor.owner == 'host' else f'guest {actor.owner}'}"


def _attempt(actor: Actor, attempt: Attempt) -> str:
    what = f"reads the memory of {attempt.target}"
    if attempt.fault is not None:
        fault = attempt.fault
        return (
            f"{what}: {styled('refused', 'green')}, fault {int(fault.reason):02X}h recorded for "
            f"{SourceId(fault.request.source_id)} at {fault.request.address:#x}"
        )
    foreign = attempt.target != actor.owner
    text = attempt.taken.decode("ascii", "replace")[14:-2].strip()
    shown = styled(repr(text), "red") if foreign else repr(text)
    return f"{what}: {shown}{', which is not its own' if foreign else ''}"


def picture(actors: Sequence[Actor]) -> Iterator[str]:
    """A line for each device, those with one requester id joined, and the memory it reaches."""
    width = max(len(_who(actor)) for actor in actors)
    for requester_id, group in groupby(actors, key=lambda each: each.requester_id):
        members = list(group)
        for number, actor in enumerate(members):
            first, last = number == 0, number == len(members) - 1
            join = "--" if first and last else "-." if first else "-'" if last else "-|"
            reach = " ".join(
                f"[{name}]" if name in actor.reach else " " * (len(name) + 2) for name in PLACES
            )
            arrow = f"-- {requester_id} --> {reach}" if first else ""
            yield f"  {_who(actor):{width}} {join}{arrow}".rstrip()
