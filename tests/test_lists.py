"""The battery over lists: every operator of the registry that takes them. The one rule: as in `test_ops` and `test_torch`, no
line here names an operator."""

import numpy as np
import pytest
import tersor
import torch
from hypothesis import given
from hypothesis import strategies as st
from tersor import _body, _core, _func, _torch_lists
from tersor._arrays import dtype_name
from tersor._lists import each, flat
from tersor._op import OPS
from tersor._sample import Draw
from tersor._values import tensor_of
from tersor.testing import EPS, assert_close, draws
from tersor.triton import ABSENT, PLAIN
from test_ops import TOLERANCE, inputs, layouts, names, scale, wide

LISTS = [op for op in OPS.values() if op.lists]
IN_PLACE = [op for op in LISTS if op.kernel.alias]
DIFFERENTIABLE = [op for op in LISTS if f"{op.key}_bwd" in OPS]


def mixed():
    """A draw whose list holds one of three blocks, and several types."""
    return Draw(21, "float32")


def several(made):
    """All results, entry by entry."""
    return flat(made if isinstance(made, tuple) else (made,))


def run(op, args, **kwargs):
    return several(op.numpy(tuple(args), dict(kwargs)))


def bits(ys):
    return [y.tobytes() for y in ys]


def tensors(args):
    return [
        each(lambda x: tensor_of(np.ascontiguousarray(x).copy()) if isinstance(x, np.ndarray) else x, a) for a in args
    ]


def array(t):
    t = t.detach()
    return t.view(torch.int16).numpy() if t.dtype == torch.bfloat16 else t.numpy()


def small(op):
    """Draws of few and short entries that have a gradient."""
    found = 0
    for seed in range(1000):
        args = inputs(op, Draw(seed, "float64"))
        entries = flat(args[: op.n])
        ends = {a for a in args[op.n :] if type(a) is float} & {1.0, np.inf}  # where an order has no slope
        if not ends and len(args[0]) > 1 and len(entries) < 14 and all(np.size(x) < 60 for x in entries):
            found += 1
            yield Draw(seed, "float64")
        if found == 3:
            return
    raise AssertionError("no such draws")


def test_there_are_some():
    assert {op.family for op in LISTS} and IN_PLACE and DIFFERENTIABLE
    for op in LISTS:
        assert op.sample is not None
        seen = [max(len(a) for a in op.sample(Draw(seed))[0] if isinstance(a, list)) for seed in range(40)]
        assert min(seen) == 0 and max(seen) > 20


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("op", LISTS, ids=names)
@given(data=st.data())
def test_matches_reference(op, dtype, data):
    args = inputs(op, data.draw(draws(dtype)))
    got = run(op, args)
    with np.errstate(all="ignore"):
        want = several(op.reference(*(args if op.options.native else [each(wide, a) for a in args])))
    size = scale(flat(args))
    for g, w in zip(got, want, strict=True):
        kind = dtype_name(g.dtype)
        if op.options.native:
            assert g.tobytes() == np.asarray(w, g.dtype).tobytes()
        assert_close(g, w, TOLERANCE[kind] * EPS[kind], scale=size)


@pytest.mark.parametrize("op", LISTS, ids=names)
@given(data=st.data())
def test_layouts(op, data):
    args = inputs(op, data.draw(draws("float32")))
    want = bits(run(op, args))
    for k in range(5):
        assert bits(run(op, [each(lambda x, k=k: layouts(x)[k], a) for a in args])) == want


@pytest.mark.parametrize("op", LISTS, ids=names)
def test_thread_count_and_instruction_set_do_not_matter(op):
    args = inputs(op, mixed())
    before, seen = tersor.get_num_threads(), []
    try:
        for n in (1, 2, 3, 8):
            tersor.set_num_threads(n)
            seen.append(bits(run(op, args)))
        for level in _core.level()[1]:
            _core.force_level(level)
            seen.append(bits(run(op, args)))
    finally:
        tersor.set_num_threads(before)
        _core.force_level()
    assert seen[0] and all(s == seen[0] for s in seen)


@pytest.mark.parametrize("op", LISTS, ids=names)
def test_out(op):
    args = inputs(op, mixed())
    made = op.numpy(tuple(args), {})
    whole = made if isinstance(made, tuple) else (made,)
    out = tuple(each(np.zeros_like, y) for y in whole)
    given = out if len(out) > 1 else out[0]
    assert op.numpy(tuple(args), {"out": given}) is given
    assert bits(flat(out)) == bits(flat(whole))

    def refuses(error, bad, match):
        before = bits(flat(bad))
        with pytest.raises(error, match=match):
            op.numpy(tuple(args), {"out": bad if len(bad) > 1 else bad[0]})
        assert bits(flat(bad)) == before

    k = next((k for k, y in enumerate(out) if isinstance(y, list)), None)
    if k is None:
        return
    put = lambda i, y: tuple([*o[:i], y, *o[i + 1 :]] if j == k else o for j, o in enumerate(out))  # noqa: E731
    i = next(i for i, y in enumerate(out[k]) if y.ndim == 1 and y.size > 2)
    y = np.full_like(out[k][i], 3)
    frozen = y.copy()
    frozen.flags.writeable = False
    refuses(TypeError, put(i, np.zeros(y.shape, np.int32)), rf"{op.name}: out( for \w+)?\[{i}\] must be {y.dtype.name}")
    refuses(ValueError, put(i, y[:-1].copy()), rf"{op.name}: out( for \w+)?\[{i}\] must have shape")
    refuses(ValueError, put(i, frozen), rf"{op.name}: out( for \w+)?\[{i}\] must be C-contiguous and writable")
    refuses(ValueError, put(i, np.repeat(y, 2)[::2]), rf"{op.name}: out( for \w+)?\[{i}\] must be C-contiguous")
    refuses(ValueError, tuple(o[1:] if j == k else o for j, o in enumerate(out)), rf"{op.name}: out( for \w+)? has")
    room = np.zeros(y.size + 1, y.dtype)
    twice = [j for j, other in enumerate(out[k]) if other.shape == y.shape and other.dtype == y.dtype and j != i]
    for j in twice[:1]:
        both = put(i, room[1:])
        both = tuple([*o[:j], room[:-1], *o[j + 1 :]] if at == k else o for at, o in enumerate(both))
        refuses(ValueError, both, rf"{op.name}: out( for \w+)?\[\d+\] overlaps out( for \w+)?\[\d+\]")


@pytest.mark.parametrize("op", IN_PLACE, ids=names)
def test_in_place(op):
    args = list(inputs(op, mixed()))
    want = bits(run(op, args))
    here = [x.copy() for x in args[0]]
    assert bits(run(op, [here, *args[1:]], out=here)) == want == bits(here)
    there = [x.copy() for x in args[0]]
    i = next(i for i, y in enumerate(there) if y.size > 2)
    room = np.zeros(there[i].size + 1, there[i].dtype)
    there[i] = room[1:].reshape(there[i].shape)
    over = [*here[:i], room[:-1].reshape(there[i].shape), *here[i + 1 :]]
    before = bits(over)
    with pytest.raises(ValueError, match=rf"{op.name}: out( for \w+)?\[{i}\] overlaps \w+(\[0\])?\[{i}\]"):
        op.numpy((there, *args[1:]), {"out": over})
    assert bits(over) == before
    same = [np.ones(5, np.float32), np.ones(5, np.float32)]
    rest = [a[:2] and [np.ones(5, np.float32)] * 2 if isinstance(a, list) else a for a in args[1:]]
    if all(isinstance(a, list) or not isinstance(a, np.ndarray) for a in args[1:]):
        with pytest.raises(ValueError, match="overlaps"):  # the entries of each other
            op.numpy((same, *rest), {"out": same[::-1]})


@pytest.mark.parametrize("op", LISTS, ids=names)
def test_bad_arguments(op):
    args = list(inputs(op, mixed()))
    for at, k in enumerate(op.inputs):
        if k not in op.lists or len(args[at]) < 2:
            continue
        with pytest.raises(TypeError, match=f"{op.name}: {k} must be a list"):
            op.numpy((*args[:at], args[at][0], *args[at + 1 :]), {}) if at else op.numpy((3.0, *args[1:]), {})
        for wrong, match in (
            (np.zeros(3, np.int32), "must be float64"),
            (np.zeros(3, np.complex64), "must be float64"),
            (np.zeros(3, ">f4"), "byte order"),
            (np.ma.masked_array([1.0]), "plain array"),
            (None, "must be a NumPy array"),
            ([1.0], "must be a NumPy array"),
            (torch.zeros(3), "NumPy array like the others"),
        ):
            with pytest.raises(TypeError, match=rf"{op.name}: {k}\[1\] (must be|has|is).*{match}|{k}\[1\] .*{match}"):
                op.numpy((*args[:at], [args[at][0], wrong, *args[at][2:]], *args[at + 1 :]), {})
        with pytest.raises(ValueError, match=op.name):
            op.numpy((*args[:at], args[at][1:], *args[at + 1 :]), {})
    with pytest.raises(TypeError, match=op.name):
        op.numpy((*args, 1), {})
    with pytest.raises(TypeError, match=op.name):
        op.numpy(tuple(args), {"nonsense": 1})


@pytest.mark.parametrize("op", LISTS, ids=names)
def test_strange_numbers_stay_in_their_entry(op):
    args = list(inputs(op, mixed()))
    for bad in (np.nan, np.inf, -np.inf, 1e308, 5e-324, -0.0):
        odd = [each(lambda x: x.copy() if isinstance(x, np.ndarray) else x, a) for a in args]
        i = (
            next(i for i, x in enumerate(odd[0]) if isinstance(x, np.ndarray) and x.size > 1)
            if isinstance(odd[0], list)
            else None
        )
        with np.errstate(over="ignore"):
            (odd[0][i] if i is not None else odd[0]).reshape(-1)[0] = bad
        got, want = run(op, odd), run(op, args)
        if len(got) > 1 and i is not None and len(got) == len(args[0]):
            assert bits(got[:i] + got[i + 1 :]) == bits(want[:i] + want[i + 1 :])


@pytest.mark.parametrize("seed", [1, 4, 5, 15, 21, 35])
@pytest.mark.parametrize("op", LISTS, ids=names)
def test_tensors_have_the_same_bits(op, seed):
    args = inputs(op, Draw(seed, "bfloat16"))
    want = bits(run(op, args))
    given = tensors(args)
    assert [array(y).tobytes() for y in several(op.torch(tuple(given), {}))] == want
    spread = [each(lambda x: torch.stack([x, x], -1)[..., 0] if isinstance(x, torch.Tensor) else x, a) for a in given]
    assert [array(y).tobytes() for y in several(op.torch(tuple(spread), {}))] == want
    if flat(given[:1]) and not isinstance(given[0], torch.Tensor):
        made = op.torch(tuple(given), {})
        out = tuple(each(torch.zeros_like, y) for y in (made if isinstance(made, tuple) else (made,)))
        whole = out if len(out) > 1 else out[0]
        assert op.torch(tuple(given), {"out": whole}) is whole
        assert [array(y).tobytes() for y in flat(out)] == want


def leaves(op, args):
    grown = lambda x: (  # noqa: E731
        x.double().requires_grad_() if isinstance(x, torch.Tensor) and x.is_floating_point() else x
    )
    return [each(grown, a) for a in tensors(args)]


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=names)
def test_gradcheck(op):
    tried = 0
    for draw in small(op):
        args = leaves(op, inputs(op, draw))
        lens, n = _torch_lists.lengths(args[: op.n]), op.n
        tried += 1

        def f(*xs, lens=lens, rest=args[n:]):
            return tuple(several(op.torch((*_torch_lists.parted(xs, lens), *rest), {})))

        whole = flat(args[:n])
        if f(*whole):
            assert torch.autograd.gradcheck(f, whole)
    assert tried


def loss(op, lens, rest):
    def f(*xs):
        ys = several(op.torch((*_torch_lists.parted(xs, lens), *rest), {}))
        return sum((y * y).sum() for y in ys if y.is_floating_point())

    return f


def example(op):
    """Arguments with a gradient, of few entries, and a loss of them."""
    args = leaves(op, inputs(op, next(small(op))))
    return flat(args[: op.n]), loss(op, _torch_lists.lengths(args[: op.n]), args[op.n :])


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=names)
def test_compile_and_transforms(op):
    torch._dynamo.reset()
    xs, f = example(op)
    at = [i for i, x in enumerate(xs) if x.requires_grad]
    want = torch.autograd.grad(f(*xs), [xs[i] for i in at])
    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    got = torch.autograd.grad(compiled(*xs), [xs[i] for i in at])
    plain = [x.detach() for x in xs]
    func = torch.func.grad(f, argnums=tuple(at))(*plain)
    for g, h, w in zip(got, func, want, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(h, w, rtol=1e-12, atol=1e-14)
    both = [torch.stack([x, 2 * x]) if x.is_floating_point() else torch.stack([x, x]) for x in plain]
    torch.testing.assert_close(torch.vmap(f)(*both), torch.stack([f(*plain), f(*[b[1] for b in both])]))
    assert torch.equal(torch.compile(f, fullgraph=True, backend="aot_eager")(*plain), f(*plain))


@pytest.mark.parametrize("op", LISTS, ids=names)
def test_opcheck(op):
    given = tensors(inputs(op, next(small(op))))
    op.torch(tuple(given), {})
    torch.library.opcheck(_func.raw(op), tuple(given))


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=names)
def test_what_cannot_be_differentiated_says_so(op):
    xs, f = example(op)
    at = next(i for i, x in enumerate(xs) if x.requires_grad)
    (first,) = torch.autograd.grad(f(*xs), [xs[at]], create_graph=True)
    with pytest.raises(NotImplementedError, match=f"{op.name}: not differentiable twice"):
        torch.autograd.grad(first.sum(), [xs[at]])
    with torch.autograd.forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward-mode"):
        f(*xs)


@pytest.mark.parametrize("op", [op for op in LISTS if f"{op.key}_bwd" not in OPS], ids=names)
def test_what_has_no_gradient_says_so(op):
    args = leaves(op, inputs(op, mixed()))
    with pytest.raises(NotImplementedError, match=f"{op.name}: not differentiable"):
        op.torch(tuple(args), {})


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("op", [op for op in LISTS if ABSENT.get(op.key) == PLAIN], ids=names)
def test_plain_is_the_kernel(op, seed):
    given = tensors(inputs(op, Draw(seed, "float32")))
    want = several(op.torch(tuple(given), {}))
    if not flat(given[: op.n]):
        return
    made = op.signature.made(given[: op.n], given[op.n :])
    like = flat(given)[0]
    ys = [[_body.room(like, *w) for w in own] if isinstance(own, list) else _body.room(like, *own) for own in made]
    _body.plain(op, *given[: op.n], *ys, *given[op.n :])
    for y, w in zip(flat(ys), want, strict=True):
        torch.testing.assert_close(y, w)


@pytest.mark.parametrize("op", LISTS, ids=names)
def test_meta_and_fake(op):
    given = tensors(inputs(op, mixed()))
    want = several(op.torch(tuple(given), {}))
    meta = [each(lambda x: x.to("meta") if isinstance(x, torch.Tensor) else x, a) for a in given]
    got = several(_func.raw(op)(*meta))
    assert [(y.shape, y.dtype, y.device.type) for y in got] == [(w.shape, w.dtype, "meta") for w in want]
