"""The model driver as a hypothesis state machine: one operation a step, judged at once.

For tests that want to interleave operations of their own: derive from the machine and add rules.
"""

from __future__ import annotations

from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from vtd.audit import Audit
from vtd.caches import AGGRESSIVE, CachePolicy
from vtd.capabilities import Capabilities
from vtd.fuzz.driver import ModelDriver, Operation
from vtd.fuzz.driver import Rule as DroppedRule
from vtd.fuzz.oracle import SlowUnit
from vtd.fuzz.strategies import attaching, changing, interrupting, mapping, repeating, requesting
from vtd.fuzz.targets import EngineTarget


def machine_for(
    capabilities: Capabilities,
    *,
    scalable: bool = False,
    policy: CachePolicy = AGGRESSIVE,
    drop: DroppedRule | None = None,
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

        @rule(operation=attaching)
        def attach(self, operation: Operation) -> None:
            self.driver.run([operation])

        @rule(operation=mapping)
        def map(self, operation: Operation) -> None:
            self.driver.run([operation])

        @rule(operation=changing)
        def change(self, operation: Operation) -> None:
            self.driver.run([operation])

        @rule(operation=requesting)
        def request(self, operation: Operation) -> None:
            self.driver.run([operation])

        @rule(operation=repeating)
        def repeat(self, operation: Operation) -> None:
            self.driver.run([operation])

        @rule(operation=interrupting)
        def interrupt(self, operation: Operation) -> None:
            self.driver.run([operation])

        @invariant()
        def engine_and_oracle_agree(self) -> None:
            for step in self.driver.steps[self.done :]:
                expected, (_, got) = self.oracle.step(step), self.run_of_engine.step(step)
                if expected is not None and expected != got:
                    raise AssertionError(f"{step}: {expected} expected, {got} got")
            self.done = len(self.driver.steps)

        @invariant()
        def audit_is_silent(self) -> None:
            if self.audit.findings:
                raise AssertionError(str(self.audit.findings[0]))

    return DriverMachine
