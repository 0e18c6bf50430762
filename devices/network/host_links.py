"""Ways to a network of this computer: a TAP interface, or a pair of Unix datagram sockets.

Both are looked at once a millisecond of the clock that they are given. The sockets carry one frame
a datagram, as QEMU's ``-netdev dgram`` does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import weakref
from collections import deque
from pathlib import Path

from devices.clock import Clock
from devices.network.link import LinkPartner

POLL_NANOSECONDS = 1_000_000
LONGEST = 1 << 16
BURST = 64
"""Frames taken at one look, so that a busy network leaves time for others."""
WAITING = 4096
"""Frames that wait for the other end at most."""
_TUNSETIFF = 0x4004_54CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_INTERFACE_NAME = 15


class HostLinkError(ValueError):
    """A way to the computer's network that can't be opened; the message says which and why."""


class HostLink:
    """Frames through a file descriptor that does not block, one a read."""

    def __init__(self, fd: int, port: LinkPartner, clock: Clock) -> None:
        self._fd, self._port, self._clock = fd, port, clock
        self._waiting: deque[bytes] = deque()
        os.set_blocking(fd, False)
        clock.after(POLL_NANOSECONDS, self._poll)

    def fileno(self) -> int:
        """The descriptor, which becomes readable when a frame is there."""
        return self._fd

    def receive(self, frame: bytes) -> None:
        """Send it on; while the other end is busy some wait, and others are lost."""
        if len(self._waiting) < WAITING:
            self._waiting.append(frame)
            self._flush()

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _send(self, frame: bytes) -> None:
        os.write(self._fd, frame)

    def _flush(self) -> None:
        while self._waiting and self._fd >= 0:
            try:
                self._send(self._waiting[0])
            except BlockingIOError:
                return
            except OSError:
                pass  # nobody is there: lost, as on any network
            self._waiting.popleft()

    def _poll(self) -> None:
        if self._fd < 0:
            return
        self._flush()
        with contextlib.suppress(OSError):
            for _ in range(BURST):
                self._port.receive(os.read(self._fd, LONGEST))
        self._clock.after(POLL_NANOSECONDS, self._poll)


def open_tap(name: str, port: LinkPartner, clock: Clock) -> HostLink:
    """The TAP interface ``name`` of Linux; it may have to exist, and be the user's."""
    encoded = name.encode()
    if not 1 <= len(encoded) <= _INTERFACE_NAME:
        raise HostLinkError(f"tap {name!r}: a name has 1 to {_INTERFACE_NAME} bytes")
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise HostLinkError(f"tap {name}: /dev/net/tun: {error.strerror}") from error
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", encoded, _IFF_TAP | _IFF_NO_PI))
    except OSError as error:
        os.close(fd)
        raise HostLinkError(f"tap {name}: {error.strerror}") from error
    return HostLink(fd, port, clock)


def open_datagrams(local: Path, remote: Path, port: LinkPartner, clock: Clock) -> HostLink:
    """A Unix datagram socket bound to ``local``, whose peer is, or will be, at ``remote``."""
    return _Datagrams(local, remote, port, clock)


class _Datagrams(HostLink):
    """Sends to a path, so that the other end may come later or come back."""

    def __init__(self, local: Path, remote: Path, port: LinkPartner, clock: Clock) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._remote = str(remote)
        try:
            if _is_left_over(local):
                local.unlink()
            self._socket.bind(str(local))
            local.chmod(0o600)
        except OSError as error:
            self._socket.close()
            raise HostLinkError(f"{local}: {error.strerror or error}") from error
        self._end = weakref.finalize(self, _end, self._socket, local)
        super().__init__(self._socket.fileno(), port, clock)

    def _send(self, frame: bytes) -> None:
        self._socket.sendto(frame, self._remote)

    def close(self) -> None:
        self._fd = -1
        self._end()


def _is_left_over(path: Path) -> bool:
    """Whether a socket is there that nobody has open."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as trial:
        try:
            trial.connect(str(path))
        except ConnectionRefusedError:
            return path.is_socket()
        except OSError:
            return False
        return False


def _end(opened: socket.socket, path: Path) -> None:
    opened.close()
    path.unlink(missing_ok=True)
