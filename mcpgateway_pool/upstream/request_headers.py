"""The headers that go to a server with a session, and what of them must not be shown."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from mcpgateway_pool.redact import safe_repr, safe_text

_ACCEPT = "application/json, text/event-stream"
# What belongs to the downstream session and its protocol, and what frames a message or its connection: each
# session has its own.
_NOT_SENT = frozenset(
    {
        "x-mcp-session-id",
        "mcp-session-id",
        "mcp-protocol-version",
        "last-event-id",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# RFC 9110: a token; and what is visible, blanks and tabs. HTTP libraries let other control characters pass,
# or quote the value when they do not.
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")
# What many servers accept at most in all; Node.js takes twice that.
_USUAL_BYTES = 8192
# Shorter values are words that any text may hold.
_MIN_SECRET_CHARS = 4
# A message may be shown that quotes a text that quotes a value: JSON within JSON, within a repr().
_QUOTED_WITHIN = 3
_QUOTED_OTHERWISE = re.compile(r"['\"\\\t]")
# How many sets of headers a session may have had since, and a server may still echo.
_LATER_HEADERS = 8


def upstream_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """The headers to send upstream: ``Accept`` unless the caller has its own, and the caller's, but for those
    that belong to the downstream session (``x-mcp-session-id``, ``mcp-session-id``, ``mcp-protocol-version``,
    ``last-event-id``) or frame a message (``Content-Length``, ``Transfer-Encoding``, ``Connection``, ``Host``
    and the like).

    Raises:
        TypeError: not a mapping, or a name or value that is no string.
        ValueError: a name or value that cannot be sent. Neither message shows a value.
    """
    if headers is None:
        return {"Accept": _ACCEPT}
    if not isinstance(headers, Mapping):
        raise TypeError(f"headers must be a mapping, not {safe_repr(headers)}")
    result: dict[str, str] = {}
    for name, value in headers.items():
        if not isinstance(name, str):
            raise TypeError(f"header names must be strings, not {safe_repr(name)}")
        if not isinstance(value, str):
            raise TypeError(
                f"the value of header {safe_text(name)!r} must be a string, not {safe_repr(value)}"
            )
        # As the strings that they are, whatever a subclass makes of itself: as they count for the identity.
        name, value = str.__str__(name), str.__str__(value)  # noqa: PLW2901
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(
                f"{safe_text(name)!r} is no header name: it may hold letters, digits and !#$%&'*+-.^_`|~ only"
            )
        if not _HEADER_VALUE.fullmatch(value) or value != value.strip(" \t"):
            raise ValueError(
                f"the value of header {safe_text(name)!r} cannot be sent: {_why_not_sent(value)}"
            )
        if name.lower() not in _NOT_SENT:
            result[name] = value
    if not any(name.lower() == "accept" for name in result):
        result = {"Accept": _ACCEPT, **result}
    return result


def _why_not_sent(value: str) -> str:
    """What is wrong with it and what to do, without the value."""
    wrong = re.search(r"[^\t\x20-\x7e]", value)
    if wrong is None:
        return "it begins or ends with a blank; strip() it"
    where = f"character {wrong.start() + 1} of {len(value)}"
    if wrong[0] in "\r\n":
        return f"it has a newline ({where}); remove it, as from the end of a token that was read from a file"
    if wrong[0].isascii():
        return f"it has a control character ({where}); remove it"
    return f"it is not ASCII ({where}); encode it, for instance by urllib.parse.quote()"


def are_unusually_long(headers: Mapping[str, str]) -> bool:
    """Whether a server may well end the connection because of these headers."""
    return sum(len(name) + len(value) for name, value in headers.items()) > _USUAL_BYTES


def _secrets_of(headers: Mapping[str, str]) -> set[str]:
    values = {value for name, value in headers.items() if name.lower() != "accept"}
    values |= {value.partition(" ")[2].strip() for value in values}
    quoted = {value for value in values if _QUOTED_OTHERWISE.search(value)}
    for _ in range(_QUOTED_WITHIN if quoted else 0):
        quoted |= {json.dumps(value)[1:-1] for value in quoted} | {repr(value)[1:-1] for value in quoted}
    return {value for value in values | quoted if len(value) >= _MIN_SECRET_CHARS}


def _longest_first(secrets: set[str]) -> list[str]:
    """One value may be a part of another."""
    return sorted(secrets, key=len, reverse=True)


class Cleaner:
    """Takes the values of headers that were sent out of texts from outside, where a server or a library may
    echo them, or quote them; the part after the scheme (``Bearer …``), too.

    Args:
        headers: those that are sent.
    """

    __slots__ = ("_first", "_later", "_secrets")

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._first = _secrets_of(headers)
        self._later: tuple[set[str], ...] = ()
        self._secrets = _longest_first(self._first)

    def add(self, headers: Mapping[str, str]) -> None:
        """Others are sent from now on. The first are remembered for ever, of these the newest few."""
        self._later = (*self._later[1 - _LATER_HEADERS :], _secrets_of(headers))
        self._secrets = _longest_first(self._first.union(*self._later))

    def __call__(self, text: str) -> str:
        """The text without them."""
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return text

    def finds_in(self, text: str) -> bool:
        """Whether there is one."""
        return any(secret in text for secret in self._secrets)
