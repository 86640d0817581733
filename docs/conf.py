"""How Sphinx builds these pages: ``make docs``.

The source folder is the checkout, so that links between ``docs/`` and the pages beside it are checked, too.
"""

from importlib.metadata import version as _version
from typing import Any

import mcpgateway_pool

# Public names are imported from here, whatever module they are written in; so they are looked up here.
for _name in mcpgateway_pool.__all__:
    _object: Any = getattr(mcpgateway_pool, _name)
    _object.__module__ = mcpgateway_pool.__name__

project = "mcpgateway-pool"
author = "The mcpgateway-pool developers"
version = release = _version("mcpgateway-pool")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
include_patterns = ["*.md", "docs/*.md"]
exclude_patterns = [".*", "build", "tests", "csrc", "mcpgateway_pool"]
root_doc = "docs/index"

nitpicky = True
# Names of other libraries, whose pages are elsewhere, and a protocol that says "a registry".
nitpick_ignore_regex = [
    (r"py:.*", r"(asyncio|collections\.abc|mcp|prometheus_client|ssl)\..*"),
    (r"py:class", r"mcpgateway_pool\.prometheus\.exposition\.Collecting"),
]
myst_heading_anchors = 4  # links to headings, by the names that code hosts give them

html_theme = "furo"
html_title = f"{project} {release}"

autodoc_member_order = "bysource"
maximum_signature_line_length = 100
