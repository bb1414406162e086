"""The documentation: pages in MyST, references from docstrings, a page of its own for every family of operators. The one rule:
a warning is an error."""

import importlib.metadata
import sys
from pathlib import Path

from tersor._public import families

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

for family in families():
    page = HERE / f"api/{family}.md"
    text = f"# tersor.{family}\n\n```{{eval-rst}}\n.. automodule:: tersor.{family}\n   :members:\n```\n"
    if not page.exists() or page.read_text() != text:  # one that stays is not built anew
        page.parent.mkdir(exist_ok=True)
        page.write_text(text)

project = "tersor"
author = copyright = "the tersor authors"
release = importlib.metadata.version("tersor")

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "mathml",
]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
nitpicky = False
exclude_patterns = ["_build"]

html_math_renderer = "mathml"
html_theme = "furo"
html_title = "tersor"
