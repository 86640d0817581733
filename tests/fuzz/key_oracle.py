"""For fuzz_keys.c: bytes as two sets of arguments for a pool key, and what each key must say.

The normal form is written from the contract, in plain Python, and knows nothing of the bytes of
csrc/python/key.c: two keys must be equal exactly where their normal forms are.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

SSE, STREAMABLE_HTTP = "sse", "streamablehttp"
SESSION_HEADER = "x-mcp-session-id"
MAX_SPELLINGS = 16
NAMES = (
    "authorization",
    SESSION_HEADER,
    "x-api-key",
    "cookie",
    "x",
    "x-@z[a{`",
    "",
    "x-tenant-id-of-more-than-sixteen-characters-and-then-some-more",
)
PIECES = ("anonymous", "a", "b", "ab", "\0", "\udc80", "\u212a", "é", "\U0001f600", "\ue000", "Z" * 700)
HAS_EXTRACTOR, HAS_AFFINITY, IS_ISOLATED, HOOK_KEY, HOOK_IDENTITY = 1, 2, 4, 8, 16


class Text(str):
    """A str that is not exactly str."""

    __slots__ = ()


class OtherText(Text):
    """One that claims to be equal to nothing, so that a dict has several of one text."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


class Refused(Exception):
    """The arguments are not fit: by the class of the error."""


class Arguments(NamedTuple):
    """Of py_key_build(), in its order; `says` is what the stub of a pool answers."""

    url: Any
    headers: Any
    transport_type: Any
    user_identity: Any
    gateway_id: Any
    says: Any


class Stub:
    """Stands in for the pool, whose extractor and hooks the key asks."""

    def __init__(self, says: Any) -> None:
        self.says = says

    def _extract_identity(self, headers: object) -> object:
        return self.says

    def _compute_identity_hash(self, headers: object) -> object:
        return self.says

    def _make_pool_key(self, *arguments: object) -> object:
        return self.says


# ---- from bytes to arguments --------------------------------------------------------------------


class Decoder:
    """Takes values from the front of the input; when it is used up, all is zero."""

    def __init__(self, data: bytes) -> None:
        self.numbers: Iterator[int] = iter(data)

    def byte(self) -> int:
        return next(self.numbers, 0)

    def text(self) -> str:
        kind = self.byte()
        count = kind >> 4
        if kind & 3 == 0:
            text = "".join(PIECES[self.byte() % len(PIECES)] for _ in range(count % 4))
        elif kind & 3 == 1:
            text = "".join(chr(self.byte() % 128) for _ in range(count))
        elif kind & 3 == 2:
            text = "".join(chr(self.byte() << 8 | self.byte()) for _ in range(count))
        else:
            numbers = [self.byte() << 16 | self.byte() << 8 | self.byte() for _ in range(count)]
            text = "".join(chr(number % 0x110000) for number in numbers)
        return Text(text) if kind & 12 == 12 else text

    def anything(self) -> Any:
        """A str mostly; else what is none."""
        kind = self.byte()
        if kind % 32:
            return self.text()
        return (None, 3, b"bytes", ["list"], ("a", "b"), {}, 1.5, True)[kind >> 5]

    def name(self) -> Any:
        kind = self.byte()
        if kind >= 0xC0:
            return self.anything()
        mask = self.byte() * 0x0101
        name = NAMES[kind % len(NAMES)]
        spelt = "".join(c.upper() if mask >> i % 16 & 1 else c for i, c in enumerate(name))
        return (spelt, spelt, Text(spelt), OtherText(spelt))[kind >> 4 & 3]

    def headers(self) -> Any:
        count = self.byte()
        if count >= 0xF0:
            return (None, 3, [("a", "b")], "x")[count % 4]
        made = {}
        for _ in range(count % 24):
            name = self.name()
            try:
                hash(name)
            except TypeError:
                name = None
            made[name] = self.anything()
        return made

    def arguments(self) -> Arguments:
        optional = self.byte()
        transport = (STREAMABLE_HTTP, SSE)[optional & 1] if optional & 14 else self.anything()
        return Arguments(
            url=self.anything(),
            headers=self.headers(),
            transport_type=transport,
            user_identity=self.anything() if optional & 16 else None,
            gateway_id=self.anything() if optional & 32 else None,
            says=self.says(),
        )

    def says(self) -> Any:
        count = self.byte()
        return tuple(self.anything() for _ in range(count % 4)) if count & 4 else self.anything()

    def relative(self, a: Arguments) -> Arguments:
        """Arguments that differ from others in little, or in nothing that counts."""
        kind = self.byte() % 8
        if kind == 0:
            return self.arguments()
        if kind == 1:
            field = a._fields[self.byte() % len(a)]
            return a._replace(**{field: self.headers() if field == "headers" else self.anything()})
        if kind == 2 and type(a.url) is str and type(a.user_identity) is str:
            # The end of one part at the beginning of the next.
            return a._replace(url=a.url[1:], user_identity=a.user_identity + a.url[:1])
        if type(a.headers) is dict and a.headers:
            return a._replace(headers=self.other_headers(kind, list(a.headers.items())))
        return a

    def other_headers(self, kind: int, items: list[tuple[Any, Any]]) -> dict[Any, Any]:
        if kind == 3:
            return dict(reversed(items))
        if kind == 4:
            return {n.swapcase() if type(n) is str and n.isascii() else n: v for n, v in items}
        if kind == 5:
            which = self.byte() % len(items)
            items[which] = (items[which][0], self.anything())
        if kind == 6:
            items.append(("x-other", "value"))
        return dict(items)


# ---- what a key must say ------------------------------------------------------------------------


def plain(text: str) -> str:
    return str.__str__(text)


def lower(name: str) -> str:
    """ASCII only: no other letter is that of a header's name."""
    return "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in plain(name))


def values_of(headers: Any, wanted: str) -> list[str]:
    pairs = headers.items() if headers is not None else ()
    return sorted(
        plain(v) for n, v in pairs if isinstance(n, str) and isinstance(v, str) and lower(n) == wanted
    )


def session_of(headers: Any) -> str | None:
    return next((value for value in values_of(headers, SESSION_HEADER) if value), None)


def need(condition: bool, error: type[Exception] = TypeError) -> None:
    if not condition:
        raise Refused(error)


def header_identity(names: tuple[str, ...], headers: Any) -> tuple[Any, ...]:
    for name, value in (headers or {}).items():
        need(isinstance(name, str) and isinstance(value, str))
    found = []
    for number, name in enumerate(names):
        values = values_of(headers, name)
        need(len(values) <= MAX_SPELLINGS, ValueError)
        if values:
            found.append((number, tuple(values)))
    return ("headers", *found) if found else ("anonymous",)


def identity_of(names: tuple[str, ...], flags: int, a: Arguments) -> tuple[Any, ...]:
    if flags & HOOK_IDENTITY:
        need(isinstance(a.says, str))
        return ("hook", plain(a.says))
    if flags & HAS_EXTRACTOR and a.headers is not None and isinstance(a.says, str) and a.says:
        return ("extractor", plain(a.says))
    if flags & HAS_AFFINITY and (session := session_of(a.headers)) is not None:
        return ("affinity", session)
    return header_identity(names, a.headers)


def normal_form(names: tuple[str, ...], flags: int, a: Arguments) -> tuple[Any, ...]:
    """Parts as py_key_describe() shows them, identity, is_anonymous, is_single_use; or Refused."""
    need(isinstance(a.url, str))
    need(bool(plain(a.url)), ValueError)
    need(a.headers is None or isinstance(a.headers, dict))
    need(a.user_identity is None or isinstance(a.user_identity, str))
    need(a.gateway_id is None or isinstance(a.gateway_id, str))
    session = session_of(a.headers) if flags & IS_ISOLATED else None
    is_single_use = bool(flags & IS_ISOLATED) and session is None
    if flags & HOOK_KEY:
        need(isinstance(a.says, tuple) and all(isinstance(part, str) for part in a.says))
        return ((tuple(map(plain, a.says)), session), None, False, is_single_use)
    need(a.transport_type is SSE or a.transport_type is STREAMABLE_HTTP)
    user = plain(a.user_identity) if a.user_identity else ""
    identity = identity_of(names, flags, a)
    is_anonymous = not user and (identity in (("anonymous",), ("hook", "anonymous")))
    parts = (user or "anonymous", plain(a.url), plain(a.gateway_id or ""), a.transport_type, session)
    return (parts, identity, is_anonymous, is_single_use)


def judged(names: tuple[str, ...], flags: int, a: Arguments) -> Any:
    try:
        return normal_form(names, flags, a)
    except Refused as refused:
        return refused.args[0]


def case(data: bytes) -> tuple[Any, ...]:
    """(identity names, flags, stub, arguments, normal form, stub, arguments, normal form, are equal keys)."""
    decoder = Decoder(data)
    flags, chosen = decoder.byte(), decoder.byte()
    names = tuple(name for i, name in enumerate(NAMES) if chosen >> i & 1)
    a = decoder.arguments()
    b = decoder.relative(a)
    forms = judged(names, flags, a), judged(names, flags, b)
    are_keys = isinstance(forms[0], tuple) and isinstance(forms[1], tuple)
    are_equal = are_keys and forms[0][:2] == forms[1][:2]
    return (names, flags, Stub(a.says), a, forms[0], Stub(b.says), b, forms[1], are_equal)
