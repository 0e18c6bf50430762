"""The command as a program: Ctrl-C ends it, wherever it is."""

import subprocess
import sys

import pytest

WHILE_IMPORTING = """
class Interrupted:
    def find_spec(self, name, path, target=None):
        if name == "typer":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupted())
"""
WHILE_COLLECTING_GARBAGE = """
import gc, signal
from vtd import cli

def interrupt(phase, info):
    gc.callbacks.clear()
    signal.raise_signal(signal.SIGINT)

def wait():
    gc.callbacks.append(interrupt)
    gc.collect()
    while True:
        pass

cli.COMMANDS["demo"] = ("__main__:wait", "")
"""


@pytest.mark.parametrize("moment", [WHILE_IMPORTING, WHILE_COLLECTING_GARBAGE])
def test_ctrl_c_ends_it_at_any_moment(moment: str) -> None:
    code = f"import sys{moment}\nfrom vtd.__main__ import main\nsys.argv = ['vtd', 'demo']\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_other_errors_that_python_can_t_raise_are_reported_as_ever() -> None:
    code = """
import sys
from vtd import cli

class Broken:
    def __del__(self):
        raise ValueError("in vain")

cli.COMMANDS["demo"] = ("__main__:Broken", "")
from vtd.__main__ import main
sys.argv = ["vtd", "demo"]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "ValueError: in vain" in done.stderr
