"""What layers are made of and what moves their states. The one rule: what a layer refuses is named by it, and leaves it as it
was."""

import inspect
import math
from types import SimpleNamespace

import pytest
import test_layers
import torch
from tersor import _arrays, optim
from tersor import nn as tnn
from tersor._door import SCALARS

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
        (
            lambda: tnn.PoincareLinear(2, 3, eps="a"),
            ValueError,
            "PoincareLinear: eps must be one of tight, compat, got 'a'",
        ),
        (lambda: tnn.PoincareConv2d(2, 3, 1, eps=1.0), ValueError, r"PoincareConv2d: eps must be in \[0, 1\), got 1"),
        (lambda: tnn.PoincareMLR(2, 3, c=-1.0), ValueError, "PoincareMLR: c must be finite and not negative, got -1"),
        (
            lambda: tnn.LorentzLinear(2, 3, c=(1.0, 2.0)),
            ValueError,
            "LorentzLinear: a layer has one curvature, got several",
        ),
        (
            lambda: tnn.QuantLinear.from_float(torch.nn.Linear(9, 3), "int4-g128"),
            ValueError,
            "QuantLinear.from_float: groups of 128 do not divide a last axis of 9",
        ),
        (
            lambda: tnn.QuantEmbedding.from_float(torch.nn.Embedding(9, 3), "int4-g2"),
            ValueError,
            "QuantEmbedding.from_float: groups of 2 do not divide a last axis of 3",
        ),
        (lambda: tnn.PoincareLinear(1 << 30, 1 << 20), MemoryError, "PoincareLinear: you tried to allocate"),
        (lambda: tnn.PoincareAvgPool2d(2, padding=None), TypeError, "PoincareAvgPool2d: padding must be"),
    ],
)
def test_what_no_layer_is_made_of(make, error, said):
    with pytest.raises(error, match=f"^{said}"):
        make()


def test_what_takes_more_than_there_is_takes_nothing(monkeypatch):
    def room(size):
        assert size >= 24 * 10**9
        raise MemoryError

    monkeypatch.setattr(_arrays, "_core", SimpleNamespace(room=room))
    with pytest.raises(MemoryError, match=r"^Subspace: d = 1000000000 takes 24000000000 bytes"):
        tnn.Subspace(torch.nn.Linear(2, 3), 10**9)


def test_rows_that_there_are_not_are_named():
    with pytest.raises(IndexError, match=r"^HEmbedding: rows -1 to 12 are asked for, there are 10$"):
        tnn.HEmbedding(10, 3)(torch.tensor([1, 12, -1]))


#: how each class is made, beside those that `test_layers` makes
MADE = {
    tnn.AdaB2N: {"num_features": 4, "num_tasks": 2},
    tnn.CoordinateModulation: {"num_features": 4, "size": 2, "shared": False},
    tnn.HEmbedding: {"num_embeddings": 4, "embedding_dim": 3},
    tnn.PeriNorm: {"normalized_shape": 4},
    tnn.ProductSpace: {"dims": (2, 3)},
    tnn.Propagate: {"K": 2, "channels": 3},
    tnn.RegionNorm: {"num_features": 4},
    tnn.Subspace: {"module": torch.nn.Linear(2, 3), "d": 2},
    tnn.TimeDependentNorm: {"normalized_shape": 4},
    tnn.UnifiedEmbedding: {"num_rows": 5, "dim": 4},
    tnn.UniformDisk: {"dim": 2, "radius": 1.0},
    tnn.WrappedNormal: {"loc": torch.zeros(2)},
    tnn.WSConv2d: {"in_channels": 2, "out_channels": 2, "kernel_size": 1},
    tnn.WSLinear: {"in_features": 2, "out_features": 2},
    tnn.DynamicSparse: {},
    tnn.GradualPruner: {"model": torch.nn.Linear(4, 4), "schedule": lambda i: 0.5},
    optim.RiemannianSGD: {"params": [torch.nn.Parameter(torch.zeros(2, 2))], "c": 1.0},
    optim.RiemannianAdam: {"params": [torch.nn.Parameter(torch.zeros(2, 2))], "c": 1.0},
}
#: which are results, wrap what is made already, or have neither numbers nor words of their own
NO_NUMBERS = {"Conversion", "Shrinking", "QuantExperts", "Masks", "ProgressiveShrink", "QuantEmbedding"}
#: numbers of steps and groups, which may be of any size
COUNTS = ("decay_steps", "warmup", "every", "groups", "K", "num_hashes")


def recorded():
    """The arguments of each class of `nn` that `test_layers` makes."""
    found, saved = {}, {kind: kind.__init__ for kind in LAYERS}
    for kind, init in saved.items():

        def note(self, *args, _kind=kind, _init=init, **kwargs):
            if type(self) is _kind:
                given = dict(inspect.signature(_init).bind(self, *args, **kwargs).arguments)
                found.setdefault(_kind, {k: v for k, v in given.items() if k not in ("self", "args", "options")})
            return _init(self, *args, **kwargs)

        kind.__init__ = note
    try:
        for make, _ in test_layers.LAYERS.values():
            make()
    finally:
        for kind, init in saved.items():
            kind.__init__ = init
    return found


GIVEN = recorded() | MADE


def test_every_class_is_asked():
    assert {kind.__name__ for kind in LAYERS} - NO_NUMBERS <= {kind.__name__ for kind in GIVEN}


@pytest.mark.parametrize("kind", GIVEN, ids=lambda kind: kind.__name__)
def test_numbers_and_words_that_are_none_are_refused_when_a_layer_is_made(kind):
    """NaN is no number of a layer, nor is a curvature below 0, a size below 0 or beyond all memory, or a word that nobody
    knows; the layer says so, not what it is made of."""
    given = dict(GIVEN[kind])
    if kind is tnn.DynamicSparse:
        model = torch.nn.Linear(8, 8)
        given = {"optimizer": torch.optim.SGD(model.parameters(), 0.1), "masks": tnn.Masks(model)}
    kind(**given)
    for k, p in inspect.signature(kind.__init__).parameters.items():
        said = str(p.annotation).split(" | ") if k != "device" else []  # is torch's
        wrong = [math.nan, -math.inf] * ("float" in said) + ["nonsense"] * ("str" in said)
        wrong += [-1.0, math.inf] * (k == "c" and "float" in said)
        wrong += [-7, *[10**30] * (k not in COUNTS)] * (said == ["int"] and k != "dim")
        for bad in wrong:
            try:
                kind(**{**given, k: bad})
            except (TypeError, ValueError) as e:
                assert str(e).startswith((f"{kind.__name__}: ", f"{kind.__name__}.prune: ")), f"{k} = {bad}: {e}"
            else:
                raise AssertionError(f"{k} = {bad} is taken")


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
