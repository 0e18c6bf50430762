"""Performance monitoring: counters of events, filters, freezing, overflow (VT-d 10, 11.4.13).

A counter follows the running total of each event it selects. :meth:`PerformanceMonitoring.update`
brings the registers up to date; the unit calls it after everything that may count while a counter
is enabled, and nothing here costs anything otherwise. Enabling a counter for occupancy or
back-pressure fails like one for an unknown event (10.5).

Besides the filters of Table 49 this unit counts lookups and hits by requester, PASID and domain, as
far as PERFCAP_REG says that it has these filters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from vtd.layouts import registers as r
from vtd.unit.monitoring.activity import (
    APPLICABLE_FILTERS,
    EVENT_BITS,
    EVENTS,
    FILTERS,
    Activity,
    Occurrence,
    PerformanceEvent,
    Totals,
)
from vtd.unit.registers.register_file import RegisterFile, RegisterWrite
from vtd.unit.registers.register_map import EVENT_CAPABILITIES
from vtd.unit.reporting.event_interrupt import EventInterrupt
from vtd.unit.state import Stateful

_BITS_PER_STATUS = 64


class Abilities(NamedTuple):
    """What one counter can do."""

    width: int
    """Bits of the counter."""
    interrupts: bool
    freezes: bool
    events: Mapping[int, int]
    """Events supported, as a bit mask, by event group."""


class PerformanceMonitoring(Stateful):
    """The counters of one unit.

    ``switched`` is called when the first counter is enabled and when the last is disabled.
    """

    STATE = "activity", "_counted"

    def __init__(
        self,
        registers: RegisterFile,
        event: EventInterrupt,
        activity: Activity,
        totals: Totals,
        switched: Callable[[], None],
    ) -> None:
        self._registers = registers
        self._event = event
        self.activity = activity
        activity.on_settled = self.update
        self._totals = totals
        self._switched = switched
        self._counted: dict[int, int] = {}
        """Enabled counters, with the total that their value stands for."""
        registers.on_write(r.PerformanceMonitoringCounterConfiguration, self._locked_written)
        for register in FILTERS:
            registers.on_write(register, self._locked_written_for(register))
        registers.on_write(r.PerformanceMonitoringCounter, self._counter_written)
        registers.on_write(r.PerformanceMonitoringInterruptStatus, self._status_written)

    @property
    def active(self) -> bool:
        """Whether any counter is enabled."""
        return bool(self._counted)

    @property
    def counters(self) -> int:
        """How many counters there are."""
        return self._registers[r.PerformanceMonitoringCapability].ncntr

    def abilities(self, number: int) -> Abilities:
        """What a counter can do: its own capabilities, or those of all."""
        registers = self._registers
        general = registers[r.PerformanceMonitoringCapability]
        own = registers[r.PerformanceMonitoringCounterCapability, number]
        if own.pcc:
            first = number * EVENT_CAPABILITIES
            groups = [
                registers[r.PerformanceMonitoringCounterEventCapability, first + index]
                for index in range(own.egcnt)
            ]
            return Abilities(own.cw, own.ios, own.gfs, {each.egi: each.es for each in groups})
        events = {
            group: registers[r.PerformanceMonitoringEventCapability, group].es
            for group in range(general.egcnt)
        }
        return Abilities(general.cw, general.ios, general.gfs, events)

    def enable(self, number: int) -> bool:
        """Enable Perfmon Counter; False if the checks of 10.5 find a mistake.

        A counter that there is not has selected no event, which is one.
        """
        if not self._configuration_valid(number):
            return False
        self._set_enabled(number, enabled=True)
        first = not self._counted
        self._counted[number] = self._total(number)
        if first:
            self._switched()
        return True

    def disable(self, number: int) -> bool:
        """Disable Perfmon Counter; False if there is no such counter."""
        if number >= self.counters:
            return False
        self._set_enabled(number, enabled=False)
        self._set_frozen(range(number, number + 1), frozen=False)
        if self._counted.pop(number, None) is not None and not self._counted:
            self._switched()
        return True

    def reset_configuration(self) -> None:
        """Reset All Perfmon Counter Configuration (10.2)."""
        registers = self._registers
        settings: tuple[type[r.Register], ...] = (
            r.PerformanceMonitoringCounterConfiguration,
            *FILTERS,
        )
        for number in range(self.counters):
            self.disable(number)
            for register in settings:
                registers[register, number] = register()
        for index in range(-(-self.counters // _BITS_PER_STATUS)):
            registers[r.PerformanceMonitoringOverflowStatus, index] = (
                r.PerformanceMonitoringOverflowStatus()
            )

    def reset_values(self) -> None:
        """Reset All Perfmon Counter Values."""
        for number in range(self.counters):
            self._registers[r.PerformanceMonitoringCounter, number] = (
                r.PerformanceMonitoringCounter()
            )

    def freeze(self) -> None:
        """Freeze All Perfmon Counters, or what Global Freeze on Overflow does (10.3.2)."""
        self._set_frozen(range(self.counters), frozen=True)

    def unfreeze(self) -> None:
        """Unfreeze All Perfmon Counters."""
        self._set_frozen(range(self.counters), frozen=False)

    def update(self) -> None:
        """Bring enabled counters up to date: what happened since, or nothing while frozen."""
        overflowed = []
        for number, before in self._counted.items():
            total = self._counted[number] = self._total(number)
            if total != before and not self._frozen(number) and self._add(number, total - before):
                overflowed.append(
                    self._registers[r.PerformanceMonitoringCounterConfiguration, number]
                )
        if any(configuration.gfo for configuration in overflowed):
            self.freeze()
        if any(configuration.io for configuration in overflowed):
            self._registers[r.PerformanceMonitoringInterruptStatus] = (
                r.PerformanceMonitoringInterruptStatus.of(pis=True)
            )
            self._event.trigger()

    def _configuration_valid(self, number: int) -> bool:
        configuration = self._registers[r.PerformanceMonitoringCounterConfiguration, number]
        abilities = self.abilities(number)
        events = self._events(number)
        known = [event for event in events if event is not None]
        supported = abilities.events.get(configuration.egi, 0)
        filters = [each for each in FILTERS if self._filter_enabled(each, number)]
        applicable = APPLICABLE_FILTERS.get(known[0], ()) if len(known) == 1 else ()
        return bool(
            events
            and len(known) == len(events)
            and not configuration.es & ~supported
            and set(filters) <= set(applicable)
            and (abilities.interrupts or not configuration.io)
            and (abilities.freezes or not configuration.gfo)
        )

    def _events(self, number: int) -> list[PerformanceEvent | None]:
        """The events a counter selects; None stands for one that is not counted here."""
        configuration = self._registers[r.PerformanceMonitoringCounterConfiguration, number]
        return [
            EVENTS.get((configuration.egi, bit))
            for bit in range(EVENT_BITS)
            if configuration.es >> bit & 1
        ]

    def _filter_enabled(self, register: type[r.Register], number: int) -> bool:
        settings: Any = self._registers[register, number]
        return bool(settings.en)

    def _total(self, number: int) -> int:
        """How often the selected events have happened so far."""
        events = [event for event in self._events(number) if event is not None]
        filters = [
            self._registers[each, number] for each in FILTERS if self._filter_enabled(each, number)
        ]
        if filters:
            return sum(
                count
                for occurrence, count in self.activity.occurrences.items()
                if occurrence.event in events and all(_passes(each, occurrence) for each in filters)
            )
        return sum(self._totals[event]() for event in events)

    def _add(self, number: int, count: int) -> bool:
        """Count; True if the counter rolled over, which its overflow status keeps (10.3.1)."""
        registers = self._registers
        width = self.abilities(number).width
        value = registers[r.PerformanceMonitoringCounter, number].cntr + count
        registers[r.PerformanceMonitoringCounter, number] = r.PerformanceMonitoringCounter.of(
            cntr=value & (1 << width) - 1
        )
        if not value >> width:
            return False
        index, bit = divmod(number, _BITS_PER_STATUS)
        status = registers[r.PerformanceMonitoringOverflowStatus, index]
        registers[r.PerformanceMonitoringOverflowStatus, index] = status.replace(
            os=status.os | 1 << bit
        )
        return True

    def _frozen(self, number: int) -> bool:
        index, bit = divmod(number, _BITS_PER_STATUS)
        return bool(self._registers[r.PerformanceMonitoringFreezeStatus, index].fs >> bit & 1)

    def _set_frozen(self, numbers: range, *, frozen: bool) -> None:
        for number in numbers:
            index, bit = divmod(number, _BITS_PER_STATUS)
            status = self._registers[r.PerformanceMonitoringFreezeStatus, index]
            others = status.fs & ~(1 << bit)
            self._registers[r.PerformanceMonitoringFreezeStatus, index] = status.replace(
                fs=others | frozen << bit
            )

    def _set_enabled(self, number: int, *, enabled: bool) -> None:
        place = r.PerformanceMonitoringCounterConfiguration, number
        self._registers[place] = self._registers[place].replace(en=enabled)

    def _enabled(self, number: int) -> bool:
        return self._registers[r.PerformanceMonitoringCounterConfiguration, number].en

    def _locked_written(
        self, write: RegisterWrite[r.PerformanceMonitoringCounterConfiguration]
    ) -> None:
        if write.old.en:
            self._registers[type(write.old), write.number] = write.old  # Table 51

    def _locked_written_for(
        self, register: type[r.Register]
    ) -> Callable[[RegisterWrite[Any]], None]:
        def written(write: RegisterWrite[Any]) -> None:
            if self._enabled(write.number):
                self._registers[register, write.number] = write.old  # Table 51

        return written

    def _counter_written(self, write: RegisterWrite[r.PerformanceMonitoringCounter]) -> None:
        writable = self._registers[r.PerformanceMonitoringCapability].cwe
        kept = write.old if self._enabled(write.number) and not writable else write.new
        value = kept & (1 << self.abilities(write.number).width) - 1
        self._registers[r.PerformanceMonitoringCounter, write.number] = (
            r.PerformanceMonitoringCounter(value)
        )

    def _status_written(self, _: RegisterWrite[Any]) -> None:
        if not self._registers[r.PerformanceMonitoringInterruptStatus].pis:
            self._event.withdraw()


def _passes(condition: Any, occurrence: Occurrence) -> bool:
    """Whether an enabled filter lets an event through (11.4.13.16 to 11.4.13.20)."""
    _, requester, pasid, address_type, domain, level = occurrence
    passes: int
    match condition:
        case r.PerformanceMonitoringRequesterIdFilter():
            passes = requester == condition.rid
        case r.PerformanceMonitoringDomainIdFilter():
            passes = domain == condition.did
        case r.PerformanceMonitoringPasidFilter(pfm=r.PasidFilterMode.MATCH):
            passes = pasid == condition.pasid
        case r.PerformanceMonitoringPasidFilter(pfm=r.PasidFilterMode.ANY_PASID):
            passes = pasid is not None
        case r.PerformanceMonitoringPasidFilter():
            passes = pasid is None and condition.pfm is r.PasidFilterMode.WITHOUT_PASID
        case r.PerformanceMonitoringAddressTypeFilter():
            passes = condition.at >> address_type & 1
        case _:
            passes = level is not None and condition.ptl >> level & 1
    return bool(passes)


def capability_registers(counters: int = 4, width: int = 48) -> dict[int, int]:
    """Constants for a unit with this many counters, for all that is counted here.

    The counters sit above the first 4 KiB; CAP.FRO and ECAP.IRO have to leave 300h to 44Fh and
    600h up to 600h + 100h for each counter + 20h alone. At most 9 counters.
    """
    if not 1 <= counters <= 9:
        raise ValueError(f"counters: {counters} is not in 1..9")
    groups = max(event.value[0] for event in PerformanceEvent) + 1
    supported = [0] * groups
    for group, bit in EVENTS:
        supported[group] |= 1 << bit
    capability = r.PerformanceMonitoringCapability.of(
        rsvd_63_60=0xF,
        ios=True,
        gfs=True,
        cwe=True,
        ptlfs=True,
        atfs=True,
        pasidfs=True,
        didfs=True,
        ridfs=True,
        egcnt=groups,
        cw=width,
        ncntr=counters,
    )
    commands = r.EnhancedCommandCapability.of(
        ufcnts=True, fcnts=True, rcnts=True, rcfgs=True, dcnts=True, ecnts=True
    )
    blocks = 0x600
    frozen = blocks + counters * 0x100
    return {
        0x300: int(capability),
        0x310: frozen << 32 | blocks,
        0x318: 0x1000 << 32 | frozen + 0x10,
        **{0x380 + 8 * group: events for group, events in enumerate(supported)},
        0x448: int(commands),
    }
