//! Codes of numbers and numbers of codes: q = clamp(round(x/s) + z, lo, hi), x̂ = (q − z)·s. The one rule: what decides a
//! code is the quotient rounded once to the compute type, whatever the block, the thread or the instruction set.
//!
//! Clamping comes first, to lo − z and hi − z: these are integers, every rounding keeps integers and order, so the result
//! is the same, and what is left to round is small enough for the addition of a constant to round it.

use super::drawn::uniform;
use super::grain::Piece;
use super::scales::{Form, Scales};
use base::random::{Source, tag};
use base::simd::{Kernel, Simd, dispatch};
use base::{Error, Result, Scalar, Tensor, by_float};
use drivers::flat::{self, BLOCK, Compute, Pass, Real};

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

/// What one scale means for an element: v = x/d or x·d, plus `pre`, clamped to `lo..=hi`, rounded; plus `post` it is the
/// code, minus `left` and times s the number.
#[derive(Clone, Copy)]
pub struct Affine<T> {
    d: T,
    pre: T,
    pub lo: T,
    pub hi: T,
    post: i32,
    pub left: T,
}

impl<T: Real> Affine<T> {
    #[inline(always)]
    pub fn new(s: T, z: T, range: Range, form: Form) -> Self {
        let (lo, hi) = (T::int(range.lo), T::int(range.hi));
        if form == Form::Before {
            return Affine { d: s, pre: z, lo, hi, post: 0, left: z };
        }
        let d = if form == Form::Reciprocal { T::from_f32(1.0 / s.to_f32()) } else { s };
        Affine { d, pre: T::ZERO, lo: lo - z, hi: hi - z, post: (z + T::MAGIC).low(), left: T::ZERO }
    }

    #[inline(always)]
    pub fn quotient(self, recip: bool, x: T) -> T {
        (if recip { x * self.d } else { x / self.d }) + self.pre
    }

    /// The code of a clamped quotient, half to even.
    #[inline(always)]
    pub fn code(self, v: T) -> u8 {
        (v + T::MAGIC).low().wrapping_add(self.post) as u8
    }

    /// As `clamped`, for the form that only divides.
    #[inline(always)]
    pub fn divided(self, x: T) -> T {
        clamp(x / self.d, self.lo, self.hi)
    }

    #[inline(always)]
    pub fn clamped(self, recip: bool, x: T) -> T {
        clamp(self.quotient(recip, x), self.lo, self.hi)
    }
}

/// min(max(v, lo), hi); NaN stays NaN.
#[inline(always)]
pub fn clamp<T: Real>(v: T, lo: T, hi: T) -> T {
    let v = if lo > v { lo } else { v };
    if hi < v { hi } else { v }
}

/// How a clamped quotient becomes an integer.
#[derive(Clone, Copy)]
pub enum Round {
    HalfEven,
    /// With r the integer towards zero: away from zero iff |v − r| > t. v − r is exact, so t just under 1/2 is half away,
    /// t = 1 is toward zero; adding 1/2 to v itself would carry 0.49999997 over.
    Over(f64),
    /// The same with a uniform t in [0, 1): the mean is v, and integers stay.
    Random(Source),
}

impl Round {
    /// half_even 0, half_away 1, toward_zero 2, stochastic 3
    pub fn of<T: Real>(code: i64, seed: i64) -> Result<Round> {
        Ok(match code {
            0 => Round::HalfEven,
            // the largest number under 1/2
            1 => Round::Over(-(T::of(-0.5).up()).to_f64()),
            2 => Round::Over(1.0),
            3 => Round::Random(Source::new(seed as u64, tag::ROUNDING, 0)),
            other => return Err(Error::Value(format!("rounding {other} is not 0, 1, 2 or 3"))),
        })
    }

    /// What the fractions of elements `at` and after are compared with.
    #[inline(always)]
    pub fn limits<S: Simd, T: Real>(self, s: S, at: usize, t: &mut [T]) {
        match self {
            Round::Random(source) => uniform(s, source, at, t),
            Round::Over(v) => t.fill(T::of(v)),
            Round::HalfEven => {}
        }
    }
}

/// The integer towards zero, or the next away from it where the fraction is over t; NaN stays NaN.
#[inline(always)]
pub fn over<T: Real>(v: T, t: T) -> T {
    let r = v.trunc();
    let away = if v < T::ZERO { -T::ONE } else { T::ONE };
    if t < (v - r).abs() { r + away } else { r }
}

struct Quantize<'a, T: Real> {
    scales: &'a Scales<'a, T>,
    range: Range,
    form: Form,
    round: Round,
}

impl<T: Real> Quantize<'_, T> {
    #[inline(always)]
    fn affine(&self, i: usize) -> Affine<T> {
        Affine::new(self.scales.scale(i), self.scales.zero(i), self.range, self.form)
    }

    /// The codes of `x`, elements `at` and after; true if some x is not finite.
    #[inline(always)]
    fn codes<S: Simd>(&self, s: S, at: usize, x: &[T], c: &mut [u8], affine: impl Fn(usize) -> Affine<T>) -> bool {
        let (recip, mut bad) = (self.form == Form::Reciprocal, false);
        if matches!(self.round, Round::HalfEven) {
            for (j, (c, &x)) in c.iter_mut().zip(x).enumerate() {
                bad |= !x.is_finite();
                let a = affine(j);
                *c = a.code(a.clamped(recip, if x == x { x } else { T::ZERO }));
            }
            return bad;
        }
        let mut t = [T::ZERO; 256];
        for (i, (x, c)) in x.chunks(256).zip(c.chunks_mut(256)).enumerate() {
            self.round.limits(s, at + i * 256, &mut t[..x.len()]);
            for (j, ((c, &x), &t)) in c.iter_mut().zip(x).zip(&t).enumerate() {
                bad |= !x.is_finite();
                let a = affine(i * 256 + j);
                let v = a.clamped(recip, if x == x { x } else { T::ZERO });
                *c = a.code(over(v, t));
            }
        }
        bad
    }
}

impl<T: Real> Pass<T, 1, 0, 0, 1> for Quantize<'_, T> {
    type Gather = bool;
    fn start(&self, _: usize, _: usize) -> Result<bool> {
        Ok(false)
    }
    #[inline(always)]
    fn part<S: Simd>(
        &self,
        s: S,
        bad: &mut bool,
        at: usize,
        [x]: [&[T]; 1],
        _: [&[u8]; 0],
        _: [&mut [T]; 0],
        [c]: [&mut [u8]; 1],
    ) {
        self.scales.grain.walk(
            at,
            x.len(),
            #[inline(always)]
            |piece| {
                *bad |= match piece {
                    Piece::One(from, to, index) => {
                        let a = self.affine(index);
                        self.codes(
                            s,
                            at + from,
                            &x[from..to],
                            &mut c[from..to],
                            #[inline(always)]
                            |_| a,
                        )
                    }
                    Piece::Each(from, to, index) => self.codes(
                        s,
                        at + from,
                        &x[from..to],
                        &mut c[from..to],
                        #[inline(always)]
                        |j| self.affine(index + j),
                    ),
                };
            },
        );
    }
}

/// quantize(x, scale, zero_point) -> q; lo, hi, rounding (half_even 0, half_away 1, toward_zero 2, stochastic 3), seed,
/// form, and whether what is not finite is an error or a code (NaN that of 0, infinities the ends).
pub fn quantize(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [x, scale, zero, q] = t else { return Err(super::arrays(4, t)) };
    let range = Range::new(k[0].int(), k[1].int())?;
    let form = Form::of(k[2].int())?;
    if q.shape() != x.shape() {
        return Err(super::shapes("q", q, x));
    }
    if (range.lo < 0) != (q.dtype() == base::Dtype::I8) || q.dtype().size() != 1 {
        return Err(Error::Type(format!("codes from {} to {} in {}", range.lo, range.hi, q.dtype().name())));
    }
    by_float!(x, A => {
        let scales = &Scales::<<A as Compute>::Real>::new(x, scale, zero, form)?.positive()?;
        let round = Round::of::<<A as Compute>::Real>(k[3].int(), k[4].int())?;
        let p = Quantize { scales, range, form, round };
        let bad = flat::pass::<A, _, 1, 0, 0, 1>(&p, BLOCK, [x], [], [], [q])?;
        if bad.contains(&true) && !k[5].bool() {
            return Err(super::non_finite());
        }
        Ok(())
    })
}

/// The largest magnitude that a product with a scale may have: beyond the end of its type a number is that end, as its codes
/// are the ends of theirs; otherwise a finite number could come back infinite. With an infinite scale there is no end.
#[inline(always)]
pub fn end<T: Real>(s: T, most: T) -> T {
    if s.is_finite() { most } else { s.abs() }
}

/// Numbers of codes.
pub struct Dequantize<'a, T: Real> {
    pub scales: &'a Scales<'a, T>,
    /// The largest finite number of the type that they are stored in.
    pub most: T,
    pub signed: bool,
}

impl<T: Real> Dequantize<'_, T> {
    /// The numbers of elements `at` and after.
    pub fn write(&self, at: usize, codes: &[u8], y: &mut [T]) {
        struct Write<'a, T: Real>(&'a Dequantize<'a, T>, usize, &'a [u8], &'a mut [T]);
        impl<T: Real> Kernel for Write<'_, T> {
            type Output = ();
            #[inline(always)]
            fn run<S: Simd>(self, s: S) {
                self.0.part(s, &mut (), self.1, [], [self.2], [self.3], []);
            }
        }
        dispatch(Write(self, at, codes, y));
    }
}

impl<T: Real> Pass<T, 0, 1, 1, 0> for Dequantize<'_, T> {
    type Gather = ();
    fn start(&self, _: usize, _: usize) -> Result<()> {
        Ok(())
    }
    #[inline(always)]
    fn part<S: Simd>(
        &self,
        _: S,
        (): &mut (),
        at: usize,
        _: [&[T]; 0],
        [b]: [&[u8]; 1],
        [y]: [&mut [T]; 1],
        _: [&mut [u8]; 0],
    ) {
        // a signed byte is an unsigned one with its top bit turned, less 128
        let p = self.scales;
        let flip = if self.signed { 0x80 } else { 0 };
        let shift = T::int(i32::from(flip));
        p.grain.walk(
            at,
            b.len(),
            #[inline(always)]
            |piece| match piece {
                Piece::One(from, to, i) => {
                    let (s, z) = (p.scale(i), p.zero(i) + shift);
                    let end = end(s, self.most);
                    for (y, &b) in y[from..to].iter_mut().zip(&b[from..to]) {
                        *y = clamp((T::int(i32::from(b ^ flip)) - z) * s, -end, end);
                    }
                }
                Piece::Each(from, to, i) => {
                    for (j, (y, &b)) in y[from..to].iter_mut().zip(&b[from..to]).enumerate() {
                        let (s, z) = (p.scale(i + j), p.zero(i + j) + shift);
                        let end = end(s, self.most);
                        *y = clamp((T::int(i32::from(b ^ flip)) - z) * s, -end, end);
                    }
                }
            },
        );
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
    let signed = q.dtype() == base::Dtype::I8;
    by_float!(y, A => {
        let scales = &Scales::<<A as Compute>::Real>::new(q, scale, zero, Form::Divide)?;
        let p = Dequantize { scales, most: A::MOST, signed };
        flat::pass::<A, _, 0, 1, 1, 0>(&p, BLOCK, [], [q], [y], []).map(drop)
    })
}
