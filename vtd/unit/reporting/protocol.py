"""What the specification asks of software that writes registers, where a unit lets it pass.

VT-d 6.5, 11.4.4.1, 11.4.5, 11.4.8.2 to 11.4.8.5, 11.4.9.3 and 11.4.10. A unit does what is written
either way; each departure of software is told as an event,
:class:`vtd.unit.reporting.events.RegisterMisused`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from vtd.layouts.registers import (
    ContextCommand,
    GlobalCommand,
    GlobalStatus,
    InterruptRemappingTableAddress,
    InvalidationQueueAddress,
    InvalidationQueueHead,
    InvalidationQueueTail,
    IotlbInvalidate,
    ProtectedHighMemoryBase,
    ProtectedHighMemoryLimit,
    ProtectedLowMemoryBase,
    ProtectedLowMemoryLimit,
    ProtectedMemoryEnable,
    Register,
    RootTableAddress,
)
from vtd.unit.registers.capabilities import Capabilities
from vtd.unit.registers.register_file import RegisterFile, RegisterWrite
from vtd.unit.reporting.events import RegisterMisused
from vtd.unit.state import Stateful

FUNCTIONS = GlobalCommand.of(te=True, qie=True, ire=True, cfi=True)
ONE_SHOT = GlobalCommand.of(srtp=True, sirtp=True, wbf=True)


Rule = Callable[[RegisterWrite[Any]], Iterator[tuple[str, str]]]
"""Gives section and mistake for each departure of one write."""


class RegisterProtocol(Stateful):
    """Watches the registers of one unit; ``publish`` is told of what software does wrong.

    It has to be made before whatever carries the writes out.
    """

    STATE = "_root_set", "_interrupts_set"

    def __init__(
        self,
        registers: RegisterFile,
        capabilities: Capabilities,
        publish: Callable[[RegisterMisused], None],
    ) -> None:
        self._registers = registers
        self._capabilities = capabilities
        self._publish = publish
        self._root_set = self._interrupts_set = False
        """Whether a table pointer was set since the function that uses it was last off."""
        rules: tuple[tuple[type[Register], Rule], ...] = (
            (GlobalCommand, self._command),
            (RootTableAddress, self._root_table),
            (InvalidationQueueAddress, self._queue_address),
            (ContextCommand, self._register_invalidation),
            (IotlbInvalidate, self._register_invalidation),
            (InterruptRemappingTableAddress, self._interrupt_table),
            (ProtectedLowMemoryBase, self._protected_region("11.4.8.2")),
            (ProtectedLowMemoryLimit, self._protected_region("11.4.8.3")),
            (ProtectedHighMemoryBase, self._protected_region("11.4.8.4")),
            (ProtectedHighMemoryLimit, self._protected_region("11.4.8.5")),
        )
        for register, rule in rules:
            registers.on_write(register, self._told_by(rule))

    def _told_by(self, rule: Rule) -> Callable[[RegisterWrite[Any]], None]:
        def written(write: RegisterWrite[Any]) -> None:
            for section, mistake in rule(write):
                self._publish(RegisterMisused(type(write.new).__name__, section, mistake))

        return written

    def _command(self, write: RegisterWrite[GlobalCommand]) -> Iterator[tuple[str, str]]:
        command, status = write.raw, self._registers[GlobalStatus]
        changed = (command ^ status) & FUNCTIONS | command & ONE_SHOT
        if changed & changed - 1:
            names = ", ".join(sorted(GlobalCommand(changed).flags())).upper()
            yield "11.4.4.1", f"several functions changed in one write: {names}"
        required = self._capabilities.ecap.eimer
        if command.sirtp and required and not self._registers[InterruptRemappingTableAddress].eime:
            yield "11.4.10", "SIRTP is set without EIME, which EIMER asks for"
        self._root_set |= command.srtp
        self._interrupts_set |= command.sirtp
        if command.te and not status.tes and not self._root_set:
            yield "11.4.4.1", "TE is set with no SRTP since reset, or since translation was on"
        if command.ire and not status.ires and not self._interrupts_set:
            yield "11.4.4.1", "IRE is set with no SIRTP since reset, or since remapping was on"
        if status.tes and not command.te:
            self._root_set = False
        if status.ires and not command.ire:
            self._interrupts_set = False
        head = self._registers[InvalidationQueueHead].qh
        tail = self._registers[InvalidationQueueTail].qt
        if command.qie and not status.qies and tail:
            yield "6.5.2", "QIE is set with a tail that is not 0"
        if status.qies and not command.qie and head != tail:
            yield "6.5.2", "QIE is cleared before the queue is empty"

    def _root_table(self, write: RegisterWrite[RootTableAddress]) -> Iterator[tuple[str, str]]:
        old, new = write.old, write.new
        switched = old.ttm != new.ttm or old.ssirwe != new.ssirwe
        on = self._registers[GlobalStatus].tes
        if switched and on and not self._capabilities.cap.esrtps:
            yield "11.4.5", "TTM or SSIRWE is changed while translation is on, without ESRTPS"

    def _queue_address(
        self, write: RegisterWrite[InvalidationQueueAddress]
    ) -> Iterator[tuple[str, str]]:
        if self._registers[GlobalStatus].qies:
            yield "6.5.2", "the queue is moved while it is on"

    def _register_invalidation(
        self, write: RegisterWrite[ContextCommand] | RegisterWrite[IotlbInvalidate]
    ) -> Iterator[tuple[str, str]]:
        asked = write.new >> 63  # ICC, IVT: clear again once the command is done
        if asked and self._registers[GlobalStatus].qies:
            yield "6.5.2", "an invalidation by register beside the queue"

    def _interrupt_table(
        self, write: RegisterWrite[InterruptRemappingTableAddress]
    ) -> Iterator[tuple[str, str]]:
        if write.old.eime != write.new.eime and self._registers[GlobalStatus].ires:
            yield "11.4.10", "EIME is changed while interrupt remapping is on"

    def _protected_region(self, section: str) -> Rule:
        def rule(_: RegisterWrite[Any]) -> Iterator[tuple[str, str]]:
            if self._registers[ProtectedMemoryEnable].prs:
                yield section, "a protected region is moved while it is protected"

        return rule
