"""Loops that Numba compiles for the processor at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Loop = TypeVar("Loop", bound=Callable[..., Any])


def compiled(*, fastmath: bool) -> Callable[[Loop], Loop]:
    """A loop without the interpreter lock, compiled when it is first called and then kept in Numba's cache."""

    def compile_loop(loop: Loop) -> Loop:
        try:
            return cast(Loop, numba.njit(nogil=True, fastmath=fastmath, cache=True)(loop))
        except RuntimeError:  # no folder that a cache can be written to
            return cast(Loop, numba.njit(nogil=True, fastmath=fastmath)(loop))

    return compile_loop
