"""Kernels that numba compiles, run by Python: an index stays in its array, a word has 64 bits.

Compiled code checks neither.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from unittest import mock

import numba
import numba.extending
import numpy as np

Function = Callable[..., Any]


def words(value: Any) -> Any:
    """An array of words, with Python's integers in it; anything else as it is."""
    return value.data if isinstance(value, np.ndarray) else value


def same(value: Any) -> Any:
    """Whatever it is, as it is."""
    return value


INTRINSICS: dict[str, Function] = {
    "fetch": lambda array, at: None,
    "load": lambda place: ctypes.c_int64.from_address(place).value,
    "pointer": words,
    "save": lambda place, word: ctypes.memmove(place, ctypes.byref(ctypes.c_int64(word)), 8),
}
"""What :mod:`vtd.batch.kernel` has the compiler do, by name."""


@functools.cache
def entries(kernel: ModuleType, convert: Function) -> dict[str, Function]:
    """The functions of a kernel that Python may call, by name; they convert their arguments."""
    made: dict[str, Function] = {}

    def njit(*, no_cpython_wrapper: bool = False, **_: bool) -> Callable[[Function], Function]:
        def compiled(function: Function) -> Function:
            def entry(*arguments: Any) -> Any:
                with np.errstate(over="ignore"):  # unsigned words wrap around
                    return function(*map(convert, arguments))

            if not no_cpython_wrapper:
                made[function.__name__] = entry
            return function

        return compiled

    assert kernel.__file__ is not None
    spec = importlib.util.spec_from_file_location(kernel.__name__, kernel.__file__)
    assert spec is not None and spec.loader is not None
    with (
        mock.patch.object(numba, "njit", njit),
        mock.patch.object(numba.extending, "intrinsic", lambda by: INTRINSICS[by.__name__]),
    ):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return made


@contextmanager
def interpreted(kernel: ModuleType, convert: Function = same) -> Iterator[None]:
    """Have Python run a kernel meanwhile; ``convert`` makes of its arrays what it works on."""
    with mock.patch.dict(vars(kernel), entries(kernel, convert)):
        yield
