"""One connection of vfio-user as a value: bytes and file descriptors in, bytes out.

A :class:`Session` cuts the stream into messages, has its :class:`Device` carry them out and keeps
what is to be sent. Whatever a client sends, it gets an answer or, where the stream can't be
followed any more, an end; descriptors that nobody keeps are closed.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from construct import ConstructError

from vtd.live import messages as m
from vtd.live.interrupts import Interrupts
from vtd.live.requests import Descriptor, RequestError

CAPABILITIES = {
    "max_msg_fds": m.MAX_FDS,
    "max_data_xfer_size": m.MAX_DATA,
    "max_dma_maps": 65535,
    "pgsizes": 4096,
    "write_multiple": True,
}
"""What a client is told of those that it knows."""
HEADER_SIZE, ACCESS_SIZE, MAX_MESSAGE = m.HEADER.size, m.REGION_READ.size, m.MAX_MESSAGE
READ, VERSION = int(m.Command.REGION_READ), int(m.Command.VERSION)
ACCESSES = frozenset((READ, int(m.Command.REGION_WRITE)))
WRITE, WRITE_SIZE, pack_write = int(m.Command.DMA_WRITE), m.INTERRUPT.size, m.INTERRUPT.pack
TYPE, REPLY, NO_REPLY = m.TYPE, m.REPLY, m.NO_REPLY
unpack_header, pack_header = m.HEADER.unpack_from, m.HEADER.pack
unpack_access, pack_access = m.REGION_READ.unpack_from, m.REGION_READ.pack


class MappedMemory(Protocol):
    """What the client of one connection calls memory."""

    def map(
        self, start: int, size: int, fd: int | None, offset: int, *, read_only: bool
    ) -> None: ...

    def unmap(self, start: int, size: int) -> None: ...

    def close(self) -> None: ...


class Device(Protocol):
    """What is at the other end; each method may raise RequestError."""

    def region_size(self, index: int) -> int: ...

    def read(self, region: int, offset: int, count: int) -> bytes: ...

    def write(self, region: int, offset: int, data: bytes) -> None: ...

    def reset(self) -> None: ...


class Session:
    """The server's side of one connection."""

    def __init__(self, device: Device, memory: MappedMemory, interrupts: Interrupts) -> None:
        self.ended: str | None = None
        """Why the connection can't go on, once it can't."""
        self.handled = 0
        """Messages that were dealt with."""
        self._device = device
        self._read, self._write = device.read, device.write
        self._memory = memory
        self._interrupts = interrupts
        self._agreed = False
        self._pieces: list[bytes] = []
        self._length, self._needed = 0, HEADER_SIZE
        """Bytes that have arrived of messages not dealt with, and of how many the first one is."""
        self._waiting: list[Descriptor] = []
        """Descriptors of the message that is not complete yet."""
        self._outgoing: list[bytes] = []
        self._number = 0
        self._commands: dict[int, Callable[[bytes, list[Descriptor]], bytes]] = {
            m.Command.VERSION: self._version,
            m.Command.DMA_MAP: self._dma_map,
            m.Command.DMA_UNMAP: self._dma_unmap,
            m.Command.GET_INFO: self._get_info,
            m.Command.GET_REGION_INFO: self._get_region_info,
            m.Command.GET_IRQ_INFO: self._get_irq_info,
            m.Command.SET_IRQS: self._set_irqs,
            m.Command.REGION_READ: _too_short,
            m.Command.REGION_WRITE: _too_short,
            m.Command.REGION_WRITE_MULTI: self._region_write_multi,
            m.Command.RESET: self._reset,
        }

    def receive(self, data: bytes, descriptors: Sequence[Descriptor] = ()) -> bytes:
        """Deal with what has arrived, and give what is to be sent now.

        Descriptors belong to the last message that begins in ``data``.
        """
        if self._pieces:
            self._pieces.append(data)
            self._length += len(data)
            if self._length < self._needed:
                self._wait_with(descriptors)
                return b""
            data = b"".join(self._pieces)
            self._pieces.clear()
        answers, start, length, needed = [], 0, len(data), HEADER_SIZE
        while length - start >= HEADER_SIZE:
            _, command, size, flags, _ = unpack_header(data, start)
            if not HEADER_SIZE <= size <= MAX_MESSAGE:
                self.ended = f"a message of {size} bytes"
                break
            end = start + size
            if end > length:
                needed = size
                break
            bundle: Sequence[Descriptor] = ()
            if self._waiting:
                bundle, self._waiting = self._waiting, []
            if descriptors and end == length:
                bundle, descriptors = [*bundle, *descriptors], ()
            if command in ACCESSES and size >= ACCESS_SIZE and self._agreed and not flags & TYPE:
                answers.append(self._access(data[start:end]))
                for each in bundle:
                    each.close()
            else:
                answers.append(self._handle(data[start:end], bundle))
            if self._outgoing:
                answers.append(self.take())
            start = end
        if start < length:
            self._pieces, self._length, self._needed = [data[start:]], length - start, needed
            self._wait_with(descriptors)
        return b"".join(answers)

    def _wait_with(self, descriptors: Sequence[Descriptor]) -> None:
        """Keep descriptors for the message that is not complete yet."""
        if not descriptors:
            return
        self._waiting += descriptors
        if len(self._waiting) > m.MAX_FDS:
            self.ended = "too many file descriptors with one message"

    def send(self, address: int, data: int) -> None:
        """Have the client write 4 bytes, the message of an interrupt, once it may be sent."""
        if not self._agreed:
            return
        self._number = (self._number + 1) & 0xFFFF
        message = pack_write(self._number, WRITE, WRITE_SIZE, NO_REPLY, 0, address, 4, data)
        self._outgoing.append(message)

    def take(self) -> bytes:
        """What is to be sent although no command of the client asked for it."""
        data = b"".join(self._outgoing)
        self._outgoing.clear()
        return data

    def close(self) -> None:
        """The connection is gone: keep nothing of it."""
        for each in self._waiting:
            each.close()
        self._waiting = []
        self._pieces.clear()
        self._outgoing.clear()
        self._interrupts.close()
        self._memory.close()

    def _access(self, message: bytes) -> bytes:
        """The reply to a read or write of a region, nothing if it wants none."""
        number, command, size, flags, _, offset, region, count = unpack_access(message)
        self.handled += 1
        found = b""
        try:
            if command == READ and size == ACCESS_SIZE:
                found = self._read(region, offset, count)
            elif command != READ and size == ACCESS_SIZE + count:
                self._write(region, offset, message[ACCESS_SIZE:])
            else:
                raise RequestError(errno.EINVAL)
        except RequestError as refused:
            return b"" if flags & NO_REPLY else _refusal(number, command, refused.number)
        if flags & NO_REPLY:
            return b""
        size = ACCESS_SIZE + len(found)
        return pack_access(number, command, size, REPLY, 0, offset, region, count) + found

    def _handle(self, message: bytes, descriptors: Sequence[Descriptor]) -> bytes:
        """The reply to any other message, nothing if it wants none."""
        number, command, _, flags, _ = unpack_header(message)
        self.handled += 1
        answer, error = b"", 0
        left = [*descriptors] if descriptors else []
        try:
            if flags & TYPE == REPLY:
                return b""  # no command of ours asks for one
            if flags & TYPE or not (self._agreed or command == VERSION):
                raise RequestError(errno.EINVAL)
            answer = self._commands.get(command, _unknown)(message[HEADER_SIZE:], left)
        except RequestError as refused:
            error = refused.number
        except ConstructError:
            error = errno.EINVAL
        finally:
            for each in left:
                each.close()
        if flags & NO_REPLY:
            return b""
        if error:
            return _refusal(number, command, error)
        return pack_header(number, command, HEADER_SIZE + len(answer), REPLY, 0) + answer

    def _version(self, body: bytes, _: list[Descriptor]) -> bytes:
        asked = m.Version.parse(body)
        if self._agreed or asked.major != 0:
            raise RequestError(errno.EINVAL)
        theirs = _capabilities(asked.data)
        shared = {name: value for name, value in CAPABILITIES.items() if name in theirs}
        self._agreed = True
        data = json.dumps({"capabilities": shared}).encode() + b"\0"
        return bytes(m.Version.build({"major": 0, "minor": 0, "data": data}))

    def _dma_map(self, body: bytes, descriptors: list[Descriptor]) -> bytes:
        asked = _parsed(m.DmaMap, body)
        if not asked.flags & m.DmaFlag.READ or len(descriptors) > 1:
            raise RequestError(errno.EINVAL)
        fd = descriptors[0].number if descriptors else None
        read_only = not asked.flags & m.DmaFlag.WRITE
        self._memory.map(asked.address, asked.size, fd, asked.offset, read_only=read_only)
        return b""

    def _dma_unmap(self, body: bytes, _: list[Descriptor]) -> bytes:
        asked = _parsed(m.DmaUnmap, body)
        self._memory.unmap(asked.address, asked.size)
        return body

    def _get_info(self, body: bytes, _: list[Descriptor]) -> bytes:
        _parsed(m.DeviceInfo, body)
        return _info(
            m.DeviceInfo,
            flags=m.DeviceFlag.RESET | m.DeviceFlag.PCI,
            num_regions=m.REGIONS,
            num_irqs=len(m.Irq),
        )

    def _get_region_info(self, body: bytes, _: list[Descriptor]) -> bytes:
        index = _parsed(m.RegionInfo, body).index
        size = self._device.region_size(index)
        flags = m.RegionFlag.READ | m.RegionFlag.WRITE if size else 0
        return _info(m.RegionInfo, flags=flags, index=index, cap_offset=0, size=size, offset=0)

    def _get_irq_info(self, body: bytes, _: list[Descriptor]) -> bytes:
        index = _parsed(m.IrqInfo, body).index
        flags = m.IrqFlag.EVENTFD
        if index == m.Irq.INTX:
            flags |= m.IrqFlag.MASKABLE | m.IrqFlag.AUTOMASKED
        else:
            flags |= m.IrqFlag.NORESIZE
        count = self._interrupts.count(index)
        return _info(m.IrqInfo, flags=flags, index=index, count=count)

    def _set_irqs(self, body: bytes, descriptors: list[Descriptor]) -> bytes:
        asked = m.IrqSet.parse(body)
        self._interrupts.set(
            asked.index, asked.start, asked.count, asked.flags, asked.data, descriptors
        )
        return b""

    def _region_write_multi(self, body: bytes, _: list[Descriptor]) -> bytes:
        asked = m.WriteMulti.parse(body)
        for each in asked.writes:
            if each.count > len(each.data):
                raise RequestError(errno.EINVAL)
            self._device.write(each.region, each.offset, each.data[: each.count])
        return body[:8]

    def _reset(self, body: bytes, _: list[Descriptor]) -> bytes:
        if body:
            raise RequestError(errno.EINVAL)
        self._device.reset()
        return b""


def _too_short(_: bytes, __: list[Descriptor]) -> bytes:
    raise RequestError(errno.EINVAL)


def _unknown(_: bytes, __: list[Descriptor]) -> bytes:
    raise RequestError(errno.EOPNOTSUPP)


def _refusal(number: int, command: int, error: int) -> bytes:
    return pack_header(number, command, HEADER_SIZE, REPLY | m.ERROR, error)


def _parsed(layout: Any, body: bytes) -> Any:
    """The numbers of a body that has to have exactly this layout."""
    if len(body) != layout.sizeof():
        raise RequestError(errno.EINVAL)
    return layout.parse(body)


def _info(layout: Any, **values: int) -> bytes:
    return bytes(layout.build({"argsz": layout.sizeof(), **values}))


def _capabilities(data: bytes) -> dict[str, Any]:
    """What the client says that it can do, from the JSON of its version."""
    text = data.rstrip(b"\0")
    try:
        said = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise RequestError(errno.EINVAL) from error
    capabilities = said.get("capabilities", {}) if isinstance(said, dict) else None
    if not isinstance(capabilities, dict):
        raise RequestError(errno.EINVAL)
    return capabilities
