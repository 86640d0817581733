"""The threat model names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def test_every_test_that_the_threat_model_names_exists() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/*.py"))
    named = set(re.findall(r"`(test_\w+)`", TEXT))
    assert len(named) > 30
    assert {name for name in named if f"def {name}(" not in sources} == set()


def test_every_file_that_the_threat_model_names_exists() -> None:
    named = set(re.findall(r"`(tests/[\w./]+)`", TEXT)) | {
        f"docs/{name}" for name in re.findall(r"\]\((\w+\.md)\)", TEXT)
    }
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
