"""A browser for tests, pages served to it, and what has to be there for that.

Debian's chromium through the ``playwright`` package; Pyodide and axe-core
are in ``build/node``, where ``scripts/site`` puts them. Nothing is installed here.
"""

from __future__ import annotations

import functools
import http.server
import importlib.util
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
NODE = ROOT / "build" / "node" / "node_modules"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 100_000
"""Milliseconds after which a page that does nothing ends a test; a busy machine is no fault."""
SERIOUS = {"serious", "critical"}


def missing() -> list[str]:
    """What is not there, and how to get it."""
    lacking = []
    if importlib.util.find_spec("playwright") is None:
        lacking.append("the package playwright: scripts/setup --extras")
    if CHROMIUM is None:
        lacking.append("a browser: apt install chromium")
    if not (NODE / "axe-core").is_dir():
        lacking.append("axe-core and pyodide in build/node: scripts/site --quick")
    return lacking


@contextmanager
def browser() -> Iterator[Any]:
    """A chromium of its own, with an empty profile."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - one of the extras

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield chromium
        finally:
            chromium.close()


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """The requests are counted by those who care."""

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Served)
        server.requested.append(self.path)
        if not server.down:
            super().do_GET()


class Served(http.server.ThreadingHTTPServer):
    """A folder behind an origin of its own, and the paths that were asked for."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        self.requested: list[str] = []
        self.down = False
        """Whether it hangs up on whoever asks."""
        super().__init__(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder)))

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def served(folder: Path) -> Iterator[Served]:
    """Serve a folder until the end of the block."""
    server = Served(folder)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Watched:
    """A page, what it said on the console, and where it sent requests."""

    def __init__(self, context: Any) -> None:
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.said: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        context.on("request", lambda request: self.requests.append(request.url))

    def _heard(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.said.append(message.text)

    def faults_of_access(self, *rules: str) -> list[str]:
        """What axe-core finds on the page that is serious; all of its rules, if none is named."""
        self.page.evaluate((NODE / "axe-core" / "axe.min.js").read_text())
        options = {"resultTypes": ["violations"], **({"runOnly": list(rules)} if rules else {})}
        found = self.page.evaluate("(options) => axe.run(options)", options)["violations"]
        return [
            f"{each['id']}: {node['html']}"
            for each in found
            if each["impact"] in SERIOUS
            for node in each["nodes"]
        ]

    def too_wide(self) -> list[str]:
        """Elements that reach beyond the right edge of the page, outside of what scrolls."""
        script = """() => [...document.body.querySelectorAll('*')].filter((each) =>
            each.getBoundingClientRect().right > document.documentElement.clientWidth + 1
            && !each.closest('.scrolled, pre, .unseen, .skip, textarea, [data-scrolls]')
        ).map((each) => each.outerHTML.slice(0, 120))"""
        found: list[str] = self.page.evaluate(script)
        return found


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Names and values of everything in a document that is no object, lists of numbers whole."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for each in value:
            yield from leaves(each, name)
    else:
        yield name, json.dumps(value, separators=(",", ":"), ensure_ascii=False)


if __name__ == "__main__":
    sys.exit("\n".join(f"scripts/test --browser needs {each}" for each in missing()) or 0)
