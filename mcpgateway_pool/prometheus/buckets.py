"""The buckets of the histograms: which there are, and how to choose others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Literal

from prometheus_client.utils import floatToGoString

from mcpgateway_pool import _core

Histogram = Literal["acquire_wait_seconds", "create_seconds", "use_seconds"]

_text_of: Callable[[float], str] = floatToGoString
MAX_BUCKETS = _core.BUCKETS_MAX
_NS_PER_SECOND = 1_000_000_000
_LONGEST_SECONDS = 366 * 24 * 3600.0


def set_buckets(histogram: Histogram, bounds: Iterable[float]) -> None:
    """Choose the bounds of a histogram's buckets, for all pools of the process, before the first is made.

    Processes that share counters must choose the same.

    Args:
        histogram: ``"acquire_wait_seconds"``, ``"create_seconds"`` or ``"use_seconds"``.
        bounds: upper bounds in seconds, ascending: 1 to 16 of them, each more than 0 and at most a year. The
            bucket of everything above them comes by itself; a closing ``float("inf")`` is allowed.

    Raises:
        ValueError: an unknown histogram, or bounds other than that.
        TypeError: bounds that are not numbers.
        RuntimeError: a gateway has been counted already, or a pool shares its counters.
    """
    if histogram not in _core.buckets():
        raise ValueError(f"no such histogram: {histogram!r}; there are {', '.join(_core.buckets())}")
    seconds = [float(bound) for bound in bounds]
    if seconds and seconds[-1] == math.inf:
        seconds.pop()
    if not 1 <= len(seconds) <= MAX_BUCKETS:
        raise ValueError(f"a histogram has 1 to {MAX_BUCKETS} bounds, not {len(seconds)}")
    if not all(0 < bound <= _LONGEST_SECONDS for bound in seconds):
        raise ValueError("bounds must be more than 0 seconds and at most a year")
    in_ns = [round(bound * _NS_PER_SECOND) for bound in seconds]
    if not all(low < high for low, high in zip([0, *in_ns], in_ns, strict=False)):
        raise ValueError("bounds must ascend, by a nanosecond at least")
    texts = [_text_of(bound) for bound in seconds]
    _core.set_buckets(histogram, tuple(zip(in_ns, texts, strict=True)))
