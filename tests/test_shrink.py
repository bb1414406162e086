"""Models made smaller by whole channels: what is left computes what the model did without the others, and what is not
understood is left by name."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tersor import nn as tnn  # noqa: E402
from tersor import prune  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402


class Fork(nn.Module):
    """One layer read by two, by functions and methods."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(6, 8), nn.Linear(8, 5), nn.Linear(8, 5), nn.Linear(5, 3)

    def forward(self, x):
        h = F.gelu(self.a(x)) * 0.5
        return self.d(torch.sigmoid(self.b(h)).relu() + self.c(torch.relu(h).tanh()))


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.n, self.b, self.c = nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 8, 1), nn.Linear(8, 3)

    def forward(self, x):
        h = F.max_pool2d(F.relu(self.n(self.a(x))), 2)
        return self.c(self.b(h).mean((2, 3)))


MODELS = {
    "linear": (
        lambda: nn.Sequential(
            nn.Linear(6, 10), nn.BatchNorm1d(10), nn.GELU(), nn.Dropout(), nn.Linear(10, 12, bias=False), nn.PReLU(12),
            nn.Linear(12, 4)
        ),
        (5, 6),
        {"0": ["4"], "4": ["6"]},
    ),
    "sequence": (lambda: nn.Sequential(nn.Linear(6, 10), nn.SiLU(), nn.Linear(10, 4)), (2, 3, 6), {"0": ["2"]}),
    "images": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6), nn.BatchNorm2d(6),
            nn.ReLU6(), nn.Conv2d(6, 8, 1), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8 * 9, 7), nn.Tanh(), nn.Linear(7, 3),
        ),
        (2, 2, 8, 8),
        {"0": ["6"], "6": ["9"], "9": ["11"]},
    ),
    "signals": (
        lambda: nn.Sequential(nn.Conv1d(2, 5, 3), nn.BatchNorm1d(5), nn.Hardswish(), nn.Conv1d(5, 4, 3),
        nn.AdaptiveAvgPool1d(1),
                              nn.Flatten(), nn.Linear(4, 2)),
        (3, 2, 9),
        {"0": ["3"], "3": ["6"]},
    ),
    "fork": (Fork, (4, 6), {"a": ["b", "c"]}),
    "pooled": (Pooled, (2, 2, 8, 8), {"a": ["b"], "b": ["c"]}),
}  # fmt: skip


def made(name):
    torch.manual_seed(1)
    make, shape, _ = MODELS[name]
    model, x = make().double(), torch.randn(shape, dtype=torch.float64)
    model(x), model(x)  # statistics that are no longer those of the beginning
    for m in model.modules():
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
            m.weight.data.uniform_(0.5, 2), m.bias.data.normal_()
    return model.eval(), x


def without(model, readers, kept, x):
    """The model whose readers do not see what is gone."""
    model = copy.deepcopy(model)
    for name, keep in kept.items():
        n = model.get_submodule(name).weight.shape[0]
        gone = torch.ones(n, dtype=torch.bool)
        gone[keep] = False
        for reader in readers[name]:
            w = model.get_submodule(reader).weight.data
            w[:, gone.repeat_interleave(w.shape[1] // n)] = 0
    return model(x)


@pytest.mark.parametrize(
    "options", [{"sparsity": 0.4}, {"sparsity": 0.5, "scope": "global"}, {"sparsity": 0.9, "round_to": 2}]
)
@pytest.mark.parametrize("name", list(MODELS))
def test_what_is_left_computes_the_same(name, options):
    model, x = made(name)
    old, norms = (
        copy.deepcopy(model),
        {k: prune.row_scores(model.get_submodule(k).weight.detach()) for k in MODELS[name][2]},
    )
    report = tnn.shrink(model, x, **options)
    assert set(report.kept) == set(MODELS[name][2])
    torch.testing.assert_close(model(x), without(old, MODELS[name][2], report.kept, x), rtol=1e-11, atol=1e-12)
    assert report.parameters == tuple(sum(p.numel() for p in m.parameters()) for m in (old, model))
    assert report.parameters[1] < report.parameters[0]
    for k, keep in report.kept.items():
        n = len(norms[k])
        if options.get("scope") != "global":
            step = options.get("round_to", 1)
            want = min(-(-max(n - round(options["sparsity"] * n), 1) // step) * step, n)
            assert len(keep) == want
        gone = np.setdiff1d(np.arange(n), keep)
        assert not len(gone) or norms[k][gone].max() <= norms[k][keep].min()
    if options.get("scope") == "global" and not any(len(k) == 1 for k in report.kept.values()):
        assert sum(len(k) for k in report.kept.values()) == sum(map(len, norms.values())) - round(
            0.5 * sum(map(len, norms.values()))
        )
    model.train()(x).square().sum().backward()  # and is trained
    assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())
    fresh = copy.deepcopy(model)
    fresh.load_state_dict(model.state_dict())


def test_rows_that_are_zero_go_and_nothing_changes():
    model, x = made("sequence")
    with torch.no_grad():
        model[0].weight[[1, 4, 7]] = 0
        model[0].bias[[1, 4, 7]] = 0  # SiLU of 0 is 0
    want = model(x)
    report = tnn.shrink(model, x)
    assert report.kept["0"].tolist() == [0, 2, 3, 5, 6, 8, 9]
    torch.testing.assert_close(model(x), want, rtol=1e-12, atol=1e-13)
    assert tnn.shrink(model, x).parameters[0] == report.parameters[1]  # nothing is left to go
    with torch.no_grad():
        model[0].weight.zero_()
    assert len(tnn.shrink(model, x, min_keep=2).kept["0"]) == 2


def test_masks_are_cut_with_their_weights():
    model, x = made("linear")
    masks = tnn.Masks(model, exclude=["5"]).prune(0.5)
    tnn.shrink(model, x, 0.5)
    again = tnn.Masks(model, exclude=["5"])
    for name, mask in again.items():
        assert mask.shape == again.weight(name).shape and not again.weight(name)[~mask].any()
    assert 0 < again.sparsity < 1 and masks["0.weight"].shape == again["0.weight"].shape


def test_scores_of_ones_own():
    model, x = made("sequence")
    scores = {"0": torch.arange(10.0)}
    assert tnn.shrink(copy.deepcopy(model), x, 0.5, scores=scores).kept["0"].tolist() == [5, 6, 7, 8, 9]
    assert tnn.shrink(copy.deepcopy(model), x, 0.5, scores={"0": torch.ones(10)}).kept["0"].tolist() == [0, 1, 2, 3, 4]
    for wrong, kind, text in (
        ({}, ValueError, "missing or unknown: 0"),
        ([1], TypeError, "scores must be a mapping"),
        ({"0": torch.ones(9)}, ValueError, "scores of '0' must have shape"),
        ({"0": torch.arange(10)}, TypeError, "scores of '0' must be a float tensor, got int64"),
        ({"0": torch.full((10,), np.nan)}, ValueError, "non-finite"),
    ):
        with pytest.raises(kind, match=rf"^shrink: .*{text}"):
            tnn.shrink(model, x, 0.5, scores=wrong)
    assert model[0].out_features == 10


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.n = nn.Linear(6, 6), nn.Linear(6, 8), nn.Linear(8, 6), nn.LayerNorm(6)

    def forward(self, x):
        x = self.a(x)
        return self.n(x + self.c(self.b(x).relu()))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        return self.b(self.a(self.a(x)))


class Decides(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(6, 6)

    def forward(self, x):
        return self.a(x) if x.sum() > 0 else x


def test_what_is_not_understood_is_left_by_name():
    x = torch.randn(2, 6)
    report = tnn.shrink(Residual(), x, 0.5)
    assert list(report.kept) == ["b"] and report.left == {
        "a": "add is no step that takes channels one by one",
        "c": "add is no step that takes channels one by one",
    }
    with pytest.raises(ValueError, match=r"shrink: no layer can be made smaller; left: .*'a': 'a is called 2 times'"):
        tnn.shrink(Twice(), x, 0.5)
    with pytest.raises(TypeError, match=r"shrink: torch.fx cannot trace Decides: "):
        tnn.shrink(Decides(), x, 0.5)
    with pytest.raises(TypeError, match=r"shrink: a cannot be made smaller: add is no step"):
        tnn.shrink(Residual(), x, 0.5, include=["a"])
    normed = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    left = tnn.shrink(normed, x, 0.5).left
    assert left["0"] == "1 (LayerNorm) is no step that takes channels one by one"
    assert left["4"] == "it is an output of the model"
    tied = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    tied[2].weight = tied[0].weight
    with pytest.raises(ValueError, match="a weight of 0 is used elsewhere too"):
        tnn.shrink(tied, x, 0.5)
    images = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    assert tnn.shrink(images, torch.randn(1, 2, 8, 8), 0.5).left["0"] == "1 (Linear) takes the channels as another axis"
    groups = nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 1, groups=2), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1))
    left = tnn.shrink(groups, torch.randn(1, 4, 3, 3), 0.5).left
    assert left["0"] == "1 (Conv2d) is no step that takes channels one by one" and left["1"] == "Conv2d of 2 groups"
    flat = nn.Sequential(nn.Linear(6, 4), nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 2))
    assert "mixes channels" in tnn.shrink(flat, torch.randn(2, 3, 6), 0.5).left["0"]
    flat[2].register_forward_hook(lambda *a: None)
    with pytest.raises(ValueError, match="2 has hooks"):
        tnn.shrink(flat, torch.randn(2, 3, 6), 0.5)


def test_what_shrink_says():
    model, x = made("sequence")
    for args, options, kind, text in (
        ((x,), {"scope": "row"}, ValueError, "scope must be one of layer, global"),
        ((x, 1.5), {}, ValueError, "sparsity must be between 0 and 1"),
        ((x, [0.5, 0.5]), {}, ValueError, "sparsity must be one or 1, got 2"),
        ((x, 0.5), {"min_keep": 0}, ValueError, "min_keep must be positive"),
        ((x, 0.5), {"round_to": 2.5}, TypeError, "round_to must be an integer"),
        ((x, 0.5), {"norm": 3}, ValueError, "shrink: norm must be 1, 2 or inf"),
        ((x, 0.5), {"include": ["nothing"]}, ValueError, "shrink: include: no tensor .* 'nothing'"),
        ((x, 0.5), {"exclude": "0"}, TypeError, "shrink: exclude must be a sequence"),
        (("words", 0.5), {}, TypeError, "cannot trace"),
    ):
        with pytest.raises(kind, match=text):
            tnn.shrink(model, *args, **options)
    with pytest.raises(TypeError, match="shrink: model must be"):
        tnn.shrink("model", x, 0.5)
    assert model[0].out_features == 10 and model.training is False


@pytest.mark.parametrize(
    "layer", [nn.Linear(6, 8), nn.Conv1d(6, 8, 3), nn.Conv2d(6, 8, 3, bias=False), nn.Conv3d(6, 8, 1)]
)
def test_parts_of_layers(layer):
    x = torch.randn(2, 6, *[5] * (layer.weight.ndim - 2))
    keep = torch.tensor([1, 1, 0, 1, 0, 0, 1, 0], dtype=torch.bool)
    y = tnn.take_outputs(layer, keep)(x)
    torch.testing.assert_close(y, layer(x)[:, keep])
    some = torch.tensor([4, 0, 2])
    zeros = copy.deepcopy(layer)
    zeros.weight.data[:, [1, 3, 5]] = 0
    torch.testing.assert_close(tnn.take_inputs(layer, some)(x[:, some]), zeros(x))
    assert layer.weight.shape[:2] == (8, 6)
    for f, n in ((tnn.take_outputs, 8), (tnn.take_inputs, 6)):
        for wrong, kind, text in (
            (keep[:5], ValueError, rf"have shape \({n},\)"),
            (torch.tensor([n]), ValueError, f"indices from 0 to {n - 1}"),
            (torch.ones(n), TypeError, "got float32"),
            ([0, 1], TypeError, "got list"),
        ):
            with pytest.raises(kind, match=f"^{f.__name__}: keep must .*{text}"):
                f(layer, wrong)
    with pytest.raises(TypeError, match=r"take_outputs: layer must be .*, got Conv2d of 2 groups"):
        tnn.take_outputs(nn.Conv2d(4, 4, 1, groups=2), keep)
    with pytest.raises(TypeError, match=r"take_inputs: layer must be .*, got ReLU"):
        tnn.take_inputs(nn.ReLU(), keep)


def test_parts_have_hooks_of_their_own():
    layer, calls = torch.nn.Linear(4, 6), []
    layer.register_forward_hook(lambda *_: calls.append("old"))
    part = tnn.take_outputs(layer, torch.tensor([1, 2]))
    part.register_forward_hook(lambda *_: calls.append("new"))
    part.register_buffer("more", torch.ones(1), persistent=False)
    layer(torch.ones(1, 4))
    assert calls == ["old"] and not layer._non_persistent_buffers_set
    part(torch.ones(1, 4))
    assert calls == ["old", "old", "new"]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weights_that_hooks_make_are_refused():
    made = torch.nn.utils.weight_norm(torch.nn.Linear(4, 6))
    pruned = torch.nn.utils.prune.l1_unstructured(torch.nn.Linear(4, 6), "weight", 0.5)
    for layer in (made, pruned):
        for take in (tnn.take_outputs, tnn.take_inputs):
            with pytest.raises(TypeError, match=f"{take.__name__}: the weight of layer is made by a hook"):
                take(layer, torch.tensor([1]))


def test_heads():
    """The two heads of four that are kept: attention without the others."""
    torch.manual_seed(0)
    q, k, v, o = (nn.Linear(8, 8).double() for _ in range(4))
    x, keep = torch.randn(2, 5, 8, dtype=torch.float64), torch.tensor([1, 3])

    def attend(q, k, v, o, heads, mask=None):
        parts = [f(x).unflatten(-1, (heads, 2)).transpose(1, 2) for f in (q, k, v)]
        y = F.scaled_dot_product_attention(*parts)
        return o((y if mask is None else y * mask[:, None, None]).transpose(1, 2).flatten(2))

    mask = torch.zeros(4, dtype=torch.float64)
    mask[keep] = 1
    rows = (keep[:, None] * 2 + torch.arange(2)).flatten()
    small = [tnn.take_outputs(f, rows) for f in (q, k, v)]
    torch.testing.assert_close(attend(*small, tnn.take_inputs(o, rows), 2), attend(q, k, v, o, 4, mask))


@pytest.mark.parametrize("norm", [1, 2, np.inf])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_row_scores_are_norms(norm, dtype):
    w = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0)).to(getattr(torch, dtype))
    for axis in (0, 1, -1):
        want = torch.linalg.vector_norm(w.double(), norm, [a for a in range(3) if a != axis % 3])
        got = prune.row_scores(w, axis=axis, norm=norm)
        assert got.dtype == torch.float64
        torch.testing.assert_close(got, want, rtol=1e-14, atol=0)
        if dtype != "bfloat16":
            np.testing.assert_allclose(prune.row_scores(w.numpy(), axis=axis, norm=norm), want.numpy(), rtol=1e-14)
    for empty in (np.zeros((3, 0)), torch.zeros(3, 0)):
        assert prune.row_scores(empty, norm=norm).tolist() == [0, 0, 0]
        assert prune.row_scores(empty, axis=1, norm=norm).shape == (0,)


def test_what_row_scores_says():
    w = np.ones((2, 3))
    for given, kind, text in (
        ({"axis": 2}, ValueError, r"axis must be one of w, whose shape is \(2, 3\), got 2"),
        ({"axis": "0"}, TypeError, "axis must be an integer"),
        ({"norm": 3}, ValueError, "norm must be 1, 2 or inf, got 3"),
        ({"norm": "fro"}, TypeError, "norm must be a number"),
    ):
        with pytest.raises(kind, match=f"^row_scores: {text}"):
            prune.row_scores(w, **given)
    with pytest.raises(TypeError, match=r"^row_scores: w must be float64, .*, got int64"):
        prune.row_scores(w.astype(int))
    with pytest.raises(ValueError, match=r"^row_scores: axis"):
        prune.row_scores(np.array(1.0))


def test_norms_of_rows_beyond_squares():
    rows = np.array([[3.0, 4.0], [0.0, 0.0], [np.inf, 1.0], [np.nan, 1.0]])
    for scale in (1e-300, 5e-324, 1e200, 2e307, 1.0):
        want = [5 * scale, 0, np.inf, np.nan] if scale > 1e-320 else [5 * 5e-324, 0, np.inf, np.nan]
        for made in (prune.row_scores(rows * scale), prune.row_scores(torch.from_numpy(rows * scale)).numpy()):
            np.testing.assert_allclose(made, want, rtol=4e-16)


class Streams(nn.Module):
    """Two blocks in one stream, the second with a layer of its own beside it, and a stream of rows after them."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.a1, self.n1, self.a2, self.n2 = (
            nn.Conv2d(6, 7, 3, padding=1), nn.BatchNorm2d(7), nn.Conv2d(7, 6, 1), nn.BatchNorm2d(6)
        )  # fmt: skip
        self.b1, self.b2, self.side = nn.Conv2d(6, 5, 1), nn.Conv2d(5, 8, 1), nn.Conv2d(6, 8, 1, bias=False)
        self.turn, self.last = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        h = self.norm(self.stem(x)).relu()
        h = torch.relu(h + self.n2(self.a2(F.relu(self.n1(self.a1(h))))))
        h = torch.add(self.b2(torch.tanh(self.b1(h))), self.side(h))
        h = F.gelu(h).mean((2, 3))
        return self.last(h + torch.sigmoid(self.turn(h)))


#: a maker of each stream -> the others, and who reads them
STREAMS = {
    "stem": (["stem", "a2"], ["a1", "b1", "side"]),
    "a1": (["a1"], ["a2"]),
    "b1": (["b1"], ["b2"]),
    "b2": (["b2", "side", "turn"], ["turn", "last"]),
}


@pytest.mark.parametrize(
    "options", [{"sparsity": 0.4}, {"sparsity": 0.5, "scope": "global"}, {"sparsity": 0.5, "norm": 1}]
)
def test_streams_are_cut_as_one(options):
    torch.manual_seed(2)
    model, x = Streams().double(), torch.randn(2, 2, 6, 6, dtype=torch.float64)
    model(x)
    old = copy.deepcopy(model.eval())
    report = tnn.shrink(model, x, coupled=True, **options)
    assert set(report.kept) == {m for makers, _ in STREAMS.values() for m in makers} and set(report.left) == {"last"}
    for first, (makers, _) in STREAMS.items():
        rows = [prune.row_scores(old.get_submodule(m).weight.detach(), norm=options.get("norm", 2)) for m in makers]
        scores = torch.linalg.vector_norm(torch.stack(rows), options.get("norm", 2), 0)
        gone = torch.ones(len(scores), dtype=torch.bool)
        gone[report.kept[first]] = False
        assert all(torch.equal(report.kept[m], report.kept[first]) for m in makers)
        assert not gone.any() or scores[gone].max() <= scores[~gone].min()
    readers = {first: read for first, (_, read) in STREAMS.items()}
    want = without(old, readers, {k: report.kept[k] for k in readers}, x)
    torch.testing.assert_close(model(x), want, rtol=1e-11, atol=1e-12)
    model.train()(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())


def test_streams_that_are_not_understood():
    model, x = Streams(), torch.randn(2, 2, 6, 6)
    report = tnn.shrink(copy.deepcopy(model), x, 0.5)
    assert set(report.kept) == {"a1", "b1"}  # without being told, streams stay
    report = tnn.shrink(copy.deepcopy(model), x, 0.5, coupled=True, exclude=["a2"])
    assert report.left["stem"] == "its outputs are added to those of a2, which is not to be made smaller"

    class Added(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, v):
            return self.b(v + self.a(v))

    with pytest.raises(ValueError, match="'a': 'it is added to v, which no layer makes'"):
        tnn.shrink(Added(), torch.randn(3, 6), 0.5, coupled=True)
    with pytest.raises(TypeError, match="shrink: coupled must be True or False"):
        tnn.shrink(model, x, 0.5, coupled="yes")
