"""What layers are given, for whatever calibrates by it: sums by name, what is left and why, an error that changes nothing."""

import pytest

torch = pytest.importorskip("torch")
nn = torch.nn

from tersor._inputs import GRAMS, MAGNITUDES, SQUARES, changing, linears, visit  # noqa: E402
from tersor._walk import Walk  # noqa: E402


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v, self.o, self.unused = (nn.Linear(16, 16) for _ in range(5))

    def forward(self, x, attention_mask=None):
        return self.o(self.q(x) + self.k(x) + self.v(x.clone())) + self.q(2 * x)


def given(n=3):
    torch.manual_seed(1)
    return [torch.randn(2, 5, 16) for _ in range(n)]


@pytest.mark.parametrize("weighted", [False, True])
def test_sums_are_those_of_all_tokens(weighted):
    module, xs = Heads().double(), [x.double() for x in given()]
    counts = [torch.rand(2, 5) for _ in xs]
    batches = [{"x": x, "attention_mask": c} if weighted else x for x, c in zip(xs, counts, strict=True)]
    layers, left = linears("f", module, None)
    assert left == {} and list(layers) == ["q", "k", "v", "o", "unused"]
    rows = torch.cat(xs).reshape(-1, 16)
    w = torch.cat(counts).reshape(-1, 1).double() if weighted else torch.ones(len(rows), 1).double()
    told = {}
    for _, seen in visit("f", Walk(module, batches, layers), None, {GRAMS, SQUARES, MAGNITUDES}):
        for name in layers:
            if seen.left(name) is None:
                told[name] = seen
    assert set(told) == {"q", "k", "v", "o"}
    close = torch.testing.assert_close
    for name, factor in (("q", (1, 2)), ("k", (1,)), ("v", (1,))):
        seen, f1, f2 = told[name], sum(factor), sum(f * f for f in factor)
        close(seen.grams[name], f2 * (rows * w).T @ rows, check_dtype=False, rtol=1e-6, atol=1e-6)
        close(seen.squares[name], f2 * (rows * rows * w).sum(0), rtol=1e-6, atol=1e-6)
        close(seen.magnitudes[name], f1 * (rows.abs() * w).sum(0), rtol=1e-6, atol=1e-6)


def test_who_shares_an_input_is_known():
    class Three(Heads):
        def forward(self, x):
            return self.q(x) + self.k(x) + self.v(x.clone())

    module = nn.Sequential(Three(), nn.Linear(16, 4))
    layers, _ = linears("f", module, ["0.q", "0.k", "0.v", "0.o"])
    walk = Walk(module, given(), layers)
    (seen,) = (seen for block, seen in visit("f", walk, None) if block.calls)
    assert seen.source("0.q") == seen.source("0.k") != seen.source("0.v")
    assert torch.equal(seen.grams["0.q"], seen.grams["0.k"])
    assert seen.left("0.o") == "never called" and not seen.squares and not seen.magnitudes


def test_what_changes_is_put_back_after_an_error():
    module = Heads().train()
    before = module.q.weight.detach().clone()
    with pytest.raises(KeyError), changing(module) as changed:
        assert not module.training
        changed.append((module.q.weight, before))
        module.q.weight.data.zero_()
        raise KeyError
    assert module.training and torch.equal(module.q.weight, before)


def test_errors_name_who_asked():
    with pytest.raises(TypeError, match=r"prune: module must be a torch.nn.Module, got list"):
        linears("prune", [], None)
    with pytest.raises(TypeError, match=r"prune: 'x' is no torch.nn.Linear"):
        linears("prune", Heads(), ["x"])
    layers, _ = linears("prune", Heads(), None)
    for want, x in ((SQUARES, float("inf")), (GRAMS, float("nan")), (MAGNITUDES, float("inf"))):
        module = Heads()
        layers, _ = linears("prune", module, None)
        with pytest.raises(ValueError, match=r"prune: .*non-finite"):
            list(visit("prune", Walk(module, [torch.full((2, 16), x)], layers), None, {want}))
