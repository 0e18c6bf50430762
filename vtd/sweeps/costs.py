"""What misses cost: a small model, for which all constants are here.

Time of a request is that of its lookups: ``hit`` for each, for a miss ``structure`` where there is
a paging-structure cache, ``outside`` where the IOTLB is not beside the walker (a device-TLB has the
way across PCI Express there and back), and ``read`` for each entry that the walk reads. The bound
of bandwidth is what ``walks`` walks at a time let through, with nothing else in the way; a ``link``
that is slower bounds it too. Queues and walks that wait for one another are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Costs:
    """Nanoseconds, except for the last two. Defaults: those of HyperSIO's source (ISCA 2020)."""

    hit: float = 2.0
    structure: float = 5.0
    read: float = 50.0
    outside: float = 0.0
    """HyperSIO: 900, twice 450."""
    walks: float = 1.0
    """At a time."""
    link: float = 0.0
    """Gb/s; 0: none."""

    def latency(self, lookups: int, misses: int, reads: int, *, structures: bool) -> float:
        """Of all these, in ns."""
        return lookups * self.hit + self.walking(misses, reads, structures=structures)

    def walking(self, misses: int, reads: int, *, structures: bool) -> float:
        """The part of it in which a walk is under way."""
        return misses * (self.structure * structures + self.outside) + reads * self.read

    def gigabits(self, size: int, misses: int, reads: int, *, structures: bool) -> float | None:
        """The bound for ``size`` bytes, per second; None for none."""
        walking = self.walking(misses, reads, structures=structures)
        bound = size * 8 * self.walks / walking if walking else None
        if not self.link:
            return bound
        return self.link if bound is None else min(bound, self.link)


def parse_costs(text: str) -> Costs:
    """The costs of ``read=50,walks=4``; ValueError for what is none."""
    known = {each.name for each in fields(Costs)}
    told = {}
    for word in filter(None, text.replace(",", " ").split()):
        name, equals, value = word.partition("=")
        if not equals or name not in known:
            raise ValueError(
                f"{word!r}: not one of {', '.join(f'{each}=' for each in sorted(known))}"
            )
        try:
            told[name] = float(value)
        except ValueError as error:
            raise ValueError(f"{word!r}: no number") from error
        if not 0 <= told[name] < 1e12 or (name == "walks" and told[name] == 0):
            raise ValueError(f"{word!r}: out of range")
    return Costs(**told)
