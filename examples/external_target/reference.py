"""A target that speaks line-JSON: this package's own engine; ``--buggy`` has an IOTLB that leaks.

Run by ``vtd fuzz --target "command:python examples/external_target/reference.py"``.
"""

import json
import sys

from vtd.recordings.scenario import ScenarioRun
from vtd.unit.caching.policy import KEEPS_STALE, UNCACHED

BUGGY = "--buggy" in sys.argv

for line in sys.stdin:
    case = json.loads(line)
    run = ScenarioRun(case, caches=KEEPS_STALE if BUGGY else UNCACHED)
    if BUGGY:
        run.unit.caches.invalidate_iotlb_domain = lambda domain_id: None  # type: ignore[method-assign]
    print(json.dumps({"outcomes": [run.step(step)[1] for step in case["steps"]]}), flush=True)
