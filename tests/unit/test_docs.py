"""The documentation says what the code says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mcpgateway_pool import PoolCollector, _core

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
        suffix = "_total" if family.type == "counter" else ""
        series[family.name + suffix] = (family.type, labels)
    return series


def series_in(text: str) -> dict[str, tuple[str, str]]:
    rows = [row for row in rows_of(text) if row[0].startswith(PREFIX)]
    series = {row[0]: (row[1], row[2]) for row in rows}
    assert len(series) == len(rows), "a series is documented twice"
    assert all(len(row) == 4 and row[3] for row in rows), "a series has no meaning"
    return series


def test_every_series_is_documented_with_its_type_and_labels_and_no_other() -> None:
    assert series_in(text_of("docs", "metrics.md")) == series_in_code()


@pytest.mark.parametrize("stem", ["evictions", "acquire_rejections"])
def test_every_reason_is_documented_in_the_order_of_the_code(stem: str) -> None:
    in_code = next(reasons for name, _, reasons, _, _ in _core.SERIES if name == stem)
    tables = [
        [row[0] for row in rows_of(part) if set(row[0]) != {"-"}]
        for part in text_of("docs", "metrics.md").split("\n\n")
        if part.startswith("| `reason`")
    ]
    assert ["reason", *in_code] in tables


def test_every_series_has_a_query_and_queries_name_no_other() -> None:
    named = {
        name
        for query in queries_of(text_of("docs", "metrics.md"))
        for name in re.findall(PREFIX + r"\w+", query)
    }
    assert named == set(series_in_code())


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


def test_the_first_program_of_the_readme_is_the_file() -> None:
    assert f"```python\n{text_of('examples', 'first_program.py')}```" in text_of("README.md")


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
    assert set(sections) == folders | {"mcpgateway_pool/"}


def test_links_and_paths_lead_somewhere() -> None:
    for page in ("README.md", "docs/metrics.md", "docs/architecture.md"):
        text = text_of(page)
        targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
        for target in targets:
            assert (ROOT / page).parent.joinpath(target).exists(), f"{page}: {target}"
    for folder in re.findall(r"\| `(\w+)/` \|", text_of("README.md")):
        assert (ROOT / folder).is_dir(), folder
