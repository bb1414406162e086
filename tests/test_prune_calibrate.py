"""Models pruned by what they see. The one rule: counts are exact, and the folder that was written gives what the pruned module
gives."""

import copy
import json

import numpy as np
import pytest
from tersor import prune
from tersor.checkpoint import Model

torch = pytest.importorskip("torch")
nn = torch.nn


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 96), nn.GELU(), nn.Linear(96, 64), nn.GELU(), nn.Linear(64, 12)).eval()


def seen(n=400, seed=1):
    torch.manual_seed(seed)
    return torch.randn(n, 64) @ (torch.eye(64) + torch.randn(64, 64) / 8)


def loss(module, x):
    with torch.no_grad():
        return float((module(x) - net()(x)).square().mean())


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_shares_are_exact_and_masks_are_the_zeros(method, kind):
    module, told = net().to(kind), []
    made = prune.calibrate(module, [seen(100).to(kind)], 0.5, method=method, progress=lambda *n: told.append(n))
    assert list(made.masks) == ["0", "2", "4"] and not made.left and told == [(1, 3), (2, 3), (3, 3)]
    for name, mask in made.masks.items():
        w = module.get_submodule(name).weight
        assert mask.dtype == torch.bool and torch.equal(w != 0, mask) and mask.sum() == mask.numel() // 2
        if method == "wanda":
            assert (mask.sum(1) == mask.shape[1] // 2).all()
            assert torch.equal(w, net().to(kind).get_submodule(name).weight * mask)


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_patterns(method):
    made = prune.calibrate(module := net(), [seen(100)], method=method, nm=(2, 4))
    for name, mask in made.masks.items():
        assert (mask.reshape(-1, 4).sum(1) == 2).all()
        assert torch.equal(module.get_submodule(name).weight != 0, mask)


def test_the_first_layer_is_pruned_by_its_inputs_and_the_next_by_what_it_then_gives():
    made, x = (
        prune.calibrate(module := net(), [seen(50), seen(50, 2)], 0.5, method="wanda"),
        torch.cat([seen(50), seen(50, 2)]),
    )
    for at, name in enumerate(["0", "2", "4"]):
        with torch.no_grad():
            given = module[: 2 * at](x)
        want = prune.wanda_mask(net().get_submodule(name).weight, given.double().norm(dim=0), 0.5)
        assert torch.equal(made.masks[name], want)


def test_less_is_lost_than_by_magnitude():
    """Where inputs are of few directions, so that some weights can answer for others."""
    lost = {}
    torch.manual_seed(10)
    x = torch.randn(1200, 24) @ torch.randn(24, 64) / 24**0.5 + 0.1 * torch.randn(1200, 64)
    for method in ("wanda", "sparsegpt"):
        prune.calibrate(module := net(), [x[:1000]], 0.6, method=method)
        lost[method] = loss(module, x[1000:])
    plain = net()
    for layer in plain:
        if isinstance(layer, nn.Linear):
            (mask,) = prune.global_masks([layer.weight.detach()], 0.6)
            layer.weight.data *= mask
    assert lost["sparsegpt"] < 0.75 * min(lost["wanda"], loss(plain, x[1000:]))


def test_what_cannot_be_pruned_is_left_and_said():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.never = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8)
            self.tied = nn.Embedding(8, 8)
            self.head = nn.Linear(8, 8, bias=False)
            self.head.weight = self.tied.weight

        def forward(self, x):
            return self.head(self.b(self.a(x)))

    made = prune.calibrate(Odd(), [torch.randn(5, 6)], nm=(2, 4))
    assert list(made.masks) == ["b"]
    assert made.left == {
        "a": "rows of 6 do not divide into groups of 4",
        "never": "never called",
        "head": "shared with tied",
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sparsity": None}, "exactly one of sparsity and nm"),
        ({"nm": (2, 4)}, "exactly one of sparsity and nm"),
        ({"sparsity": 1.5}, "1.5"),
        ({"sparsity": None, "nm": (5, 4)}, "5"),
        ({"method": "magnitude"}, "wanda, sparsegpt"),
        ({"batches": []}, "there are no batches"),
        (
            {"batches": [seen(3), seen(3) * torch.nan]},
            r"calibrate: what 0 is given in batches\[1\]: x holds non-finite",
        ),
        (
            {"batches": [seen(3), seen(3) / 0], "method": "sparsegpt"},
            r"calibrate: what 0 is given in batches\[1\]: x holds non-finite",
        ),
    ],
)
def test_after_an_error_the_weights_are_as_they_were(change, said):
    module = net()
    given = {"batches": [seen(20)], "sparsity": 0.5} | change
    with pytest.raises(ValueError, match=said):
        prune.calibrate(module, given.pop("batches"), given.pop("sparsity"), **given)
    for a, b in zip(module.parameters(), net().parameters(), strict=True):
        assert torch.equal(a, b)


def test_weights_are_put_back_where_a_later_layer_fails():
    module = net()
    module[2].register_forward_pre_hook(lambda *_: None)

    def late(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prune.calibrate(module, [seen(50)], 0.5, progress=late)
    for a, b in zip(module.parameters(), net().parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float8_e4m3fn"])
def test_patterns_in_files(tmp_path, dtype):
    """Every group of every row, over the borders of chunks; all other bytes stay."""
    from safetensors.torch import load_file, save_file

    torch.manual_seed(0)
    kind = getattr(torch, dtype)
    some = {"a.weight": torch.randn(50, 24).to(kind), "odd.weight": torch.randn(4, 7).to(kind), "bias": torch.ones(3)}
    save_file(some, tmp_path / "in.safetensors")
    told = []
    made = prune.prune_safetensors(
        tmp_path / "in.safetensors", tmp_path / "out.safetensors", nm=(2, 8), progress=lambda *n: told.append(n)
    )
    assert told[-1] == ((tmp_path / "in.safetensors").stat().st_size,) * 2
    got = load_file(tmp_path / "out.safetensors")
    w = some["a.weight"].float()
    mask = prune.nm_mask(w, 2, 8)
    assert torch.equal(got["a.weight"].float(), w * mask) and not torch.signbit(got["a.weight"].float()[~mask]).any()
    assert torch.equal(got["odd.weight"].float(), some["odd.weight"].float())
    assert made.dense == {"odd.weight": "rows of 7 do not divide into groups of 8"}
    assert (made.total, made.pruned, made.kept) == (1200, 900, {"a.weight": 300})


def test_chunks_of_a_pattern_are_whole_groups(tmp_path, monkeypatch):
    from safetensors.numpy import load_file, save_file
    from tersor.jobs import prune_rows

    monkeypatch.setattr(prune_rows, "CHUNK", 100)
    w = np.random.default_rng(0).standard_normal((30, 24)).astype(np.float32)
    save_file({"w.weight": w}, tmp_path / "in.safetensors")
    prune.prune_safetensors(tmp_path / "in.safetensors", tmp_path / "out.safetensors", nm=(3, 6))
    assert np.array_equal(load_file(tmp_path / "out.safetensors")["w.weight"], w * prune.nm_mask(w, 3, 6))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sparsity": 0.5, "method": "wanda"}, "method='wanda' needs texts for calibration"),
        ({"sparsity": 0.5, "calibration": ["a"]}, "method='magnitude' is not calibrated"),
        ({"nm": (2, 4), "min_keep": 3}, "k, min_keep and resume go with"),
        ({"nm": (2, 4), "sparsity": 0.5}, "exactly one of sparsity, k and nm"),
        ({"sparsity": 0.5, "method": "wanda", "calibration": ["a"]}, "a model, which is a folder"),
        ({"sparsity": 0.5, "method": "best"}, "method must be one of magnitude, wanda, sparsegpt"),
    ],
)
def test_arguments_that_do_not_go_together(tmp_path, given, said):
    from safetensors.numpy import save_file

    save_file({"w.weight": np.ones((4, 4), np.float32)}, tmp_path / "in.safetensors")
    with pytest.raises(ValueError, match=said):
        prune.prune_safetensors(tmp_path / "in.safetensors", tmp_path / "out.safetensors", **given)
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_a_folder_holds_what_the_pruned_model_holds(tmp_path, method):
    pytest.importorskip("transformers")
    from test_calibrate import TEXTS, folder, read

    folder(tmp_path / "in", "bert base")
    made = prune.prune_safetensors(tmp_path / "in", tmp_path / "out", 0.5, method=method, calibration=TEXTS)
    assert made.kept and 2 * sum(made.kept.values()) == made.total
    before, after = read(tmp_path / "in").state_dict(), read(tmp_path / "out").state_dict()
    with Model(tmp_path / "out") as model:
        assert {e.name for _, e in model.tensors()} >= made.kept.keys()
    pruned = {k.removeprefix("bert.") for k in made.kept}
    for k, w in after.items():
        if k in pruned:
            assert int((w != 0).sum()) == w.numel() // 2 and not torch.equal(w, before[k])
        else:
            assert torch.equal(w, before[k]), k
    assert json.loads((tmp_path / "out/config.json").read_text()) == json.loads(
        (tmp_path / "in/config.json").read_text()
    )


def test_norms_of_half_layers_are_no_halves():
    torch.manual_seed(0)
    x = torch.full((2000, 8), 3000.0) * torch.rand(8)  # norms up to 1.3e5
    layer = nn.Linear(8, 4, bias=False)
    for kind in (torch.float16, torch.bfloat16):
        half = nn.Sequential(copy.deepcopy(layer).to(kind))
        want = prune.wanda_mask(half[0].weight.detach(), x.to(kind).double().square().sum(0).sqrt().float(), 0.5)
        assert torch.equal(prune.calibrate(half, [x.to(kind)], 0.5, method="wanda").masks["0"], want)


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_layers_whose_weights_are_made_are_left(method):
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8))
    pytest.importorskip("torch.nn.utils.prune").l1_unstructured(model[0], "weight", 0.3)
    nn.utils.parametrizations.weight_norm(model[1])
    with torch.inference_mode():
        made = prune.calibrate(model, [torch.randn(20, 8)], 0.5, method=method)
    assert list(made.masks) == ["2"] and made.left == dict.fromkeys("01", "its weight is made of other parameters")


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_arguments_are_asked_before_the_model_is_run(method):
    class Never(nn.Linear):
        def forward(self, x):
            raise AssertionError

    model, x = nn.Sequential(Never(8, 8)), [torch.randn(20, 8)]
    for share, error in ((-0.1, ValueError), (float("nan"), ValueError), (True, TypeError)):
        with pytest.raises(error, match="calibrate: sparsity must be"):
            prune.calibrate(model, x, share, method=method)
    with pytest.raises(ValueError, match="calibrate: damp must not be negative"):
        prune.calibrate(model, x, 0.5, method=method, damp=-1.0)
    model = nn.Sequential(nn.Linear(8, 8))
    for weights, error in ((-torch.ones(20), ValueError), (torch.full((20,), torch.nan), ValueError), ([1], TypeError)):
        with pytest.raises(error, match="calibrate: weights must be"):
            prune.calibrate(model, x, 0.5, method=method, weights=lambda _, w=weights: w)
