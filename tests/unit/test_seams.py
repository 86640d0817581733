"""What the parts of the Python package know of each other: the pool's private names, and argument lists."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import mcpgateway_pool
from mcpgateway_pool import MCPSessionPool, _core
from mcpgateway_pool.config import Settings
from mcpgateway_pool.pool.session_context import AcquireArguments

PACKAGE = Path(__file__).parents[2] / "mcpgateway_pool"
POOL = "pool/mcp_session_pool.py"
PROTOCOL = "pool/protocol.py"


def tree_of(path: str) -> ast.Module:
    return ast.parse((PACKAGE / path).read_text(encoding="utf-8"))


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


# ---- private names


PRIVATE = {name for name in dir(MCPSessionPool) if is_private(name)}


def reaches(tree: ast.AST) -> Iterator[tuple[ast.expr, str]]:
    """Each expression of which a private name is used that the pool has, too, and that name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner, name = node.value, node.attr
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", "") in ("getattr", "setattr", "hasattr", "delattr")
            and isinstance(node.args[1], ast.Constant)
        ):
            owner, name = node.args[0], str(node.args[1].value)
        else:
            continue
        if name in PRIVATE:
            yield owner, name


def is_its_own(owner: ast.expr) -> bool:
    """Whether the expression is an object in a method of its own, or a class in the body of a subclass."""
    text = ast.unparse(owner)
    return text in ("self", "cls", "super()") or re.fullmatch(r"[A-Z]\w*", text) is not None


# Objects that are no pool, but have a private name that a pool has, too. The host of SessionAffinity is one:
# which names of it are used is documented there, as gateway code replaces them.
OTHERS = {
    ("pooled", "_closed"),
    ("stream", "_closed"),
    ("dispatcher", "_closed"),
    ("self._standstill", "_now"),
    ("self._registry", "_message_handler_factory"),
    ("self._host", "_closed"),
}


def test_nobody_outside_the_package_pool_uses_a_private_name_of_the_pool() -> None:
    found = []
    for path in PACKAGE.rglob("*.py"):
        if PACKAGE / "pool" in path.parents:
            continue
        for owner, name in reaches(ast.parse(path.read_text(encoding="utf-8"))):
            text = ast.unparse(owner)
            if not is_its_own(owner) and (text, name) not in OTHERS:
                found.append(f"{path.relative_to(PACKAGE)}: {text}.{name}")
    assert not found


@pytest.mark.parametrize(
    ("line", "is_found"),
    [
        ("pool._spawn(x)", True),
        ("self._pool._spawn(x)", True),
        ("getattr(pool, '_spawn')", True),
        ("lease.pool._hits", True),
        ("self._spawn(x)", False),
        ("super()._spawn(x)", False),
        ("pool.acquire(x)", False),
        ("pool._unheard_of", False),
    ],
)
def test_the_search_for_private_names_finds_them(line: str, is_found: bool) -> None:
    assert any(not is_its_own(owner) for owner, _ in reaches(ast.parse(line))) is is_found


def collaborators() -> Iterator[tuple[str, ast.Module]]:
    """The files that are written against the protocol."""
    for path in sorted((PACKAGE / "pool").glob("*.py")):
        name = f"pool/{path.name}"
        if name not in (POOL, PROTOCOL, "pool/__init__.py"):
            yield name, tree_of(name)


def members() -> set[str]:
    """What the protocol names."""
    [protocol] = [node for node in tree_of(PROTOCOL).body if isinstance(node, ast.ClassDef)]
    return {
        node.target.id if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) else node.name
        for node in protocol.body
        if isinstance(node, (ast.AnnAssign, ast.FunctionDef, ast.AsyncFunctionDef))
    }


def test_the_pools_own_files_take_a_pool_by_its_protocol() -> None:
    """So that mypy refuses what the protocol does not have, and a pool that does not have all of it."""
    for name, tree in collaborators():
        for node in ast.walk(tree):
            if isinstance(node, ast.arg) and node.arg in ("pool", "pool_ref"):
                assert node.annotation is not None
                assert ast.unparse(node.annotation) in ("Pool", "weakref.ref[Pool]"), f"{name}:{node.lineno}"
            elif isinstance(node, ast.AnnAssign) and ast.unparse(node.target) in ("pool", "owner"):
                assert ast.unparse(node.annotation) in ("Pool", "Pool | None"), f"{name}:{node.lineno}"


def test_the_protocol_says_what_is_needed_of_the_pool_and_no_more() -> None:
    used = set()
    for name, tree in collaborators():
        # In release.py, the pool that a session comes from.
        are_pools = ("pool", "self._pool", "owner" if name == "pool/release.py" else "pool")
        used |= {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in are_pools
        }
    assert {"_settings", "_spawn", "release", "_opened_by"} <= used
    assert used == members()


# ---- lists of arguments: each stands once, and the others are like it


def arguments_of(path: str, name: str) -> ast.arguments:
    """Those of a function or method of a file."""
    [found] = [
        node
        for node in ast.walk(tree_of(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == name
    ]
    return found.args


def described(arguments: ast.arguments) -> dict[str, tuple[str, str]]:
    """By name, in order: annotation and default."""
    positional = arguments.posonlyargs + arguments.args
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    pairs = [
        *zip(positional, defaults, strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    result = {
        argument.arg: (
            "" if argument.annotation is None else ast.unparse(argument.annotation),
            "" if default is None else ast.unparse(default),
        )
        for argument, default in pairs
    }
    result.pop("self", None)
    return result


def names_of_text_signature(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


CONSTRUCTOR = described(arguments_of(POOL, "__init__"))
ACQUIRE = described(arguments_of(POOL, "acquire"))


def test_the_settings_are_the_arguments_of_the_constructor() -> None:
    of_settings = {field.name: str(field.type) for field in fields(Settings)}
    of_constructor = {name: annotation for name, (annotation, _) in CONSTRUCTOR.items()}
    assert list(of_settings.items()) == list(of_constructor.items())


def test_each_argument_of_the_constructor_is_documented_in_order() -> None:
    text = inspect.getdoc(MCPSessionPool) or ""
    args = text.partition("Args:\n")[2].partition("\n\n")[0]
    assert re.findall(r"^ {4}(\w+):", args, re.MULTILINE) == list(CONSTRUCTOR)


def test_each_argument_of_acquire_is_documented_in_order() -> None:
    text = inspect.getdoc(MCPSessionPool.acquire) or ""
    args = text.partition("Args:\n")[2].partition("\n\n")[0]
    assert re.findall(r"^ {4}(\w+):", args, re.MULTILINE) == list(ACQUIRE)


@pytest.mark.parametrize(
    ("path", "name"), [(POOL, "session"), ("gateway/pool/gateway_pool.py", "acquire"), (PROTOCOL, "acquire")]
)
def test_what_acquires_takes_the_arguments_of_acquire(path: str, name: str) -> None:
    found = described(arguments_of(path, name))
    if path == PROTOCOL:  # which imports no value for the default
        found["transport_type"] = (found["transport_type"][0], ACQUIRE["transport_type"][1])
    assert list(found.items()) == list(ACQUIRE.items())


def test_a_server_takes_the_arguments_of_acquire_but_how_long_to_wait() -> None:
    expected = {name: argument for name, argument in ACQUIRE.items() if name != "wait_timeout"}
    assert list(described(arguments_of(POOL, "server")).items()) == list(expected.items())
    assert AcquireArguments._fields[-1] == "wait_timeout"  # which pool/server.py leaves out


def test_what_carries_the_arguments_of_acquire_has_them_all_in_order() -> None:
    assert AcquireArguments._fields == tuple(ACQUIRE)
    assert AcquireArguments.__annotations__.keys() == ACQUIRE.keys()
    [of_tuple] = [
        node
        for node in tree_of("pool/session_context.py").body
        if isinstance(node, ast.ClassDef) and node.name == "AcquireArguments"
    ]
    annotations = [ast.unparse(node.annotation) for node in of_tuple.body if isinstance(node, ast.AnnAssign)]
    assert annotations == [annotation for annotation, _ in ACQUIRE.values()]
    assert names_of_text_signature(_core.make_context) == ["cls", "pool", *ACQUIRE]
    not_in_the_key = {"httpx_client_factory", "timeout", "wait_timeout"}
    assert names_of_text_signature(_core.acquire) == [
        "pool",
        *(name for name in ACQUIRE if name not in not_in_the_key),
        "is_anonymous",
    ]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (PROTOCOL, "_create_session"),
        ("gateway/pool/gateway_pool.py", "_create_session"),
        ("gateway/registry/registry_pool.py", "_create_session"),
    ],
)
def test_who_has_the_hook_that_creates_sessions_has_its_arguments(path: str, name: str) -> None:
    hook = described(arguments_of(POOL, "_create_session"))
    assert list(described(arguments_of(path, name)).items()) == list(hook.items())


def test_the_stand_in_module_makes_the_pool_with_the_arguments_of_its_constructor() -> None:
    path = "gateway/session_pool.py"
    arguments = arguments_of(path, "init_mcp_session_pool")
    given = described(arguments)
    for own in ("enable_notifications", "notification_debounce_seconds"):  # of the gateway's function
        del given[own]
    limits = {name: given.pop(name) for name in ("max_total_keys", "max_total_sessions")}
    assert list(given.items()) == list(CONSTRUCTOR.items())[: len(given)]
    for name, (annotation, default) in limits.items():  # None: the environment says it
        assert (annotation, default) == (f"{CONSTRUCTOR[name][0]} | None", "None")
    [made] = [
        node
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "MCPSessionPool"
    ]
    passed = {keyword.arg: ast.unparse(keyword.value) for keyword in made.keywords if keyword.arg}
    assert passed == {name: name for name in given}


def test_the_registrys_pool_is_made_with_arguments_that_the_constructor_has() -> None:
    """They are a dict, which mypy does not check against the constructor."""
    for path in ("gateway/registry/registry_pool.py", "gateway/registry/calls/call_pool.py"):
        [limits] = [
            node
            for node in ast.walk(tree_of(path))
            if isinstance(node, ast.FunctionDef) and node.name == "_limits"
        ]
        named = {
            str(key.value)
            for node in ast.walk(limits)
            if isinstance(node, ast.Dict)
            for key in node.keys
            if isinstance(key, ast.Constant)
        }
        named |= {
            keyword.arg
            for node in ast.walk(limits)
            if isinstance(node, ast.Call)
            for keyword in node.keywords
            if keyword.arg
        }
        assert named
        assert named <= CONSTRUCTOR.keys()


# ---- defaults: what a docstring says of one is what it is


def modules() -> Iterator[ModuleType]:
    """All that need no gateway."""
    for found in pkgutil.walk_packages(mcpgateway_pool.__path__, "mcpgateway_pool."):
        if not found.name.startswith("mcpgateway_pool.gateway") and not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def described_in(module: ModuleType) -> Iterator[Any]:
    """The functions and classes of a module, and the methods of these."""
    for owner in vars(module).values():
        if getattr(owner, "__module__", "") == module.__name__ and (
            inspect.isclass(owner) or inspect.isfunction(owner)
        ):
            yield owner
            yield from filter(inspect.isfunction, vars(owner).values())


def documented_defaults(documented: Any) -> dict[str, object]:
    """The defaults that the entries of a docstring say, by name: numbers, True and False."""
    found: dict[str, object] = {}
    entry = re.compile(r"^ +(\w+): ((?:.+\n?)(?:^ {8,}.+\n?)*)", re.MULTILINE)
    for name, text in entry.findall(inspect.getdoc(documented) or ""):
        said = re.search(r"\bdefault:? (\d[\d,.]*\d|\d|True|False)\b", " ".join(text.split()))
        if said is not None:
            found[name] = ast.literal_eval(said[1].replace(",", ""))
    return found


def test_defaults_are_those_that_docstrings_say() -> None:
    compared = 0
    for documented in (documented for module in modules() for documented in described_in(module)):
        for name, said in documented_defaults(documented).items():
            default = inspect.signature(documented).parameters[name].default
            if default is not None:  # for which stands what the text says
                assert default == said, (documented, name)
                compared += 1
    assert compared > 30
