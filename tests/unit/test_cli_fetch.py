"""How the command line reads an endpoint that is slow, that breaks off, or that leads elsewhere."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mcpgateway_pool.cli.fetch import Fetch, source_of
from support.certificates import Authority
from support.command import TOKEN, Run, command, exposition
from support.endpoint import Answer, Talk, answering, serving

PAGE = exposition(hits=1).encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
ONCE = ("top", "--once", "--totals", "--json")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return command(capsys, monkeypatch)


def after_the_request(talk: Talk) -> Talk:
    """What ``talk`` sends when a request has come."""

    def with_request(connection: socket.socket) -> None:
        asked = b""
        while b"\r\n\r\n" not in asked:
            part = connection.recv(65536)
            if not part:
                return
            asked += part
        talk(connection)

    return with_request


def saying(*parts: bytes) -> Talk:
    """These, and then the end of the connection."""
    return after_the_request(lambda connection: connection.sendall(b"".join(parts)))


def dripping(head: bytes, drop: bytes) -> Talk:
    """A beginning, then always the same, for as long as somebody listens."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(head)
        gone = threading.Event()
        while not gone.wait(0.01):
            connection.sendall(drop)

    return talk


# ---- the time-out bounds all of it


SLOW = {
    "status line": dripping(b"HTTP/1.1 200 ", b"O"),
    "a header": dripping(HEAD + b"X-Slow: ", b"a"),
    "100 Continue": dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "headers of 100 Continue": dripping(b"HTTP/1.1 100 Continue\r\n", b"X"),
    "body": dripping(HEAD + b"Content-Length: 1000000\r\n\r\n", b"#"),
    "body without a length": dripping(HEAD + b"\r\n", b"# \n"),
    "size of a chunk": dripping(CHUNKED, b"0"),
    "extension of a chunk": dripping(CHUNKED + b"1;", b"x"),
    "a chunk": dripping(CHUNKED + b"ffffff\r\n", b"#"),
    "end of a chunk": dripping(CHUNKED + b"1\r\n#", b"\r"),
    "trailers": dripping(CHUNKED + b"0\r\n", b"X: a\r\n"),
    "headers of an error": dripping(b"HTTP/1.1 404 No\r\nX-Slow: ", b"a"),
}


@pytest.mark.parametrize("what", SLOW)
def test_an_answer_that_never_ends_ends_with_the_time_out(run: Run, what: str) -> None:
    with answering(after_the_request(SLOW[what])) as url:  # which ends when the command has closed its side
        code, out, err = run(*ONCE, "--timeout", "0.2", url)
    assert (code, out) == (1, "")
    assert f"{url} did not answer within 0.2 s" in err


def test_a_tls_handshake_that_never_ends_ends_with_the_time_out(run: Run) -> None:
    with answering(dripping(b"\x16\x03\x03\x40\x00", b"\0")) as url:
        code, _, err = run(*ONCE, "--timeout", "0.2", url.replace("http", "https"))
    assert code == 1
    assert "did not answer within 0.2 s" in err


def test_a_proxy_that_never_answers_ends_with_the_time_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(after_the_request(dripping(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"a"))) as proxy:
        monkeypatch.setenv("https_proxy", proxy)
        code, _, err = run(*ONCE, "--timeout", "0.2", "https://gateway.test/metrics")
    assert code == 1
    assert "https://gateway.test/metrics did not answer within 0.2 s" in err


def test_a_name_server_that_never_answers_ends_with_the_time_out(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, end = threading.Event(), threading.Event()

    def look_up(*_: object, **__: object) -> list[object]:
        asked.set()
        end.wait()
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    try:
        code, _, err = run(*ONCE, "--timeout", "0.2", "http://gateway.test/metrics")
        assert asked.is_set()
        assert (code, "did not answer within 0.2 s" in err) == (1, True)
    finally:
        end.set()


def test_redirects_have_one_time_out_together(run: Run) -> None:
    with answering(saying(b"HTTP/1.1 302 Found\r\nLocation: /metrics\r\n\r\n")) as url:
        code, _, err = run(*ONCE, url)
    assert (code, "redirects more than 5 times" in err) == (1, True)
    with (
        answering(after_the_request(dripping(HEAD, b"X: a\r\n"))) as slow,
        answering(saying(b"HTTP/1.1 302 Found\r\nLocation: " + slow.encode() + b"\r\n\r\n")) as url,
    ):
        code, _, err = run(*ONCE, "--timeout", "0.2", url)
    assert (code, f"{url} did not answer within 0.2 s" in err) == (1, True)


def test_who_waits_no_longer_leaves_no_thread(run: Run) -> None:
    closed = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.sendall(HEAD)
        while connection.recv(1024):
            pass
        closed.set()

    with answering(after_the_request(talk)) as url:
        fetch = Fetch(source_of(url, timeout=0.2), lambda _, parts: list(parts))
        with pytest.raises(Exception, match="did not answer"):
            fetch.result()
        assert closed.wait(30)
    assert fetch.seconds_left == 0


# ---- a page that is cut off


MIDDLE = PAGE.index(b"\n", len(PAGE) // 2) + 1  # the end of a line
LENGTH = b"Content-Length: %d\r\n\r\n" % len(PAGE)
CUT = {
    "shorter than its length, in a line": HEAD + LENGTH + PAGE[: MIDDLE + 5],
    "shorter than its length, after a line": HEAD + LENGTH + PAGE[:MIDDLE],
    "without any of its length": HEAD + LENGTH,
    "in a chunk": CHUNKED + b"%x\r\n" % len(PAGE) + PAGE[:MIDDLE],
    "after a chunk": CHUNKED + b"%x\r\n" % MIDDLE + PAGE[:MIDDLE] + b"\r\n",
    "in the size of a chunk": CHUNKED + b"%x\r\n" % MIDDLE + PAGE[:MIDDLE] + b"\r\n1",
    "without a length, in a line": HEAD + b"\r\n" + PAGE[: MIDDLE + 5],
    "openmetrics without its end": HEAD.replace(b"text/plain", b"application/openmetrics-text")
    + b"\r\n"
    + PAGE[:MIDDLE],
}  # fmt: skip


@pytest.mark.parametrize("what", CUT)
@pytest.mark.parametrize("which", ["top", "doctor"])
def test_a_page_that_is_cut_off_is_an_error(run: Run, what: str, which: str) -> None:
    with answering(saying(CUT[what])) as url:
        code, out, err = run(*ONCE, url) if which == "top" else run("doctor", "--url", url)
    assert code == 1
    assert f"{url}: the page is cut off" in out + err


def test_a_reset_in_the_page_is_an_error(run: Run) -> None:
    def talk(connection: socket.socket) -> None:
        connection.sendall(HEAD + LENGTH + PAGE[:MIDDLE])
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with answering(after_the_request(talk)) as url:
        code, _, err = run(*ONCE, url)
    assert code == 1
    assert "cut off" in err or "Connection reset" in err


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"\r\n" + PAGE,
        HEAD + LENGTH + PAGE,
        CHUNKED + b"%x\r\n" % len(PAGE) + PAGE + b"\r\n0\r\n\r\n",
        CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in PAGE) + b"0\r\nX: a\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + LENGTH + PAGE,
    ],
)
def test_a_whole_page_is_read_however_it_is_framed(run: Run, answer: bytes) -> None:
    with answering(saying(answer)) as url:
        code, out, _ = run(*ONCE, url)
    assert code == 0
    assert json.loads(out)["all"]["acquires"] == 1


# ---- where an endpoint leads


@pytest.mark.parametrize(
    "target",
    ["ftp://127.0.0.1:1/metrics", "file:///etc/hostname", "data:text/plain,mcp_session_pool_size%201%0A"],
)  # fmt: skip
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_only_http_is_followed(run: Run, target: str, status: int) -> None:
    with answering(saying(b"HTTP/1.1 %d x\r\nLocation: %s\r\n\r\n" % (status, target.encode()))) as url:
        code, out, err = run(*ONCE, url)
    assert (code, out) == (1, "")
    assert f"{url} redirects to " in err
    assert "only http and https are followed" in err


def test_the_body_of_a_redirect_is_not_read(run: Run) -> None:
    with serving(exposition(hits=3)) as target:
        head = f"HTTP/1.1 307 x\r\nLocation: {target.url}\r\n\r\n".encode()
        with answering(after_the_request(dripping(head, b"a"))) as url:
            code, out, _ = run(*ONCE, url)
    assert (code, json.loads(out)["all"]["acquires"]) == (0, 3)


def test_a_relative_redirect_and_one_to_https_are_followed(run: Run, tmp_path: Path) -> None:
    answers = iter([b"HTTP/1.1 302 x\r\nLocation: ../there?x=1\r\n\r\n", HEAD + LENGTH + PAGE])
    with answering(after_the_request(lambda connection: connection.sendall(next(answers)))) as url:
        assert run(*ONCE, url)[0] == 0
    with pytest.raises(StopIteration):
        next(answers)


def test_tls_is_checked_read_and_bounded(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path)
    context = authority.server_context()
    talks = [saying(HEAD + LENGTH + PAGE), saying(HEAD + LENGTH + PAGE), after_the_request(SLOW["trailers"])]

    def talk(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            talks.pop(0)(secured)

    with answering(talk) as plain:
        url = plain.replace("http", "https")
        code, _, err = run(*ONCE, url)
        assert (code, "TLS failed" in err) == (1, True)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
        talks[:] = talks[-2:]
        assert run(*ONCE, url)[0] == 0
        code, _, err = run(*ONCE, "--timeout", "1", url)
        assert (code, "did not answer within 1 s" in err) == (1, True)


@pytest.mark.parametrize("status", [204, 206])
def test_an_answer_that_is_no_page_is_a_message(run: Run, status: int) -> None:
    with answering(saying(b"HTTP/1.1 %d x\r\n\r\n" % status + PAGE)) as url:
        code, _, err = run(*ONCE, url)
    assert (code, f"answered {status}, not 200" in err) == (1, True)


# ---- tokens


@pytest.mark.parametrize(
    ("status", "arguments", "advice"),
    [
        (401, (), "wants a token"),
        (403, (), "wants a token"),
        (401, ("--token", TOKEN), "wrong token: one was sent"),
        (403, ("--token", TOKEN), "may not read"),
    ],
)
@pytest.mark.parametrize("what", [ONCE, ("doctor", "--url")])
def test_a_refusal_says_whether_a_token_was_sent(
    run: Run, status: int, arguments: tuple[str, ...], advice: str, what: tuple[str, ...]
) -> None:
    with serving(Answer("no", status)) as endpoint:
        code, out, err = run(*what, endpoint.url, *arguments)
    assert code == 1
    assert advice in out + err


def test_a_refusal_after_a_redirect_says_that_no_token_was_sent(run: Run) -> None:
    with serving(Answer("no", 401)) as target:
        redirect = Answer("", 302, headers={"Location": target.url})
        with serving(redirect) as endpoint:
            code, _, err = run(*ONCE, endpoint.url, "--token", TOKEN)
    assert code == 1
    assert f"{target.url} answered 401" in err
    assert "no token is sent on" in err
    assert "authorization" not in target.requests[0]


def test_the_program_ends_at_once_while_a_fetch_hangs() -> None:
    """A thread that came back from the network while the interpreter ends could crash it."""
    program = """
import atexit, threading
from mcpgateway_pool.cli import fetch, run
atexit.register(print, "the interpreter ended")
fetch._get = lambda *arguments: threading.Event().wait()  # as a name server would have it
run()
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, "top", "--once", "--timeout", "0.2", "http://127.0.0.1:9/"],
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert "did not answer within 0.2 s" in done.stderr
