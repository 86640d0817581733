"""What is left in memory: keys that the pool has let go are wiped, in the built extension itself.

Python's own strings cannot be wiped; so the program that is looked into wipes the one that it made, by force.
What is found after that is a copy of somebody else's. tests/c/test_wipe.c looks at every block that is freed.
"""

from __future__ import annotations

import inspect
import re
import select
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from support.scripts import PRELUDE

_TESTS = str(Path(__file__).resolve().parent.parent)

SIZE = 3000  # beyond the buffer on the stack in which short keys are built


def character(place: int) -> int:
    """The secret, one character at a time: it is a literal nowhere."""
    return 65 + pow(3, place + 1, 65537) % 57


NEEDLE = bytes(map(character, range(SIZE)))[1500:1600]

# Puts the secret's characters into a string that is there: so there never was another one.
PROGRAM = (
    PRELUDE
    + inspect.getsource(character)
    + """
import ctypes
SIZE = int(sys.argv[1])
LONG_URL = URL + "/" + "x" * int(sys.argv[2])
token = "".join(["."] * SIZE)
start = id(token) + sys.getsizeof("") - 1  # of its characters
for place in range(SIZE):
    ctypes.memset(start + place, character(place), 1)

def say(word):
    print(word, flush=True)
    sys.stdin.readline()

async def main():
    pool = PlainPool()
    say("made")
    for _ in range(3):
        pooled = await pool.acquire(LONG_URL, None, user_identity=token, gateway_id="g")
        await pool.release(pooled)
    assert pool.attempts == 1
    ctypes.memset(start, ord("."), SIZE)
    say("pooled")
    await pool.close_all()
    say("closed")
asyncio.run(main())
"""
)


def copies(pid: int) -> int:
    """How often the secret is in the writable memory of a process."""
    found = 0
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            match = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
            if match is None or "[v" in line:
                continue
            first, last = (int(group, 16) for group in match.groups())
            try:
                memory.seek(first)
                found += memory.read(last - first).count(NEEDLE)
            except OSError:  # a mapping that cannot be read
                continue
    return found


def line_of(stream: IO[str]) -> str:
    assert select.select([stream], [], [], 50)[0]
    return stream.readline().strip()


@pytest.mark.release_build  # its compiler is the one that might drop what it takes for useless
@pytest.mark.parametrize("allocator", ["pymalloc", "malloc"])
@pytest.mark.parametrize("path", [0, 100_000], ids=["one buffer", "a buffer that it outgrows"])
def test_key_that_the_pool_has_let_go_is_nowhere_in_memory(
    path: int, allocator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", _TESTS)
    monkeypatch.setenv("PYTHONMALLOC", allocator)
    command = [sys.executable, "-P", "-c", PROGRAM, str(SIZE), str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        found = {}
        try:
            for _ in range(3):
                word = line_of(process.stdout)
                found[word] = copies(process.pid)
                process.stdin.write("\n")
                process.stdin.flush()
            assert process.wait(50) == 0
        finally:
            process.kill()
    assert found["made"] == 1  # the program's own string
    assert found["pooled"] >= 1  # the pool's own copy, while it has the key
    assert found["closed"] == 0


# ---- the hash key

ORDER = """
import os, sys
if len(sys.argv) > 1:
    os.urandom = lambda size: bytes([int(sys.argv[1])]) * size
from support.fakes import *
async def main():
    pool = PlainPool()
    for number in range(64):
        await pool.release(await pool.acquire(URL, None, user_identity=str(number)))
    print(*(key[0] for key in pool._pools))
asyncio.run(main())
"""


def order_of_keys(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """The order in which a process keeps the same 64 keys: that of their buckets."""
    monkeypatch.setenv("PYTHONPATH", _TESTS)
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    command = [sys.executable, "-P", "-c", ORDER, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=110, check=True).stdout


def test_hash_key_is_the_operating_systems_and_of_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert order_of_keys(monkeypatch) != order_of_keys(monkeypatch)
    assert order_of_keys(monkeypatch, "1") == order_of_keys(monkeypatch, "1")  # nothing else decides
