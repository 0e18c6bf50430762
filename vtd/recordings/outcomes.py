"""What a step of a scenario came to, in the form that the file has it.

``tests/vectors/FORMAT.md`` describes the form. Left out: carrying out steps and comparing, which
:mod:`vtd.recordings.replay` does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from devices.dma import (
    Completion,
    InvalidationRequest,
    PageGroupResponse,
    TranslationEntry,
)
from vtd.unit.interrupts.outcome import Interrupt, Posted

Parts = list[tuple[int, int, Completion]]
"""Start, size and outcome of the parts of a transfer."""


def read(parts: Parts) -> dict[str, Any]:
    """The data of a read, or what became of each part."""
    if all(part.ok for *_, part in parts):
        return {"data": b"".join(part.data for *_, part in parts).hex()}
    return _parts(parts, lambda part: {"data": part.data.hex()})


def write(parts: Parts) -> dict[str, Any]:
    """Success of a write, or what became of each part."""
    if all(part.ok for *_, part in parts):
        return {"ok": True}
    return _parts(parts, lambda _: {"ok": True})


def _parts(parts: Parts, done: Callable[[Completion], dict[str, Any]]) -> dict[str, Any]:
    """The outcome of a transfer of which some part was refused."""
    if not any(part.ok for *_, part in parts):
        return {"fault": True}
    first = parts[0][0]
    return {
        "parts": [
            {
                "offset": start - first,
                "length": size,
                **(done(part) if part.ok else {"fault": True}),
            }
            for start, size, part in parts
        ]
    }


def interrupt(outcome: object) -> dict[str, Any]:
    """Delivered, posted or blocked."""
    match outcome:
        case Posted(descriptor, vector, notification):
            sent = notification and _message(notification)
            return {"posted": {"descriptor": descriptor, "vector": vector, "notification": sent}}
        case Interrupt() as message:
            return {"delivered": _message(message)}
        case _:
            return {"blocked": True}


def _message(interrupt: Interrupt) -> dict[str, int]:
    return {
        "vector": interrupt.vector,
        "delivery_mode": int(interrupt.delivery_mode),
        "trigger_mode": int(interrupt.trigger_mode),
        "dest_mode": int(interrupt.destination_mode),
        "redirection_hint": int(interrupt.redirection_hint),
        "destination": interrupt.destination,
    }


def translations(completion: Completion, limit: int | None) -> dict[str, Any]:
    """The answer to a translation request: its status and the first ``limit`` entries, or all."""
    if not completion.ok:
        return {"status": completion.status.value}
    entries = [_translation(entry) for entry in completion.entries[:limit]]
    return {"status": "success", "entries": entries}


def _translation(entry: TranslationEntry) -> dict[str, int]:
    shown = {name.removesuffix("_"): int(value) for name, value in entry._asdict().items()}
    if not (entry.r or entry.w):
        del shown["address"]
    return shown


def group_response(response: PageGroupResponse) -> dict[str, Any]:
    """A page group response."""
    return {"code": response.code, "prgi": response.group_index, "pasid": response.pasid}


def invalidation(request: InvalidationRequest) -> dict[str, Any]:
    """An invalidation request to a device-TLB; its ITag is the unit's choice and left out."""
    return {
        "address": request.address,
        "size": request.size,
        "global": int(request.global_),
        "pasid": request.pasid,
    }
