"""What a pool owes when nothing is under way: whoever waits has a reason to, what is over is being closed,
and every number is right.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from mcpgateway_pool import MCPSessionPool, PoolCollector
from mcpgateway_pool.prometheus.collector import PREFIX
from model.ahead import audit_replacements, being_opened, is_for_nobody
from model.breaker import EPSILON
from model.fairness import audit_demand, total_is_full, wanted_places
from model.oracle import OPEN, Key, Oracle, State

COUNTERS = (
    "hits",
    "misses",
    "creates",
    "create_failures",
    "health_checks",
    "health_check_failures",
    "circuit_breaker_trips",
    "long_checkouts",
)
ENDINGS = ("acquire_timeouts", "acquire_cancellations")


def predict(oracle: Oracle, key: Key) -> set[str]:
    """What may come of an acquire now: ``hit``, ``create``, ``wait``, ``circuit_open``, ``exhausted``."""
    breaker = oracle.breaker(key.url)
    refuses = breaker.refuses(oracle.now)
    if refuses is False and breaker.is_open and any(one.key.url == key.url for one in oracle.waiting()):
        refuses = None  # the probe may be that of one who waits
    if refuses:
        return _predict_where_refused(oracle, key)
    outcomes = _predict_where_permitted(oracle, key)
    return outcomes if refuses is False else outcomes | _predict_where_refused(oracle, key)


def _predict_where_refused(oracle: Oracle, key: Key) -> set[str]:
    """While the breaker bars creations: what is open serves."""
    idle = oracle.of(key, State.IDLE)
    if any(map(oracle.is_fresh, idle)):
        return {"hit"}
    if not oracle.of(key, State.IDLE, State.ACTIVE, State.CHECKING):
        return {"circuit_open"}
    if 0 < oracle.settings["max_waiters"] <= len(oracle.waiting(key)):
        return {"exhausted"}
    return {"wait", "hit", "circuit_open"} if idle else {"wait"}


def _predict_where_permitted(oracle: Oracle, key: Key) -> set[str]:
    settings = oracle.settings
    idle, waiting, places = oracle.of(key, State.IDLE), oracle.waiting(key), oracle.places(key)
    if any(map(oracle.is_fresh, idle)):
        return {"hit"}
    if 0 < settings["max_waiters"] <= len(waiting):
        return {"exhausted"}
    if not places and not waiting and total_is_full(oracle) and not oracle.idle():
        may_get_one = oracle.of(None, State.CLOSING) or oracle.awaiting_checks()
        if len(being_opened(oracle)) > len(oracle.waiting()):
            return {"wait"}  # nobody is refused for the sake of a session that is opened for nobody
        return {"exhausted", "wait"} if may_get_one or being_opened(oracle) else {"exhausted"}
    used = keys_in_use(oracle)
    # A key whose last sessions are being closed counts no more: it is a new one.
    outcomes = {"exhausted"} if 0 < settings["max_total_keys"] <= len(used) and key not in used else set()
    if idle:
        return outcomes | {"wait", "create", "hit"}  # they need a check, or are over by now
    has_room = len(places) < settings["max_sessions_per_key"] and not total_is_full(oracle)
    if not has_room or is_at_creation_limit(oracle, key):
        outcomes.add("wait")
    elif waiting:
        # With as many checks as waiters, none needed a place. Now the oldest creates, and this one waits.
        outcomes |= {"wait", "create"}
    else:
        outcomes.add("create")
    return outcomes


def is_at_creation_limit(oracle: Oracle, key: Key) -> bool:
    limit = oracle.settings["max_creating_per_url"]
    return 0 < limit <= len(oracle.of(None, State.CREATING, url=key.url))


def keys_in_use(oracle: Oracle) -> set[Key]:
    """Those that no other key may take the place of."""
    sessions = [*oracle.of(None, State.CREATING, State.ACTIVE)]
    sessions = [one for one in sessions if one.state is State.ACTIVE or not is_for_nobody(one)]
    return {session.key for session in sessions} | {caller.key for caller in oracle.waiting()}


def audit(oracle: Oracle, pool: MCPSessionPool, keys: Iterable[Key]) -> None:
    """Raises AssertionError when the pool left something undone, or miscounted."""
    oracle.forget_breakers()
    if not oracle.is_closed:
        for key in keys:
            audit_key(oracle, key)
        audit_demand(oracle)
        oracle.fairness.judge(oracle)
    audit_order(oracle)
    oracle.long_checkouts.audit(oracle.now)
    audit_now(oracle, pool)
    audit_counters(oracle, pool)


def audit_key(oracle: Oracle, key: Key) -> None:
    oracle.check_limits(key)
    idle = oracle.of(key, State.IDLE)
    for session in idle:
        if oracle.waiting(key) and oracle.may_await_check(session):
            continue  # what is over is closed when its check has ended
        over = set(oracle.reasons(session))
        if oracle.now < session.used_at_most + oracle.settings["idle_pool_eviction_seconds"] + EPSILON:
            over.discard("idle_timeout")
        if oracle.now < session.created_at + oracle.settings["session_ttl_seconds"] + EPSILON:
            over.discard("ttl_expired")
        assert not over, f"{session} is left open: {over}"
    waiting = oracle.waiting(key)
    if waiting:
        audit_waiters(oracle, key, waiting)


def audit_waiters(oracle: Oracle, key: Key, waiting: list[Any]) -> None:
    settings = oracle.settings
    checking, closing = oracle.checking(key), oracle.of(key, State.CLOSING)
    idle = oracle.idle(key)
    assert oracle.now <= waiting[0].since + settings["acquire_timeout_seconds"] + EPSILON
    assert not settings["max_waiters"] or len(waiting) <= settings["max_waiters"]
    assert not any(map(oracle.is_fresh, idle)), f"{waiting} wait, {idle} is idle"
    assert not idle or len(checking) + len(closing) > 0, f"{waiting} wait, and nobody checks {idle}"
    breaker = oracle.breaker(key.url)
    refuses = breaker.refuses(oracle.now)
    if refuses:
        # Who waits for a place that is not free yet when a probe begins learns when it is, or when the probe
        # fails.
        is_undecided = breaker.trial is not None and closing
        assert oracle.of(key, State.ACTIVE) or checking or is_undecided, (
            f"{waiting} wait for nothing: the circuit is open"
        )
    elif wanted_places(oracle, key) and refuses is False:
        assert is_at_creation_limit(oracle, key) or total_is_full(oracle), (
            f"{waiting} wait, but there is room"
        )


def audit_order(oracle: Oracle) -> None:
    """Nobody was served before somebody who came earlier, for the same, and still waits."""
    for caller in oracle.waiting():
        overtaking = [
            served for served in oracle.served if served.key == caller.key and served.order > caller.order
        ]
        assert not overtaking, f"{overtaking} overtook {caller}"
    oracle.served.clear()


def audit_now(oracle: Oracle, pool: MCPSessionPool) -> None:
    """The gauges, and that nobody holds what another holds."""
    counts = pool._counts()
    places = Counter(session.state for session in oracle.places())
    expected = {
        "waiters": len(oracle.waiting()),
        "creating": places[State.CREATING],
        "active": places[State.ACTIVE],
        "idle": places[State.IDLE],
        "checking": places[State.CHECKING],
        "closing": places[State.CLOSING],
    }
    shown = {name: counts[name] for name in expected}
    awaiting = shown["checking"] - expected["checking"]
    assert 0 <= awaiting <= len(oracle.awaiting_checks()), f"the pool says {shown}, it should be {expected}"
    expected["checking"] += awaiting
    expected["idle"] -= awaiting
    assert shown == expected, f"the pool says {shown}, it should be {expected}"
    used = {session.key for session in oracle.places()} | {caller.key for caller in oracle.waiting()}
    if oracle.settings["max_total_keys"]:
        assert counts["keys"] <= min(len(used), oracle.settings["max_total_keys"])
    else:
        assert counts["keys"] == len(used)


def series_by_gateway() -> dict[str, dict[tuple[str, ...], float]]:
    """Samples of the collector, by gateway, and by (series,) or (series, reason)."""
    samples: dict[str, dict[tuple[str, ...], float]] = defaultdict(dict)
    for family in PoolCollector().collect():
        for sample in family.samples:
            if "gateway_id" in sample.labels and "le" not in sample.labels:
                name = sample.name.removeprefix(PREFIX).removesuffix("_total")
                reason = (sample.labels["reason"],) if "reason" in sample.labels else ()
                samples[sample.labels["gateway_id"]][name, *reason] = sample.value
    return samples


def audit_counters(oracle: Oracle, pool: MCPSessionPool) -> None:
    """Every counter, by gateway, as a scrape shows it; and the pool's own dict."""
    shown = series_by_gateway()
    for gateway in {session.key.gateway for session in oracle.sessions.values()}:
        audit_gateway(oracle, gateway, shown[gateway])
    metrics = pool.get_metrics()
    for name in ("hits", "misses", "health_check_failures", "circuit_breaker_trips"):
        expected = sum(count for (_, series, *_), count in oracle.counted.items() if series == name)
        assert metrics[name] == expected, (name, metrics[name], expected)
    assert metrics["total_active_sessions"] == len(oracle.of(None, State.ACTIVE))


def audit_gateway(oracle: Oracle, gateway: str, shown: dict[tuple[str, ...], float]) -> None:
    def expected(*series: str) -> int:
        return oracle.counted[(gateway, *series)]

    def now(*states: State) -> int:
        return sum(session.key.gateway == gateway for session in oracle.of(None, *states))

    for name in COUNTERS:
        if name == "create_failures" and oracle.is_closed:
            continue  # creations cancelled before they began count, too
        assert shown[(name,)] == expected(name), (name, shown[(name,)], expected(name))
    evictions = 0
    for (name, *reason), value in shown.items():
        if name == "evictions":
            evictions += int(value)
            assert value == expected(name, *reason), (name, reason, value, expected(name, *reason))
    audit_replacements(oracle, gateway, shown[("replacements",)])
    size = now(*OPEN)
    held = sum(
        session.holder is not None
        for session in oracle.of(None, State.ACTIVE)
        if session.key.gateway == gateway
    )
    assert shown[("size",)] == size
    assert shown[("active_sessions",)] == now(State.ACTIVE)
    assert shown[("idle_sessions",)] == size - now(State.ACTIVE)
    assert shown[("creates",)] == size + evictions
    assert shown[("create_seconds_count",)] == shown[("creates",)]
    assert shown[("use_seconds_count",)] + held == shown[("hits",)] + shown[("misses",)]
    waiting = sum(caller.key.gateway == gateway for caller in oracle.waiting())
    assert shown[("waiters",)] == waiting
    assert (shown[("oldest_waiter_seconds",)] > 0) <= (waiting > 0)
    tripped = sum(breaker.tripped_by == gateway for breaker in oracle.breakers.values())
    assert oracle.is_closed or shown[("circuit_breakers_open",)] == tripped  # no upkeep forgets, then
    audit_endings(oracle, expected, shown)


def audit_endings(oracle: Oracle, expected: Any, shown: dict[tuple[str, ...], float]) -> None:
    """Acquires that were not answered. One that was cancelled when it had failed already, unknown to its
    caller, may be counted as either.
    """
    names = [(name,) for name in ENDINGS]
    names += [("acquire_rejections", reason) for reason in ("circuit_open", "exhausted", "queue_full")]
    if oracle.is_closed:
        return
    if oracle.is_raced:
        assert sum(shown[name] for name in names) == sum(expected(*name) for name in names)
        return
    for name in names:
        assert shown[name] == expected(*name), (name, shown[name], expected(*name))
