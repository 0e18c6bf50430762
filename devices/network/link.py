"""What is at the other end of a network port, and the cable between two of them."""

from __future__ import annotations

from typing import Protocol


class LinkPartner(Protocol):
    """Anything that takes frames: a port of a model, a capture, a generator."""

    def receive(self, frame: bytes) -> None:
        """A frame arrived, without frame check sequence."""
        ...


class NetworkPort(LinkPartner, Protocol):
    """A port: it takes frames, and sends to whatever is attached."""

    def attach(self, partner: LinkPartner | None) -> None:
        """What it sends goes there from now on; None is a cable pulled out."""
        ...


def connect(one: NetworkPort, other: NetworkPort) -> None:
    """Put a cable between two ports."""
    one.attach(other)
    other.attach(one)


class Sink:
    """Keeps what arrives: ``frames``."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def receive(self, frame: bytes) -> None:
        """Keep it."""
        self.frames.append(frame)
