"""Run examples/notebook.ipynb and store what its cells show: ``python -m scripts.notebook``.

A cell shows the value of its last expression, as notebooks do: SVG or HTML if the value knows how.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "examples" / "notebook.ipynb"
FORMS = {"image/svg+xml": "_repr_svg_", "text/html": "_repr_html_"}
"""What a value may show itself as, by the method that does it."""


def outputs(notebook: dict[str, Any], folder: Path) -> list[list[dict[str, Any]]]:
    """The outputs of each code cell, run one after the other in a folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        names: dict[str, Any] = {"__name__": "notebook"}
        return [
            _run("".join(cell["source"]), names, number)
            for number, cell in enumerate(_code(notebook), 1)
        ]
    finally:
        os.chdir(before)


def _code(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def _run(source: str, names: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """What a cell shows, in the format of notebooks (nbformat 4)."""
    tree = ast.parse(source)
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr):
        exec(compile(tree, f"cell {number}", "exec"), names)
        return []
    exec(compile(ast.Module(tree.body[:-1], []), f"cell {number}", "exec"), names)
    value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
    data = {form: getattr(value, name)() for form, name in FORMS.items() if hasattr(value, name)}
    shown = {form: text.splitlines(keepends=True) for form, text in data.items()}
    if not shown:
        shown = {"text/plain": repr(value).splitlines(keepends=True)}
    return [
        {"output_type": "execute_result", "execution_count": number, "data": shown, "metadata": {}}
    ]


def executed(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with the outputs of now."""
    shown = outputs(notebook, ROOT)
    for number, (cell, found) in enumerate(zip(_code(notebook), shown, strict=True), 1):
        cell["outputs"], cell["execution_count"] = found, number
    return notebook


def main() -> None:
    """Run the notebook and write it anew."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    notebook = executed(json.loads(NOTEBOOK.read_text()))
    NOTEBOOK.write_text(json.dumps(notebook, indent=1) + "\n")
    print(f"{NOTEBOOK.name} written")


if __name__ == "__main__":
    main()
