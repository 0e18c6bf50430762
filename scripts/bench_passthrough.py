"""What a large passthrough plan costs: 64 guests with 256 virtual functions, planned and run.

``python -m scripts.bench_passthrough`` prints seconds of CPU and the most memory that was used.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

from vtd.host.attempts import try_everything
from vtd.host.plan import read_plan
from vtd.host.planner import judge
from vtd.host.running import RunningHost
from vtd.host.surroundings import Surroundings
from vtd.host.workload import do_work
from vtd.machine.assembly import assemble

GUESTS, CARDS, REQUESTS = 64, 4, 100_000
MACHINE = """
[[memory]]
start = 0
size = "3 GiB"
[[unit]]
profile = "xeon"
base = 0xfed9_0000
include_all = true
"""
CARD = """
[[bridge]]
name = "port{card}"
at = "00:{slot:02x}.0"
kind = "root_port"
acs = true
[[function]]
name = "nic{card}"
at = "port{card}/00.0"
sriov = {{ total = {guests}, first_offset = 0x80, stride = 1 }}
vfs = {guests}
"""
GUEST = """
[[guest]]
name = "guest{guest}"
memory = [{{ start = 0, size = "16 MiB" }}]
[[assign]]
guest = "guest{guest}"
devices = [{devices}]
"""
WORK = """
[[work]]
device = "{device}"
requests = {requests}
bytes = 1500
random = true
span = "8 MiB"
"""


def large_plan(guests: int = GUESTS, requests: int = REQUESTS) -> str:
    """A plan with its machine: each guest has a virtual function of each of four cards."""
    parts = [MACHINE]
    parts += [CARD.format(card=card, slot=card + 8, guests=guests) for card in range(CARDS)]
    for guest in range(guests):
        names = [f"nic{card}.vf{guest}" for card in range(CARDS)]
        parts.append(GUEST.format(guest=guest, devices=", ".join(f'"{name}"' for name in names)))
        each = -(-requests // (guests * CARDS))
        parts += [WORK.format(device=name, requests=each) for name in names]
    return "".join(parts)


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    measure(GUESTS, REQUESTS)


def measure(guests: int, requests: int) -> None:
    """Print what so many guests and requests cost."""
    begin = time.process_time()
    plan, machine = read_plan(large_plan(guests, requests))
    if machine is None:
        raise RuntimeError("the plan has no machine")
    assembly = assemble(machine)
    around = Surroundings.of(assembly)
    judgement = judge(plan, around)
    planned = time.process_time()
    host = RunningHost(judgement, around, assembly)
    isolated = all(each.isolated for each in try_everything(host))
    done = sum(each.operations - each.refused for each in do_work(host))
    ran = time.process_time()
    unit = 1 << (20 if sys.platform == "darwin" else 10)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit
    print(f"{len(plan.guests)} guests, {len(host.passed)} virtual functions: ", end="")
    print(f"{'works' if judgement.works else 'refused'}, planned in {planned - begin:.1f} s")
    print(f"isolated: {isolated}; {done} requests in {ran - planned:.1f} s, {most} MiB at most")


if __name__ == "__main__":
    main()
