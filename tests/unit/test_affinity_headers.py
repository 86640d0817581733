"""The headers of a request that one worker sends on to another."""

from __future__ import annotations

from typing import Any

import pytest

from mcpgateway_pool.affinity.headers import forwardable

# RFC 9110, 7.6.1 and 10.1.1, and what proxies and clients send besides: these say how one connection is used.
OF_THE_CONNECTION = (
    "Connection",
    "Content-Length",
    "Expect",
    "Keep-Alive",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
)
# They describe a body that is written anew.
OF_THE_BODY = ("Content-Encoding", "Content-Type")
OF_THE_REQUEST = (
    "Authorization",
    "Cookie",
    "Accept",
    "X-MCP-Session-Id",
    "Forwarded",
    "Content-Language",
    "TEE",
)


@pytest.mark.parametrize("has_new_body", [True, False])
@pytest.mark.parametrize("name", OF_THE_CONNECTION)
def test_header_of_the_connection_stays_with_it(name: str, has_new_body: bool) -> None:
    for spelling in (name, name.lower(), name.upper()):
        assert forwardable({spelling: "a", "x": "b"}, has_new_body=has_new_body) == {"x": "b"}


@pytest.mark.parametrize("name", OF_THE_BODY)
def test_header_of_the_body_goes_with_that_body_only(name: str) -> None:
    for spelling in (name, name.lower(), name.upper()):
        assert forwardable({spelling: "a"}, has_new_body=True) == {}
        assert forwardable({spelling: "a"}, has_new_body=False) == {name.lower(): "a"}


@pytest.mark.parametrize("has_new_body", [True, False])
def test_every_other_header_goes_along_in_lower_case(has_new_body: bool) -> None:
    given = {name: f"value of {name}" for name in OF_THE_REQUEST}
    assert forwardable(given, has_new_body=has_new_body) == {
        name.lower(): value for name, value in given.items()
    }
    assert forwardable({"X": 7}, has_new_body=has_new_body) == {"x": "7"}


@pytest.mark.parametrize("headers", [None, [("authorization", "a")], "authorization", 7])
def test_what_is_no_dict_counts_as_none(headers: Any) -> None:
    assert forwardable(headers, has_new_body=True) == {}
