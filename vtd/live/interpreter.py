"""The interpreter that runs this, for a guest: itself, its libraries and the modules of a command.

What a command loads is found out by running it here. In the guest, modules of the standard library
and others lie in one folder, libraries in another; the interpreter finds both by its environment.
"""

from __future__ import annotations

import encodings
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

HOME = "python"
"""The folder in the guest."""
LOADED = """
import json, sys
from vtd.cli import main
try:
    main(sys.argv[1:])
finally:
    files = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
    print(json.dumps({name: file for name, file in files.items() if file and name != "__main__"}))
"""
"""Runs a command, and names the modules that are there afterwards, with their files."""
COLLECT = """\
import os, sys
if sys.argv[1] == "user":
    os.setgroups([])
    os.setgid(1000)
    os.setuid(1000)
sys.argv[:2] = ["vtd"]
from vtd.cli import main
main()
"""
RUN = f"""\
#!/bin/busybox sh
# run root|user ARGUMENTS...: a vtd command
export PATH=/{HOME}/bin:/bin LD_LIBRARY_PATH=/{HOME}/lib PYTHONHOME=/{HOME}
exec python3 -B -S /{HOME}/run.py "$@"
"""
PROGRAMS = ("lspci",)
"""Programs that ``vtd collect`` runs, if they are here; the guest's busybox has dmesg."""
_LIBRARY = re.compile(r"^\s*(?:(\S+) => )?(/\S+) \(0x", re.MULTILINE)


class InterpreterError(ValueError):
    """This interpreter can't be given to a guest: the message says why."""


def collector() -> Mapping[str, bytes]:
    """All files of ``vtd collect`` by their path in a guest; all of them are executable.

    InterpreterError if the interpreter or what it needs can't be found out.
    """
    with tempfile.TemporaryDirectory(prefix="vtd-") as folder:
        (Path(folder) / "root").mkdir()
        archive, root = f"{folder}/archive.tar.gz", f"{folder}/root"
        modules = _loaded(["collect", archive, "--redact", "--root", root])
    place = f"{HOME}/lib/python{sys.version_info.major}.{sys.version_info.minor}"
    files = {f"{place}/{path}": file for path, file in _placed(modules)}
    files |= {f"{place}/{path}": file for path, file in _codecs()}
    files[f"{HOME}/bin/python3"] = Path(sys.executable).resolve()
    files |= {
        f"{HOME}/bin/{name}": Path(found) for name in PROGRAMS if (found := shutil.which(name))
    }
    machine_code = [file for path, file in files.items() if not path.endswith(".py")]
    for name, library in _libraries(machine_code):
        files[name] = library
    contents = {path: file.read_bytes() for path, file in files.items()}
    return {**contents, f"{HOME}/run": RUN.encode(), f"{HOME}/run.py": COLLECT.encode()}


def _loaded(command: Sequence[str]) -> dict[str, str]:
    """The modules that a command loads, with their files."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *command], capture_output=True, text=True, check=False
    )
    try:
        modules = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise InterpreterError(f"{sys.executable}: {done.stderr.strip()[-200:]}") from error
    return {str(name): str(file) for name, file in modules.items()}


def _placed(modules: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    """Where the file of each module has to be below the folder of modules."""
    for name, file in modules.items():
        path = Path(file)
        above = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
        if path.is_file():
            yield "/".join([*above, path.name]), path


def _codecs() -> Iterator[tuple[str, Path]]:
    """The codecs that a guest's locale may ask for before any module is loaded."""
    folder = Path(encodings.__path__[0])
    for name in ("ascii", "latin_1", "utf_8", "aliases"):
        yield f"encodings/{name}.py", folder / f"{name}.py"


def _libraries(programs: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """The shared libraries that programs need, and where the guest finds them."""
    try:
        done = subprocess.run(
            ["ldd", *map(str, programs)], capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise InterpreterError(f"ldd: {error.strerror}") from error
    for name, path in _LIBRARY.findall(done.stdout):
        if name:
            yield f"{HOME}/lib/{name}", Path(path)
        else:  # what loads all the others is found by its full path
            yield path.removeprefix("/"), Path(path)
