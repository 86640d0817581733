"""The features that decide on a key, all combinations of them: each is tested alone in test_keys.py."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from mcpgateway_pool import TransportType
from support.fakes import URL, FakePool, assert_adds_up, assert_at_rest, turns

SESSION = "x-mcp-session-id"


def extract(headers: dict[str, str]) -> str | None:
    """An extractor that has an identity for some, none for others, and fails for the rest."""
    if headers.get("who") == "fails":
        raise LookupError("who")
    return headers.get("who")


# One text in every place where it could be taken for another.
HEADERS: list[dict[str, str]] = [
    {},
    {"authorization": "abc"},
    {"authorization": "xyz"},
    {SESSION: "abc"},
    {SESSION: "xyz"},
    {"who": "abc"},
    {"who": "fails", "authorization": "abc"},
    {"who": "fails", SESSION: "abc"},
    {"authorization": "abc", SESSION: "abc"},
    {"authorization": "xyz", SESSION: "abc"},
    {"authorization": "abc", SESSION: "xyz"},
    {"who": "abc", "authorization": "abc"},
    {"who": "abc", SESSION: "abc"},
    {"who": "abc", SESSION: "xyz"},
    {"who": "xyz", SESSION: "abc"},
    {"who": "abc", "authorization": "xyz", SESSION: "abc"},
    {SESSION: "", "authorization": "abc"},
    {SESSION: "", "who": "abc"},
]
ARGUMENTS: list[dict[str, Any]] = [
    {"headers": headers, "user_identity": user, "gateway_id": gateway, "transport_type": transport}
    for headers, user, gateway, transport in itertools.product(
        HEADERS, ("", "abc"), ("", "abc"), (TransportType.SSE, TransportType.STREAMABLE_HTTP)
    )
]


def header_identity(
    headers: dict[str, str], *, extracts: bool, affinity: bool, names: tuple[str, ...]
) -> Any:
    """The contract, in the order of its rules."""
    if extracts and headers.get("who") not in {None, "", "fails"}:
        return ("extracted", headers["who"])
    if affinity and headers.get(SESSION):
        return ("downstream session", headers[SESSION])
    return ("headers", *sorted((name, value) for name, value in headers.items() if name in names))


@pytest.mark.parametrize("names", [("authorization", SESSION), ("authorization",)], ids=["both", "one"])
@pytest.mark.parametrize("affinity", [False, True], ids=["", "affinity"])
@pytest.mark.parametrize("extracts", [False, True], ids=["", "extractor"])
@pytest.mark.parametrize("isolation", ["identity", "session"])
async def test_who_shares_is_what_the_rules_say_whatever_is_switched_on(
    isolation: str, extracts: bool, affinity: bool, names: tuple[str, ...]
) -> None:
    pool = FakePool(
        isolation=isolation,
        identity_extractor=extract if extracts else None,
        identity_headers=list(names),
    )
    pool._affinity = affinity
    sessions: dict[Any, Any] = {}
    used_once = []
    for arguments in ARGUMENTS * 2:
        headers = arguments["headers"]
        rest = (arguments["user_identity"], arguments["gateway_id"], arguments["transport_type"])
        identity = header_identity(headers, extracts=extracts, affinity=affinity, names=names)
        pooled = await pool.acquire(URL, **arguments)
        await pool.release(pooled)
        if isolation == "session" and not headers.get(SESSION):
            used_once.append(pooled)
            continue
        key = (identity, rest, headers.get(SESSION) if isolation == "session" else None)
        assert sessions.setdefault(key, pooled) is pooled, key
    assert len({id(pooled) for pooled in sessions.values()}) == len(sessions)
    assert len({id(pooled) for pooled in used_once}) == len(used_once)
    await turns()
    assert pool.count("keys") == len(sessions)
    assert len(pool.closed_sessions) == len(used_once)
    assert_adds_up(pool)
    assert_at_rest(pool)
