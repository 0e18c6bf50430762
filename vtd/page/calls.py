"""What the *Try it* page calls: texts and bytes in, JSON texts and bytes out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

from vtd.dmar.written_edits import EDITS
from vtd.page.answers import Inputs, Page, sarif


def about() -> str:
    """What the page has to know first: the edits with their forms, whether it can make a report."""
    edits = [[name, form] for name, (form, _) in EDITS.items()]
    return json.dumps({"edits": edits, "report": find_spec("jinja2") is not None})


def answers(inputs: Any) -> str:
    """Every answer about the inputs as JSON."""
    return json.dumps(Page(_inputs(inputs)).row())


def findings_as_sarif(inputs: Any) -> str:
    """The findings in every table as SARIF."""
    return sarif(_inputs(inputs))


def report(inputs: Any) -> str:
    """The report about the inputs as HTML."""
    from vtd.page import reporting  # noqa: PLC0415 - half a second, for those who want it

    return reporting.report(_inputs(inputs))


def edited(inputs: Any, edits: Any) -> bytes:
    """The first table after edits, pairs of name and text; ValueError if one does not apply."""
    texts: dict[str, list[str]] = {}
    for name, text in _python(edits):
        texts.setdefault(name, []).append(text)
    return Page(_inputs(inputs)).edited(texts)


def _inputs(inputs: Any) -> Inputs:
    return [(name, bytes(data)) for name, data in _python(inputs)]


def _python(value: Any) -> Iterable[Any]:
    """A list of Python; JavaScript's comes as a proxy that can be converted."""
    converted: Iterable[Any] = value.to_py() if hasattr(value, "to_py") else value
    return converted
