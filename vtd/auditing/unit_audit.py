"""All that is judged of one unit: its software's invalidations, stores, responses; its devices."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from vtd.auditing.audit import Audit
from vtd.auditing.debt import Debt
from vtd.auditing.device_tlb_audit import DeviceTlbAudit, DeviceTlbFinding, Misuse
from vtd.auditing.own_stores import OwnStores
from vtd.auditing.writers import calls
from vtd.severity import WARNING
from vtd.unit.unit import RemappingUnit

AuditFinding = Debt | DeviceTlbFinding


class UnitAudit:
    """Watches ``unit`` from now on; ``writer`` names who stores a word, by default by the calls.

    Audits of units that share their memory share ``own_stores``.
    """

    def __init__(
        self,
        unit: RemappingUnit,
        writer: Callable[[], object] = calls,
        own_stores: OwnStores | None = None,
    ) -> None:
        self.debts = Audit(unit, writer, own_stores)
        self.devices = DeviceTlbAudit(unit)

    def detach(self) -> None:
        """Watch no more; the findings stay."""
        for audit in (self.debts, self.devices):
            audit.detach()

    def at(self, line: int) -> None:
        """What happens next is at this line of a log."""
        self.debts.line = self.devices.line = line

    def judged(self) -> list[tuple[int, AuditFinding]]:
        """Everything that was found, what is legal too, by line.

        What was never told to a device is a debt already.
        """
        devices = self.devices.judged()
        return sorted(
            [
                *self.debts.judged(),
                *(each for each in devices if each[1].misuse is not Misuse.OUTDATED),
            ],
            key=lambda each: each[0],
        )

    @property
    def findings(self) -> list[AuditFinding]:
        """What is to be held against software or devices if all ended now."""
        return [each for _, each in self.judged() if each.severity >= WARNING]


def audits_of(
    units: Iterable[RemappingUnit], writer: Callable[[], object] = calls
) -> list[UnitAudit]:
    """Audits of units that share their memory."""
    own_stores = OwnStores()
    return [UnitAudit(unit, writer, own_stores) for unit in units]
