"""What exceptions tell about a session."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from mcpgateway_pool.failures import (
    http_status_of,
    is_callers_mistake,
    is_session_fatal,
    mark_callers_mistake,
    real_cause,
)
from mcpgateway_pool.upstream import sdk
from mcpgateway_pool.upstream.http_watch import status_error

http = sdk.http_library()


def refusal(status: int) -> Exception:
    return status_error(http.Response(status, request=http.Request("POST", "http://u:p@host/mcp?secret=1")))


def chained(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        anyio.ClosedResourceError(),
        anyio.BrokenResourceError(),
        anyio.EndOfStream(),
        http.ConnectError("x"),
        http.ReadTimeout("x"),
        http.RemoteProtocolError("x"),
        ConnectionResetError(),
        sdk.make_error(-32000, "closed"),
        sdk.make_error(32600, "Session terminated"),
        sdk.make_error(-32600, "Session not found"),
        ExceptionGroup("g", [ValueError(), ExceptionGroup("h", [http.ReadError("x")])]),
        chained(RuntimeError("tool failed"), sdk.make_error(-32000, "closed")),
    ],
    ids=repr,
)
def test_what_may_leave_a_session_unusable_is_fatal(error: BaseException) -> None:
    assert is_session_fatal(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a tool's"),
        FileNotFoundError(),
        TimeoutError(),
        asyncio.CancelledError(),
        sdk.make_error(-32601, "method not found"),
        sdk.make_error(-32602, "bad params"),
        sdk.make_error(408, "timed out"),
        sdk.make_error(0, "tool"),
        ExceptionGroup("g", [ValueError()]),
    ],
    ids=repr,
)
def test_what_a_healthy_session_raises_is_not_fatal(error: BaseException) -> None:
    assert not is_session_fatal(error)


def test_a_http_status_is_found_in_groups_and_causes_and_its_message_is_safe() -> None:
    error = refusal(401)
    assert str(error) == "HTTP 401 Unauthorized from http://host/mcp"
    assert http_status_of(error) == 401
    assert http_status_of(ExceptionGroup("g", [ValueError(), error])) == 401
    assert http_status_of(chained(RuntimeError(), ExceptionGroup("g", [error]))) == 401
    assert http_status_of(RuntimeError()) is None
    assert str(refusal(599)) == "HTTP 599 from http://host/mcp"


def test_causes_that_go_in_a_circle_end() -> None:
    one, two = RuntimeError("one"), RuntimeError("two")
    one.__cause__, two.__cause__ = two, one
    assert http_status_of(one) is None
    assert not is_session_fatal(one)


def test_the_real_cause_is_the_first_leaf_that_is_no_cancellation() -> None:
    leaf = ValueError()
    group = BaseExceptionGroup("g", [asyncio.CancelledError(), ExceptionGroup("h", [leaf])])
    assert real_cause(group) is leaf
    assert real_cause(leaf) is leaf
    only = BaseExceptionGroup("g", [asyncio.CancelledError()])
    assert isinstance(real_cause(only), asyncio.CancelledError)


def test_a_callers_mistake_is_remembered_through_causes() -> None:
    error = LookupError()
    assert not is_callers_mistake(error)
    mark_callers_mistake(error)
    assert is_callers_mistake(chained(RuntimeError(), error))
