"""Experts of mixtures as layers. The one rule: what transformers' own module gives with the decoded weights is what the layer
gives, and what is not one of its common forwards stays dense and is named."""

import copy
import pickle
import re
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from architectures import build, inputs  # noqa: E402
from tersor import nn as tnn  # noqa: E402
from tersor import quant  # noqa: E402
from tersor.convert import load_encoded, quantize_safetensors  # noqa: E402
from tersor.nn._experts import codes_of_experts  # noqa: E402

MODELS = transformers.models
#: a class of each kind: plain; transposed; biases, transposed, gate and rest in turns; the same, side by side; no gate; a norm
KINDS = {
    "mixtral": "MixtralExperts",
    "aria": "AriaExperts",
    "gpt_oss": "GptOssExperts",
    "openai_privacy_filter": "OpenAIPrivacyFilterExperts",
    "nemotron_h": "NemotronHExperts",
    "muse_spark": "MuseSparkExperts",
    "deepseek_v3": "DeepseekV3Experts",
    "minimax_m3_vl": "MiniMaxM3VLExperts",
}
CONFIG = {
    **dict.fromkeys(("num_local_experts", "moe_num_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("hidden_size", "moe_hidden_size"), 16),
    **dict.fromkeys(("intermediate_size", "moe_intermediate_size"), 32),
    **dict.fromkeys(("hidden_act", "mlp_hidden_act"), "silu"),
    **dict.fromkeys(("swiglu_alpha", "swiglu_limit"), 1.7),
    "moe_latent_size": None,
    "post_norm_eps": 1e-6,
    "_experts_implementation": "eager",
}
#: some of whose steps are in float32 whatever is given
INEXACT = ("openai_privacy_filter", "muse_spark")
EVERY = pytest.mark.parametrize("kind", list(KINDS))


def experts(kind, seed=0):
    module = pytest.importorskip(f"transformers.models.{kind}.modeling_{kind}")
    made = getattr(module, KINDS[kind])(SimpleNamespace(**CONFIG)).eval()
    generator = torch.Generator().manual_seed(seed)
    for p in made.parameters():
        torch.nn.init.normal_(p, std=0.3, generator=generator)
    return made


def given(tokens=11, dtype=torch.float32):
    g = torch.Generator().manual_seed(1)
    chosen = (
        torch.stack([torch.randperm(4, generator=g)[:2] for _ in range(tokens)]) if tokens else torch.empty(0, 2).long()
    )
    return torch.randn(tokens, 16, generator=g).to(dtype), chosen, torch.rand(tokens, 2, generator=g).to(dtype)


@EVERY
@pytest.mark.parametrize("options", [{}, {"release": True}], ids=["kept", "released"])
@pytest.mark.parametrize("scheme", ["int8-row", "int4-g16", "nf4-g16"])
def test_each_kind_gives_what_its_dense_module_gives(kind, scheme, options):
    dense = experts(kind)
    state = {k: v.clone() for k, v in dense.state_dict().items()}
    layer = tnn.QuantExperts.from_float(dense, scheme, **options)
    assert all(torch.equal(v, state[k]) for k, v in dense.state_dict().items()) and len(state) == len(
        dense.state_dict()
    )
    back = layer.dense()
    assert type(back) is type(dense) and {k: v.shape for k, v in back.state_dict().items()} == {
        k: v.shape for k, v in state.items()
    }
    for k, v in back.state_dict().items():  # codes along inputs, each row (or column) near to what it was
        assert (v - state[k]).abs().max() <= {"int8-row": 0.006, "int4-g16": 0.1, "nf4-g16": 0.2}[scheme] * 1.5
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        q, (x, chosen, weight) = copy.deepcopy(layer).to(dtype), given(dtype=dtype)
        d = q.dense()
        x, other = x.requires_grad_(), x.detach().clone().requires_grad_()
        w, w2 = weight.requires_grad_(), weight.detach().clone().requires_grad_()
        got, want = q(x, chosen, w), d(other, chosen, w2)
        exact = 1e-5 if kind in INEXACT else 1e-12
        rtol = {torch.float32: 1e-5, torch.float64: exact, torch.bfloat16: 0.03}[dtype]
        assert got.dtype == dtype and (got - want).abs().max() <= rtol * want.abs().max()
        for a, b in zip(
            torch.autograd.grad(got.square().sum(), (x, w)),
            torch.autograd.grad(want.square().sum(), (other, w2)),
            strict=True,
        ):
            assert (a - b).abs().max() <= 3 * rtol * b.abs().max()


@EVERY
def test_copies_states_and_tokens_of_any_number(kind):
    layer, other = (tnn.QuantExperts.from_float(experts(kind, seed), "int4-row") for seed in (0, 1))
    call = given()
    want = layer(*call)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(*call), want) and not torch.equal(other(*call), want)
    st = pytest.importorskip("safetensors.torch")
    assert str(other.load_state_dict(st.load(st.save(layer.state_dict())))) == "<All keys matched successfully>"
    assert torch.equal(other(*call), want)
    with pytest.raises(RuntimeError, match="encoded as int4-row"):
        tnn.QuantExperts.from_float(experts(kind), "int8-row").load_state_dict(layer.state_dict())
    for tokens in (0, 1):
        assert layer(*given(tokens)).shape == (tokens, 16)
    x, chosen, weight = call
    alone = torch.cat([layer(x[i : i + 1], chosen[i : i + 1], weight[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(alone, want, rtol=1e-5, atol=1e-6)
    none = torch.full_like(chosen, 4)  # as many as there are experts: none of them
    assert not layer(x, none, weight).any()
    first = layer(x, torch.cat([chosen[:, :1], none[:, 1:]], 1), weight)
    torch.testing.assert_close(first, layer(x, chosen[:, :1], weight[:, :1]), rtol=1e-6, atol=1e-7)
    for bad in (-1, 5):
        with pytest.raises(IndexError, match=r"QuantExperts: experts .* are chosen, there are 4"):
            layer(x, torch.full_like(chosen, bad), weight)


def test_activations_are_rounded_and_autocast_lowers_products():
    dense = experts("mixtral")
    layer, exact = (tnn.QuantExperts.from_float(dense, "int8-row", a) for a in ("int8", "float"))
    got, want = layer(*given()), exact(*given())
    assert 0 < (got - want).abs().max() < 0.03 * want.abs().max()
    x, chosen, weight = given()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = exact(x, chosen, weight)
    assert low.dtype == torch.float32 and (low - want).abs().max() < 0.03 * want.abs().max()


@pytest.mark.parametrize("name", ["mixtral", "qwen2-moe", "granite-moe", "granite-moe shared", "phimoe", "deepseek-v3"])
def test_whole_models_and_back(name):
    model = build(name)
    places = {k for k, m in model.named_modules() if type(m).__name__.endswith("Experts")}
    made = tnn.convert(model, "int8-row", release=True)
    assert places and places <= set(made.converted)
    assert not any("experts in one tensor" in why for why in made.left.values())
    call = inputs(name)
    state = model.state_dict()
    assert not any(k.endswith(("gate_up_proj", "down_proj")) for k in state)
    twin = build(name)
    tnn.convert(twin, "int8-row")
    twin.load_state_dict(state)
    with torch.no_grad():
        coded, again = model(**call).logits, twin(**call).logits
        assert tnn.convert(model, "dense").converted == made.converted
        dense = model(**call).logits
    assert torch.equal(coded, again)
    assert not any(isinstance(m, tnn.QuantLinear) for m in model.modules())
    assert build(name).state_dict().keys() == model.state_dict().keys()
    torch.testing.assert_close(coded, dense, rtol=1e-4, atol=1e-5)


def folder(path, name):
    build(name).save_pretrained(path)
    return path


@pytest.mark.parametrize("name", ["mixtral", "qwen2-moe", "granite-moe", "deepseek-v3"])
def test_codes_of_files_become_experts(tmp_path, name):
    pytest.importorskip("compressed_tensors")
    source = folder(tmp_path / "source", name)
    quantize_safetensors(source, tmp_path / "out", "int4-g32", experts=True)
    codes, model = load_encoded(tmp_path / "out"), build(name)
    places = {k for k, m in model.named_modules() if type(m).__name__.endswith("Experts")}
    made = tnn.convert(model, codes)
    assert places and places <= set(made.converted)
    assert not [why for why in made.left.values() if "codes" in why]
    model2 = build(name)
    tnn.convert(model2, "int4-g32", include=made.converted)
    with torch.no_grad():
        got, want = model(**inputs(name)).logits, model2(**inputs(name)).logits
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    # a part of them is not enough, and is said
    one = next((k for k in codes if ".experts.0." in k), None)
    assert (one is None) == (name == "granite-moe")
    if one is not None:
        fewer = build(name)
        left = tnn.convert(fewer, {k: v for k, v in codes.items() if k != one}).left
        assert sum("no codes of its expert 0" in why for why in left.values()) == 1


def test_codes_along_outputs_and_of_other_shapes_are_refused_by_name():
    model = torch.nn.ModuleDict({"experts": experts("gpt_oss"), "l": torch.nn.Linear(16, 16)})
    gate = quant.encode(torch.randn(4, 16, 64), "int8-row")
    down = quant.encode(torch.randn(4, 32, 16), "int8-row")
    plain = {"l.weight": quant.encode(torch.randn(16, 16), "int8-row")}
    made = tnn.convert(model, {"experts.gate_up_proj": gate, "experts.down_proj": down, **plain})
    assert made.converted == ("l",) and "the scales of outputs" in made.left["experts"]
    model = torch.nn.ModuleDict({"experts": experts("mixtral")})
    left = tnn.convert(model, {"x.experts.gate_up_proj": gate, "x.experts.down_proj": down}).left
    assert "gate_up_proj are of shape (4, 16, 64), the weight is (4, 64, 16)" in left["experts"]
    with pytest.raises(ValueError, match="once more"):
        tnn.convert(model, {"x.experts.gate_up_proj": gate, "y.experts.gate_up_proj": gate})
    both = torch.nn.ModuleDict({"a": model, "b": torch.nn.ModuleDict({"experts": experts("mixtral", 1)})})
    left = tnn.convert(both, {"experts.gate_up_proj": gate, "a.experts.down_proj": down}).left
    assert left["experts.gate_up_proj"] == "codes that may be of a.experts or b.experts"
    assert codes_of_experts(model, {}, plain, {}) == ({}, plain)


def test_one_by_one_in_two_schemes_is_said():
    model = torch.nn.ModuleDict({"experts": experts("mixtral")})
    codes = {}
    for i in range(4):
        for part, shape in (("w1", (32, 16)), ("w3", (32, 16)), ("w2", (16, 32))):
            scheme = "int4-row" if (i, part) == (2, "w3") else "int8-row"
            codes[f"experts.{i}.{part}.weight"] = quant.encode(torch.randn(*shape), scheme)
    left = tnn.convert(model, codes).left
    assert left["experts"] == "codes of its expert 2 are int8-row and int4-row, which are not one's rows"
    codes["experts.2.w3.weight"] = quant.encode(torch.randn(32, 16), "int8-row")
    assert tnn.convert(model, codes).converted == ("experts",)
    assert torch.equal(model["experts"].up[2].weight[32:], quant.decode(codes["experts.2.w3.weight"]))


def test_patterns_groups_and_what_is_refused():
    model = torch.nn.ModuleDict({"experts": experts("mixtral"), "other": experts("aria", 1)})
    made = tnn.convert(model, "int8-row", exclude=["*.gate_up_proj"])
    assert made.left["experts"] == "excluded" and not made.converted
    assert tnn.convert(model, "int8-row", include=["other"]).left["experts"] == "not included"
    made = tnn.convert(model, "int4-g32")
    assert made.left["experts"] == "groups of 32 do not divide a last axis of 16"
    made = tnn.convert(model, "int4-g32", fallback=True)
    assert made.converted == ("experts",) and made.smaller == {"experts.gate_up_proj": "int4-g16"}
    assert "looked at for zeros" in tnn.convert(torch.nn.Sequential(experts("mixtral")), "sparse").left["0"]
    hooked, replaced, odd = experts("mixtral"), experts("mixtral"), experts("mixtral")
    hooked.register_forward_hook(lambda *_: None)
    replaced.forward = lambda *_: None
    odd.extra = torch.nn.Parameter(torch.zeros(2))
    left = tnn.convert(torch.nn.ModuleList([hooked, replaced, odd]), "int8-row").left
    assert "has a forward hook" in left["0"] and "has been replaced" in left["1"] and "extra" in left["2"]
    for wrong, why in ((torch.nn.Linear(2, 2), "a known forward"), (hooked, "forward hook"), (3, "a known forward")):
        with pytest.raises(TypeError, match=rf"QuantExperts\.from_float: .*{why}"):
            tnn.QuantExperts.from_float(wrong, "int8-row")
    for itself in (experts("mixtral"), tnn.QuantExperts.from_float(experts("mixtral"), "int8-row")):
        with pytest.raises(TypeError, match="itself; use"):
            tnn.convert(itself, "int8-row")
    codes = quant.encode(torch.randn(64, 16), "int8-row")
    with pytest.raises(ValueError, match=r"QuantExperts.of: gate_up_proj is of 4 experts, codes of 1"):
        tnn.QuantExperts.of([codes], [], experts("mixtral"))
    with pytest.raises(ValueError, match="of as many experts"):
        tnn.QuantExperts([], [tnn.QuantLinear(codes)], torch.nn.Module())


def test_a_frozen_bias_stays_frozen():
    dense = experts("gpt_oss")
    dense.down_proj_bias.requires_grad_(False)
    layer = tnn.QuantExperts.from_float(dense, "int8-row")
    grads = {k: p.requires_grad for k, p in layer.named_parameters()}
    assert grads["up.0.bias"] and not grads["down.0.bias"] and len(grads) == 8
    assert not layer.dense().down_proj_bias.requires_grad and layer.dense().gate_up_proj_bias.requires_grad


def test_tokens_experts_and_weights_go_together():
    layer = tnn.QuantExperts.from_float(experts("mixtral"), "int8-row")
    x, chosen, weights = given(6)
    for wrong in ((x, chosen[:3], weights[:3]), (x, chosen, weights[:, :1]), (x[:3], chosen, weights)):
        with pytest.raises(ValueError, match=r"^QuantExperts: tokens, their experts and weights do not go together: "):
            layer(*wrong)
    with pytest.raises(TypeError, match=r"^QuantExperts: top_k_index must be of integers, got float32"):
        layer(x, chosen.float(), weights)
    with pytest.raises(
        ValueError, match=r"^QuantExperts: the last axis of the input must have \d+ elements, got shape \(6, 5\)"
    ):
        layer(x[:, :5], chosen, weights)
    with pytest.raises(TypeError, match=r"^QuantExperts: the input must be a torch tensor, got ndarray"):
        layer(x.numpy(), chosen, weights)
    with pytest.raises(TypeError, match=r"^QuantExperts: up must be QuantLinear layers, got Linear"):
        tnn.QuantExperts([torch.nn.Linear(2, 2)], layer.down, layer.frame)
    with pytest.raises(TypeError, match=r"^QuantExperts: frame must be a module of experts, got str"):
        tnn.QuantExperts(layer.up, layer.down, "mixtral")


def test_tokens_without_an_expert_have_gradients_of_zero():
    layer = tnn.QuantExperts.from_float(experts("mixtral"), "int8-row")
    x, chosen, weights = (t.requires_grad_(t.is_floating_point()) for t in given(6))
    y = layer(x, torch.full_like(chosen, 4), weights)
    assert not y.any() and y.shape == x.shape
    for slope in torch.autograd.grad(y.sum(), (x, weights)):
        assert not slope.any()


def test_experts_one_below_the_other_are_named():
    """DBRX has those of a layer in matrices [experts · rows, columns], which no module of linear layers is."""
    mod = pytest.importorskip("transformers.models.dbrx.modeling_dbrx")
    config = SimpleNamespace(hidden_size=16, ffn_hidden_size=32, moe_num_experts=4, ffn_act_fn={"name": "silu"})
    model = torch.nn.Sequential(mod.DbrxExperts(config), torch.nn.Linear(16, 16))
    made = tnn.convert(model, "int8-row")
    said = "forward of DbrxExpertGLU reads in a way of its own"
    assert made.converted == ("1",) and said in made.left["0.mlp"]


def graphed(layer, backend="aot_eager"):
    torch._dynamo.reset()  # each case is a function of its own
    return torch.compile(layer, fullgraph=True, dynamic=True, backend=backend)


def both(layer, dtype, backend="aot_eager"):
    """Results and gradients with and without a graph, of tokens of which one has no expert at its second place."""
    found = []
    trained = [p for p in layer.parameters() if p.requires_grad]
    for call in (graphed(layer, backend), layer):
        x, chosen, weight = given(dtype=dtype)
        chosen = chosen.clone()
        chosen[2, 1] = 4
        x, weight = x.requires_grad_(), weight.requires_grad_()
        y = call(x, chosen, weight)
        found.append((y, *torch.autograd.grad(y.square().sum(), (x, weight, *trained), allow_unused=True)))
    return found


@pytest.mark.parametrize(
    ("kind", "scheme", "options", "dtype"),
    [
        *((kind, "int4-g16", {}, torch.float32) for kind in KINDS),
        ("gpt_oss", "int4-g16", {}, torch.bfloat16),
        ("gpt_oss", "int8-row", {"activations": "int8"}, torch.float32),
        ("mixtral", "int8-row", {"activations": "int8"}, torch.float64),
        ("mixtral", "nf4-g16", {}, torch.float32),
        ("gpt_oss", "nf4-g16-nested", {}, torch.float64),
        ("muse_spark", "uint4-g16", {}, torch.float64),
        ("mixtral", "uint4-g16", {"release": True}, torch.float32),
    ],
)
def test_a_graph_holds_them_whole(kind, scheme, options, dtype):
    layer = tnn.QuantExperts.from_float(experts(kind), scheme, **options).to(dtype)
    exact = 1e-5 if kind in INEXACT else 1e-12
    eps = {torch.float32: 1e-5, torch.float64: exact, torch.bfloat16: 0.03}[dtype]
    for got, want in zip(*both(layer, dtype), strict=True):
        want = torch.zeros_like(got) if want is None else want
        assert got.dtype == want.dtype and got.shape == want.shape
        assert (got - want).abs().max() <= eps * max(float(want.abs().max()), 1e-3)


def test_a_graph_refuses_as_a_plain_call():
    layer = tnn.QuantExperts.from_float(experts("mixtral"), "int4-g16")
    x, chosen, weight = given()
    for bad in (
        (x[:, :-1], chosen, weight),
        (x, chosen[:-1], weight),
        (x, chosen, weight[:, :1]),
        (x, chosen.float(), weight),
        (x.int(), chosen, weight),
        (x, torch.full_like(chosen, 5), weight),
        (x, torch.full_like(chosen, -1), weight),
    ):
        with pytest.raises((TypeError, ValueError, IndexError)) as plain:
            layer(*bad)
        with pytest.raises(Exception, match=re.escape(str(plain.value))) as graph:
            graphed(layer)(*bad)
        assert type(plain.value).__name__ in f"{type(graph.value).__name__} {graph.value}"


def test_compiled_by_inductor_for_any_number_of_tokens_and_under_autocast():
    layer = tnn.QuantExperts.from_float(experts("mixtral"), "int4-g16")
    for got, want in zip(*both(layer, torch.float32, "inductor"), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    call = graphed(layer)
    for n in (11, 5, 0, 1):
        torch.testing.assert_close(call(*given(n)), layer(*given(n)), rtol=1e-5, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        got, want = call(*given()), layer(*given())
    assert got.dtype == want.dtype
    torch.testing.assert_close(got, want, rtol=0.03, atol=0.03)
    x, chosen, weight = given()
    for wrong in (5, -1):
        bad = chosen.clone()
        bad[3, 1] = wrong
        with pytest.raises(IndexError, match="QuantExperts: experts"):
            call(x, bad, weight)
    layer.load_state_dict(tnn.QuantExperts.from_float(experts("mixtral", 1), "int4-g16").state_dict())
    torch.testing.assert_close(call(x, chosen, weight), layer(x, chosen, weight), rtol=1e-5, atol=1e-6)


def test_the_operator_of_all_experts_is_what_torch_asks_of_one():
    from tersor.nn import _grouped

    layer = tnn.QuantExperts.from_float(experts("mixtral"), "int4-g16")
    rows, chosen = torch.randn(6, 16, requires_grad=True), torch.tensor([0, 0, 1, 3, 3, 4])
    up = list(layer.up)
    for args in (
        ([m.panels for m in up], [], [], [], "", [*map(int, up[0]._sizes)], False),
        ([m.data for m in up], [m.scale for m in up], [], [], "int4-g16", [64, 16], False),
    ):
        torch.library.opcheck(_grouped.grouped, (rows, chosen, *args))
    # of several schemes there is none: the graph breaks, and what comes out is the same
    other = tnn.QuantExperts.from_float(experts("mixtral"), "int8-row")
    mixed = tnn.QuantExperts([*layer.up[:2], *other.up[2:]], layer.down, layer.frame)
    assert not _grouped.alike(mixed.up) and _grouped.alike(mixed.down)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(mixed, backend="aot_eager")(*given()), mixed(*given()))


def test_a_whole_mixture_compiles_as_far_as_its_dense_model():
    model, ids = build("mixtral"), torch.arange(3, 30)[None]
    torch._dynamo.reset()
    tnn.convert(model, "int8-row")
    with torch.no_grad():
        want = model(ids)[0]
        told = torch._dynamo.explain(model)(ids, use_cache=False)
        got = torch.compile(model, backend="aot_eager")(ids, use_cache=False)[0]
    assert not any("expert" in str(why.user_stack) for why in told.break_reasons)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
