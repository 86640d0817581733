"""The installed package as such, seen from fresh interpreters that know nothing of this checkout."""

import json
import subprocess
import sys

import pytest

# Optional, each imported where it is used and not before: an import of the package must stay quick, and
# must work where none of them is installed.
OPTIONAL_PACKAGES = ["mcp", "mcpgateway", "redis", "httpx", "httpx2", "anyio"]


@pytest.fixture
def run_isolated(tmp_path):
    """Runs code in a new interpreter (-I: no PYTHONPATH, no current folder); returns what it printed."""

    def run(code):
        completed = subprocess.run(
            [sys.executable, "-I", "-W", "error", "-c", code],
            check=False,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=110,
        )
        assert completed.returncode == 0, completed.stderr
        return completed.stdout

    return run


def test_importing_the_package_imports_no_optional_package(run_isolated):
    imported = run_isolated("import json, sys, mcpgateway_pool; print(json.dumps(sorted(sys.modules)))")
    assert not {name.partition(".")[0] for name in json.loads(imported)}.intersection(OPTIONAL_PACKAGES)


def test_package_imports_where_no_optional_package_is_installed(run_isolated):
    block = f"import sys; sys.modules.update(dict.fromkeys({OPTIONAL_PACKAGES!r}))"
    run_isolated(f"{block}\nfrom mcpgateway_pool import *")


def test_package_says_that_it_is_typed(run_isolated):
    code = """
import importlib.resources
files = importlib.resources.files("mcpgateway_pool")
print(files.joinpath("py.typed").is_file(), files.joinpath("_core.pyi").is_file())
"""
    assert run_isolated(code).split() == ["True", "True"]


def test_version_is_that_of_the_installed_metadata(run_isolated):
    code = """
import importlib.metadata, mcpgateway_pool
print(mcpgateway_pool.__version__, importlib.metadata.version("mcpgateway-pool"))
"""
    version, of_metadata = run_isolated(code).split()
    assert version == of_metadata


def test_no_c_source_is_installed(run_isolated):
    code = """
import importlib.metadata
print(*importlib.metadata.files("mcpgateway-pool"), sep="\\n")
"""
    installed = run_isolated(code).splitlines()
    assert any(name.startswith("mcpgateway_pool/_core.") and name.endswith(".so") for name in installed)
    assert not [name for name in installed if name.endswith((".c", ".h"))]
