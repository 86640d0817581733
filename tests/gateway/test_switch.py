"""Switching on and off, seen from fresh interpreters: with an imitation of a gateway, which is imported in no
time, and with the installed one. Whole gateways: test_launches.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import dedent

import pytest

from mcpgateway_pool.gateway.releases import FAMILIES, find_family

POOL_MODULE = "mcpgateway.services.mcp_session_pool"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs code in a new interpreter; it must end with exit code 0."""

    def run(
        code: str,
        *,
        enabled: str | None = None,
        path: Path | None = None,
        environment: Mapping[str, str] = {},
    ) -> subprocess.CompletedProcess[str]:
        variables = {**os.environ, **environment}
        variables.pop("MCPGATEWAY_POOL_ENABLED", None)
        if enabled is not None:
            variables["MCPGATEWAY_POOL_ENABLED"] = enabled
        if path is not None:
            variables["PYTHONPATH"] = str(path)
        done = subprocess.run(
            [sys.executable, "-P", "-c", dedent(code)],
            check=False,
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def imitation(tmp_path: Path) -> Callable[..., Path]:
    """Makes a package ``mcpgateway`` of some version that holds hardly anything; the folder for sys.path."""

    def imitation(version: str, *, with_pool: bool = True) -> Path:
        package = tmp_path / "imitation" / "mcpgateway"
        (package / "services").mkdir(parents=True)
        (package / "__init__.py").write_text(f"__version__ = {version!r}\n")
        (package / "services" / "__init__.py").touch()
        (package / "main.py").write_text("app = 'the application'\n")
        if with_pool:
            (package / "services" / "mcp_session_pool.py").write_text("its_own = True\n")
        return package.parent

    return imitation


# -------------------------------------------------------------------- when Python starts

LOADED = """
import sys
ours = [name for name in sys.modules if "mcpgateway_pool" in name]
others = [name for name in ("prometheus_client", "mcpgateway", "mcp", "logging") if name in sys.modules]
hooks = [type(finder).__module__ for finder in sys.meta_path if "pool" in type(finder).__module__]
print(ours, others, hooks)
"""


@pytest.mark.parametrize("value", [None, "", "false", "0", "No", "OFF"])
def test_without_the_switch_python_starts_with_nothing_of_ours_active(run: Run, value: str | None) -> None:
    output = run(LOADED, enabled=value).stdout
    # With a value there is somebody who has to read it.
    expected = "[] [] []" if not value else "['_mcpgateway_pool_switch'] [] []"
    assert output.strip() == expected


@pytest.mark.parametrize("value", ["true", "1", "Yes", "ON", " true "])
def test_the_switch_adds_a_hook_and_imports_neither_package_nor_core(run: Run, value: str) -> None:
    output = run(LOADED, enabled=value).stdout
    assert output.strip() == "['_mcpgateway_pool_switch'] [] ['_mcpgateway_pool_switch']"


def test_a_value_that_is_neither_true_nor_false_is_off_and_warned_of_in_the_gateway_only(
    run: Run, imitation: Callable[..., Path]
) -> None:
    gateway = imitation("1.0.0-RC-1")
    assert run("pass", enabled="ture", path=gateway).stderr == ""
    done = run(f"import mcpgateway.main, {POOL_MODULE} as m; print(m.its_own)", enabled="ture", path=gateway)
    assert done.stdout == "True\n"
    assert done.stderr.count("MCPGATEWAY_POOL_ENABLED must be true or false") == 1
    assert "'ture'" in done.stderr


@pytest.mark.parametrize(
    "install", ["mcpgateway_pool.gateway.install()", "import mcpgateway_pool.gateway.asgi"]
)
def test_a_bad_value_of_the_switch_is_a_warning_however_it_is_switched_on(
    run: Run, imitation: Callable[..., Path], install: str
) -> None:
    gateway = imitation("1.0.0-RC-1")
    done = run(
        f"import mcpgateway_pool.gateway; {install}; import mcpgateway.main, {POOL_MODULE} as m\n"
        "print(m.its_own, mcpgateway_pool.gateway.is_installed())",
        enabled="ture",
        path=gateway,
    )
    assert done.stdout == "True False\n"
    assert done.stderr.count("mcpgateway-pool stays off") == 1
    assert "'ture'" in done.stderr


# -------------------------------------------------------------------- releases


@pytest.mark.parametrize("version", ["1.0.0-BETA-2", "1.0.0b2", "1.0.0-RC-1", "1.0.0rc1", "1.0.0-RC-3"])
def test_releases_with_a_session_pool_are_supported(version: str) -> None:
    assert find_family(version) is FAMILIES[0]


@pytest.mark.parametrize(
    "version",
    ["0.9.0", "1.0.0-BETA-1", "1.0.0a3", "1.2.0", "1.2.0a1", "2.0.0rc1", "?", ""],
)
def test_other_releases_are_not(version: str) -> None:
    assert find_family(version) is None


@pytest.mark.parametrize(("version", "with_pool"), [("9.9.9", False), ("0.9.0", False), ("9.9.9", True)])
def test_an_unsupported_gateway_says_what_is_supported_and_starts_as_it_would_have(
    run: Run, imitation: Callable[..., Path], version: str, with_pool: bool
) -> None:
    gateway = imitation(version, with_pool=with_pool)
    code = "import mcpgateway.main; print(mcpgateway.main.app)"
    if with_pool:
        code += f"; import {POOL_MODULE} as m; print(m.its_own)"
    done = run(code, enabled="true", path=gateway)
    assert done.stdout.splitlines() == ["the application", "True"][: 1 + with_pool]
    assert done.stderr.count("mcpgateway-pool stays off") == 1
    assert version in done.stderr
    assert "1.0.0b2" in done.stderr


def test_install_into_an_unsupported_gateway_changes_nothing(
    run: Run, imitation: Callable[..., Path]
) -> None:
    code = f"""
    import sys
    from mcpgateway_pool.gateway import install, is_installed, uninstall
    before = list(sys.meta_path)
    print(install(), is_installed(), sys.meta_path == before)
    import {POOL_MODULE} as m
    print(m.its_own)
    uninstall()
    """
    done = run(code, path=imitation("9.9.9"))
    assert done.stdout.split() == ["False", "False", "True", "True"]
    assert "mcpgateway-pool stays off" in done.stderr


def test_a_failure_in_the_hook_is_logged_and_leaves_the_gateway_with_its_own_pool(
    run: Run, imitation: Callable[..., Path]
) -> None:
    # Its version is supported, but it lacks what the stand-in imports from it.
    done = run(f"import {POOL_MODULE} as m; print(m.its_own)", enabled="true", path=imitation("1.0.0-RC-1"))
    assert done.stdout == "True\n"
    assert "the gateway goes on without it" in done.stderr
    assert "Traceback" in done.stderr


def test_the_application_starts_where_the_pool_cannot_be_put_in(
    run: Run, imitation: Callable[..., Path]
) -> None:
    gateway = imitation("1.0.0-RC-1")
    done = run(f"import {POOL_MODULE}, mcpgateway_pool.gateway.asgi as asgi; print(asgi.app)", path=gateway)
    assert done.stdout == "the application\n"
    assert "the gateway goes on without it" in done.stderr or "which goes on without it" in done.stderr


def test_without_a_gateway_install_says_what_to_install(run: Run) -> None:
    code = """
    import sys
    sys.modules["mcpgateway"] = None
    from mcpgateway_pool.gateway import install
    try:
        install()
    except ImportError as error:
        print(error)
    """
    assert "mcpgateway-pool[gateway]" in run(code).stdout


# -------------------------------------------------------------------- the installed gateway

CHECKS = f"""
import importlib, json, logging, pickle, sys
from unittest import mock

POOL = {POOL_MODULE!r}
STAND_IN = "mcpgateway_pool.gateway.session_pool"
EARLY = ["mcpgateway.services.tool_service", "mcpgateway.services.resource_service",
         "mcpgateway.services.gateway_service"]
NAMES = ["get_mcp_session_pool", "TransportType", "register_gateway_capabilities_for_notifications"]

class Lines(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []
    def emit(self, record):
        if "mcpgateway-pool" in record.getMessage():
            self.lines.append(record.getMessage())

said = Lines()
logging.getLogger(POOL).addHandler(said)
logging.getLogger(POOL).setLevel(logging.INFO)

def belongs(module):
    "Every way to reach the module, and every name bound early, leads to this one."
    assert sys.modules[POOL] is module
    assert importlib.import_module(POOL) is module
    assert sys.modules["mcpgateway.services"].mcp_session_pool is module
    bound = 0
    for early in EARLY:
        for name in NAMES:
            if hasattr(sys.modules[early], name):
                assert getattr(sys.modules[early], name) is getattr(module, name), (early, name)
                bound += 1
    assert bound == 7, bound

def shown():
    from prometheus_client import REGISTRY, generate_latest
    return generate_latest(REGISTRY).count(b"# TYPE mcp_session_pool_hits_total counter")
"""


def test_the_hook_puts_the_stand_in_in_the_gateways_place(run: Run) -> None:
    code = """
    stand_in = importlib.import_module(POOL)
    assert stand_in is sys.modules[STAND_IN]
    [line] = said.lines
    assert line.startswith("mcpgateway-pool ") and "session pool" in line and "counters" in line, line
    assert shown() == 1

    from mcpgateway.services import gateway_service, resource_service, tool_service
    belongs(stand_in)

    with mock.patch(POOL + ".logger", "patched"), mock.patch(POOL + ".settings"):
        assert stand_in.get_mcp_session_pool.__globals__["logger"] == "patched"
    assert pickle.loads(pickle.dumps(stand_in.TransportType.SSE)) is stand_in.TransportType.SSE
    assert pickle.loads(pickle.dumps(stand_in.MCPSessionPool)) is stand_in.MCPSessionPool
    assert stand_in.__spec__.name == stand_in.__name__ == STAND_IN
    assert importlib.util.find_spec(POOL) is stand_in.__spec__

    del sys.modules[POOL]
    assert importlib.util.find_spec(POOL).loader.get_code(POOL) is not None
    assert importlib.import_module(POOL) is stand_in
    assert len(said.lines) == 1, said.lines

    from mcpgateway_pool.gateway import install, is_installed, uninstall
    assert is_installed() and install()
    uninstall()
    assert not is_installed()
    stock = sys.modules[POOL]
    assert stock.__file__.endswith("mcp_session_pool.py") and not hasattr(stock, "drain_mcp_session_pool")
    belongs(stock)
    assert shown() == 0
    uninstall()

    install()
    before = stand_in.get_mcp_session_pool
    assert importlib.reload(sys.modules[POOL]) is stand_in
    assert sys.modules[POOL] is sys.modules[STAND_IN] is stand_in
    assert stand_in.get_mcp_session_pool is not before
    """
    run(CHECKS + dedent(code), enabled="true")


def test_names_of_gateways_are_not_read_where_that_is_switched_off(run: Run) -> None:
    code = f"""
    import {POOL_MODULE}
    from mcpgateway_pool.gateway import install, uninstall
    from mcpgateway_pool.prometheus.gateway_names import NAMES
    import os
    assert NAMES._read is None
    uninstall()
    del os.environ["MCPGATEWAY_POOL_GATEWAY_NAMES"]
    install()
    assert NAMES._read is not None
    uninstall()
    assert NAMES._read is None
    """
    run(code, enabled="true", environment={"MCPGATEWAY_POOL_GATEWAY_NAMES": "false"})


def test_install_after_the_gateway_was_imported_rebinds_what_it_had_bound(run: Run) -> None:
    code = """
    from mcpgateway.services import gateway_service, mcp_session_pool as stock, resource_service, tool_service
    belongs(stock)
    stock.METHOD_NOT_FOUND = tool_service.of_its_own = 7  # one object, which says nothing of numbers
    before = {name: dict(vars(sys.modules[name])) for name in EARLY}
    assert shown() == 0

    from mcpgateway_pool.gateway import install, is_installed, uninstall
    assert not is_installed()

    pool = stock.init_mcp_session_pool(enable_notifications=False)
    try:
        install()
    except RuntimeError as error:
        assert "is running" in str(error), error
    else:
        raise AssertionError("installed beside a running pool")
    belongs(stock)
    stock._mcp_session_pool = None

    assert install() and install() and is_installed()
    stand_in = sys.modules[STAND_IN]
    belongs(stand_in)
    assert stand_in.METHOD_NOT_FOUND != tool_service.of_its_own == 7
    assert len(said.lines) == 1, said.lines
    assert shown() == 1

    stand_in.init_mcp_session_pool(enable_notifications=False)
    try:
        uninstall()
    except RuntimeError as error:
        assert "is running" in str(error), error
    else:
        raise AssertionError("uninstalled under a running pool")
    belongs(stand_in)
    stand_in._mcp_session_pool = None

    uninstall()
    belongs(stock)
    assert shown() == 0
    # Nothing else of these modules was touched on the way there and back.
    for name in EARLY:
        after = vars(sys.modules[name])
        assert {key for key, value in before[name].items() if after[key] is not value} == set(), name

    # Again, as the first time: what the way back had to forget is forgotten.
    for lines in (2, 3):
        assert install() and install() and is_installed()
        belongs(stand_in)
        assert shown() == 1
        assert len(said.lines) == lines and said.lines[-1] == said.lines[0], said.lines
        uninstall()
        assert not is_installed()
        belongs(stock)
        assert shown() == 0
    """
    run(CHECKS + dedent(code))


def test_install_before_the_gateway_is_imported_needs_no_variable(run: Run) -> None:
    code = """
    from mcpgateway_pool.gateway import install, is_installed, uninstall
    assert install() and install() and is_installed()
    assert POOL not in sys.modules and said.lines == []
    uninstall()
    assert not is_installed()
    assert install()
    assert importlib.import_module(POOL) is sys.modules[STAND_IN]
    print(json.dumps(said.lines))
    """
    [line] = json.loads(run(CHECKS + dedent(code)).stdout.splitlines()[-1])
    assert "is on" in line
