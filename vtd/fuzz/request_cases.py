"""Cases with every kind of request: of memory, of translations, of pages, translated, interrupts.

VT-d 3.14, 3.15, 4.2, 7.4. Tables have few flaws or none, and do not change; what is switched off
and on between requests are the functions of the unit, its queue and its root pointer. So nothing
depends on what a unit keeps in caches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from devices.interrupt_messages import RemappableAddress
from vtd.fuzz.case import (
    DEVICES,
    Case,
    Step,
    dma_read,
    mem_read,
    msi,
    reg_read,
    reg_write,
    take_faults,
)
from vtd.fuzz.driver import ModelDriver
from vtd.fuzz.places import DATA, DATA_PAGES, NOWHERE
from vtd.fuzz.strategies import Aim, address_spaces, aims, flaws, supports_scalable
from vtd.layouts.descriptors import InvalidationWaitDescriptor, PageGroupResponseDescriptor
from vtd.layouts.interrupt_entries import CompatibilityAddress
from vtd.unit.registers.capabilities import Capabilities

Draw = st.DrawFn
PAGE_REQUESTS = 0x33_0000
"""The page request queue."""
HEAD, TAIL, QUEUE_ADDRESS, STATUS, CONTROL = 0xC0, 0xC8, 0xD0, 0xDC, 0xE0


@st.composite
def request_cases(draw: Draw, units: st.SearchStrategy[Capabilities]) -> Case:
    """Tables, and requests of every kind to them, with a look at faults and messages."""
    unit = draw(units)
    scalable = supports_scalable(unit) and draw(st.integers(0, 3)) > 0
    driver = ModelDriver(unit, scalable=scalable, device_tlbs=True)
    driver.run(draw(address_spaces()))
    for flaw in draw(st.lists(flaws(driver), max_size=2)):
        driver.emit(flaw.step())
    asks = scalable and "prs" in unit.features
    if asks:
        driver.emit(
            reg_write(QUEUE_ADDRESS, 8, PAGE_REQUESTS),
            reg_write(HEAD, 8, 0),
            reg_write(TAIL, 8, 0),
            reg_write(CONTROL, 4, 0),
        )
    kinds = [*_KINDS, *([_page_request] * 2 if asks else [])]
    for _ in range(draw(st.integers(1, 8))):
        if draw(st.integers(0, 7)) == 0:
            _switch(draw, driver)
        kind = draw(st.sampled_from(kinds))
        driver.emit(kind(draw, draw(aims(driver))))
        driver.emit({"op": "events"}, *take_faults(unit))
    if asks:
        _answer(draw, driver)
    return driver.case("requests")


def _tagged(draw: Draw, aim: Aim, step: Step, *, executes: bool = False) -> Step:
    """PASID, and what only requests with one have: Privileged Mode and Execute Requested."""
    if aim.pasid is None:
        return step
    step["pasid"] = hex(aim.pasid)
    for flag in ("privileged", *(["execute"] if executes else [])):
        if draw(st.integers(0, 2)) == 0:
            step[flag] = True
    return step


def _read(draw: Draw, aim: Aim) -> Step:
    length = draw(st.sampled_from([8, 0, 0, 0x1000]))
    return _tagged(draw, aim, dma_read(aim.device, aim.address, length), executes=length > 0)


def _write(draw: Draw, aim: Aim) -> Step:
    data = draw(st.binary(min_size=4, max_size=8))
    return _tagged(
        draw,
        aim,
        {
            "op": "dma_write",
            "device": aim.device,
            "iova": hex(aim.address + 64),
            "length": len(data),
            "hex": data.hex(),
        },
    )


def _atomic(draw: Draw, aim: Aim) -> Step:
    kind = draw(st.sampled_from(["fetchadd", "swap", "cas"]))
    size = draw(st.sampled_from([4, 8])) * (2 if kind == "cas" else 1)
    data = draw(st.binary(min_size=size, max_size=size))
    where = hex(aim.address + 64 & ~7)
    return _tagged(
        draw,
        aim,
        {
            "op": "dma_atomic",
            "device": aim.device,
            "iova": where,
            "kind": kind,
            "hex": data.hex(),
            "length": size // (2 if kind == "cas" else 1),
        },
    )


def _translate(draw: Draw, aim: Aim) -> Step:
    return _tagged(
        draw,
        aim,
        {
            "op": "ats_translate",
            "device": aim.device,
            "iova": hex(aim.address & ~0xFFF),
            "count": draw(st.integers(1, 3)),
            "no_write": draw(st.booleans()),
        },
        executes=True,
    )


def _translated(draw: Draw, aim: Aim) -> Step:
    where = st.integers(0, DATA_PAGES - 1).map(lambda page: DATA + page * 0x1000 + 64)
    address = draw(st.one_of(where, st.sampled_from([aim.address, NOWHERE])))
    step: dict[str, Any] = {"device": aim.device, "address": hex(address)}
    if draw(st.booleans()):
        return _tagged(draw, aim, {"op": "translated_read", "length": 4, **step})
    return _tagged(draw, aim, {"op": "translated_write", "hex": "5a5a5a5a", "length": 4, **step})


def _message(draw: Draw, aim: Aim) -> Step:
    if draw(st.booleans()):
        index = draw(st.integers(0, 17))
        return msi(aim.device, RemappableAddress.for_handle(index, shv=False), 0)
    address = CompatibilityAddress.of(fee=0xFEE, dst=draw(st.integers(0, 255)))
    return msi(aim.device, address, draw(st.integers(16, 255)))


def _page_request(draw: Draw, aim: Aim) -> Step:
    return _tagged(
        draw,
        aim,
        {
            "op": "page_request",
            "device": aim.device,
            "address": hex(aim.address & ~0xFFF & (1 << 57) - 1),
            "read": draw(st.booleans()),
            "write": draw(st.booleans()),
            "prgi": draw(st.integers(0, 3)),
            "last": draw(st.booleans()),
        },
        executes=True,
    )


_KINDS: list[Callable[[Draw, Aim], Step]] = [
    _read, _write, _atomic, _translate, _translate, _translated, _message
]  # fmt: skip


def _switch(draw: Draw, driver: ModelDriver) -> None:
    """A function of the unit off or on, the queue anew, or the root pointer set once more."""
    features = driver.capabilities.features
    ways: list[Callable[[], None]] = [
        lambda: driver.set_function("te", enabled=draw(st.booleans())),
        lambda: driver.other_root(1),
    ]
    if "ir" in features:
        ways.append(lambda: driver.set_function("ire", enabled=draw(st.booleans())))
    if "qi" in features:
        ways.append(driver.restart_queue)
    draw(st.sampled_from(ways))()


def _answer(draw: Draw, driver: ModelDriver) -> None:
    """What the unit queued, a response to some of it, and a wait that drains."""
    driver.emit(
        mem_read(PAGE_REQUESTS, 0x100), reg_read(TAIL, 8, 0xFFFF_FFFF), reg_read(STATUS, 4, 3)
    )
    for _ in range(draw(st.integers(0, 2))):
        pasid = draw(st.sampled_from([1, 70, None]))
        driver.enqueue(
            PageGroupResponseDescriptor.of(
                rid=draw(st.sampled_from(list(DEVICES.values()))),
                pp=pasid is not None,
                pasid=pasid or 0,
                prgi=draw(st.integers(0, 3)),
                rc=draw(st.sampled_from([0, 1, 15])),
            )
        )
    drains = "pds" in driver.capabilities.features and draw(st.booleans())
    driver.enqueue(InvalidationWaitDescriptor.of(fn=True, pd=drains))
    driver.emit({"op": "page_group_responses"}, reg_read(0x34, 4, 0x70), {"op": "events"})
