"""The table: every row with its target, and how large what it measures is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rows import Figure, Goal, Row, Unit

KIB = 1024


@dataclass(frozen=True)
class Scale:
    """How large what is measured is, and how often it is measured at most."""

    many_keys: int = 1_000_000
    limited_keys: int = 10_000
    idle_keys: int = 100_000  # for memory
    evicted: tuple[int, ...] = (20_000, 100_000)
    waiters: int = 10_000
    gateways: tuple[int, ...] = (1_000, 10_000)
    workers: int = 16
    calls: int = 100
    opened: int = 40
    lifetimes: int = 3  # of the sessions of steady callers
    rounds: int = 5


FULL = Scale()
# To see that a change does what it should: too little for figures that are quoted.
QUICK = Scale(
    many_keys=50_000,
    limited_keys=2_000,
    idle_keys=20_000,
    evicted=(20_000,),
    waiters=2_000,
    gateways=(1_000,),
    workers=2,
    calls=20,
    opened=20,
    lifetimes=1,
    rounds=2,
)


# What one open session costs: title, measure, target.
OPENING: Sequence[tuple[str, str, float, Unit]] = (
    ("session creation, streamable HTTP", "open_seconds", 8e-3, "s"),
    ("memory of an open session, streamable HTTP", "open_bytes", 90 * KIB, "B"),
)


def table(scale: Scale = FULL) -> Sequence[Row]:
    """The rows, those that fill a process's memory last."""
    return [
        *hits(scale),
        *counts(scale),
        *stalls(scale),
        *real_servers(scale),
        *steady_callers(scale),
        *memory(scale),
        *scrapes(scale),
        many_keys(scale),
    ]


def ours(measure: str, is_fresh: bool = False, **options: Any) -> Figure:
    """A figure of this package."""
    return Figure("project", measure, options, is_fresh)


def theirs(measure: str, is_fresh: bool = False, **options: Any) -> Figure:
    """A figure of the gateway's own pool."""
    return Figure("peer", measure, options, is_fresh)


def hits(scale: Scale) -> list[Row]:
    """acquire() and release() of an idle session."""
    hit, twenty = ours("hit"), {"headers": "twenty"}
    keys = scale.limited_keys
    limited = ours("hit", keys=keys, max_total_sessions=2 * keys)
    rounds = scale.rounds
    return [
        Row("hit, 2 headers", hit, theirs("hit"), "peer", "faster", 40, rounds),
        Row("hit, 2 headers", hit, Figure("floor", "hit"), "doing nothing", "slower", 2, rounds),
        Row(
            "async with session()",
            ours("hit_by_session"),
            theirs("hit_by_session"),
            "peer",
            "faster",
            35,
            rounds,
        ),
        Row(
            "hit, 1.5 KB token, 20 headers",
            ours("hit", **twenty),
            theirs("hit", **twenty),
            "peer",
            "faster",
            rounds=rounds,
        ),
        Row("hit, 1.5 KB token, 20 headers", ours("hit", **twenty), hit, "2 headers", "more", 1e-6, rounds),
        # The released peer has no such limit. "The same as without", within what can be told apart.
        Row(
            f"hit, {keys:,} keys, max_total_sessions set",
            limited,
            ours("hit", keys=keys),
            "the same, not set",
            "slower",
            1.1,
            rounds,
        ),
    ]


def counts(scale: Scale) -> list[Row]:
    """One more in one series."""
    return [
        Row(
            "one count, inside C",
            ours("count_in_c"),
            ours("count_natively", how=how),
            name,
            "below",
            10e-9,
            scale.rounds,
        )
        for how, name in (("labels", "labels().inc()"), ("child", "inc() of a kept child"))
    ]


def stalls(scale: Scale) -> list[Row]:
    """What one caller has to do with many others."""
    # The peer never hands over: a release wakes nobody.
    hand_off = Row(
        f"hand-off to 1 of {scale.waiters:,} waiters",
        ours("hand_off", waiters=scale.waiters),
        ours("hand_off", waiters=10),
        "1 of 10",
        "slower",
        1.5,
        scale.rounds,
    )
    return [
        hand_off,
        *(
            Row(
                f"longest pause, {keys:,} idle keys evicted",
                ours("eviction_pause", keys=keys),
                theirs("eviction_pause", keys=keys),
                "peer",
                "below",
                1e-3,
                min(scale.rounds, 3),
                is_worst=True,
            )
            for keys in scale.evicted
        ),
    ]


def real_servers(scale: Scale) -> list[Row]:
    """Sessions of the MCP SDK with a server in another process."""
    rounds = min(scale.rounds, 3)
    calls = {"count": scale.calls}
    through_pool = ours("call_through_pool", **calls)
    what = "tool call through the pool, real server"
    opening = {"is_fresh": True, "count": scale.opened}
    return [
        Row(
            what,
            through_pool,
            ours("call_by_new_session", **calls),
            "a new session for each call",
            "faster",
            rounds=rounds,
        ),
        Row(what, through_pool, theirs("call_through_pool", **calls), "peer", "faster", rounds=rounds),
        Row(
            "the pool's share of it, in a loop",
            ours("hit_real_session"),
            theirs("hit_real_session"),
            "peer",
            "below",
            1e-6,
            rounds,
        ),
        # The processor's caches hold other things then: what does nothing takes microseconds, too.
        Row(
            "the pool's share of it, between calls",
            ours("hit_between_calls", **calls),
            Figure("floor", "hit_between_calls", calls),
            "doing nothing",
            "more",
            1e-6,
            rounds,
        ),
        Row(
            "the pool's share of it, between calls",
            ours("hit_between_calls", **calls),
            theirs("hit_between_calls", **calls),
            "peer",
            "faster",
            rounds=rounds,
        ),
        *(
            Row(
                title,
                ours(measure, **opening),
                theirs(measure, **opening),
                "peer",
                "below",
                target,
                rounds,
                unit,
            )
            for title, measure, target, unit in OPENING
        ),
        # What the project adds to the least that there is to do.
        Row(
            OPENING[0][0],
            ours("open_seconds", **opening),
            ours("open_seconds_by_sdk", **opening),
            "the SDK alone, TLS shared",
            "faster",
            rounds=rounds,
        ),
    ]


def steady_callers(scale: Scale) -> list[Row]:
    """Callers at a steady pace while their sessions end, which live 5 s and take 0.5 s to open. A call that
    is refused or fails leaves its row unmeasured.
    """
    lifetimes: dict[str, Any] = {"lifetimes": scale.lifetimes}
    rounds = min(scale.rounds, 3)
    one_a_key = {"max_sessions_per_key": 1, **lifetimes}
    two_callers = {"callers": 2, **lifetimes}
    return [
        Row(
            "steady caller, p99 of a call",
            ours("steady_p99", **lifetimes),
            theirs("steady_p99", **lifetimes),
            "peer",
            "faster",
            rounds=rounds,
        ),
        Row(
            "steady caller, p99 divided by p50",
            ours("steady_p99_to_p50", **lifetimes),
            theirs("steady_p99_to_p50", **lifetimes),
            "peer",
            "below",
            1.5,
            rounds,
            "times",
        ),
        Row(
            "steady caller, limit 1 a key: most sessions at once",
            ours("steady_most_sessions", **one_a_key),
            ours("steady_most_sessions", **lifetimes),
            "the limit not set",
            "below",
            1,
            1,
            "sessions",
        ),
        # The released peer has no such limit.
        Row(
            "2 steady callers, limit 2 in total: most sessions at once",
            ours("steady_most_sessions", max_total_sessions=2, **two_callers),
            ours("steady_most_sessions", **two_callers),
            "the limit not set",
            "below",
            2,
            1,
            "sessions",
        ),
    ]


def memory(scale: Scale) -> list[Row]:
    """What a pool of idle sessions takes."""
    options = {"is_fresh": True, "count": scale.idle_keys}
    rounds = min(scale.rounds, 2)  # it hardly differs from one to the next
    titles = (
        ("session_object_bytes", "session object", 250),
        ("idle_key_bytes", f"idle key beyond its session object, {scale.idle_keys:,} keys", 500),
    )
    return [
        Row(what, ours(measure, **options), theirs(measure, **options), "peer", "below", target, rounds, "B")
        for measure, what, target in titles
    ]


def scrapes(scale: Scale) -> list[Row]:
    """One page, compared with the same series as native metrics of prometheus_client."""
    # Both by prometheus_client.generate_latest() but where C writes the text.
    kinds: list[tuple[str, str, int, Goal, float | None]] = [
        ("the pool's collector", "collector", scale.gateways[0], "slower", 0.6),
        # The least that a collector's scrape can take there.
        ("samples that are there already", "ready", scale.gateways[0], "slower", None),
        *(("text by C", "c", gateways, "faster", 50) for gateways in scale.gateways),
    ]
    rows = [
        Row(
            f"scrape, {gateways:,} gateways, {what}",
            ours("scrape", writer=writer, gateways=gateways),
            ours("scrape", writer="native", gateways=gateways),
            "the same series as native metrics",
            goal,
            target,
            min(scale.rounds, 3 if gateways < 5_000 else 1),  # those of 10,000 take half a minute
        )
        for what, writer, gateways, goal, target in kinds
    ]
    size = {"workers": scale.workers, "gateways": scale.gateways[0]}
    over_workers = Row(
        f"scrape, {size['workers']} workers, {size['gateways']:,} gateways each",
        ours("scrape_workers", writer="c", **size),
        ours("scrape_workers", writer="native", **size),
        "MultiProcessCollector, same series",
        "faster",
        80,
        rounds=1,
    )
    return [*rows, over_workers]


def many_keys(scale: Scale) -> Row:
    """How the hit grows; 5,000 of the keys are used, taken at random."""
    return Row(
        f"hit, {scale.many_keys:,} keys",
        ours("hit", keys=scale.many_keys),
        ours("hit"),
        "1 key",
        "slower",
        2,
        scale.rounds,
    )
