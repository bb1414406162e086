"""Rotations by Hadamard matrices: orthogonal ones, and folded into models that then give what they gave."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from tersor import _hadamard, quant  # noqa: E402
from tersor.quant.hadamard import drawn, order  # noqa: E402
from torch import nn  # noqa: E402

ORDERS = [1, 2, 4, 8, 12, 20, 24, 28, 36, 44, 52, 60, 64, 84, 92, 96, 100, 140, 148, 156, 172, 180, 256, 384]


@pytest.mark.parametrize("n", ORDERS)
def test_matrices_are_orthogonal(n):
    h = _hadamard.matrix(n)
    assert np.isin(h, (-1, 1)).all()
    np.testing.assert_array_equal(h @ h.T, n * np.eye(n))
    np.testing.assert_array_equal(quant.hadamard(np.eye(n)), h.T / np.sqrt(n) if n == 1 else h.T * (1 / np.sqrt(n)))


def test_orders_that_are_none():
    assert [n for n in range(1, 200) if not order(n)] == [n for n in range(3, 200) if n % 4 or n in (116, 188)]
    for n in (0, 3, 6, 116, 188):
        with pytest.raises(ValueError, match=f"hadamard: x has rows of {n}"):
            quant.hadamard(np.ones((2, n)))
    assert order(312) == 156 and order(11008) == 172 and order(4544) == 284 and order(2560) == 20


@settings(max_examples=25)
@given(
    st.sampled_from(ORDERS), st.integers(0, 2**40), st.sampled_from([0, 1, 3]), st.sampled_from(["float32", "float64"])
)
def test_there_and_back(n, seed, rows, dtype):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 2, n)).astype(dtype)
    s = drawn(n, seed)
    y = quant.hadamard(x, signs=s)
    assert y.shape == x.shape and y.dtype == x.dtype
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose((y.astype(float) ** 2).sum(-1), (x.astype(float) ** 2).sum(-1), rtol=32 * eps, atol=0)
    np.testing.assert_allclose(
        quant.hadamard(y, signs=s, transpose=True), x, atol=32 * eps * max(abs(x).max(initial=0), 1)
    )
    want = (x.astype(float) * s) @ _hadamard.matrix(n).T / np.sqrt(n)
    np.testing.assert_allclose(y, want, atol=32 * eps * np.sqrt(n))
    got = quant.hadamard(torch.from_numpy(x), signs=torch.from_numpy(s))
    np.testing.assert_allclose(got, y, atol=32 * eps * np.sqrt(n))


def test_tensors_of_float64_have_its_digits():
    """The factor of a row, which is no power of two of most orders, was rounded to torch's default type."""
    for n in (2, 12, 128):
        x = np.random.default_rng(n).standard_normal((3, n))
        x[1] *= 2.0**1020 / n  # which is made smaller on the way
        got = quant.hadamard(torch.from_numpy(x)).numpy()
        top = abs(x).max(1, keepdims=True)
        np.testing.assert_allclose(got / top, quant.hadamard(x) / top, rtol=1e-14, atol=1e-14)


def test_gradients_types_and_refusals():
    x = torch.randn(2, 12, dtype=torch.float64, requires_grad=True)
    s = torch.from_numpy(drawn(12))
    assert torch.autograd.gradcheck(lambda x: quant.hadamard(x, signs=s), x)
    for dtype in (torch.float16, torch.bfloat16):
        y = quant.hadamard(x.detach().to(dtype))
        assert y.dtype == dtype
        torch.testing.assert_close(y.double(), quant.hadamard(x.detach().to(dtype).double()), atol=0.02, rtol=0.01)
    assert quant.hadamard(np.ones((0, 4), np.float16)).dtype == np.float16
    with pytest.raises(TypeError, match="hadamard: x must be"):
        quant.hadamard(np.ones((2, 4), np.int32))
    with pytest.raises(ValueError, match="hadamard: x needs a last axis"):
        quant.hadamard(np.array(1.0))
    with pytest.raises(ValueError, match="hadamard: signs must be 4 numbers"):
        quant.hadamard(np.ones((2, 4)), signs=np.ones(3))
    with pytest.raises(ValueError, match="hadamard: signs must be 4 numbers"):
        quant.hadamard(np.ones((2, 4)), signs=np.zeros(4))
    with pytest.raises(TypeError, match="hadamard: signs must be"):
        quant.hadamard(np.ones((2, 4)), signs=s)
    with pytest.raises(TypeError, match="hadamard: transpose"):
        quant.hadamard(np.ones((2, 4)), transpose="yes")


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_what_fits_its_type_is_turned_within_it(dtype):
    kind = getattr(torch, dtype)
    top = 2.0 ** (1023 if dtype == "float64" else 127)
    for n in (4, 12, 4096):
        rows = torch.ones(3, n, dtype=torch.float64)
        rows[1] = torch.from_numpy(drawn(n))
        rows[2, 1:] = 0
        for transpose in (False, True):
            want = quant.hadamard(rows, transpose=transpose) / n  # at most 1, of numbers of 1 / n
            big = rows.to(kind) * (top / n)
            for x in (big, big.float().numpy()) if dtype != "float64" else (big, big.numpy()):
                got = torch.as_tensor(quant.hadamard(x, transpose=transpose)).double() / top
                torch.testing.assert_close(got, want, rtol=2**-7 if dtype == "bfloat16" else 1e-5, atol=2**-20)
            # a row beside them has the bits that it has alone, and the least numbers keep theirs
            least = torch.zeros(1, n, dtype=kind)
            least[0, 0] = torch.finfo(kind).tiny
            both = quant.hadamard(torch.cat([big, least]), transpose=transpose)[-1]
            assert torch.equal(both, quant.hadamard(least, transpose=transpose)[0])
            assert both.count_nonzero() == n
    beyond = quant.hadamard(torch.full((1, 4), top, dtype=kind) * 1.5)
    assert beyond[0].isinf().tolist() == [True, False, False, False] and beyond[0, 1:].eq(0).all()


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.int64])
def test_signs_may_be_integers(kind):
    x, s = np.random.default_rng(0).standard_normal((3, 12)).astype(np.float32), drawn(12)
    for made in (np.asarray, torch.as_tensor):
        for transpose in (False, True):
            got = quant.hadamard(made(x), signs=made(s.astype(kind)), transpose=transpose)
            want = quant.hadamard(made(x), signs=made(s.astype(np.float32)), transpose=transpose)
            assert np.array_equal(got, want)
        with pytest.raises(ValueError, match="hadamard: signs must be 12 numbers of 1 and -1"):
            quant.hadamard(made(x), signs=made(np.full(12, -128, kind)))


def test_signs_are_taken_by_traces_and_products_stay_whole_under_autocast():
    x, s = torch.randn(3, 24), torch.from_numpy(drawn(24)).float()
    want = quant.hadamard(x, signs=s)
    compiled = torch.compile(lambda x, s: quant.hadamard(x, signs=s), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, s), want)
    torch.testing.assert_close(torch.vmap(lambda x, s: quant.hadamard(x, signs=s), (0, None))(x, s), want)
    assert quant.hadamard(x.to("meta"), signs=s.to("meta")).shape == x.shape
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(quant.hadamard(x, signs=s), want)


def test_signs_are_those_of_a_rademacher_matrix():
    s = drawn(300, seed=2**33 + 5)
    assert set(s) == {-1.0, 1.0} and 100 < (s == 1).sum() < 200
    np.testing.assert_array_equal(drawn(128, 7), drawn(300, 7)[:128])
    from tersor.project import Projection

    column = Projection(1, 300, "rademacher", seed=2**33 + 5) @ np.eye(1)
    np.testing.assert_array_equal(np.sign(np.asarray(column).reshape(-1)), s)


def turned(name, scheme="int8-row-gptq", **options):
    """A small model of transformers, calibrated after it was turned; what it gave, and gives."""
    pytest.importorskip("transformers")
    from architectures import build

    torch.manual_seed(0)
    model = build(name).eval()
    with torch.no_grad():
        for p in model.parameters():  # norms that do something
            if p.ndim == 1:
                p += 0.1 * torch.randn_like(p)
    ids = torch.randint(0, 90, (4, 16))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        before = model(**batch)[0]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    made = quant.calibrate(model, [batch], scheme, rotate=True, **options)
    with torch.no_grad():
        after = model(**batch)[0]
    return model, state, made, before, after


@pytest.mark.parametrize("name", ["llama", "qwen3", "mistral", "phi3"])
def test_what_blocks_add_to_is_turned_as_a_whole(name):
    model, state, made, before, after = turned(name)
    assert not made.unrotated and all("stream" in how for how in made.rotated.values())
    assert (after - before).norm() < 0.01 * before.norm()
    for layer in made.layers:
        assert not torch.allclose(model.get_submodule(layer).weight, state[f"{layer}.weight"], atol=0.01)
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, state[k])}
    assert changed == {*made.touched, *(f"{layer}.weight" for layer in made.layers)}
    assert "model.embed_tokens.weight" in made.touched
    for norm in ("model.norm.weight", "model.layers.0.input_layernorm.weight"):
        assert (model.get_parameter(norm) == 1).all()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("qwen2", "are one weight"),
        ("bert base", "no norm without a mean"),
        ("gemma", "are one weight"),
        ("opt", "no norm"),
    ],
)
def test_what_cannot_be_turned_is_left_and_said(name, said):
    model, state, made, before, after = turned(name)
    assert (after - before).norm() < 0.01 * before.norm()
    assert made.unrotated and all(said in why for why in made.unrotated.values())
    assert made.rotated.keys().isdisjoint(made.unrotated) and made.rotated.keys() | made.unrotated.keys() >= {
        *made.layers
    }
    assert all(how == "heads of 16" for how in made.rotated.values())
    for k, v in model.state_dict().items():
        if k not in made.touched and not any(k == f"{layer}.weight" for layer in made.layers):
            assert torch.equal(v, state[k])


@pytest.mark.parametrize("name", ["mixtral", "granite-moe", "deepseek-v3"])
def test_in_sixteen_bits_what_is_not_turned_is_seen_too(name):
    """Experts that read what blocks add to give little more than what bfloat16 rounds."""
    pytest.importorskip("transformers")
    from architectures import build

    torch.manual_seed(0)
    model = build(name).eval().bfloat16()
    ids = torch.randint(3, 90, (4, 16))
    made = quant.calibrate(model, [{"input_ids": ids}], "int8-row-gptq", rotate=True)
    assert not any("stream" in how for how in made.rotated.values())
    assert any("may read or write what blocks add to" in why for why in made.unrotated.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_sixteen_bits_heads_are_those_of_values(dtype):
    """What another linear layer gives, turned instead, changes less than 16 bits round; a turn that nothing rounds tells."""
    pytest.importorskip("transformers")
    from architectures import build

    torch.manual_seed(0)
    model = build("opt").eval().to(dtype)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 1:
                p += 0.1 * torch.randn_like(p)
    made = quant.calibrate(model, [{"input_ids": torch.randint(3, 90, (4, 16))}], "int8-row-gptq", rotate=True)
    assert all(how == "heads of 16" for how in made.rotated.values())
    assert {k.split(".")[-1] for k in made.rotated} == {"out_proj"}
    assert {k.split(".")[-2] for k in made.touched} == {"v_proj"}


class _Norm(nn.Module):
    def __init__(self, n, plus):
        super().__init__()
        self.weight, self.plus = nn.Parameter(1 + 0.04 * torch.randn(n)), plus

    def forward(self, x):
        h = x.float()
        h = h * torch.rsqrt(h.square().mean(-1, keepdim=True) + 1e-6)
        return (h * (self.weight.float() + self.plus)).to(x.dtype)


class _Reader(nn.Module):
    def __init__(self, n, plus):
        super().__init__()
        self.table, self.norm, self.last = nn.Embedding(50, n), _Norm(n, plus), _Norm(n, plus)
        self.up, self.down, self.head = (nn.Linear(a, b, bias=False) for a, b in ((n, 96), (96, n), (n, 50)))

    def forward(self, ids):
        x = self.table(ids)
        return self.head(self.last(x + self.down(torch.relu(self.up(self.norm(x))))))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("plus", [0, 1])
def test_what_norms_multiply_with_is_told_of_weights_around_one_too(plus, dtype):
    """Of these 2 w is 1 + w up to what 16 bits may hide."""
    torch.manual_seed(0)
    model, ids = _Reader(64, plus).to(dtype), torch.randint(0, 50, (2, 8))
    with torch.no_grad():
        before = model(ids).float()
        made = quant.calibrate(model, [ids], "int8-row-gptq", rotate=True)
        after = model(ids).float()
    assert set(made.rotated.values()) == {"stream"}
    assert (model.norm.weight == 1 - plus).all() and (model.last.weight == 1 - plus).all()
    assert (after - before).norm() < 0.01 * before.norm()


class _Groups(nn.Module):
    """A norm over each half of what blocks add to: a turn of the whole changes 3 % of what it gives."""

    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(1 + 0.04 * torch.randn(n))

    def forward(self, x):
        h = x.float().reshape(*x.shape[:-1], 2, -1)
        h = h * torch.rsqrt(h.square().mean(-1, keepdim=True) + 1e-6)
        return (h.reshape(x.shape) * self.weight.float()).to(x.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_norms_of_groups_are_not_turned_in_sixteen_bits_either(dtype):
    torch.manual_seed(0)
    model, ids = _Reader(1024, 0), torch.randint(0, 50, (2, 8))
    model.norm, model.last = _Groups(1024), _Groups(1024)
    model.register_buffer("unused", torch.ones(3))
    model = model.to(dtype)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    made = quant.calibrate(model, [ids], "int8-row-gptq", rotate=True)
    assert not made.rotated and "something else than norms" in made.unrotated["up"]
    coded = {f"{name}.weight" for name in made.layers}
    assert {k: v.dtype for k, v in model.state_dict().items()} == {k: v.dtype for k, v in state.items()}
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items() if k not in coded)


def test_a_model_that_runs_in_its_own_type_alone_is_turned_as_far_as_that_shows():
    class Own(_Norm):
        def forward(self, x):
            if x.dtype != torch.bfloat16:
                raise TypeError("bfloat16 alone")
            return super().forward(x)

    torch.manual_seed(0)
    model, ids = _Reader(64, 0), torch.randint(0, 50, (2, 8))
    model.norm, model.last = Own(64, 0), Own(64, 0)
    model = model.bfloat16()
    with torch.no_grad():
        want = model(ids).float()
        made = quant.calibrate(model, [ids], "int8-row-gptq", rotate=True)
        assert (model(ids).float() - want).norm() < 0.02 * want.norm()
    assert set(made.rotated.values()) == {"stream"} and all(p.dtype == torch.bfloat16 for p in model.parameters())


def test_what_the_first_batch_does_not_reach_is_not_turned_away():
    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(1 + 0.2 * torch.randn(32))

        def forward(self, x):
            return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)

    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.norm = nn.Embedding(50, 32), Norm()
            self.heads = nn.ModuleList(nn.Linear(32, 5) for _ in range(2))

        def forward(self, ids, head):
            return self.heads[head](self.norm(self.table(ids)))

    torch.manual_seed(0)
    model = Heads().eval()
    batches = [(torch.arange(50)[None], head) for head in (0, 1)]
    with torch.no_grad():
        want = [model(*batch) for batch in batches]
        made = quant.calibrate(model, batches, "int8-row-gptq", rotate=True)
        for batch, y in zip(batches, want, strict=True):
            assert (model(*batch) - y).norm() < 0.01 * y.norm()
    assert "heads.1 may read or write" in made.unrotated["heads.0"] and not made.touched


def test_outliers_lose_less_of_four_bits():
    """Inputs and weights with a few large columns, as large models have them."""
    pytest.importorskip("transformers")
    from architectures import build

    lost = {}
    for rotate in (False, True):
        torch.manual_seed(0)
        model = build("llama").eval()
        with torch.no_grad():
            for layer in model.model.layers:
                for m in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.mlp.up_proj, layer.mlp.gate_proj):
                    m.weight.normal_(0, 0.1)
                    m.weight[:, ::16] *= 12
        ids = torch.randint(0, 90, (8, 24))
        with torch.no_grad():
            want = model(input_ids=ids)[0]
            quant.calibrate(model, [{"input_ids": ids}], "int4-row-gptq", rotate=rotate)
            lost[rotate] = float((model(input_ids=ids)[0] - want).norm() / want.norm())
    assert lost[True] < 0.8 * lost[False], lost


def test_an_error_leaves_a_model_as_it_was():
    pytest.importorskip("transformers")
    from architectures import build

    model = build("llama").eval()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    ids = torch.arange(12)[None]

    def broken(batch):
        raise KeyError("weights")

    with pytest.raises(KeyError):
        quant.calibrate(model, [{"input_ids": ids}], "int8-row-gptq", rotate=True, weights=broken)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    with pytest.raises(TypeError, match="calibrate: rotate"):
        quant.calibrate(nn.Linear(4, 4), [torch.ones(1, 4)], "int8-row-gptq", rotate="yes")


def test_a_turned_model_is_read_by_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("compressed_tensors")
    from tersor.convert import load, quantize_safetensors
    from test_calibrate import TEXTS, folder

    folder(tmp_path / "in", "llama")
    made = quantize_safetensors(tmp_path / "in", tmp_path / "out", "int8-row-gptq", calibration=TEXTS[:20], rotate=True)
    assert made.rotated and not made.unrotated and made.choice.dense
    # a layer that is turned without being quantized goes along, and so do codes of what is only rounded
    left = quantize_safetensors(
        tmp_path / "in",
        tmp_path / "few",
        "int8-row-gptq",
        calibration=TEXTS[:20],
        rotate=True,
        exclude=["*q_proj", "lm_head"],
    )
    assert left.rotated.keys() == {k for k in made.rotated if "q_proj" not in k and "lm_head" not in k}
    models = [
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / k, local_files_only=True).eval()
        for k in ("in", "out", "few")
    ]
    ids = torch.arange(3, 30)[None]
    with torch.no_grad():
        want, *got = (m(input_ids=ids)[0] for m in models)
    for y in got:
        assert torch.nn.functional.cosine_similarity(y, want, dim=-1).min() > 0.999
    assert not np.allclose(
        load(tmp_path / "out")["model.embed_tokens.weight"], load(tmp_path / "in")["model.embed_tokens.weight"]
    )
    with pytest.raises(ValueError, match="rotate goes with calibration"):
        quantize_safetensors(tmp_path / "in", tmp_path / "no", "int8-row", rotate=True)


def test_a_table_that_leaves_float16_when_it_is_turned_is_refused(tmp_path):
    pytest.importorskip("compressed_tensors")
    from safetensors.torch import load_file, save_file
    from tersor.convert import quantize_safetensors
    from test_calibrate import TEXTS, folder

    folder(tmp_path / "in", "llama", torch.float16)
    path = tmp_path / "in/model.safetensors"
    tensors = load_file(path)
    tensors["model.embed_tokens.weight"][5] = 40000
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(ValueError, match=r"'model.embed_tokens.weight': .*beyond F16"):
        quantize_safetensors(tmp_path / "in", tmp_path / "out", "int8-row-gptq", calibration=TEXTS[:5], rotate=True)
    assert not (tmp_path / "out").exists()
