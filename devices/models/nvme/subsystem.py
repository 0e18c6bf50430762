"""What the controllers of one NVMe device share: namespaces, counters, resources for functions.

NVM Express Base Specification 1.4, NVM subsystems and Virtualization Enhancements. A secondary
controller is that of a virtual function; the primary one gives it queues and vectors and switches
it on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from devices.models.block_storage import BLOCK_SHIFT, BlockStorage
from devices.models.nvme.identify import SecondaryController
from devices.models.nvme.structures import CommandError, Status

MOST = 16
"""Queues, and vectors, that a virtual function can have."""
ADMIN_AND_IO = 2
"""Queues that a secondary controller needs: one pair for commands of each kind."""


@dataclass(frozen=True)
class Primary:
    """Queues of the controller of the physical function."""

    queue_pairs: int
    usable: bool = True


@dataclass
class Secondary:
    """Queues and vectors of the controller of a virtual function."""

    identifier: int
    online: bool = False
    queues: int = 0
    vectors: int = 0

    @property
    def queue_pairs(self) -> int:
        """I/O queue pairs: one of its queues is that of admin commands."""
        return max(self.queues - 1, 0)

    @property
    def usable(self) -> bool:
        """Whether the primary controller has switched it on."""
        return self.online


class Subsystem:
    """``namespaces`` of ``blocks`` blocks each; in memory, or in ``file``, several in
    ``file.1``, ``file.2`` and so on.

    ValueError for sizes that can't be, and for a file that can't be used.
    """

    def __init__(
        self, blocks: int, namespaces: int, file: str, virtual_functions: int, flexible: int
    ) -> None:
        if not 1 <= namespaces <= 32:
            raise ValueError(f"namespaces: {namespaces} is not in 1..32")
        self.namespaces = {
            nsid: BlockStorage.made(blocks, f"{file}.{nsid}" if file and namespaces > 1 else file)
            for nsid in range(1, namespaces + 1)
        }
        self.counters: Counter[str] = Counter()
        self.flexible = flexible
        """Queues, and vectors, for all virtual functions together."""
        self.most = min(flexible, MOST)
        """Of which one can have so many."""
        self.secondaries = [Secondary(number + 1) for number in range(virtual_functions)]
        self.changed_namespaces: dict[int, Callable[[int], None]] = {}
        """Told of the id of a namespace that has changed, by controller."""

    @property
    def write_cache(self) -> bool:
        """Whether writes may wait in volatile memory."""
        return all(each.cache for each in self.namespaces.values())

    def set_write_cache(self, enabled: bool) -> None:
        """Let writes wait, or make everything durable."""
        for each in self.namespaces.values():
            each.cache = enabled
            if not enabled:
                each.flush()

    def namespace(self, nsid: int) -> BlockStorage:
        """The namespace with this id; CommandError if there is none."""
        if nsid not in self.namespaces:
            raise CommandError(Status.BAD_NAMESPACE)
        return self.namespaces[nsid]

    def flush(self) -> None:
        """Make all that was written durable."""
        for each in self.namespaces.values():
            each.flush()

    def resize(self, nsid: int, blocks: int) -> None:
        """Give a namespace in memory another size; controllers tell their hosts."""
        namespace = self.namespaces[nsid]
        if not isinstance(namespace.storage, bytearray):
            raise ValueError(f"namespace {nsid}: is in a file")
        namespace.flush()
        size, old = blocks << BLOCK_SHIFT, namespace.storage
        namespace.storage = old[:size] + bytes(max(size - len(old), 0))
        for tell in self.changed_namespaces.values():
            tell(nsid)

    def listed(self) -> list[SecondaryController]:
        """The secondary controllers as identify shows them."""
        return [
            SecondaryController(each.identifier, each.identifier, each.online, each.queues,
                                each.vectors)
            for each in self.secondaries
        ]  # fmt: skip

    def secondary(self, identifier: int) -> Secondary:
        """The controller of a virtual function; CommandError if there is none with this id."""
        for each in self.secondaries:
            if each.identifier == identifier:
                return each
        raise CommandError(Status.BAD_CONTROLLER)

    def assign(self, identifier: int, resource: int, count: int) -> int:
        """Give a controller that is offline queues (0) or vectors (1); how many it has now."""
        secondary = self.secondary(identifier)
        if secondary.online:
            raise CommandError(Status.BAD_SECONDARY_STATE)
        if resource > 1:
            raise CommandError(Status.BAD_RESOURCE)
        others = (each for each in self.secondaries if each is not secondary)
        taken = sum(each.vectors if resource else each.queues for each in others)
        if count > self.most or count + taken > self.flexible:
            raise CommandError(Status.BAD_RESOURCE_COUNT)
        if resource:
            secondary.vectors = count
        else:
            secondary.queues = count
        return count

    def switch(self, identifier: int, *, online: bool) -> None:
        """Switch the controller of a virtual function on, if it has what it needs, or off."""
        secondary = self.secondary(identifier)
        if online and (secondary.queues < ADMIN_AND_IO or not secondary.vectors):
            raise CommandError(Status.BAD_SECONDARY_STATE)
        secondary.online = online
        if not online:
            secondary.queues = secondary.vectors = 0
