"""Units that do not exist: capabilities at random, field by field, and consistent.

VT-d 11.4.2, 11.4.3. Flags that depend on others are cleared with those, and what then still
contradicts itself is drawn again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from vtd.layouts.registers import Capability, ExtendedCapability, Version
from vtd.unit.registers.capabilities import DEPENDENCIES, Capabilities

FLAGS = tuple(
    name
    for record in (Capability, ExtendedCapability)
    for name, bits in record.FIELDS.items()
    if bits.high == bits.low and not name.startswith("dep_") and name != "ers"
)
"""Every flag that this revision defines."""
TRIES = 10_000
_PLACES = ((0x220, 0xF0), (0x400, 0x500), (0x280, 0x500))
"""FRO and IRO."""


def drawn_capabilities(
    chance: Random, changed: Mapping[str, int] | None = None, flags: Sequence[str] = FLAGS
) -> Capabilities:
    """A consistent unit with some of ``flags``; ``changed`` are fields that it has to have.

    ValueError where no consistent unit has them.
    """
    wanted = changed or {}
    for _ in range(TRIES):
        made = _draw(chance, wanted, flags)
        if not made.check():
            return made
    raise ValueError(f"no consistent unit has {', '.join(f'{k}={v}' for k, v in wanted.items())}")


def _draw(chance: Random, changed: Mapping[str, int], names: Sequence[str]) -> Capabilities:
    scalable = chance.random() < 0.6
    flags = {name: chance.random() < 0.6 for name in names}
    flags |= {"smts": scalable, "rwbf": flags["rwbf"] and not scalable, "ir": chance.random() < 0.3}
    flags |= {"qi": scalable or chance.random() < 0.8, "cm": chance.random() < 0.2}
    flags |= {name: bool(value) for name, value in changed.items() if name in flags}
    for _ in DEPENDENCIES:
        flags |= {
            flag: False
            for flag, needed in DEPENDENCIES
            if flags.get(flag) and not flags.get(needed)
        }
    width = chance.choice((39, 42, 46, 48, 52))
    fro, iro = chance.choice(_PLACES)
    values: dict[str, int] = {
        **{name: int(value) for name, value in flags.items()},
        "sagaw": chance.choice((2, 4, 6, 6, 12, 14, 8)),
        "mgaw": chance.randint(width, 57) - 1,
        "sslps": chance.choice((0, 1, 3)),
        "mamv": chance.choice((0, 1, 4, 9, 18)) if flags["psi"] else 0,
        "nd": chance.choice((1, 2, 4, 6)),
        "nfr": chance.choice((0, 0, 1, 7)),
        "fro": fro,
        "iro": iro,
        "pss": chance.randint(5, 19) if flags["pasid"] else 0,
        "mhmv": chance.choice((0, 15)) if flags["ir"] else 0,
        **changed,
    }
    cap = {name: value for name, value in values.items() if name in Capability.FIELDS}
    ecap = {name: value for name, value in values.items() if name in ExtendedCapability.FIELDS}
    major = chance.choice((1, 4, 5))
    return Capabilities(
        Version.of(max=major), Capability.of(**cap), ExtendedCapability.of(**ecap), width
    )
