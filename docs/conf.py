"""How Sphinx makes the manual of the Markdown pages of this repository; ``make docs`` runs it.

The sources are the pages in docs/ and those at the top: so each link works here and there.
"""

from automx import __version__

project = "automx"
version = release = __version__

extensions = ["myst_parser"]
include_patterns = ["docs/*.md", "docs/*/*.md", "*.md"]
root_doc = "docs/index"
myst_enable_extensions = ["html_image"]  # <img> has a width on Git hosts, too
myst_heading_anchors = 4  # links to headings are those of a Git host

nitpicky = True
html_theme = "furo"
html_title = f"automx {release}"
html_extra_path = ["top"]  # leads from the top of the site to the first page
html_show_copyright = False
html_show_sourcelink = False
html_use_index = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
