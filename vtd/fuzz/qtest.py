"""A client of QEMU's qtest protocol: memory, ports and PCI functions of a machine without a guest.

One line per command and answer over standard input and output, with what QEMU traces or complains
of in between. Only what driving a remapping unit and its devices takes.
"""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from collections import deque

CONFIG_ADDRESS, CONFIG_DATA = 0xCF8, 0xCFC
LINES_KEPT = 100


class QtestError(Exception):
    """QEMU can't be started, died, or refused a command."""


def qemu_version(prefix: str = "") -> str:
    """The first line of ``qemu-system-x86_64 --version``."""
    command = [*shlex.split(prefix), "qemu-system-x86_64", "--version"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise QtestError(f"{command[0]}: {error.strerror or error}") from error
    return done.stdout.partition("\n")[0]


class Qtest:
    """A running QEMU with ``-qtest stdio``.

    ``prefix``: words to put before ``qemu-system-x86_64``, such as a ``chroot`` command.
    """

    def __init__(self, arguments: list[str], prefix: str = "") -> None:
        command = [*shlex.split(prefix), "qemu-system-x86_64", *arguments]
        command += ["-accel", "qtest", "-qtest", "stdio", "-qtest-log", "none", "-display", "none"]
        self.said: deque[str] = deque(maxlen=LINES_KEPT)
        """The last lines of output that answer nothing."""
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        except OSError as error:
            raise QtestError(f"{command[0]}: {error.strerror or error}") from error

    def close(self) -> None:
        """End QEMU."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process.wait()

    def command(self, *words: object) -> str:
        """Send a command; what follows OK in the answer."""
        return self.commands([" ".join(map(str, words))])[0]

    def commands(self, lines: list[str]) -> list[str]:
        """Send several commands at once, which takes one wait instead of many."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write("".join(line + "\n" for line in lines))
            self._process.stdin.flush()
        except OSError as error:
            self.said.extend(line.strip() for line in self._process.stdout)
            raise QtestError(f"QEMU has ended: {self._last_words()}") from error
        return [self._answer(line) for line in lines]

    def _answer(self, command: str) -> str:
        assert self._process.stdout is not None
        while True:
            line = self._process.stdout.readline()
            if not line:
                raise QtestError(f"QEMU has ended: {self._last_words()}")
            kind, _, rest = line.strip().partition(" ")
            if kind == "OK":
                return rest
            if kind in ("FAIL", "ERR"):
                raise QtestError(f"{command}: {line.strip()}")
            self.said.append(line.strip())

    def _last_words(self) -> str:
        return "\n".join(self.said) or "without a message"

    def config_write(self, bus: int, devfn: int, offset: int, value: int) -> None:
        """Write 32 bits of configuration space."""
        self.command("outl", hex(CONFIG_ADDRESS), hex(1 << 31 | bus << 16 | devfn << 8 | offset))
        self.command("outl", hex(CONFIG_DATA), hex(value))

    def enable_bar(self, devfn: int, base: int) -> None:
        """Place BAR 0 of a function on bus 0 and let it decode and master."""
        self.config_write(0, devfn, 0x10, base)
        self.config_write(0, devfn, 0x04, 0x6)
