"""Elements of SVG and HTML whose text is escaped, whoever it came from."""

from __future__ import annotations

from html import escape


class Markup(str):
    """Text that is markup already; all other text is escaped where it becomes part of it."""

    __slots__ = ()

    def __html__(self) -> str:
        """For templates that escape by themselves."""
        return self


def visible(text: object) -> str:
    """Text with what can't be seen, or turns the writing direction, as escapes; lines stay."""
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode()
        for each in shown
    )


def element(name: str, *content: object, **attributes: object) -> Markup:
    """An element; attributes that are None are left out, ``_`` in their names is ``-``.

    ``class_`` is ``class``.
    """
    given = "".join(
        f' {each.rstrip("_").replace("_", "-")}="{_escaped(value)}"'
        for each, value in attributes.items()
        if value is not None
    )
    inner = "".join(map(_escaped, content))
    return Markup(f"<{name}{given}>{inner}</{name}>" if inner else f"<{name}{given}/>")


def html_table(caption: str, headings: list[str], rows: list[list[object]]) -> Markup:
    """An HTML table with a caption and a heading for each column."""
    head = element("tr", *(element("th", each, scope="col") for each in headings))
    body = [element("tr", *(element("td", each, "") for each in row)) for row in rows]
    return element(
        "table",
        element("caption", caption),
        element("thead", head),
        element("tbody", *body),
    )


def _escaped(part: object) -> str:
    if isinstance(part, Markup):
        return part
    if isinstance(part, float):
        return f"{part:.6g}"
    return escape(visible(part))
