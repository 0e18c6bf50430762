"""The model driver as a hypothesis state machine: one operation a step, judged at once.

For tests that want to interleave operations of their own: derive from the machine and add rules.
"""

from __future__ import annotations

from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from vtd.auditing.audit import Audit
from vtd.fuzz.driver import ModelDriver, Operation
from vtd.fuzz.oracle import SlowUnit
from vtd.fuzz.owed_invalidations import InvalidationRule
from vtd.fuzz.properties import take
from vtd.fuzz.strategies import beginnings, operating
from vtd.fuzz.targets import EngineTarget
from vtd.severity import ERROR
from vtd.unit.caching.policy import AGGRESSIVE, CachePolicy
from vtd.unit.registers.capabilities import Capabilities


def machine_for(
    capabilities: Capabilities,
    *,
    scalable: bool = False,
    policy: CachePolicy = AGGRESSIVE,
    drop: InvalidationRule | None = None,
) -> type[RuleBasedStateMachine]:
    """A state machine whose engine and oracle agree after every step, with a silent audit.

    With a rule dropped it fails, if it is run long enough.
    """

    class DriverMachine(RuleBasedStateMachine):
        """What the driver and its devices do to one unit."""

        def __init__(self) -> None:
            super().__init__()
            self.driver = ModelDriver(capabilities, scalable=scalable, drop=drop)
            case = self.driver.case()
            self.run_of_engine = EngineTarget(policy).start(case)
            self.audit = Audit(self.run_of_engine.unit)
            self.oracle = SlowUnit(case)
            self.done = 0

        @initialize(operations=beginnings())
        def begin(self, operations: list[Operation]) -> None:
            self.driver.run(operations)

        @rule(operation=operating)
        def operate(self, operation: Operation) -> None:
            self.driver.run([operation])

        @invariant()
        def engine_and_oracle_agree_and_the_audit_is_silent(self) -> None:
            for step in self.driver.steps[self.done :]:
                expected = self.oracle.step(step)
                got = take(self.run_of_engine, step, self.audit, self.done)
                self.done += 1
                wrong = [each for each in self.audit.findings if each.severity >= ERROR]
                if wrong:
                    raise AssertionError(f"owed: {wrong[0]}")
                if expected is not None and expected != got:
                    raise AssertionError(f"{step}: {expected} expected, {got} got")

    return DriverMachine
