"""A program in the place of QEMU: it says what a guest would, and connects to nothing.

It is a script that a test writes; the guest's words come from files beside it.
"""

from __future__ import annotations

import sys
from pathlib import Path

SCRIPT = """\
#!{python}
import os, sys, time
from pathlib import Path
here = Path(__file__).parent
arguments = sys.argv[1:]
if "--version" in arguments:
    print((here / "version").read_text())
elif "vfio-user-pci,help" in arguments:
    print((here / "help").read_text())
else:
    if (here / "arguments").exists() and (here / "again").exists():
        (here / "again").rename(here / "said")
        for each in ("chatting", "forever"):
            (here / each).unlink(missing_ok=True)
    (here / "arguments").write_text("\\n".join(arguments))
    ports = [each.removeprefix("file:") for each in arguments if each.startswith("file:")]
    console = next(each for each in ports if each.endswith("console"))
    Path(console).write_text((here / "console").read_text())
    modules = arguments[arguments.index("-initrd") + 1].split(",")  # the last one, under Xen
    (here / "initrd").write_bytes(Path(modules[-1]).read_bytes())
    print((here / "said").read_text(), flush=True)
    while (here / "chatting").exists():
        print("note: busy", flush=True)
        time.sleep(0.1)
    if (here / "forever").exists():
        time.sleep(600)
    if (here / "killed").exists():
        os.kill(os.getpid(), 9)
    if (here / "broken").exists():
        sys.exit("no such device")
"""


class FakeQemu:
    """The program, and what its guest says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "qemu-system-x86_64"
        self.path.write_text(SCRIPT.format(python=sys.executable))
        self.path.chmod(0o755)
        self.says(version="QEMU emulator version 11.1.2 (Debian)", help="vfio-user-pci options:")
        self.says(console="", said="note: kernel\ncheck: units ok\nnote: end\n")

    def says(self, **texts: str) -> FakeQemu:
        """Change some of its words."""
        for name, text in texts.items():
            (self.folder / name).write_text(text)
        return self

    def wait_forever(self) -> None:
        """Have the guest never end."""
        self.behave("forever")

    def behave(self, how: str) -> None:
        """``chatting`` on and on, ``forever`` silent, ``killed`` or ``broken``."""
        (self.folder / how).touch()

    @property
    def arguments(self) -> list[str]:
        """What it was started with."""
        return (self.folder / "arguments").read_text().split("\n")
