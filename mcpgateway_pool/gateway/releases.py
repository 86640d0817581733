"""Which releases of the gateway are supported, and which of their modules is replaced by which of ours."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass

# The stages of a version before its release, in their order; what has none comes after all of them.
_STAGES = {"a": 0, "alpha": 0, "b": 1, "beta": 1, "rc": 2}
_RELEASED = 3
# The gateway writes 1.0.0-RC-1 where PyPI writes 1.0.0rc1.
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:[-_.]?(alpha|beta|rc|a|b)[-_.]?(\d+))?", re.IGNORECASE)

Version = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Family:
    """Releases in which the same thing is replaced in the same way.

    Attributes:
        what: one word for it: ``pool``, or ``registry``, of sessions.
        since, before: the first version, and the first that no longer belongs to it.
        module: what the gateway imports.
        class_name: the class that is replaced in that module; None: the module itself is.
        stand_in: the module of ours that takes its place, or has that class.
        running: the module's variable that holds what runs; None when nothing does.
        exposition: the module whose ``generate_latest`` makes the text of the Prometheus endpoint.
        described: these versions, for a message.
    """

    what: str
    since: Version
    before: Version
    module: str
    class_name: str | None
    stand_in: str
    running: str
    exposition: str
    described: str

    @property
    def replaced(self) -> str:
        """What is replaced, for a message."""
        return self.module if self.class_name is None else f"{self.module}.{self.class_name}"


FAMILIES = (
    Family(
        what="pool",
        since=(1, 0, 0, _STAGES["b"], 2),
        before=(1, 0, 0, _RELEASED, 0),
        module="mcpgateway.services.mcp_session_pool",
        class_name=None,
        stand_in="mcpgateway_pool.gateway.session_pool",
        running="_mcp_session_pool",
        exposition="prometheus_fastapi_instrumentator.instrumentation",
        described="1.0.0b2 to the last release candidate of 1.0.0",
    ),
    Family(
        what="registry",
        since=(1, 0, 0, _RELEASED, 0),
        before=(1, 2, 0, 0, 0),
        module="mcpgateway.services.upstream_session_registry",
        class_name="UpstreamSessionRegistry",
        stand_in="mcpgateway_pool.gateway.registry",
        running="_registry",
        exposition="mcpgateway.services.metrics",
        described="1.0.0 to 1.1.x",
    ),
)


@dataclass(frozen=True, slots=True)
class Release:
    """An installed gateway.

    Attributes:
        version: as the gateway writes it.
        family: None when it is not supported.
    """

    version: str
    family: Family | None


def parse_version(text: str) -> Version | None:
    """A version in a form that can be compared; None for a text that is none."""
    match = _VERSION.match(text)
    if match is None:
        return None
    major, minor, patch, stage, number = match.groups()
    where = _RELEASED if stage is None else _STAGES[stage.lower()]
    return int(major), int(minor), int(patch), where, int(number or 0)


def find_family(version: str) -> Family | None:
    """The family that a version belongs to; None when it is not supported."""
    parsed = parse_version(version)
    if parsed is None:
        return None
    return next((family for family in FAMILIES if family.since <= parsed < family.before), None)


def installed_release() -> Release:
    """The gateway that this environment would run.

    Raises:
        ImportError: there is none.
    """
    try:
        # This imports nothing but the version; what is imported counts, not what pip knows about.
        gateway = importlib.import_module("mcpgateway")
    except ModuleNotFoundError as error:
        if error.name != "mcpgateway":
            raise
        raise ImportError(
            "mcpgateway is not installed: pip install 'mcpgateway-pool[gateway]'", name="mcpgateway"
        ) from error
    version = str(getattr(gateway, "__version__", "unknown"))
    return Release(version, find_family(version))


def describe_supported() -> str:
    """The supported versions, for a message."""
    return ", and ".join(family.described for family in FAMILIES)
