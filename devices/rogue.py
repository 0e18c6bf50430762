"""What a rogue device does, by name: attacks known from public work, for a function of any model.

A behaviour sends its requests past the model and its bus master enable, as hardware does that
keeps to no rule. As data it also says what stops it, with what already in place; ``vtd.defences``
plays each on a small machine, and the tests hold the data against that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from devices.dma import Completion, DmaPort
from devices.function import PciFunction
from devices.source_id import SourceId
from devices.topology import Topology

MARK = b"written by the rogue device"
"""What it writes where it should not."""
LARGE = b"\xff\xff\0\0"
"""A length in a descriptor that its driver would not accept."""
PAGE = 4096


class Keeper(Enum):
    """Who keeps a defence up."""

    VTD = "VT-d"
    ACS = "ACS"
    SOFTWARE = "software"


class Defence(Enum):
    """What may stop a rogue device: a name, who keeps it up, and what it means."""

    TRANSLATION = "translation", Keeper.VTD, "translation on, a domain for each device (3)"
    REMOVED = "removed", Keeper.VTD, "pages unmapped and invalidated when a driver is done (6.5)"
    READ_ONLY = "read-only", Keeper.VTD, "pages that a device only reads mapped without W (3.7)"
    NO_ATS = "no-ats", Keeper.VTD, "translated requests not allowed for it (4.2.4, DTE)"
    INTERRUPTS = "interrupts", Keeper.VTD, "interrupt remapping, messages verified (5)"
    PROTECTED_MEMORY = "protected-memory", Keeper.VTD, "protected regions until then (11.4.8)"
    SOURCE_VALIDATION = "source-validation", Keeper.ACS, "ports check requester ids (SV)"
    TRANSLATION_BLOCKING = "translation-blocking", Keeper.ACS, "ports stop translated requests (TB)"
    REDIRECT = "redirect", Keeper.ACS, "ports send peer-to-peer requests to the root (RR)"
    OWN_PAGES = "own-pages", Keeper.SOFTWARE, "buffers share no page with anything else"
    COPY = "copy", Keeper.SOFTWARE, "what a device wrote is copied before it is checked"
    PORT_OFF = "port-off", Keeper.SOFTWARE, "bus mastering off in the port above"

    def __init__(self, key: str, keeper: Keeper, text: str) -> None:
        self.key = key
        self.keeper = keeper
        self.text = text


class Sights(NamedTuple):
    """Addresses and ids that the device has found out."""

    own: int
    """A buffer that it may use, as its driver gave it to it."""
    length: int
    """Bytes of that buffer."""
    foreign: int
    """Memory of another device, as that device would name it."""
    physical: int
    """The same, as a host physical address."""
    own_physical: int
    """The host physical address of its buffer."""
    elsewhere: SourceId
    """The id of that other device, which is behind another port."""
    neighbour: SourceId
    """The id of a function that is behind the same port as the device."""
    message: tuple[int, bytes]
    """Address and data of an interrupt that is not its own."""
    peer: int
    """A register of a function behind the same switch."""


class Rogue:
    """A function of any model that keeps to no rule; ``port_as`` is the way of a chosen id."""

    def __init__(
        self,
        function: PciFunction,
        topology: Topology,
        port_as: Callable[[PciFunction, SourceId], DmaPort],
        sights: Sights,
    ) -> None:
        self.function = function
        self.sights = sights
        self._topology = topology
        self._port_as = port_as

    def write(self, address: int, data: bytes) -> Completion:
        """Write under its own id, whatever its command register says."""
        return self.function.port.way().write(address, data)

    def write_as(self, source_id: SourceId, address: int, data: bytes) -> Completion:
        """Write under another id."""
        return self._port_as(self.function, source_id).write(address, data)

    def write_translated(self, address: int, data: bytes) -> Completion:
        """Write to an address that it says it was given."""
        return self.function.port.way().write_translated(address, data)


class When(Enum):
    """What has happened before."""

    BOOT = "firmware runs, and software switches nothing on before it is over"
    UNUSED = "no driver has taken the device yet"
    IN_USE = "a driver uses it"
    RELEASED = "its driver has switched bus mastering off and its buffer is used by others"


@dataclass(frozen=True)
class Behaviour:
    """One thing that a rogue device does."""

    name: str
    text: str
    act: Callable[[Rogue], Completion]
    in_place: tuple[Defence, ...]
    """What does not stop it. Without translation, addresses are physical."""
    stopped_by: tuple[Defence, ...]
    """Each of them alone, added to what is in place."""
    when: When = When.IN_USE
    ats: bool = False
    """Whether software allows it translated requests."""
    source: str = ""
    """Public work that describes it."""


WHITE_RABBIT = "Wojtczuk and Rutkowska, Following the White Rabbit, 2011"
SPOOFING = "Sang, Lacombe, Nicomette, Deswarte, Exploiting an I/OMMU vulnerability, 2010"
EARLY = "Morgan, Alata, Nicomette, Kaaniche, Bypassing IOMMU protection against I/O attacks, 2016"
THUNDERCLAP = "Markettos et al., Thunderclap, 2019"
COPYING = "Markuze, Morrison, Tsafrir, True IOMMU protection from DMA attacks, 2016"
PCIE = "PCI Express Base Specification 6.12"

BEHAVIOURS = (
    Behaviour(
        "early-boot",
        "writes to memory while firmware runs: what comes later finds it changed",
        lambda rogue: rogue.write(rogue.sights.physical, MARK),
        (),
        (Defence.PROTECTED_MEMORY, Defence.PORT_OFF),
        When.BOOT,
        source=EARLY,
    ),
    Behaviour(
        "before-enable",
        "does DMA although bus mastering is off and no driver has taken it",
        lambda rogue: rogue.write(rogue.sights.physical, MARK),
        (),
        (Defence.TRANSLATION, Defence.PROTECTED_MEMORY, Defence.PORT_OFF),
        When.UNUSED,
        source=EARLY,
    ),
    Behaviour(
        "after-release",
        "goes on with DMA after its driver has switched bus mastering off",
        lambda rogue: rogue.write(rogue.sights.own, MARK),
        (Defence.TRANSLATION,),
        (Defence.REMOVED, Defence.READ_ONLY, Defence.PORT_OFF),
        When.RELEASED,
        source=COPYING,
    ),
    Behaviour(
        "spoof-elsewhere",
        "sends with the requester id of a device behind another port",
        lambda rogue: rogue.write_as(rogue.sights.elsewhere, rogue.sights.foreign, MARK),
        (Defence.TRANSLATION, Defence.INTERRUPTS),
        (Defence.SOURCE_VALIDATION, Defence.PORT_OFF),
        source=SPOOFING,
    ),
    Behaviour(
        "spoof-neighbour",
        "sends with the requester id of another function behind its port",
        lambda rogue: rogue.write_as(rogue.sights.neighbour, rogue.sights.foreign, MARK),
        (Defence.TRANSLATION, Defence.INTERRUPTS, Defence.SOURCE_VALIDATION, Defence.REDIRECT),
        (Defence.PORT_OFF,),
        source=SPOOFING,
    ),
    Behaviour(
        "translation-forged",
        "sends translated requests of addresses that it never obtained",
        lambda rogue: rogue.write_translated(rogue.sights.physical, MARK),
        (Defence.TRANSLATION, Defence.SOURCE_VALIDATION),
        (Defence.NO_ATS, Defence.TRANSLATION_BLOCKING, Defence.PORT_OFF),
        ats=True,
        source=THUNDERCLAP,
    ),
    Behaviour(
        "translation-kept",
        "uses a translation that it was told to drop",
        lambda rogue: rogue.write_translated(rogue.sights.own_physical, MARK),
        (Defence.TRANSLATION, Defence.REMOVED),
        (Defence.NO_ATS, Defence.TRANSLATION_BLOCKING, Defence.PORT_OFF),
        When.RELEASED,
        ats=True,
        source=THUNDERCLAP,
    ),
    Behaviour(
        "interrupt-forged",
        "writes into the interrupt range, so that a processor gets any vector",
        lambda rogue: rogue.write(*rogue.sights.message),
        (Defence.TRANSLATION,),
        (Defence.INTERRUPTS, Defence.PORT_OFF),
        source=WHITE_RABBIT,
    ),
    Behaviour(
        "descriptor-changed",
        "changes a descriptor between the driver's check and its use",
        lambda rogue: rogue.write(rogue.sights.own, LARGE),
        (Defence.TRANSLATION, Defence.OWN_PAGES),
        (Defence.COPY, Defence.READ_ONLY, Defence.PORT_OFF),
        source=THUNDERCLAP,
    ),
    Behaviour(
        "overrun-in-page",
        "writes beyond its buffer, to what else is in the page",
        lambda rogue: rogue.write(rogue.sights.own + rogue.sights.length, MARK),
        (Defence.TRANSLATION,),
        (Defence.OWN_PAGES, Defence.READ_ONLY, Defence.PORT_OFF),
        source=COPYING,
    ),
    Behaviour(
        "overrun-beyond",
        "writes beyond its buffer, to the next page",
        lambda rogue: rogue.write(rogue.sights.own + PAGE, MARK),
        (Defence.OWN_PAGES,),
        (Defence.TRANSLATION, Defence.PORT_OFF),
        source=COPYING,
    ),
    Behaviour(
        "peer-write",
        "writes to a register of a device behind the same switch",
        lambda rogue: rogue.write(rogue.sights.peer, MARK[:4]),
        (Defence.TRANSLATION, Defence.SOURCE_VALIDATION),
        (Defence.REDIRECT, Defence.PORT_OFF),
        source=PCIE,
    ),
)
"""Everything that is known to be tried."""
