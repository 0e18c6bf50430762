"""What a log tells as rows, in the form of ``vtd explain --format json``."""

from __future__ import annotations

from typing import Any

from vtd.dmar.scopes import Owner
from vtd.logs.causes import cause_of
from vtd.logs.context import Context
from vtd.logs.fault import FoldedFaults
from vtd.logs.log import Log, MessageGroup


def log_row(log: Log, context: Context) -> dict[str, Any]:
    """Faults folded, and messages with their meaning."""
    return {
        "faults": [_fault_row(group, context) for group in log.faults],
        "messages": [_message_row(group) for group in log.messages],
    }


def _fault_row(group: FoldedFaults, context: Context) -> dict[str, Any]:
    cause = None if group.reason is None else cause_of(group.reason, group.pasid)
    owner = context.owner(group.source) if group.source is not None else None
    alias = context.alias(group.source) if group.source is not None else None
    return {
        "device": None if group.source is None else str(group.source),
        "kind": group.kind.value,
        "pasid": group.pasid,
        "reason": group.reason,
        "text": cause.reason.text if cause else None,
        "stopped_at": cause.where if cause else None,
        "likely": list(cause.likely) if cause else [],
        "look_at": list(cause.look_at) if cause else [],
        "count": group.count,
        "lines": list(group.lines),
        "ranges": [[hex(start), hex(end - 1)] for start, end in group.ranges],
        "unit": hex(owner.unit.register_base) if isinstance(owner, Owner) else None,
        "alias": None if alias is None else [str(bdf) for bdf in alias],
        "region": [
            {"base": hex(hit.base), "limit": hex(hit.limit), "of": hit.whose.value}
            for hit in context.regions(group)
        ],
        "level": list(group.levels),
        "system": group.system,
        "missing": list(group.missing),
        "source": _system_device_of(group, context),
        "contradictions": list(group.contradictions),
    }


def _system_device_of(group: FoldedFaults, context: Context) -> str | None:
    if group.source is None:
        return None
    return context.system_device(group.source) or context.hint(group) or None


def _message_row(group: MessageGroup) -> dict[str, Any]:
    return {
        "weight": group.weight.value,
        "meaning": group.meaning,
        "look_at": group.look_at,
        "lines": [{"line": each.line, "text": each.text} for each in group.lines],
    }
