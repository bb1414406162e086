"""``tersor embed``: edge lists in files. The one rule: what is written is what `fastrp` gives for these edges."""

import gzip
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tersor import FormatError, graph
from tersor.jobs import embed as job

pytest.importorskip("click")

rng = np.random.default_rng(0)
EDGES = rng.integers(0, 30, (2, 80))
EDGES[:, -1] = 0, 29
WEIGHTS = rng.integers(1, 5, 80)
TEXT = "# source target weight\n" + "".join(f"{u}\t{v}\t{w}\n" for u, v, w in zip(*EDGES, WEIGHTS, strict=True))


def tersor(*arguments):
    command = [sys.executable, "-c", "from tersor.cli import main; main()", "embed", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_writes_what_the_function_gives(tmp_path):
    path, out = tmp_path / "edges.tsv.gz", tmp_path / "e.npy"
    path.write_bytes(gzip.compress(TEXT.encode()))
    done = tersor(path, "-o", out, "--dim", "16", "--weights", "1,2", "--seed", "3")
    assert done.returncode == 0 and "80 edges" in done.stdout, done.stderr
    a = graph.adjacency(EDGES, weights=WEIGHTS, undirected=True)
    nodes = np.unique(EDGES)
    keys = None if len(nodes) == 30 else nodes
    a = graph.adjacency(np.searchsorted(nodes, EDGES), weights=WEIGHTS, undirected=True)
    want = graph.fastrp(a, 16, [1, 2], seed=3, node_keys=keys)
    assert np.load(out).tobytes() == want.tobytes()
    path.write_bytes(gzip.compress(TEXT.encode())[:-30])
    broken = tersor(path, "-o", tmp_path / "no.npy")
    assert broken.returncode == 1 and "edges.tsv.gz" in broken.stderr and not (tmp_path / "no.npy").exists()
    assert tersor(tmp_path / "nothing", "-o", out).returncode == 2
    before = out.read_bytes()
    both = tersor(path, "-o", out, "--nodes", tmp_path / "." / out.name)
    assert both.returncode == 2 and "cannot be both" in both.stderr and out.read_bytes() == before


def test_blocks_do_not_show(tmp_path, monkeypatch):
    path = tmp_path / "edges.csv"
    path.write_text(TEXT.replace("\t", ","))
    whole = job.read_edges(path)
    seen = []
    monkeypatch.setattr(job, "BLOCK", 50)
    parts = job.read_edges(path, lambda done, total: seen.append((done, total)))
    assert (whole.nodes[whole.source] == EDGES[0]).all() and (whole.weights == WEIGHTS).all()
    assert all((a == b).all() for a, b in zip(vars(whole).values(), vars(parts).values(), strict=True))
    assert len(seen) > 5 and seen[-1][0] == seen[-1][1] == path.stat().st_size


def test_names_and_keys_of_nodes(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "BLOCK", 4)
    path, out, names = tmp_path / "edges", tmp_path / "e.npy", tmp_path / "names"
    path.write_text("7 3\n3 ada\n% comment\n\nada bob")
    assert job.embed(path, out, 8, [1], nodes=names) == (4, 3)
    assert names.read_text().split() == ["7", "3", "ada", "bob"]
    monkeypatch.undo()
    one, more = tmp_path / "one", tmp_path / "more"
    one.write_text("5 100\n100 9\n")
    more.write_text("5 100\n100 9\n200 201\n")
    e = [job.embed(p, out, 8, [1], variant="gds", s=1.0) and np.load(out) for p in (one, more)]
    assert e[0].shape == (3, 8) and np.allclose(e[0], e[1][[0, 1, 2]])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 2 1\n1,,2\n", "line 2 has an empty field"),
        ("a, ,1\nb, ,2\n", "line 1 has an empty field"),
        ("1,2\n,3,4\n", "line 2 has an empty field"),
        ("a b\nc\0 b\n", "line 2 has a byte 0"),
        ("1 2\n3\n", "line 2 has 1 columns, not 2"),
        ("1\n", "not 2 or 3"),
        ("1 2 x\n", "a weight is no number: b'x'"),
        ("1 2 1\n2 3 -1\n", "edges: weights must be finite and not negative, got -1.0"),
        ("1 2 nan\n", "edges: weights must be finite and not negative, got nan"),
        ("1 2 1\n2 3 1_0\n", "a weight is no number: b'1_0'"),
        ("1 2 1e300\n", r"a weight is 1e\+300, which float32 does not hold"),
        ("1 2 1\n1 3 -1e-300\n", "a weight is -1e-300, which float32 does not hold"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, text, words):
    path = tmp_path / "edges"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        job.embed(path, tmp_path / "e.npy", 8)
    assert not (tmp_path / "e.npy").exists()


def test_both_files_are_there_or_none(tmp_path):
    (tmp_path / "edges").write_text("1 2\n")
    with pytest.raises(OSError, match="its folder does not exist"):
        job.embed(tmp_path / "edges", tmp_path / "e.npy", 8, nodes=tmp_path / "nowhere" / "nodes")
    assert [p.name for p in tmp_path.iterdir()] == ["edges"]


def test_names_are_bytes_and_come_back(tmp_path):
    path, nodes = tmp_path / "edges.tsv", tmp_path / "nodes"
    path.write_bytes(b"\xff\t\xfe\n")
    job.embed(path, tmp_path / "e.npy", 4, nodes=nodes)
    assert nodes.read_bytes() == b"\xff\n\xfe\n"


def test_a_damaged_file_is_named(tmp_path):
    packed = bytearray(gzip.compress(np.random.default_rng(0).bytes(1000).hex().encode()))
    packed[40:60] = bytes(20)
    path = tmp_path / "edges.gz"
    path.write_bytes(packed)
    with pytest.raises(FormatError, match=r"edges\.gz"):
        job.read_edges(path)


def test_unsigned_columns_are_numbers(tmp_path, monkeypatch):
    parquet(monkeypatch, np.array([7, 3], "u8"), np.array([3, 5]))
    (tmp_path / "edges.parquet").touch()
    assert job.read_edges(tmp_path / "edges.parquet").nodes.tolist() == [3, 5, 7]


def parquet(monkeypatch, *columns):
    """What pyarrow would give of a file."""
    batch = SimpleNamespace(
        num_rows=len(columns[0]),
        columns=[SimpleNamespace(to_numpy=lambda zero_copy_only, x=x: x) for x in columns],
        schema=SimpleNamespace(names=list("uvw"[: len(columns)])),
    )
    file = SimpleNamespace(metadata=SimpleNamespace(num_rows=batch.num_rows), iter_batches=lambda _: iter([batch]))
    module = SimpleNamespace(ParquetFile=lambda _: file)
    monkeypatch.setitem(sys.modules, "pyarrow", SimpleNamespace(parquet=module))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", module)


def test_a_damaged_parquet_file_is_named(tmp_path):
    path = tmp_path / "edges.parquet"
    pq.write_table(pa.table({"u": list(range(1000)), "v": ["007"] * 1000}), path)
    assert job.read_edges(path).nodes[:3] == ["0", "007", "1"]
    whole = path.read_bytes()
    for damaged in (b"1 2\n", whole[:-20], whole[:4] + bytes(200) + whole[204:]):
        path.write_bytes(damaged)
        with pytest.raises(FormatError, match=r"edges\.parquet"):
            job.read_edges(path)


@pytest.mark.parametrize(
    ("columns", "nodes"),
    [
        ({"u": [1, 2], "v": [2, 3]}, [1, 2, 3]),
        ({"u": pa.array([7, 2**63], pa.uint64()), "v": [2, 3]}, ["7", "2", "9223372036854775808", "3"]),
        ({"u": ["é", "日本"], "v": pa.array(["b", "c"], pa.large_string())}, ["é", "b", "日本", "c"]),
        ({"u": pa.array(["a", "b"]).dictionary_encode(), "v": [b"b", b"c"]}, ["a", "b", "c"]),
        ({"u": pa.array([], pa.string()), "v": pa.array([], pa.int64())}, []),
        ({"u": [1, None], "v": [2, 3]}, "nodes of column u must be integers or strings, without gaps"),
        ({"u": [None, None], "v": [2, 3]}, "nodes of column u must be"),
        ({"u": [[1], [2]], "v": [2, 3]}, "nodes of column u must be"),
        ({"u": [True, False], "v": [2, 3]}, "nodes of column u must be"),
        ({"u": pa.array([1, 2], pa.timestamp("s")), "v": [2, 3]}, "nodes of column u must be"),
        ({"u": ["a", "b"], "v": ["c\nd", "e"]}, "names of column v must be without line breaks"),
        ({"u": ["a", "b"], "v": ["c", "e\0"]}, "names of column v must be without line breaks and zeros"),
        ({"u": [1, 2]}, "there are 1 columns"),
    ],
)
def test_columns_of_every_type(tmp_path, columns, nodes):
    path = tmp_path / "edges.parquet"
    pq.write_table(pa.table(columns), path)
    if isinstance(nodes, str):
        with pytest.raises(FormatError, match=rf"edges\.parquet: {nodes}"):
            job.read_edges(path)
    else:
        assert list(job.read_edges(path).nodes) == nodes


def test_weights_of_every_type(tmp_path):
    path = tmp_path / "edges.parquet"
    for w in (
        pa.array([0.5, 2], pa.float32()),
        np.array([0.5, 2], np.float16),
        pa.array([0.5, 2]).cast(pa.decimal128(4, 1)),
    ):
        pq.write_table(pa.table({"u": [1, 2], "v": [2, 3], "w": w}), path)
        assert job.read_edges(path).weights.tolist() == [0.5, 2]
    pq.write_table(pa.table({"u": [1, 2], "v": [2, 3], "w": [1.0, None]}), path)
    with pytest.raises(FormatError, match="weights must be finite"):
        job.embed(path, tmp_path / "e.npy", 4)


def test_columns_of_names_and_what_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "edges.parquet"
    path.touch()
    parquet(monkeypatch, np.array(["007", "ada"], object), np.array([7, 2**63], "u8"), np.array([0.5, 2.0]))
    edges = job.read_edges(path)
    assert edges.nodes == ["007", "7", "ada", str(2**63)] and edges.weights.tolist() == [0.5, 2.0]
    for column in (np.array([1.0, np.nan]), np.array(["a", None], object)):
        parquet(monkeypatch, column, column)
        with pytest.raises(
            FormatError, match=r"edges\.parquet: nodes of column u must be integers or strings, without"
        ):
            job.read_edges(path)
    parquet(monkeypatch, np.arange(2), np.arange(2), np.array(["x", None], object))
    with pytest.raises(FormatError, match="a weight is no number"):
        job.read_edges(path)


@pytest.mark.parametrize("block", [4, 1 << 24])
def test_names_are_as_they_are_written(tmp_path, monkeypatch, block):
    """Also where integers before them were read as such."""
    monkeypatch.setattr(job, "BLOCK", block)
    path = tmp_path / "edges"
    for text, nodes in (
        ("007 7\n7 ada\n-0 +7\n", ["007", "7", "ada", "-0", "+7"]),
        ("1 007\n", ["1", "007"]),
        ("007 1\n1 2\n", ["007", "1", "2"]),  # a number is no header, be there no other name
        ("9223372036854775808 1\n1 2\n", ["9223372036854775808", "1", "2"]),
        ("1.5 a\n1 2\n", ["1.5", "a", "1", "2"]),
        ("10 -7\n0 2\n", [-7, 0, 2, 10]),
        ("1_0 10\n", ["1_0", "10"]),
    ):
        path.write_text(text)
        assert list(job.read_edges(path).nodes) == nodes


@pytest.mark.parametrize("block", [4, 1 << 24])
@pytest.mark.parametrize(
    ("text", "nodes", "header"),
    [
        ("\ufeff1 2\n", [1, 2], None),
        ("source target\nada bob\n", ["ada", "bob"], None),
        ("Src,Dst,weight\n1,2,0.5\n", [1, 2], None),
        ("# made by hand,,\nuser item\n3 4\n4 5\n", [3, 4, 5], None),
        ("user item score\nada bob 2\n", ["ada", "bob"], None),
        ("user item\nada bob\n", ["user", "item", "ada", "bob"], None),
        ("user item\nada bob\n", ["ada", "bob"], True),
        ("user item\n3 4\n", ["user", "item", "3", "4"], False),
        ("user item 2\n3 4 1\n", ["user", "item", "3", "4"], None),
        ("user item\n", ["user", "item"], None),
        ("source target\n", [], None),
        ("1 2\n3 4\n", [3, 4], True),
    ],
)
def test_a_header_is_no_edge(tmp_path, monkeypatch, text, nodes, header, block):
    monkeypatch.setattr(job, "BLOCK", block)
    path = tmp_path / "edges"
    path.write_text(text, encoding="utf-8")
    edges = job.read_edges(path, header=header)
    assert list(edges.nodes) == nodes
    assert len(edges.source) == len(edges.target) == {0: 0, 2: 1, 3: 2, 4: 2}[len(nodes)]
    assert edges.weights is None or len(edges.weights) == len(edges.source)
