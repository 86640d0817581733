"""One bounded HTTP GET of a metrics endpoint, and messages that a person can act on.

A token goes to the host that was asked for and no further: neither to the target of a redirect, nor into a
message.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass

from mcpgateway_pool.redact import safe_text, safe_url

from .common import USAGE, CommandError

TOKEN_VARIABLE = "MCPGATEWAY_POOL_TOKEN"  # noqa: S105  (the name of a variable)
DEFAULT_TIMEOUT = 10.0
MAX_BYTES = 256 * 1024 * 1024

# Classic text: every exporter speaks it.
_ACCEPT = "text/plain;version=0.0.4;q=1,*/*;q=0.1"
_CHUNK = 1024 * 1024
_STATUS_ADVICE = {
    401: f"the endpoint wants a token: set {TOKEN_VARIABLE}, or --token-file",
    403: "the token is not allowed to read the metrics",
    404: "is the path right? The gateway's is /metrics/prometheus, prometheus_client's is /metrics",
    503: "the gateway answers 503 when its metrics are switched off (ENABLE_METRICS)",
}


@dataclass(frozen=True)
class Page:
    """What a URL answered with."""

    content_type: str
    text: str


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

    def get(self) -> Page:
        """Fetch it.

        Raises:
            CommandError: it cannot be had within the time-out, or the answer is no 200.
        """
        try:
            return self._get()
        except urllib.error.HTTPError as error:
            with error:
                raise CommandError(
                    f"{self.shown} answered {error.code} {safe_text(str(error.reason), 60)}",
                    _STATUS_ADVICE.get(error.code, ""),
                ) from None
        except ssl.SSLError as error:
            raise self._tls_problem(error) from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLError):
                raise self._tls_problem(error.reason) from None
            raise self._unreachable(error.reason) from None
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from None

    def _get(self) -> Page:
        request = urllib.request.Request(self.url, headers={"Accept": _ACCEPT})  # noqa: S310  (checked in source_of)
        if self.authorization is not None:
            request.add_unredirected_header("Authorization", self.authorization)
        end = time.monotonic() + self.timeout
        with _opener(self.url).open(request, timeout=self.timeout) as response:
            chunks: list[bytes] = []
            size = 0
            while chunk := response.read1(_CHUNK):
                chunks.append(chunk)
                size += len(chunk)
                if size > MAX_BYTES:
                    raise CommandError(f"{self.shown} answered with more than {MAX_BYTES >> 20} MiB")
                if time.monotonic() > end:
                    raise TimeoutError
            return Page(
                response.headers.get("Content-Type", ""), b"".join(chunks).decode("utf-8", errors="replace")
            )

    def _unreachable(self, reason: object) -> CommandError:
        if isinstance(reason, TimeoutError):
            return CommandError(f"{self.shown} did not answer within {self.timeout:g} s", "see --timeout")
        if isinstance(reason, ConnectionRefusedError):
            return CommandError(
                f"{self.shown}: connection refused", "does the gateway run, and on this host and port?"
            )
        text = reason.strerror if isinstance(reason, OSError) and reason.strerror else type(reason).__name__
        return CommandError(f"{self.shown} cannot be reached: {safe_text(str(text))}")

    def _tls_problem(self, error: ssl.SSLError) -> CommandError:
        text = getattr(error, "verify_message", "") or error.reason or type(error).__name__
        return CommandError(
            f"{self.shown}: TLS failed: {safe_text(str(text))}",
            "for a CA of your own, set SSL_CERT_FILE; is it https at all?",
        )


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
    if not host or not host.isprintable() or " " in url or parts.scheme not in {"http", "https"}:
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


def _opener(url: str) -> urllib.request.OpenerDirector:
    """Without the environment's proxies where they cannot be meant."""
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    return urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if local else []))
