"""Sphinx settings. `make docs` turns every warning into an error."""

from importlib.metadata import version as version_of

project = "Routilux"
author = "Routilux developers"
copyright = author
version = release = version_of("routilux")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"show-inheritance": True, "undoc-members": True}
# `type` in an annotation is the built-in, and not one of the attributes of that name.
suppress_warnings = ["ref.python"]

html_theme = "furo"
html_title = f"Routilux {version}"
