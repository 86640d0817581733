"""Calls without a downstream session, which is all calls of a gateway in its default configuration.

The release opens a session for each of them. Here they share sessions: those of one user, to one gateway,
with the same credentials. :mod:`.entrances` has the table of what is replaced in the release for it.
"""

from .calls import Calls

__all__ = ["Calls"]
