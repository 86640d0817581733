"""The release's table of gateways."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

_DATABASE = "mcpgateway.db"


def read_rows(columns: Iterable[str], condition: Callable[[Any], Any]) -> list[tuple[Any, ...]]:
    """Rows of (id, columns); columns that the release does not have are left out.

    Args:
        columns: their names.
        condition: makes of the release's model what the rows must fulfil.
    """
    database = importlib.import_module(_DATABASE)
    sqlalchemy = importlib.import_module("sqlalchemy")
    model = database.Gateway
    chosen = [getattr(model, name) for name in columns if hasattr(model, name)]
    with database.SessionLocal() as session:
        return [
            tuple(row)
            for row in session.execute(sqlalchemy.select(model.id, *chosen).where(condition(model)))
        ]


def read_gateway_names(identifiers: Sequence[str]) -> dict[str, str]:
    """The names of these gateways, by id; those that the database does not have are missing."""
    if _DATABASE not in sys.modules:  # the gateway has not started; it is not imported here
        return {}
    rows = read_rows(("name",), lambda model: model.id.in_(identifiers))
    return {str(identifier): str(name) for identifier, *names in rows for name in names if name}
