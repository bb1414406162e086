"""Codes of GGUF files become layers of transformers' models: by name, with rows in their order, as its own reader has them."""

import numpy as np
import pytest
import torch
from tersor import FormatError, quant
from tersor import nn as tnn
from tersor.convert import load, load_encoded, repack, write_gguf

gguf = pytest.importorskip("gguf")
transformers = pytest.importorskip("transformers")

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 40,
    "max_position_embeddings": 32,
}
#: the configuration of each architecture, and what its class wants besides
MODELS = {
    "llama": ("LlamaConfig", {}),
    "qwen2": ("Qwen2Config", {}),
    "qwen3": ("Qwen3Config", {"head_dim": 16}),
    "gemma2": ("Gemma2Config", {"head_dim": 16}),
    "gemma3": ("Gemma3TextConfig", {"head_dim": 16}),
    "phi3": ("Phi3Config", {"pad_token_id": 0}),
    "starcoder2": ("Starcoder2Config", {}),
    "stablelm": ("StableLmConfig", {}),
}
#: what each is written in, by turns
SCHEMES = ("q8_0", "q4_0", "q5_0", "gguf_mxfp4")


def model_of(kind):
    torch.manual_seed(0)
    name, more = MODELS[kind]
    config = getattr(transformers, name)(**SIZES, **more)
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def written(path, kind, model):
    """A file of random codes under llama.cpp's names, as a converter would leave them."""
    table = gguf.get_tensor_name_map(next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == kind), 2)
    rng = np.random.default_rng(1)
    tensors = {}
    for name, p in model.named_parameters():
        x = rng.standard_normal(tuple(p.shape), np.float32)
        linear = p.ndim == 2 and "embed" not in name
        tensors[table.get_name(name, try_suffixes=(".weight", ".bias"))] = (
            quant.encode(x, SCHEMES[len(tensors) % 4]) if linear else x
        )
    u = np.uint32
    values = {
        "general.architecture": kind,
        "general.name": "small",
        f"{kind}.block_count": u(2),
        f"{kind}.attention.head_count": u(4),
        f"{kind}.attention.head_count_kv": u(2),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [str(i) for i in range(40)],
    }
    write_gguf(path, tensors, values)


@pytest.mark.parametrize("kind", MODELS)
def test_rows_and_names_are_those_of_transformers(kind, tmp_path):
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    model, path = model_of(kind), tmp_path / "m.gguf"
    written(path, kind, model)
    theirs = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)["tensors"]
    codes = load_encoded(path, model=model)
    every = {name for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name}
    assert set(codes) == every
    for name, e in codes.items():
        np.testing.assert_array_equal(quant.decode(e), theirs[name].numpy())
    model.load_state_dict(theirs, strict=False)
    ids = torch.arange(12)[None]
    with torch.no_grad():
        want = model(ids).logits
        made = tnn.convert(model, codes, include=["*"])
        got = model(ids).logits
    assert len(made.converted) == len(every)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4 * float(want.abs().max()))


def test_what_has_no_place_in_the_model_is_refused(tmp_path):
    model, path = model_of("llama"), tmp_path / "m.gguf"
    written(path, "llama", model)
    for other, why in ((model_of("starcoder2"), "of no parameter"), (torch.nn.Linear(2, 2), "of no parameter")):
        with pytest.raises(FormatError, match=why):
            load_encoded(path, model=other)
    code = quant.encode(np.ones((8, 32), np.float32), "q8_0")
    for values, why in (
        ({}, "layout of None"),
        ({"general.architecture": "falcon"}, "layout of 'falcon'"),
        ({"general.architecture": "llama"}, "block_count is None"),
        ({"general.architecture": "llama", "llama.block_count": np.uint32(2)}, "head_count is None"),
        (
            {
                "general.architecture": "llama",
                "llama.block_count": np.uint32(2),
                "llama.attention.head_count": np.uint32(3),
            },
            "rows of queries",
        ),
    ):
        write_gguf(path, {"blk.0.attn_q.weight": code}, values)
        with pytest.raises(FormatError, match=why):
            load_encoded(path, model=model)
    with pytest.raises(ValueError, match="for GGUF files"):
        load_encoded(tmp_path / "x.safetensors", model=model)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_blocks_become_layers(scheme):
    """The numbers stay: negative scales, zeros, subnormal scales, the ends of the codes."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 96)).astype(np.float32)
    x[0, :32], x[1, 32:64], x[2] = 0, 1e-7 * x[1, 32:64], abs(x[2])
    x[3, 5] = -60000
    e = quant.encode(x, scheme)
    layer = tnn.QuantLinear.of(e, torch.nn.Linear(96, 6))
    want = torch.from_numpy(quant.decode(e))
    assert torch.equal(layer.weight, want)
    tensors = quant.encode(torch.from_numpy(x), scheme)
    assert torch.equal(tnn.QuantLinear.of(tensors, torch.nn.Linear(96, 6)).data, layer.data)


def test_blocks_that_are_no_symmetric_codes():
    e = quant.encode(np.ones((4, 32), np.float32), "q4_1")
    with pytest.raises(ValueError, match=r"QuantLinear\.of: q4_1 .* start at a number"):
        tnn.QuantLinear.of(e, torch.nn.Linear(32, 4))
    made = tnn.convert(
        torch.nn.Sequential(torch.nn.Linear(32, 4), torch.nn.Linear(32, 4)),
        {"0.weight": e, "1.weight": quant.encode(np.ones((4, 32), np.float32), "q4_0")},
    )
    assert made.converted == ("1",) and "q4_1" in made.left["0"]
    e = quant.encode(np.ones((4, 32), np.float32), "q8_0")
    e.data[0, :2] = np.float16(np.inf).reshape(1).view(np.uint8)
    with pytest.raises(ValueError, match="not finite"):
        tnn.QuantLinear.of(e, torch.nn.Linear(32, 4))


def parts(folder, count=3):
    rng = np.random.default_rng(2)
    every = {f"blk.{i}.w": quant.encode(rng.standard_normal((2, 32), np.float32), "q8_0") for i in range(count)}
    paths = [folder / f"m-{i + 1:05}-of-{count:05}.gguf" for i in range(count)]
    for i, (path, (name, e)) in enumerate(zip(paths, every.items(), strict=True)):
        values = {"split.no": np.uint16(i), "split.count": np.uint16(count), "split.tensors.count": np.int32(count)}
        write_gguf(path, {name: e}, values)
    return paths, every


def test_a_split_file_is_read_whole(tmp_path):
    paths, every = parts(tmp_path)
    for path in paths:
        assert list(load(path)) == list(every)
        codes = load_encoded(path)
        for name, e in every.items():
            np.testing.assert_array_equal(codes[name].data, e.data)
    with pytest.raises(FormatError, match="one of 3 parts"):
        repack(paths[0], tmp_path / "o.safetensors", "ct")
    other = tmp_path / "m.gguf"
    paths[0].rename(other)
    with pytest.raises(FormatError, match="does not say what the others"):
        load(other)
    with pytest.raises(FileNotFoundError, match="00001-of"):
        load(paths[1])
    paths[1].rename(paths[0])
    with pytest.raises(FormatError, match="is not part 1 of 3"):
        load(paths[2])


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"split.no": np.uint16(1), "split.count": "3"}, "split.count is '3'"),
        ({"split.no": "1", "split.count": np.uint16(3)}, "is not part 2"),
        ({"split.no": np.uint16(1), "split.count": np.uint16(3), "more": 1}, "is in another part too"),
    ],
)
def test_parts_that_do_not_go_together(values, why, tmp_path):
    paths, every = parts(tmp_path)
    write_gguf(paths[1], {"blk.0.w" if "more" in values else "blk.1.w": every["blk.1.w"]}, values)
    with pytest.raises(FormatError, match=why):
        load(paths[1])


def test_blocks_without_a_scheme_are_left_out_on_request(tmp_path):
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 255, (2, 210), dtype=np.uint8)
    writer.add_tensor("output.weight", blocks, raw_dtype=gguf.GGMLQuantizationType.Q6_K)
    eight = quant.encode(rng.standard_normal((2, 64), np.float32), "q8_0")
    writer.add_tensor("blk.0.ffn_up.weight", eight.data, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(FormatError, match=r"strict=False\) leaves it out"):
        load_encoded(path)
    assert list(load_encoded(path, strict=False)) == ["blk.0.ffn_up.weight"]
    assert list(load(path)) == ["output.weight", "blk.0.ffn_up.weight"]
