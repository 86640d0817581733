"""What is refused, by which error, and what its message never shows."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
import time
import weakref
from dataclasses import fields
from decimal import Decimal
from typing import Any

import pytest

from mcpgateway_pool import MCPSessionPool, NetworkSettings, PooledSession, TransportType
from support.fakes import URL, FakePool, assert_all_places_usable, assert_at_rest, turns

NAN, INF = float("nan"), float("inf")

SECONDS = [
    "session_ttl_seconds",
    "health_check_interval_seconds",
    "acquire_timeout_seconds",
    "session_create_timeout_seconds",
    "circuit_breaker_reset_seconds",
    "idle_pool_eviction_seconds",
    "default_transport_timeout_seconds",
    "health_check_timeout_seconds",
    "cleanup_timeout_seconds",
]
AT_LEAST_ONE = ["max_sessions_per_key", "circuit_breaker_threshold"]
AT_LEAST_ZERO = [
    "max_total_keys",
    "max_total_sessions",
    "max_waiters",
    "max_creating_per_url",
    "max_tracked_urls",
    "health_checks_per_second",
]
CALLBACKS = ["identity_extractor", "message_handler_factory", "clock"]
SECRET = "s3cret"


# ---- settings


@pytest.mark.parametrize("name", SECONDS)
def test_seconds_must_be_a_number_and_not_negative(name: str):
    for bad in (SECRET, SECRET.encode(), None, True, False, [1], {}, 1j, Decimal(1), object()):
        with pytest.raises(TypeError, match=name) as caught:
            MCPSessionPool(**{name: bad})
        assert SECRET not in str(caught.value)
    for bad in (-1, -0.001, NAN, -INF, -(10**400)):
        with pytest.raises(ValueError, match=name):
            MCPSessionPool(**{name: bad})
    for good in (0, 0.0, 1e-9, 1, 10**400, INF):
        pool = MCPSessionPool(**{name: good})
        assert 0 <= getattr(pool._settings, name) <= 10 * 365 * 86400


@pytest.mark.parametrize("name", AT_LEAST_ONE + AT_LEAST_ZERO)
def test_counts_must_be_an_int_in_range(name: str):
    for bad in (SECRET, b"1", None, True, False, 1.0, NAN, INF, [1], Decimal(1)):
        with pytest.raises(TypeError, match=name) as caught:
            MCPSessionPool(**{name: bad})
        assert SECRET not in str(caught.value)
    for bad in (-1, 2**32, 10**400, -(10**400)):
        with pytest.raises(ValueError, match=name):
            MCPSessionPool(**{name: bad})
    for good in (1, 2**32 - 1):
        assert getattr(MCPSessionPool(**{name: good})._settings, name) == good
    if name in AT_LEAST_ZERO:
        MCPSessionPool(**{name: 0})
    else:
        with pytest.raises(ValueError, match=name):
            MCPSessionPool(**{name: 0})


@pytest.mark.parametrize("setting", fields(NetworkSettings), ids=lambda setting: setting.name)
def test_settings_of_the_network_are_checked(setting: Any):
    for bad in (SECRET, None, True, [1]):
        with pytest.raises(TypeError, match=setting.name) as caught:
            NetworkSettings(**{setting.name: bad})
        assert SECRET not in str(caught.value)
    with pytest.raises(ValueError, match=setting.name):
        NetworkSettings(**{setting.name: -1})
    may_be_none = setting.name not in (
        "connect_timeout_seconds",
        "tcp_keepalive_interval_seconds",
        "tcp_keepalive_probes",
    )
    if may_be_none:
        assert getattr(NetworkSettings(**{setting.name: 0}), setting.name) == 0
    else:
        with pytest.raises(ValueError, match=setting.name):
            NetworkSettings(**{setting.name: 0})


def test_a_pool_has_the_settings_of_the_network():
    network = NetworkSettings(connect_timeout_seconds=3)
    assert MCPSessionPool(network=network).settings.network is network
    assert MCPSessionPool().settings.network == NetworkSettings()
    with pytest.raises(TypeError, match="network must be NetworkSettings, not"):
        MCPSessionPool(network={"connect_timeout_seconds": 3})  # type: ignore[arg-type]


def test_jitter_must_be_from_0_to_1():
    for bad in (SECRET, None, True, [0.5]):
        with pytest.raises(TypeError, match="session_ttl_jitter"):
            MCPSessionPool(session_ttl_jitter=bad)  # type: ignore[arg-type]
    for bad in (-0.1, 1.1, NAN, INF, 10**400):
        with pytest.raises(ValueError, match="session_ttl_jitter"):
            MCPSessionPool(session_ttl_jitter=bad)
    for good in (0, 1, 0.5):
        MCPSessionPool(session_ttl_jitter=good)


@pytest.mark.parametrize("name", CALLBACKS)
def test_callbacks_must_be_callable(name: str):
    for bad in (SECRET, 1, [], {}, True):
        with pytest.raises(TypeError, match=name) as caught:
            MCPSessionPool(**{name: bad})
        assert SECRET not in str(caught.value)
    MCPSessionPool(**{name: None})


@pytest.mark.parametrize("name", ["identity_headers", "health_check_methods"])
def test_names_must_be_a_sequence_of_str(name: str):
    for bad in (SECRET, b"ping", 7, 0, False, "", [1], ["ping", None], object(), [b"ping"]):
        with pytest.raises(TypeError, match=name) as caught:
            MCPSessionPool(**{name: bad})
        assert SECRET not in str(caught.value)
    for good in (["ping"], ("ping",), {"ping"}, frozenset({"ping"}), iter(["ping"])):
        assert getattr(MCPSessionPool(**{name: good})._settings, name) == ("ping",)
    default = getattr(MCPSessionPool()._settings, name)
    for empty in (None, [], (), set(), iter([])):
        assert getattr(MCPSessionPool(**{name: empty})._settings, name) == default


def test_identity_headers_must_be_names_of_headers():
    for bad in ("", "x y", "x:y", "ä", "x\n", "x\ud800", "x\0"):
        with pytest.raises(ValueError, match="identity_headers"):
            MCPSessionPool(identity_headers=[bad])
    with pytest.raises(ValueError, match="255"):
        MCPSessionPool(identity_headers=[f"x-{number}" for number in range(256)])
    pool = MCPSessionPool(identity_headers=["X-B", "x-a", "X-b"])
    assert pool._identity_headers == ("x-a", "x-b")


def test_isolation_must_be_one_of_two_words():
    for bad in (SECRET, None, True, "Session", b"session", [], 0):
        with pytest.raises(ValueError, match="isolation") as caught:
            MCPSessionPool(isolation=bad)  # type: ignore[arg-type]
        assert SECRET not in str(caught.value)


def test_unknown_settings_and_too_many_positional_ones_are_refused():
    with pytest.raises(TypeError, match="max_session"):
        MCPSessionPool(max_session=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="positional"):
        MCPSessionPool(*[1] * 6, 60, *[None] * 2, *[1] * 2, None, 1, None, 0, 0, 5)  # type: ignore[misc]


def test_settings_are_taken_by_position_in_the_order_of_the_gateways_pool():
    extractor, factory = (lambda headers: None), (lambda url, gateway_id: None)
    pool = MCPSessionPool(1, 2, 3, 4, 5, 6, 7, ["x-a"], extractor, 8, 9, ["skip"], 10, factory, 11, 12)
    settings = pool._settings
    assert settings.max_sessions_per_key == 1
    assert settings.session_ttl_seconds == 2
    assert settings.health_check_interval_seconds == 3
    assert settings.acquire_timeout_seconds == 4
    assert settings.session_create_timeout_seconds == 5
    assert settings.circuit_breaker_threshold == 6
    assert settings.circuit_breaker_reset_seconds == 7
    assert settings.identity_headers == ("x-a",)
    assert settings.identity_extractor is extractor
    assert settings.idle_pool_eviction_seconds == 8
    assert settings.default_transport_timeout_seconds == 9
    assert settings.health_check_methods == ("skip",)
    assert settings.health_check_timeout_seconds == 10
    assert settings.message_handler_factory is factory
    assert (settings.max_total_keys, settings.max_total_sessions) == (11, 12)


def test_defaults_are_those_of_the_gateways_pool():
    pool = MCPSessionPool()
    assert (pool._max_sessions, pool._session_ttl, pool._health_check_interval) == (10, 300, 60)
    assert (pool._acquire_timeout, pool._session_create_timeout) == (30, 30)
    assert (pool._circuit_breaker_threshold, pool._circuit_breaker_reset) == (5, 60)
    assert (pool._idle_pool_eviction, pool._default_transport_timeout) == (600, 30)
    assert (pool._health_check_timeout, pool._max_total_keys, pool._max_total_sessions) == (5, 0, 0)
    assert set(pool._identity_headers) == MCPSessionPool.DEFAULT_IDENTITY_HEADERS
    assert {"authorization", "x-tenant-id", "x-user-id", "x-api-key", "cookie", "x-mcp-session-id"} == set(
        pool._identity_headers
    )


async def test_pool_of_the_largest_settings_works():
    pool = FakePool(**dict.fromkeys(SECONDS, INF), **dict.fromkeys(AT_LEAST_ONE + AT_LEAST_ZERO, 2**32 - 1))
    pooled = await pool.acquire(URL)
    await pool.release(pooled)
    assert await pool.acquire(URL) is pooled
    await pool.release(pooled)
    await turns()
    assert_at_rest(pool)


# ---- arguments of each acquire and release


async def refused(pool: FakePool, *args: Any, **kwargs: Any) -> str:
    """The message of the error that acquire() and session() raise, before anything is tried."""
    messages = []
    with pytest.raises((TypeError, ValueError)) as caught:
        await pool.acquire(*args, **kwargs)
    messages.append(f"{type(caught.value).__name__}: {caught.value}")
    with pytest.raises((TypeError, ValueError)) as caught:
        async with pool.session(*args, **kwargs):
            pass
    messages.append(f"{type(caught.value).__name__}: {caught.value}")
    assert messages[0] == messages[1]
    assert SECRET not in messages[0]
    assert pool.attempts == 0
    assert pool.count("keys") == 0
    assert_at_rest(pool)
    return messages[0]


@pytest.mark.parametrize(
    ("url", "text"),
    [
        (SECRET.encode(), "TypeError: url must be str, not bytes"),
        (None, "TypeError: url must be str, not NoneType"),
        (7, "TypeError: url must be str, not int"),
        ([SECRET], "TypeError: url must be str, not list"),
        ("", "ValueError: url must not be empty"),
    ],
)
async def test_url_must_be_a_str_that_is_not_empty(url: Any, text: str):
    assert await refused(FakePool(), url) == text


@pytest.mark.parametrize("headers", [SECRET, SECRET.encode(), 7, [("a", SECRET)], {SECRET}, True])
async def test_headers_must_be_a_mapping(headers: Any):
    assert "TypeError: headers must be a mapping or None" in await refused(FakePool(), URL, headers)


@pytest.mark.parametrize("value", [None, 7, SECRET.encode(), [SECRET], {}])
@pytest.mark.parametrize("name", ["Authorization", "X-Other"])
async def test_header_values_must_be_str(name: str, value: Any):
    text = await refused(FakePool(), URL, {"a": "b", name: value})
    assert name in text
    assert "must be str" in text


@pytest.mark.parametrize("name", [None, 7, b"authorization", ("a",)])
async def test_header_names_must_be_str(name: Any):
    assert "header names must be str" in await refused(FakePool(), URL, {name: SECRET})


@pytest.mark.parametrize("transport_type", ["sse", None, 7, TransportType, object()])
async def test_transport_type_must_be_one_of_the_enumeration(transport_type: Any):
    text = await refused(FakePool(), URL, None, transport_type)
    assert "TypeError: transport_type must be a TransportType" in text


@pytest.mark.parametrize("name", ["user_identity", "gateway_id"])
@pytest.mark.parametrize("value", [7, SECRET.encode(), [SECRET], True, 0])
async def test_user_and_gateway_must_be_str_or_none(name: str, value: Any):
    assert f"TypeError: {name} must be str or None" in await refused(FakePool(), URL, **{name: value})


async def test_unknown_arguments_are_refused():
    pool = FakePool()
    with pytest.raises(TypeError, match="user"):
        await pool.acquire(URL, user="ann")
    with pytest.raises(TypeError, match="user"):
        pool.session(URL, user="ann")  # type: ignore[call-arg]
    pooled = await pool.acquire(URL)
    with pytest.raises(TypeError, match="positional"):
        await pool.release(pooled, True)  # type: ignore[misc]
    with pytest.raises(TypeError, match="broken"):
        await pool.release(pooled, broken=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        await pool.release()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        await pool.acquire()
    assert pool.count("active") == 1
    await pool.release(pooled)
    await assert_all_places_usable(pool)


class Text(str):
    """A str that lies about itself."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    def __hash__(self) -> int:
        return 0


class Headers(dict[str, str]):
    """A dict that lies about its contents."""

    def __iter__(self) -> Any:
        raise RuntimeError

    def items(self) -> Any:
        raise RuntimeError

    def get(self, *args: Any) -> Any:
        raise RuntimeError

    def __getitem__(self, key: str) -> str:
        raise RuntimeError


async def test_subclasses_of_str_and_dict_are_taken_for_what_they_hold():
    pool = FakePool()
    pool.make_session = lambda url, headers, transport: PooledSession(  # type: ignore[method-assign]
        object(), None, str.__str__(URL), transport, {}, ""
    )
    one = await pool.acquire(
        Text(URL), Headers(authorization="a"), user_identity=Text("ann"), gateway_id=Text("g")
    )
    await pool.release(one)
    assert await pool.acquire(URL, {"authorization": "a"}, user_identity="ann", gateway_id="g") is one
    await pool.release(one)
    await turns()
    assert pool.count("keys") == 1


@pytest.mark.parametrize("where", ["url", "header", "user", "gateway"])
async def test_lone_surrogates_are_legal_everywhere(where: str, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    pool = FakePool()
    arguments: dict[str, Any] = {"url": URL}
    bad = "a\ud800\udfff\0\n"
    if where == "url":
        arguments["url"] = URL + bad
    elif where == "header":
        arguments["headers"] = {"authorization": bad, f"x-{bad}": bad}
    elif where == "user":
        arguments["user_identity"] = bad
    else:
        arguments["gateway_id"] = bad
    pooled = await pool.acquire(**arguments)
    await pool.release(pooled)
    assert await pool.acquire(**arguments) is pooled
    repr(pooled).encode()
    await pool.release(pooled)
    str(pool.get_metrics()).encode("utf-8", "surrogatepass")
    pool.create_error = OSError("refused")
    for _ in range(7):
        with pytest.raises((OSError, RuntimeError)) as caught:
            await pool.acquire(arguments["url"], user_identity="x")
        str(caught.value).encode()
    await turns()
    assert_at_rest(pool)


async def test_repr_of_a_session_says_which_it_is_and_shows_no_secret():
    pool = FakePool()
    pooled = await pool.acquire("http://ann:hunter2@server.test/mcp?t=hunter2", gateway_id="g")
    name = "mcpgateway_pool.PooledSession"
    assert repr(pooled) == f"<{name} of 'http://server.test/mcp', gateway_id='g', use_count=0>"
    await pool.release(pooled)
    assert await pool.acquire("http://ann:hunter2@server.test/mcp?t=hunter2", gateway_id="g") is pooled
    await pool.release(pooled, discard=True)
    assert repr(pooled) == f"<{name} of 'http://server.test/mcp', gateway_id='g', use_count=1, closed>"
    other = await pool.acquire(URL)
    assert repr(other) == f"<{name} of '{URL}', gateway_id='', use_count=0>"
    await pool.release(other)


async def test_header_values_of_a_megabyte_are_keys_like_any_other():
    pool = FakePool()
    long = "x" * 1_000_000
    one = await pool.acquire(URL, {"authorization": long + "1"})
    two = await pool.acquire(URL, {"authorization": long + "2"})
    await pool.release(one)
    await pool.release(two)
    assert await pool.acquire(URL, {"authorization": long + "1"}) is one
    await pool.release(one)
    assert len(str(pool.get_metrics())) < 10_000
    assert len(repr(one)) < 1000
    assert_at_rest(pool)


async def test_megabytes_of_url_user_and_gateway_do_not_get_into_messages():
    pool = FakePool(max_sessions_per_key=1, acquire_timeout_seconds=0)
    url = "http://server.test/" + "x" * 1_000_000
    arguments = {"user_identity": "u" * 1_000_000, "gateway_id": "g" * 1_000_000}
    pooled = await pool.acquire(url, **arguments)
    with pytest.raises(TimeoutError) as caught:
        await pool.acquire(url, **arguments)
    assert len(str(caught.value)) < 1000
    assert len(repr(pooled)) < 1000
    await pool.release(pooled)
    assert_at_rest(pool)


async def test_refused_acquire_leaves_a_busy_pool_as_it_was():
    pool = FakePool(max_sessions_per_key=1)
    held = await pool.acquire(URL)
    waiter = asyncio.ensure_future(pool.acquire(URL))
    await turns()
    for bad in ((b"url",), (URL, {"a": 1}), (URL, None, "sse")):
        with pytest.raises(TypeError):
            await pool.acquire(*bad)
    await pool.release(held)
    assert await waiter is held
    await pool.release(held)
    await assert_all_places_usable(pool)


# ---- PooledSession

FIELDS: dict[str, Any] = {
    "session": object(),
    "transport_context": object(),
    "url": "http://user:s3cret@host/mcp?token=s3cret",
    "transport_type": TransportType.SSE,
    "headers": {"Authorization": SECRET},
    "identity_key": SECRET,
    "user_identity": "ann",
    "gateway_id": "g",
    "created_at": 1000.5,
    "last_used": 2000.5,
    "use_count": 7,
    "_closed": False,
    "_owner_task": object(),
    "_shutdown_event": object(),
}


def make(**changes: Any) -> PooledSession:
    return PooledSession(**{**FIELDS, "_owner_task": None, **changes})


def test_pooled_session_takes_every_field_by_keyword():
    pooled = PooledSession(**FIELDS)
    for name, value in FIELDS.items():
        assert getattr(pooled, name) == value, name
    assert make(_closed=True).is_closed
    assert pooled.owner_task is FIELDS["_owner_task"]
    assert pooled.shutdown_event is FIELDS["_shutdown_event"]


def test_pooled_session_has_defaults():
    before = time.time()
    pooled = PooledSession(1, 2, URL, TransportType.SSE, {}, "key")
    assert (pooled.user_identity, pooled.gateway_id, pooled.use_count) == ("anonymous", "", 0)
    assert (pooled._closed, pooled._owner_task, pooled._shutdown_event) == (False, None, None)
    assert before - 1 <= pooled.created_at <= time.time() + 1
    assert before - 1 <= pooled.last_used <= time.time() + 1
    assert 0 <= pooled.age_seconds < 5
    assert 0 <= pooled.idle_seconds < 5
    assert not pooled.is_closed
    pooled.mark_closed()
    assert pooled.is_closed
    assert pooled._closed


def test_pooled_session_refuses_missing_unknown_and_wrong_arguments():
    with pytest.raises(TypeError):
        PooledSession()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        make(unknown=1)
    for name, bad in (("use_count", "many"), ("created_at", SECRET), ("last_used", None)):
        with pytest.raises(TypeError) as caught:
            make(**{name: bad})
        assert SECRET not in str(caught.value)
    with pytest.raises(ValueError, match="NaN"):
        make(created_at=NAN)


def test_pooled_session_hashes_and_compares_by_identity():
    one, two = make(), make()
    assert one != two
    assert one == one  # noqa: PLR0124
    assert len({one, two, one}) == 2
    assert weakref.ref(one)() is one


@pytest.mark.parametrize(
    "attempt",
    [copy.copy, copy.deepcopy, pickle.dumps, lambda s: pickle.dumps(s, 0), lambda s: s.__reduce__()],
)
def test_pooled_session_refuses_copy_and_pickle(attempt: Any):
    with pytest.raises(TypeError, match="live connection") as caught:
        attempt(make())
    assert SECRET not in str(caught.value)


def test_pooled_session_shows_no_credentials():
    pooled = make()
    for text in (repr(pooled), str(pooled), f"{pooled}", "%s" % pooled):  # noqa: UP031
        assert SECRET not in text
        assert "host/mcp" in text


def test_assigned_times_are_read_back_and_age_follows_them():
    pooled = make()
    now = time.time()
    pooled.created_at = now - 500
    pooled.last_used = now - 50
    assert pooled.created_at == now - 500
    assert pooled.last_used == now - 50
    assert 500 <= pooled.age_seconds < 505
    assert 50 <= pooled.idle_seconds < 55
    for extreme in (INF, -INF, 1e300, -1e300):
        pooled.created_at = extreme
        assert pooled.created_at == extreme
        assert abs(pooled.age_seconds) > 10**8
    with pytest.raises(TypeError):
        pooled.created_at = "now"  # type: ignore[assignment]
    with pytest.raises(ValueError, match="NaN"):
        pooled.created_at = NAN
    with pytest.raises(AttributeError):
        del pooled.created_at
    with pytest.raises(AttributeError):
        del pooled.session


async def test_assigned_times_of_a_session_in_a_pool_are_read_back():
    pool = FakePool()
    pooled = await pool.acquire(URL)
    now = time.time()
    pooled.created_at, pooled.last_used = now - 100, now - 10
    assert (pooled.created_at, pooled.last_used) == (now - 100, now - 10)
    assert 100 <= pooled.age_seconds < 105
    await pool.release(pooled)
    assert pooled.created_at == now - 100
    assert pooled.last_used >= now
    assert 0 <= pooled.idle_seconds < 5
    for extreme in (INF, -INF):
        pooled.created_at = extreme
        pooled.last_used = extreme
    await turns()
    await pool.close_all()
    assert_at_rest(pool)


async def test_session_that_was_given_an_age_has_it_in_the_pool():
    pool = FakePool(session_ttl_seconds=100)
    pool.make_session = lambda url, headers, transport: PooledSession(  # type: ignore[method-assign]
        object(), None, url, transport, {}, "", created_at=time.time() - 99
    )
    pooled = await pool.acquire(URL)
    assert 99 <= pooled.age_seconds < 100
    await pool.release(pooled)
    pooled.created_at -= 2
    assert await pool.acquire(URL) is not pooled
    await pool.close_all()
    await turns()
    assert_at_rest(pool)


async def test_session_in_a_pool_cannot_be_initialised_again():
    pool = FakePool()
    pooled = await pool.acquire(URL)
    with pytest.raises(RuntimeError, match="in a pool"):
        pooled.__init__(**FIELDS)  # type: ignore[misc]
    assert pooled.url == URL
    await pool.release(pooled)
    assert_at_rest(pool)


def test_pooled_session_may_be_subclassed_and_carry_attributes():
    class Own(PooledSession):
        extra = 1

    own = Own(**{**FIELDS, "_owner_task": None})
    own.more = 2  # type: ignore[attr-defined]
    assert (own.extra, own.more) == (1, 2)  # type: ignore[attr-defined]
    assert own.url == FIELDS["url"]
