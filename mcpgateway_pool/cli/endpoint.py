"""Whether a metrics endpoint shows the pool's series, the same ones each time, and what they tell."""

from __future__ import annotations

from collections.abc import Iterator

from mcpgateway_pool.prometheus.collector import PREFIX
from mcpgateway_pool.redact import safe_text

from .common import CommandError
from .fetch import Source
from .findings import Finding, fine, hint, problem, warning
from .scrape import ALL, Scrape, read
from .window import Window

_THE_SIX = (
    "hits_total",
    "misses_total",
    "evictions_total",
    "health_check_failures_total",
    "active_sessions",
    "size",
)
_SCRAPES = 4  # of one endpoint, to see whether the same counters answer each time


def check_endpoint(source: Source | None) -> Iterator[Finding]:
    """Look at several scrapes in a row."""
    if source is None:
        yield hint("endpoint", "not checked; --url URL checks whether it shows the series")
        return
    try:
        newest, went_back = _scrape_often(source)
    except CommandError as error:
        yield problem("endpoint", str(error), error.advice)
        return
    missing = [PREFIX + name for name in _THE_SIX if name not in newest.names]
    if missing and newest.gateways:
        yield problem(
            "endpoint", f"{source.shown} lacks {', '.join(missing)}", "is something filtering series?"
        )
        return
    count = len(newest.gateways)
    yield fine("endpoint", f"{source.shown} shows the pool; gateways: {count:,}")
    if not count:
        yield hint("traffic", "no gateway has a row yet: rows appear with the first acquire")
    if went_back is not None:
        yield problem(
            "workers",
            f"{went_back} went back between two scrapes: several workers, each with its own counters",
            "set MCPGATEWAY_POOL_METRICS_DIR to one directory for all workers of the gateway",
        )
    else:
        yield fine("workers", f"{_SCRAPES} scrapes in a row agree")
    yield from _check_unpooled(newest)
    if newest.get("label_overflow_total", ALL):
        yield warning(
            "labels",
            "some gateways have no row of their own",
            "raise the bound, set_max_gateways(), or forget_gateway() those that were removed",
        )


def _scrape_often(source: Source) -> tuple[Scrape, str | None]:
    """The newest of several scrapes, and a counter that went back between two of them, if any: so soon after
    the one, another worker has answered the other.
    """
    newest, went_back = read(source), None
    for _ in range(_SCRAPES - 1):
        old, newest = newest, read(source)
        went_back = went_back or Window(old, newest).went_back()
    return newest, went_back


_UNPOOLED = {
    "switched_off": (
        hint,
        "MCPGATEWAY_POOL_CALLS_WITHOUT_SESSION is own",
        "unset it, where calls of one user may share sessions with a server",
    ),
    "excepted": (
        hint,
        "MCPGATEWAY_POOL_CALLS_WITHOUT_SESSION names their gateways",
        "take those out of it whose servers may remember one call of a user at the next",
    ),
    "no_user": (
        warning,
        "the gateway authenticates, and did not know who called",
        "have these callers send a token of their own user",
    ),
}


def _check_unpooled(newest: Scrape) -> Iterator[Finding]:
    """Calls that passed the pool by since the workers started, why, and what to set."""
    name = "unpooled_calls_total"
    for reason in newest.values(name):
        count = newest.get(name, ALL, reason)
        if not count:
            continue
        level, why, advice = _UNPOOLED.get(reason, (hint, safe_text(reason, 40), ""))
        most = max(newest.gateways, key=lambda gateway: newest.get(name, gateway, reason), default="")
        shown = safe_text(newest.shown(most), 60)
        yield level(
            "calls",
            f"{count:,.0f} calls passed the pool by ({reason}), most of them to {shown}: {why}",
            advice,
        )
