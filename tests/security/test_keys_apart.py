"""Whoever chooses one part of a key cannot reach the session of another: collisions by construction.

The rules themselves are in tests/unit/test_keys.py; here is what an attacker would try against them.
"""

from __future__ import annotations

import asyncio
import enum
import itertools
import struct
import unicodedata
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcpgateway_pool import TransportType
from mcpgateway_pool.upstream.session_owner import upstream_headers
from support.fakes import URL, FakePool, assert_at_rest, turns

HTTP = TransportType.STREAMABLE_HTTP


class Liar(str):
    """A str that says it equals everything, and is spelled differently."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 7

    def __len__(self) -> int:
        return 3

    def lower(self) -> str:
        return "authorization"

    def encode(self, *_: Any) -> bytes:
        return b"same"

    def __str__(self) -> str:
        return "same"


class Header(enum.StrEnum):
    AUTHORIZATION = "Authorization"
    SESSION = "X-Mcp-Session-Id"


async def session_of(pool: FakePool, arguments: dict[str, Any]) -> Any:
    """What these arguments get, and give back at once."""
    pooled = await pool.acquire(**{"url": URL, **arguments})
    await pool.release(pooled)
    return pooled


async def assert_all_apart(many: list[dict[str, Any]], **settings: Any) -> None:
    """Each gets a session of its own, again and again."""
    pool = FakePool(**settings)
    first = [await session_of(pool, arguments) for arguments in many]
    again = [await session_of(pool, arguments) for arguments in many]
    alike = [
        (many[i], many[j]) for i, j in itertools.combinations(range(len(many)), 2) if first[i] is first[j]
    ]
    assert alike == []
    assert all(one is other for one, other in zip(first, again, strict=True))
    assert_at_rest(pool)


def cuts(text: str, parts: int) -> list[tuple[str, ...]]:
    """Every way to cut a text into so many parts, the first of which is not empty."""
    places = itertools.combinations_with_replacement(range(len(text) + 1), parts - 1)
    bounds = [(0, *place, len(text)) for place in places if place[0] > 0]
    return [tuple(text[a:b] for a, b in itertools.pairwise(bound)) for bound in bounds]


# Texts in which a cut looks like another one: to whoever joins parts by a separator, ends them with NUL, or
# puts their length in front (as 4 bytes, as a digit, as a netstring).
SPLIT = [
    "aaaaaa",
    "a|a|a|",
    "\0\0\0\0\0\0",
    "a\1\0\0\0a\1\0\0\0a",
    "1a1a1a",
    "1:a,1:a,",
    "\n: \n: ",
    "P\1H\0A\2",
]


@pytest.mark.parametrize("text", SPLIT, ids=ascii)
async def test_no_cut_of_a_text_into_parts_is_like_another(text: str) -> None:
    await assert_all_apart(
        [
            {"url": url, "user_identity": f".{user}", "gateway_id": gateway}
            for url, user, gateway in cuts(text, 3)
        ]
    )


@pytest.mark.parametrize("text", SPLIT, ids=ascii)
async def test_no_cut_of_a_text_into_header_values_is_like_another(text: str) -> None:
    names = ("Authorization", "X-Tenant-Id", "Cookie")
    await assert_all_apart([{"headers": dict(zip(names, cut, strict=True))} for cut in cuts(text, 3)])


async def test_no_part_imitates_a_whole_key() -> None:
    """The bytes of one key, as a value of another."""
    lengths = [struct.pack("<I", length).decode("latin-1") for length in (0, 1, 4)]
    whole = f"P{lengths[1]}u{lengths[2]}aaaa{lengths[0]}h\0H\0\1{lengths[1]}v"
    await assert_all_apart(
        [
            {"user_identity": "u", "headers": {"authorization": "v"}},
            {"user_identity": "u", "headers": {"authorization": whole}},
            {"user_identity": whole, "headers": {"authorization": "v"}},
            {"user_identity": "u", "url": whole, "headers": {"authorization": "v"}},
            {"user_identity": "u", "gateway_id": whole, "headers": {"authorization": "v"}},
            {"user_identity": "u", "headers": {"authorization": "v", "cookie": whole}},
        ]
    )


async def test_values_of_one_header_do_not_merge_into_another_list() -> None:
    await assert_all_apart(
        [
            {"headers": {"Cookie": "a; b"}},
            {"headers": {"Cookie": "a", "cookie": "b"}},
            {"headers": {"Cookie": "a, b"}},
            {"headers": {"Cookie": "a"}},
            {"headers": {"Cookie": "b"}},
            {"headers": {"Cookie": "a", "cookie": "a"}},
            {"headers": {"Cookie": "a", "cookie": ""}},
            {"headers": {"Cookie": ""}},
            {"headers": {"Authorization": "x\r\nCookie: a"}},
            {"headers": {"Authorization": "x", "Cookie": "a"}},
            {"headers": {}},
        ]
    )


# ---- Unicode

ALIKE = [
    ["K", "\u212a", "k", "\uff2b"],  # the Kelvin sign lowers to k, as K does
    ["i", "I", "\u0131", "\u0130", "i\u0307"],  # Turkish
    ["ss", "SS", "ß", "ẞ"],
    *[
        list(dict.fromkeys(unicodedata.normalize(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD")))
        for text in ("é", "Å", "ﬁ", "ﷺ", "한", "①")
    ],
    ["admin", "\uff41dmin", "\u0430dmin", "adm\u200bin", "admin\u00ad", "\u202eadmin", "admin "],
    ["\ud800", "\ud801", "\udc80", "\ufffd", "?", "\ud83d\ude00", "\U0001f600"],
    ["", "\0", "\0\0", "\u0000a"],
]


@pytest.mark.parametrize("texts", ALIKE, ids=ascii)
async def test_texts_that_look_or_fold_alike_stay_apart(texts: list[str]) -> None:
    assert len(set(texts)) == len(texts)
    for name in ("user_identity", "gateway_id"):
        await assert_all_apart([{name: f"x{text}"} for text in texts])
    await assert_all_apart([{"url": URL + text} for text in texts])
    await assert_all_apart([{"headers": {"Authorization": text}} for text in texts])
    await assert_all_apart(
        [{"headers": {"who": text}} for text in texts if text], identity_extractor=lambda h: h["who"]
    )


# What lower(), strip(), casefold() or a normalisation would make an identity header.
LOOK_ALIKES = [
    "x-api-\u212aey",
    "author\u0131zation",
    "\uff21uthorization",
    "authorization ",
    " authorization",
    "authorization\0",
    "authorization:",
    "authorization\n",
    "authori\u200bzation",
]


@pytest.mark.parametrize("name", LOOK_ALIKES, ids=ascii)
async def test_header_that_looks_like_an_identity_header_is_none_and_cannot_be_sent(name: str) -> None:
    """Were it sent, a server might read it as the credentials that the key does not have."""
    pool = FakePool()
    assert await session_of(pool, {"headers": {name: "a"}}) is await session_of(
        pool, {"headers": {name: "b"}}
    )
    with pytest.raises(ValueError, match="is no header name"):
        upstream_headers({name: "a"})


# ---- strings and dicts that lie


@pytest.mark.parametrize("name", [Liar("Authorization"), Header.AUTHORIZATION, Liar("COOKIE")], ids=ascii)
async def test_name_of_a_str_subclass_is_an_identity_header(name: str) -> None:
    plain = "".join(list(name))
    pool = FakePool()
    ann = await session_of(pool, {"headers": {name: "ann"}})
    assert await session_of(pool, {"headers": {name: "bob"}}) is not ann
    assert await session_of(pool, {"headers": {plain.lower(): "ann"}}) is ann
    assert pool._anonymous_identity_count == 0


async def test_downstream_session_is_seen_under_a_name_of_a_str_subclass() -> None:
    for session in (Header.SESSION, Liar("X-MCP-Session-ID")):
        many = [{"headers": {session: "1"}}, {"headers": {session: "2"}}]
        await assert_all_apart(many, isolation="session")
        assert Header.SESSION not in upstream_headers({session: "1"})
        assert list(upstream_headers({session: "1"})) == ["Accept"]


async def test_value_of_a_str_subclass_counts_by_its_characters() -> None:
    texts = [Liar("ann"), Liar("bob"), Liar(""), "same"]
    await assert_all_apart([{"headers": {"Authorization": text}} for text in texts])
    for name in ("user_identity", "gateway_id"):
        await assert_all_apart([{name: text} for text in texts])
    await assert_all_apart([{"url": text} for text in texts if str.__len__(text)])
    pool = FakePool()
    assert await session_of(pool, {"user_identity": Liar("ann")}) is await session_of(
        pool, {"user_identity": "ann"}
    )


async def test_dict_subclass_that_hides_a_header_does_not_hide_it_from_the_key() -> None:
    class Hiding(dict[str, str]):
        def items(self) -> Any:
            return {}.items()

        def get(self, *_: Any) -> Any:
            return None

        def __contains__(self, _: object) -> bool:
            return False

    await assert_all_apart([{"headers": Hiding({"Authorization": who})} for who in ("ann", "bob")])


async def test_headers_that_change_while_their_caller_waits_open_no_session_of_another() -> None:
    """A program that keeps one dict for all its requests: the key is of the first, and so is the session."""
    seen: list[str] = []

    class Pool(FakePool):
        def make_session(self, url: str, headers: Any, transport_type: TransportType) -> Any:
            seen.append(headers["Authorization"])
            return super().make_session(url, headers, transport_type)

    pool = Pool(max_sessions_per_key=1)
    headers = {"Authorization": "ann"}
    held = await pool.acquire(URL, headers)
    waiting = asyncio.create_task(pool.acquire(URL, headers))
    await turns()
    headers["Authorization"] = "bob"
    await pool.release(held, discard=True)
    ann = await waiting
    await pool.release(ann)
    assert seen == ["ann", "ann"]
    assert await session_of(pool, {"headers": {"Authorization": "ann"}}) is ann
    assert await session_of(pool, {"headers": headers}) is not ann

    other = {"Authorization": "carol"}
    opening = asyncio.create_task(pool.acquire(URL, other))
    await asyncio.sleep(0)
    other["Authorization"] = "dave"
    await pool.release(await opening)
    assert seen == ["ann", "ann", "bob", "carol"]
    assert_at_rest(pool)


# ---- all of it at random

PIECES = [
    "a", "A", "\0", "|", "\1\0\0\0", "\2\0\0\0", "anonymous", "none", "K", "\u212a", "é", "e\u0301", "ß",
    "SS", "\ud800", ":", "\r\n", "P", "H", "E", "C",
]  # fmt: skip
TEXT = st.lists(st.sampled_from(PIECES), max_size=3).map("".join)
SPELLINGS = [
    spelling(name)
    for name in ("authorization", "x-tenant-id", "cookie", "x-mcp-session-id", "accept", "x-api-\u212aey")
    for spelling in (str.lower, str.upper, str.title, lambda text: Liar(text.title()))
]


@st.composite
def many_arguments(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Of few texts, so that many of them are nearly the same."""
    texts = draw(st.lists(TEXT, min_size=1, max_size=3))
    names = draw(st.lists(st.sampled_from(SPELLINGS), min_size=1, max_size=3))
    text = st.builds(lambda text, kind: kind(text), st.sampled_from(texts), st.sampled_from([str, Liar]))
    arguments = st.fixed_dictionaries(
        {
            "url": st.sampled_from([URL, Liar(URL)]) | text.map(lambda text: Liar("u" + characters(text))),
            "headers": st.none() | st.lists(st.tuples(st.sampled_from(names), text), max_size=3).map(dict),
            "transport_type": st.sampled_from(TransportType),
            "user_identity": st.none() | text,
            "gateway_id": st.none() | text,
        }
    )
    return draw(st.lists(arguments, min_size=2, max_size=12))


IDENTITY_HEADERS = ("authorization", "x-tenant-id", "cookie", "x-mcp-session-id", "x-api-key", "x-user-id")


def characters(text: str | None) -> str:
    return "" if text is None else "".join(list(text))


def documented_identity(arguments: dict[str, Any], isolation: str) -> Any:
    """The normalised identity of docs/security.md; None for what nobody shares."""
    values: dict[str, list[str]] = {}
    for name, value in (arguments["headers"] or {}).items():
        lowered = str.lower(name)
        if lowered in IDENTITY_HEADERS and name.isascii():
            values.setdefault(lowered, []).append(characters(value))
    sessions = [value for value in values.get("x-mcp-session-id", []) if value]
    if isolation == "session" and not sessions:
        return None
    return (
        characters(arguments["user_identity"]) or "anonymous",
        characters(arguments["url"]),
        characters(arguments["gateway_id"]),
        arguments["transport_type"],
        tuple(sorted((name, tuple(sorted(many))) for name, many in values.items())),
    )


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(many_arguments(), st.sampled_from(["identity", "session"]))
def test_arguments_share_a_session_if_and_only_if_their_documented_identity_is_the_same(
    many: list[dict[str, Any]], isolation: str
) -> None:
    async def check() -> None:
        pool = FakePool(isolation=isolation)
        sessions: dict[Any, Any] = {}
        seen: list[Any] = []
        for arguments in many:
            pooled = await session_of(pool, arguments)
            identity = documented_identity(arguments, isolation)
            if identity is None or identity not in sessions:
                assert not any(pooled is other for other in seen)
            else:
                assert sessions[identity] is pooled
            sessions[identity] = pooled
            seen.append(pooled)
        assert_at_rest(pool)

    asyncio.run(check())
