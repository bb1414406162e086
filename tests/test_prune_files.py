"""Checkpoints pruned by layers, blocks, rows and steps, and counted without being written. The one rule: the file is what the
functions give of the tensors in memory, byte for byte."""

import math

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import load_file as load
from safetensors.numpy import save_file as save
from tersor import prune
from tersor.cli import commands
from tersor.jobs import prune_rows


def some(seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    shapes = {"a.weight": (12, 8), "b.weight": (6, 20), "conv.weight": (4, 3, 2, 2), "bias": (5,)}
    return {k: (rng.standard_normal(s) * (1 + i)).astype(dtype) for i, (k, s) in enumerate(shapes.items())}


@pytest.fixture
def files(tmp_path):
    save(some(), tmp_path / "in.safetensors")
    return tmp_path / "in.safetensors", tmp_path / "out.safetensors"


WEIGHTS = ("a.weight", "b.weight", "conv.weight")


@pytest.mark.parametrize("least", [0, 10, 60])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.875, 1.0])
def test_each_layer_by_itself(files, sparsity, least):
    made, w = prune.prune_safetensors(*files, sparsity, scope="layer", min_keep=least), some()
    got = load(files[1])
    for name in WEIGHTS:
        gone = min(round(sparsity * w[name].size), w[name].size - min(least, w[name].size))
        (mask,) = prune.global_masks([w[name]], k=gone)
        assert np.array_equal(got[name], w[name] * mask) and made.kept[name] == w[name].size - gone
    assert np.array_equal(got["bias"], w["bias"]) and made.sizes == {k: w[k].size for k in WEIGHTS}
    pruned = [np.abs(w[k][got[k] == 0]).max(initial=-1.0) for k in WEIGHTS]
    assert made.threshold == (max(pruned) if max(pruned) >= 0 else None)
    assert made.pruned == made.total - sum(made.kept.values())


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_layers_of_every_type(tmp_path, dtype):
    from safetensors.torch import load_file, save_file

    w = {k: torch.from_numpy(x).to(getattr(torch, dtype)) for k, x in some().items()}
    save_file(w, tmp_path / "in.safetensors")
    for options in ({}, {"blocks": (2, 4), "include": ["a.*", "b.*"]}, {"blocks": "rows"}):
        made = prune.prune_safetensors(
            tmp_path / "in.safetensors", tmp_path / "out.safetensors", 0.5, scope="layer", **options
        )
        got = load_file(tmp_path / "out.safetensors")
        for name in made.sizes:
            if options.get("blocks") == "rows":
                (mask,) = prune.global_masks([prune.row_scores(w[name])], 0.5)
                mask = mask.reshape(-1, *[1] * (w[name].ndim - 1)).expand(w[name].shape)
            elif options:
                mask = prune.block_mask(w[name], 0.5, block=(2, 4))
            else:
                (mask,) = prune.global_masks([w[name]], 0.5)
            assert torch.equal(got[name], w[name] * mask) and made.kept[name] == int(mask.sum())
            assert not torch.signbit(got[name][~mask]).any()


@pytest.mark.parametrize("chunk", [1, 100, 1 << 22])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_blocks_and_rows_over_the_borders_of_chunks(files, monkeypatch, chunk, scope):
    monkeypatch.setattr(prune_rows, "CHUNK", chunk)
    w = {k: some()[k] for k in WEIGHTS}
    norms = {k: np.square(x.reshape(-1, 2, x.shape[-1] // 2, 2), dtype=np.float64).sum((1, 3)) for k, x in w.items()}
    masks = prune.global_masks(list(norms.values()), 0.4, scope=scope)
    made = prune.prune_safetensors(*files, 0.4, blocks="2x2", scope=scope)
    got = load(files[1])
    for (name, x), mask in zip(w.items(), masks, strict=True):
        whole = np.repeat(np.repeat(mask, 2, 0), 2, 1).reshape(x.shape)
        assert np.array_equal(got[name], x * whole) and made.kept[name] == whole.sum()
    rows = prune.global_masks([np.asarray(prune.row_scores(x)) for x in w.values()], 0.4, scope=scope)
    made = prune.prune_safetensors(*files, 0.4, blocks="rows", scope=scope)
    got = load(files[1])
    for (name, x), mask in zip(w.items(), rows, strict=True):
        whole = np.broadcast_to(mask.reshape(-1, *[1] * (x.ndim - 1)), x.shape)
        assert np.array_equal(got[name], x * whole) and made.kept[name] == whole.sum()


def test_blocks_of_numbers_whose_squares_are_beyond_float64(tmp_path):
    """Ranked together, all have roots: of sums and roots beside each other the order would be another."""
    w = {"big": np.array([[3e200, 1.0], [2e200, 1.0]]), "small": np.array([[1e-200, 3e-200], [2.0, 5e199]])}
    save(w, tmp_path / "in.safetensors")
    prune.prune_safetensors(tmp_path / "in.safetensors", tmp_path / "out.safetensors", 0.625, blocks=(1, 1))
    got = load(tmp_path / "out.safetensors")
    assert got["big"].tolist() == [[3e200, 0], [2e200, 0]] and got["small"].tolist() == [[0, 0], [0, 5e199]]


def test_what_blocks_do_not_divide_is_left(files):
    made = prune.prune_safetensors(*files, 0.5, blocks=(4, 4))
    assert made.dense == {
        "b.weight": "blocks of 4×4 do not divide 6×20",
        "conv.weight": "blocks of 4×4 do not divide 2×2",
    }
    assert list(made.kept) == ["a.weight"] and made.pruned == 48
    with pytest.raises(ValueError, match=r"no tensor is pruned .*blocks of 5×7 do not divide 12×8"):
        prune.prune_safetensors(*files, 0.5, blocks=(5, 7))
    bad = some() | {"a.weight": np.full((12, 8), math.nan, np.float32)}
    save(bad, files[0])
    for blocks in ((2, 2), "rows"):
        with pytest.raises(ValueError, match=r"tensor 'a.weight' has non-finite values"):
            prune.prune_safetensors(*files, 0.5, blocks=blocks)


@pytest.mark.parametrize(
    "options",
    [{}, {"scope": "layer"}, {"blocks": (2, 2)}, {"blocks": "rows"}, {"min_keep": 20}, {"nm": (1, 2)}],
    ids=str,
)
def test_without_a_destination_all_is_counted(files, options):
    sparsity = None if "nm" in options else 0.6
    want = prune.prune_safetensors(*files, sparsity, **options)
    before = sorted(p.name for p in files[0].parent.iterdir())
    got = prune.prune_safetensors(files[0], None, sparsity, **options)
    assert got._replace(untouched=(), left=()) == want._replace(untouched=(), left=())
    assert sorted(p.name for p in files[0].parent.iterdir()) == before


@pytest.mark.parametrize("given", [{}, {"scope": "layer", "min_keep": 2}, {"blocks": (2, 2)}, {"blocks": "rows"}])
def test_progress_ends_where_nothing_is_written_too(files, given):
    for dst in (files[1], None):
        told = []
        prune.prune_safetensors(files[0], dst, 0.5, progress=lambda *n, to=told: to.append(n), **given)
        assert told[-1][0] == told[-1][1] and told == sorted(told)


#: what runs a model
WANDA = {"sparsity": 0.5, "method": "wanda", "calibration": ["a"]}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sparsity": 0.5, "scope": "all"}, "scope must be one of global, layer"),
        ({"k": 5, "scope": "layer"}, "k and resume go with scope='global'"),
        ({"nm": (2, 4), "scope": "global"}, "scope='global' goes with method='magnitude'"),
        ({"nm": (2, 4), "blocks": (2, 2)}, "blocks goes with method='magnitude'"),
        ({"k": 5, "blocks": (2, 2)}, "k, min_keep and resume go with"),
        ({"sparsity": 0.5, "blocks": (0, 2)}, "blocks must have a row and a column"),
        ({"sparsity": 0.5, "schedule": [0.2]}, "a schedule goes with a sparsity and a method that runs"),
        (WANDA | {"schedule": [0.9]}, r"schedule must rise from 0 to sparsity = 0.5, got \[0.9\]"),
        (WANDA | {"schedule": [0.4, 0.2]}, "schedule must rise from 0"),
        (WANDA | {"schedule": [np.nan]}, "schedule must rise from 0"),
    ],
)
def test_what_does_not_go_together(files, given, said):
    with pytest.raises(ValueError, match=said):
        prune.prune_safetensors(*files, **given)
    assert not files[1].exists()
    with pytest.raises(TypeError, match="blocks must be 'rows', two numbers"):
        prune.prune_safetensors(*files, 0.5, blocks="4")
    for schedule in ("0.2", 0.2, ["a"], [None]):
        with pytest.raises(TypeError, match="prune_safetensors: schedule must be a sequence of numbers, got"):
            prune.prune_safetensors(*files, **WANDA, schedule=schedule)
    with pytest.raises(TypeError, match="blocks must be 'rows', two numbers"):
        prune.prune_safetensors(*files, 0.5, blocks=np.array([2, 2]))


# --- the command ---


@pytest.fixture
def tersor(monkeypatch):
    """The command in this process: its status and what it said."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*args):
        done = CliRunner().invoke(commands, ["prune", *map(str, args)])
        return done.exit_code, done.output

    return run


def test_a_report_of_every_layer(files, tersor):
    code, output = tersor(files[0], "--sparsity", "0.5", "--dry-run", "--scope", "layer")
    assert code == 0 and not files[1].exists(), output
    for name, size in (("a.weight", 96), ("b.weight", 120), ("conv.weight", 48)):
        (line,) = (line for line in output.splitlines() if name in line)
        assert f"{size}" in line and f"{size // 2}" in line and "50.00 %" in line
    assert "132 of 264 weights would be pruned (50.00 %)" in output


@pytest.mark.parametrize(
    ("args", "options"),
    [
        (["--pattern", "block:2x2"], {"blocks": (2, 2)}),
        (["--pattern", "rows", "--scope", "layer"], {"blocks": "rows", "scope": "layer"}),
        (["--scope", "layer", "--min-keep", "30"], {"scope": "layer", "min_keep": 30}),
        (["--scope", "global"], {}),
    ],
)
def test_options_are_those_of_the_function(files, tersor, args, options):
    prune.prune_safetensors(*files, 0.5, **options)
    want = files[1].read_bytes()
    code, output = tersor(files[0], "-o", files[1], "--sparsity", "0.5", *args)
    assert code == 0 and files[1].read_bytes() == want, output


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--sparsity", "0.5"], "-o is needed"),
        (["--sparsity", "0.5", "--dry-run", "-o", "x"], "-o or --dry-run"),
        (["-o", "x", "--pattern", "block:2x2"], "--sparsity is needed"),
        (["-o", "x", "--pattern", "2:4", "--sparsity", "0.5"], "--sparsity or --pattern N:M"),
        (["-o", "x", "--pattern", "2:4", "--scope", "global"], "--scope global goes with"),
        (["-o", "x", "--pattern", "block:2", "--sparsity", "0.5"], "a pattern is N:M, block:RxC or rows"),
        (["-o", "x", "--pattern", "block:0x2", "--sparsity", "0.5"], "a row and a column at least"),
        (["-o", "x", "--sparsity", "0.5", "--schedule", "cubic:3"], "--schedule goes with"),
        (["-o", "x", "--sparsity", "0.5", "--schedule", "steep:3"], "none of linear:N, cubic:N and cosine:N"),
        (["--sparsity", "0.5", "--dry-run", "--resume"], "--resume does not go with --dry-run"),
        (["-o", "x", "--sparsity", "0.5", "--scope", "layer", "--resume"], "--resume does not go with --scope layer"),
    ],
)
def test_usage(files, tersor, args, said):
    code, output = tersor(files[0], *args)
    assert code == 2 and said in " ".join(output.split()), output


def test_shares_on_the_way(tmp_path):
    """A model that is run and pruned in steps is what the steps give one after another."""
    pytest.importorskip("transformers")
    from test_calibrate import TEXTS, folder, read

    folder(tmp_path / "in", "bert base")
    told = []
    made = prune.prune_safetensors(
        tmp_path / "in", tmp_path / "out", 0.5, method="wanda", calibration=TEXTS, schedule=[0.2, 0.4],
        calibrating=lambda *n: told.append(n),
    )  # fmt: skip
    assert told[-1][0] == told[-1][1] and 2 * sum(made.kept.values()) == made.total
    first = prune.prune_safetensors(tmp_path / "in", tmp_path / "1", 0.2, method="wanda", calibration=TEXTS)
    prune.prune_safetensors(tmp_path / "1", tmp_path / "2", 0.4, method="wanda", calibration=TEXTS)
    prune.prune_safetensors(tmp_path / "2", tmp_path / "3", 0.5, method="wanda", calibration=TEXTS)
    got, want = read(tmp_path / "out").state_dict(), read(tmp_path / "3").state_dict()
    assert first.kept.keys() == made.kept.keys() and all(torch.equal(w, want[k]) for k, w in got.items())
    assert not tmp_path.joinpath("dry").exists()
    dry = prune.prune_safetensors(tmp_path / "in", None, 0.5, method="wanda", calibration=TEXTS)
    assert dry.kept == made.kept
