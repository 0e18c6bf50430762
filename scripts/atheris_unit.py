"""Coverage-guided fuzzing of registers, queue, interrupts and walks, with atheris."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["vtd", "devices", "pagetables"]):
    from vtd.fuzz.properties import BYTE_PROPERTIES

CHECK = BYTE_PROPERTIES["registers"][1]


def main() -> None:
    atheris.Setup(sys.argv, CHECK)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
