"""What of a URL, a value or an error may be shown in a message or a log.

Credentials travel in URLs (userinfo, query), in header values and in the messages of other libraries'
exceptions. Everything this package quotes goes through here. No function here raises, whatever it is given.
"""

from __future__ import annotations

import re
from collections.abc import Callable

MAX_CHARS = 200

_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.\-]{0,30})://")
_PORT = re.compile(r"[^:]*(:\d{0,5})?|\[[^\]]*\](:\d{0,5})?")
_URL_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]{0,30}://[^\s'\"<>]*")
# As h11 and http.client quote what they refuse to send: the rest of the message is the value.
_HEADER_VALUE_IN_TEXT = re.compile(r"(header value) b?['\"].*", re.IGNORECASE | re.DOTALL)


def safe_text(text: str, limit: int = MAX_CHARS) -> str:
    """Text on one line: what is not printable is escaped, what is beyond the limit is cut.

    Args:
        text: any string, lone surrogates included.
        limit: most characters of the result, default 200; at least 1.

    Returns:
        A string of printable characters.
    """
    if len(text) > limit:
        text = text[:limit]
        cut = True
    else:
        cut = False
    if not text.isprintable():
        text = "".join(
            char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
        )
        cut = cut or len(text) > limit
    return text[: limit - 1] + "…" if cut else text


def safe_url(url: object, limit: int = MAX_CHARS) -> str:
    """Scheme, host, port and path of a URL; never its userinfo, query or fragment.

    A URL whose port is no number is shown by its scheme only: the rest may be a password that holds a ``/``.
    Of what has no scheme, nothing is shown that stands before an ``@``.

    Args:
        url: any string; anything else is shown as :func:`safe_repr` does.
        limit: most characters of the result, default 200.
    """
    if not isinstance(url, str):
        return safe_repr(url)
    match = _SCHEME.match(url)
    scheme, rest = (match.group(1).lower() + "://", url[match.end() :]) if match else ("", url)
    rest = rest[: _first(rest, "?#")]
    if not match:
        rest = rest.rpartition("@")[2]
    split = _first(rest, "/\\")
    authority, path = rest[:split], rest[split:]
    host = authority.rpartition("@")[2]
    if not _PORT.fullmatch(host[:300]):
        return safe_text(f"{scheme}…", limit)
    return safe_text(f"{scheme}{host}{path}", limit)


def _first(text: str, chars: str) -> int:
    """The index of the first of ``chars`` in the text, its length when there is none."""
    found = [index for index in map(text.find, chars) if index >= 0]
    return min(found, default=len(text))


def safe_repr(value: object) -> str:
    """How to quote a bad value in an error: its type, and its value only where that cannot be a secret.

    Strings and bytes may be secrets (a header value, a token): only their length is told. Containers tell
    their length, numbers, booleans and None are shown, everything else tells its type.
    """
    name = safe_text(type(value).__name__, 60)
    if value is None or value is True or value is False:
        return repr(value)
    if type(value) is float:
        return f"{name} {value!r}"
    if type(value) is int:
        # repr() of an int beyond 4300 digits raises.
        return f"{name} {value}" if value.bit_length() <= 128 else f"{name} of {value.bit_length()} bits"
    if type(value) in (str, bytes, bytearray, list, tuple, dict, set, frozenset):
        return f"{name} of length {len(value)}"  # type: ignore[arg-type]
    return name


def safe_error(error: BaseException, limit: int = 300, clean: Callable[[str], str] | None = None) -> str:
    """An exception's class and message, every URL in the message cut down as :func:`safe_url` does, and the
    value of a header that a library refused to send left out.

    Args:
        error: any exception; its ``__str__`` may raise.
        limit: most characters of the message, default 300.
        clean: takes out of the message what else must not be shown.
    """
    name = safe_text(type(error).__name__, 60)
    try:
        message = str(error)
    except Exception:
        return name
    message = message[:10_000]
    if clean is not None:
        message = clean(message)  # before it is cut: a part of a secret is one, too
    message = _HEADER_VALUE_IN_TEXT.sub(r"\1 …", message)
    message = _URL_IN_TEXT.sub(lambda match: safe_url(match.group(), limit), message)
    return f"{name}: {safe_text(message, limit)}" if message else name
