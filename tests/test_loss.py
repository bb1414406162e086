"""Losses of pairs against torch's cross entropy in float64, and where that has no digits left."""

import numpy as np
import pytest
import torch
from tersor import loss


def rows(*shape, seed=0, scale=1.0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape) * scale)


def plain(x, y, temperature, metric):
    """The cross entropy of all logits with the targets 0, 1, …"""
    if metric == "cosine":
        x, y = torch.nn.functional.normalize(x, dim=-1), torch.nn.functional.normalize(y, dim=-1)
    logits = x @ y.swapaxes(-1, -2) / temperature
    targets = torch.arange(x.shape[-2]).expand(logits.shape[:-1])
    return torch.nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none")


SHAPES = [
    ((5, 3), (5, 3)),
    ((7, 16), (200, 16)),
    ((130, 33), (140, 33)),
    ((2, 3, 20, 8), (2, 3, 31, 8)),
    ((300, 2), (300, 2)),
]


@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_is_the_cross_entropy(shapes, metric):
    x, y = rows(*shapes[0], seed=1).requires_grad_(), rows(*shapes[1], seed=2).requires_grad_()
    t = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    want = plain(x, y, t, metric)
    got = loss.info_nce(x, y, temperature=t, metric=metric, reduction="none")
    torch.testing.assert_close(got.flatten(), want, rtol=1e-12, atol=1e-13)
    g = rows(*got.shape, seed=3)
    for a, b in zip(
        torch.autograd.grad(got, [x, y, t], g), torch.autograd.grad(want, [x, y, t], g.flatten()), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)
    for kind, limit in ((torch.float32, 1e-6), (torch.float16, 5e-3), (torch.bfloat16, 4e-2)):
        x_, y_ = x.detach().to(kind).requires_grad_(), y.detach().to(kind).requires_grad_()
        narrow = loss.info_nce(x_, y_, temperature=0.4, metric=metric, reduction="none")
        wide = plain(x_.double(), y_.double(), 0.4, metric)
        assert narrow.dtype == torch.float32
        assert (narrow.flatten().double() - wide).abs().max() <= 4e-7 * wide.abs().max()
        for a, b in zip(
            torch.autograd.grad(narrow.sum(), [x_, y_]), torch.autograd.grad(wide.sum(), [x_, y_]), strict=True
        ):
            assert a.dtype == kind and (a - b).abs().max() <= limit * b.abs().max()


def test_reductions_and_both_directions():
    x, y = rows(9, 4).numpy(), rows(9, 4, seed=1).numpy()
    one, other = (loss.info_nce(*pair, reduction="none") for pair in ((x, y), (y, x)))
    assert loss.info_nce(x, y) == one.mean() and loss.info_nce(x, y, reduction="sum") == one.sum()
    np.testing.assert_array_equal(loss.info_nce(x, y, symmetric=True, reduction="none"), (one + other) / 2)


def test_small_losses_keep_their_digits():
    """Two opposite unit vectors at 1/20: the loss is e^-40, far below the rounding of the logits."""
    for kind in (torch.float32, torch.float64):
        x = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=kind, requires_grad=True)
        y = x.detach().clone().requires_grad_()
        got = loss.info_nce(x, y, temperature=0.05, metric="dot", reduction="none")
        assert got.tolist() == pytest.approx([np.exp(-40)] * 2, rel=1e-5)
        # dx = (−q, q) y/τ, q = e^-40
        (dx,) = torch.autograd.grad(got.sum(), x)
        assert dx[0].tolist() == pytest.approx([-40 * np.exp(-40), 0], rel=1e-5)


def test_rows_of_zeros_and_no_negatives():
    x = rows(4, 3).requires_grad_()
    with torch.no_grad():
        x[2] = 0
    got = loss.info_nce(x, x.detach(), reduction="none")
    assert got[2].item() == pytest.approx(np.log(4))
    assert torch.autograd.grad(got.sum(), x)[0][2].tolist() == [0, 0, 0]
    one = rows(1, 3).requires_grad_()
    alone = loss.info_nce(one, one.detach())
    assert alone.item() == 0 and torch.autograd.grad(alone, one)[0].tolist() == [[0, 0, 0]]
    assert loss.info_nce(np.ones((0, 3)), np.ones((4, 3)), reduction="sum") == 0
    assert loss.info_nce(np.ones((2, 0)), np.ones((3, 0)), reduction="none") == pytest.approx([np.log(3)] * 2)


def test_what_is_not_a_number_stays_in_its_row():
    x, y = rows(6, 3).numpy(), rows(6, 3, seed=1).numpy()
    x[1, 0] = np.nan
    got = loss.info_nce(x, y, metric="dot", reduction="none")
    assert np.isnan(got).tolist() == [False, True, False, False, False, False]


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"temperature": 0.0}, ValueError, "temperature"),
        ({"temperature": float("nan")}, ValueError, "temperature"),
        ({"temperature": np.ones(2)}, ValueError, "temperature"),
        ({"metric": "hyperbolic"}, ValueError, "metric"),
        ({"reduction": "max"}, ValueError, "reduction"),
        ({"symmetric": True}, ValueError, "as many rows"),
        ({"y": np.ones((3, 4))}, ValueError, "at most as many rows"),
        ({"y": np.ones((6, 5))}, ValueError, "info_nce"),
        ({"y": np.ones((6, 4), np.float32)}, TypeError, "info_nce"),
        ({"x": np.ones((4, 4), int)}, TypeError, "info_nce"),
        ({"x": np.ones(4)}, ValueError, "info_nce"),
    ],
)
def test_what_is_refused(change, error, text):
    given = {"x": np.ones((5, 4)), "y": np.ones((6, 4))} | change
    with pytest.raises(error, match=text):
        loss.info_nce(given.pop("x"), given.pop("y"), **given)


@pytest.mark.parametrize("temperature", [-1.0, 0.0, float("nan"), float("inf")])
def test_a_temperature_is_positive_on_every_device(temperature):
    for device in ("cpu", "meta"):
        x = torch.ones(3, 4, device=device)
        with pytest.raises(ValueError, match="info_nce: temperature must be finite and positive"):
            loss.info_nce(x, x, temperature=temperature)


def test_second_derivatives_stay_where_the_data_is():
    x, y = (torch.ones(3, 4, device="meta", requires_grad=True) for _ in range(2))
    d = torch.autograd.grad(loss.info_nce(x, y), (x, y), create_graph=True)
    assert [g.device.type for g in torch.autograd.grad(sum(g.sum() for g in d), (x, y))] == ["meta"] * 2


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan, np.inf])
def test_a_temperature_is_looked_at(temperature):
    """Also in what runs on a GPU, where it lies on the CPU; one on a GPU gives NaN instead."""
    from tersor.triton import loss as composed

    x = rows(3, 4)
    t = torch.tensor(temperature, dtype=torch.float64)
    for given in (temperature, t, t.numpy()):
        with pytest.raises(ValueError, match="info_nce: temperature must be finite and positive"):
            loss.info_nce(
                x if torch.is_tensor(given) else x.numpy(),
                x if torch.is_tensor(given) else x.numpy(),
                temperature=given,
            )
    with pytest.raises(ValueError, match="info_nce: temperature must be finite and positive"):
        composed.info_nce(x, x, t, torch.empty(3, dtype=torch.float64), True)
    for wrong in (torch.tensor(1), np.array(1)):
        a = x if torch.is_tensor(wrong) else x.numpy()
        with pytest.raises(TypeError, match=r"info_nce: temperature must be float64.*, got int64"):
            loss.info_nce(a, a, temperature=wrong)


@pytest.mark.parametrize("e", [600, 1000, -600, -1000])
def test_cosines_of_rows_whose_squares_are_no_numbers(e):
    x, y = rows(6, 5, seed=1), rows(9, 5, seed=2)
    a, b = (2.0 ** (e * (torch.arange(len(v), dtype=torch.float64)[:, None] % 2)) for v in (x, y))
    near, far = (
        [x.requires_grad_(), y.requires_grad_()],
        [(v.detach() * f).requires_grad_() for v, f in ((x, a), (y, b))],
    )
    want, got = (loss.info_nce(*pair, reduction="none") for pair in (near, far))
    torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-14)
    right, found = torch.autograd.grad(want.sum(), near), torch.autograd.grad(got.sum(), far)
    for f, d, w in zip((a, b), found, right, strict=True):
        torch.testing.assert_close(d * f, w, rtol=1e-12, atol=1e-13)
    from tersor.triton import loss as composed

    made = torch.empty(6, dtype=torch.float64)
    composed.info_nce(far[0].detach(), far[1].detach(), torch.tensor(0.1, dtype=torch.float64), made, True)
    torch.testing.assert_close(made, want.detach(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("cosine", [False, True])
def test_gradients_that_nobody_needs_are_not_made(cosine):
    op = loss._info_nce_bwd.op
    g, x, y = rows(70).numpy(), rows(70, 5).numpy(), rows(90, 5, seed=1).numpy()
    whole = op.numpy((g, x, y, 0.5, cosine, 7), {})
    for needs in range(8):
        for part, want, bit in zip(op.numpy((g, x, y, 0.5, cosine, needs), {}), whole, (1, 2, 4), strict=True):
            if needs & bit:
                np.testing.assert_allclose(part, want, rtol=1e-13, atol=1e-14)
            else:
                assert part.shape == (0,)
