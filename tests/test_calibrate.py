"""Models quantized by what they see. The one rule: what a calibrated module gives, the folder that was written gives too."""

import json
import sys

import numpy as np
import pytest
from tersor import quant

torch = pytest.importorskip("torch")
nn = torch.nn


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 96), nn.GELU(), nn.Linear(96, 64), nn.GELU(), nn.Linear(64, 10)).eval()


def seen(n=400, seed=1):
    torch.manual_seed(seed)
    return torch.randn(n, 64) @ (torch.eye(64) + torch.randn(64, 64) / 8)


def rounded(module, scheme):
    for m in module.modules():
        if isinstance(m, nn.Linear):
            m.weight.data = quant.decode(quant.encode(m.weight.data, scheme))
    return module


def loss(module, like, x):
    with torch.no_grad():
        return float((module(x) - like(x)).square().mean())


@pytest.mark.parametrize("scheme", ["int4-g32", "int8-row", "uint4-g32", "int3-row"])
def test_layers_are_made_of_the_codes(scheme):
    from tersor.nn import QuantLinear

    module, x = net(), seen(100)
    made = quant.calibrate(module, [x], f"{scheme}-gptq")
    for name in made.layers:
        e = made.encoded(name)
        layer = module.get_submodule(name)
        assert e.scheme == scheme and torch.equal(quant.decode(e), layer.weight)
        y = torch.randn(3, layer.in_features)
        torch.testing.assert_close(QuantLinear(e, layer.bias)(y), layer(y))


@pytest.mark.parametrize(("scheme", "nearest"), [("int4-g32-gptq", "int4-g32"), ("int3-row-gptq", "int3-row")])
def test_less_is_lost_than_by_rounding_and_the_weights_are_the_codes(scheme, nearest):
    module, x = net(), seen()
    told = []
    made = quant.calibrate(module, [x[:150], (x[150:200],)], scheme, progress=lambda *n: told.append(n))
    assert made.left == {} and list(made.layers) == ["0", "2", "4"] and told == [(1, 3), (2, 3), (3, 3)]
    for name, found in made.layers.items():
        numbers = quant.dequantize(found.codes, found.scale, found.zero_point)
        assert torch.equal(module.get_submodule(name).weight, numbers)
    assert loss(module, net(), x[200:]) < 0.75 * loss(rounded(net(), nearest), net(), x[200:])


def test_what_was_done_is_shown_in_short():
    module = nn.Sequential(net(), nn.Linear(10, 4))
    made = quant.calibrate(module, [seen(100)], "int4-g32-gptq")
    assert repr(made) == "3 layers in int4-g32, 1 left:\n  1: rows of 10 do not divide into groups of 32"


def test_fewer_rows_than_inputs_are_said(capsys):
    """Of some directions they say nothing, and errors that make up for one another on them may not on others."""
    from tersor.cli._said import scarce

    made = quant.calibrate(net(), [seen(50), seen(20, 2)], "int4-g32-gptq")
    assert made.scarce == {"2": (70, 96)} and list(made.layers) == ["0", "2", "4"]
    assert not quant.calibrate(net(), [seen(96)], "int4-g32-gptq").scarce
    assert not quant.calibrate(net(), [seen(50)], "int4-g32-awq").scarce
    scarce(made.scarce)
    said = " ".join(capsys.readouterr().out.split())
    assert said == "few rows of calibration, 70 for 96 inputs: 1 (2)"


def test_a_block_is_solved_with_what_the_ones_before_give_in_their_codes():
    module, x = net(), seen()
    made = quant.calibrate(module, [x], "int4-row-gptq")
    plain = net()
    for name, found in made.layers.items():
        with torch.no_grad():
            given = plain[: int(name)](x)
        want = quant.gptq(plain[int(name)].weight.detach(), quant.hessian(given), "int4", method="mse", act_order=True)
        assert torch.equal(want.codes, found.codes)
        plain[int(name)].weight.data = quant.dequantize(found.codes, found.scale)


class Chain(nn.Module):
    """Blocks in a list, with what a test wants of them: sums in place, results as tuples, a look back at the first one."""

    def __init__(self, back=False, inplace=False):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.Linear(64, 64) for _ in range(4))
        self.layers = nn.ModuleList(Part(inplace) for _ in range(4))
        self.head = nn.Linear(64, 8)
        self.back = back
        self.runs = [0] * 4

    def forward(self, x, *, shift=0.0):
        first = None
        for i, layer in enumerate(self.layers):
            (x,) = layer(x + 0.0, shift=shift * i)
            first = x if first is None else first
            if self.back and i == 2:
                x = x + first
        return self.head(x)


class Part(nn.Module):
    def __init__(self, inplace):
        super().__init__()
        self.up, self.down = nn.Linear(64, 32), nn.Linear(32, 64)
        self.inplace = inplace
        self.runs = 0

    def forward(self, x, *, shift):
        self.runs += 1
        y = self.down(torch.relu(self.up(x) + shift))
        if self.inplace:
            return (x.add_(y),)
        return (x + y,)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("back", [False, True])
def test_blocks_are_left_out_only_where_that_changes_nothing(back, inplace):
    module, x = Chain(back, inplace).eval(), seen()
    batches = [{"x": x[at : at + 100], "shift": 0.1 * at} for at in range(0, 400, 100)]
    made = quant.calibrate(module, batches, "int4-g32-gptq")
    runs = [part.runs for part in module.layers]
    # one layer after another, each from the beginning
    plain = Chain(back, inplace).eval()
    for names in [*([f"layers.{i}.up", f"layers.{i}.down"] for i in range(4)), ["head"]]:
        grams = {}

        def see(layer, args, grams=grams):
            grams[layer] = quant.hessian(args[0], onto=grams.get(layer))

        hooks = [plain.get_submodule(k).register_forward_pre_hook(see) for k in names]
        with torch.no_grad():
            for batch in batches:
                plain(**batch)
        for hook in hooks:
            hook.remove()
        for k in names:
            layer = plain.get_submodule(k)
            want = quant.gptq(layer.weight.detach(), grams[layer], "int4", group=32, method="mse", act_order=True)
            assert torch.equal(want.codes, made.layers[k].codes), k
            layer.weight.data = quant.dequantize(want.codes, want.scale)
    assert made.left == {f"blocks.{i}": "never called" for i in range(4)}
    # blocks that are done are run again for the first batch alone, unless somebody looks back at them
    assert (max(runs) > 20) == back, runs


def test_widths_go_where_they_are_felt():
    """A layer of which nothing comes out has the fewest bits, one that all depends on the most."""

    class Uneven(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.loud, self.soft, self.mute = (nn.Linear(64, 64) for _ in range(3))

        def forward(self, x):
            return {"y": 3 * self.loud(x) + 0.2 * self.soft(x) + 0 * self.mute(x), "n": torch.arange(3)}

    module, x = Uneven().eval(), seen()
    told = []
    made = quant.calibrate(
        module, [x[:200]], "int-g32-gptq", bits="auto", budget=5.0, progress=lambda *n: told.append(n)
    )
    assert made.widths["mute"] == 2 < made.widths["soft"] < made.widths["loud"] and made.scheme == "int-g32"
    assert sum(made.widths.values()) + 3 * 1 <= 3 * 5.0 and told[-1] == (3, 3)
    for name, bits in made.widths.items():
        e = made.encoded(name)
        assert e.scheme == f"int{bits}-g32" and torch.equal(quant.decode(e), module.get_submodule(name).weight)
    uniform = Uneven().eval()
    quant.calibrate(uniform, [x[:200]], "int4-g32-gptq")
    with torch.no_grad():
        lost = [float((m(x[200:])["y"] - Uneven()(x[200:])["y"]).square().mean()) for m in (module, uniform)]
    assert lost[0] < 0.25 * lost[1]
    # of one width there is nothing to choose; and what layers cost may be said
    one = Uneven().eval()
    assert set(quant.calibrate(one, [x[:200]], "int-g32-gptq", bits=[4], budget=5.0).widths.values()) == {4}
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), uniform.parameters(), strict=True))
    dear = quant.calibrate(
        Uneven(), [x], "int-g32-gptq", bits=(2, 8), budget=5.0, cost=lambda k, b: 64 * 64 * b * (1 + (k == "loud"))
    )
    assert dear.widths == {"loud": 2, "soft": 8, "mute": 2}


def test_what_is_reached_too_late_has_what_its_own_budget_allows():
    class Turned(nn.Module):
        """Goes another way as soon as a weight is quantized."""

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.blocks = nn.ModuleList(nn.Linear(64, 64) for _ in range(2))
            self.late = nn.Linear(64, 64)
            self.was = self.blocks[0].weight.detach().clone()

        def forward(self, x):
            y = self.blocks[1](self.blocks[0](x))
            return y if torch.equal(self.blocks[0].weight, self.was) else self.late(y)

    made = quant.calibrate(Turned(), [seen(100)], "int-g32-gptq", bits="auto", budget=4.9)
    assert made.widths["late"] == 3 and not made.left


def test_what_cannot_be_calibrated_is_said_by_name():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.tied, self.unused = nn.Embedding(8, 64), nn.Linear(64, 8, bias=False), nn.Linear(64, 8)
            self.ragged, self.empty, self.zeros, self.good = (nn.Linear(k, 8) for k in (40, 64, 64, 64))
            self.tied.weight = self.table.weight

        def forward(self, x):
            self.empty(x[:0])
            self.zeros(0 * x)
            return self.tied(x) + self.ragged(x[:, :40]) + self.good(x)

    module = Odd().train()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    made = quant.calibrate(module, [seen(50)], "int4-g32-gptq")
    assert list(made.layers) == ["good"] and module.training
    assert made.left == {
        "tied": "shared with table",
        "unused": "never called",
        "ragged": "rows of 40 do not divide into groups of 32",
        "empty": "no rows",
        "zeros": "all inputs are 0",
    }
    changed = {k for k, v in module.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"good.weight"}
    assert list(quant.calibrate(Odd(), [seen(50)], "int4-row-gptq", layers=["ragged"]).layers) == ["ragged"]


class Attended(nn.Module):
    """A block with a norm before its attention (or after it, whose result then goes two ways), a few inputs far larger."""

    def __init__(self, post, bias=True):
        super().__init__()
        self.norm, self.other = nn.LayerNorm(64, bias=bias), nn.LayerNorm(64, bias=bias)
        self.q, self.k, self.v, self.o = (nn.Linear(64, 64, bias=bias) for _ in range(4))
        self.gate, self.up, self.down = (nn.Linear(*size, bias=bias) for size in ((64, 96), (64, 96), (96, 64)))
        self.post = post
        with torch.no_grad():
            self.q.weight.mul_(0.1)
            for weight in (self.norm.weight, self.other.weight, self.v.weight):
                weight[[3, 9]] *= 25

    def forward(self, x):
        y = self.norm(x)
        mixed = torch.softmax(self.q(y) @ self.k(y).mT / 8, -1) @ self.v(y)
        x = (y if self.post else x) + self.o(mixed)
        y = self.other(x)
        return x + self.down(torch.relu(self.gate(y)) * self.up(y))


def attended(post=False, bias=True):
    torch.manual_seed(0)
    return nn.Sequential(Attended(post, bias), Attended(post, bias)).eval()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("post", [False, True])
def test_scales_go_where_they_change_nothing(post, bias):
    x = seen(480).reshape(40, 12, 64)
    module, want = attended(post, bias), attended(post, bias)
    made = quant.calibrate(module, [x[:30]], "int4-g32-awq")
    asked = ("q", "k", "v")
    for i in range(2):
        for name in (*asked, "o", "gate", "up", "down"):
            at = f"{i}.{name}"
            if post and name in asked:
                assert made.unscaled[at] == "nothing before it takes its scales"
            else:
                source = {"o": "v", "down": "up", "gate": "other", "up": "other"}.get(name, "norm")
                assert made.folded.get(at) == f"{i}.{source}" or made.unscaled[at] == "no scales are better than none"
    assert made.left == {} and not made.folded.keys() & made.unscaled.keys() and len(made.folded) > 6
    # the weights that the codes stand for are those of a module that gives the same as before, rounded to the nearest
    for name in made.layers:
        assert torch.equal(quant.decode(made.encoded(name)), module.get_submodule(name).weight)
    held = x[30:]
    if not post:
        assert loss(module, want, held) < 0.9 * loss(rounded(attended(bias=bias), "int4-g32"), want, held)
    fine = attended(post, bias)
    quant.calibrate(fine, [x[:30]], "int8-g32-awq")
    assert loss(fine, want, held) < 0.03 * loss(module, want, held)


def test_where_nothing_takes_scales_weights_are_rounded():
    module, x = net(), seen(100)
    made = quant.calibrate(module, [x], "int4-g32-awq", method="minmax")
    assert set(made.unscaled.values()) == {"no block around it that is run once"} and not made.folded
    for name, found in made.layers.items():
        weight = net().get_submodule(name).weight.detach()
        scale, _ = quant.choose_qparams(weight, "int4", group=32)
        assert torch.equal(found.codes, quant.quantize(weight, scale, None, "int4"))
        delta = quant.dequantize(found.codes, found.scale) - weight
        if name == "0":
            np.testing.assert_allclose(found.error, (delta @ x.T).square().sum(1), rtol=1e-3)


def test_padding_does_not_count():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Linear(64, 32)

        def forward(self, x, attention_mask):
            return self.layer(x)

    x = seen(60).reshape(3, 20, 64)
    mask = (torch.arange(20) < torch.tensor([[20], [7], [12]])).long()
    spoiled = torch.where(mask[..., None] > 0, x, 50 * torch.randn_like(x))
    made = quant.calibrate(Masked(), [{"x": spoiled, "attention_mask": mask}], "int4-row-gptq").layers["layer"]
    want = quant.gptq(Masked().layer.weight.detach(), quant.hessian(x[mask > 0]), "int4", method="mse", act_order=True)
    assert torch.equal(made.codes, want.codes)
    every = quant.calibrate(
        Masked(),
        [{"x": spoiled, "attention_mask": mask}],
        "int4-row-gptq",
        weights=lambda batch: torch.ones_like(batch["attention_mask"]),
    )
    assert not torch.equal(every.layers["layer"].codes, want.codes)
    for wrong in (torch.ones(3, 19), torch.ones(20), torch.ones(3, 20, 1)):
        with pytest.raises(ValueError, match=r"calibrate: weights of shape .* for the inputs \(3, 20, 64\) of layer"):
            quant.calibrate(Masked(), [{"x": x, "attention_mask": mask}], "int4-row-gptq", weights=lambda _, w=wrong: w)


class Cut(nn.Module):
    """What comes out has no gradient."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x).detach()


def test_after_an_error_the_weights_are_as_they_were():
    module, x = net(), seen()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    blocks, given = attended(), x.reshape(50, 8, 64)
    before |= {f"blocks.{k}": v.clone() for k, v in blocks.state_dict().items()}
    infinite = x.clone()
    infinite[3] = 3e38  # finite, and beyond float32 once squared
    broken = net()
    broken[2].weight.data[0, 0] = np.nan

    class Late(Exception):
        pass

    def late(done, total):
        if done == 2:
            raise Late

    for error, said, call in [
        (ValueError, "calibrate: there are no batches", lambda: quant.calibrate(module, [])),
        (ValueError, "says no way to calibrate", lambda: quant.calibrate(module, [x], "int4-g32")),
        (ValueError, "calibrate: scheme 'int9-row' is unknown", lambda: quant.calibrate(module, [x], "int9-row-gptq")),
        (ValueError, "per row", lambda: quant.calibrate(module, [x], "int4-tensor-gptq")),
        (ValueError, "2.weight holds non-finite", lambda: quant.calibrate(broken, [x], "int4-g32-gptq")),
        (ValueError, r"what 0 is given in batches\[0\]: x has squares beyond float32",
         lambda: quant.calibrate(module, [infinite], "int4-row-gptq")),
        (ValueError, r"calibrate: what 0 is given in batches\[1\]: x holds non-finite values",
         lambda: quant.calibrate(module, [x, x * np.nan], "int4-g32-gptq")),
        (ValueError, r"calibrate: what the module is given in batches\[1\]: x holds non-finite values",
         lambda: quant.calibrate(torch.nn.Linear(x.shape[-1], 3), [x, x / 0], "int4-row-gptq")),
        (ValueError, "has no width: name one", lambda: quant.calibrate(module, [x], "int-g32-gptq")),
        (ValueError, "has its width", lambda: quant.calibrate(module, [x], "int4-g32-gptq", bits="auto", budget=5)),
        (ValueError, "bits and budget go together", lambda: quant.calibrate(module, [x], "int-g32-gptq", budget=5)),
        (ValueError, "widths of 2 to 8", lambda: quant.calibrate(module, [x], "int-g32-gptq", bits=[1, 4], budget=5)),
        (ValueError, "budget 2.5 is below the 3 bits a weight that 2 bits take",
         lambda: quant.calibrate(module, [x], "int-g32-gptq", bits="auto", budget=2.5)),
        (ValueError, "no gradient leads",
         lambda: quant.calibrate(Cut(module), [x], "int-g32-gptq", bits="auto", budget=5)),
        (TypeError, "calibrate: module must be", lambda: quant.calibrate(x, [x])),
        (TypeError, "calibrate: '7' is no torch.nn.Linear", lambda: quant.calibrate(module, [x], layers=["7"])),
        (ValueError, "widths are chosen with -gptq",
         lambda: quant.calibrate(module, [x], "int-g32-awq", bits="auto", budget=5)),
        (Late, None, lambda: quant.calibrate(blocks, [given], "int4-g32-awq", progress=lambda *_: late(2, 2))),
        (Late, None, lambda: quant.calibrate(module, [x], "int4-g32-gptq", progress=late)),
    ]:  # fmt: skip
        with pytest.raises(error, match=said):
            call()
        assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
        assert all(torch.equal(v, before[f"blocks.{k}"]) for k, v in blocks.state_dict().items())
        assert not any(m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m) for m in module.modules())


transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
pytest.importorskip("compressed_tensors")

from architectures import build, inputs  # noqa: E402
from tersor import convert  # noqa: E402

WORDS = [f"w{i}" for i in range(90)]
TEXTS = [" ".join(np.random.default_rng(i).choice(WORDS, 4 + i % 13)) for i in range(60)]


def folder(path, name, dtype=None):
    """A small model with a tokenizer of ninety words."""
    model = build(name)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.08)
    (model if dtype is None else model.to(dtype)).save_pretrained(path)
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: 3 + i for i, w in enumerate(WORDS)}, unk_token="w0"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=made).save_pretrained(path)
    return model


def read(path):
    transformers.logging.set_verbosity_error()
    return transformers.AutoModel.from_pretrained(path, local_files_only=True, dtype=torch.float32)


@pytest.mark.serial
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16], ids=["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ["bert base", "llama", "t5"])
def test_what_is_read_back_is_what_was_calibrated(tmp_path, name, dtype):
    source = tmp_path / "source"
    folder(source, name, dtype)
    scheme = "int4-g32-gptq"
    told = []
    made = convert.quantize_safetensors(
        source, tmp_path / "out", scheme, calibration=TEXTS, calibrating=lambda *n: told.append(n)
    )
    convert.quantize_safetensors(source, tmp_path / "nearest", "int4-g32")
    assert made.choice.quantized and not made.rounded
    assert told[-1] == (len(made.choice.quantized),) * 2
    said = json.loads((tmp_path / "out/config.json").read_text())["quantization_config"]
    assert said == json.loads((tmp_path / "nearest/config.json").read_text())["quantization_config"]
    sizes = [(tmp_path / k / "model.safetensors").stat().st_size for k in ("out", "nearest")]
    assert abs(sizes[0] - sizes[1]) < 100  # the name of the scheme
    ids = torch.tensor(np.random.default_rng(99).integers(3, 93, (20, 12)))
    ids = dict.fromkeys(inputs(name), ids)
    with torch.no_grad():
        want, got, nearest = (read(tmp_path / k)(**ids)[0] for k in ("source", "out", "nearest"))
    decoded = convert.load(tmp_path / "out")
    with torch.no_grad():
        plain = read(source)
        tree = dict(plain.named_parameters())
        for k, v in decoded.items():
            for prefix in ("", "model."):
                if k.removeprefix(prefix) in tree:
                    tree[k.removeprefix(prefix)].copy_(torch.from_numpy(np.array(v, np.float32)))
        same = plain(**ids)[0]
    tolerance = 1e-4 if dtype is None else 0.05
    assert torch.allclose(same, got, rtol=tolerance, atol=tolerance * float(got.abs().max()))
    assert (got - want).norm() < 0.95 * (nearest - want).norm()


@pytest.mark.serial
@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["bert base", "bert", "llama", "gpt-neox"])
def test_widths_that_differ_are_read_by_name(tmp_path, name, dtype):
    """By the class that was saved and by the base of it, whose modules have other names."""
    folder(tmp_path / "source", name, dtype)
    made = convert.quantize_safetensors(
        tmp_path / "source", tmp_path / "out", "int-g32-gptq", calibration=TEXTS[:20], bits="auto", budget=5.0
    )
    assert len(set(made.widths.values())) > 1 and set(made.widths) == set(made.choice.quantized)
    assert 4.7 < made.bits <= 5.0 and not made.unread
    assert made.curve[0][0] < made.chosen[0] <= 5.0 < made.curve[-1][0] and made.chosen[0] == pytest.approx(made.bits)
    files = [(p / "model.safetensors").stat().st_size for p in (tmp_path / "source", tmp_path / "out")]
    weights = sum(np.prod(a.shape) for k, a in convert.load(tmp_path / "source").items() if k in made.widths)
    assert abs(files[0] - files[1] - weights * ((32 if dtype is None else 16) - made.bits) / 8) < 8000  # headers
    decoded = convert.load(tmp_path / "out")
    ids = dict.fromkeys(inputs(name), torch.tensor(np.random.default_rng(99).integers(3, 93, (20, 12))))
    config = json.loads((tmp_path / "source/config.json").read_text())
    for head in (transformers.AutoModel, getattr(transformers, config["architectures"][0])):
        plain = head.from_pretrained(tmp_path / "source", dtype=torch.float32).eval()
        tree, at = dict(plain.named_parameters()), plain.base_model_prefix
        with torch.no_grad():
            for k, v in decoded.items():
                k = k.replace("embed_out", "lm_head")  # as transformers does
                for called in {k, k.removeprefix(f"{at}."), f"{at}.{k}"} & tree.keys():
                    tree[called].copy_(torch.from_numpy(np.array(v, np.float32)))
            want = plain(**ids)[0]
            got = head.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()(**ids)[0]
        assert torch.allclose(want, got, rtol=1e-4, atol=1e-4 * float(got.abs().max()))


@pytest.mark.serial
@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["bert base", "llama", "gemma"])
def test_scales_are_in_the_file(tmp_path, name, dtype):
    model = folder(tmp_path / "source", name, dtype)
    with torch.no_grad():  # a few inputs far larger
        for k, parameter in model.named_parameters():
            if "norm" in k.lower() and k.endswith("weight"):
                parameter[[3, 9]] += 20
    model.save_pretrained(tmp_path / "source")
    scheme = "int4-g32-awq"
    made = convert.quantize_safetensors(tmp_path / "source", tmp_path / "out", scheme, calibration=TEXTS)
    convert.quantize_safetensors(tmp_path / "source", tmp_path / "nearest", "int4-g32")
    assert not made.rounded and set(made.unscaled) < set(made.choice.quantized)
    out, source = convert.load(tmp_path / "out"), convert.load(tmp_path / "source")
    changed = {k for k in source.keys() - set(made.choice.quantized) if not np.array_equal(out[k], source[k])}
    norms = {k for k in changed if "norm" in k.lower()}
    assert bool(norms) == (name != "bert base")  # whose norms give to what comes after, too
    ids = torch.tensor(np.random.default_rng(99).integers(3, 93, (20, 12)))
    ids = dict.fromkeys(inputs(name), ids)
    with torch.no_grad():
        want, got, nearest = (read(tmp_path / k)(**ids)[0] for k in ("source", "out", "nearest"))
    assert (got - want).norm() < 0.95 * (nearest - want).norm()


def test_a_folder_that_transformers_does_not_read_is_said_to_be_one(tmp_path):
    folder(tmp_path / "source", "t5")
    made = convert.quantize_safetensors(
        tmp_path / "source", tmp_path / "out", "int-g32-gptq", calibration=TEXTS[:20], bits=(3, 4), budget=4.5
    )
    assert "has no attribute 'weight'" in made.unread
    assert convert.load(tmp_path / "out").keys() == convert.load(tmp_path / "source").keys()
    folder(tmp_path / "experts", "mixtral")
    with pytest.raises(ValueError, match="widths cannot differ: transformers puts"):
        convert.quantize_safetensors(
            tmp_path / "experts", tmp_path / "no", "int-g32-gptq", calibration=TEXTS[:20], bits="auto", budget=5.0
        )
    with pytest.raises(ValueError, match="goes with bits and budget"):
        convert.quantize_safetensors(tmp_path / "source", tmp_path / "no", "int-g32-gptq", calibration=TEXTS)


@pytest.mark.serial
@pytest.mark.parametrize(
    ("name", "said", "left"),
    [
        ("mixtral", {"an expert of fewer rows than columns"}, "*.q_proj"),
        ("mobilebert", {"never called"}, "*.0.*"),
        ("rwkv", set(), "*.0.*"),
    ],
)
def test_what_the_model_never_runs_is_rounded_and_said(tmp_path, name, said, left):
    """Experts that few tokens go to, a pooler that nobody asks: as without calibration, with scales that are searched for."""
    folder(tmp_path / "source", name)
    made = convert.quantize_safetensors(
        tmp_path / "source", tmp_path / "out", "int4-g32-gptq", calibration=TEXTS[:20], exclude=[left]
    )
    convert.quantize_safetensors(tmp_path / "source", tmp_path / "nearest", "int4-g32", exclude=[left], method="mse")
    assert set(made.rounded.values()) == said and any(why == "excluded" for why in made.choice.dense.values())
    arrays, out, nearest = (convert.load(tmp_path / k) for k in ("source", "out", "nearest"))
    for k in arrays:
        same = k in made.rounded or k in made.choice.dense or k not in made.choice.quantized
        assert np.array_equal(out[k], nearest[k]) == same, k


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda p: (p / "tokenizer.json").unlink(), "its tokenizer cannot be read"),
        (
            lambda p: (p / "config.json").write_text('{"architectures": ["Other"], "model_type": "none"}'),
            "does not know",
        ),
    ],
)
def test_a_folder_that_cannot_be_run_is_refused(tmp_path, prepare, said):
    folder(tmp_path / "source", "bert base")
    prepare(tmp_path / "source")
    with pytest.raises(ValueError, match=said):
        convert.quantize_safetensors(tmp_path / "source", tmp_path / "out", "int4-g32-gptq", calibration=TEXTS)
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_said_with_what_installs_it(tmp_path, monkeypatch):
    folder(tmp_path / "source", "bert base")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"needs transformers: pip install 'tersor\[models\]'"):
        convert.quantize_safetensors(tmp_path / "source", tmp_path / "out", "int4-g32-gptq", calibration=TEXTS)


def test_calibration_and_scheme_go_together(tmp_path):
    folder(tmp_path / "source", "bert base")
    for scheme, texts, said in [("int4-g32-gptq", None, "needs texts"), ("int4-g32", TEXTS, "is not calibrated")]:
        with pytest.raises(ValueError, match=said):
            convert.quantize_safetensors(tmp_path / "source", tmp_path / "out", scheme, calibration=texts)
    one = tmp_path / "source/model.safetensors"
    with pytest.raises(ValueError, match="runs a model, which is a folder"):
        convert.quantize_safetensors(one, tmp_path / "out.safetensors", "int4-g32-gptq", calibration=TEXTS)
    assert {p.name for p in tmp_path.iterdir()} == {"source"}
