"""Packed codes lie where each format has them: by definitions of one code at a time, by peers, and back."""

import numpy as np
import pytest
from tersor import quant
from tersor.quant._layouts import LAYOUTS

BITS = [(name, bits) for name, how in LAYOUTS.items() for bits in how.bits]
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def codes(shape, bits, signed=False, seed=0):
    low = -(1 << bits - 1) if signed else 0
    return np.random.default_rng(seed).integers(low, low + (1 << bits), shape).astype("int8" if signed else "uint8")


def place(name, bits, n, k, i, j):
    """The word (its row and column) and the bit at which the code of row i and column j begins."""
    if name in ("dense", "ct_dense", "bnb"):
        width = 32 if name == "ct_dense" else 8
        bit = j * bits
        return i, bit // width, bit % width ^ (4 if name == "bnb" else 0)
    if name == "ct_padded":
        return i, j // (32 // bits), j % (32 // bits) * bits
    if name.startswith("gptq"):
        return i * bits // 32, j, i * bits % 32
    if name == "awq":
        return i, j // 8, 4 * ORDER.index(j % 8)
    if name == "aten_int4":
        low = i % 64 // 32 if i < n - n % 64 else i % 2
        rows = min(64, n - i // 64 * 64)
        pair = i % 32 if rows == 64 else i % 64 // 2
        at = i // 64 * 32 * k + j * rows // 2 + pair
        return at // (k // 2), at % (k // 2), 4 * low
    per = 10 if (name, bits) == ("hqq", 3) else 8 // bits
    share = -(-n // per)
    return i % share, j, bits * (i // share if name == "quanto" else per - 1 - i // share)


def plainly(q, bits, name):
    how = LAYOUTS[name]
    n, k = q.shape
    width = 32 if how.words or (name, bits) == ("hqq", 3) else 8
    places = {(i, j): place(name, bits, n, k, i, j) for i in range(n) for j in range(k)}
    rows = [max(p[a] for p in places.values()) + 1 + (a == 1 and how.words) for a in (0, 1)]
    w = np.zeros((rows[0] + 1, rows[1] + 1), np.uint64)
    for at, (row, column, bit) in places.items():
        code = int(q[at]) << bit
        w[row, column] |= np.uint64(code & (1 << width) - 1)
        if code >> width:
            down = name.startswith("gptq")
            w[row + down, column + (not down)] |= np.uint64(code >> width)
    return w


@pytest.mark.parametrize(("name", "bits"), BITS)
@pytest.mark.parametrize("shape", [(80, 24), (128, 8)])
def test_each_code_is_in_its_place(name, bits, shape):
    q = codes(shape, bits)
    w = quant.pack(q, bits, name)
    want = plainly(q, bits, name)
    assert w.flags.c_contiguous and not want[w.shape[0] :].any() and not want[:, w.shape[1] :].any()
    np.testing.assert_array_equal(
        w.astype(np.uint32 if w.dtype == np.int32 else np.uint8), want[: w.shape[0], : w.shape[1]]
    )


@pytest.mark.parametrize(("name", "bits"), BITS)
@pytest.mark.parametrize("shape", [(80, 32), (3, 5), (7, 16), (0, 8), (8, 0), (33, 1)])
@pytest.mark.parametrize(("signed", "library"), [(False, "numpy"), (True, "torch")])
def test_codes_come_back_and_what_is_no_code_is_zero(name, bits, shape, signed, library):
    how = LAYOUTS[name]
    n = shape[how.axis] if len(shape) > 1 else 0
    q = codes(shape, bits, signed)
    if library == "torch":
        torch = pytest.importorskip("torch")
        q = torch.from_numpy(q)
    if n % how.multiple or (how.blocks and shape[0] % 16):
        with pytest.raises(ValueError, match=f'pack: layout "{name}" holds'):
            quant.pack(q, bits, name)
        return
    w = quant.pack(q, bits, name)
    again = quant.unpack(w, bits, shape, name, dtype="int8" if signed else "uint8")
    assert again.shape == q.shape and again.dtype == q.dtype and (again == q).all()
    ones = np.unpackbits(np.ascontiguousarray(np.asarray(w)).view(np.uint8)).sum()
    assert ones == np.unpackbits((np.asarray(q).astype(int) + (1 << bits - 1) * signed).astype(np.uint8)).sum()


@pytest.mark.parametrize("shape", [(64, 32), (128, 64)])
@pytest.mark.parametrize("bits", range(1, 9))
def test_from_any_layout_to_any_and_back(bits, shape):
    q = codes(shape, bits)
    names = [name for name, b in BITS if b == bits]
    for src in names:
        for dst in names:
            w = quant.pack(q, bits, src)
            turned = LAYOUTS[src].turned != LAYOUTS[dst].turned
            other = quant.repack(w, bits, shape, src, dst)
            np.testing.assert_array_equal(other, quant.pack(q.T if turned else q, bits, dst))
            np.testing.assert_array_equal(quant.repack(other, bits, shape[::-1] if turned else shape, dst, src), w)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_zero_points_of_gptq(bits):
    z = np.maximum(codes((3, 32), bits), 1)
    one, two = quant.pack(z, bits, "gptq_v1", axis=-1), quant.pack(z, bits, "gptq_v2", axis=-1)
    np.testing.assert_array_equal(one, quant.pack(z - 1, bits, "ct_dense"))
    np.testing.assert_array_equal(two, quant.pack(z, bits, "ct_dense"))
    np.testing.assert_array_equal(quant.unpack(one, bits, z.shape, "gptq_v1", axis=1), z)
    np.testing.assert_array_equal(quant.repack(one, bits, z.shape, "gptq_v1", "gptq_v2", axis=-1), two)
    ct = quant.repack(one, bits, z.shape, "gptq_v1", "ct_dense", axis=-1)
    np.testing.assert_array_equal(ct, quant.pack(z.T, bits, "ct_dense", axis=0))
    np.testing.assert_array_equal(quant.repack(ct, bits, (32, 3), "ct_dense", "gptq_v1", axis=0), one)
    z[1, 2] = 0
    with pytest.raises(ValueError, match=f"pack: zero_point must lie within 1 and {1 << bits}, got 0"):
        quant.pack(z, bits, "gptq_v1", axis=-1)
    quant.pack(z, bits, "gptq_v1")  # codes may be 0


def test_a_zero_point_of_256_has_no_byte():
    w = np.full((1, 1), -1, np.int32)
    with pytest.raises(ValueError, match="unpack: zero_point must lie within"):
        quant.unpack(w, 8, (1, 4), "gptq_v1", axis=-1)
    assert (quant.unpack(w, 4, (1, 8), "gptq_v1", axis=-1) == 16).all()


def test_aten_packs_the_same():
    torch = pytest.importorskip("torch")
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("torch has blocks of other sizes there")
    for n in (16, 48, 64, 80, 192):
        q = codes((n, 34), 4, seed=n)
        want = torch.ops.aten._convert_weight_to_int4pack_for_cpu(torch.from_numpy(q).int(), 1)
        np.testing.assert_array_equal(quant.pack(q, 4, "aten_int4"), want.numpy())


def test_compiled_and_fake():
    torch = pytest.importorskip("torch")
    from torch._subclasses.fake_tensor import FakeTensorMode

    for name, bits in [("ct_padded", 3), ("awq", 4), ("gptq_v1", 4), ("hqq", 3), ("quanto", 2), ("aten_int4", 4)]:
        q = torch.from_numpy(codes((64, 32), bits))

        def there_and_back(q, name=name, bits=bits):
            return quant.unpack(quant.pack(q, bits, name), bits, (64, 32), name, dtype="uint8")

        assert torch.equal(torch.compile(there_and_back, fullgraph=True, backend="aot_eager")(q), q)
        want = quant.pack(q, bits, name)
        with FakeTensorMode() as mode:
            fake = quant.pack(mode.from_tensor(q), bits, name)
        assert fake.shape == want.shape and fake.dtype == want.dtype


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda q: quant.pack(q, 3, "awq"), 'layout "awq" holds codes of 4 bits, got bits = 3'),
        (lambda q: quant.pack(q, 5, "gptq_v2"), "codes of 2, 3, 4, 8 bits"),
        (lambda q: quant.pack(q, 4, "gptq"), "pack: layout must be one of"),
        (lambda q: quant.pack(q, 4, "aten_int4", axis=0), "packs the last axis of a matrix"),
        (lambda q: quant.unpack(q, 4, (64, 8), "quanto"), "does not hold codes of shape"),
        (lambda q: quant.repack(q, 4, (64, 32), "bnb", "awq"), "repack: w of shape"),
        (lambda q: quant.repack(q, 2, (64, 128), "dense", "awq"), "repack: layout"),
        (lambda q: quant.repack(q[0], 4, (64,), "dense", "awq"), "matrices are transposed"),
        (lambda q: quant.repack(q, 4, (64, 64), "bnb", "marlin"), "repack: dst must be one of"),
    ],
)
def test_what_a_layout_does_not_hold_is_said(call, said):
    with pytest.raises(ValueError, match=said):
        call(np.zeros((64, 32), np.uint8))
