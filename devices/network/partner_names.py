"""Link partners by name, as a machine description asks for them: ``KIND`` or ``KIND:ARGUMENT``."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from pathlib import Path
from weakref import WeakKeyDictionary

from devices.clock import Clock
from devices.network.capture import CapturedFrame, CaptureError, read_capture, write_pcap
from devices.network.host_links import open_datagrams, open_tap
from devices.network.link import LinkPartner, Sink
from devices.network.partners import Responder, replay

_HEADER = write_pcap([])


class CaptureFile:
    """Writes what arrives to a pcap file, frame by frame, until that fails: ``error`` says why.

    A capture that is there already is replaced by the first frame, not before.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self.error: OSError | None = None
        self._path, self._clock = path, clock
        self._mode = "wb"
        self._store(b"", "ab")
        if self.error is None and not path.stat().st_size:
            self._store(_HEADER, "wb")
        if self.error is not None:
            raise CaptureError(f"{path}: {self.error.strerror}")

    def receive(self, frame: bytes) -> None:
        """Append it."""
        if self.error is None:
            data = write_pcap([CapturedFrame(self._clock.now, frame)])
            self._store(data if self._mode == "wb" else data[len(_HEADER) :], self._mode)
            self._mode = "ab"

    def _store(self, data: bytes, mode: str) -> None:
        try:
            with self._path.open(mode) as file:
                file.write(data)
        except OSError as error:
            self.error = error


ENDS = 2


class CableEnd:
    """What a port sends into it comes out at the other of ``ends``, once that is plugged in."""

    def __init__(self, port: LinkPartner, ends: list[CableEnd]) -> None:
        self.port = port
        self._ends = ends

    def receive(self, frame: bytes) -> None:
        """Pass it on."""
        for end in self._ends:
            if end is not self:
                end.port.receive(frame)


def _sink(argument: str, port: LinkPartner, clock: Clock) -> LinkPartner:
    """Takes everything and answers nothing."""
    return Sink()


def _respond(argument: str, port: LinkPartner, clock: Clock) -> LinkPartner:
    """A host of this IPv4 address that can be pinged."""
    return Responder(port, address=ipaddress.IPv4Address(argument).packed)


def _replay(argument: str, port: LinkPartner, clock: Clock) -> LinkPartner:
    """The frames of this capture, once."""
    try:
        frames = read_capture(Path(argument).read_bytes())
    except OSError as error:
        raise CaptureError(f"{argument}: {error.strerror}") from error
    except CaptureError as error:
        raise CaptureError(f"{argument}: {error}") from error
    replay(frames, port, clock)
    return Sink()


def _record(argument: str, port: LinkPartner, clock: Clock) -> LinkPartner:
    """Everything goes into this pcap file."""
    return CaptureFile(Path(argument), clock)


def _tap(argument: str, port: LinkPartner, clock: Clock) -> LinkPartner:
    """This TAP interface of Linux."""
    return open_tap(argument, port, clock)


def _socket(argument: str, port: LinkPartner, clock: Clock) -> LinkPartner:
    """Two paths with a comma between: a Unix datagram socket of ours, and its peer's."""
    local, comma, remote = argument.partition(",")
    if not comma:
        raise ValueError("two paths are needed, with a comma between them")
    return open_datagrams(Path(local), Path(remote), port, clock)


_cables: WeakKeyDictionary[Clock, dict[str, list[CableEnd]]] = WeakKeyDictionary()
"""The cables of each machine, which is whatever works by one clock."""


def _cable(argument: str, port: LinkPartner, clock: Clock) -> LinkPartner:
    """The other port of the same machine that has a cable of this name."""
    ends = _cables.setdefault(clock, {}).setdefault(argument, [])
    for end in ends:
        if end.port is port:
            return end
    if len(ends) == ENDS:
        raise ValueError(f"{argument!r} has two ends already")
    ends.append(CableEnd(port, ends))
    return ends[-1]


KINDS: dict[str, Callable[[str, LinkPartner, Clock], LinkPartner]] = {
    "sink": _sink,
    "respond": _respond,
    "replay": _replay,
    "record": _record,
    "tap": _tap,
    "socket": _socket,
    "cable": _cable,
}


def find_partner(name: str, port: LinkPartner, clock: Clock) -> LinkPartner:
    """The partner of that name for a port; ValueError for one that can't be had."""
    kind, _, argument = name.partition(":")
    if kind not in KINDS:
        raise ValueError(f"link: {kind!r} is none of {', '.join(KINDS)}")
    try:
        return KINDS[kind](argument, port, clock)
    except ValueError as error:
        raise ValueError(f"link {kind}: {error}") from error
