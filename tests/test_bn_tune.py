"""Batch norms after quantization: the statistics that they gave are given again, by the same codes."""

import numpy as np
import pytest
from tersor import quant

torch = pytest.importorskip("torch")
F = torch.nn.functional


def folded(seed=0):
    """A convolution that a batch norm of its own statistics was folded into, its data, γ and β."""
    torch.manual_seed(seed)
    x, w, b = torch.randn(16, 5, 9, 9).double(), torch.randn(7, 5, 3, 3).double(), torch.randn(7).double()
    gamma, beta = torch.rand(7).double() + 0.5, torch.randn(7).double()
    y = F.conv2d(x, w, b)
    r = gamma / y.var((0, 2, 3), correction=0).sqrt()
    return x, w * r[:, None, None, None], (b - y.mean((0, 2, 3))) * r + beta, gamma, beta


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_mean_and_deviation_are_those_of_the_norm(library):
    x, w, b, gamma, beta = folded()
    scale, _ = quant.choose_qparams(w.flatten(1), "int3", axis=0)
    codes = quant.quantize(w.flatten(1), scale, None, "int3")
    rough = quant.dequantize(codes, scale, dtype="float64").reshape(w.shape)
    now = F.conv2d(x, rough, b)
    of = (lambda a: a.numpy()) if library == "numpy" else (lambda a: a)
    tuned = quant.bn_tune(of(rough), of(now), of(gamma), of(beta), of(b), eps=0.0)
    weight, bias, factor = (torch.as_tensor(a) for a in tuned)
    y = F.conv2d(x, weight, bias)
    torch.testing.assert_close(y.mean((0, 2, 3)), beta, rtol=0, atol=1e-12)
    torch.testing.assert_close(y.var((0, 2, 3), correction=0).sqrt(), gamma, rtol=1e-12, atol=0)
    # scales take the factor, codes stay
    same = quant.dequantize(codes, scale * factor[:, None], dtype="float64").reshape(w.shape)
    torch.testing.assert_close(same, weight, rtol=1e-14, atol=0)
    want = F.conv2d(x, w, b)
    assert (y - want).square().mean() < (now - want).square().mean()


def test_of_what_was_not_quantized_nothing_changes():
    x, w, b, gamma, beta = folded()
    tuned = quant.bn_tune(w, F.conv2d(x, w, b), gamma, beta, b, eps=1e-5)
    torch.testing.assert_close(tuned.factor, torch.ones_like(beta), rtol=1e-12, atol=0)
    torch.testing.assert_close((tuned.weight, tuned.bias), (w, b), rtol=1e-11, atol=1e-11)
    half = quant.bn_tune(w.float(), F.conv2d(x, w, b).float(), gamma, beta)
    assert half.weight.dtype == half.bias.dtype == torch.float32


def test_gradients_are_the_formulas():
    torch.manual_seed(0)
    w, y, b = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((3, 4), (5, 3), (3,)))
    gamma, beta = torch.rand(3).double(), torch.randn(3).double()
    assert torch.autograd.gradcheck(lambda *a: tuple(quant.bn_tune(a[0], a[1], gamma, beta, a[2])), (w, y, b))


def test_who_is_refused():
    x, w, b, gamma, beta = folded()
    y = F.conv2d(x, w, b)
    spoiled = y.clone()
    spoiled[0, 0, 0, 0] = np.nan
    for kind, said, call in [
        (TypeError, "bn_tune: W must be a NumPy array", lambda: quant.bn_tune([1.0], y, gamma, beta)),
        (TypeError, "bn_tune: y must be float", lambda: quant.bn_tune(w, y.long(), gamma, beta)),
        (ValueError, r"W must be \[C, ...\] and y \[B, C, ...\]", lambda: quant.bn_tune(w, b, gamma, beta)),
        (ValueError, "y must have 7 channels", lambda: quant.bn_tune(w, y[:, :3], gamma, beta)),
        (ValueError, r"gamma must have shape \(7,\)", lambda: quant.bn_tune(w, y, gamma[:3], beta)),
        (ValueError, "y holds nothing", lambda: quant.bn_tune(w, y[:0], gamma, beta)),
        (ValueError, "y holds non-finite values", lambda: quant.bn_tune(w, spoiled, gamma, beta)),
        (ValueError, "does not vary, and eps is 0", lambda: quant.bn_tune(w, 0 * y, gamma, beta, eps=0.0)),
        (ValueError, "eps must be finite", lambda: quant.bn_tune(w, y, gamma, beta, eps=-1.0)),
    ]:
        with pytest.raises(kind, match=said):
            call()


def test_a_bias_of_another_library():
    w, y, one = np.ones((2, 3)), np.arange(8.0).reshape(4, 2), np.ones(2)
    with pytest.raises(TypeError, match="bn_tune: bias is a torch tensor, W a NumPy array"):
        quant.bn_tune(w, y, one, one, torch.ones(2))
