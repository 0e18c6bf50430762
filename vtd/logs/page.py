"""The documentation page of what logs are read: forms of faults, and kinds of messages."""

from __future__ import annotations

from collections.abc import Iterator

from vtd.logs.catalogue import AREAS
from vtd.logs.fault_forms import FORMS
from vtd.logs.message import Message

_HEAD = """\
# What `vtd explain` reads in logs

Generated from the tables in `vtd/logs` by `python -m scripts.pages`. A line that speaks of
DMA or interrupt remapping and is not in these tables is counted as *unknown*.

Versions are the first and last of Linux 2.6.24, 2.6.32, 3.6, 3.17, 4.4, 5.4, 5.10, 6.1, 6.3, 6.12
and 7.2 that are known to have the message; distributions take messages over into older kernels, so
they are not used to tell messages apart. The pattern is a regular expression found in the line.
"""


def messages_page() -> str:
    """The page in Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _HEAD
    yield "## Faults"
    yield ""
    yield "| system | line | form | where it was read |"
    yield "| --- | --- | --- | --- |"
    for form in FORMS:
        cells = form.system, form.role.value, _code(form.pattern.pattern), form.origin
        yield f"| {' | '.join(cells)} |"
    for area, messages in AREAS.items():
        yield ""
        yield f"## {area}"
        yield ""
        yield "| weight | versions | pattern | meaning | what to do |"
        yield "| --- | --- | --- | --- | --- |"
        yield from map(_row, messages)


def _row(message: Message) -> str:
    cells = (
        message.weight.value,
        _versions(message),
        _code(message.pattern),
        message.meaning.replace("|", "\\|"),
        message.look_at.replace("|", "\\|"),
    )
    return f"| {' | '.join(cells)} |"


def _versions(message: Message) -> str:
    system = "" if message.system == "Linux" else message.system
    if not message.since:
        return system
    return f"{message.since} to {message.until}" if message.until else f"since {message.since}"


def _code(pattern: str) -> str:
    """A pattern as code in a table cell; bars there have to be escaped."""
    return f"`{pattern.replace('|', chr(92) + '|')}`"
