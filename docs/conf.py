# SPDX-License-Identifier: Apache-2.0
"""Configuration of Sphinx; see `make docs`."""

from importlib.metadata import version as version_of

project = "ssm"
author = "the ssm authors"
copyright = "the ssm authors, Apache-2.0"
version = release = version_of("ssm-pool")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
exclude_patterns = ["package.md"]  # the description of the package, for its index
myst_heading_anchors = 3

html_theme = "furo"
html_title = "ssm"
html_favicon = "images/icon.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say what is what; the stubs are for type checkers
napoleon_google_docstring = False
napoleon_use_rtype = False
add_module_names = False

# `bytes` and the like are attributes of several classes; which one a docstring's type line means does not matter.
suppress_warnings = ["ref.python"]
# Types named in docstrings are for people: no other project's inventory is fetched for them.
nitpick_ignore_regex = [("py:.*", ".*")]
