"""Whose fault it is that no connection came about, where the exception alone does not say it plainly."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from typing import Any

import pytest

from mcpgateway_pool import verdict
from mcpgateway_pool.upstream import sdk
from mcpgateway_pool.verdict import Fault

http = sdk.http_library()


class Inner(http.ConnectError):  # type: ignore[misc, name-defined]
    """As httpcore raises: what was the matter is its argument, and no cause."""

    def __init__(self, cause: BaseException) -> None:
        Exception.__init__(self, cause)


@pytest.mark.parametrize(
    "number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL]
)
def test_shortage_that_is_only_an_argument_is_found(number: int):
    cause = OSError("All connection attempts failed")
    cause.__cause__ = OSError(number, os.strerror(number))
    error = http.ConnectError("All connection attempts failed")
    error.__cause__ = Inner(cause)
    assert verdict.fault_of(error) is Fault.MACHINE
    assert not verdict.counts_for_breaker(error)
    assert os.strerror(number) in verdict.describe(error)


def test_exception_that_is_its_own_argument_ends():
    error = RuntimeError()
    error.args = (error,)
    assert verdict.fault_of(error) is None
    assert verdict.describe(error)


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("403 Forbidden", Fault.REFUSAL),
        ("407 Proxy Authentication Required", Fault.REFUSAL),
        ("502 Bad Gateway", Fault.SERVER),
        ("504", Fault.SERVER),
        ("Proxy Server could not connect: Host unreachable.", Fault.SERVER),
        ("", Fault.SERVER),
        ("٥٠٠ digits of another script", Fault.SERVER),
    ],
)
def test_proxy_that_refuses_a_caller_is_no_server_that_is_down(message: str, fault: Fault):
    assert verdict.fault_of(http.ProxyError(message)) is fault


def tls_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}] as OpenSSL words it")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    "reason",
    [
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "TLSV1_ALERT_UNKNOWN_CA",
        "TLSV1_ALERT_ACCESS_DENIED",
    ],
)
def test_certificate_that_the_server_refuses_is_the_callers(reason: str):
    error = http.ConnectError("tls")
    error.__cause__ = Inner(tls_error(reason))
    assert verdict.fault_of(error) is Fault.CALLER


@pytest.mark.parametrize(
    "reason", ["CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER", "TLSV1_ALERT_INTERNAL_ERROR", ""]
)
def test_other_failures_of_tls_count(reason: str):
    assert verdict.fault_of(tls_error(reason)) is Fault.SERVER


@pytest.mark.parametrize(("is_short", "fault"), [(True, Fault.MACHINE), (False, Fault.SERVER)])
def test_name_that_is_not_found_for_lack_of_a_descriptor_is_a_shortage(
    monkeypatch: pytest.MonkeyPatch, is_short: bool, fault: Fault
):
    def open_nothing(*_: Any, **__: Any) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    if is_short:
        monkeypatch.setattr(os, "open", open_nothing)
    assert verdict.fault_of(socket.gaierror(socket.EAI_NONAME, "Name or service not known")) is fault
    assert verdict.fault_of(socket.gaierror(socket.EAI_MEMORY, "memory")) is Fault.MACHINE
