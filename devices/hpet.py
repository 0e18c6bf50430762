"""An HPET whose timers interrupt by message (FSB delivery), by the time of a clock.

IA-PC HPET Specification 1.0a. Legacy replacement and interrupt lines of the I/O APIC are left out:
a timer without FSB delivery only sets its status bit.
"""

from __future__ import annotations

from devices.clock import Alarm, Clock
from devices.dma import DmaPort
from pagetables.bits import Access, BitRecord, Bits

RO = Access.RO

CAPABILITIES, CONFIGURATION, STATUS, COUNTER, TIMERS = 0x000, 0x010, 0x020, 0x0F0, 0x100
TIMER_SIZE = 0x20
FEMTOSECONDS_PER_NANOSECOND = 1_000_000

_ALL = (1 << 64) - 1


class HpetCapabilities(BitRecord, width=64):
    """General capabilities and id, 000h."""

    revision = Bits(7, 0, access=RO)
    last_timer = Bits(12, 8, access=RO)
    counter_64 = Bits(13, access=RO)
    legacy_route = Bits(15, access=RO)
    vendor_id = Bits(31, 16, access=RO)
    period = Bits(63, 32, access=RO)  # femtoseconds per tick


class TimerConfiguration(BitRecord, width=64):
    """Timer configuration and capabilities, 100h + 20h per timer."""

    level = Bits(1)
    enable = Bits(2)
    periodic = Bits(3)
    periodic_capable = Bits(4, access=RO)
    size_64 = Bits(5, access=RO)
    set_value = Bits(6)  # the next comparator write sets the accumulator too
    mode_32 = Bits(8)
    route = Bits(13, 9)
    fsb_enable = Bits(14)
    fsb_capable = Bits(15, access=RO)
    routes = Bits(63, 32, access=RO)


_TIMER = TimerConfiguration.of(periodic_capable=1, size_64=1, fsb_capable=1)
_TIMER_WRITABLE = sum(
    bits.mask for bits in TimerConfiguration.FIELDS.values() if bits.access is Access.RW
)


class Timer:
    """One comparator."""

    def __init__(self) -> None:
        self.configuration = _TIMER
        self.comparator = _ALL
        self.period = 0
        self.route = 0
        """FSB route: data in 31:0, address in 63:32."""

    @property
    def sends(self) -> bool:
        """Whether a match is a message."""
        return bool(self.configuration.enable and self.configuration.fsb_enable)

    def due(self, counter: int) -> int:
        """Ticks until the counter next equals the comparator: 1 or more."""
        mask = 0xFFFF_FFFF if self.configuration.mode_32 else _ALL
        return (self.comparator - counter - 1 & mask) + 1

    def advance_period(self) -> None:
        """A periodic timer moves its comparator on after each match."""
        if self.configuration.periodic:
            mask = 0xFFFF_FFFF if self.configuration.mode_32 else _ALL
            self.comparator = self.comparator + self.period & mask


class Hpet:
    """A block of 1 to 32 timers, sending messages through ``port`` as the id that port has."""

    def __init__(
        self,
        port: DmaPort,
        timers: int = 3,
        period: int = 10_000_000,
        clock: Clock | None = None,
    ) -> None:
        """``period`` is in femtoseconds per tick: 10,000,000 is 100 MHz."""
        if not 1 <= timers <= 32:
            raise ValueError(f"timers: {timers} is not in 1..32")
        if not 0 < period <= 0x05F5_E100:
            raise ValueError(f"period: {period} fs is not in 1..100,000,000")
        self.port = port
        self.clock = clock or Clock()
        self.capabilities = HpetCapabilities.of(
            revision=1, last_timer=timers - 1, counter_64=1, vendor_id=0x8086, period=period
        )
        self.timers = [Timer() for _ in range(timers)]
        self.enabled = False
        self.status = 0
        self._counter = 0
        self._counted = self.clock.now
        """The time up to which the counter has counted."""
        self._elapsed = 0
        """Femtoseconds of a tick that is not complete."""
        self._alarm: Alarm | None = None

    def read(self, offset: int, size: int) -> int:
        """4 or 8 bytes, aligned; anything else reads 0."""
        if size not in {4, 8} or offset % size:
            return 0
        self._count()
        return self._register(offset & ~7) >> 8 * (offset & 7) & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """4 or 8 bytes, aligned; anything else is dropped."""
        if size not in {4, 8} or offset % size:
            return
        self._count()
        at, shift = offset & ~7, 8 * (offset & 7)
        enable = (1 << 8 * size) - 1 << shift
        if at == STATUS:
            self.status &= ~(value << shift & enable)
            return
        self._store(at, self._register(at) & ~enable | value << shift & enable)
        self._set_alarm()

    @property
    def counter(self) -> int:
        """The main counter."""
        self._count()
        return self._counter

    def _count(self) -> None:
        """Count up to now; timers that match on the way interrupt in order of time."""
        passed, self._counted = self.clock.now - self._counted, self.clock.now
        if not self.enabled:
            return
        self._elapsed += passed * FEMTOSECONDS_PER_NANOSECOND
        ticks, self._elapsed = divmod(self._elapsed, self.capabilities.period)
        while ticks:
            dues = [timer.due(self._counter) for timer in self.timers]
            step = min(ticks, *dues)
            self._counter = self._counter + step & _ALL
            ticks -= step
            for number, (timer, due) in enumerate(zip(self.timers, dues, strict=True)):
                if due == step:
                    self._match(number, timer)

    def _set_alarm(self) -> None:
        """Have the next message sent at its time."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        dues = [each.due(self._counter) for each in self.timers if each.sends]
        if self.enabled and dues:
            femtoseconds = min(dues) * self.capabilities.period - self._elapsed
            self._alarm = self.clock.after(
                -(-femtoseconds // FEMTOSECONDS_PER_NANOSECOND), self._ring
            )

    def _ring(self) -> None:
        self._count()
        self._set_alarm()

    def _match(self, number: int, timer: Timer) -> None:
        timer.advance_period()
        if timer.configuration.level:
            self.status |= 1 << number
        if timer.sends:
            data = timer.route & 0xFFFF_FFFF
            self.port.write(timer.route >> 32 & ~3, data.to_bytes(4, "little"))

    def _register(self, offset: int) -> int:
        if offset == CAPABILITIES:
            return self.capabilities
        if offset == CONFIGURATION:
            return int(self.enabled)
        if offset == STATUS:
            return self.status
        if offset == COUNTER:
            return self._counter
        timer, register = self._timer(offset)
        if timer is None:
            return 0
        return {0x00: int(timer.configuration), 0x08: timer.comparator, 0x10: timer.route}.get(
            register, 0
        )

    def _store(self, offset: int, value: int) -> None:
        if offset == CONFIGURATION:
            self.enabled = bool(value & 1)
            return
        if offset == COUNTER:
            self._counter = self._counter if self.enabled else value
            return
        timer, register = self._timer(offset)
        if timer is None:
            return
        if register == 0x00:
            kept = timer.configuration & ~_TIMER_WRITABLE
            timer.configuration = TimerConfiguration(kept | value & _TIMER_WRITABLE)
        elif register == 0x08:
            self._set_comparator(timer, value)
        elif register == 0x10:
            timer.route = value

    def _set_comparator(self, timer: Timer, value: int) -> None:
        """In periodic mode a write is the period, and the comparator too if set_value says so."""
        configuration = timer.configuration
        if configuration.mode_32:
            value &= 0xFFFF_FFFF
        if not configuration.periodic or configuration.set_value:
            timer.comparator = value
        if configuration.periodic:
            timer.period = value
            timer.configuration = configuration.replace(set_value=0)

    def _timer(self, offset: int) -> tuple[Timer | None, int]:
        number, register = divmod(offset - TIMERS, TIMER_SIZE)
        return (self.timers[number] if 0 <= number < len(self.timers) else None), register
