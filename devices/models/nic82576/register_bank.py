"""The registers as software sees them: one loop over the table, and whoever asked to be told."""

from __future__ import annotations

from collections.abc import Callable

from devices.models.nic82576.registers import ALL, CELLS, DECLARED, KEPT, RESET


class RegisterBank:
    """Values by place, as hardware sees and sets them.

    ``on_read[register]`` answers a read in place of the value; ``on_write[register]`` is told of a
    write after the writable bits have been stored. Both are given the index in the array.
    """

    def __init__(self) -> None:
        self.values = list(RESET)
        self.written = 0
        """How often software changed registers: it needs no second look while that is the same."""
        self.on_read: dict[int, Callable[[int], int]] = {}
        self.on_write: dict[int, Callable[[int, int], None]] = {}

    def reset(self, *, everything: bool) -> None:
        """Every register as after power-on, or those that a software reset concerns."""
        self.written += 1
        kept = [] if everything else [(place, self.values[place]) for place in KEPT]
        self.values[:] = RESET
        for place, value in kept:
            self.values[place] = value

    def read(self, offset: int, size: int) -> int:
        """4 aligned bytes, or 8 as two of them; anything else, and what is no register, reads 0."""
        if size == 8 and not offset & 3:
            return self.read(offset, 4) | self.read(offset + 4, 4) << 32
        cell = CELLS.get(offset)
        if cell is None or size != 4:
            return 0
        register, index = cell
        answer = self.on_read.get(register)
        if answer is not None:
            return answer(index) & ALL
        value, read_clears = self.values[register + index], DECLARED[register].read_clears
        if read_clears:
            self.values[register + index] = value & ~read_clears
        return value & ALL

    def write(self, offset: int, size: int, value: int) -> None:
        """4 aligned bytes, or 8 as two of them; anything else is dropped."""
        if size == 8 and not offset & 3:
            self.write(offset, 4, value & ALL)
            self.write(offset + 4, 4, value >> 32)
            return
        cell = CELLS.get(offset)
        if cell is None or size != 4:
            return
        self.written += 1
        register, index = cell
        declared, place = DECLARED[register], register + index
        after = self.values[place] & ~declared.writable | value & declared.writable
        self.values[place] = after & ~(value & declared.cleared)
        react = self.on_write.get(register)
        if react is not None:
            react(index, value)
