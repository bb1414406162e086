"""Outputs over memory that something else holds. The one rule: a graph refuses what a plain call refuses, in the same words,
and nothing is written."""

import pytest
import test_public_torch as good
import torch
from tersor import foreach, hyperbolic
from test_messages import ONE, PUBLIC, in_a_graph, outputs_of


def over(first, y):
    """A tensor with the numbers of the first, and memory for y that overlaps it by all but one element."""
    room = torch.zeros(max(first.numel() + 1, y.numel()), dtype=first.dtype)
    x = room[1 : first.numel() + 1].view(first.shape).copy_(first)
    return x, room[: y.numel()].view(y.shape)


def refused(f, *xs):
    """What a plain call says, and that its graph says the same; neither has written."""
    before = [x.clone() if isinstance(x, torch.Tensor) else x for x in xs]
    with pytest.raises(ValueError, match="overlaps") as info:
        f(*xs)
    assert in_a_graph(f, *xs) == ("ValueError", str(info.value))
    for x, old in zip(xs, before, strict=True):
        assert not isinstance(x, torch.Tensor) or torch.equal(x, old)
    return str(info.value)


@pytest.mark.parametrize("key", ONE)
def test_an_output_over_an_input_is_refused_in_a_graph_as_without(key):
    _, (first, *rest) = good.CASES[key]
    f = PUBLIC[key]
    ys = outputs_of(f(first, *rest))
    like = next((i for i, y in enumerate(ys) if y.dtype == first.dtype and y.numel() > 1), None)
    if like is None or first.numel() < 2:
        return
    x, here = over(first, ys[like])
    outs = [torch.empty_like(y) for y in ys]
    outs[like] = here

    def call(x, *outs):
        return f(x, *rest, out=outs[0] if len(outs) == 1 else outs)

    text = refused(call, x, *outs)
    assert text.startswith(f"{key.partition('.')[2]}: out") and " overlaps " in text


@pytest.mark.parametrize("key", ONE)
def test_outputs_over_one_memory_are_refused_in_a_graph_as_without(key):
    f, xs = PUBLIC[key], good.CASES[key][1]
    ys = outputs_of(f(*xs))
    pair = [
        (i, j)
        for j in range(len(ys))
        for i in range(j)
        if ys[i].dtype == ys[j].dtype and ys[i].numel() and ys[j].numel()
    ]
    if not pair:
        return
    i, j = pair[0]
    outs = [torch.empty_like(y) for y in ys]
    room = torch.zeros(max(ys[i].numel(), ys[j].numel()), dtype=ys[i].dtype)
    outs[i], outs[j] = room[: ys[i].numel()].view(ys[i].shape), room[: ys[j].numel()].view(ys[j].shape)
    text = refused(lambda *outs: f(*xs, out=outs), *outs)
    assert text.count("out for ") == 2


def test_what_an_operator_allows_a_graph_allows():
    x, lone = torch.randn(5, 3), torch.randn(4)
    want = hyperbolic.expmap0(x, 1.0)
    got = x.clone()
    torch.compile(lambda x: hyperbolic.expmap0(x, 1.0, out=x), fullgraph=True, backend="aot_eager")(got)
    torch.testing.assert_close(got, want, rtol=0, atol=0)
    room = torch.zeros(2, 5, 3)  # side by side, and over memory that is copied before it is read
    half = torch.compile(lambda r, x: hyperbolic.expmap0(x, 1.0, out=r[0]), fullgraph=True, backend="aot_eager")
    half(room, room[1].copy_(x))
    torch.testing.assert_close(room[0], want, rtol=0, atol=0)
    here = [x.clone(), lone.clone()]
    torch.compile(lambda a, b: foreach.lincomb([1, 2], a, b, out=a), fullgraph=True, backend="aot_eager")(
        here, [x, lone]
    )
    assert all(torch.equal(a, 3 * b) for a, b in zip(here, [x, lone], strict=True))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda r: foreach.lincomb([1, 1], [r[1:], r[:2]], [r[1:] * 2, r[:2] * 2], out=[r[:-1], r[:2] * 1]),
         r"lincomb: out[0] overlaps lists[0][0]"),
        (lambda r: foreach.lincomb([1, 1, 1], [r * 1, r[1:] * 1], [r * 1, r[1:] * 1], [r * 1, r[1:]], out=[r * 1, r[:-1]]),
         r"lincomb: out[1] overlaps lists[2][1]"),
        (lambda r: foreach.lincomb([1], [r[1:] * 1, r[1:] * 2], out=[r[1:], r[:-1]]), "lincomb: out[1] overlaps out[0]"),
        (lambda r: foreach.ema([r[1:] * 1], [r[1:]], 0.5, out=[r[:-1]]), "ema: out[0] overlaps xs[0]"),
    ],
)  # fmt: skip
def test_entries_of_lists(make, said):
    """Each by its place in the list that the caller knows."""
    room = torch.randn(5, 3)
    assert refused(make, room) == said
    with pytest.raises(ValueError) as info:
        make(room.numpy())
    assert str(info.value) == said


def test_views_that_are_inputs_of_a_graph():
    """Their memory is one. A graph that was traced for others reads before it writes, and is right."""
    f = torch.compile(lambda x, y: hyperbolic.expmap0(x, 1.0, out=y), fullgraph=True, backend="aot_eager")
    torch._dynamo.reset()
    room = torch.randn(6, 3)
    want = hyperbolic.expmap0(room[1:], 1.0)
    f(room[1:].clone(), torch.empty(5, 3))
    f(room[1:], room[:-1])
    torch.testing.assert_close(room[:-1], want, rtol=0, atol=0)
    over_samples = torch.vmap(lambda x, y: hyperbolic.expmap0(x, 1.0, out=y))
    for call in (over_samples, torch.compile(over_samples, fullgraph=True, backend="aot_eager")):
        with pytest.raises(Exception, match="overlaps x"):
            call(room[1:], room[:-1])
