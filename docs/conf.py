"""Settings of the documentation's build: `make docs`."""

from agentforge import __version__

project = "AgentForge"
author = "the AgentForge authors"
release = version = __version__

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nitpicky = True

html_theme = "furo"
html_title = f"AgentForge {release}"
html_show_sphinx = False
html_show_copyright = False
