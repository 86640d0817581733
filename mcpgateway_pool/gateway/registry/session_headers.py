"""The headers of the call on the requests of a session, in place of those with which it was opened.

The SDK sends the headers of the opening with every request. A token that was renewed since would never be
used, and the one that it replaces would be used until the session ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from mcpgateway_pool.upstream import sdk
from mcpgateway_pool.upstream.request_headers import Cleaner

# What the transport and the HTTP library decide for each request, beside the parameters of its call.
_OF_THE_TRANSPORT = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "host",
        "last-event-id",
        "mcp-method",
        "mcp-name",
        "mcp-protocol-version",
        "mcp-session-id",
        "transfer-encoding",
        "x-mcp-session-id",
    }
)
_PARAMETER = "mcp-param-"

Headers = dict[str, str]


@dataclass(slots=True, eq=False)
class Use:
    """One call's use of a session.

    Attributes:
        session: the headers of that session.
        headers: of the call.
        outer: the use within which it began, of another session perhaps.
        is_over: whether the call has ended.
    """

    session: SessionHeaders
    headers: Headers
    outer: Use | None
    is_over: bool = False


# A request is made in the context of its caller, and sent from a task of the SDK's.
_current: ContextVar[Use | None] = ContextVar("mcpgateway_pool_use", default=None)


class SessionHeaders:
    """The headers that go with the requests of one session.

    A request that belongs to no call (a health check, the stream beside all requests, the goodbye) has those
    of the newest call.

    Args:
        opened_with: the headers with which the session is opened.
        clean: is told of others, which no message may show either.
    """

    __slots__ = ("_clean", "_given", "_newest", "_of_request", "_opened_with")

    def __init__(self, opened_with: Mapping[str, str], clean: Cleaner) -> None:
        self._clean = clean
        self._opened_with = self._newest = _own(opened_with)
        self._given: Mapping[str, str] = opened_with
        self._of_request: dict[Any, Headers] = {}

    def use(self, headers: Mapping[str, str] | None) -> Headers:
        """A call begins: its headers are the newest.

        Returns:
            They, as :meth:`begin_use` takes them.
        """
        given = headers or {}
        if given != self._given:
            self._given = dict(given)
            self._clean.add(given)
            own = _own(given)
            self._newest = self._opened_with if own == self._opened_with else own
        return self._newest

    def begin_use(self, headers: Headers) -> Use:
        """Whatever request is made from now on, in this context, belongs to a call with these headers.

        Only where several calls use the session at once; and only after :meth:`follow_requests`.
        """
        use = Use(self, headers, _current.get())
        _current.set(use)
        return use

    @staticmethod
    def end_use(use: Use) -> None:
        """The call has ended; in whatever context."""
        use.is_over = True
        if _current.get() is use:
            _current.set(use.outer)

    def follow_requests(self, session: Any) -> None:
        """Tell the requests of several calls apart.

        Args:
            session: the SDK's, without a request in flight.
        """
        sdk.on_requests(session, begun=self._begun, ended=self._ended)

    def _begun(self, request_id: Any) -> None:
        use = _current.get()
        while use is not None and (use.is_over or use.session is not self):
            use = use.outer
        if use is not None:
            self._of_request[request_id] = use.headers

    def _ended(self, request_id: Any) -> None:
        self._of_request.pop(request_id, None)

    def put_on(self, request: Any) -> None:
        """Set them on a request of the HTTP library."""
        headers = self._headers_of(request) if self._of_request else self._newest
        if headers is self._opened_with:
            return
        for name, value in self._opened_with.items():
            if name not in headers and request.headers.get(name) == value:
                del request.headers[name]
        for name, value in headers.items():
            request.headers[name] = value

    def _headers_of(self, request: Any) -> Headers:
        try:
            message = sdk.request_of(request.content) if request.method == "POST" else None
        except sdk.http_library().StreamError:
            message = None
        return self._newest if message is None else self._of_request.get(message[1], self._newest)


def _own(headers: Mapping[str, str]) -> Headers:
    """Those that are a call's to decide, names in lower case."""
    lowered = {name.lower(): value for name, value in headers.items()}
    return {
        name: value
        for name, value in lowered.items()
        if name not in _OF_THE_TRANSPORT and not name.startswith(_PARAMETER)
    }
