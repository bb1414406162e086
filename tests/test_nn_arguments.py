"""What layers are made of and what moves their states. The one rule: what a layer refuses is named by it, and leaves it as it
was."""

import inspect
import math

import pytest
import torch
from tersor import nn as tnn
from tersor._public import SCALARS

#: those that are made as torch's own are left to torch
LAYERS = [
    kind
    for kind in map(vars(tnn).get, tnn.__all__)
    if inspect.isclass(kind) and kind.__init__.__module__.startswith("tersor.")
]


def told(kind):
    """The parameters of a class that are numbers, words and functions."""
    for k, p in inspect.signature(kind).parameters.items():
        parts = str(p.annotation).split(" | ")
        if all(part in SCALARS or part.startswith("Callable") for part in parts):
            yield k


@pytest.mark.parametrize("kind", [kind for kind in LAYERS if [*told(kind)]], ids=lambda kind: kind.__name__)
def test_numbers_and_words_of_wrong_types_are_named(kind):
    class Derived(kind):
        pass

    for k in told(kind):
        for wrong in (object(), (None,), torch.ones(2)):
            with pytest.raises(TypeError, match=rf"^{kind.__name__}: {k} must be .*, got "):
                kind(**{k: wrong})
            with pytest.raises(TypeError, match=rf"^Derived: {k} must be .*, got "):
                Derived(**{k: wrong})


def test_most_layers_are_looked_at():
    assert len([kind for kind in LAYERS if [*told(kind)]]) > 30


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: tnn.WSConv2d(2, 3, 3, gain="a"), TypeError, "WSConv2d: gain must be True or False, got str"),
        (lambda: tnn.WSLinear(2, 3, eps=()), TypeError, "WSLinear: eps must be a number, got tuple"),
        (
            lambda: tnn.TimeDependentNorm(()),
            ValueError,
            "TimeDependentNorm: normalized_shape must name an axis or more",
        ),
        (lambda: tnn.PoincareBatchNorm(2, epsilon=-1.0), ValueError, "PoincareBatchNorm: epsilon must be finite"),
        (lambda: tnn.LorentzBatchNorm(2, epsilon=math.nan), ValueError, "LorentzBatchNorm: epsilon must be finite"),
        (lambda: tnn.PoincareBatchNorm(2, momentum=1.5), ValueError, "PoincareBatchNorm: momentum must be at least 0"),
        (lambda: tnn.PoincareActivation("a"), TypeError, "PoincareActivation: fn must be callable, got str"),
        (lambda: tnn.PoincareAvgPool2d(()), ValueError, "PoincareAvgPool2d: kernel_size must be"),
        (lambda: tnn.PoincareAvgPool2d(0), ValueError, "PoincareAvgPool2d: kernel_size must be"),
        (lambda: tnn.PoincareAvgPool2d(2, padding=None), TypeError, "PoincareAvgPool2d: padding must be"),
    ],
)
def test_what_no_layer_is_made_of(make, error, said):
    with pytest.raises(error, match=f"^{said}"):
        make()


BATCHES = {
    "BatchNorm1d": lambda **options: tnn.BatchNorm1d(3, **options),
    "AlphaBatchNorm": lambda **options: tnn.AlphaBatchNorm(3, **options),
    "BatchChannelNorm": lambda **options: tnn.BatchChannelNorm(3, 3, **options),
    "IBNorm": lambda **options: tnn.IBNorm(3, **options),
    "PRepBN": lambda **options: tnn.PRepBN(3, **options),
}


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_batch_that_is_refused_is_not_counted(name, momentum):
    layer = BATCHES[name](momentum=momentum)
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    for wrong in (torch.ones(1, 3), torch.ones(2, 4), torch.ones(2, 3).double(), torch.ones(2, 3).long(), None):
        with pytest.raises((ValueError, TypeError)):
            layer(wrong)
    assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())
    x = torch.randn(5, 3, 2).mT.contiguous().mT if name != "PRepBN" else torch.randn(5, 2, 3)
    for n in (1, 2):
        layer(x)
        assert int(layer.num_batches_tracked) == n
    if momentum is None:  # the mean over batches, which were the same
        mean = x.mean((0, 2) if name != "PRepBN" else (0, 1))
        torch.testing.assert_close(layer.running_mean, mean[-len(layer.running_mean) :])


def test_deviations_that_are_none_are_not_observed():
    layer = tnn.FrozenLayerNorm(4)
    layer.observe(torch.randn(3, 4))
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    for wrong in (math.nan, math.inf, -math.inf):
        x = torch.ones(2, 4)
        x[1, 2] = wrong
        with pytest.raises(ValueError, match=r"^FrozenLayerNorm: a row that is observed has a deviation"):
            layer.observe(x)
    assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())
