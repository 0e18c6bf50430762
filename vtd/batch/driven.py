"""Maps, unmaps and invalidations in an array, carried out by the driver of the unit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vtd.batch.columns import NO_PASID, RowKind
from vtd.software.driver import Driver


def by_driver(driver: Driver) -> Callable[[Any], None]:
    """Who carries out the rows of software of an array, for :func:`vtd.batch.engine.run`.

    A map invalidates what it has to. What unmaps leave in caches goes with the next invalidation of
    their domain, all at once whatever its range is, as with a driver that collects them.
    DomainError for a source-id and PASID that are not attached, BuildError as of the tables.
    """

    def act(row: Any) -> None:
        source_id, pasid = int(row["source_id"]) & 0xFFFF, int(row["pasid"])
        domain = driver.attachments.domain_of(source_id, None if pasid == NO_PASID else pasid)
        address, length = int(row["address"]), int(row["length"])
        match int(row["kind"]):
            case RowKind.MAP:
                domain.map(address, int(row["target"]), length, int(row["access"]))
            case RowKind.UNMAP:
                domain.unmap(address, length, deferred=True)
            case _:
                domain.flush()

    return act
