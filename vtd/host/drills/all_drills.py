"""Every drill by name."""

from __future__ import annotations

from vtd.host.drills import invalidations, migration, power, resets, rogues
from vtd.host.drills.drill import Drill

DRILLS: dict[str, Drill] = {
    each.name: each
    for each in (
        *invalidations.DRILLS,
        *resets.DRILLS,
        *migration.DRILLS,
        *power.DRILLS,
        *rogues.DRILLS,
    )
}
