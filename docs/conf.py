"""Configuration of the documentation site: ``make docs``. It is built without a network."""

import sys
from pathlib import Path

from core import __version__

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "jwst-dq-init-lambda"
author = "the jwst-dq-init-lambda developers"
version = release = __version__
extensions = [
    "diagrams",
    "generated",
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_ext"]

myst_fence_as_directive = ["mermaid"]  # GitHub draws these blocks, too
myst_heading_anchors = 3
myst_links_external_new_tab = False

smartquotes = False  # -- begins an option
nitpicky = True  # a reference to a name that does not exist is an error
# No inventory of other projects is read: it would need the network.
nitpick_ignore_regex = [("py:.*", r"(?!core\.).*")]
default_role = "autolink"
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc lists them
numpydoc_show_class_members = False
autosummary_generate = False
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "pydata_sphinx_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_sidebars = {name: [] for name in ("index", "tutorial", "laptop", "glossary", "developing")}
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "header_links_before_dropdown": 6,
    "navbar_end": ["theme-switcher"],
    "navbar_persistent": ["search-button"],
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "secondary_sidebar_items": ["page-toc"],
}
copyright = author  # noqa: A001  # Sphinx's name
