"""Coverage-guided fuzzing with atheris: ``coverage_guided.py dmar|registers [LIBFUZZER OPTIONS]``.

``dmar`` is the table parser with its rules, ``registers`` the register file with the queue,
interrupts and walks.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["vtd", "devices", "pagetables"]):
    from vtd.fuzz.properties import BYTE_PROPERTIES, Tally


def main(arguments: list[str]) -> None:
    """Run libFuzzer on the property that the first argument names, until it or the user stops."""
    program, *options = arguments
    if not options or options[0] not in BYTE_PROPERTIES:
        sys.exit(f"usage: {program} {'|'.join(BYTE_PROPERTIES)} [LIBFUZZER OPTIONS]")
    _, check, _ = BYTE_PROPERTIES[options[0]]
    atheris.Setup([program, *options[1:]], lambda data: check(data, Tally()))
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
