"""Sessions that are opened for nobody, told by what can be seen from outside; a part of the oracle.

The contract: a session of a key in use that nears the end of its life is replaced, a key in use keeps
``min_idle`` sessions ready, and ``warm()`` opens as many as it was asked for. All that inside the limits, in
places that nobody wants, a few at a time for each URL, and not where the URL's breaker is open. That it fails
is no failure of the breaker. Nobody is refused for its sake.
"""

from __future__ import annotations

from typing import Any

from model.breaker import EPSILON

# Of these at one URL at once: a quarter of what may be opened there, no more than this.
MOST_AHEAD = 8


class Nobody:
    """Stands where the caller of a creation does.

    Attributes:
        key: of the session.
        is_warm: it was asked for by ``warm()``.
        injected: what a creation was made to raise.
    """

    order = 0
    own = error = session = None
    is_cancelled = is_answered = False

    def __init__(self, key: Any, *, is_warm: bool = False) -> None:
        self.key = key
        self.is_warm = is_warm
        self.injected: BaseException | None = None

    def __repr__(self) -> str:
        return f"<nobody of {self.key}>"


def is_for_nobody(session: Any) -> bool:
    """Whether it was opened for nobody."""
    return isinstance(session.connection.creator, Nobody)


def being_opened(oracle: Any, key: Any = None, url: str | None = None) -> list[Any]:
    """Those that are being opened for nobody now: of a key, of a URL, or all."""
    return [session for session in oracle.being_created(key, url) if is_for_nobody(session)]


def is_in_use(oracle: Any, key: Any) -> bool:
    """Whether somebody used the key within a lifetime, and within the time of an idle session."""
    settings = oracle.settings
    bound = min(settings["session_ttl_seconds"], settings["idle_pool_eviction_seconds"])
    return bool(oracle.in_use(key)) or oracle.now <= oracle.used_at.get(key, float("-inf")) + bound + EPSILON


def judge(oracle: Any, nobody: Nobody) -> None:
    """A creation for nobody begins: whether it may. Its own place is not taken yet."""
    key, settings = nobody.key, oracle.settings
    limit = settings["max_creating_per_url"]
    assert not oracle.waiting(key), f"{oracle.waiting(key)} wait, and a session is opened for nobody"
    assert not oracle.breaker(key.url).is_open
    assert not oracle.is_single_use(key)
    if nobody.is_warm:
        return
    assert is_in_use(oracle, key), f"{key} is not in use"
    under_way = len(being_opened(oracle, url=key.url))
    assert under_way < (min(MOST_AHEAD, max(1, limit // 4)) if limit else MOST_AHEAD)
    assert not limit or len(oracle.creating(key.url)) + 1 < limit, "no other creation could begin beside it"
    assert may_replace(oracle, key) or is_short(oracle, key), f"a session of {key} is opened for nothing"


def may_replace(oracle: Any, key: Any) -> bool:
    """Whether a session of the key is in the second half of its life."""
    ttl = oracle.settings["session_ttl_seconds"]
    return oracle.settings["replace_sessions"] and any(
        session.created_at + ttl / 2 - EPSILON <= oracle.now < session.created_at + ttl
        for session in oracle.open(key)
    )


def is_short(oracle: Any, key: Any) -> bool:
    """Whether the key has fewer sessions ready than it is to have."""
    ready = len(oracle.ready(key)) + len(being_opened(oracle, key))
    return ready < oracle.settings["min_idle"]


def count_opened(oracle: Any, nobody: Nobody) -> None:
    """One was opened. A replacement and a reserve look the same, where both may be."""
    if not nobody.is_warm:
        certain = oracle.settings["min_idle"] == 0
        oracle.count(nobody.key, "replacements" if certain else "perhaps_replacements")


def audit_replacements(oracle: Any, gateway: str, shown: float) -> None:
    """The counter."""
    certain = oracle.counted[gateway, "replacements"]
    assert certain <= shown <= certain + oracle.counted[gateway, "perhaps_replacements"]
