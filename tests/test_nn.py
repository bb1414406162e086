"""Layers against torch's own with the weights they stand for."""

import copy
import io

import pytest

torch = pytest.importorskip("torch")

from tersor import prune, quant  # noqa: E402
from tersor.nn import QuantLinear, SparseLinear  # noqa: E402


@pytest.fixture
def linear() -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(256, 96)


@pytest.mark.parametrize("scheme", ["int8-row", "int4-g128"])
@pytest.mark.parametrize("lead", [(5,), (2, 3), ()])
def test_quantized(linear, scheme, lead):
    layer = QuantLinear.from_float(linear, scheme)
    weight = quant.decode(quant.encode(linear.weight.detach(), scheme))
    x = torch.randn(*lead, 256, requires_grad=True)
    y = layer(x)
    wide, exact = weight.double(), x.detach().double()
    # the layer sums in an order of its own: what that may change is a rounding of each sum
    bound = 4 * 2.0**-23 * 256**0.5 * (exact.abs() @ wide.abs().T + linear.bias.abs())
    assert ((y.double() - torch.nn.functional.linear(exact, wide, linear.bias.double())).abs() <= bound).all()
    (dx,) = torch.autograd.grad(y.square().sum(), x)
    assert torch.allclose(dx, 2 * y @ weight, atol=1e-4)
    assert scheme in repr(layer)


def test_quantized_again_is_the_same(linear):
    layer = QuantLinear.from_float(linear, "int8-row")
    linear.weight.data = layer.weight
    assert torch.equal(QuantLinear.from_float(linear, "int8-row").data, layer.data)


@pytest.mark.parametrize("lead", [(5,), (2, 3), ()])
def test_sparse(linear, lead):
    (mask,) = prune.global_masks([linear.weight.detach()], 0.9)
    layer = SparseLinear.from_dense(linear, mask)
    x = torch.randn(*lead, 256, requires_grad=True)
    y = layer(x)
    expected = torch.nn.functional.linear(x, linear.weight * mask, linear.bias)
    assert torch.allclose(y, expected, atol=1e-5)
    got = torch.autograd.grad(y.square().sum(), [x, layer.data, layer.bias])
    want = torch.autograd.grad(expected.square().sum(), [x, linear.weight, linear.bias])
    assert torch.allclose(got[0], want[0], atol=1e-4)
    assert torch.allclose(got[1], want[1][mask], atol=1e-3)
    assert torch.allclose(got[2], want[2], atol=1e-4)


@pytest.mark.parametrize("make", [lambda m: QuantLinear.from_float(m, "int4-g128"), SparseLinear.from_dense])
def test_saved_and_loaded(linear, make):
    layer = make(linear)
    x = torch.randn(3, 256)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = copy.deepcopy(layer)
    for name, tensor in other.state_dict().items():
        if name not in ("indices", "indptr"):
            tensor.zero_()
    assert not torch.equal(other(x), layer(x))
    other.load_state_dict(torch.load(file))
    assert torch.equal(other(x), layer(x))
