"""Builds the payload of vtd conformance anew: format.h from declarations, the rest by gcc.

The same compiler makes the same bytes: no build id, no paths, no dates. ``--check`` compares.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

from vtd.conformance.format import c_header

FOLDER = Path(__file__).parents[1] / "vtd" / "conformance" / "payload"
PROGRAMS = {
    "kit": (
        *("start.S", "main.c", "platform.c", "unit.c", "probe.c"),
        *("device.c", "descriptors.c", "edu.c", "nvme.c", "nic.c", "ioat.c"),
    ),
    "uefi": ("uefi.S", "uefi.c"),
    "pvh": ("pvh.S",),
}
"""Names of the programs, and their sources."""
OPTIONS = (
    *("-m64", "-Os", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-fPIE"),
    *("-fno-jump-tables", "-mno-red-zone", "-mgeneral-regs-only", "-fno-stack-protector"),
    *("-fno-asynchronous-unwind-tables", "-fcf-protection=none", "-fno-ident", "-nostdlib"),
    *("-fvisibility=hidden", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,-z,noexecstack"),
    "-Wl,--no-warn-rwx-segments",
)


def compiler() -> str:
    """The version of the compiler, as it says; OSError without one."""
    done = subprocess.run(["gcc", "--version"], capture_output=True, text=True, check=True)
    return done.stdout.partition("\n")[0]


def compiled(name: str, folder: Path = FOLDER) -> bytes:
    """A program from its sources: the bytes as they are loaded."""
    with tempfile.TemporaryDirectory() as work:
        linked, flat = Path(work) / "kit.elf", Path(work) / "kit.bin"
        words = [*OPTIONS, f"-Wl,-T{name}.ld", "-o", str(linked), *PROGRAMS[name]]
        subprocess.run(["gcc", *words], cwd=folder, check=True)
        subprocess.run(["objcopy", "-O", "binary", str(linked), str(flat)], check=True)
        return flat.read_bytes()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="say what differs, and change nothing")
    check = parser.parse_args().check
    header = c_header()
    if not check:
        (FOLDER / "format.h").write_text(header)
        (FOLDER / "kit.txt").write_text(f"{compiler()}\n")
    elif (FOLDER / "format.h").read_text() != header:
        print("format.h is not what vtd/conformance/format.py declares")
        return 1
    for name in PROGRAMS:
        program, built = compiled(name), FOLDER / f"{name}.bin"
        if not check:
            built.write_bytes(program)
        elif built.read_bytes() != program:
            print(f"{built.name} is not what {compiler()} makes of the sources")
            return 1
        print(f"{built.name}: {len(program)} bytes, {compiler()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
