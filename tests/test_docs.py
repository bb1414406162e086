"""The Python on these pages runs as it stands there."""

import importlib
import re
from pathlib import Path

import pytest
from test_geoopt import GEOOPT

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md", "docs/optim.md", "docs/geoopt.md"])
def test_examples_run(page):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    assert blocks
    exec(compile("\n".join(blocks), page, "exec"), {"__name__": page})


#: named on the page of other libraries' names before they are here
AWAITED = {
    "hyperbolic": {
        *("poincare_fc", "poincare_fc_tangent", "poincare_mlr", "beta_concat", "beta_split"),
    },
    "nn": {
        *("Curvature", "PoincareLinear", "PoincareMLR", "PoincareConv2d", "PoincareBatchNorm"),
        *("PoincareReLU", "PoincareAvgPool2d"),
    },
    "optim": set(),
}


@pytest.mark.parametrize("module", AWAITED)
def test_names_of_the_mapping_exist(module):
    text = (ROOT / "docs/geoopt.md").read_text()
    named = set(re.findall(rf"`{module}\.(\w+)`", text))
    assert named
    here = importlib.import_module(f"tersor.{module}")
    assert {name for name in named if not hasattr(here, name)} <= AWAITED[module]


def test_every_function_of_geoopt_is_mapped():
    text = (ROOT / "docs/geoopt.md").read_text()
    assert [name for name in GEOOPT if f"`hyperbolic.{name}`" not in text] == []
