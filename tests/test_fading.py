"""Weights that fade before they go. The one rule: what falls is compared with its line, and what stays with training alone."""

import copy

import pytest
import torch
from tersor import nn as tnn
from tersor import prune


def made(optimizer=torch.optim.SGD, **options):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    return model, optimizer(model.parameters(), lr=0.05, **options)


def step(model, optimizer, seed):
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()


KEEP = torch.arange(8) % 3 != 1
ROWS = {"0.weight": KEEP, "0.bias": KEEP}
INCLUDE = ["*.weight", "*.bias"]


def test_what_goes_falls_linearly_without_gradients():
    model, optimizer = made()
    first = copy.deepcopy(model[0])
    fading = tnn.ProgressiveShrink(model, include=INCLUDE).attach(optimizer).fade(ROWS, 7)
    for t in range(7):
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        optimizer.step()
        torch.testing.assert_close(model[0].weight[~KEEP], first.weight[~KEEP] * (6 - t) / 7)
        torch.testing.assert_close(model[0].bias[~KEEP], first.bias[~KEEP] * (6 - t) / 7)
        assert torch.equal(model[0].weight[KEEP], first.weight[KEEP])
    assert fading.left_steps == 0 and (model[0].weight[~KEEP] == 0).all()
    assert torch.equal(fading["0.weight"], KEEP[:, None].expand(8, 6)) and fading["2.weight"].all()
    gone = tnn.shrink(model, torch.randn(2, 6))
    assert gone.kept["0"].tolist() == KEEP.nonzero()[:, 0].tolist()


def test_it_is_the_gradient_and_then_the_share():
    model, optimizer = made(momentum=0.9)
    other, plain = copy.deepcopy(model), None
    plain = torch.optim.SGD(other.parameters(), lr=0.05, momentum=0.9)
    tnn.ProgressiveShrink(model, include=INCLUDE).attach(optimizer).fade(ROWS, 4)
    for t in range(3):
        step(model, optimizer, t)
        step(other, plain, t)
        with torch.no_grad():
            for p in (other[0].weight, other[0].bias):
                p[~KEEP] *= (3 - t) / (4 - t)
        torch.testing.assert_close(model.state_dict()["0.weight"], other[0].weight.detach())
    step(model, optimizer, 3)
    assert (optimizer.state[model[0].weight]["momentum_buffer"][~KEEP] == 0).all()
    for t in range(4, 8):
        step(model, optimizer, t)
        assert (model[0].weight[~KEEP] == 0).all() and (model[0].bias[~KEEP] == 0).all()


def test_periods_by_saliency_and_states():
    model, optimizer = made(torch.optim.Adam)
    fading = tnn.ProgressiveShrink(model, include=INCLUDE).attach(optimizer)
    step(model, optimizer, 0)
    for goes in (2, 4):
        tensors = [[model[0].weight, model[0].bias]]
        (score,) = prune.group_saliency(tensors, [[p.grad for p in tensors[0]]])
        keep = score > score.sort().values[goes - 1]
        fading.fade({"0.weight": keep, "0.bias": keep}, 3)
        step(model, optimizer, 1)
        state, held = fading.state_dict(), copy.deepcopy(model)
        again = torch.optim.Adam(held.parameters(), lr=0.05)
        again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        other = tnn.ProgressiveShrink(held, include=INCLUDE).attach(again)
        other.load_state_dict(state)
        for t in (2, 3):
            step(model, optimizer, t)
            step(held, again, t)
        assert torch.equal(model[0].weight, held[0].weight) and other.left_steps == 0
        assert fading.kept["0.bias"] == 8 - goes == other.kept["0.bias"]


def test_what_fading_says():
    model, optimizer = made()
    fading = tnn.ProgressiveShrink(model, include=INCLUDE)
    with pytest.raises(ValueError, match="fade: the steps are those of one optimizer, and 0 are attached"):
        fading.fade(ROWS, 3)
    fading.attach(optimizer)
    for masks, steps, kind, text in (
        (ROWS, 0, ValueError, "steps must be 1 or more"),
        (ROWS, 1.5, TypeError, "steps must be an integer"),
        ({"9.weight": KEEP}, 3, ValueError, "there is no mask called '9.weight'"),
        ({"0.weight": KEEP.float()}, 3, TypeError, "must be a bool tensor, got float32"),
        ({"0.weight": KEEP[:3]}, 3, ValueError, r"must have shape \(8, 6\), or \(8,\) for rows, got \(3,\)"),
        ([KEEP], 3, TypeError, "masks must be a mapping"),
    ):
        with pytest.raises(kind, match=f"ProgressiveShrink.fade: .*{text}"):
            fading.fade(masks, steps)
    fading.fade(ROWS, 3)
    with pytest.raises(ValueError, match="something fades already, for 3 steps more"):
        fading.fade(ROWS, 3)
    with pytest.raises(TypeError, match="ProgressiveShrink: state must be"):
        fading.load_state_dict({"steps": 3})


def test_steps_of_rprop_begin_anew():
    """What comes back moves as at the start: a step of size 0 would stay so, or begin at the least there is."""
    model, optimizer = made(torch.optim.Rprop)
    masks = tnn.Masks(model).attach(optimizer)
    for t in range(3):
        step(model, optimizer, t)
    masks.prune(0.5, scope="layer")
    step(model, optimizer, 3)
    gone = ~masks["0.weight"]
    state = optimizer.state[model[0].weight]
    assert (state["step_size"][gone] == 0.05).all() and (state["prev"][gone] == 0).all()
    assert not (state["step_size"][~gone] == 0.05).all()
    masks["0.weight"] = torch.ones_like(gone)
    step(model, optimizer, 4)
    moved = model[0].weight.detach()[gone & (model[0].weight.grad != 0)]
    assert len(moved) and torch.allclose(moved.abs(), torch.tensor(0.05))
