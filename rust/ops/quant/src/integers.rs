//! The operators of integer-only vision transformers. The one rule: all is integers of 64 bits, divisions round down, and what
//! does not fit 32 bits at either end is an error.
//!
//! With u = ⌈1/s⌉ and x ← x + ⌊x/2⌋ − ⌊x/16⌋ (about x log₂ e), held at −n u: x = r − u p, −u < r ≤ 0, and
//! e^(s x) ≈ ⌊(r/2 + u)·2^(n−p)⌋ in units of 1/(u 2^n). Li and Gu, "I-ViT" (2023), sections 3.3 to 3.5, where floats simulate it.

use super::affine::Range;
use base::{Dtype, Element, Error, Result, Scalar, Tensor, try_vec};
use drivers::blocks;

/// What sums of exponentials are held at, and what they divide.
const ONE: i64 = (1 << 31) - 1;

/// ⌊a/b⌋ of |a| < 2^40 and 0 < b ≤ 2^31, by a division of f64: what is left to the next integer is never lost in rounding.
#[inline(always)]
fn floor_div(a: i64, b: i64) -> i64 {
    let t = (a as f64 / b as f64) as i64;
    t - i64::from(t * b > a)
}

/// e^(s x) as an integer.
#[derive(Clone, Copy)]
struct ShiftExp {
    unit: i64,
    n: i64,
}

impl ShiftExp {
    fn new(s: f64, n: i64) -> Result<Self> {
        let unit = (1.0 / s).ceil();
        if !(s > 0.0 && s.is_finite() && unit <= (1u64 << 31) as f64) {
            return Err(Error::Value(format!("s must lie within 2^-31 and what is finite, got {s}")));
        }
        if !(1..=31).contains(&n) {
            return Err(Error::Value(format!("n must lie within 1 and 31, got {n}")));
        }
        Ok(ShiftExp { unit: unit as i64, n })
    }
    /// Of |x| < 2^33; at most 2^63 − 1.
    fn of(self, x: i64) -> i64 {
        let x = (x + (x >> 1) - (x >> 4)).max(-self.n * self.unit);
        let p = floor_div(-x, self.unit);
        let (v, shift) = (x + self.unit * p + 2 * self.unit, self.n - p - 1);
        if shift < 0 {
            return v >> 1;
        }
        if shift < i64::from(v.leading_zeros()) { v << shift } else { i64::MAX }
    }
    /// Of −2^33 < x ≤ 0 and n < 30, where nothing is beyond 2^62.
    #[inline(always)]
    fn down(self, x: i64) -> i64 {
        let x = (x + (x >> 1) - (x >> 4)).max(-self.n * self.unit);
        let p = (-x as f64 / self.unit as f64) as i64;
        ((x + self.unit * p + 2 * self.unit) << self.n) >> (p + 1)
    }
}

/// Elements `at` and after of an array of integers.
fn load(t: &Tensor, at: usize, into: &mut [i64]) -> Result<()> {
    fn copy<T: Element + Into<i64>>(t: &Tensor, at: usize, into: &mut [i64]) -> Result<()> {
        let from = &t.slice::<T>()?[at..at + into.len()];
        for (into, &v) in into.iter_mut().zip(from) {
            *into = v.into();
        }
        Ok(())
    }
    match t.dtype() {
        Dtype::I8 => copy::<i8>(t, at, into),
        Dtype::U8 => copy::<u8>(t, at, into),
        Dtype::I16 => copy::<i16>(t, at, into),
        Dtype::I32 => copy::<i32>(t, at, into),
        Dtype::I64 => {
            copy::<i64>(t, at, into)?;
            match into.iter().find(|&&v| i32::try_from(v).is_err()) {
                Some(v) => Err(Error::Value(format!("integers of 32 bits are taken, got {v}"))),
                None => Ok(()),
            }
        }
        other => Err(Error::Type(format!("integers of 8 to 64 bits are taken, got {}", other.name()))),
    }
}

/// Rows of `q`, each in 64 bits and free to be used as room, to rows of `out`.
fn rows<O: Element>(q: &Tensor, out: &Tensor, f: impl Fn(&mut [i64], &mut [O]) -> Result<()> + Sync) -> Result<()> {
    out.expect_shape("the result", q.shape())?;
    let d = q.rows().1;
    blocks::fill(out.slice_mut::<O>()?, d, 8, |first, part| {
        let mut row = try_vec(d, 0)?;
        for (i, out) in part.chunks_exact_mut(d).enumerate() {
            load(q, (first + i) * d, &mut row)?;
            f(&mut row, out)?;
        }
        Ok(())
    })
}

/// The same of elements, told by their place.
fn flat<O: Element>(q: &Tensor, out: &Tensor, f: impl Fn(usize, i64) -> O + Sync) -> Result<()> {
    out.expect_shape("the result", q.shape())?;
    blocks::fill(out.slice_mut::<O>()?, 1, 4, |at, part| {
        let mut all = try_vec(part.len(), 0)?;
        load(q, at, &mut all)?;
        for (j, (o, &q)) in part.iter_mut().zip(&all).enumerate() {
            *o = f(at + j, q);
        }
        Ok(())
    })
}

/// shift_exp(q) -> e; s, n
pub fn shift_exp(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let exp = ShiftExp::new(k[0].float(), k[1].int())?;
    flat(&t[0], &t[1], |_, q| exp.of(q))
}

fn code_bits(bits: i64) -> Result<u32> {
    if (2..=16).contains(&bits) {
        return Ok(32 - bits as u32);
    }
    Err(Error::Value(format!("bits must lie within 2 and 16, got {bits}")))
}

fn small(v: i64) -> Result<i32> {
    i32::try_from(v).map_err(|_| Error::Value(format!("a result of {v} does not fit 32 bits: scale q down")))
}

/// shiftmax(q) -> p; s, bits: e_i ⌊(2^31 − 1)/min(Σ e, 2^31 − 1)⌋ / 2^(32 − bits), e_i of q_i − max q
pub fn shiftmax(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let (exp, down) = (ShiftExp::new(k[0].float(), 15)?, code_bits(k[1].int())?);
    rows(&t[0], &t[1], |q, out: &mut [i32]| {
        let (top, mut sum) = (q.iter().copied().max().unwrap_or(0), 0);
        for q in &mut *q {
            *q = exp.down(*q - top);
            sum = ONE.min(sum + ONE.min(*q));
        }
        // the greatest of a row is u 2^15: the sum is never 0
        let factor = ONE / sum;
        for (o, &e) in out.iter_mut().zip(&*q) {
            *o = small((e * factor) >> down)?;
        }
        Ok(())
    })
}

/// shift_gelu(q) -> y; s, bits: q σ, σ = e ⌊(2^31 − 1)/min(e + e', 2^31 − 1)⌋ / 2^(32 − bits), e of q − max q and e' of −max q, in
/// units of 1.702 s
pub fn shift_gelu(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let (exp, down) = (ShiftExp::new(k[0].float() * 1.702, 23)?, code_bits(k[1].int())?);
    rows(&t[0], &t[1], |q, out: &mut [i32]| {
        let top = q.iter().copied().max().unwrap_or(0);
        let other = exp.of(-top);
        for (o, &q) in out.iter_mut().zip(&*q) {
            let e = exp.down(q - top);
            let sigma = (e * floor_div(ONE, ONE.min(e.saturating_add(other)))) >> down;
            *o = small(q * sigma)?;
        }
        Ok(())
    })
}

/// ⌊√v⌋, or what ten of Newton's steps from 2^16 make of it.
fn root(v: u64, newton: bool) -> i64 {
    let mut k = 1u64 << 16;
    if newton {
        for _ in 0..10 {
            k = (k + v / k) >> 1;
        }
        return k as i64;
    }
    v.isqrt() as i64
}

/// int_layernorm(q) -> y; newton: ⌊(q − μ) ⌊(2^31 − 1)/k⌋ / 2⌋, k the root of Σ (q − μ)², in units of √d/2^30
pub fn layernorm(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let newton = k[0].bool();
    rows(&t[0], &t[1], |q, out: &mut [i32]| {
        let (n, sum) = (q.len() as i64, q.iter().sum::<i64>());
        let (floor, over) = (sum.div_euclid(n), 2 * sum.rem_euclid(n));
        let mean = floor + i64::from(over > n || (over == n && floor & 1 == 1));
        let squares: u128 = q.iter().map(|&q| u128::from((q - mean).unsigned_abs().pow(2))).sum();
        let squares = u64::try_from(squares)
            .ok()
            .filter(|&v| v < 1 << 63)
            .ok_or_else(|| Error::Value("the squares of a row sum to 2^63 or more: scale q down".into()))?;
        let factor = ONE / root(squares, newton).max(1);
        for (o, &q) in out.iter_mut().zip(&*q) {
            *o = small(((q - mean) * factor) >> 1)?;
        }
        Ok(())
    })
}

/// rne(z m/2^e) of |z m| < 2^63
#[inline(always)]
fn dyadic(z: i64, m: i64, e: i64) -> i64 {
    let p = z * m;
    match e {
        1..=62 => {
            let (floor, left, half) = (p >> e, p & ((1 << e) - 1), 1 << (e - 1));
            floor + i64::from(left > half || (left == half && floor & 1 == 1))
        }
        63.. => 0,
        0 => p,
        _ if p == 0 => 0,
        _ => {
            i64::try_from(i128::from(p) << e.unsigned_abs().min(63)).unwrap_or(if p < 0 { i64::MIN } else { i64::MAX })
        }
    }
}

/// requantize(z, m, e) -> q; lo, hi: clamp(rne(z m/2^e), lo, hi), a factor for all, or one for each of the last axis
pub fn requantize(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let (z, lo, hi) = (&t[0], k[0].int(), k[1].int());
    let (m, e) = (t[1].slice::<i64>()?, t[2].slice::<i64>()?);
    let columns = z.rows().1;
    if m.len() != e.len() || !(m.len() == 1 || m.len() == columns) {
        return Err(Error::Value(format!("{} and {} factors for a last axis of {columns}", m.len(), e.len())));
    }
    if let Some(m) = m.iter().find(|m| m.unsigned_abs() > 1 << 31) {
        return Err(Error::Value(format!("m must lie within -2^31 and 2^31, got {m}")));
    }
    let (least, most) = match t[3].dtype() {
        Dtype::I16 => (i16::MIN.into(), i16::MAX.into()),
        Dtype::I32 => (i32::MIN.into(), i32::MAX.into()),
        _ => Range::new(lo, hi).map(|r| (i64::from(r.lo), i64::from(r.hi)))?,
    };
    if !(least <= lo && lo <= hi && hi <= most) {
        return Err(Error::Value(format!("codes from {lo} to {hi} do not lie within {least} and {most}")));
    }
    let code = |at: usize, z: i64| {
        let i = if m.len() == 1 { 0 } else { at % columns };
        dyadic(z, m[i], e[i]).clamp(lo, hi)
    };
    match t[3].dtype() {
        Dtype::I8 => flat(z, &t[3], |at, z| code(at, z) as i8),
        Dtype::U8 => flat(z, &t[3], |at, z| code(at, z) as u8),
        Dtype::I16 => flat(z, &t[3], |at, z| code(at, z) as i16),
        _ => flat(z, &t[3], |at, z| code(at, z) as i32),
    }
}
