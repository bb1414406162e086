"""The battery on tensors: the same bits as NumPy, gradients, opcheck, compile. No line here names an operator."""

import numpy as np
import pytest
import torch
from tersor import _func, _torch
from tersor._op import OPS
from tersor._sample import Draw
from test_ops import ALL, TOLERANCE, dtypes, inputs, names, run, several

DIFFERENTIABLE = [op for op in ALL if f"{op.key}_bwd" in OPS]


def twice(op):
    """Whether a gradient of `op` has one: an operator of its own, or autograd through the reference."""
    return f"{op.key}_bwd_bwd" in OPS or OPS[f"{op.key}_bwd"].options.tensors


def tensor(x):
    if not isinstance(x, np.ndarray):
        return x
    if x.dtype.name == "bfloat16":
        return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(x.copy())


def array(t):
    return t.view(torch.int16).numpy() if t.dtype == torch.bfloat16 else t.numpy()


def call(op, args, **kwargs):
    return several(op.torch(tuple(args), dict(kwargs)))


def leaves(op, args):
    """Every float array as a float64 leaf."""
    out = []
    for k, x in zip(op.parameters, args, strict=True):
        t = tensor(x)
        if k in op.inputs and isinstance(t, torch.Tensor) and t.is_floating_point() and t.numel():
            t = t.double().requires_grad_()
        out.append(t)
    return out


@pytest.mark.parametrize(("op", "dtype"), [pytest.param(op, d, id=f"{op.key}-{d}") for op in ALL for d in dtypes(op)])
@pytest.mark.parametrize("lead", [(5,), (), (0,), (3, 2), (200,)], ids=str)
def test_same_bits_as_numpy(op, dtype, lead):
    args = inputs(op, Draw(4, dtype, lead, 19))
    want = run(op, args)
    got = call(op, [tensor(x) for x in args])
    for g, w in zip(got, want, strict=True):
        assert tuple(g.shape) == w.shape
        assert array(g).tobytes() == w.tobytes()


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("op", [op for op in ALL if op.vectors], ids=names)
def test_rows_of_no_elements(op, dtype):
    """Torch's tensors without elements lie nowhere."""
    args = list(inputs(op, Draw(4, dtype, (3,), 5)))
    args[: op.vectors] = [x if x is None else x[..., :0].copy() for x in args[: op.vectors]]
    try:
        want = run(op, args)
    except ValueError as e:
        with pytest.raises(ValueError) as info:
            call(op, [tensor(x) for x in args])
        assert str(info.value) == str(e)
        return
    for g, w in zip(call(op, [tensor(x) for x in args]), want, strict=True):
        assert tuple(g.shape) == w.shape and array(g).tobytes() == w.tobytes()


@pytest.mark.parametrize("op", [op for op in ALL if op.coefficients], ids=names)
def test_a_number_lies_beside_the_data(op):
    args = [tensor(x) for x in inputs(op, Draw(4, "float32", (3,), 5))]
    for i, k in enumerate(op.inputs):
        if k in op.coefficients:
            with pytest.raises(ValueError, match=f"{op.name}: {k} is on meta, "):
                call(op, [*args[:i], torch.tensor(1.0, device="meta"), *args[i + 1 :]])


@pytest.mark.parametrize("op", ALL, ids=names)
def test_strides_and_out(op):
    args = [tensor(x) for x in inputs(op, Draw(4, "float32", (6,), 9))]
    want = call(op, args)
    spread = [torch.stack([x, x], -1)[..., 0] if isinstance(x, torch.Tensor) and x.ndim else x for x in args]
    for g, w in zip(call(op, spread), want, strict=True):
        assert torch.equal(g, w)
    out = tuple(torch.empty_like(y) for y in want)
    op.torch(tuple(args), {"out": out if len(out) > 1 else out[0]})
    for g, w in zip(out, want, strict=True):
        assert torch.equal(g, w)


@pytest.mark.parametrize("rows", [False, True], ids=["c", "c-per-row"])
@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=names)
def test_gradcheck(op, rows):
    for seed, lead, d in ((0, (3,), 4), (1, (2, 2), 3), (2, (), 5)):
        args = leaves(op, inputs(op, Draw(seed, "float64", lead, d, 0.9, 0.7, c_rows=rows)))
        for i, k in enumerate(op.parameters):
            if k in op.coefficients and isinstance(args[i], float):
                args[i] = torch.tensor(args[i], dtype=torch.float64, requires_grad=True)
        if op.options.gradcheck:
            assert torch.autograd.gradcheck(lambda *a, op=op: op.torch(a, {}), args)
        if twice(op):
            assert torch.autograd.gradgradcheck(lambda *a, op=op: op.torch(a, {}), args)


@pytest.mark.parametrize("op", [op for op in DIFFERENTIABLE if op.vectors > 1], ids=names)
def test_gradient_of_a_broadcast_row(op):
    args = leaves(op, inputs(op, Draw(3, "float64", (7,), 5, 0.9)))
    one = args[1].detach()[:1].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda a: op.torch((args[0].detach(), a, *args[2:]), {}), [one])


@pytest.mark.parametrize("op", ALL, ids=names)
def test_opcheck(op):
    call(op, [tensor(x) for x in inputs(op, Draw(0, "float32", (3,), 4))])
    raw = _func.raw(op)
    args = []
    for k, x in zip(op.parameters, inputs(op, Draw(0, "float32", (3,), 4)), strict=True):
        if k in op.inputs and not isinstance(x, np.ndarray):
            x = np.asarray(x, np.float64) if x is not None else np.empty(0, np.float32)
        args.append(tensor(x))
    torch.library.opcheck(raw, tuple(args))


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=names)
def test_compile(op):
    torch._dynamo.reset()  # the operators share one function here, and dynamo recompiles it only so often
    args = leaves(op, inputs(op, Draw(0, "float64", (3,), 4)))
    scalars = args[op.n :]
    xs = [x.detach().requires_grad_() if isinstance(x, torch.Tensor) and x.requires_grad else x for x in args[: op.n]]

    def loss(*xs):
        return sum((y * y).sum() for y in several(op.torch((*xs, *scalars), {})) if y.is_floating_point())

    watched = [x for x in xs if isinstance(x, torch.Tensor) and x.requires_grad]
    want = torch.autograd.grad(loss(*xs), watched, allow_unused=True)
    got = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(*xs), watched, allow_unused=True)
    for g, w in zip(got, want, strict=True):
        assert (g is None) == (w is None)
        assert g is None or torch.allclose(g, w, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=names)
def test_what_cannot_be_differentiated_says_so(op):
    args = leaves(op, inputs(op, Draw(0, "float64", (3,), 4)))
    with pytest.raises(RuntimeError, match="out="):
        op.torch(tuple(args), {"out": torch.empty(3, 4, dtype=torch.float64)})
    if not twice(op):
        y = several(op.torch(tuple(args), {}))[0]
        watched = next(a for a in args if isinstance(a, torch.Tensor) and a.requires_grad)
        (first,) = torch.autograd.grad((y * y).sum(), [watched], create_graph=True)
        with pytest.raises(NotImplementedError, match=f"{op.name}: not differentiable twice"):
            torch.autograd.grad(first.sum(), [watched])
        # nor silently where the incoming gradient is a constant, unless the operator is linear
        (first,) = torch.autograd.grad(y.sum(), [watched], create_graph=True)
        seen = [a for k, a in zip(op.parameters, args, strict=True) if k in OPS[f"{op.key}_bwd"].inputs]
        if any(isinstance(a, torch.Tensor) and a.requires_grad for a in seen):
            with pytest.raises(NotImplementedError, match=f"{op.name}: not differentiable twice"):
                torch.autograd.grad(first.sum(), [watched])
    with (
        torch.autograd.forward_ad.dual_level(),
        pytest.raises(NotImplementedError, match="forward-mode"),
    ):
        op.torch(tuple(args), {})


@pytest.mark.parametrize("op", [op for op in ALL if op.vectors], ids=names)
def test_errors_have_their_type(op):
    args = [tensor(x) for x in inputs(op, Draw(0, "float32", (3,), 4))]
    with pytest.raises(TypeError, match=op.name):
        call(op, [args[0].int(), *args[1:]])
    with pytest.raises(TypeError, match=op.name):
        call(op, [args[0].to(torch.complex64), *args[1:]])
    for stray in (args[0].tolist(), None, 1.0):
        with pytest.raises(TypeError, match=f"{op.name}: {op.inputs[0]} must be"):
            call(op, [stray, *args[1:]])
    with pytest.raises(ValueError, match=op.name):
        call(op, [args[0].reshape(-1)[0], *args[1:]])
    for i in range(1, op.vectors):
        with pytest.raises(ValueError, match=op.name):
            call(op, [*args[:i], args[i][..., :-1], *args[i + 1 :]])
        with pytest.raises(TypeError, match=op.name):
            call(op, [*args[:i], args[i].double(), *args[i + 1 :]])


def test_a_family_owns_its_names():
    """In torch every name begins with the family's, so that two families may each have one: `dist`, to begin with. What serves
    all of them is one word."""
    _torch.register()
    ours = [name for name in torch._C._dispatch_get_all_op_names() if name.startswith("tersor::")]
    families = {op.family for op in OPS.values()}
    assert {f"tersor::{op.symbol}" for op in OPS.values()} <= set(ours)
    words = [name.removeprefix("tersor::").partition("_") for name in ours]
    assert {first for first, _, rest in words if rest} <= families
    assert {first for first, _, rest in words if not rest} <= {"disjoint"}
    assert _func.raw(OPS["hyperbolic.dist"]) is not _func.raw(OPS["lorentz.dist"])


@pytest.mark.parametrize("op", [op for op in ALL if op.vectors > 1 and not op.name.endswith("_bwd")], ids=names)
def test_an_exported_batch_is_of_any_size(op):
    """Where one row meets all, or a column of rows a row of them, the number of rows stays open."""
    args = [tensor(x) for x in inputs(op, Draw(3, "float64", (), 5))]

    class Module(torch.nn.Module):
        def forward(self, *rows):
            return op.torch((*rows, *args[op.vectors :]), {})

    def spread(n):
        first, *others = (x for x in args[: op.vectors])
        return torch.stack([first * k / n for k in range(1, n + 1)])[:, None], *[x.expand(1, 3, 5) for x in others]

    batch = torch.export.Dim("batch")
    shapes = ({0: batch}, *[None] * (op.vectors - 1))
    made = torch.export.export(Module(), spread(6), dynamic_shapes={"rows": shapes}, strict=False).module()
    for n in (6, 9):
        got, want = made(*spread(n)), Module()(*spread(n))
        for g, w in zip(*(y if isinstance(y, tuple) else (y,) for y in (got, want)), strict=True):
            assert g.shape[:2] == (n, 3) and torch.equal(g, w)


def test_transforms_of_transforms_again_and_again():
    """A number that was first met within a transform was kept with its level, which had ended at the next call."""
    x, y = (torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) * 0.4 for i in (0, 1))
    from tersor import hyperbolic, lorentz

    fs = (hyperbolic.dist2, hyperbolic.mobius_add, hyperbolic.cdist, lorentz.dist2, lorentz.cdist, hyperbolic.dist)
    for c, f in enumerate(fs):
        c = 0.7123 + c / 64  # no other test has met it
        whole = lambda a, f=f, c=c: f(a, y, c).square().sum()  # noqa: E731
        want = torch.autograd.functional.hessian(
            lambda a, f=f, c=c: f(a, y, torch.tensor(c, dtype=x.dtype)).square().sum(), x
        )
        for _ in range(2):
            torch.testing.assert_close(torch.func.jacrev(torch.func.jacrev(whole))(x), want, rtol=1e-9, atol=1e-9)
    with pytest.raises(NotImplementedError, match=r"dist: forward-mode .*jacrev twice is a Hessian"):
        torch.func.hessian(whole)(x)
