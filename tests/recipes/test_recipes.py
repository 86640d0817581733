"""The recipes that need libraries of others, in an environment that has them; and the types of all."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mcpgateway_pool import MCPSessionPool
from servers.process import ServerProcess
from support.examples import EXAMPLES, start_example

pytestmark = pytest.mark.long("libraries of others, in an environment of their own")

RECIPES = EXAMPLES / "recipes"
ROOT = EXAMPLES.parent


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("langchain_tools", r"one\ntwo\nthree\n1 session\n"),
        ("fastmcp_client", r".*'one'.*\n.*'two'.*\n.*'three'.*\n1 session\n"),
        ("pydantic_ai_agent", r'({"echo":.*}\n){2}1 session\n'),
    ],
)
def test_all_calls_of_a_recipe_go_over_one_session(tmp_path: Path, recipe: str, said: str) -> None:
    with ServerProcess() as server:
        with start_example(tmp_path, f"recipes/{recipe}.py", server.url) as process:
            output, errors = process.communicate(timeout=100)
        assert errors == ""
        assert re.fullmatch(said, output), output
        assert server.stats()["initialize"] == 1
        assert server.stats()["posts"]["tools/call"] >= 2


async def test_what_a_session_is_opened_with_comes_too_late_for_a_pooled_client() -> None:
    recipe = runpy.run_path(str(RECIPES / "fastmcp_client.py"))

    async def answer(*_: Any) -> str:
        return "never asked"

    with ServerProcess() as server:
        async with MCPSessionPool() as pool:
            client = recipe["pooled_client"](pool.server(server.url, user_identity="user"))
            client.set_sampling_callback(answer)
            with pytest.raises(RuntimeError, match="too late for: sampling_callback"):
                await client.__aenter__()
        assert server.stats()["initialize"] == 0


@pytest.mark.timeout(330)
def test_the_recipes_and_what_they_get_are_typed(tmp_path: Path) -> None:
    revealing = tmp_path / "revealing.py"
    revealing.write_text(
        "from mcpgateway_pool import MCPSessionPool\n\n\n"
        "async def reveal(pool: MCPSessionPool) -> None:\n"
        "    async with pool.session('url') as pooled:\n"
        "        reveal_type(pooled.session)\n"
    )
    files = [*sorted(RECIPES.glob("*.py")), ROOT / "tests" / "recipes" / "public_types.py", revealing]
    checked = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml")),
            *("--cache-dir", str(tmp_path / "cache"), *map(str, files)),
        ],
        cwd=tmp_path,  # away from the checkout: the types are those of the installed package
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.splitlines() == [
        'revealing.py:6: note: Revealed type is "mcp.client.session.ClientSession"',
        f"Success: no issues found in {len(files)} source files",
    ]
