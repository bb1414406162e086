"""Formulas as MathML, made when the pages are built. The one rule: a page needs no script and no network to show them.

Browsers typeset MathML themselves; what cannot be converted is a warning, and so an error of the build.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)


# functions that the converter knows only as operators
NAMED = re.compile(r"\\(arg)\b")


def markup(node: nodes.Element, display: str) -> str:
    formula = NAMED.sub(r"\\operatorname{\1}", node.astext())
    try:
        made = convert(formula, display=display)
    except Exception as e:  # whatever the converter stumbles over, the page and the formula are what helps
        logger.warning("formula %r: %s", formula, e, location=node)
        raise nodes.SkipNode from None
    if "\\" in made:  # a command it does not know stands there as text
        logger.warning("formula %r: a command is left in %s", formula, made, location=node)
    return made


def inline(translator: Any, node: nodes.Element) -> None:
    translator.body.append(markup(node, "inline"))
    raise nodes.SkipNode


def block(translator: Any, node: nodes.Element) -> None:
    translator.body.append(translator.starttag(node, "div", CLASS="math"))
    translator.body.append(markup(node, "block"))
    translator.body.append("</div>")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
