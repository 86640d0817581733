"""The oracle: what the contract lets a pool do, and what it owes, told by what can be seen from outside.

It is told what callers do (``arrived``, ``releasing``, …) and what the pool does (the methods of
``controlled.Observer``), each at the moment at which it happens, and judges it there. ``audit.py`` judges
what the pool left undone, when nothing is under way.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from enum import Enum, auto
from typing import Any, NamedTuple

from mcpgateway_pool import (
    AcquireTimeoutError,
    CircuitOpenError,
    PoolClosedError,
    PoolExhaustedError,
    SessionCreateTimeoutError,
)
from mcpgateway_pool.tasks import CANCEL_GRACE_SECONDS
from model.ahead import Nobody, count_opened, is_for_nobody, judge
from model.breaker import EPSILON, Breaker
from model.controlled import Connection
from model.fairness import Fairness
from model.long_checkouts import LongCheckouts


class Key(NamedTuple):
    """Who acquires what: callers with equal keys share sessions."""

    url: str
    user: str
    gateway: str
    token: str = ""
    downstream: str = ""

    @property
    def headers(self) -> dict[str, str]:
        headers = {"Authorization": self.token, "X-Mcp-Session-Id": self.downstream}
        return {name: value for name, value in headers.items() if value}


class State(Enum):
    CREATING = auto()
    ACTIVE = auto()
    IDLE = auto()
    CHECKING = auto()
    CLOSING = auto()
    GONE = auto()


PLACES = (State.CREATING, State.ACTIVE, State.IDLE, State.CHECKING, State.CLOSING)
OPEN = (State.ACTIVE, State.IDLE, State.CHECKING)


class Session:
    """One connection of the pool, from the begin of its creation.

    Attributes:
        holder: the caller that has it.
        used_at, used_at_most: when it was last used; between these, where a grant was undone unseen.
        verified_at: when it was last known to be well; ``epoch`` is its URL's at that time.
        failed_check: whether its last check failed.
        is_given_up: its creation went on long after its time-out: the pool does not know it.
    """

    def __init__(self, connection: Connection, key: Key, now: float, generation: int, epoch: int) -> None:
        self.connection = connection
        self.key = key
        self.state = State.CREATING
        self.holder: Caller | None = None
        self.generation = generation
        self.epoch = self.lease_epoch = epoch
        self.begun_at = self.created_at = self.used_at = self.used_at_most = self.verified_at = now
        self.closing_since = 0.0
        self.closes = 0
        self.is_supply = False
        self.is_broken = self.is_retired = self.is_dropped = self.is_doubtful = False
        self.was_idle_at_opening = self.awaited_check_at_opening = self.is_checked_for_opening = False
        self.failed_check = self.is_given_up = False

    def __repr__(self) -> str:
        return f"<{self.connection} of {self.key}: {self.state.name}>"


class Caller:
    """One acquire.

    Attributes:
        order: of arrival.
        session: that it holds.
        own: that is created for it.
        injected: what its creation was made to raise.
    """

    def __init__(self, key: Key) -> None:
        self.key = key
        self.order = 0
        self.since = 0.0
        self.session: Session | None = None
        self.own: Session | None = None
        self.injected: BaseException | None = None
        self.is_cancelled = False
        self.is_answered = False
        self.error: BaseException | None = None

    @property
    def is_waiting(self) -> bool:
        return self.order > 0 and self.own is None and not self.is_answered and self.error is None

    def __repr__(self) -> str:
        return f"<caller {self.order} of {self.key}>"


class Oracle:
    """See the module.

    Attributes:
        settings: the pool's, by their names.
        counted: the counters expected, by (gateway, series) or (gateway, series, reason).
        fairness: between keys; ``has_supplied``: whether a session was closed to make a place since an audit.
        is_raced: an acquire was cancelled when its end may have been decided already, so that one counter or
            another may have it.
    """

    def __init__(self, settings: dict[str, Any], clock: Callable[[], float]) -> None:
        self.settings = settings
        self.clock = clock
        self.sessions: dict[Connection, Session] = {}
        self.callers: list[Caller] = []
        self.served: list[Caller] = []
        self.breakers: dict[str, Breaker] = {}
        self.epochs: Counter[str] = Counter()
        self.generation = 0
        self.counted: Counter[tuple[str, ...]] = Counter()
        self.used_at: dict[Key, float] = {}  # by a caller, or warmed
        self.is_closed = False
        self.is_raced = False
        self.fairness = Fairness()
        self.long_checkouts = LongCheckouts(settings["leak_detection_seconds"])
        self.has_supplied = False
        self._arrivals = 0

    # ---- reading

    @property
    def now(self) -> float:
        return self.clock()

    def of(self, key: Key | None = None, *states: State, url: str | None = None) -> list[Session]:
        """Sessions of a key, or of a URL, or all, in one of the states."""
        return [
            session
            for session in self.sessions.values()
            if session.state in states
            and (key is None or session.key == key)
            and (url is None or session.key.url == url)
            and not session.is_given_up
        ]

    def idle(self, key: Key | None = None) -> list[Session]:
        """Those that are idle for certain."""
        return [session for session in self.of(key, State.IDLE) if not self.may_await_check(session)]

    def checking(self, key: Key) -> list[Session]:
        """Those under a check, and those that may wait for theirs."""
        return [*self.of(key, State.CHECKING), *self.awaiting_checks(key)]

    def awaiting_checks(self, key: Key | None = None) -> list[Session]:
        return [session for session in self.of(key, State.IDLE) if self.may_await_check(session)]

    def may_await_check(self, session: Session) -> bool:
        """Whether its check may wait for another's end: they are bounded per URL as creations are. One that
        waits for that counts as under a check; unlike its begin, nobody sees when that wait begins.
        """
        limit = self.settings["max_creating_per_url"]
        return (
            session.state is State.IDLE
            and 0 < limit <= len(self.of(None, State.CHECKING, url=session.key.url))
            and self.may_need_check(session)
        )

    def creating(self, url: str) -> list[Session]:
        return self.being_created(None, url)

    def being_created(self, key: Key | None = None, url: str | None = None) -> list[Session]:
        return self.of(key, State.CREATING, url=url)

    def open(self, key: Key) -> list[Session]:
        return self.of(key, *OPEN)

    def ready(self, key: Key) -> list[Session]:
        """Idle, or under a check."""
        return self.of(key, State.IDLE, State.CHECKING)

    def in_use(self, key: Key) -> list[Session]:
        return self.of(key, State.ACTIVE)

    def supply(self) -> list[Session]:
        """Those that are being closed to make a place for somebody."""
        return [session for session in self.places() if session.is_supply and session.state is State.CLOSING]

    def waiting(self, key: Key | None = None) -> list[Caller]:
        return [caller for caller in self.callers if caller.is_waiting and (key is None or caller.key == key)]

    def breaker(self, url: str) -> Breaker:
        if url not in self.breakers:
            settings = self.settings
            self.breakers[url] = Breaker(
                settings["circuit_breaker_threshold"], settings["circuit_breaker_reset_seconds"]
            )
        return self.breakers[url]

    def forget_breakers(self) -> None:
        """The pool forgets a URL that nobody uses, and whose failures are old."""
        in_use = {one.key.url for one in [*self.places(), *self.waiting()]}
        for url, breaker in self.breakers.items():
            if url not in in_use and breaker.is_forgotten(self.now):
                breaker.forget()

    def is_single_use(self, key: Key) -> bool:
        return self.settings["isolation"] == "session" and not key.downstream

    def reasons(self, session: Session) -> Iterator[str]:
        """Why an open session may be closed now, by itself."""
        now = self.now
        if session.is_broken:
            yield "broken"
        if session.is_retired or self.is_closed or session.generation < self.generation:
            yield "manual"
        if now >= session.created_at + self.settings["session_ttl_seconds"] - EPSILON:
            yield "ttl_expired"
        if session.is_dropped:
            yield "leaked"
        if session.failed_check:
            if session.is_checked_for_opening:
                yield "circuit_breaker"
            if not session.is_checked_for_opening or session.awaited_check_at_opening:
                yield "health_check"
        idle_timeout = self.settings["idle_pool_eviction_seconds"]
        if session.state is State.IDLE and now >= session.used_at + idle_timeout - EPSILON:
            yield "idle_timeout"

    def may_need_check(self, session: Session) -> bool:
        interval = self.settings["health_check_interval_seconds"]
        return self.is_suspected(session) or self.now >= session.verified_at + interval - EPSILON

    def is_suspected(self, session: Session) -> bool:
        return (
            session.is_doubtful
            or session.epoch < self.epochs[session.key.url]
            or (session.state is State.IDLE and session.was_idle_at_opening)
        )

    def is_fresh(self, session: Session) -> bool:
        """Whether it is idle, and there is no reason not to hand it out as it is."""
        return (
            session.state is State.IDLE
            and not any(self.reasons(session))
            and not self.may_need_check(session)
        )

    def place_bound(self) -> float:
        """For how long a close keeps its place."""
        return float(self.settings["cleanup_timeout_seconds"] + CANCEL_GRACE_SECONDS)

    def count(self, key: Key, *series: str) -> None:
        self.counted[(key.gateway, *series)] += 1

    # ---- callers

    def arrived(self, caller: Caller) -> None:
        self.forget_breakers()
        self._arrivals += 1
        caller.order = self._arrivals
        caller.since = self.now
        self.callers.append(caller)

    def answered(self, caller: Caller, connection: Connection) -> None:
        """An acquire returned this."""
        session = self.sessions[connection]
        assert not caller.is_answered
        assert session.key == caller.key, f"{caller} was given {session}"
        assert session.holder is None, f"{caller} was given {session}, which {session.holder} holds"
        is_own = session is caller.own and session.state is State.ACTIVE
        assert is_own or session.state is State.IDLE, f"{caller} was given {session}"
        unfit = set() if is_own else set(self.reasons(session))
        if session.verified_at == self.now:
            unfit.discard("idle_timeout")  # it comes from a check, which it passed
        assert not unfit, f"{caller} was given {session}: {unfit}"
        assert is_own or not self.may_need_check(session), f"{caller} was given {session} unchecked"
        caller.is_answered = True
        self.used_at[caller.key] = self.now
        caller.session = session
        session.state = State.ACTIVE
        session.holder = caller
        session.used_at = session.used_at_most = self.now
        session.lease_epoch = self.epochs[session.key.url]
        self.long_checkouts.began(connection, self.now)
        self.served.append(caller)
        self.count(caller.key, "misses" if is_own else "hits")

    def ended(self, caller: Caller, error: BaseException) -> None:
        """An acquire raised this."""
        own = caller.own
        waited = self.now - caller.since
        if isinstance(error, asyncio.CancelledError):
            assert caller.is_cancelled or isinstance(caller.injected, asyncio.CancelledError), error
            if caller.is_cancelled:
                self.count(caller.key, "acquire_cancellations")
                self._undo(caller)
        elif isinstance(error, PoolClosedError):
            assert self.is_closed
        elif isinstance(error, SessionCreateTimeoutError):
            assert own is not None
            assert self.now >= own.begun_at + self.settings["session_create_timeout_seconds"] - EPSILON
        elif isinstance(error, AcquireTimeoutError):
            assert own is None
            assert waited >= self.settings["acquire_timeout_seconds"] - EPSILON
            self.count(caller.key, "acquire_timeouts")
        elif isinstance(error, CircuitOpenError):
            assert own is None
            breaker = self.breaker(caller.key.url)
            # It may learn of its refusal just after the probe succeeded.
            has_recovered = breaker.recovered_at == self.now
            assert breaker.refuses(self.now) is not False or has_recovered
            held = self.of(caller.key, State.ACTIVE, State.CHECKING)
            assert has_recovered or not held, f"{caller} was refused, but {held} are open"
            self.count(caller.key, "acquire_rejections", "circuit_open")
        elif isinstance(error, PoolExhaustedError):
            assert own is None
            assert waited == 0
            is_full = 0 < self.settings["max_waiters"] <= len(self.waiting(caller.key)) - 1
            self.count(caller.key, "acquire_rejections", "queue_full" if is_full else "exhausted")
        else:
            assert own is not None
            assert error is caller.injected, (
                f"{caller} got {error!r}, its creation raised {caller.injected!r}"
            )
        caller.error = error

    def _undo(self, caller: Caller) -> None:
        """A cancelled caller may have had a session already: it is as if just released."""
        own = caller.own
        if own is not None:
            if own.state is State.ACTIVE and own.holder is None:
                own.state = State.IDLE
            return
        for session in self.of(caller.key, State.IDLE):
            session.used_at_most = self.now

    def releasing(self, session: Session, *, discard: bool = False, has_raised: bool = False) -> None:
        """Its holder gives it back.

        No exception of a holder's block says that a session is lost. But a request may have been in flight:
        nobody watches these sessions, so that one whose block raised is checked before it serves again.
        """
        assert session.state is State.ACTIVE
        assert session.holder is not None
        session.holder.session = None
        session.holder = None
        self.long_checkouts.ended(session.connection, self.now)
        session.state = State.IDLE
        session.used_at = session.used_at_most = session.verified_at = self.now
        session.epoch = max(session.epoch, session.lease_epoch)
        self.used_at[session.key] = self.now
        session.is_retired |= discard or self.is_single_use(session.key)
        session.is_doubtful |= has_raised

    def dropped(self, session: Session) -> None:
        """Its holder lets it go out of scope."""
        self.releasing(session)
        session.is_dropped = True

    def died(self, session: Session) -> None:
        """Its owner ended: it is lost, and its URL suspect, whose older sessions are checked once."""
        session.is_broken = True
        self.epochs[session.key.url] += 1

    def drained(self) -> None:
        self.generation += 1

    def closed(self) -> None:
        """close_all() begins: sessions are closed under their holders."""
        self.is_closed = True
        for session in self.of(None, State.ACTIVE):
            if session.holder is not None:
                session.holder.session = None
                session.holder = None
                self.long_checkouts.ended(session.connection, self.now)

    # ---- the pool's doings

    def checkout_reported(self, connection: Connection) -> None:
        self.long_checkouts.reported(connection, self.now)
        self.count(self.sessions[connection].key, "long_checkouts")

    def nobody(self, like: Connection) -> Nobody:
        return Nobody(self.sessions[like].key)

    def creation_begun(self, connection: Connection) -> None:
        caller = connection.creator
        key = caller.key
        assert not self.is_closed
        assert caller.own is None, f"a second creation for {caller}"
        if isinstance(caller, Nobody):
            judge(self, caller)
        self.breaker(key.url).begin(connection, self.now)
        session = Session(connection, key, self.now, self.generation, self.epochs[key.url])
        session.is_retired = self.is_single_use(key)
        self.sessions[connection] = session
        if not isinstance(caller, Nobody):
            caller.own = session
            self.served.append(caller)
        if not isinstance(caller, Nobody) or caller.is_warm:
            self.used_at[key] = self.now
        self.check_limits(key)
        limit = self.settings["max_creating_per_url"]
        assert not limit or len(self.of(None, State.CREATING, url=key.url)) <= limit

    def creation_ended(self, connection: Connection, error: BaseException | None) -> None:
        session = self.sessions[connection]
        caller = connection.creator
        if session.is_given_up:
            session.state = State.GONE if error else State.CLOSING
            return
        assert session.state is State.CREATING
        if error is not None:
            session.state = State.GONE
            self._failed(session, counts=self._counts_for_breaker(session, error))
            return
        self.breaker(session.key.url).succeed(connection, self.now)
        is_nobodys = isinstance(caller, Nobody)
        session.state = State.IDLE if is_nobodys or caller.error is not None else State.ACTIVE
        session.created_at = session.used_at = session.used_at_most = session.verified_at = self.now
        session.epoch = self.epochs[session.key.url]
        self.count(session.key, "creates")
        if is_nobodys:
            count_opened(self, caller)

    def given_up(self, session: Session) -> None:
        """A creation that ignores its cancellation has had its time."""
        self._failed(session, counts=not self.is_closed and not is_for_nobody(session))
        session.is_given_up = True

    def _counts_for_breaker(self, session: Session, error: BaseException) -> bool:
        if is_for_nobody(session):
            return False
        if isinstance(error, asyncio.CancelledError):
            limit = self.settings["session_create_timeout_seconds"]
            return not self.is_closed and self.now >= session.begun_at + limit - EPSILON
        return bool(getattr(error, "counts", True))

    def _failed(self, session: Session, *, counts: bool) -> None:
        self.count(session.key, "create_failures")
        url = session.key.url
        if self.breaker(url).fail(session.connection, self.now, session.key.gateway, counts=counts):
            self.count(session.key, "circuit_breaker_trips")
            for idle in self.of(None, State.IDLE, url=url):
                idle.was_idle_at_opening = True
                idle.awaited_check_at_opening = self.may_await_check(idle)

    def close_decided(self, connection: Connection, reason: str) -> None:
        session = self.sessions[connection]
        assert session.state in OPEN, f"closing {session} ({reason})"
        assert session.holder is None, f"closing {session} ({reason}), which is in use"
        if reason == "capacity":
            self._judge_victim(session)
            session.is_supply = self.has_supplied = True
        else:
            allowed = list(self.reasons(session))
            if self.settings["max_total_keys"] and is_for_nobody(session):
                allowed.append("manual")  # its key was evicted while it was being opened
            assert reason in allowed, f"closing {session}: {reason}, not {allowed}"
        session.state = State.CLOSING
        session.closing_since = self.now
        self.count(session.key, "evictions", reason)

    def _judge_victim(self, session: Session) -> None:
        settings = self.settings
        assert settings["max_total_sessions"] or settings["max_total_keys"]
        # What was opened for a caller that is cancelled meanwhile is idle before that caller learns of it.
        was_given_back = session.state is State.ACTIVE and session.connection.creator.is_cancelled
        assert session.state is State.IDLE or was_given_back or settings["max_total_keys"]
        if not settings["max_total_keys"]:
            older = [idle for idle in self.idle() if idle.used_at_most < session.used_at - EPSILON]
            assert not older, f"closing {session} for its place; {older} were used less recently"

    def close_begun(self, connection: Connection) -> None:
        session = self.sessions.get(connection)
        if session is None:
            return  # no session of the pool
        session.closes += 1
        assert session.state is State.CLOSING, f"{session} is closed"
        assert session.closes == 1, f"{session} is closed for the {session.closes}th time"

    def close_ended(self, connection: Connection) -> None:
        if connection in self.sessions:
            self.sessions[connection].state = State.GONE

    def check_decided(self, connection: Connection) -> None:
        session = self.sessions[connection]
        assert session.state is State.IDLE, f"checking {session}"
        assert self.may_need_check(session), f"checking {session}"
        session.is_checked_for_opening = session.was_idle_at_opening
        session.was_idle_at_opening = session.is_doubtful = False
        session.state = State.CHECKING
        limit = self.settings["max_creating_per_url"]
        assert not limit or len(self.of(None, State.CHECKING, url=session.key.url)) <= limit
        session.epoch = self.epochs[session.key.url]
        self.count(session.key, "health_checks")

    def check_ended(self, connection: Connection, is_usable: bool) -> None:
        session = self.sessions[connection]
        if session.state is not State.CHECKING:
            return  # closed meanwhile
        if is_usable:
            session.state = State.IDLE
            session.verified_at = self.now
        else:
            session.failed_check = True
            self.count(session.key, "health_check_failures")

    # ---- limits

    def places(self, key: Key | None = None) -> list[Session]:
        """Sessions that take a place; a close does for as long as it may take."""
        bound = self.place_bound()
        return [
            session
            for session in self.of(key, *PLACES)
            if session.state is not State.CLOSING or self.now < session.closing_since + bound - EPSILON
        ]

    def check_limits(self, key: Key) -> None:
        assert len(self.places(key)) <= self.settings["max_sessions_per_key"], self.places(key)
        total = self.settings["max_total_sessions"]
        assert not total or len(self.places()) <= total, self.places()
