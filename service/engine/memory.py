"""Returning free memory to the system."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def trim_heap() -> None:
    """Return the free pages of the C heap to the system, where the C library can: glibc.

    By itself glibc keeps them as long as anything behind them is in use, so that a service under load holds more and
    more, and returns nothing after a large document. Takes tens of milliseconds for some hundred megabytes.
    """
    with suppress(AttributeError):  # musl and macOS have no such function, and no such heap
        ctypes.CDLL(None).malloc_trim(0)
