"""What follows from what was seen: for a session, for its URL, for the breaker."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import time
from typing import Any

import anyio
import pytest

from mcpgateway_pool import verdict
from mcpgateway_pool.upstream import sdk
from mcpgateway_pool.upstream.http_watch import status_error
from mcpgateway_pool.verdict import Fault

http = sdk.http_library()


def answered(status: int) -> Exception:
    return status_error(http.Response(status, request=http.Request("POST", "http://u:p@host/mcp?secret=1")))


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def in_context(error: BaseException, context: BaseException) -> BaseException:
    error.__context__ = context
    return error


# ---- sessions


@pytest.mark.parametrize(
    ("status", "names_session", "expected"),
    [
        (404, True, verdict.LOST),
        (404, False, verdict.KEPT),
        *((status, True, verdict.KEPT) for status in (400, 401, 402, 403, 405, 409, 410, 413, 422, 429, 451)),
        *((status, True, verdict.FAILING) for status in (500, 502, 503, 504, 599)),
        (503, False, verdict.FAILING),
        (200, True, verdict.KEPT),
    ],
)
def test_of_all_statuses_only_404_to_a_named_session_loses_it(
    status: int, names_session: bool, expected: verdict.Verdict
) -> None:
    assert verdict.of_status(status, names_session=names_session) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (http.ConnectError("x"), verdict.LOST),
        (http.ConnectTimeout("x"), verdict.LOST),
        (http.ReadError("x"), verdict.LOST),
        (http.RemoteProtocolError("x"), verdict.LOST),
        (http.DecodingError("x"), verdict.LOST),
        (http.ReadTimeout("x"), verdict.FAILING),
        (http.WriteTimeout("x"), verdict.FAILING),
        (http.PoolTimeout("x"), verdict.KEPT),
        (http.LocalProtocolError("x"), verdict.KEPT),
        (http.UnsupportedProtocol("x"), verdict.KEPT),
        (caused(http.ConnectError("x"), OSError(errno.EMFILE, "x")), verdict.KEPT),
    ],
    ids=repr,
)
def test_a_request_that_failed_loses_its_session_where_its_connection_did(
    error: BaseException, expected: verdict.Verdict
) -> None:
    assert verdict.of_request_error(error) == expected


# ---- whose fault

SHORTAGES = [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL]


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (ConnectionRefusedError(), Fault.SERVER),
        (ConnectionResetError(), Fault.SERVER),
        (OSError(errno.EHOSTUNREACH, "x"), Fault.SERVER),
        (ssl.SSLError("x"), Fault.SERVER),
        (socket.gaierror(socket.EAI_NONAME, "x"), Fault.SERVER),
        (TimeoutError(), Fault.SERVER),
        (anyio.EndOfStream(), Fault.SERVER),
        (http.ConnectError("x"), Fault.SERVER),
        (http.ReadTimeout("x"), Fault.SERVER),
        (http.RemoteProtocolError("x"), Fault.SERVER),
        (ExceptionGroup("g", [ValueError(), ExceptionGroup("h", [http.ReadError("x")])]), Fault.SERVER),
        *((answered(status), Fault.SERVER) for status in (500, 502, 503, 599)),
        *((answered(status), Fault.REFUSAL) for status in (301, 400, 401, 402, 403, 404, 422, 429, 431, 451)),
        (sdk.make_error(-32000, "too many sessions"), Fault.REFUSAL),
        (sdk.make_error(-32600, "no"), Fault.REFUSAL),
        (http.InvalidURL("x"), Fault.CALLER),
        (http.LocalProtocolError("x"), Fault.CALLER),
        (http.UnsupportedProtocol("x"), Fault.CALLER),
        (http.PoolTimeout("x"), Fault.MACHINE),
        (MemoryError(), Fault.MACHINE),
        *((caused(http.ConnectError("x"), OSError(number, "x")), Fault.MACHINE) for number in SHORTAGES),
        (ValueError("x"), None),
        (FileNotFoundError(), None),
        (RuntimeError("[url_policy] [auth_forbidden] HTTP 400"), None),
        (in_context(ValueError("x"), ConnectionResetError()), None),
    ],
    ids=repr,
)
def test_a_fault_is_read_from_classes_numbers_and_statuses_alone(
    error: BaseException, fault: Fault | None
) -> None:
    assert verdict.fault_of(error) is fault
    assert verdict.counts_for_breaker(error) is (fault in (Fault.SERVER, None))


def test_whoever_saw_more_has_the_last_word_through_causes_and_groups() -> None:
    error = ConnectionResetError()
    verdict.blame(error, Fault.CALLER)
    assert verdict.fault_of(caused(RuntimeError(), ExceptionGroup("g", [error]))) is Fault.CALLER


def test_a_cancellation_counts_for_no_breaker() -> None:
    assert not verdict.counts_for_breaker(asyncio.CancelledError())


def test_causes_that_go_in_a_circle_end() -> None:
    one, two = RuntimeError("one"), RuntimeError("two")
    one.__cause__, two.__cause__ = two, one
    assert verdict.fault_of(one) is None
    assert verdict.describe(one)


# ---- what to say


def test_the_real_cause_is_the_first_leaf_that_is_no_cancellation() -> None:
    leaf = ValueError()
    group = BaseExceptionGroup("g", [asyncio.CancelledError(), ExceptionGroup("h", [leaf])])
    assert verdict.real_cause(group) is leaf
    assert verdict.real_cause(leaf) is leaf
    only = BaseExceptionGroup("g", [asyncio.CancelledError()])
    assert isinstance(verdict.real_cause(only), asyncio.CancelledError)


def nested(depth: int) -> BaseException:
    error: Any = ValueError("leaf")
    for _ in range(depth):
        error = ExceptionGroup("g", [error])
    return error  # type: ignore[no-any-return]


def test_groups_of_any_depth_have_a_real_cause() -> None:
    assert str(verdict.real_cause(nested(20_000))) == "leaf"


def test_a_message_names_the_innermost_cause_with_its_number() -> None:
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 9)")
    error = caused(http.ConnectError("All connection attempts failed"), caused(OSError("all"), refused))
    assert verdict.describe(error) == f"ConnectError: ConnectionRefusedError: {refused}"
    assert verdict.describe(caused(http.ReadTimeout(""), TimeoutError())) == "ReadTimeout"
    assert verdict.describe(caused(http.ReadTimeout("slow"), TimeoutError())) == "ReadTimeout: slow"


def test_a_long_message_from_a_server_takes_no_time() -> None:
    error = sdk.make_error(-32000, "[http_error] " + "x: 4" * 250_000 + " http://" * 100_000)
    begin = time.process_time()
    assert not verdict.counts_for_breaker(error)
    assert len(verdict.describe(error)) < 1000
    assert time.process_time() - begin < 0.5
