"""Releases from 1.0.0 on: the registry of upstream sessions."""

from .upstream_registry import UpstreamSessionRegistry

__all__ = ["UpstreamSessionRegistry"]
