"""The documentation says what the code says."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import mcpgateway_pool
from mcpgateway_pool import PoolCollector, _core
from support import doc_commands, typed_gateway

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "mcp_session_pool_"
THE_SIX = ("hits", "misses", "evictions", "health_check_failures", "active_sessions", "size")


def text_of(*path: str) -> str:
    return ROOT.joinpath(*path).read_text(encoding="utf-8")


def rows_of(text: str) -> list[list[str]]:
    """The cells of every row of every table, without their backquotes."""
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip().replace("`", "") for cell in row] for row in rows]


def queries_of(text: str) -> list[str]:
    return re.findall(r"```promql\n(.*?)\n```", text, re.DOTALL)


def series_in_code() -> dict[str, tuple[str, str]]:
    """Type and labels of each series by its full name, as the Collector shows it."""
    reasons = {PREFIX + stem: bool(reasons) for stem, _, reasons, _, _ in _core.SERIES}
    series = {}
    for family in PoolCollector().describe():
        by_reason = reasons.get(family.name)
        labels = "none" if by_reason is None else "gateway_id, reason" if by_reason else "gateway_id"
        labels += ", le" if family.type == "histogram" else ""
        if family.name == PREFIX + _core.GATEWAY_INFO_SERIES[0]:
            labels = "gateway_id, name"
        suffix = "_total" if family.type == "counter" else ""
        series[family.name + suffix] = (family.type, labels)
    return series


def series_in(text: str) -> dict[str, tuple[str, str]]:
    rows = [row for row in rows_of(text) if row[0].startswith(PREFIX)]
    series = {row[0]: (row[1], row[2]) for row in rows}
    assert len(series) == len(rows), "a series is documented twice"
    assert all(row[3] for row in rows), "a series has no meaning"
    return series


def series_named_in(expression: str) -> set[str]:
    """The series of an expression, histograms by the name of their family."""
    names = set(re.findall(r"\b" + PREFIX + r"\w+", expression))
    families = {name for name, (kind, _) in series_in_code().items() if kind == "histogram"}
    return {
        base if (base := re.sub("_(bucket|count|sum)$", "", name)) in families else name for name in names
    }


_NAMES = "job_gateway:mcp_session_pool_gateway:info"  # adds a name to alerts, and makes none of them fire


def alerts_by_series() -> dict[str, set[str]]:
    """Which alerts look at a series, by themselves or through what they record before."""
    text = text_of("mcpgateway_pool", "dashboards", "mcpgateway-pool.rules.yaml")
    text = re.sub(r"(?m)^ *#.*$", "", text)
    rules = re.findall(r"- (record|alert): (\S+)\s+expr:(.*?)(?=\n *(?:- |for:|labels:)|\Z)", text, re.DOTALL)
    recorded: dict[str, set[str]] = {}
    alerts: dict[str, set[str]] = {}
    for kind, name, expression in rules:
        used = {word for word in re.findall(r"[\w:]+", expression) if word in recorded and word != _NAMES}
        series = series_named_in(re.sub(r"\w+:[\w:]+", "", expression)).union(
            *(recorded[name] for name in used)
        )
        assert series or _NAMES in expression, name
        if kind == "record":
            recorded[name] = series
            continue
        for one in series:
            alerts.setdefault(one, set()).add(name)
    return alerts


def test_every_series_is_documented_with_its_type_and_labels_and_no_other() -> None:
    assert series_in(text_of("docs", "metrics.md")) == series_in_code()


@pytest.mark.parametrize("stem", ["evictions", "acquire_rejections", "unpooled_calls"])
def test_every_reason_is_documented_in_the_order_of_the_code(stem: str) -> None:
    in_code = next(reasons for name, _, reasons, _, _ in _core.SERIES if name == stem)
    tables = [
        [row[0] for row in rows_of(part) if set(row[0]) != {"-"}]
        for part in text_of("docs", "metrics.md").split("\n\n")
        if part.startswith("| `reason`")
    ]
    assert ["reason", *in_code] in tables


def test_every_series_names_the_alerts_that_look_at_it() -> None:
    rows = [row for row in rows_of(text_of("docs", "metrics.md")) if row[0].startswith(PREFIX)]
    documented = {row[0]: set(re.findall(r"\[(\w+)\]", row[4])) for row in rows}
    assert {name: alerts for name, alerts in documented.items() if alerts} == alerts_by_series()
    links = {link for row in rows for link in re.findall(r"\(([^)]*)\)", row[4])}
    assert all(link == f"runbook.md#{link.removeprefix('runbook.md#').lower()}" for link in links)


def test_alerts_of_the_metrics_page_are_in_the_runbook() -> None:
    alerts = set().union(*alerts_by_series().values())
    headings = re.findall(r"(?m)^#+ (\w+)$", text_of("docs", "runbook.md"))
    assert alerts <= set(headings)


def test_every_bucket_is_documented() -> None:
    rows = rows_of(text_of("docs", "metrics.md"))
    documented = {row[0]: row[1] for row in rows if row[0] in _core.buckets() and len(row) == 2}
    assert documented == {
        stem: ", ".join(f"{float(bound):g}" for bound in bounds) for stem, bounds in _core.buckets().items()
    }


def test_every_series_has_a_query_and_queries_name_no_other() -> None:
    queries = queries_of(text_of("docs", "metrics.md"))
    assert set().union(*map(series_named_in, queries)) == set(series_in_code())


@pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not on PATH (Debian package prometheus): the queries were NOT checked",
)
def test_promtool_understands_every_query(tmp_path: Path) -> None:
    queries = queries_of(text_of("docs", "metrics.md")) + queries_of(text_of("README.md"))
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "rules.json"  # YAML reads JSON
    file.write_text(json.dumps({"groups": [{"name": "docs", "rules": rules}]}), encoding="utf-8")
    checked = subprocess.run(
        ["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(queries)} rules found" in checked.stdout


def test_the_readme_lists_the_six_and_the_hit_rate_of_the_metrics_page() -> None:
    in_code = series_in_code()
    names = [PREFIX + stem for stem in THE_SIX]
    six = {name: in_code[name] for name in in_code if name.removesuffix("_total") in names}
    assert series_in(text_of("README.md")) == six
    assert set(queries_of(text_of("README.md"))) <= set(queries_of(text_of("docs", "metrics.md")))


def test_links_of_the_readme_lead_somewhere_in_a_package_index_too() -> None:
    metadata = importlib.metadata.metadata("mcpgateway-pool")
    urls = dict(entry.split(", ", 1) for entry in metadata.get_all("Project-URL") or [])
    assert {"Homepage", "Source", "Documentation", "Changelog", "Issues"} <= set(urls)
    shown = metadata.get_payload() or metadata["Description"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    targets = re.findall(r"\]\(([^)]+)\)", str(shown))
    assert f"{urls['Source']}/blob/HEAD/docs/gateway.md" in targets
    assert f"{urls['Source']}/raw/HEAD/docs/images/dashboard.png" in targets
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []


def test_the_first_program_of_the_readme_is_the_file() -> None:
    assert f"```python\n{text_of('examples', 'first_program.py')}```" in text_of("README.md")


def test_the_api_page_names_what_can_be_imported_and_no_other() -> None:
    text = text_of("docs", "api.md")
    listed = [re.sub(r"\[(.*)\]\(.*\)", r"\1", row[0]) for row in rows_of(text)[2:]]
    built = re.findall(r"(?m)^\.\. auto(?:class|function|exception):: (\w+)(?:\(\))?$", text)
    assert sorted(listed) == sorted(built) == sorted(mcpgateway_pool.__all__)


def test_the_architecture_page_names_every_source_file_and_no_other() -> None:
    text = text_of("docs", "architecture.md")
    sections = dict(re.findall(r"\n`([\w/]+/)`\n\n(.*?)(?=\n\n`|\Z)", text, re.DOTALL))
    for folder, section in sections.items():
        named = [row[0] for row in rows_of(section)[2:]]
        if folder.startswith("csrc/"):
            there = {path.stem for path in (ROOT / folder).glob("*.[ch]")}
        else:
            there = {path.name for path in (ROOT / folder).glob("*.py*") if path.is_file()}
        assert sorted(named) == sorted(there), folder
    folders = {f"csrc/{path.name}/" for path in (ROOT / "csrc").iterdir() if path.is_dir()}
    packages = {
        f"{path.parent.relative_to(ROOT)}/" for path in (ROOT / "mcpgateway_pool").rglob("__init__.py")
    }
    assert set(sections) == folders | packages


def rooms() -> dict[str, set[str]]:
    """The rooms of the Python package, and which each may import from, as the architecture page has them."""
    itself = "the package itself"
    table = text_of("docs", "architecture.md").partition("| room |")[2].partition("\n\n")[0]
    cells = {row[0]: row[2] for row in rows_of(f"| room |{table}")[2:]}
    result = {}
    for room, allowed in cells.items():
        if allowed.startswith("all but "):
            result[room] = set(cells) - {allowed.removeprefix("all but ")}
        else:
            result[room] = set(allowed.split(", ")) - {"nothing"}
        assert result[room] <= set(cells), room
        result[room] |= {room, itself}
    return result


def imports_of(path: Path) -> set[str]:
    """The modules that a file imports at any place, but for those that only types need."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = ".".join((*package, node.module) if node.module else package)
            base = module if node.level else node.module or ""
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return {name for name in names if name.partition(".")[0] == "mcpgateway_pool"}


def room_of(module: str, names: set[str]) -> str:
    """The room of a module, or of a name in one."""
    parts = module.split(".")[1:]
    inside = [room for room in names if parts[: room.count("/")] == room.split("/")[:-1]]
    return max(inside, key=len, default="the package itself")


def test_each_room_imports_what_the_architecture_page_allows() -> None:
    allowed = rooms()
    folders = {room for room in allowed if room.endswith("/")}
    there = {
        f"{path.parent.relative_to(ROOT / 'mcpgateway_pool')}/"
        for path in (ROOT / "mcpgateway_pool").rglob("__init__.py")
    }
    assert folders == there - {"./"}
    wrong = []
    for path in (ROOT / "mcpgateway_pool").rglob("*.py"):
        if path == ROOT / "mcpgateway_pool" / "__init__.py":
            continue  # it gathers what users import
        room = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts), folders)
        wrong += [
            f"{path.relative_to(ROOT)} imports {name}"
            for name in imports_of(path)
            if room_of(name, folders) not in allowed[room]
        ]
    assert not wrong


def test_every_page_has_its_place_in_the_contents() -> None:
    text = text_of("docs", "index.md")
    listed = [
        line for block in re.findall(r"(?s)```{toctree}\n(.*?)```", text) for line in block.splitlines()
    ]
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert sorted(line for line in listed if re.fullmatch(r"\w+", line)) == sorted(pages)


def headings_of(path: Path) -> set[str]:
    """The names by which links reach the headings of a page."""
    text = re.sub(r"(?ms)^```.*?^```", "", path.read_text(encoding="utf-8"))
    titles = re.findall(r"(?m)^#+ (.+)$", text)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_and_paths_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        links = re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text(encoding="utf-8"))
        for path, heading in links:
            target = page.parent / path if path else page
            assert target.exists(), f"{page.name}: {path}"
            assert not heading or heading in headings_of(target), f"{page.name}: {path}#{heading}"
    for folder in re.findall(r"\| `(\w+)/` \|", text_of("README.md")):
        assert (ROOT / folder).is_dir(), folder


def test_the_screens_of_top_are_those_that_it_draws() -> None:
    done = subprocess.run(
        [sys.executable, "-P", str(ROOT / "scripts" / "make_screens.py"), "--check"],
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "up to date\n", "")


def error_of_import_without_extension(folder: Path) -> str:
    """The last line of what importing a copy of the package ends with."""
    ignore = shutil.ignore_patterns("*.so")
    shutil.copytree(ROOT / "mcpgateway_pool", folder / "mcpgateway_pool", ignore=ignore, dirs_exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", "import mcpgateway_pool"],
        cwd=folder, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    error = done.stderr.splitlines()[-1]
    assert error.startswith("ImportError: ")
    return error


def test_importing_without_the_extension_says_why_and_what_to_do(tmp_path: Path) -> None:
    assert "install it again, by pip" in error_of_import_without_extension(tmp_path)
    (tmp_path / "csrc").mkdir()
    error = error_of_import_without_extension(tmp_path)
    assert "you are in the source folder" in error
    assert "python -P" in error


def test_an_extension_that_does_not_load_says_so_itself(tmp_path: Path) -> None:
    (tmp_path / "mcpgateway_pool").mkdir()
    (tmp_path / "mcpgateway_pool" / "_core.abi3.so").write_bytes(b"no library")
    assert "_core.abi3.so: file too short" in error_of_import_without_extension(tmp_path)


def makefile() -> str:
    return text_of("Makefile")


def test_every_command_is_typed_by_a_test_or_is_a_goal_of_the_makefile() -> None:
    typed = {
        *typed_gateway.STARTING,
        *typed_gateway.STARTING_WITH_VARIABLE,
        *typed_gateway.STARTING_OUR_APP,
        *typed_gateway.SETTINGS,
        *typed_gateway.SCRAPING,
        *typed_gateway.CHECKING,
        *typed_gateway.WATCHING,
        # By tests/integration/test_examples.py.
        *doc_commands.block_with("README.md", "demo_server"),
        *doc_commands.block_with("README.md", "first_program"),
    }
    goals = set(re.findall(r"(?m)^([\w-]+):(?!=)", makefile()))
    extras = set(importlib.metadata.metadata("mcpgateway-pool").get_all("Provides-Extra") or [])
    for command, pages in doc_commands.all_commands().items():
        program, *words = shlex.split(command)
        if program == "make":
            [goal, *given] = words
            assert goal in goals, f"{command} of {pages}"
            for name in (one.partition("=")[0] for one in given):
                assert re.search(rf"\$\(?{name}\b|\$\({name}[,)]|[ ,]{name}[,)]", makefile()), (
                    f"{command}: {name}"
                )
        elif program == "pip":
            requirement = Requirement(words[-1])
            assert requirement.name == "mcpgateway-pool"
            assert set(requirement.extras) <= extras, f"{command} of {pages}"
        else:
            assert command in typed, f"no test types this: {command} of {pages}"


def test_goals_that_pages_name_in_a_sentence_are_there() -> None:
    goals = set(re.findall(r"(?m)^([\w-]+):(?!=)", makefile()))
    for page in doc_commands.PAGES:
        named = set(re.findall(r"`make (\w[\w-]*)[^`]*`", text_of(page)))
        assert named <= goals, page
