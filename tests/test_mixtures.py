"""Experts that lie in one tensor, calibrated. The one rule: each has the codes that it would have as a layer of its own, of the
rows that are routed to it, and one of too few rows has the nearest codes and is named."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from tersor import convert, quant  # noqa: E402
from tersor import nn as tnn  # noqa: E402
from tersor._routed import matrix, projections  # noqa: E402
from tersor.quant import _mixtures  # noqa: E402
from test_experts import experts as made_of  # noqa: E402
from torch import nn  # noqa: E402


class Mixture(nn.Module):
    """A router that sends tokens to two of four experts, the last of which is chosen by few."""

    def __init__(self, kind="mixtral"):
        super().__init__()
        torch.manual_seed(0)
        self.router, self.experts = nn.Linear(16, 4), made_of(kind)
        with torch.no_grad():
            self.router.bias.copy_(torch.tensor([0.0, 0.0, 0.0, -2.0]))

    def forward(self, x):
        rows = x.reshape(-1, 16)
        weight, chosen = self.router(rows).softmax(-1).topk(2)
        return self.experts(rows, chosen, weight).reshape(x.shape)


def tokens(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 16, generator=g) @ (torch.eye(16) + torch.randn(16, 16, generator=g) / 3)


def given(model, x, i):
    """What expert i is given, and what its second product is."""
    with torch.no_grad():
        chosen = model.router(x).topk(2).indices
        rows = x[(chosen == i).any(1)]
        e = model.experts
        up = matrix(e, projections(e)[0])[i]
        middle = nn.functional.linear(rows, up, e._parameters.get(f"{projections(e)[0]}_bias", [None] * 4)[i])
        return rows, e._apply_gate(middle) if e.has_gate else e.act_fn(middle)


@pytest.mark.parametrize("kind", ["mixtral", "nemotron_h"])
@pytest.mark.parametrize("groups", [1, 4], ids=["one by one", "together"])
def test_each_expert_is_solved_by_its_own_rows(kind, groups, monkeypatch):
    monkeypatch.setattr(_mixtures, "MOST", groups * 8 * (16**2 + 32**2))
    model, plain, x = Mixture(kind), Mixture(kind), tokens(80)
    told = []
    made = quant.calibrate(
        model, [x[:50], x[50:]], "int3-g16-gptq", experts=True, layers=[], progress=lambda *n: told.append(n)
    )
    up, down = (f"experts.{name}" for name in projections(plain.experts))
    assert list(made.layers) == [up, down] and told == [(2, 2)] and not made.left
    for name, at in ((up, 0), (down, 1)):
        weight, few = matrix(plain.experts, name.partition(".")[2]), []
        for i in range(4):
            rows = given(plain, x, i)[at]
            if len(rows) < weight.shape[2]:
                few.append(i)
                scale, _ = quant.choose_qparams(weight[i], "int3", group=16, method="mse")
                want = quant.quantize(weight[i], scale, None, "int3")
            else:
                want = quant.gptq(weight[i], quant.hessian(rows), "int3", group=16, method="mse", act_order=True).codes
            assert torch.equal(made.layers[name].codes[i], want), (name, i)
        assert 3 in few and made.rounded[name] == tuple(few) and len(few) < 4
        torch.testing.assert_close(
            quant.decode(made.encoded(name)), matrix(model.experts, name.partition(".")[2]), rtol=1e-6, atol=1e-7
        )


def test_less_is_lost_than_by_rounding_and_layers_take_the_codes():
    model, (x, other) = Mixture(), tokens(1000).split([600, 400])
    want = Mixture()(other).detach()
    made = quant.calibrate(model, [x], "int3-g16-gptq", experts=True, layers=[])
    nearest = Mixture()
    for p in (nearest.experts.gate_up_proj, nearest.experts.down_proj):
        p.data = quant.decode(quant.encode(p.data, "int3-g16", method="mse"))
    got = model(other).detach()
    assert (got - want).square().sum() < 0.8 * (nearest(other).detach() - want).square().sum()
    dense = copy.deepcopy(model)
    told = tnn.convert(model, {name: made.encoded(name) for name in made.layers})
    assert told.converted == ("experts",)
    torch.testing.assert_close(model(other), dense(other), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scheme", ["int4-g16-awq", "int4-g16-adaround", "uint4-g16-gptq"])
def test_other_ways(scheme):
    model, x = Mixture(), tokens(200)
    want = model(x).detach()
    made = quant.calibrate(model, [x], scheme, experts=["experts.down_proj"], layers=[])
    assert list(made.layers) == ["experts.down_proj"] and torch.equal(
        model.experts.gate_up_proj, Mixture().experts.gate_up_proj
    )
    assert made.encoded("experts.down_proj").scheme == scheme.rpartition("-")[0]
    assert (made.unscaled == {"experts.down_proj": "experts"}) == ("awq" in scheme)
    assert (model(x) - want).norm() < 0.2 * want.norm()


def test_padding_does_not_count():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.mixture = Mixture()

        def forward(self, x, attention_mask):
            return self.mixture(x)

    x = tokens(120).reshape(4, 30, 16)
    mask = torch.ones(4, 30)
    mask[:, 20:] = 0
    options = {"experts": True, "layers": []}
    padded = quant.calibrate(Model(), [{"x": x, "attention_mask": mask}], "int4-g16-gptq", **options)
    cut = x[:, :20]
    alone = quant.calibrate(Model(), [{"x": cut, "attention_mask": mask[:, :20]}], "int4-g16-gptq", **options)
    assert padded.rounded == alone.rounded
    for name, found in padded.layers.items():
        assert torch.equal(found.codes, alone.layers[name].codes)


def test_schemes_and_groups_of_experts():
    x = tokens(200)
    made = quant.calibrate(
        Mixture(), [x], "int4-g32-gptq", experts=True, schemes={"*down_proj": "int8-row", "router": "int8-row"}
    )
    assert made.left == {"experts.gate_up_proj": "rows of 16 do not divide into groups of 32"}
    assert made.encoded("experts.down_proj").scheme == "int8-row" and made.encoded("router").scheme == "int8-row"
    made = quant.calibrate(Mixture(), [x], "int4-g32-gptq", experts=True, layers=[], fallback=True)
    assert made.encoded("experts.gate_up_proj").scheme == "int4-g16"
    made = quant.calibrate(Mixture(), [x], "int-g16-gptq", experts=True, bits=[4, 8], budget=8)
    assert "experts, for which no widths are chosen" in made.left["experts.down_proj"]


@pytest.mark.parametrize("kind", ["gpt_oss", "aria"])
def test_transposed_experts_are_left_and_said(kind):
    made = quant.calibrate(Mixture(kind), [tokens(100)], "int4-g16-gptq", experts=True)
    assert set(made.left.values()) == {"transposed experts, whose scales would go along the outputs"}


def test_experts_with_a_forward_of_their_own_are_left_and_said():
    """DBRX has those of a layer one below the other, in matrices that are called by other names than weight."""
    from types import SimpleNamespace

    dbrx = pytest.importorskip("transformers.models.dbrx.modeling_dbrx")

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            config = SimpleNamespace(hidden_size=16, ffn_hidden_size=32, moe_num_experts=4, ffn_act_fn={"name": "silu"})
            self.first, self.experts = nn.Linear(16, 16), dbrx.DbrxExperts(config)

        def forward(self, x):
            return self.first(x)

    made = quant.calibrate(Model(), [tokens(50)], "int4-g16-gptq", experts=True)
    assert list(made.layers) == ["first"] and set(made.left) == {f"experts.mlp.{k}" for k in ("w1", "v1", "w2")}
    assert all("DbrxExpertGLU reads in a way of its own" in why for why in made.left.values())


def test_a_module_of_experts_alone_is_calibrated():
    model = made_of("mixtral")
    x, chosen, weight = tokens(90), torch.arange(180).reshape(90, 2) % 4, torch.ones(90, 2)
    made = quant.calibrate(model, [(x, chosen, weight)], "int4-g16-gptq", experts=True)
    assert list(made.layers) == ["gate_up_proj", "down_proj"] and not made.rounded


def test_what_is_no_experts_is_refused_and_an_error_changes_nothing():
    model = Mixture()
    for wrong, error in ((["experts.other"], TypeError), ("experts", TypeError), (2.5, TypeError)):
        with pytest.raises(error, match="calibrate: "):
            quant.calibrate(model, [tokens(9)], "int4-g16-gptq", experts=wrong)
    x = tokens(60)
    x[3, 3] = float("nan")
    with pytest.raises(ValueError, match=r"calibrate: .*non-finite"):
        quant.calibrate(model, [x], "int4-g16-gptq", experts=True, layers=[])
    bad = Mixture()
    bad.experts.down_proj.data[0, 0, 0] = float("inf")
    with pytest.raises(ValueError, match=r"experts.down_proj holds non-finite values"):
        quant.calibrate(bad, [tokens(9)], "int4-g16-gptq", experts=True)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), Mixture().parameters(), strict=True))


@pytest.mark.serial
@pytest.mark.parametrize("name", ["mixtral", "granite-moe"])
def test_files_have_calibrated_experts(tmp_path, name):
    """Of a file that has them one by one, and of one that has them side by side."""
    from test_calibrate import TEXTS, folder

    model = folder(tmp_path / "in", name)
    with torch.no_grad():
        for n, p in model.named_parameters():
            if p.ndim == 3:
                p.normal_(0, 0.08, generator=torch.Generator().manual_seed(len(n)))
    model.save_pretrained(tmp_path / "in")
    options = {"calibration": TEXTS, "experts": True}
    made = convert.quantize_safetensors(tmp_path / "in", tmp_path / "out", "int4-g32-gptq", **options)
    convert.quantize_safetensors(tmp_path / "in", tmp_path / "near", "int4-g32", method="mse", experts=True)
    assert set(made.rounded.values()) <= {"an expert of fewer rows than columns"}
    source, out, near = (convert.load(tmp_path / k) for k in ("in", "out", "near"))
    codes = convert.load_encoded(tmp_path / "out")
    some = [k for k in made.choice.quantized if "experts" in k or "linear.weight" in k]
    assert some
    for k in some:
        assert made.layers[k].scheme == "int4-g32-gptq" and codes[k].scheme == "int4-g32"
        assert np.array_equal(out[k], near[k]) == (k in made.rounded)
        np.testing.assert_array_equal(quant.decode(codes[k]), out[k])
        # the codes are of this tensor and of no other: each is near to its own number
        assert np.abs(out[k] - source[k]).max() < 0.8 * np.abs(source[k]).max()
        assert np.corrcoef(out[k].ravel(), source[k].ravel())[0, 1] > 0.95
    if name == "mixtral":
        got = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", local_files_only=True).eval()
        ids = torch.arange(3, 30)[None]
        with torch.no_grad():
            assert (got(ids)[0] - model(ids)[0]).norm() < 0.3 * model(ids)[0].norm()
