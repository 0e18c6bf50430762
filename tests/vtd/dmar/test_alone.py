"""The DMAR library is usable alone."""

import subprocess
import sys

ALLOWED = (
    *("vtd", "vtd.dmar", "devices", "devices.source_id", "devices.interrupt_messages"),
    *("pagetables", "pagetables.bits", "vtd.layouts", "vtd.layouts.registers"),
    *("vtd.ruling", "vtd.severity"),
)


def test_importing_the_library_loads_no_part_of_the_emulator() -> None:
    program = "import sys, vtd.dmar; print('\\n'.join(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    ours = {name for name in run.stdout.split() if name.split(".")[0] in
            ("vtd", "devices", "pagetables")}  # fmt: skip
    assert {name for name in ours if not name.startswith("vtd.dmar.")} <= set(ALLOWED)
    assert not {name.split(".")[0] for name in run.stdout.split()} & {"typer", "rich", "click"}
