"""Scales of inputs. The one rule: an error is compared with that of running the layer."""

import copy

import numpy as np
import pytest
from tersor import quant

torch = pytest.importorskip("torch")


def layer(n=48, k=64, rows=300, seed=0, dtype=np.float64):
    """A few inputs are far larger than the others."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, k)) * np.where(rng.uniform(size=k) < 0.05, 40, 1)
    return rng.standard_normal((n, k)).astype(dtype), x.astype(dtype)


def rounded(w, s, **options):
    step, zero = quant.choose_qparams(w * s, "int4", **options)
    return quant.dequantize(quant.quantize(w * s, step, zero, "int4"), step, zero) / s


@pytest.mark.parametrize("grain", [{}, {"group": 16}], ids=str)
@pytest.mark.parametrize("kind", ["float64", "float32", "float16", "torch", "bfloat16"])
def test_the_error_is_that_of_the_layer_and_less_than_by_rounding(kind, grain):
    w, x = layer()
    h, a = quant.hessian(x), np.abs(x).mean(0)
    given = torch.from_numpy(w) if kind == "torch" else w if kind == "bfloat16" else w.astype(kind)
    if kind == "bfloat16":
        given = torch.from_numpy(w).bfloat16()
    torched = isinstance(given, torch.Tensor)
    made = quant.awq_search(given, *(map(torch.from_numpy, (h, a)) if torched else (h, a)), dtype="int4", **grain)
    plain = np.asarray(given.double() if torched else given.astype(float))
    s = np.asarray(made.scales, float)
    axis = grain or {"axis": 0}
    rough = kind in ("float32", "float16", "bfloat16")
    run = np.square((rounded(plain, s, **axis) - plain) @ x.T).sum()
    assert made.error == pytest.approx(run, rel=2e-2 if rough else 1e-9)
    assert made.error < 0.7 * np.square((rounded(plain, 1.0, **axis) - plain) @ x.T).sum()
    tried = []
    for exponent in np.arange(21) / 20:
        one = a**exponent / np.sqrt((a**exponent).max() * (a**exponent).min())
        tried.append(np.square((rounded(plain, one, **axis) - plain) @ x.T).sum())
    assert made.error == pytest.approx(min(tried), rel=2e-2 if rough else 1e-9)


def test_where_nothing_is_better_or_known():
    w, x = layer(seed=1)
    h = quant.hessian(x)
    zeros = quant.awq_search(w, 0 * h, np.zeros(64))
    assert zeros.error == 0 and (zeros.scales == 1).all()
    some = np.abs(x).mean(0)
    some[3] = 0
    assert np.isfinite(quant.awq_search(w, h, some).scales).all()
    for shape in [(0, 8), (3, 0)]:
        made = quant.awq_search(np.ones(shape), np.eye(shape[1]), np.ones(shape[1]))
        assert made.scales.shape == shape[1:] and made.error == 0


@pytest.mark.parametrize("kind", ["float64", "float32", "torch"])
def test_smooth_scales_make_both_reach_as_far(kind):
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0.1, 100, 32), rng.uniform(0.01, 2, 32)
    a[3] = b[5] = 0
    of = torch.from_numpy if kind == "torch" else (lambda v: v.astype(kind))
    s = np.asarray(quant.smooth_scales(of(a), of(b)), float)
    assert s[3] == s[5] == 1
    np.testing.assert_allclose((a / s)[6:], (b * s)[6:], rtol=1e-5)
    np.testing.assert_allclose(np.asarray(quant.smooth_scales(of(a), of(b), 1.0))[6:], a[6:], rtol=1e-5)
    np.testing.assert_allclose(np.asarray(quant.smooth_scales(of(a), of(b), alpha=0.0))[6:], 1 / b[6:], rtol=1e-5)


def test_who_is_refused():
    w, x = layer(8, 16)
    h, a = quant.hessian(x), np.abs(x).mean(0)
    for error, said, call in [
        (ValueError, "awq_search: w must be a matrix", lambda: quant.awq_search(w[0], h, a)),
        (ValueError, "awq_search: w holds non-finite", lambda: quant.awq_search(w * np.nan, h, a)),
        (ValueError, "awq_search: h holds non-finite", lambda: quant.awq_search(w, h * np.inf, a)),
        (ValueError, "awq_search: h must have shape", lambda: quant.awq_search(w, h[:3], a)),
        (ValueError, "awq_search: act_mean must have shape", lambda: quant.awq_search(w, h, a[:3])),
        (ValueError, "awq_search: act_mean must be finite and not", lambda: quant.awq_search(w, h, -a)),
        (ValueError, "awq_search: groups of 5", lambda: quant.awq_search(w, h, a, group=5)),
        (TypeError, "awq_search: h must be", lambda: quant.awq_search(w, h.astype(np.float16), a)),
        (TypeError, "awq_search: w must be", lambda: quant.awq_search(w.astype(int), h, a)),
        (ValueError, "smooth_scales: alpha must be", lambda: quant.smooth_scales(a, a, 1.5)),
        (ValueError, "smooth_scales: w_amax must have", lambda: quant.smooth_scales(a, a[:3])),
        (ValueError, "smooth_scales: act_amax must be finite", lambda: quant.smooth_scales(-a, a)),
        (TypeError, "smooth_scales: w_amax is float32", lambda: quant.smooth_scales(a, a.astype(np.float32))),
    ]:
        with pytest.raises(error, match=said):
            call()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["gemma", "phi", "qwen2-moe", "mixtral"])
def test_sixteen_bits_fold_what_float32_does(name, dtype):
    """A wrong fold of a block whose results are mostly what it was given is no larger than what 16 bits round."""
    pytest.importorskip("transformers")
    from architectures import build

    torch.manual_seed(0)
    model = build(name).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 1:
                p += 0.2 * torch.randn_like(p)
                p[::7] *= 5
            else:
                p.normal_(0, 0.1)
    model = model.to(dtype)
    wide = copy.deepcopy(model).float()
    batch = {"input_ids": torch.randint(3, 90, (8, 16))}
    made, want = (quant.calibrate(m, [batch], "int8-row-awq") for m in (model, wide))
    assert want.folded and made.folded.items() <= want.folded.items()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("one", [0.0, 1.0])
def test_scales_are_folded_with_one_rounding_and_as_they_were_taken(dtype, one):
    """Of 1 + w with w near -1, 16 bits keep few digits: layers are multiplied with what the norm is then divided by."""
    from tersor.quant._fold import _divide

    torch.manual_seed(0)
    norm, s = torch.nn.Module(), torch.exp(torch.linspace(-3, 3, 256, dtype=torch.float64))
    w = (0.2 * torch.randn(256)).to(dtype)
    w[7] = -one  # what gives nothing
    norm.weight = torch.nn.Parameter(w.clone())
    with torch.no_grad():
        taken = _divide(norm, s, one)
    assert torch.equal(norm.weight, ((w.double() + one) / s - one).to(dtype))
    assert taken.dtype == torch.float64 and taken[7] == s[7]
    before, after = w.double() + one, norm.weight.double() + one
    torch.testing.assert_close(after * taken, before, rtol=1e-15, atol=0)
    linear = torch.nn.Linear(256, 4).to(dtype)
    linear.bias.data.normal_()
    rows, bias = linear.weight.double().clone(), linear.bias.double().clone()
    with torch.no_grad():
        assert torch.equal(_divide(linear, s[:4], 0.0), s[:4])
    assert torch.equal(linear.weight, (rows / s[:4, None]).to(dtype))
    assert torch.equal(linear.bias, (bias / s[:4]).to(dtype))
