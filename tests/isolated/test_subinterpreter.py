"""A subinterpreter is refused clearly where Python can say so."""

from __future__ import annotations

import sys

import pytest

from support.scripts import assert_runs_quietly

pytestmark = pytest.mark.skipif(sys.version_info < (3, 12), reason="Python cannot refuse it before 3.12")


def test_subinterpreter_is_refused_clearly_and_the_main_one_goes_on():
    out = assert_runs_quietly(
        """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
import mcpgateway_pool
script = '''
try:
    import mcpgateway_pool
except ImportError as error:
    text = str(error)
else:
    text = "it was imported"
import os
os.write(1, text.encode())
'''
number = interpreters.create()
interpreters.run_string(number, script)
interpreters.destroy(number)
async def use():
    pool = FakePool()
    await pool.release(await pool.acquire(URL, user_identity="ann"))
    await pool.close_all()
asyncio.run(use())
"""
    )
    assert "_core does not support loading in subinterpreters" in out
