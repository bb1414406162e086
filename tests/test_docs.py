"""The Python on these pages runs as it stands there; pages and tables show what they are to show and no more."""

import doctest
import importlib
import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tersor._public import families
from test_geoopt import GEOOPT

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        *(
            f"docs/{page}.md"
            for page in (
                "quickstart",
                "metrics",
                "graphs",
                "optim",
                "geoopt",
                "embeddings",
                "pruning",
                "norms",
                "foreach",
                "sparse",
                "projections",
            )
        ),
    ],
)
def test_examples_run(page):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    assert blocks
    exec(compile("\n".join(blocks), page, "exec"), {"__name__": page})


@pytest.mark.parametrize("family", ["foreach", "norm", "reduce", "metrics", "nn"])
def test_examples_of_docstrings_run(family):
    """By the public names, as who copies one has it: with its own imports."""
    module = importlib.import_module(f"tersor.{family}")
    found = [t for name in module.__all__ for t in doctest.DocTestFinder().find(getattr(module, name), name)]
    tried = [t for t in found if t.examples]
    assert tried
    for t in tried:
        t.globs = {n: getattr(module, n) for n in module.__all__}
        assert not doctest.DocTestRunner().run(t).failed, t.name
    if family != "nn":
        functions = {n for n in module.__all__ if inspect.isfunction(getattr(module, n))} - {
            "kmeans_1d"
        }  # which is quant's
        assert {t.name for t in tried} >= functions


@pytest.mark.parametrize("family", [*families(), "nn", "optim"])
def test_what_docstrings_repeat_is_filled_in(family):
    """No name in braces is left in what a user reads, and a family's table holds nothing that is said once."""
    module = importlib.import_module(f"tersor.{family}")
    docs = {k: getattr(module, k).__doc__ or "" for k in module.__all__}
    assert [k for k, doc in docs.items() if re.search(r"^ *\{\w+\}$", doc, re.MULTILINE)] == []
    text = "".join(p.read_text() for p in (ROOT / "python/tersor" / family).glob("*.py"))
    used = re.findall(r"^ +\{(\w+)\}$", text, re.MULTILINE)
    assert [k for k in getattr(module, "_SAID", {}) if used.count(k) < 2] == []


@pytest.mark.parametrize("module", ["hyperbolic", "nn", "optim"])
def test_names_of_the_mapping_exist(module):
    named = set(re.findall(rf"`{module}\.(\w+)`", (ROOT / "docs/geoopt.md").read_text()))
    assert named
    here = importlib.import_module(f"tersor.{module}")
    assert [name for name in sorted(named) if not hasattr(here, name)] == []


def test_every_function_of_geoopt_is_mapped():
    text = (ROOT / "docs/geoopt.md").read_text()
    assert [name for name in GEOOPT if f"`hyperbolic.{name}`" not in text] == []


def test_tables_are_made_in_silence():
    """Each warning of torch comes once a process: a fresh one sees all there are."""
    code = "from tersor.bench import sparse; case = sparse.spmm_1024_50(); case.calls['torch csr']()"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr


PAGE = """# Page

Inline $c \\ge 0$, and

$$\\operatorname{word}(a, b) = \\sqrt{\\frac{1}{k}}\\,x_j$$

```{eval-rst}
.. autofunction:: tersor.project.fwht
.. autofunction:: tersor.hyperbolic.frechet_mean
```
"""


def test_formulas_need_no_network(tmp_path):
    """A page of formulas, of a docstring's among them, is built by the documentation's own settings, and holds MathML only."""
    for name in ("sphinx", "furo", "myst_parser", "numpydoc", "latex2mathml"):
        pytest.importorskip(name)
    source, built = tmp_path / "docs", tmp_path / "html"
    source.mkdir()
    (source / "index.md").write_text(PAGE)
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-c", str(ROOT / "docs"), str(source), str(built)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    html = (built / "index.html").read_text()
    formulas = re.findall(r"<math.*?</math>", html, re.DOTALL)
    assert len(formulas) > 8 and not any("\\" in f for f in formulas)
    assert "<msqrt><mfrac><mn>1</mn><mi>k</mi></mfrac></msqrt>" in html.replace("<mrow>", "").replace("</mrow>", "")
    assert re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=.(?:https?:)?//", html) == []


def test_a_formula_that_cannot_be_shown_is_an_error():
    pytest.importorskip("latex2mathml")
    nodes = pytest.importorskip("docutils.nodes")
    spec = importlib.util.spec_from_file_location("mathml", ROOT / "docs/_ext/mathml.py")
    mathml = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mathml)
    said = []
    mathml.logger.warning = lambda text, *args, **kwargs: said.append(text % args)
    assert "arg" in mathml.markup(nodes.math("", r"\arg\min_x"), "inline") and not said
    mathml.markup(nodes.math("", r"\nosuchcommand x"), "inline")
    assert len(said) == 1 and "nosuchcommand" in said[0]


def test_the_map_of_the_house_shows_every_file():
    """Each module of the package, or its folder, stands in the README's map, and what stands there exists."""
    map_ = (ROOT / "README.md").read_text().partition("## The map of the house")[2]
    package = ROOT / "python/tersor"
    cells = [row.split("|")[1] for row in map_.splitlines() if row.startswith("| `python/tersor")]
    named = {name.removeprefix("python/tersor/") for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    found = {p.name for name in named for p in package.glob(name)}
    assert {name for name in named if not list(package.glob(name))} == set()
    assert {p.name for p in package.glob("*.py")} - found <= {"__init__.py"}
