"""`make mutants`: which mistakes it makes, how it names them, and what it counts."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"


@pytest.fixture
def mutants(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(SCRIPTS)
    yield importlib.import_module("mutants")
    for name in [name for name in sys.modules if name == "mutants" or name.startswith("mutants_")]:
        del sys.modules[name]


def sites_of(_: ModuleType, path: str, source: bytes) -> Any:
    """What the driver finds in a file."""
    return sys.modules["mutants_sites"].sites_of(path, source)


def changes(mutants: ModuleType, path: str, source: str) -> set[str]:
    """The text of a file after each mistake, the changed lines only."""
    found = set()
    for site in sites_of(mutants, path, source.encode()):
        for mutation in site:
            before, after = mutation.change(source.encode())
            assert before != after
            assert mutation.apply(source.encode()) != source.encode()
            found.add(after)
    return found


@pytest.mark.parametrize(
    ("line", "after"),
    [
        ("if (a < b) { f(); }", {"if (a <= b) { f(); }", "if (a >= b) { f(); }", "if (!(a < b)) { f(); }"}),
        ("if (a == NULL) { f(); }", {"if (a != NULL) { f(); }"}),
        ("if (!a && b) { f(); }", {"if ((a) && b) { f(); }", "if (!a || b) { f(); }"}),
        ("n = 3;", {"n = 4;", "n = 2;", ";"}),
        ("n = 0;", {"n = 1;", ";"}),
        ("n += a * b;", {"n -= a * b;", "n = a * b;", "n += a / b;", ";"}),
        ("n++;", {"n--;", ";"}),
        ("return a ? x : y;", {"return 0;", "return !(a) ? x : y;"}),
        ("is_open = true;", {"is_open = false;", ";"}),
        ("goto done;", {";"}),
        ("MGP_ASSERT(a == 3);", set()),
        ("assert(a == 3);", set()),
        ('PyErr_SetString(PyExc_TypeError, "1 < 2");', set()),
        ("/* a < b */ int c;", set()),
        ("return NULL;", set()),
    ],
)
def test_mistakes_in_c(mutants: ModuleType, line: str, after: set[str]) -> None:
    found = changes(mutants, "csrc/x.c", f"int\ng(void)\n{{\n{line}\n}}\n")
    assert after <= found if "{" in line else after == found


def test_checks_of_the_debug_build_are_left_alone(mutants: ModuleType) -> None:
    source = "#define A 3\n#ifdef MGP_DEBUG\nstatic int\ncheck(void)\n{\n    f();\n}\n#endif\n"
    assert changes(mutants, "csrc/x.c", source) == set()


@pytest.mark.parametrize(
    ("line", "after"),
    [
        ("if a < b: f()", {"if a <= b: f()", "if a >= b: f()", "if (not (a < b)): f()", "if a < b: pass"}),
        ("if a is None: f()", {"if a is not None: f()", "if a is None: pass"}),
        ("while not a: f()", {"while (a): f()", "while not a: pass"}),
        ("self.x = a and b", {"self.x = a or b", "pass"}),
        ("x = 2.5", {"x = (2.5 * 2)"}),
        ("x = a in (1, b)", {"x = a not in (1, b)", "x = a in (2, b)", "x = a in (0, b)", "x = a in ( b)"}),
        ("x = (1, *b)", {"x = (2, *b)", "x = (0, *b)"}),
        ("return x", {"return None"}),
        ("return False", {"return True"}),
        ("raise ValueError('1 < 2')", {"pass"}),
        ("await f(x=True)", {"await f(x=False)", "pass"}),
        ("assert a < 3", set()),
        ("_log.debug('%d', a + 1)", set()),
        ("x: int", set()),
        ('"""1 < 2"""', set()),
    ],
)
def test_mistakes_in_python(mutants: ModuleType, line: str, after: set[str]) -> None:
    assert changes(mutants, "x.py", f"async def g():\n    {line}\n") == after


def test_mistake_is_made_where_it_says_and_still_compiles(mutants: ModuleType) -> None:
    """On the real sources."""
    sites, sources = mutants.all_sites(ROOT, ("mcpgateway_pool",))
    assert len(sites) > 1000
    for site in sites[::29]:
        for mutation in site:
            source = sources[mutation.path]
            broken = mutation.apply(source)
            ast.parse(broken)
            lines = zip(source.splitlines(), broken.splitlines(), strict=False)
            first = next((n for n, (old, new) in enumerate(lines, start=1) if old != new), None)
            assert first is not None
            assert mutation.line == first or source.splitlines()[mutation.line - 1].strip() == b""


def test_seed_decides_what_is_drawn(mutants: ModuleType) -> None:
    sites = sites_of(mutants, "x.py", b"\n".join(b"f(%d < %d)" % (n, n) for n in range(50)))
    assert mutants.drawn(sites, 1) == mutants.drawn(sites, 1)
    assert mutants.drawn(sites, 1) != mutants.drawn(sites, 2)
    assert len(mutants.drawn(sites, 1)) == len(sites)


def test_mistake_keeps_its_name_when_its_code_moves(mutants: ModuleType) -> None:
    code = b"def f(a):\n    return a < 3\n"
    moved = b"import x\n\n\nclass Y:\n    pass\n\n\n" + code
    keys = [
        {mutants.key_of(mutation, source) for site in sites_of(mutants, path, source) for mutation in site}
        for path, source in (("x.py", code), ("rooms/y.py", moved))
    ]
    assert keys[0]
    assert keys[0] <= keys[1]


def test_what_is_listed_as_equivalent_exists_and_has_a_reason(mutants: ModuleType) -> None:
    listed = mutants.read_equivalent(mutants.EQUIVALENT.read_text(encoding="utf-8"))
    sites, sources = mutants.all_sites(ROOT, mutants.FOLDERS)
    there = {mutants.key_of(each, sources[each.path]) for site in sites for each in site}
    assert [key for key in listed if key not in there] == []
    assert all(listed.values())


@pytest.mark.parametrize("text", ["f\n- a\n= b", "f\n- a\n+ b", "f\n+ b\n- a\n= c"])
def test_list_of_another_form_is_refused(mutants: ModuleType, text: str) -> None:
    with pytest.raises(ValueError, match="not of the form"):
        mutants.read_equivalent(text)


def test_list_is_read(mutants: ModuleType) -> None:
    text = "# why\n\nf\n- a < b\n+ a <= b\n= b is never a\n\n(top)\n- x = 1\n+ x = 2\n= unused\n"
    assert mutants.read_equivalent(text) == {
        mutants.Key("f", "a < b", "a <= b"): "b is never a",
        mutants.Key("", "x = 1", "x = 2"): "unused",
    }


def test_score_counts_what_tests_could_see(mutants: ModuleType) -> None:
    outcome = mutants.Outcome
    [[mutation, *_], *_] = sites_of(mutants, "x.py", b"def f():\n    return 1 < 2\n")

    def judged(*outcomes: Any) -> list[Any]:
        key = mutants.Key("f", "return 1 < 2", "return 1 <= 2")
        return [mutants.Judged(mutation, key, mutants.Verdict(each, "", 1, 2)) for each in outcomes]

    some = judged(outcome.CAUGHT, outcome.CAUGHT, outcome.SURVIVED, outcome.LISTED, outcome.UNREACHED)
    assert mutants.score_of(some) == pytest.approx(2 / 3)
    text = mutants.summary(some, 7, 60.0)
    assert "2 of 3 mistakes caught, 66.7 %" in text
    assert "seed 7" in text
    assert "x.py:2 f [" in text
    assert "1 listed as equivalent" in text
    assert text.count("x.py:2 f [") == 2
    assert text.index("survivors:") < text.index("reached by no test:") < text.rindex("x.py:2 f [")
    assert "reached by no test:" not in mutants.summary(judged(outcome.CAUGHT), 7, 60.0)
    assert mutants.score_of([]) == 0


def test_what_stands_outside_of_functions_is_judged_by_whoever_reaches_the_file(mutants: ModuleType) -> None:
    """Not only by those in whose process the module happened to be imported."""
    reach_module = importlib.import_module("mutants_reach")
    reach = reach_module.Reach()
    reach.add(
        "python",
        {
            "tests": [["imports", 3.0], ["calls", 1.0], ["of another file", 2.0]],
            "lines": {"a.py": {"1": [0], "4": [1]}, "b.py": {"1": [2]}},
        },
    )
    source = b"LIMIT = 3\n\ndef f():\n    return LIMIT + 1\n"
    judged = {
        mutation.line: [test.name for test in reach.tests_for(mutation)]
        for site in sites_of(mutants, "a.py", source)
        for mutation in site
    }
    assert judged == {1: ["calls", "imports"], 4: ["calls"]}
