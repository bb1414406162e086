"""Signs, normals and entries from words, in registers. The rule: by the same float32 steps and integers as `random.rs`, and
launches forbid fused products (`enable_fp_fusion=False`), which would round some of them otherwise.
"""

import triton
import triton.language as tl


@triton.jit
def _flip(x, on):
    """x, or -x where the integer `on` is 1."""
    return tl.where(on == 1, -x, x)


@triton.jit
def _normals(w, v):
    """Box and Muller, by the same float32 steps as `random.rs`."""
    bits = ((w >> 8) + 1).to(tl.int32).to(tl.float32).to(tl.int32, bitcast=True) - 0x3F3504F3
    e = ((bits >> 23) - 24).to(tl.float32)
    f = ((bits & 0x007FFFFF) + 0x3F3504F3).to(tl.float32, bitcast=True) - 1.0
    p = tl.full(f.shape, 0.06915147, tl.float32)
    p = p * f + -0.11789696
    p = p * f + 0.118730165
    p = p * f + -0.1238437
    p = p * f + 0.14218655
    p = p * f + -0.1666925
    p = p * f + 0.20002227
    p = p * f + -0.24999987
    p = p * f + 0.3333331
    f2 = f * f
    small = (f2 * f) * p + e * 1.4286068e-6 - 0.5 * f2
    r = tl.sqrt_rn(0.0 - 2.0 * (e * 0.69314575 + (f + small)))
    n = (v >> 8).to(tl.int32)
    q = (n + (1 << 21)) >> 22
    t = (n - (q << 22)).to(tl.float32) * 5.9604644775390625e-08
    z = t * t
    s = tl.full(z.shape, 41.487576, tl.float32)
    s = s * z + -76.69838
    s = s * z + 81.60521
    s = s * z + -41.3417
    c = tl.full(z.shape, 59.245964, tl.float32)
    c = c * z + -85.44374
    c = c * z + 64.93932
    c = c * z + -19.739208
    sin = t * 6.2831855 + t * (-1.7484556e-7 + z * s)
    cos = 1.0 + z * c
    odd = (q & 1) == 1
    x = _flip(tl.where(odd, sin, cos), ((q + 1) >> 1) & 1)
    y = _flip(tl.where(odd, cos, sin), (q >> 1) & 1)
    return r * x, r * y


@triton.jit
def entries(a, first, seed, stream, param, KIND: tl.constexpr, TAG: tl.constexpr, B: tl.constexpr):
    """Entries of the columns a (int64) and the rows first .. first + B - 1, [len(a), B], float32; B divides first."""
    first = tl.to_tensor(first).to(tl.int64)  # a Python number, where a loop is interpreted
    low = (a & 0xFFFFFFFF).to(tl.uint32)[:, None]
    high = (a >> 32).to(tl.uint32)[:, None]
    last = (TAG + stream.to(tl.int64) * 256).to(tl.uint32)
    if KIND == 2:
        # one block of words holds 128 signs, and B divides 128
        b = first + tl.arange(0, B)[None, :]
        block = (first >> 7).to(tl.uint32) + tl.zeros_like(low)
        w0, w1, w2, w3 = tl.philox(seed.to(tl.int64), block, low, high, tl.zeros_like(low) + last)
        word = (b >> 5) & 3
        w = tl.where(word == 0, w0, tl.where(word == 1, w1, tl.where(word == 2, w2, w3)))
        return 1.0 - 2.0 * ((w >> (b & 31).to(tl.uint32)) & 1).to(tl.float32)
    if KIND == 4:
        # a row meets the nonzero of its part, which may be in it
        part = param & 0xFFFFFFFF
        b = first + tl.arange(0, B)[None, :]
        r = b // part
        pair, low = tl.broadcast((r >> 1).to(tl.uint32), low)
        high = tl.broadcast_to(high, pair.shape)
        w0, w1, w2, w3 = tl.philox(seed.to(tl.int64), pair, low, high, tl.zeros_like(pair) + last)
        odd = (r & 1) == 1
        place = r * part + ((tl.where(odd, w2, w0).to(tl.int64) * part) >> 32)
        return tl.where(place == b, tl.where((tl.where(odd, w3, w1) >> 31) == 1, -1.0, 1.0), 0.0)
    four = ((first >> 2) + tl.arange(0, B // 4)[None, :]).to(tl.uint32)
    four, low = tl.broadcast(four, low)
    high = tl.broadcast_to(high, four.shape)
    w0, w1, w2, w3 = tl.philox(seed.to(tl.int64), four, low, high, tl.zeros_like(four) + last)
    if KIND == 1:
        e0, e1 = _normals(w0, w1)
        e2, e3 = _normals(w2, w3)
        return tl.interleave(tl.interleave(e0, e2), tl.interleave(e1, e3))
    w = tl.interleave(tl.interleave(w0, w2), tl.interleave(w1, w3))
    sign = tl.where((w >> 31) == 1, -1.0, 1.0)
    return tl.where((w & 0x7FFFFFFF).to(tl.int64) < param, sign, 0.0)
