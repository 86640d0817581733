"""Fixtures that every test may use. Helpers are imported from tests/ (`pythonpath` in pyproject.toml)."""
