"""Who shares a session with whom: the security boundary."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcpgateway_pool import MCPSessionPool, TransportType, _core
from mcpgateway_pool.pool.session_context import AcquireArguments
from mcpgateway_pool.pool.waiting import acquire_slowly
from support.fakes import URL, FakePool, assert_adds_up, assert_at_rest, turns

SSE, HTTP = TransportType.SSE, TransportType.STREAMABLE_HTTP


async def key_of(pool: FakePool, **arguments: Any) -> int:
    """The key that these arguments have, as the number of its first session."""
    arguments.setdefault("url", URL)
    pooled = await pool.acquire(**arguments)
    if not hasattr(pooled, "number"):
        pooled.number = pool.attempts  # type: ignore[attr-defined]
    number: int = pooled.number  # type: ignore[attr-defined]
    await pool.release(pooled)
    return number


async def assert_apart(pool: FakePool, *many: dict[str, Any]) -> None:
    """Each has a key of its own, to which it comes back."""
    first = [await key_of(pool, **arguments) for arguments in many]
    again = [await key_of(pool, **arguments) for arguments in reversed(many)]
    assert len(set(first)) == len(many), first
    assert again == first[::-1]
    assert pool.count("keys") == len(many)
    assert_adds_up(pool)


async def assert_together(pool: FakePool, *many: dict[str, Any]) -> None:
    """All have the same key."""
    numbers = [await key_of(pool, **arguments) for arguments in many]
    assert len(set(numbers)) == 1, numbers
    assert pool.count("keys") == 1
    assert_adds_up(pool)


# ---- the parts of a key


async def test_users_never_share():
    await assert_apart(
        FakePool(),
        {"user_identity": None},
        {"user_identity": "ann"},
        {"user_identity": "Ann"},
        {"user_identity": "ann "},
        {"user_identity": "ann\0"},
        {"user_identity": "ä"},
        {"user_identity": "a\u0308"},
        {"user_identity": "\ud800"},
        {"user_identity": "\udfff"},
        {"user_identity": "\U00010000"},
    )


async def test_no_user_and_the_user_anonymous_are_the_same():
    await assert_together(
        FakePool(), {"user_identity": None}, {"user_identity": ""}, {"user_identity": "anonymous"}
    )


async def test_urls_transports_and_gateways_never_share():
    await assert_apart(
        FakePool(),
        {"url": URL},
        {"url": URL + "/"},
        {"url": URL.upper()},
        {"url": URL + "?a=1"},
        {"url": URL + "#\ud800"},
        {"transport_type": SSE},
        {"gateway_id": "one"},
        {"gateway_id": "two"},
        {"gateway_id": "none"},
        {"gateway_id": "one", "transport_type": SSE},
    )


async def test_no_gateway_and_an_empty_one_are_the_same():
    await assert_together(FakePool(), {"gateway_id": None}, {"gateway_id": ""})


async def test_identity_headers_never_share():
    await assert_apart(
        FakePool(),
        {"headers": None},
        {"headers": {"Authorization": "Bearer a"}},
        {"headers": {"Authorization": "Bearer A"}},
        {"headers": {"Authorization": "bearer a"}},
        {"headers": {"Authorization": "Bearer a "}},
        {"headers": {"Authorization": ""}},
        {"headers": {"X-Api-Key": "Bearer a"}},
        {"headers": {"X-Tenant-Id": "Bearer a"}},
        {"headers": {"X-User-Id": "Bearer a"}},
        {"headers": {"Cookie": "Bearer a"}},
        {"headers": {"X-Mcp-Session-Id": "Bearer a"}},
        {"headers": {"Authorization": "Bearer a", "X-Api-Key": ""}},
        {"headers": {"Authorization": "Bearer a\ud800"}},
        {"headers": {"Authorization": "x" * 1_000_000}},
        {"headers": {"Authorization": "x" * 999_999 + "y"}},
    )


async def test_other_headers_make_no_difference():
    await assert_together(
        FakePool(),
        {"headers": None},
        {"headers": {}},
        {"headers": {"Accept": "a"}},
        {"headers": {"X-Request-Id": "1", "Traceparent": "2"}},
        {"headers": {"Äuthorization": "1", "authorizatıon": "2", "": "3"}},
        {"headers": {"ſ-tenant-id": "1", "x-tenant-id\0": "2", " authorization": "3"}},
    )


async def test_case_and_order_of_headers_make_no_difference():
    await assert_together(
        FakePool(),
        {"headers": {"Authorization": "a", "X-Api-Key": "b", "Accept": "c"}},
        {"headers": {"x-api-key": "b", "authorization": "a"}},
        {"headers": {"X-API-KEY": "b", "AUTHORIZATION": "a"}},
    )


async def test_spellings_of_one_header_are_all_of_its_values_in_any_order():
    pool = FakePool()
    await assert_apart(
        pool,
        {"headers": {"authorization": "a"}},
        {"headers": {"authorization": "b"}},
        {"headers": {"authorization": "a", "Authorization": "b"}},
        {"headers": {"authorization": "a", "Authorization": "a"}},
        {"headers": {"authorization": "ab"}},
        {"headers": {"authorization": "a", "Authorization": "b", "AUTHORIZATION": "c"}},
    )
    await assert_together(
        FakePool(),
        {"headers": {"authorization": "a", "Authorization": "b"}},
        {"headers": {"Authorization": "a", "authorization": "b"}},
        {"headers": {"AUTHORIZATION": "b", "authorization": "a"}},
    )


async def test_too_many_spellings_of_one_header_are_refused():
    pool = FakePool()
    name = "authorization"
    headers = {name[:at] + name[at:].upper(): "s3cret" for at in range(13)}
    headers |= {name[:at].upper() + name[at:]: "s3cret" for at in range(13)}
    with pytest.raises(ValueError, match="spellings") as caught:
        await pool.acquire(URL, headers)
    assert "s3cret" not in str(caught.value)
    assert_at_rest(pool)


async def test_delimiters_in_values_cannot_imitate_another_split():
    await assert_apart(
        FakePool(),
        {"user_identity": "a", "gateway_id": "b"},
        {"user_identity": "a\0b"},
        {"user_identity": "a|b"},
        {"user_identity": "a", "gateway_id": "b\0"},
        {"user_identity": "a\x01\0\0\0b"},
        {"url": URL + "b", "user_identity": "a"},
        {"headers": {"authorization": "a", "cookie": "b"}},
        {"headers": {"authorization": "a\x04\x01\x01\0\0\0b"}},
        {"headers": {"authorization": "a; cookie: b"}},
        {"headers": {"authorization": "a\r\ncookie: b"}},
        {"headers": {"authorization": "acookieb"}},
        {"headers": {"authorization": "", "cookie": "ab"}},
        {"headers": {"authorization": "ab", "cookie": ""}},
        {"headers": {"authorization": "anonymous"}},
        {"user_identity": "A"},
        {"user_identity": "H\0\x01"},
    )


async def test_identity_headers_of_the_settings_decide():
    pool = FakePool(identity_headers=["X-Who"])
    await assert_apart(
        pool, {"headers": {"x-who": "a"}}, {"headers": {"X-WHO": "b"}}, {"headers": {"authorization": "a"}}
    )
    assert await key_of(pool, headers={"authorization": "b"}) == await key_of(pool)


@pytest.mark.parametrize("length", range(1, 41))
def test_a_header_is_an_identity_header_by_its_whole_name(length: int):
    name = "x-who-is-the-caller-of-this-very-gateway"[:length]
    pool = FakePool(identity_headers=[name])
    anonymous = pool._compute_identity_hash({})
    assert pool._compute_identity_hash({name: "a"}) == pool._compute_identity_hash({name.upper(): "a"})
    assert pool._compute_identity_hash({name: "a"}) != anonymous
    others = [name[:at] + "_" + name[at + 1 :] for at in range(length)]
    for other in (*others, f"{name}s", name[:-1]):
        assert pool._compute_identity_hash({other: "a"}) == anonymous, other


async def test_many_identity_headers_of_one_length_stay_apart():
    names = [f"x-header-{number:03}" for number in range(255)]
    pool = FakePool(identity_headers=names)
    await assert_apart(pool, *({"headers": {name: "a"}} for name in names))


async def test_session_of_one_identity_is_not_handed_to_waiters_of_another():
    pool = FakePool(max_sessions_per_key=1)
    held = await pool.acquire(URL, user_identity="ann")
    ann = asyncio.ensure_future(pool.acquire(URL, user_identity="ann"))
    await turns()
    bob = await pool.acquire(URL, user_identity="bob")
    await pool.release(bob)
    await turns()
    assert not ann.done()
    await pool.release(held)
    assert await ann is held
    await pool.release(held)
    assert_at_rest(pool)


ATOMS = st.sampled_from(["a", "b", "\0", "|", "\x01", "anonymous", "A", "H", "\ud800"])
PARTS = st.lists(ATOMS, max_size=3).map("".join)
HEADERS = st.dictionaries(
    st.sampled_from(["authorization", "x-tenant-id", "cookie", "x-mcp-session-id"]), PARTS, max_size=4
)
ARGUMENTS = st.fixed_dictionaries(
    {
        "url": PARTS.map(lambda part: URL + part),
        "headers": HEADERS,
        "transport_type": st.sampled_from(TransportType),
        "user_identity": PARTS,
        "gateway_id": PARTS,
    }
)


def meaning(arguments: dict[str, Any]) -> Any:
    user = arguments["user_identity"] or "anonymous"
    headers = tuple(sorted((name.lower(), value) for name, value in arguments["headers"].items()))
    return (arguments["url"], headers, arguments["transport_type"], user, arguments["gateway_id"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ARGUMENTS, min_size=2, max_size=12), st.randoms())
def test_arguments_share_a_session_if_and_only_if_they_mean_the_same(many, random):
    async def check() -> None:
        pool = FakePool(max_sessions_per_key=1)
        numbers: dict[Any, int] = {}
        for arguments in many:
            number = await key_of(pool, **arguments)
            assert numbers.setdefault(meaning(arguments), number) == number
            items = [
                ("".join(random.choice([str.upper, str.lower])(char) for char in name), value)
                for name, value in arguments["headers"].items()
            ]
            random.shuffle(items)
            assert await key_of(pool, **{**arguments, "headers": dict(items)}) == number
        assert len(set(numbers.values())) == len(numbers) == pool.count("keys")
        assert_adds_up(pool)

    asyncio.run(check())


# ---- isolation="session"


async def test_isolation_by_session_never_reuses_for_another_downstream_session():
    pool = FakePool(isolation="session")
    await assert_apart(
        pool,
        {"headers": {"x-mcp-session-id": "one"}},
        {"headers": {"X-Mcp-Session-Id": "two"}},
        {"headers": {"X-Mcp-Session-Id": "two", "authorization": "a"}},
        {"headers": {"X-Mcp-Session-Id": "two"}, "user_identity": "ann"},
    )


async def test_isolation_by_session_comes_before_any_extractor():
    pool = FakePool(isolation="session", identity_extractor=lambda headers: "all the same")
    await assert_apart(
        pool, {"headers": {"x-mcp-session-id": "one"}}, {"headers": {"x-mcp-session-id": "two"}}
    )


@pytest.mark.parametrize("hook", ["_make_pool_key", "_compute_identity_hash"])
async def test_isolation_by_session_comes_before_any_hook(hook: str):
    class Own(FakePool):
        pass

    setattr(Own, hook, lambda self, *args: ("same",) if hook == "_make_pool_key" else "same")
    pool = Own(isolation="session")
    await assert_apart(
        pool, {"headers": {"x-mcp-session-id": "one"}}, {"headers": {"x-mcp-session-id": "two"}}
    )
    assert await key_of(pool) != await key_of(pool)
    assert len(pool.get_metrics()["pools"]) == pool.count("keys")


@pytest.mark.parametrize("headers", [None, {}, {"x-mcp-session-id": ""}, {"authorization": "a"}])
async def test_isolation_by_session_without_the_header_uses_a_session_once(headers: Any):
    pool = FakePool(isolation="session", max_sessions_per_key=1)
    first = await pool.acquire(URL, headers)
    waiter = asyncio.ensure_future(pool.acquire(URL, headers))
    await turns()
    await pool.release(first)
    second = await waiter
    assert second is not first
    assert pool.closed_sessions == [first]
    await pool.release(second)
    assert pool.closed_sessions == [first, second]
    assert (pool.count("hits"), pool.count("misses")) == (0, 2)
    await turns()
    assert pool.count("keys") == 0
    assert_at_rest(pool)


async def test_isolation_by_identity_shares_between_downstream_sessions_only_when_told_to():
    pool = FakePool(identity_headers=["authorization"])
    await assert_together(
        pool, {"headers": {"x-mcp-session-id": "one"}}, {"headers": {"x-mcp-session-id": "two"}}
    )


async def test_affinity_makes_the_downstream_session_the_whole_header_identity():
    pool = FakePool()
    pool._affinity = True
    await assert_together(
        pool,
        {"headers": {"x-mcp-session-id": "one", "authorization": "a"}},
        {"headers": {"X-MCP-SESSION-ID": "one", "authorization": "rotated"}},
    )
    await key_of(pool, headers={"x-mcp-session-id": "two", "authorization": "a"})
    await key_of(pool, headers={"x-mcp-session-id": "one"}, user_identity="ann")
    await key_of(pool, headers={"authorization": "one"})
    assert pool.count("keys") == 4


# ---- identity_extractor


async def test_extracted_identity_wins_over_the_headers():
    pool = FakePool(identity_extractor=lambda headers: headers.get("who"))
    await assert_together(
        pool,
        {"headers": {"who": "ann", "authorization": "a"}},
        {"headers": {"who": "ann", "authorization": "b"}},
    )
    await key_of(pool, headers={"who": "bob", "authorization": "a"})
    assert pool.count("keys") == 2


@pytest.mark.parametrize("answer", [None, "", 0, b"ann", ["ann"], {}])
async def test_headers_decide_where_the_extractor_has_no_identity(
    answer: Any, caplog: pytest.LogCaptureFixture
):
    pool = FakePool(identity_extractor=lambda headers: answer)
    await assert_apart(
        pool, {"headers": {"authorization": "a"}}, {"headers": {"authorization": "b"}}, {"headers": {}}
    )
    assert await key_of(pool, headers={"Authorization": "a"}) == 1
    assert len([r for r in caplog.records if "extractor" in r.getMessage()]) == (answer != "")


async def test_headers_decide_where_the_extractor_raises_and_that_is_logged_once(
    caplog: pytest.LogCaptureFixture,
):
    def extract(headers: dict[str, str]) -> str:
        raise ValueError("http://user:s3cret@host")

    pool = FakePool(identity_extractor=extract)
    await assert_apart(pool, {"headers": {"authorization": "s3cret"}}, {"headers": {"authorization": "b"}})
    records = [record for record in caplog.records if "extractor" in record.getMessage()]
    assert len(records) == 1
    assert records[0].levelno == logging.WARNING
    assert "s3cret" not in caplog.text


async def test_extracted_identity_is_not_mistaken_for_headers_nor_for_none():
    pool = FakePool(identity_extractor=lambda headers: headers.get("who"))
    await assert_apart(
        pool,
        {"headers": {"who": "anonymous"}},
        {"headers": {}},
        {"headers": {"authorization": "anonymous"}},
        {"headers": {"who": "\0\x01\x09\0\0\0anonymous"}},
    )


async def test_extractor_that_leaves_by_a_base_exception_lets_it_through():
    def extract(headers: dict[str, str]) -> str:
        raise KeyboardInterrupt

    pool = FakePool(identity_extractor=extract)
    acquiring = pool.acquire(URL, {"a": "b"})
    with pytest.raises(KeyboardInterrupt):
        acquiring.send(None)
    assert_at_rest(pool)


async def test_extractor_may_change_the_headers_it_is_given():
    def extract(headers: dict[str, str]) -> None:
        for number in range(100):
            headers[f"x-{number}"] = "new"
        headers.pop("authorization", None)

    pool = FakePool(identity_extractor=extract)
    await key_of(pool, headers={"authorization": "a"})
    assert_at_rest(pool)


# ---- overridden _compute_identity_hash and _make_pool_key


def by_who(self: Any, headers: dict[str, str] | None) -> str:
    return (headers or {}).get("who", "nobody")


def by_url(self: Any, url: str, headers: Any, transport_type: Any, user: str, gateway_id: Any = None) -> Any:
    return ("own", url, user)


async def check_identity_hook(pool: FakePool) -> None:
    one = await key_of(pool, headers={"who": "ann", "authorization": "a"})
    assert await key_of(pool, headers={"who": "ann", "authorization": "b"}) == one
    assert await key_of(pool, headers={"who": "bob", "authorization": "a"}) != one
    assert await key_of(pool, headers={"who": "ann"}, user_identity="ann") != one
    assert_adds_up(pool)


async def check_key_hook(pool: FakePool) -> None:
    one = await key_of(pool, headers={"authorization": "a"}, gateway_id="g")
    assert await key_of(pool, headers={"authorization": "b"}, gateway_id="h") == one
    assert await key_of(pool, user_identity="ann") != one
    assert ("own", URL, "ann") in pool._pools
    assert_adds_up(pool)


HOOKS = [("_compute_identity_hash", by_who, check_identity_hook), ("_make_pool_key", by_url, check_key_hook)]


@pytest.mark.parametrize(("name", "hook", "check"), HOOKS)
async def test_hook_overridden_on_a_subclass_decides(name: str, hook: Any, check: Any):
    await check(type("Own", (FakePool,), {name: hook})())


@pytest.mark.parametrize(("name", "hook", "check"), HOOKS)
@pytest.mark.parametrize("cls", [MCPSessionPool, FakePool])
async def test_hook_replaced_on_a_class_decides_from_then_on(
    name: str, hook: Any, check: Any, cls: type, monkeypatch: pytest.MonkeyPatch
):
    used, fresh = FakePool(), FakePool()
    await key_of(used, headers={"authorization": "a"})
    with monkeypatch.context() as patch:
        patch.setattr(cls, name, hook, raising=False)
        await check(used)
        await check(fresh)
    for pool in (used, fresh):
        before = pool.count("keys")
        await key_of(pool, headers={"authorization": "c"})
        await key_of(pool, headers={"authorization": "d"})
        assert pool.count("keys") == before + 2


@pytest.mark.parametrize(("name", "hook", "check"), HOOKS)
async def test_hook_set_on_one_instance_decides_for_it_alone_and_until_it_is_removed(
    name: str, hook: Any, check: Any
):
    pool, other = FakePool(), FakePool()
    await key_of(pool, headers={"authorization": "a"})
    setattr(pool, name, hook.__get__(pool))
    await check(pool)
    await assert_apart(
        other, {"headers": {"who": "ann", "authorization": "a"}}, {"headers": {"authorization": "b"}}
    )
    delattr(pool, name)
    before = pool.count("keys")
    assert await key_of(pool, headers={"authorization": "a"}) == 1
    await key_of(pool, headers={"authorization": "c"})
    assert pool.count("keys") == before + 1


@pytest.mark.parametrize(("name", "hook", "check"), HOOKS)
async def test_hook_put_into_the_dict_of_an_instance_decides(name: str, hook: Any, check: Any):
    pool = FakePool()
    pool.__dict__[name] = hook.__get__(pool)
    await check(pool)


@pytest.mark.parametrize("bad", [None, 7, "text", ["a"], ("a", 7), ("a", None), b"a"])
async def test_key_hook_that_returns_no_tuple_of_str_is_a_type_error(bad: Any):
    pool = FakePool()
    pool._make_pool_key = lambda *args: bad  # type: ignore[method-assign]
    with pytest.raises(TypeError, match="_make_pool_key"):
        await pool.acquire(URL)
    del pool._make_pool_key
    await key_of(pool)
    await turns()
    assert_at_rest(pool)


@pytest.mark.parametrize("bad", [None, 7, b"a", ("a",)])
async def test_identity_hook_that_returns_no_str_is_a_type_error(bad: Any):
    pool = FakePool()
    pool._compute_identity_hash = lambda headers: bad  # type: ignore[method-assign]
    with pytest.raises(TypeError, match="_compute_identity_hash"):
        await pool.acquire(URL)
    assert_at_rest(pool)


@pytest.mark.parametrize("name", ["_make_pool_key", "_compute_identity_hash"])
async def test_exception_of_a_key_hook_passes_and_harms_nothing(name: str):
    pool = FakePool()
    error = LookupError("mine")

    def hook(*args: Any) -> Any:
        raise error

    setattr(pool, name, hook)
    with pytest.raises(LookupError) as caught:
        await pool.acquire(URL)
    assert caught.value is error
    assert pool.attempts == 0
    assert_at_rest(pool)


async def test_parts_of_an_overridden_key_cannot_imitate_another_split():
    pool = FakePool()
    keys = [("a", "b"), ("ab",), ("a", "b", ""), ("a\0b",), ("a|b",), (), ("",), ("\ud800",), ("P", "a")]
    for key in keys:
        pool._make_pool_key = lambda *args, key=key: key  # type: ignore[method-assign,misc]
        await key_of(pool)
    assert pool.count("keys") == len(keys)
    assert set(pool._pools) == set(keys)
    assert len(pool.get_metrics()["pools"]) == len(keys)
    assert_adds_up(pool)


# ---- anonymous


async def test_anonymous_is_counted_once_for_each_acquire_and_warned_of_once(
    caplog: pytest.LogCaptureFixture,
):
    pool = FakePool(max_sessions_per_key=1)
    held = await pool.acquire(URL)
    waiter = asyncio.ensure_future(pool.acquire(URL))
    await turns()
    await pool.release(held)
    await pool.release(await waiter)
    await key_of(pool, headers={"accept": "x"})
    await key_of(pool, gateway_id="other")
    assert pool.get_metrics()["anonymous_identity_count"] == 4
    assert pool.count("anonymous_acquires") == 4
    await key_of(pool, user_identity="ann")
    await key_of(pool, headers={"authorization": "a"})
    assert pool.get_metrics()["anonymous_identity_count"] == 4
    assert len([record for record in caplog.records if "identity" in record.getMessage()]) == 1
    await turns()
    assert_at_rest(pool)


@pytest.mark.parametrize("name", ["_make_pool_key", "_compute_identity_hash"])
async def test_anonymous_is_counted_once_where_a_hook_calls_the_default(name: str):
    class Own(FakePool):
        pass

    default = getattr(MCPSessionPool, name)
    setattr(Own, name, lambda self, *args: default(self, *args))  # noqa: PLW0108
    pool = Own()
    for _ in range(3):
        await key_of(pool)
    await key_of(pool, headers={"authorization": "a"})
    await key_of(pool, user_identity="a")
    assert pool.get_metrics()["anonymous_identity_count"] == pool.count("anonymous_acquires") == 3
    assert pool.count("keys") == 3


async def test_acquire_of_a_named_key_is_anonymous_where_its_caller_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pool = FakePool()
    for user, is_anonymous in (("nobody", True), ("somebody", False)):
        key = (URL, None, HTTP, user, "g")
        pending = _core.acquire(pool, *key, is_anonymous)
        pooled = await acquire_slowly(pool, pending, AcquireArguments(URL, None, HTTP, None, None, user, "g"))
        for _ in range(2):
            await pool.release(pooled)
            pooled = _core.acquire(pool, *key, is_anonymous)
        await pool.release(pooled)
    assert pool.count("anonymous_acquires") == 3
    assert pool.count("hits") == 4
    assert caplog.records == []  # who says so warns in its own words
    for wrong in ((), (True, True)):
        with pytest.raises(TypeError, match="expected 6 arguments"):
            _core.acquire(pool, URL, None, HTTP, "nobody", *(("g",) if wrong else ()), *wrong)


def test_identity_hash_is_sha256_or_anonymous_and_counts_when_called_directly():
    pool = MCPSessionPool()
    digest = pool._compute_identity_hash({"Authorization": "a"})
    assert len(digest) == 64
    assert digest == pool._compute_identity_hash({"AUTHORIZATION": "a"})
    assert digest != pool._compute_identity_hash({"Authorization": "b"})
    assert pool._compute_identity_hash(None) == "anonymous"
    assert pool._compute_identity_hash({}) == "anonymous"
    assert pool._anonymous_identity_count == 2


async def test_views_show_digests_and_never_a_token_nor_a_user():
    pool = FakePool()
    headers = {"Authorization": "Bearer s3cret", "X-Mcp-Session-Id": "s3cret"}
    held = await pool.acquire(
        "http://u:s3cret@host/mcp?t=s3cret", headers, user_identity="s3cret-user", gateway_id="g"
    )
    (key,) = pool._active
    assert key == pool._make_pool_key("http://u:s3cret@host/mcp?t=s3cret", headers, HTTP, "s3cret-user", "g")
    assert pool._active[key] == {held}
    assert pool._pools[key].qsize() == 0
    assert "s3cret" not in str(pool.get_metrics())
    assert "s3cret" not in repr(held)
    assert held.identity_key == pool._compute_identity_hash(headers)
    await pool.release(held)
    assert list(pool._pools[key]._queue) == [held]
    assert pool._active[key] == set()
    await turns()
    assert_at_rest(pool)


async def test_hit_creation_and_hook_agree_on_the_identity_key():
    class Own(FakePool):
        def _compute_identity_hash(self, headers: Any) -> str:
            return "own identity"

    pool = Own()
    pooled = await pool.acquire(URL, {"authorization": "a"})
    assert pooled.identity_key == "own identity"
    await pool.release(pooled)
    await turns()
    assert_at_rest(pool)


async def test_metrics_show_every_key_even_where_names_are_alike():
    pool = FakePool()
    await assert_apart(pool, {"gateway_id": None}, {"gateway_id": "none"}, {"gateway_id": "none|"})
    shown = pool.get_metrics()["pools"]
    assert len(shown) == 3
    assert all(entry == {"available": 1, "active": 0, "max": 10} for entry in shown.values())
