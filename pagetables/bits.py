"""Bit records: declare a binary entry or register once, with the bit numbers printed for it.

A declaration yields the construct codec, the named fields, the masks of the hot path and the
reserved mask. A record is an ``int``, so no bit is ever lost on the way through.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Self, TypeVar, overload

if TYPE_CHECKING:
    from construct import Adapter

T = TypeVar("T")


class Access(Enum):
    """How software may touch a register field (VT-d 11.2)."""

    RO = "RO"
    RW = "RW"
    WO = "WO"
    RW1C = "RW1C"
    RW1CS = "RW1CS"
    ROS = "ROS"


class Implementation(NamedTuple):
    """What a unit implements, as far as it decides which bits of an entry are reserved."""

    haw: int = 52
    """Host address width in bits: address bits at and above it are reserved."""
    did_width: int = 16
    """Domain-id width in bits (CAP.ND)."""
    features: frozenset[str] = frozenset()
    """Lower-case mnemonics of the CAP/ECAP flags that are set, such as ``"dt"``."""


class Bits(Generic[T]):
    """One field of a :class:`BitRecord`, bits ``high`` to ``low`` inclusive.

    ``as_`` converts the stored number and must accept every number the field can hold.
    ``shift`` makes the field read and write as its value times ``2**shift``, as addresses do.
    ``needs`` names the capability without which the whole field is reserved, ``limit`` the
    :class:`Implementation` width at and above which bits of the (shifted) value are reserved.
    ``ignored`` fields are never checked; fields that are not declared at all are reserved.
    """

    name: str

    @overload
    def __init__(
        self: Bits[int],
        high: int,
        low: int | None = None,
        *,
        shift: int = 0,
        access: Access = Access.RW,
        needs: str | None = None,
        limit: str | None = None,
        ignored: bool = False,
    ) -> None: ...

    @overload
    def __init__(
        self,
        high: int,
        low: int | None = None,
        *,
        as_: Callable[[int], T],
        access: Access = Access.RW,
        needs: str | None = None,
        ignored: bool = False,
    ) -> None: ...

    def __init__(
        self,
        high: int,
        low: int | None = None,
        *,
        as_: Callable[[int], Any] = int,
        shift: int = 0,
        access: Access = Access.RW,
        needs: str | None = None,
        limit: str | None = None,
        ignored: bool = False,
    ) -> None:
        self.high = high
        self.low = high if low is None else low
        if not 0 <= self.low <= self.high:
            raise ValueError(f"bits {high}:{low} are not in order, highest first")
        self.as_ = as_
        self.shift = shift
        self.access = access
        self.needs = needs
        self.limit = limit
        self.ignored = ignored
        self._values: tuple[Any, ...] = ()
        """Of an enumeration: its members by number."""
        self.max = (1 << self.high - self.low + 1) - 1
        self.mask = self.max << self.low

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name
        if isinstance(self.as_, type) and issubclass(self.as_, Enum):
            # a code without a name is a mistake in the declaration
            self._values = tuple(self.as_(value) for value in range(self.max + 1))

    @overload
    def __get__(self, record: None, owner: type) -> Self: ...

    @overload
    def __get__(self, record: BitRecord, owner: type) -> T: ...

    def __get__(self, record: BitRecord | None, owner: type) -> Self | T:
        if record is None:
            return self
        number: Any = (record >> self.low & self.max) << self.shift
        if self.as_ is not int:
            number = self._values[number] if self._values else self.as_(number)
        value: T = number
        record.__dict__[self.name] = value  # a record never changes: the next time is quicker
        return value

    def place(self, value: int) -> int:
        """The record bits that stand for ``value``; ValueError if the field can't hold it."""
        number = value >> self.shift
        if number << self.shift != value or not 0 <= number <= self.max:
            raise ValueError(
                f"{self.name}: {int(value):#x} does not fit bits {self.high}:{self.low}"
            )
        return number << self.low

    def reserved(self, implementation: Implementation) -> int:
        """The record bits of this field that ``implementation`` reserves."""
        if self.ignored:
            return 0
        if self.needs is not None and self.needs not in implementation.features:
            return self.mask
        if self.limit is None:
            return 0
        width: int = getattr(implementation, self.limit)
        first = max(self.low, self.low - self.shift + width)
        return self.mask >> first << first


def address(
    high: int, low: int, *, shift: int | None = None, needs: str | None = None
) -> Bits[int]:
    """An address field: reads and writes as an address, reserved at and above the HAW."""
    return Bits(high, low, shift=low if shift is None else shift, needs=needs, limit="haw")


def ignored(high: int, low: int | None = None) -> Bits[int]:
    """A field that software may use and hardware never checks."""
    return Bits(high, low, ignored=True)


class _LazyCodec:
    """The codec of a record type, made at first use: translating needs no construct."""

    def __get__(self, record: BitRecord | None, owner: type[BitRecord]) -> Adapter:
        from pagetables.record_codec import record_codec  # noqa: PLC0415 - slow to import

        return record_codec(owner)


_int = int.__new__


class BitRecord(int):
    """An entry of fixed width; subclasses declare its fields with :class:`Bits`."""

    WIDTH: ClassVar[int]
    FIELDS: ClassVar[dict[str, Bits[Any]]]
    RESERVED: ClassVar[int]
    """Bits that belong to no field."""
    codec = _LazyCodec()
    """The construct codec of the record type."""

    def __init_subclass__(cls, *, width: int | None = None) -> None:
        if width is None:
            return
        cls.WIDTH = width
        cls.FIELDS = {name: bits for name, bits in vars(cls).items() if isinstance(bits, Bits)}
        claimed = 0
        for name, bits in cls.FIELDS.items():
            if bits.high >= width:
                raise TypeError(f"{cls.__name__}.{name}: bit {bits.high} is outside {width} bits")
            if claimed & bits.mask:
                raise TypeError(f"{cls.__name__}.{name}: overlaps another field")
            claimed |= bits.mask
        cls.RESERVED = (1 << width) - 1 & ~claimed

    def __new__(cls, value: int = 0) -> Self:
        if value >> cls.WIDTH:
            raise ValueError(f"{cls.__name__}: {value:#x} is not a number of {cls.WIDTH} bits")
        return _int(cls, value)

    @classmethod
    def of(cls, **values: int) -> Self:
        """The record with these field values, everything else 0."""
        return cls(0).replace(**values)

    def replace(self, **values: int) -> Self:
        """A copy with these field values; TypeError or ValueError names the wrong field."""
        number = int(self)
        for name, value in values.items():
            if name not in self.FIELDS:
                raise TypeError(f"{type(self).__name__} has no field {name}")
            bits = self.FIELDS[name]
            number = number & ~bits.mask | bits.place(value)
        return type(self)(number)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """The record stored in ``data``, little-endian; ValueError unless exactly its size."""
        if len(data) * 8 != cls.WIDTH:
            raise ValueError(f"{cls.__name__}: {len(data)} bytes given, {cls.WIDTH // 8} needed")
        return cls(int.from_bytes(data, "little"))

    def pack(self) -> bytes:
        """The record as stored in memory, little-endian."""
        return int(self).to_bytes(self.WIDTH // 8, "little")

    def fields(self) -> dict[str, Any]:
        """Field values by name, in declaration order, without ignored fields."""
        return {name: getattr(self, name) for name, bits in self.FIELDS.items() if not bits.ignored}

    @classmethod
    @functools.cache
    def reserved_mask(cls, implementation: Implementation) -> int:
        """Bits that have to be 0 on a unit of this implementation."""
        mask = cls.RESERVED
        for bits in cls.FIELDS.values():
            mask |= bits.reserved(implementation)
        return mask

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}={_show(value)}" for name, value in self.fields().items() if value
        )
        return f"{type(self).__name__}({shown})"

    __str__ = __repr__


def _show(value: object) -> str:
    if isinstance(value, Enum):
        return value.name
    return hex(value) if type(value) is int and value > 9 else str(value)
