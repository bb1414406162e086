//! Blocks of 32 numbers as GGUF files hold them: scale and codes side by side in one run of bytes. The one rule: the bytes are
//! those of the reference quantizers, which compute in f32 without fusing, so f64 is not taken.
//!
//! Codes of 4 bits: byte j holds number j in its low half and number j + 16 in its high half. Where the reference would write an
//! infinite f16 scale, there is an error.

use base::simd::{Kernel, Simd, dispatch};
use base::store::{Bf16, F16, Store};
use base::{Dtype, Error, Result, Scalar, Tensor};
use drivers::flat::{self, Compute, Real};

/// Numbers of a block.
const N: usize = 32;

#[derive(Clone, Copy)]
enum Kind {
    Q4_0,
    Q4_1,
    Q5_0,
    Q8_0,
    Mxfp4,
}
use Kind::{Mxfp4, Q4_0, Q4_1, Q5_0, Q8_0};

impl Kind {
    fn of(code: i64) -> Result<Kind> {
        match code {
            0 => Ok(Q4_0),
            1 => Ok(Q4_1),
            2 => Ok(Q5_0),
            3 => Ok(Q8_0),
            4 => Ok(Mxfp4),
            other => Err(Error::Value(format!("kind {other} is not within 0 and 4"))),
        }
    }
    /// Bytes of a block.
    fn bytes(self) -> usize {
        match self {
            Mxfp4 => 17,
            Q4_0 => 18,
            Q4_1 => 20,
            Q5_0 => 22,
            Q8_0 => 34,
        }
    }
}

/// What went wrong in some blocks.
#[derive(Clone, Copy, Default)]
struct Odd {
    non_finite: bool,
    too_large: bool,
}

impl Odd {
    #[inline(always)]
    fn half(&mut self, v: f32) -> [u8; 2] {
        let h = F16::from_f32(v);
        self.too_large |= !h.to_f32().is_finite();
        h.0.to_le_bytes()
    }
}

/// The first of the numbers that are largest in magnitude.
#[inline(always)]
fn farthest(x: &[f32; N]) -> f32 {
    let amax = f32::amax::<true>(x);
    x.iter().copied().find(|v| v.abs() == amax).unwrap_or(0.0)
}

#[inline(always)]
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

#[inline(always)]
fn halves(q: &[u8; N], out: &mut [u8]) {
    for j in 0..N / 2 {
        out[j] = q[j] & 15 | q[j + N / 2] << 4;
    }
}

/// ⌊x·id + centre + 1/2⌋ up to `most`.
#[inline(always)]
fn codes(x: &[f32; N], less: f32, id: f32, centre: f32, most: f32) -> [u8; N] {
    let mut q = [0; N];
    for (q, &x) in q.iter_mut().zip(x) {
        let v = (x - less) * id + (centre + 0.5);
        let v = if v > 0.0 { v } else { 0.0 };
        *q = ((if v < most { v } else { most }).trunc() + f32::MAGIC).low() as u8;
    }
    q
}

/// Twice the numbers of e2m1, and of all codes: there is no −0.
const TWICE: [f32; 8] = [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0];
const SIGNED: [f32; 16] = [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0];

/// 2^(e − 128), also where that is no normal number.
#[inline(always)]
fn half_scale(e: u8) -> f32 {
    super::mini::power(i32::from(e) - 128) as f32
}

#[inline(always)]
fn block(kind: Kind, x: &[f32; N], out: &mut [u8], odd: &mut Odd) {
    match kind {
        Q4_0 => {
            let d = farthest(x) / -8.0;
            out[..2].copy_from_slice(&odd.half(d));
            halves(&codes(x, 0.0, inverse(d), 8.0, 15.0), &mut out[2..]);
        }
        Q4_1 => {
            let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
            for &x in x {
                let x = if x.is_finite() { x } else { 0.0 };
                low = if x < low { x } else { low };
                high = if x > high { x } else { high };
            }
            let d = (high - low) / 15.0;
            out[..2].copy_from_slice(&odd.half(d));
            out[2..4].copy_from_slice(&odd.half(low));
            halves(&codes(x, low, inverse(d), 0.0, 15.0), &mut out[4..]);
        }
        Q5_0 => {
            let d = farthest(x) / -16.0;
            out[..2].copy_from_slice(&odd.half(d));
            let q = codes(x, 0.0, inverse(d), 16.0, 31.0);
            let top = q.iter().enumerate().fold(0u32, |top, (i, q)| top | u32::from(q >> 4) << i);
            out[2..6].copy_from_slice(&top.to_le_bytes());
            halves(&q, &mut out[6..]);
        }
        Q8_0 => {
            let d = f32::amax::<true>(x) / 127.0;
            out[..2].copy_from_slice(&odd.half(d));
            let id = inverse(d);
            for (o, &x) in out[2..].iter_mut().zip(x) {
                let v = x * id;
                let v = if v == v { v } else { 0.0 };
                let v = if v < 127.0 { v } else { 127.0 };
                let v = if v > -127.0 { v } else { -127.0 };
                let r = v.trunc();
                let away = if v < 0.0 { -1.0 } else { 1.0 };
                *o = ((if (v - r).abs() >= 0.5 { r + away } else { r }) + f32::MAGIC).low() as u8;
            }
        }
        Mxfp4 => {
            let amax = f32::amax::<true>(x);
            // the logarithm is rounded to f32 before it is cut off, which just below a power of two is that power
            let k = if amax > 0.0 { (f64::from(amax).log2() as f32).floor() as i32 - 2 + 127 } else { 0 };
            out[0] = k.clamp(0, 254) as u8;
            let d = half_scale(out[0]);
            let mut q = [0u8; N];
            for (q, &x) in q.iter_mut().zip(x) {
                let mut c = 0;
                for pair in TWICE.windows(2) {
                    c += u8::from(x.abs() > f32::midpoint(pair[0], pair[1]) * d);
                }
                *q = if x < 0.0 && c > 0 { c + 8 } else { c };
            }
            halves(&q, &mut out[1..]);
        }
    }
}

struct Encode<'a> {
    kind: Kind,
    x: &'a [f32],
    out: &'a mut [u8],
}
impl Kernel for Encode<'_> {
    type Output = Odd;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Odd {
        let Encode { kind, x, out } = self;
        let mut odd = Odd::default();
        for (x, out) in x.as_chunks::<N>().0.iter().zip(out.chunks_exact_mut(kind.bytes())) {
            let mut own = *x;
            for v in &mut own {
                odd.non_finite |= !v.is_finite();
                *v = if *v == *v { *v } else { 0.0 };
            }
            block(kind, &own, out, &mut odd);
        }
        odd
    }
}

struct Decode<'a> {
    kind: Kind,
    data: &'a [u8],
    y: &'a mut [f32],
    most: f32,
}
impl Kernel for Decode<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Decode { kind, data, y, most } = self;
        let half = |b: &[u8]| F16(u16::from_le_bytes([b[0], b[1]])).to_f32();
        for (b, y) in data.chunks_exact(kind.bytes()).zip(y.as_chunks_mut::<N>().0) {
            let (d, less, codes) = match kind {
                Q4_0 => (half(b), 8.0, &b[2..]),
                Q4_1 => (half(b), 0.0, &b[4..]),
                Q5_0 => (half(b), 16.0, &b[6..]),
                Q8_0 => (half(b), 0.0, &b[2..]),
                Mxfp4 => (half_scale(b[0]), 0.0, &b[1..]),
            };
            if matches!(kind, Q8_0) {
                for (y, &c) in y.iter_mut().zip(codes) {
                    *y = f32::from(c as i8) * d;
                }
            } else {
                for j in 0..N / 2 {
                    let (low, high) = (codes[j] & 15, codes[j] >> 4);
                    (y[j], y[j + N / 2]) = if matches!(kind, Mxfp4) {
                        (SIGNED[usize::from(low)], SIGNED[usize::from(high)])
                    } else {
                        (f32::from(low), f32::from(high))
                    };
                }
                if matches!(kind, Q5_0) {
                    let top = u32::from_le_bytes([b[2], b[3], b[4], b[5]]);
                    for (j, y) in y.iter_mut().enumerate() {
                        *y += (top >> j & 1) as f32 * 16.0;
                    }
                }
                for y in y.iter_mut() {
                    *y = (*y - less) * d;
                }
                if matches!(kind, Q4_1) {
                    let low = half(&b[2..]);
                    for y in y.iter_mut() {
                        *y += low;
                    }
                }
            }
            for y in y.iter_mut() {
                *y = super::affine::clamp(*y, -most, most);
            }
        }
    }
}

/// `body` with A the type of `x`.
macro_rules! by_single {
    ($x:expr, $A:ident => $body:expr) => {
        match $x.dtype() {
            Dtype::F32 => {
                type $A = f32;
                $body
            }
            Dtype::F16 => {
                type $A = F16;
                $body
            }
            Dtype::Bf16 => {
                type $A = Bf16;
                $body
            }
            other => Err(Error::Type(format!("GGUF's arithmetic is that of float32, got {}", other.name()))),
        }
    };
}

/// Bytes of numbers, after checking that a row is whole blocks.
fn bytes(x: &Tensor, kind: Kind) -> Result<impl Fn(usize) -> usize + Sync> {
    let last = x.rows().1;
    if x.shape().is_empty() || !last.is_multiple_of(N) {
        return Err(Error::Value(format!("blocks of {N} do not divide a last axis of {last}")));
    }
    Ok(move |n| n / N * kind.bytes())
}

/// encode_gguf(x) -> data; kind, bytes (of a block, in data's shape), saturate
pub fn encode_gguf(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [x, data] = t else { return Err(super::arrays(2, t)) };
    let kind = Kind::of(k[0].int())?;
    let bytes = bytes(x, kind)?;
    by_single!(x, A => {
        let join = |a: Odd, b: Odd| Odd {
            non_finite: a.non_finite | b.non_finite,
            too_large: a.too_large | b.too_large,
        };
        let odd = flat::to_bytes::<A, Odd>(x, data, bytes, |x, out| dispatch(Encode { kind, x, out }), join)?;
        if odd.non_finite && !k[2].bool() {
            return Err(super::non_finite());
        }
        if odd.too_large {
            return Err(Error::Value("x holds numbers so large that their scale is no float16".into()));
        }
        Ok(())
    })
}

/// decode_gguf(data) -> x; kind, last (the size of x's last axis, in its shape), dtype (in its dtype)
pub fn decode_gguf(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [data, x] = t else { return Err(super::arrays(2, t)) };
    let kind = Kind::of(k[0].int())?;
    let bytes = bytes(x, kind)?;
    by_single!(x, A => {
        let most = <A as Compute>::MOST;
        flat::from_bytes::<A>(data, x, bytes, |_, data, y| dispatch(Decode { kind, data, y, most }))
    })
}
