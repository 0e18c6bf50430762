"""The commands of NVMe's admin queue: queues, identify, log pages, features, virtualization."""

from __future__ import annotations

from collections.abc import Callable, Collection

from devices.models.nvme import identify
from devices.models.nvme.controller import (
    CAPABILITIES,
    Commands,
    CompletionQueue,
    Controller,
    SubmissionQueue,
)
from devices.models.nvme.structures import (
    BROADCAST,
    Admin,
    CommandError,
    EventType,
    Feature,
    LogPage,
    Status,
    Submission,
    Virtualization,
)
from devices.models.nvme.subsystem import Subsystem

DEFAULTS = {
    Feature.ARBITRATION: 0,
    Feature.POWER: 0,
    Feature.TEMPERATURE: 0xFFFF,
    Feature.ERROR_RECOVERY: 0,
    Feature.WRITE_CACHE: 1,
    Feature.COALESCING: 0,
    Feature.VECTOR: 0,
    Feature.ATOMICITY: 0,
    Feature.EVENTS: 0,
}
"""Values of the features that the host may set; those without an entry are answered."""
CHANGEABLE = 1 << 2
HOT = 1
"""Information of a health event: a temperature is past its threshold."""
NAMESPACES_CHANGED = 0
"""Information of a notice."""
NOTICES = 1 << 8
"""The bit of the events feature that lets notices about namespaces through."""


class AdminCommands:
    """What each command does; ``primary`` is the controller that others are managed by."""

    def __init__(
        self,
        controller: Controller,
        subsystem: Subsystem,
        identifier: int,
        serial: str,
        *,
        primary: bool,
    ) -> None:
        self._controller = controller
        self._subsystem = subsystem
        self._identifier = identifier
        self._serial = serial
        self._primary = primary
        self._features = dict(DEFAULTS)
        self._granted = 0
        self._changed: list[int] = []
        controller.when_stopped.append(self._forget)
        subsystem.changed_namespaces[identifier] = self._namespace_changed
        self.commands: Commands = {
            Admin.DELETE_SQ: self._delete_sq,
            Admin.CREATE_SQ: self._create_sq,
            Admin.GET_LOG_PAGE: self._get_log_page,
            Admin.DELETE_CQ: self._delete_cq,
            Admin.CREATE_CQ: self._create_cq,
            Admin.IDENTIFY: self._identify,
            Admin.ABORT: self._abort,
            Admin.SET_FEATURES: self._set_feature,
            Admin.GET_FEATURES: self._get_feature,
            **({Admin.VIRTUALIZATION: self._virtualize} if primary else {}),
        }
        self._pages: dict[int, Callable[[Submission], bytes]] = {
            0x00: self._namespace_page,
            0x01: self._controller_page,
            0x02: self._namespace_list,
            0x03: self._namespace_descriptors,
            0x10: self._namespace_list,
            0x11: self._namespace_page,
            0x13: self._controller_list,
            0x14: self._primary_capabilities,
            0x15: self._secondary_list,
        }
        self._logs: dict[int, Callable[[], bytes]] = {
            LogPage.ERRORS: self._error_log,
            LogPage.HEALTH: self._health_log,
            LogPage.FIRMWARE: identify.firmware_log,
            LogPage.NAMESPACES: self._changed_log,
            LogPage.EFFECTS: identify.effects_log,
        }

    @property
    def _hot(self) -> bool:
        return self._features[Feature.TEMPERATURE] & 0xFFFF <= identify.KELVIN

    def _forget(self) -> None:
        self._features = dict(DEFAULTS)
        self._changed.clear()
        self._granted = self._controller.share.queue_pairs
        if self._primary:
            self._subsystem.set_write_cache(True)

    def _namespace_changed(self, nsid: int) -> None:
        if nsid not in self._changed:
            self._changed.append(nsid)
        if self._features[Feature.EVENTS] & NOTICES:
            self._controller.report(EventType.NOTICE, NAMESPACES_CHANGED, LogPage.NAMESPACES)

    def _create_cq(self, command: Submission) -> int:
        queues = self._controller.completion_queues
        qid, size = self._new_queue(command, queues.keys())
        vector = command.cdw11 >> 16 if command.cdw11 & 2 else None
        msix = self._controller.function.msix
        if vector is not None and (msix is None or vector >= len(msix.entries)):
            raise CommandError(Status.BAD_VECTOR)
        queues[qid] = CompletionQueue(command.prp1, size, vector)
        return 0

    def _create_sq(self, command: Submission) -> int:
        queues = self._controller.submission_queues
        qid, size = self._new_queue(command, queues.keys())
        completion_queue = command.cdw11 >> 16
        if not completion_queue or completion_queue not in self._controller.completion_queues:
            raise CommandError(Status.CQ_INVALID)
        queues[qid] = SubmissionQueue(command.prp1, size, completion_queue)
        return 0

    def _new_queue(self, command: Submission, taken: Collection[int]) -> tuple[int, int]:
        """Number and entries of the queue to create; raises CommandError."""
        qid, size = command.cdw10 & 0xFFFF, (command.cdw10 >> 16) + 1
        if not 0 < qid <= self._controller.share.queue_pairs or qid in taken:
            raise CommandError(Status.QID_INVALID)
        if not 1 < size <= CAPABILITIES.mqes + 1:
            raise CommandError(Status.QUEUE_SIZE)
        if not command.cdw11 & 1:
            raise CommandError(Status.BAD_FIELD)
        if command.prp1 % self._controller.page_size:
            raise CommandError(Status.BAD_PRP_OFFSET)
        return qid, size

    def _delete_sq(self, command: Submission) -> int:
        qid = command.cdw10 & 0xFFFF
        if qid == 0 or self._controller.submission_queues.pop(qid, None) is None:
            raise CommandError(Status.QID_INVALID)
        return 0

    def _delete_cq(self, command: Submission) -> int:
        qid = command.cdw10 & 0xFFFF
        queues = self._controller.completion_queues
        if qid == 0 or qid not in queues:
            raise CommandError(Status.QID_INVALID)
        reporting = self._controller.submission_queues.values()
        if any(queue.completion_queue == qid for queue in reporting):
            raise CommandError(Status.BAD_QUEUE_DELETION)
        del queues[qid]
        self._controller.drive_pin()
        return 0

    def _identify(self, command: Submission) -> int:
        which = command.cdw10 & 0xFF
        if which not in self._pages or (which in (0x14, 0x15) and not self._primary):
            raise CommandError(Status.BAD_FIELD)
        self._controller.to_host(command, self._pages[which](command))
        return 0

    def _controller_page(self, _: Submission) -> bytes:
        secondaries = bool(self._subsystem.secondaries)
        return identify.controller_page(
            self._identifier,
            len(self._subsystem.namespaces),
            primary=self._primary and secondaries,
            virtual=not self._primary,
            serial=self._serial,
        )

    def _namespace_page(self, command: Submission) -> bytes:
        namespace = self._subsystem.namespace(command.nsid)
        shared = bool(self._subsystem.secondaries)
        return identify.namespace_page(namespace.blocks, shared=shared)

    def _namespace_list(self, command: Submission) -> bytes:
        if command.nsid >= BROADCAST - 1:
            raise CommandError(Status.BAD_NAMESPACE)
        return identify.namespace_list(self._subsystem.namespaces, command.nsid)

    def _namespace_descriptors(self, command: Submission) -> bytes:
        self._subsystem.namespace(command.nsid)
        return identify.namespace_descriptors(command.nsid)

    def _controller_list(self, command: Submission) -> bytes:
        all_of_them = [0, *(each.identifier for each in self._subsystem.secondaries)]
        return identify.controller_list(all_of_them, command.cdw10 >> 16)

    def _primary_capabilities(self, _: Submission) -> bytes:
        subsystem, private = self._subsystem, self._controller.share.queue_pairs + 1
        return identify.primary_capabilities(
            subsystem.flexible, subsystem.most, subsystem.listed(), private
        )

    def _secondary_list(self, command: Submission) -> bytes:
        return identify.secondary_list(self._subsystem.listed(), command.cdw10 >> 16)

    def _error_log(self) -> bytes:
        return identify.error_log(self._controller.errors)

    def _health_log(self) -> bytes:
        counters = {**self._subsystem.counters, "errors": self._controller.error_count}
        return identify.health_log(counters, hot=self._hot)

    def _get_log_page(self, command: Submission) -> int:
        """A part of a log page; beyond its end there are zeros."""
        page = command.cdw10 & 0xFF
        length = ((command.cdw10 >> 16 | (command.cdw11 & 0xFFFF) << 16) + 1) * 4
        offset = command.cdw12 | command.cdw13 << 32
        if page not in self._logs:
            raise CommandError(Status.BAD_LOG_PAGE)
        if length > self._controller.max_transfer or offset % 4:
            raise CommandError(Status.BAD_FIELD)
        data = self._logs[page]()
        if offset > len(data):
            raise CommandError(Status.BAD_FIELD)
        self._controller.to_host(command, data[offset : offset + length].ljust(length, b"\0"))
        if not command.cdw10 >> 15 & 1:  # retain asynchronous event
            self._controller.log_read(page)
            if page == LogPage.NAMESPACES:
                self._changed.clear()
        return 0

    def _changed_log(self) -> bytes:
        return identify.namespace_list(self._changed, 0)

    def _abort(self, command: Submission) -> int:
        """Commands end before an abort can reach them: result bit 0, not aborted."""
        return 1

    def _set_feature(self, command: Submission) -> int:
        feature, value = command.cdw10 & 0xFF, command.cdw11
        if command.cdw10 >> 31:
            raise CommandError(Status.NOT_SAVEABLE)
        if feature == Feature.QUEUES:
            return self._grant_queues(value)
        if feature not in DEFAULTS:
            raise CommandError(Status.BAD_FIELD)
        self._features[Feature(feature)] = value
        if feature == Feature.WRITE_CACHE:
            self._subsystem.set_write_cache(bool(value & 1))
        elif feature == Feature.TEMPERATURE and self._hot:
            self._controller.report(EventType.HEALTH, HOT, LogPage.HEALTH)
        return 0

    def _get_feature(self, command: Submission) -> int:
        feature, select = command.cdw10 & 0xFF, command.cdw10 >> 8 & 7
        if feature != Feature.QUEUES and feature not in DEFAULTS:
            raise CommandError(Status.BAD_FIELD)
        if select == 3:
            return CHANGEABLE
        if feature == Feature.QUEUES:
            pairs = self._controller.share.queue_pairs if select else self._granted
            return max(pairs - 1, 0) * 0x1_0001
        if select:
            return DEFAULTS[Feature(feature)]
        if feature == Feature.WRITE_CACHE:
            return int(self._subsystem.write_cache)
        return self._features[Feature(feature)]

    def _grant_queues(self, asked: int) -> int:
        """Numbers less one of submission queues, and above them of completion queues."""
        if self._controller.has_io_queues:
            raise CommandError(Status.COMMAND_SEQUENCE)
        if 0xFFFF in (asked & 0xFFFF, asked >> 16):
            raise CommandError(Status.BAD_FIELD)
        self._granted = self._controller.share.queue_pairs
        return max(self._granted - 1, 0) * 0x1_0001

    def _virtualize(self, command: Submission) -> int:
        """Queues and vectors for the controllers of virtual functions; how many were given."""
        action, identifier = command.cdw10 & 0xF, command.cdw10 >> 16
        if action == Virtualization.ASSIGN:
            resource, count = command.cdw10 >> 8 & 7, command.cdw11 & 0xFFFF
            return self._subsystem.assign(identifier, resource, count)
        if action not in (Virtualization.ONLINE, Virtualization.OFFLINE):
            raise CommandError(Status.BAD_FIELD)
        self._subsystem.switch(identifier, online=action == Virtualization.ONLINE)
        return 0
