"""One bounded HTTP GET of a metrics endpoint, and messages that a person can act on.

A token goes to the host that was asked for and no further: neither to the target of a redirect, nor into a
message.
"""

from __future__ import annotations

import base64
import http.client
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mcpgateway_pool.redact import safe_text, safe_url

from .common import USAGE, CommandError
from .timed_http import opener_for, seconds_until

TOKEN_VARIABLE = "MCPGATEWAY_POOL_TOKEN"  # noqa: S105  (the name of a variable)
DEFAULT_TIMEOUT = 10.0
MAX_BYTES = 256 * 1024 * 1024

# Classic text: every exporter speaks it.
_ACCEPT = "text/plain;version=0.0.4;q=1,*/*;q=0.1"
_CHUNK = 256 * 1024
_SCHEMES = ("http", "https")
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 5
_STATUS_ADVICE = {
    404: "is the path right? The gateway's is /metrics/prometheus, prometheus_client's is /metrics",
    503: "the gateway answers 503 when its metrics are switched off (ENABLE_METRICS)",
}
_NOT_FOLLOWED = "only http and https are followed; name the endpoint itself"

T = TypeVar("T")
Consume = Callable[[str, Iterator[bytes]], T]


@dataclass(frozen=True)
class Source:
    """A checked URL, with what is needed to read it; repr and messages show neither token nor query."""

    url: str
    authorization: str | None
    timeout: float

    def __repr__(self) -> str:
        return f"Source({self.shown!r})"

    @property
    def shown(self) -> str:
        """The URL as it may be shown."""
        return safe_url(self.url)


_THREAD = "mcpgateway-pool fetch"


def is_under_way() -> bool:
    """Whether a fetch has not ended, for which nobody may wait any more."""
    return any(thread.name == _THREAD for thread in threading.enumerate())


class Fetch(Generic[T]):
    """A GET under way, in a thread of its own: look-up, connect, TLS, every redirect and the whole answer
    have the source's time-out together, and who waits for it waits no longer than that.

    Args:
        source: where from.
        consume: is given the content type and the parts of the page as they come, in that thread; what it
            returns is the result. A page that is cut off ends in an error instead of its last part.
        when_done: called in that thread when there is a result or an error.
    """

    def __init__(
        self, source: Source, consume: Consume[T], when_done: Callable[[], None] = lambda: None
    ) -> None:
        self._source = source
        self._consume = consume
        self._when_done = when_done
        self._deadline = time.monotonic() + source.timeout
        self._done = threading.Event()
        self._results: list[T] = []
        self._error: BaseException | None = None
        # A daemon: a name server that hangs must not keep the command from ending.
        threading.Thread(target=self._run, name=_THREAD, daemon=True).start()

    @property
    def seconds_left(self) -> float:
        """Until :meth:`result` waits no longer; 0 where it would not wait."""
        return 0.0 if self._done.is_set() else max(self._deadline - time.monotonic(), 0.0)

    def result(self) -> T:
        """What came of it; waits for that.

        Raises:
            CommandError: the page cannot be had within the time-out, or is none.
        """
        if not self._done.wait(self.seconds_left):
            raise _too_late(self._source)
        if self._error is not None:
            raise self._error
        return self._results[0]

    def _run(self) -> None:
        try:
            self._results.append(_get(self._source, self._deadline, self._consume))
        except BaseException as error:
            self._error = error  # it belongs to whoever waits
        finally:
            self._done.set()
            self._when_done()


def _get(source: Source, deadline: float, consume: Consume[T]) -> T:
    url, authorization = source.url, source.authorization
    for _ in range(_MAX_REDIRECTS + 1):
        shown = safe_url(url)
        request = urllib.request.Request(url, headers={"Accept": _ACCEPT})  # noqa: S310  (http or https)
        if authorization is not None:
            request.add_unredirected_header("Authorization", authorization)
        try:
            with opener_for(url, deadline).open(request, timeout=seconds_until(deadline)) as response:
                if response.status != http.HTTPStatus.OK:
                    raise CommandError(f"{shown} answered {response.status}, not 200")
                return consume(response.headers.get("Content-Type", ""), _parts(source, shown, response))
        except urllib.error.HTTPError as error:
            with error:
                if error.code not in _REDIRECTS or "Location" not in error.headers:
                    raise _refused(source, shown, error, sent_token=authorization is not None) from None
                url, authorization = _target(shown, url, error.headers["Location"]), None
        except ssl.SSLError as error:
            raise _tls_problem(shown, error) from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLError):
                raise _tls_problem(shown, error.reason) from None
            raise _unreachable(source, shown, error.reason) from None
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(source, shown, error) from None
    raise CommandError(
        f"{source.shown} redirects more than {_MAX_REDIRECTS} times", "name the endpoint itself"
    )


def _parts(source: Source, shown: str, response: Any) -> Iterator[bytes]:
    """The page as it comes."""
    size = 0
    try:
        while part := response.read1(_CHUNK):
            size += len(part)
            if size > MAX_BYTES:
                raise CommandError(f"{shown} answered with more than {MAX_BYTES >> 20} MiB")
            yield part
    except TimeoutError:
        raise _too_late(source) from None
    except (OSError, http.client.HTTPException):
        raise cut_off(shown) from None
    if response.length:  # read1() ends without an error where the connection did
        raise cut_off(shown)


def cut_off(shown: str) -> CommandError:
    """The page ends too early."""
    return CommandError(
        f"{shown}: the page is cut off", "the connection broke, or something between ends long answers"
    )


def _target(shown: str, url: str, location: str) -> str:
    """Where a redirect leads; credentials in it are not used."""
    try:
        return _split(urllib.parse.urljoin(url, location))[0]
    except ValueError:
        raise CommandError(f"{shown} redirects to {safe_url(location)}", _NOT_FOLLOWED) from None


def _refused(source: Source, shown: str, error: urllib.error.HTTPError, *, sent_token: bool) -> CommandError:
    advice = _STATUS_ADVICE.get(error.code, "")
    if error.code in {401, 403}:
        if source.authorization is None:
            advice = f"the endpoint wants a token: set {TOKEN_VARIABLE}, or --token-file"
        elif not sent_token:
            advice = "no token is sent on to where an endpoint redirects: give this URL instead"
        elif error.code == http.HTTPStatus.UNAUTHORIZED:
            advice = "wrong token: one was sent and not accepted; has it expired? Is it of this gateway?"
        else:
            advice = "the token was accepted, but may not read the metrics"
    return CommandError(f"{shown} answered {error.code} {safe_text(str(error.reason), 60)}", advice)


def _too_late(source: Source) -> CommandError:
    return CommandError(f"{source.shown} did not answer within {source.timeout:g} s", "see --timeout")


def _unreachable(source: Source, shown: str, reason: object) -> CommandError:
    if isinstance(reason, TimeoutError):
        return _too_late(source)
    if isinstance(reason, ConnectionRefusedError):
        return CommandError(
            f"{shown}: connection refused", "does the gateway run, and on this host and port?"
        )
    text = reason.strerror if isinstance(reason, OSError) and reason.strerror else type(reason).__name__
    return CommandError(f"{shown} cannot be reached: {safe_text(str(text))}")


def _tls_problem(shown: str, error: ssl.SSLError) -> CommandError:
    text = getattr(error, "verify_message", "") or error.reason or type(error).__name__
    return CommandError(
        f"{shown}: TLS failed: {safe_text(str(text))}",
        "for a CA of your own, set SSL_CERT_FILE; is it https at all?",
    )


# ---- URLs


def source_of(url: str, token: str | None = None, timeout: float = DEFAULT_TIMEOUT) -> Source:
    """Check a URL and a token.

    Args:
        url: http or https; without a scheme, ``http://`` is meant. Credentials in it are sent as Basic.
        token: sent as ``Authorization: Bearer``, if any.
        timeout: seconds for the whole answer, default 10.

    Raises:
        CommandError: the URL or the token cannot be used (exit code 2).
    """
    if "://" not in url:
        url = "http://" + url
    try:
        plain_url, credentials = _split(url)
    except ValueError:  # of urllib, or because a character has no place in a URL
        raise CommandError(
            f"not an HTTP URL: {safe_url(url)}",
            "such as http://127.0.0.1:4444/metrics/prometheus",
            code=USAGE,
        ) from None
    authorization = None
    if credentials is not None:
        authorization = "Basic " + base64.b64encode(credentials.encode()).decode()
    if token:
        if not token.isascii() or not token.isprintable() or " " in token:
            raise CommandError("the token holds characters that no HTTP header can", code=USAGE)
        authorization = "Bearer " + token
    return Source(plain_url, authorization, timeout)


def _split(url: str) -> tuple[str, str | None]:
    """The URL as it is asked for, in ASCII, and ``user:password`` where it held them.

    Raises:
        ValueError: it is none, or not of HTTP.
    """
    parts = urllib.parse.urlsplit(url)
    host, port = parts.hostname, parts.port
    if not host or not host.isprintable() or " " in url or parts.scheme not in _SCHEMES:
        raise ValueError
    credentials = None
    if parts.username is not None:
        credentials = urllib.parse.unquote(f"{parts.username}:{parts.password or ''}")
        credentials.encode()
    place = f"[{host}]" if ":" in host else host.encode("idna").decode()
    netloc = place if port is None else f"{place}:{port}"
    path = urllib.parse.quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = urllib.parse.quote(parts.query, safe="=&%[]:@!$'()*+,;~-._/?")
    return urllib.parse.urlunsplit((parts.scheme, netloc, path, query, "")), credentials
