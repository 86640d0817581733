"""The headers of a forwarded request: those of the request itself, not of the connection it came on."""

from __future__ import annotations

from typing import Any

_OF_THE_CONNECTION = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_OF_THE_BODY = frozenset({"content-encoding", "content-type"})


def forwardable(headers: Any, *, has_new_body: bool) -> dict[str, str]:
    """What is to go with a request that is sent once more, names in lower case.

    An RPC request's message is built anew: with the length of the first one, which depends on a client's
    blanks, the gateway's own module fails to send it.

    Args:
        headers: a dict; anything else counts as none.
        has_new_body: whether the body is not sent as it came.
    """
    left_out = _OF_THE_CONNECTION | _OF_THE_BODY if has_new_body else _OF_THE_CONNECTION
    given = headers.items() if isinstance(headers, dict) else ()
    lowered = {str(name).lower(): str(value) for name, value in given}
    return {name: value for name, value in lowered.items() if name not in left_out}
