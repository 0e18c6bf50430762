"""A kit's image: the payload, a program for one machine, and behind it the cases as a document.

The loader takes the first two; the host keeps the third, to know what the outcomes mean. Left out:
making the program, which :mod:`vtd.conformance.program` does.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from construct import Container, StreamError

from vtd.conformance.devices import Device
from vtd.conformance.format import MOST_DEVICES, PAGE, VERSION, Door, Header, Mode, Scratch
from vtd.recordings.whole_file import read_whole

Json = Any
ENTRY = 0x20
GAP = 0x1_0000
"""Behind what is loaded: loaders put the memory map there."""
LIMIT = 2000
"""Million cycles that one step may take: about a second."""


class KitError(ValueError):
    """A kit, probe or result that can't be used: says which, and what is wrong."""


class Output(NamedTuple):
    """Where results leave the machine."""

    door: Door
    port: int


DEBUG_CONSOLE = Output(Door.PLAIN, 0xE9)
SERIAL = Output(Door.UART, 0x3F8)


@dataclass(frozen=True)
class Image:
    """An image as a file has it."""

    header: Container
    payload: bytes
    """What is loaded, without the header."""
    document: Json
    """The cases and the machine that they are for; empty in an image that probes."""

    @property
    def digest(self) -> bytes:
        """What results name the image by."""
        return bytes(self.header.digest)

    @classmethod
    def parse(cls, data: bytes) -> Image:
        """The image in a file; KitError if it is none, or cut."""
        try:
            header = Header.parse(data)
        except StreamError as error:
            raise KitError("cut: no whole header") from error
        except Exception as error:  # construct has an error of its own for every constant
            raise KitError("not a kit image") from error
        size = header.load_end - header.load_address
        if header.version != VERSION:
            raise KitError(f"an image of version {header.version}, not {VERSION}")
        if len(data) < size or size < Header.sizeof():
            raise KitError(f"cut: {len(data)} of {size} bytes to load")
        try:
            document = json.loads(gzip.decompress(data[size:])) if data[size:] else {}
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise KitError("cut: its cases can't be read") from error
        found = cls(header, data[Header.sizeof() : size], document)
        if found.digest != _digest(found):
            raise KitError("changed since it was built: its digest is another one")
        return found

    def pack(self) -> bytes:
        """The file."""
        document = _packed(self.document) if self.document else b""
        return bytes(Header.build(self.header)) + self.payload + document

    def told(self, output: Output, first: int = 0) -> bytes:
        """What is loaded to begin with case ``first`` and answer by ``output``."""
        header = Container(self.header, door=output.door, port=output.port, first=first)
        return bytes(Header.build(header)) + self.payload


def make_image(
    mode: Mode,
    base: int,
    program: bytes = b"",
    *,
    cases: int = 0,
    unit: int = 0,
    devices: Sequence[Device] = (),
    document: Json = None,
) -> Image:
    """An image that is loaded at ``base`` and whose scratch memory follows it."""
    raw = files("vtd.conformance") / "payload" / "kit.bin"
    code = raw.read_bytes()
    code += bytes(-len(code) % 16)
    padding = [Device(0, 0, 0, 0, 0)] * (MOST_DEVICES - len(devices))
    header = Container(
        header_address=base,
        load_address=base,
        load_end=base + len(code) + len(program),
        bss_end=0,
        entry=base + ENTRY,
        base=base,
        jump=Header.parse(code).jump,
        scratch=base + loaded_size(len(program)),
        unit=unit,
        digest=bytes(16),
        version=VERSION,
        mode=mode,
        program=len(code),
        cases=cases,
        first=0,
        door=DEBUG_CONSOLE.door,
        port=DEBUG_CONSOLE.port,
        limit=LIMIT,
        devices=[each._asdict() for each in (*devices, *padding)],
    )
    image = Image(header, code[Header.sizeof() :] + program, document or {})
    whole = Header.build(Container(header, digest=_digest(image)))
    return Image(Header.parse(whole), image.payload, image.document)


def loaded_size(program: int) -> int:
    """Bytes from the base of an image to its scratch memory."""
    code = len((files("vtd.conformance") / "payload" / "kit.bin").read_bytes())
    return (code + 16 + program + GAP + PAGE - 1) // PAGE * PAGE


def occupied(program: int, output: int) -> int:
    """Bytes of memory that an image takes, scratch memory and output of a case included."""
    return loaded_size(program) + Scratch.SIZE + (output + PAGE - 1) // PAGE * PAGE


def _digest(image: Image) -> bytes:
    plain = Container(image.header, digest=bytes(16))
    data = Header.build(plain) + image.payload + _packed(image.document)
    return hashlib.sha256(data).digest()[:16]


def _packed(document: Json) -> bytes:
    return gzip.compress(json.dumps(document, separators=(",", ":")).encode(), mtime=0)


def read_image(path: Path) -> Image:
    """The image in a file; KitError names it."""
    try:
        return Image.parse(read_whole(path))
    except ValueError as error:
        raise KitError(f"{path}: {error}") from error
