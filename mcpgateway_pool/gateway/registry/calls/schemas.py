"""A tool's output schema, which the SDK remembers with its session, and which the server may change
meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_VALIDATORS = ("validate_tool_result", "_validate_tool_result")  # of SDK 2.x and 1.x


def forgive_old_schemas(session: Any) -> None:
    """Have a tool's result judged by the schema that the server has now: a fresh session would have asked for
    it after the call. One that does not conform to the remembered schema is judged once more, by a fresh one.

    Args:
        session: the SDK's; anything else is left as it is.
    """
    if not isinstance(getattr(session, "_tool_output_schemas", None), dict):
        return
    for name in _VALIDATORS:
        validate = getattr(session, name, None)
        if validate is not None:
            setattr(session, name, _forgiving(session, validate))
            return


def _forgiving(session: Any, validate: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    async def validating(name: str, result: Any) -> None:
        is_remembered = name in session._tool_output_schemas
        try:
            await validate(name, result)
        except RuntimeError:
            if not is_remembered:
                raise
            session._tool_output_schemas.pop(name, None)
            await validate(name, result)

    return validating
