"""How Sphinx makes the reference from the docstrings; ``scripts/docs`` runs it."""

from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

project = "vtd"
extensions = ["sphinx.ext.apidoc", "sphinx.ext.autodoc"]
apidoc_modules = [
    {
        "path": str(ROOT / package),
        "destination": f"modules/{package}",
        "separate_modules": True,
        "module_first": True,
        "automodule_options": {"members", "undoc-members"},
    }
    for package in ("vtd", "devices", "pagetables")
]
# Extras that are not installed: modules that need them are documented all the same.
EXTRAS = ("altair", "distributed", "fsspec", "jinja2", "numba", "pyarrow", "textual", "vl_convert")
autodoc_mock_imports = [name for name in EXTRAS if find_spec(name) is None]
# What a package only passes on is described where it is; Sphinx 9.0 takes two such for duplicates.
autodoc_default_options = {"no-value": True, "ignore-module-all": True}
autodoc_member_order = "bysource"

# What a docstring refers to has to be there, as far as it is ours: Python's own names would need
# the network. Type variables and Annotated are no targets.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!vtd|devices|pagetables).*"),
    (r"py:class", r".*\.[A-Z]"),
    (r"py:class", r".*Annotated\[.*"),
]
suppress_warnings = ["ref.python"]  # short names in annotations that several modules have

html_theme = "alabaster"
html_show_copyright = False
