"""The names of a gateway that this package replaces or that the gateway uses of them, read from its sources
without running them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

Names = dict[str, str]  # what each is, in words that differ when it changed


def names_defined(source: str) -> Names:
    """What a module defines: functions with their arguments, classes with their members, variables."""
    return dict(_defined(ast.parse(source).body, ""))


def _defined(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, str]]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            kind = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
            marks = "".join(f"@{ast.unparse(mark)} " for mark in node.decorator_list)
            answer = f" -> {ast.unparse(node.returns)}" if node.returns else ""
            yield prefix + node.name, f"{marks}{kind} ({ast.unparse(node.args)}){answer}"
        elif isinstance(node, ast.ClassDef):
            bases = ", ".join(ast.unparse(base) for base in node.bases)
            marks = "".join(f"@{ast.unparse(mark)} " for mark in node.decorator_list)
            yield prefix + node.name, f"{marks}class ({bases})"
            yield from _defined(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield prefix + node.target.id, f"a variable: {ast.unparse(node.annotation)}"
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    yield prefix + target.id, "a variable"


def names_used(package: Path, module: str) -> Names:
    """What the modules of a package import from a module: ``module: name`` and where."""
    used: dict[str, set[str]] = {}
    for path in sorted(package.rglob("*.py")):
        text = path.read_text(encoding="utf-8", errors="replace")
        if module.rpartition(".")[2] not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module == module:
                for alias in node.names:
                    used.setdefault(alias.name, set()).add(path.relative_to(package).as_posix())
    return {name: "in " + ", ".join(sorted(where)) for name, where in used.items()}


def changes(before: Names, after: Names) -> list[str]:
    """What is gone, new or different, a line each."""
    lines = [f"- {name}: {before[name]}" for name in sorted(before.keys() - after.keys())]
    lines += [f"+ {name}: {after[name]}" for name in sorted(after.keys() - before.keys())]
    for name in sorted(before.keys() & after.keys()):
        if before[name] != after[name]:
            lines += [f"! {name}: {before[name]}", f"  {' ' * len(name)}  {after[name]}"]
    return lines
