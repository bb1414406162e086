//! Codes of numbers and numbers of codes: q = clamp(round(x/s) + z, lo, hi), x̂ = (q − z)·s. The one rule: what decides a
//! code is the quotient rounded once to the compute type, whatever the block, the thread or the instruction set.
//!
//! Clamping comes first, to lo − z and hi − z: these are integers, every rounding keeps integers and order, so the result
//! is the same, and what is left to round is small enough for the addition of a constant to round it.

use super::grain::Piece;
use super::scales::{Form, Scales};
use crate::flat::{self, BLOCK, Compute, Pass, Real};
use crate::random::{Source, tag};
use crate::simd::Simd;
use crate::{Error, Result, Scalar, Tensor, by_float};

/// Codes lie in `lo..=hi` and fit a byte.
#[derive(Clone, Copy)]
pub struct Range {
    pub lo: i32,
    pub hi: i32,
}

impl Range {
    pub fn new(lo: i64, hi: i64) -> Result<Range> {
        if lo < hi && ((-128..=0).contains(&lo) && hi <= 127 || lo >= 0 && hi <= 255) {
            Ok(Range { lo: lo as i32, hi: hi as i32 })
        } else {
            Err(Error::Value(format!(
                "codes from {lo} to {hi} do not fit a byte: -128 <= lo < hi <= 127 or 0 <= lo < hi <= 255"
            )))
        }
    }
}

/// What one scale means for an element: v = x/d or x·d, plus `pre`, clamped to `lo..=hi`, rounded, plus `post`.
#[derive(Clone, Copy)]
pub struct Affine<T> {
    d: T,
    pre: T,
    lo: T,
    hi: T,
    post: i32,
}

impl<T: Real> Affine<T> {
    #[inline(always)]
    pub fn new(s: T, z: T, range: Range, form: Form) -> Self {
        let (lo, hi) = (T::int(range.lo), T::int(range.hi));
        match form {
            Form::Divide => Affine { d: s, pre: T::ZERO, lo: lo - z, hi: hi - z, post: z.to_f64() as i32 },
            Form::Reciprocal => Affine {
                d: T::from_f32(1.0 / s.to_f32()),
                ..Affine::new(s, z, range, Form::Divide)
            },
            Form::Before => Affine { d: s, pre: z, lo, hi, post: 0 },
        }
    }

    /// The clamped quotient; NaN stays NaN.
    #[inline(always)]
    pub fn clamped(self, recip: bool, x: T) -> T {
        let v = if recip { x * self.d } else { x / self.d } + self.pre;
        let v = if self.lo > v { self.lo } else { v };
        if self.hi < v { self.hi } else { v }
    }
}

/// A rounding of |v| ≤ 2^22 to an integer that comes with `Real::MAGIC` added; `u` is uniform in [0, 1).
trait Round: Copy {
    const RANDOM: bool = false;
    fn magic<T: Real>(self, v: T, u: T) -> T;
}
#[derive(Clone, Copy)]
struct HalfEven;
#[derive(Clone, Copy)]
struct HalfAway;
#[derive(Clone, Copy)]
struct TowardZero;
#[derive(Clone, Copy)]
struct Stochastic;

impl Round for HalfEven {
    #[inline(always)]
    fn magic<T: Real>(self, v: T, _: T) -> T {
        v + T::MAGIC
    }
}
impl Round for HalfAway {
    #[inline(always)]
    fn magic<T: Real>(self, v: T, _: T) -> T {
        // v − trunc(v) is exact; adding a half to v itself would carry 0.49999997 over
        let r = v.trunc();
        let (f, half) = (v - r, T::of(0.5));
        let up = if f >= half { T::ONE } else { T::ZERO };
        r + (if f <= -half { -T::ONE } else { up }) + T::MAGIC
    }
}
impl Round for TowardZero {
    #[inline(always)]
    fn magic<T: Real>(self, v: T, _: T) -> T {
        v.trunc() + T::MAGIC
    }
}
impl Round for Stochastic {
    const RANDOM: bool = true;
    #[inline(always)]
    fn magic<T: Real>(self, v: T, u: T) -> T {
        let r = v.floor();
        r + (if u < v - r { T::ONE } else { T::ZERO }) + T::MAGIC
    }
}

struct Quantize<'a, T: Real, R> {
    scales: &'a Scales<'a, T>,
    range: Range,
    form: Form,
    round: R,
    source: Source,
}

impl<T: Real, R: Round> Quantize<'_, T, R> {
    #[inline(always)]
    fn one(&self, x: T, a: Affine<T>, u: T) -> u8 {
        let x = if x == x { x } else { T::ZERO };
        let v = a.clamped(self.form == Form::Reciprocal, x);
        (self.round.magic(v, u).low() + a.post) as u8
    }

    /// The codes of `x`, whose uniform numbers begin with index `at`; true if some x is not finite.
    #[inline(always)]
    fn codes(&self, at: usize, x: &[T], c: &mut [u8], affine: impl Fn(usize) -> Affine<T>) -> bool {
        let mut bad = false;
        if R::RANDOM {
            let mut u = [T::ZERO; 256];
            for (i, (x, c)) in x.chunks(256).zip(c.chunks_mut(256)).enumerate() {
                uniform(self.source, at + i * 256, &mut u[..x.len()]);
                for (j, ((c, &x), &u)) in c.iter_mut().zip(x).zip(&u).enumerate() {
                    bad |= !x.is_finite();
                    *c = self.one(x, affine(i * 256 + j), u);
                }
            }
        } else {
            for (j, (c, &x)) in c.iter_mut().zip(x).enumerate() {
                bad |= !x.is_finite();
                *c = self.one(x, affine(j), T::ZERO);
            }
        }
        bad
    }
}

/// u = (w >> 8)·2⁻²⁴ of words b = i mod 2^34 of columns a = ⌊i / 2^34⌋.
#[inline(always)]
fn uniform<T: Real>(source: Source, at: usize, u: &mut [T]) {
    let mut i = at as u64;
    let mut w = source.block(i >> 34, (i >> 2) as u32);
    for u in u {
        if i & 3 == 0 {
            w = source.block(i >> 34, (i >> 2) as u32);
        }
        *u = T::int((w[(i & 3) as usize] >> 8) as i32) * T::of(1.0 / 16_777_216.0);
        i += 1;
    }
}

impl<T: Real, R: Round + Sync> Pass<T, 1, 0, 0, 1> for Quantize<'_, T, R> {
    type Gather = bool;
    fn start(&self, _: usize, _: usize) -> Result<bool> {
        Ok(false)
    }
    #[inline(always)]
    fn part<S: Simd>(&self, _: S, bad: &mut bool, at: usize, [x]: [&[T]; 1], _: [&[u8]; 0], _: [&mut [T]; 0], [c]: [&mut [u8]; 1]) {
        let make = #[inline(always)] |i: usize| Affine::new(self.scales.scale(i), self.scales.zero(i), self.range, self.form);
        self.scales.grain.walk(at, x.len(), #[inline(always)] |piece| {
            *bad |= match piece {
                Piece::One(from, to, index) => {
                    let a = make(index);
                    self.codes(at + from, &x[from..to], &mut c[from..to], #[inline(always)] |_| a)
                }
                Piece::Each(from, to, index) => {
                    self.codes(at + from, &x[from..to], &mut c[from..to], #[inline(always)] |j| make(index + j))
                }
            };
        });
    }
}

/// quantize(x, scale, zero_point) -> q; lo, hi, rounding (half_even 0, half_away 1, toward_zero 2, stochastic 3), seed,
/// form, and whether what is not finite is an error or a code (NaN that of 0, infinities the ends).
pub fn quantize(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [x, scale, zero, q] = t else { return Err(super::arrays(4, t)) };
    let range = Range::new(k[0].int(), k[1].int())?;
    let form = Form::of(k[4].int())?;
    let source = Source::new(k[3].int() as u64, tag::ROUNDING, 0);
    if q.shape() != x.shape() {
        return Err(super::shapes("q", q, x));
    }
    if (range.lo < 0) != (q.dtype() == crate::Dtype::I8) || q.dtype().size() != 1 {
        return Err(Error::Type(format!("codes from {} to {} in {}", range.lo, range.hi, q.dtype().name())));
    }
    by_float!(x, A => {
        let scales = &Scales::<<A as Compute>::Real>::new(x, scale, zero, form)?.positive()?;
        macro_rules! by { ($round:expr) => {
            flat::pass::<A, _, 1, 0, 0, 1>(&Quantize { scales, range, form, round: $round, source }, BLOCK, [x], [], [], [q])
        } }
        let bad = match k[2].int() {
            0 => by!(HalfEven),
            1 => by!(HalfAway),
            2 => by!(TowardZero),
            3 => by!(Stochastic),
            other => Err(Error::Value(format!("rounding {other} is not 0, 1, 2 or 3"))),
        }?;
        if bad.contains(&true) && !k[5].bool() {
            return Err(super::non_finite());
        }
        Ok(())
    })
}

struct Dequantize<'a, T: Real> {
    scales: &'a Scales<'a, T>,
    signed: bool,
}

impl<T: Real> Dequantize<'_, T> {
    #[inline(always)]
    fn numbers(&self, b: &[u8], y: &mut [T], of: impl Fn(usize) -> (T, T)) {
        if self.signed {
            for (j, (y, &b)) in y.iter_mut().zip(b).enumerate() {
                let (s, z) = of(j);
                *y = (T::int(i32::from(b as i8)) - z) * s;
            }
        } else {
            for (j, (y, &b)) in y.iter_mut().zip(b).enumerate() {
                let (s, z) = of(j);
                *y = (T::int(i32::from(b)) - z) * s;
            }
        }
    }
}

impl<T: Real> Pass<T, 0, 1, 1, 0> for Dequantize<'_, T> {
    type Gather = ();
    fn start(&self, _: usize, _: usize) -> Result<()> {
        Ok(())
    }
    #[inline(always)]
    fn part<S: Simd>(&self, _: S, (): &mut (), at: usize, _: [&[T]; 0], [b]: [&[u8]; 1], [y]: [&mut [T]; 1], _: [&mut [u8]; 0]) {
        let p = self.scales;
        p.grain.walk(at, b.len(), #[inline(always)] |piece| match piece {
            Piece::One(from, to, i) => {
                let one = (p.scale(i), p.zero(i));
                self.numbers(&b[from..to], &mut y[from..to], #[inline(always)] |_| one);
            }
            Piece::Each(from, to, i) => {
                let s = p.scales(i, to - from);
                let (b, y) = (&b[from..to], &mut y[from..to]);
                match p.zeros(i, to - from) {
                    Some(z) => self.numbers(b, y, #[inline(always)] |j| (s[j], z[j])),
                    None => self.numbers(b, y, #[inline(always)] |j| (s[j], T::ZERO)),
                }
            }
        });
    }
}

/// dequantize(q, scale, zero_point) -> x
pub fn dequantize(t: &[Tensor], _: &[Scalar]) -> Result<()> {
    let [q, scale, zero, y] = t else { return Err(super::arrays(4, t)) };
    if q.shape() != y.shape() {
        return Err(super::shapes("y", y, q));
    }
    if q.dtype().size() != 1 {
        return Err(Error::Type(format!("codes are int8 or uint8, got {}", q.dtype().name())));
    }
    let signed = q.dtype() == crate::Dtype::I8;
    by_float!(y, A => {
        let scales = &Scales::<<A as Compute>::Real>::new(q, scale, zero, Form::Divide)?;
        flat::pass::<A, _, 0, 1, 1, 0>(&Dequantize { scales, signed }, BLOCK, [], [q], [y], []).map(drop)
    })
}
