"""Names and positional order of geoopt's stereographic mathematics. The one rule: the table is recorded."""

import inspect

import pytest
import torch
from tersor import hyperbolic

#: geoopt.manifolds.stereographic.math 0.5.1: positional parameters (``*`` for variable ones), then the keywords beside k
GEOOPT = {
    "antipode": ("x", "dim"),
    "dist": ("x y", "keepdim dim"),
    "dist0": ("x", "keepdim dim"),
    "dist2plane": ("x p a", "keepdim signed scaled dim"),
    "egrad2rgrad": ("x grad", "dim"),
    "expmap": ("x u", "dim"),
    "expmap0": ("u", "dim"),
    "geodesic": ("t x y", "dim"),
    "geodesic_unit": ("t x u", "dim"),
    "gyration": ("a b u", "dim"),
    "inner": ("x u v", "keepdim dim"),
    "inv_sproj": ("x", "dim"),
    "lambda_x": ("x", "keepdim dim"),
    "logmap": ("x y", "dim"),
    "logmap0": ("y", "dim"),
    "mobius_add": ("x y", "dim"),
    "mobius_coadd": ("x y", "dim"),
    "mobius_cosub": ("x y", "dim"),
    "mobius_fn_apply": ("fn x *args", "dim"),
    "mobius_fn_apply_chain": ("x *fns", "dim"),
    "mobius_matvec": ("m x", "dim"),
    "mobius_pointwise_mul": ("w x", "dim"),
    "mobius_scalar_mul": ("r x", "dim"),
    "mobius_sub": ("x y", "dim"),
    "mobiusify": ("fn", ""),
    "norm": ("x u", "keepdim dim"),
    "parallel_transport": ("x y v", "dim"),
    "parallel_transport0": ("y v", "dim"),
    "parallel_transport0back": ("x v", "dim"),
    "project": ("x", "dim eps"),
    "sproj": ("x", "dim"),
    "weighted_midpoint": ("xs weights", "reducedim dim keepdim lincomb posweight"),
}


@pytest.mark.parametrize("name", GEOOPT)
def test_signature(name):
    """As many arrays in the same order, then the curvature; the same keywords."""
    positional, keywords = (s.split() for s in GEOOPT[name])
    parameters = inspect.signature(getattr(hyperbolic, name)).parameters
    plain = [k for k, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    variable = [f"*{k}" for k, p in parameters.items() if p.kind is p.VAR_POSITIONAL]
    if name == "mobiusify":
        assert plain == positional
        return
    ours = [*plain[: plain.index("c")], *variable] if "c" in plain else [*plain, *variable]
    assert len(ours) == len(positional)
    assert [k for k in ours if k.startswith("*")] == [k for k in positional if k.startswith("*")]
    assert "c" in parameters
    assert set(keywords) <= set(parameters)


def test_called_as_geoopt_is_called():
    """Scalars as 0-d tensors, a curvature per row that requires a gradient, leading axes that broadcast."""
    x = (torch.rand(6, 4, dtype=torch.float64) - 0.5).requires_grad_()
    c = torch.rand(6, 1, dtype=torch.float64).requires_grad_()
    t = torch.linspace(0, 1, 3, dtype=torch.float64)[:, None, None]
    half = torch.tensor(0.5, dtype=torch.float64)
    y = hyperbolic.geodesic(t, x, -x, c=c, dim=-1)
    assert y.shape == (3, 6, 4)
    z = hyperbolic.mobius_scalar_mul(half, hyperbolic.project(y, c=c, eps=-1), c=c)
    d = hyperbolic.dist(z, x, c=c, keepdim=True, dim=-1)
    assert d.shape == (3, 6, 1)
    d.sum().backward()
    assert x.grad.shape == x.shape and c.grad.shape == c.shape
    assert torch.isfinite(x.grad).all() and torch.isfinite(c.grad).all()
