"""The command as a program, which Ctrl-C ends at any moment.

Python raises KeyboardInterrupt wherever the program happens to be: while modules are imported, too,
and in callbacks of the garbage collector, as hypothesis has one, where it is only reported.
"""

from __future__ import annotations

import signal
import sys

from vtd.commands.exit_codes import INTERRUPTED


def main() -> None:
    """Run ``vtd``."""
    sys.unraisablehook = _raise_again
    try:
        from vtd.cli import main as command  # noqa: PLC0415 - takes the most of a short run

        command()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _raise_again(unraisable: sys.UnraisableHookArgs) -> None:
    """Interrupt the program once more after a moment of computing, when it is somewhere else."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        signal.signal(signal.SIGVTALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.01)
    else:
        sys.__unraisablehook__(unraisable)


if __name__ == "__main__":
    main()
