"""Sparse matrices of text files. The one rule: what SciPy reads is read alike, and a wrong line is refused with its number."""

import gzip
import io

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
import tersor
from hypothesis import given
from tersor import sparse
from tersor.sparse import market
from tersor.testing import csr


def written(path, text):
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@given(parts=csr())
def test_as_scipy_writes(tmp_path_factory, parts):
    data, indices, indptr, shape = parts
    a, file = sp.csr_array((data, indices, indptr), shape=shape), io.BytesIO()
    scipy.io.mmwrite(file, a, symmetry="general", precision=17)
    path = written(tmp_path_factory.mktemp("mtx") / "a.mtx", file.getvalue())
    np.testing.assert_allclose(sparse.read_mtx(path).to_dense(), a.toarray(), rtol=1e-15, atol=1e-300)
    packed = written(path.with_suffix(".mtx.gz"), gzip.compress(file.getvalue()))
    assert sparse.read_mtx(str(packed)).data.tobytes() == sparse.read_mtx(path).data.tobytes()
    pattern = a.tocsr()
    lists = " ".join(map(str, pattern.indptr)), " ".join(map(str, pattern.indices))
    path = written(path.with_suffix(".smtx"), f"{shape[0]}, {shape[1]}, {pattern.nnz}\n{lists[0]}\n{lists[1]}\n")
    b = sparse.read_smtx(path)
    assert b.shape == shape and (b.indptr == pattern.indptr).all() and (b.data == 1).all() and b.dtype == np.float32


def test_symmetries_fields_and_blank_lines(tmp_path, monkeypatch):
    head = "%%MatrixMarket matrix coordinate "
    for text, want in (
        (
            "real symmetric\n% a word\n\n3 3 3\n1 1 2.5\n\n3 1 -1e-1\n2 2 inf\n",
            [[2.5, 0, -0.1], [0, np.inf, 0], [-0.1, 0, 0]],
        ),
        ("integer skew-symmetric\n2 2 1\n2 1 7", [[0, -7], [7, 0]]),
        ("pattern general\r\n2 3 2\r\n1 3\r\n 2\t1 \r\n", [[0, 0, 1], [1, 0, 0]]),
        ("REAL General\n1 1 2\n1 1 1\n1 1 .5\n", [[1.5]]),
        ("real general\n2 2 0\n", [[0, 0], [0, 0]]),
    ):
        path = written(tmp_path / "a.mtx", head + text)
        for block in (market.BLOCK, 5):
            monkeypatch.setattr(market, "BLOCK", block)
            a = sparse.read_mtx(path, dtype="float32")
            assert a.dtype == np.float32
            np.testing.assert_array_equal(a.to_dense(), np.array(want, np.float32))


HEAD = "%%MatrixMarket matrix coordinate real general\n"


@pytest.mark.parametrize("block", [market.BLOCK, 4])
@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", 1, "expected %%MatrixMarket"),
        ("%%MatrixMarket matrix array real general\n2 2\n", 1, "'array' matrices are not read"),
        ("%%MatrixMarket matrix coordinate complex general\n", 1, "'complex' matrices are not read"),
        ("%%MatrixMarket matrix coordinate real hermitian\n", 1, "'hermitian' matrices are not read"),
        (HEAD + "% only words\n", 3, "expected the numbers of rows, columns and entries"),
        (HEAD + "2 2\n", 2, "expected the numbers of rows, columns and entries, got '2 2'"),
        (HEAD + "2 2 -1\n", 2, "expected the numbers"),
        (HEAD.replace("general", "symmetric") + "2 3 0\n", 2, "a symmetric matrix of 2×3"),
        (HEAD + "2 2 2\n1 1 1\n1 2\n", 4, "expected a row, a column and a value, got '1 2'"),
        (HEAD + "2 2 2\n1 1 1 1\n1 2\n", 3, "expected a row, a column and a value, got '1 1 1 1'"),
        (HEAD + "2 2 2\n1 1 1\n\n1 x 2\n", 5, "got '1 x 2'"),
        (HEAD + "2 2 1\n1.0 1 1\n", 3, "got '1.0 1 1'"),
        (HEAD + "2 2 1\n1 1 0x10\n", 3, "got '1 1 0x10'"),
        (HEAD + "2 2 2\n1 1 1\n\n3 1 1\n", 5, "row 3 is outside 1..2"),
        (HEAD.replace("real", "integer") + "2 2 2\n1 1 1\n1 2 2.5\n", 4, "the value 2.5 is no integer"),
        (HEAD.replace("general", "skew-symmetric") + "2 2 1\n2 2 3\n", 3, "the value 3 is on the diagonal of a skew"),
        (HEAD + "2 2 1\n1 0 1\n", 3, "column 0 is outside 1..2"),
        (HEAD + "2 2 2\n1 1 1\n", 4, "the file ends after 1 of 2 entries"),
        (HEAD + "2 2 1\n1 1 1\n\n2 2 1\n2 1 1\n", 5, "more than the 1 entries announced"),
    ],
)
def test_wrong_lines_are_refused(tmp_path, monkeypatch, block, text, line, said):
    monkeypatch.setattr(market, "BLOCK", block)
    for name, content in (("a.mtx", text.encode()), ("a.mtx.gz", gzip.compress(text.encode()))):
        path = written(tmp_path / name, content)
        with pytest.raises(tersor.FormatError) as info:
            sparse.read_mtx(path)
        assert str(info.value).startswith(f"read_mtx: {path}, line {line}: ") and said in str(info.value)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("2, 3\n", 1, "expected the numbers of rows, columns and entries"),
        ("2, 3, 1\n0 1\n1\n", 2, "expected 3 offsets, got 2"),
        ("2, 3, 1\n0 a 1\n1\n", 2, "expected 3 offsets, got '0 a 1'"),
        ("2, 3, 1\n0 2 1\n1\n", 2, "offsets must rise from 0 to 1"),
        ("2, 3, 1\n0 1 1\n3\n", 3, "column 3 is outside 0..2"),
        ("2, 3, 1\n0 1 1\n-1\n", 3, "expected 1 columns, got '-1'"),
        ("2, 3, 2\n0 1 2\n1\n", 3, "expected 2 columns, got 1"),
        ("2, 3, 1\n0 1 1\n1\n7\n", 4, "more than three lines"),
    ],
)
def test_wrong_patterns_are_refused(tmp_path, text, line, said):
    path = written(tmp_path / "a.smtx", text)
    with pytest.raises(tersor.FormatError) as info:
        sparse.read_smtx(path)
    assert str(info.value).startswith(f"read_smtx: {path}, line {line}: ") and said in str(info.value)


def test_damaged_files_and_wrong_arguments(tmp_path):
    whole = gzip.compress((HEAD + "2 2 1\n1 1 1\n").encode() * 50)
    for bad in (whole[:-9], whole[:20] + b"\0\0\0\0" + whole[24:]):
        with pytest.raises(tersor.FormatError, match="line"):
            sparse.read_mtx(written(tmp_path / "a.gz", bad))
    for read in (sparse.read_mtx, sparse.read_smtx):
        with pytest.raises(TypeError, match=f"{read.__name__}: path must be a string or a path, got int"):
            read(3)
        with pytest.raises(TypeError, match=f"{read.__name__}: dtype must be .* got int8"):
            read(tmp_path / "a.gz", dtype="int8")
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "none")
