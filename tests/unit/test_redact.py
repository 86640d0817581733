"""Nothing that may be a secret is shown, whatever the value is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpgateway_pool.redact import safe_error, safe_repr, safe_text, safe_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host:8080/mcp", "http://host:8080/mcp"),
        ("HTTPS://Host/a/b", "https://Host/a/b"),
        ("http://user:secret@host/mcp?token=secret#secret", "http://host/mcp"),
        ("http://a@b:secret@host/mcp", "http://host/mcp"),
        ("http://host?token=secret", "http://host"),
        ("http://host#secret", "http://host"),
        ("http://[::1]:80/x", "http://[::1]:80/x"),
        ("http://user:secret@[::1]:80/x", "http://[::1]:80/x"),
        ("http://user:sec/ret@host/mcp", "http://…"),
        ("http://user:sec?ret@host/mcp", "http://…"),
        ("http://user:secret\\@host/mcp", "http://…"),
        ("http://host/@scope/package", "http://host/@scope/package"),
        ("user:secret@host/path?secret", "host/path"),
        ("", ""),
        ("http://", "http://"),
        ("http://host/a b\r\nX: y\x00", "http://host/a b\\r\\nX: y\\x00"),
        ("http://h\udc80st/", "http://h\\udc80st/"),
    ],
)
def test_a_url_is_shown_without_userinfo_query_and_fragment(url: str, shown: str) -> None:
    assert safe_url(url) == shown


def test_a_long_url_is_cut_and_a_long_password_still_dropped() -> None:
    assert safe_url("http://host/" + "a" * 10**6) == ("http://host/" + "a" * 187 + "…")
    assert safe_url("http://u:" + "secret" * 10**5 + "@host/") == "http://host/"


@pytest.mark.parametrize("url", [None, 7, b"http://u:p@h/", ["http://u:p@h/"]])
def test_what_is_no_url_is_shown_by_its_type(url: object) -> None:
    assert "p@h" not in safe_url(url)


@given(st.text())
def test_any_text_makes_one_bounded_printable_line(text: str) -> None:
    for shown in (safe_text(text), safe_url(text), safe_repr(text)):
        assert len(shown) <= 200
        assert shown.isprintable()


@given(
    st.text(alphabet=st.characters(codec="ascii", exclude_characters="@/?#\\: \t\n\r"), min_size=1),
    st.text(min_size=1),
)
def test_no_query_is_ever_shown(host: str, query: str) -> None:
    assert safe_url(f"http://{host}/p?{query}") == safe_url(f"http://{host}/p")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "None"),
        (True, "True"),
        (7, "int 7"),
        (1.5, "float 1.5"),
        pytest.param(10**5000, "int of 16610 bits", id="huge"),
        ("secret", "str of length 6"),
        (b"secret", "bytes of length 6"),
        ({"authorization": "secret"}, "dict of length 1"),
        (["secret"], "list of length 1"),
        (object(), "object"),
    ],
)
def test_a_value_is_shown_only_where_it_cannot_be_a_secret(value: object, shown: str) -> None:
    assert safe_repr(value) == shown


def test_the_repr_of_a_foreign_class_is_not_asked() -> None:
    class Foreign(str):
        __slots__ = ()

        def __repr__(self) -> str:
            raise ZeroDivisionError

        __str__ = __len__ = __repr__  # type: ignore[assignment]

    assert safe_repr(Foreign("secret")) == "Foreign"
    assert safe_text(str.__str__(Foreign("x"))) == "x"


def test_an_error_shows_no_credentials_of_the_urls_in_its_message() -> None:
    error = ValueError("cannot reach 'http://user:secret@host/p?secret=1' or https://h/q#secret!")
    assert safe_error(error) == "ValueError: cannot reach 'http://host/p' or https://h/q"


def test_an_error_whose_text_raises_is_shown_by_its_class() -> None:
    class Bad(Exception):
        def __str__(self) -> str:
            raise ZeroDivisionError

    assert safe_error(Bad()) == "Bad"
    assert safe_error(KeyError()) == "KeyError"
