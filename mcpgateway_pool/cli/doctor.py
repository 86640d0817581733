"""``mcpgateway-pool doctor``: what can go wrong between installing the package and seeing its series."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from mcpgateway_pool import _core
from mcpgateway_pool.redact import safe_text

from .common import OK, PROBLEM, say
from .directory import check_directory, chosen_directory
from .endpoint import check_endpoint
from .fetch import Source
from .findings import Finding, fine, hint, problem, warning

SWITCH = "MCPGATEWAY_POOL_ENABLED"
ENDPOINT = "ENABLE_METRICS"


def run(source: Source | None, *, metrics_dir: str | None, as_json: bool) -> int:
    """The command: print each finding, and what to do about it.

    Args:
        source: the metrics endpoint, or None.
        metrics_dir: instead of the directory that the environment names.
        as_json: as one JSON object.
    """
    findings = [
        *_check_package(),
        *_check_gateway(),
        *_check_settings(),
        *_check_switch(),
        *check_directory(*chosen_directory(metrics_dir)),
        *check_endpoint(source),
    ]
    problems = sum(finding.level == "problem" for finding in findings)
    warnings = sum(finding.level == "warning" for finding in findings)
    if as_json:
        say(
            json.dumps(
                {"problems": problems, "findings": [asdict(finding) for finding in findings]}, indent=1
            )
        )
    else:
        for finding in findings:
            say(finding.as_text())
        say(f"\n{_counted(problems, 'problem')}, {_counted(warnings, 'warning')}")
    return PROBLEM if problems else OK


def _counted(count: int, what: str) -> str:
    return f"{count or 'no'} {what}{'' if count == 1 else 's'}"


# ---- the package


def _check_package() -> Iterator[Finding]:
    # The C core has loaded, or this command would not run.
    version = importlib.metadata.version("mcpgateway-pool")
    python = platform.python_version()
    yield fine("package", f"mcpgateway-pool {version}, Python {python}, {sys.prefix}")
    yield fine("C core", f"{Path(_core.__file__).name}, {len(_core.SERIES)} series by gateway")
    client = importlib.metadata.version("prometheus_client")
    yield fine("exporter", f"prometheus_client {client}")
    sdk = _version("mcp")
    if sdk is None:
        yield warning("MCP SDK", "not installed", "pip install 'mcpgateway-pool[mcp]', to open real sessions")
    else:
        yield fine("MCP SDK", f"mcp {sdk}")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


# ---- the gateway


def _check_gateway() -> Iterator[Finding]:
    if importlib.util.find_spec("mcpgateway") is None:
        yield hint("gateway", "ContextForge is not in this environment; nothing to switch on")
        return
    from mcpgateway_pool.gateway import releases

    try:
        release = releases.installed_release()
    except Exception as error:  # a broken gateway is a finding, whatever it raises
        yield problem(
            "gateway",
            f"ContextForge does not import: {safe_text(str(error))}",
            "start the gateway without this package first",
        )
        return
    if release.family is None:
        yield problem(
            "gateway",
            f"ContextForge {safe_text(release.version, 40)} is not supported",
            f"supported: {releases.describe_supported()}; the gateway keeps its own pool",
        )
        return
    yield fine("gateway", f"ContextForge {release.version}; replaced: {release.family.replaced}")
    if release.family.what == "registry":
        yield from _check_calls()
        yield from check_shown()


def _check_calls() -> Iterator[Finding]:
    """Whether calls without a downstream session are pooled."""
    from mcpgateway_pool.gateway import settings

    try:
        switch = settings.read("calls_without_session")
    except settings.SettingError:
        return  # which the finding about settings says
    if switch.are_pooled:
        yield fine("calls", switch.described())
    else:
        yield hint("calls", f"{switch.described()}: each opens a session of its own")


def check_shown(env_file: Path = Path(".env")) -> Iterator[Finding]:
    """Whether the gateway shows its series, which from 1.0.0 on it does only where it is told to."""
    value = os.environ.get(ENDPOINT)
    if value is None and _named_in(env_file, ENDPOINT):
        return  # the gateway reads it there in time
    # As the gateway reads it.
    if (value or "").strip().lower() not in {"true", "1", "yes", "on", "t", "y"}:
        yield warning(
            "endpoint",
            f"{ENDPOINT} is not true in this environment: the gateway answers scrapes with 503",
            f"export {ENDPOINT}=true where the gateway starts",
        )


def _check_settings() -> Iterator[Finding]:
    """Every variable of ours with a value that it cannot have, or with a name that means nothing."""
    from mcpgateway_pool.gateway import settings

    for name, nearest in settings.unknown_variables():
        advice = f"did you mean {nearest}?" if nearest else "docs/gateway.md has those that there are"
        yield warning("settings", f"{name} is set, which means nothing here", advice)
    try:
        settings.read_all()
    except settings.SettingError as error:
        for text in error.problems:
            yield problem("settings", text, "the gateway will not start with it, or not as you mean")


def _check_switch() -> Iterator[Finding]:
    if importlib.util.find_spec("mcpgateway") is None:
        return
    from mcpgateway_pool.gateway import settings

    try:
        enabled = settings.read("enabled")
    except settings.SettingError:
        return  # which the finding about settings says
    if enabled:
        yield fine("switch", f"{SWITCH} is set to true in this environment")
        yield from _check_hook()
    elif SWITCH in os.environ:
        yield warning("switch", f"{SWITCH} is set to false", f"export {SWITCH}=true")
    elif _named_in(Path(".env"), SWITCH):
        yield problem(
            "switch",
            f"{SWITCH} stands in .env only, which the gateway reads too late",
            f"export {SWITCH}=true in the environment of the gateway's process",
        )
    else:
        yield warning(
            "switch",
            f"{SWITCH} is not set in this environment",
            f"export {SWITCH}=true where the gateway starts, not in .env (asgi:app and install() need none)",
        )


def _check_hook() -> Iterator[Finding]:
    """The variable works through a .pth file, which some ways of installing leave out."""
    files = importlib.metadata.files("mcpgateway-pool") or []
    if not any(str(file).endswith(".pth") for file in files) and not list(
        Path(_core.__file__).parents[1].glob("*mcpgateway_pool*.pth")
    ):
        yield problem(
            "switch",
            "this installation has no .pth file, so the variable does nothing",
            "install the wheel (not --target, not editable), or start mcpgateway_pool.gateway.asgi:app",
        )


def _named_in(path: Path, variable: str) -> bool:
    """Whether an environment file sets a variable."""
    try:
        lines = path.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return False
    names = (line.strip().removeprefix("export ").partition("=")[0].strip() for line in lines)
    return variable in names
