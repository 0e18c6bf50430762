"""Builds wheel and sdist into dist/, checks what is in them, and tries the wheel in use.

Both hold what git does and nothing else; the sdist builds the same wheel. The wheel is installed
alone and with each extra, in environments of their own, from packages of requirements-extras.lock
only. There, commands whose extra is there work, and the others say what they need. Exit code 1 if
anything is not so, 2 if it cannot be found out.
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("vtd", "devices", "pagetables")
NAME = "vtd-emulator"
LOCK = "requirements-extras.lock"
EXTRAS = {
    "cores": {"cores"},
    "fast": {"fast"},
    "fuzz": {"fuzz"},
    "cluster": {"fuzz", "cluster"},
    "batch": {"batch", "fast"},
    "plots": {"plots"},
    "report": {"report"},
    "tui": {"tui"},
}
"""Which extras each extra brings; ``all`` brings every one."""

CORE = struct.pack(
    "<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 4, 62, 1, 0, 64, 0, 0, 64, 56, 1, 64, 0, 0
)
CORE += struct.pack("<IIQQQQQQ", 1, 4, 120, 0, 0, 4096, 4096, 1) + bytes(4096)
"""An ELF core of one page of zeros at address 0, where a root table without entries may be."""

CLUSTER = """
import subprocess, sys
from distributed import LocalCluster
with LocalCluster(processes=False, protocol="tcp://", dashboard_address=None) as cluster:
    sys.exit(subprocess.run([*sys.argv[1:], cluster.scheduler_address]).returncode)
"""
"""A cluster of one worker, and a command that is given its address."""


MACHINE = """
[[unit]]
profile = "qemu"
base = 0xfed90000
include_all = true
"""
"""A machine of one unit."""

WINDOW = """
import asyncio, sys
from pathlib import Path
from vtd.commands.explore import places_of
from vtd.commands.images import ImageOptions
from vtd.exploring.window import Explorer
async def look():
    app = Explorer("machine", *places_of(Path(sys.argv[-1]), ImageOptions()))
    async with app.run_test() as pilot:
        await pilot.press("down", "down")
        print(*(each.label for each in app.tree.root.children))
asyncio.run(look())
"""
"""A window without a terminal, on the machine that the last argument names."""


WORKLOAD = 'rows = 9\n[[stream]]\nkind = "nic"\n'
TRACE = '{"time": 0, "address": 4096, "length": 64}\n'
NUMBERS = [
    "sets",
    "ways",
    "entries",
    "index",
    "requesters",
    "requests",
    "lookups",
    "misses",
    "miss_ratio",
    "reads",
    "reads_per_request",
    "packets",
    "latency",
    "bytes",
    "duration",
    "removed",
    "reads_per_packet",
    "gigabits",
]
TEXTS = ["trace", "policy", "page_size", "tables", "structures", "invalidation"]
HISTORY = {name: [1] for name in ("time", "requests", "packets", "reads")}
RESULTS = json.dumps(
    {"results": [dict.fromkeys(NUMBERS, 1) | dict.fromkeys(TEXTS, "") | {"history": HISTORY}]}
)
"""Results of a sweep of one design, enough to draw."""
INPUTS = {"workload.toml": WORKLOAD, "trace.jsonl": TRACE, "results.json": RESULTS}


class Trial(NamedTuple):
    """A command, the extra that it needs, and a text that it prints with it."""

    extra: str | None
    arguments: tuple[str, ...]
    said: str


WALK = ("walk", "core", "0", "--device", "0:0.0", "--root-table", "0", "--profile", "qemu")
FUZZ = ("fuzz", "--property", "dmar", "--count", "1", "--jobs", "1")
TRIALS = (
    Trial(None, ("--version",), "vtd 0."),
    Trial(None, ("demo",), "IOTLB"),
    Trial(None, ("dmar", "rules"), "H01"),
    Trial("cores", WALK, "root entry not present"),
    Trial("fuzz", FUZZ, "cases in"),
    Trial("cluster", (*FUZZ, "--dask"), "cases in"),
    Trial("batch", ("trace", "generate", "workload.toml", "-o", "made.parquet"), "9 rows"),
    Trial("batch", ("sweep", "trace.jsonl", "--iotlb", "ways=1..2", "--jobs", "1"), "miss ratio"),
    Trial("plots", ("plot", "results.json", "-o", "drawn.svg"), "drawn.svg: 1 design"),
    Trial("tui", ("explore", "machine.toml"), "unit at 0xfed90000"),
)


class ReleaseError(Exception):
    """What stands in the way of a release, in one line."""


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """The output of a command; ReleaseError with the last line that it said if it fails."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).strip().splitlines() or ["nothing said"]
        raise ReleaseError(f"{' '.join(map(str, command[:4]))}: {lines[-1]}")
    return done.stdout


def tracked() -> set[str]:
    """The files that git has, or would have if they were added, that exist."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    return {name for name in listed.split("\0") if name and (ROOT / name).exists()}


def build(kind: str, folder: Path, source: Path = ROOT) -> Path:
    """Build the ``wheel`` or the ``sdist`` of a source tree into an empty folder."""
    run(sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", folder, cwd=source)
    (built,) = folder.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


def differences(found: set[str], wanted: set[str]) -> Iterator[str]:
    """What is there and should not be, and the other way round."""
    yield from (f"{name} should not be there" for name in sorted(found - wanted))
    yield from (f"{name} is missing" for name in sorted(wanted - found))


def wheel_faults(wheel: Path, files: set[str]) -> Iterator[str]:
    """What is wrong with a wheel of these files."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = next(name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(info).decode())
    folder = info.removesuffix("METADATA")
    wanted = {name for name in files if name.startswith(tuple(f"{each}/" for each in PACKAGES))}
    wanted |= {f"{each}/py.typed" for each in PACKAGES}
    about = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
    yield from differences(names, wanted | {folder + name for name in about})
    for field, value in (("Name", NAME), ("License-Expression", "MIT")):
        if metadata[field] != value:
            yield f"{field} is {metadata[field]}, not {value}"
    extras = set(metadata.get_all("Provides-Extra", []))
    yield from (f"extra {each}" for each in differences(extras, {*EXTRAS, "all"}))


def sdist_faults(sdist: Path, files: set[str], wheel: Path) -> Iterator[str]:
    """What is wrong with an sdist of these files, and with the wheel that it builds."""
    with tempfile.TemporaryDirectory() as scratch, tarfile.open(sdist) as archive:
        names = {each.name.partition("/")[2] for each in archive if each.isfile()}
        yield from differences(names, files | {"PKG-INFO"})
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # as of Python 3.11.4
        archive.extractall(scratch)
        (source,) = Path(scratch).iterdir()
        again = build("wheel", Path(scratch, "wheel"), source)
        yield from (
            f"{each} in the wheel that it builds"
            for each in differences(content(again), content(wheel))
        )


def content(wheel: Path) -> set[str]:
    """Names and checksums of the files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {f"{each.filename} ({each.CRC:08x})" for each in archive.infolist()}


def environment(folder: Path) -> Path:
    """Make an environment; its interpreter."""
    run(sys.executable, "-m", "venv", folder)
    return folder / "bin/python"


def pip(python: Path, *arguments: str | Path) -> None:
    """Run pip in an environment."""
    run(python, "-m", "pip", "--disable-pip-version-check", *arguments)


def trial_faults(python: Path, extras: set[str], folder: Path) -> Iterator[str]:
    """What does not go as it should in an environment with these extras."""
    for trial in TRIALS:
        command: tuple[str | Path, ...] = (python.with_name("vtd"), *trial.arguments)
        code, said = 0, trial.said
        if trial.extra is not None and trial.extra not in extras:
            first = "fuzz" if trial.extra == "cluster" and "fuzz" not in extras else None
            needed = first or trial.extra
            code, said = 2, f"pip install '.[{needed}]'"
            command += ("tcp://localhost:9",) if trial.extra == "cluster" else ()
        elif trial.extra == "cluster":
            command = (python, "-c", CLUSTER, *command)
        elif trial.extra == "tui":
            command = (python, "-c", WINDOW, *command)
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        output = done.stdout + done.stderr
        if done.returncode != code or said not in output:
            last = output.strip().splitlines()[-1:]
            yield f"vtd {' '.join(trial.arguments)}: exit code {done.returncode}, {last}"


def faults(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Build into a folder; what was looked at, and what is wrong with it."""
    files = tracked()
    shutil.rmtree(folder, ignore_errors=True)
    wheel, sdist = build("wheel", folder), build("sdist", folder)
    yield wheel.name, list(wheel_faults(wheel, files))
    yield sdist.name, list(sdist_faults(sdist, files, wheel))
    with tempfile.TemporaryDirectory() as scratch:
        packages = Path(scratch, "packages")
        lock = ("--require-hashes", "--no-deps", "--only-binary=:all:", "-r", LOCK)
        pip(environment(Path(scratch, "pip")), "download", *lock, "-d", packages)
        for name, text in INPUTS.items():
            Path(scratch, name).write_text(text)
        Path(scratch, "core").write_bytes(CORE)
        Path(scratch, "machine.toml").write_text(MACHINE)
        everything = set().union(*EXTRAS.values())
        for extra, brings in {"": set[str](), **EXTRAS, "all": everything}.items():
            name = f"{wheel.name}[{extra}]" if extra else wheel.name
            python = environment(Path(scratch, f"with-{extra}"))
            pip(python, "install", "--no-index", "--find-links", packages, folder / name)
            pip(python, "check")
            yield name, list(trial_faults(python, brings, Path(scratch)))


def main() -> int:
    """Print what was looked at, and what is wrong with it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.parse_args()
    bad = 0
    try:
        if run("git", "status", "--porcelain"):
            raise ReleaseError("what is not committed would be released: commit it, or put it away")
        for name, found in faults(ROOT / "dist"):
            print(f"{name}: {'; '.join(found) or 'as it should be'}", flush=True)
            bad += len(found)
    except (ReleaseError, OSError) as error:
        print(f"scripts/release: {error}", file=sys.stderr)
        return 2
    return int(bad > 0)


if __name__ == "__main__":
    raise SystemExit(main())
