//! Logarithmic codes: q = rne(−k log₂(x/s)), x̂ = s·2^(−q/k), k = 1 (steps of 2) or 2 (steps of √2). The one rule: a code is read
//! off the exponent and the mantissa of the quotient x/s, rounded once, so no logarithm is computed and none is wrong.
//!
//! A quotient is f·2^e with 1 ≤ f < 2. For steps of 2 its code is −e, or −e − 1 from f = √2 on; for steps of √2 it is −2e, one less
//! from f = 2^¼ on and two less from f = 2^¾ on. The thresholds are irrational: no quotient lies on one, there are no ties.
//!
//! Codes go from 0 to n − 1, n = 2^bits. What is smaller than the last is 0, which has code n; for 8 bits a byte has none left, and
//! there the last code stands for 0 too. RepQ-ViT (Li, Xiao, Yang and Gu, 2023), equations 11 to 13.

use super::affine::{clamp, end};
use super::grain::Piece;
use super::scales::{Form, Scales};
use base::simd::Simd;
use base::{Error, Result, Scalar, Tensor, by_float};
use drivers::flat::{self, BLOCK, Compute, Pass, Real};

/// Quotients are taken times 2^32, so that the least denormal is normal.
const LIFT: i32 = 32;

/// The first f64 above 2^¼, 2^½ and 2^¾.
const QUARTER: f64 = 1.189_207_115_002_721_2;
const HALF: f64 = std::f64::consts::SQRT_2;
const THREE_QUARTERS: f64 = 1.681_792_830_507_429_2;

/// The first number of its type from v on.
fn above<T: Real>(v: f64) -> T {
    if T::of(v).to_f64() >= v { T::of(v) } else { T::of(v).up() }
}

/// The numbers of one choice of bits and base.
#[derive(Clone, Copy)]
struct Steps<T> {
    /// log₂ k.
    shift: i32,
    n: i32,
    /// The first fractions of the next code and of the one after it, and the level of the next one.
    next: T,
    after: T,
    up: T,
    root: T,
    /// The least quotient that has a code of its own.
    last: T,
    /// The code and the level of 0.
    zero: i32,
    least: T,
}

impl<T: Real> Steps<T> {
    fn new(bits: i64, half: bool) -> Result<Self> {
        if !(1..=8).contains(&bits) {
            return Err(Error::Value(format!("bits must lie within 1 and 8, got {bits}")));
        }
        let (n, shift) = (1 << bits, i32::from(half));
        let (root, two) = (T::of(std::f64::consts::SQRT_2), T::of(2.0));
        let (first, after, up) = if half { (QUARTER, above(THREE_QUARTERS), root) } else { (HALF, two, two) };
        let last = above(first * (-f64::from(n >> shift)).exp2());
        let mut steps = Steps { shift, n, next: above(first), after, up, root, last, zero: n.min(255), least: T::ZERO };
        steps.least = if bits == 8 { steps.level(255) } else { T::ZERO };
        Ok(steps)
    }

    /// The power of two below a quotient, lifted, and whether its code is the next one and the one after that.
    #[inline(always)]
    fn place(&self, v: T) -> (i32, T, bool, bool) {
        let v = v * T::power(LIFT);
        let e = v.exponent();
        let power = T::power(e);
        (e, power, v >= self.next * power, v >= self.after * power)
    }

    #[inline(always)]
    fn code(&self, v: T) -> i32 {
        let (e, _, next, after) = self.place(v);
        let q = (((LIFT - e) << self.shift) - i32::from(next) - i32::from(after)).max(0);
        if v >= self.last { q } else { self.zero }
    }

    /// 2^(−q/k), rounded once: halves of the power, since the whole of it may be no normal number.
    #[inline(always)]
    fn level(&self, q: i32) -> T {
        // far below the least number of either type it is 0
        let e = ((q + self.shift) >> self.shift).min(if size_of::<T>() == 4 { 160 } else { 255 });
        let odd = if q & self.shift == 1 { self.root } else { T::ONE };
        odd * T::power(-(e >> 1)) * T::power(-(e - (e >> 1)))
    }

    /// The level of a quotient's code, the same number without the code; NaN of what is negative or no number.
    #[inline(always)]
    fn near(&self, v: T) -> T {
        let (_, power, next, after) = self.place(v);
        let level = if next { self.up * power } else { power };
        let level = if after { power + power } else { level } * T::power(-LIFT);
        let level = if level < T::ONE { level } else { T::ONE };
        let level = if v >= self.last { level } else { self.least };
        if v >= T::ZERO { level } else { T::of(f64::NAN) }
    }

    /// Whether a quotient has a code of its own, neither held at 0 nor taken for 0.
    #[inline(always)]
    fn inside(&self, v: T) -> bool {
        (v >= self.last) & (v < self.next)
    }
}

/// Runs a body for every piece of a part, with its bounds and the scale of each of its elements; of pieces that share one it is
/// found once, or the loop would not become vectors.
macro_rules! pieces {
    ($scales:expr, $at:expr, $len:expr, |$from:ident, $to:ident, $scale:ident| $body:expr) => {
        $scales.grain.walk(
            $at,
            $len,
            #[inline(always)]
            |piece| match piece {
                Piece::One($from, $to, i) => {
                    let s = $scales.scale(i);
                    let $scale = |_: usize| s;
                    $body
                }
                Piece::Each($from, $to, i) => {
                    let $scale = |j: usize| $scales.scale(i + j);
                    $body
                }
            },
        )
    };
}

struct Quantize<'a, T: Real> {
    scales: &'a Scales<'a, T>,
    steps: Steps<T>,
}

impl<T: Real> Pass<T, 1, 0, 0, 1> for Quantize<'_, T> {
    type Gather = bool;
    fn start(&self, _: usize, _: usize) -> Result<bool> {
        Ok(false)
    }
    #[inline(always)]
    fn part<S: Simd>(
        &self,
        _: S,
        bad: &mut bool,
        at: usize,
        [x]: [&[T]; 1],
        _: [&[u8]; 0],
        _: [&mut [T]; 0],
        [c]: [&mut [u8]; 1],
    ) {
        let (scales, steps) = (self.scales, self.steps);
        pieces!(scales, at, x.len(), |from, to, scale| {
            let mut odd = false;
            for (j, (c, &x)) in c[from..to].iter_mut().zip(&x[from..to]).enumerate() {
                odd |= !(x.is_finite() & (x >= T::ZERO));
                *c = steps.code(x / scale(j)) as u8;
            }
            *bad |= odd;
        });
    }
}

struct Dequantize<'a, T: Real> {
    scales: &'a Scales<'a, T>,
    steps: Steps<T>,
    most: T,
}

impl<T: Real> Pass<T, 0, 1, 1, 0> for Dequantize<'_, T> {
    type Gather = bool;
    fn start(&self, _: usize, _: usize) -> Result<bool> {
        Ok(false)
    }
    #[inline(always)]
    fn part<S: Simd>(
        &self,
        _: S,
        bad: &mut bool,
        at: usize,
        _: [&[T]; 0],
        [b]: [&[u8]; 1],
        [y]: [&mut [T]; 1],
        _: [&mut [u8]; 0],
    ) {
        let (scales, steps) = (self.scales, self.steps);
        pieces!(scales, at, b.len(), |from, to, scale| {
            let mut odd = false;
            for (j, (y, &b)) in y[from..to].iter_mut().zip(&b[from..to]).enumerate() {
                let (q, s) = (i32::from(b), scale(j));
                odd |= q > steps.n;
                let end = end(s, self.most);
                *y = clamp(if q < steps.n { steps.level(q) } else { T::ZERO } * s, -end, end);
            }
            *bad |= odd;
        });
    }
}

struct Fake<'a, T: Real> {
    scales: &'a Scales<'a, T>,
    steps: Steps<T>,
    most: T,
}

impl<T: Real> Pass<T, 1, 0, 1, 0> for Fake<'_, T> {
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
        [x]: [&[T]; 1],
        _: [&[u8]; 0],
        [y]: [&mut [T]; 1],
        _: [&mut [u8]; 0],
    ) {
        let (scales, steps) = (self.scales, self.steps);
        pieces!(scales, at, x.len(), |from, to, scale| {
            for (j, (y, &x)) in y[from..to].iter_mut().zip(&x[from..to]).enumerate() {
                let s = scale(j);
                let end = end(s, self.most);
                *y = clamp(steps.near(x / s) * s, -end, end);
            }
        });
    }
}

struct Straight<'a, T: Real>(&'a Scales<'a, T>, Steps<T>);

impl<T: Real> Pass<T, 2, 0, 1, 0> for Straight<'_, T> {
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
        [g, x]: [&[T]; 2],
        _: [&[u8]; 0],
        [d]: [&mut [T]; 1],
        _: [&mut [u8]; 0],
    ) {
        let (scales, steps) = (self.0, self.1);
        pieces!(scales, at, x.len(), |from, to, scale| {
            for (j, ((d, &g), &x)) in d[from..to].iter_mut().zip(&g[from..to]).zip(&x[from..to]).enumerate() {
                *d = if steps.inside(x / scale(j)) { g } else { T::ZERO };
            }
        });
    }
}

fn scales<'a, T: Real>(x: &Tensor<'a>, scale: &Tensor<'a>) -> Result<Scales<'a, T>> {
    Scales::new(x, scale, &Tensor::of::<f32>(&mut []), Form::Divide)
}

/// quantize_log(x, scale) -> q; bits, half, saturate
pub fn quantize(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [x, scale, q] = t else { return Err(super::arrays(3, t)) };
    by_float!(x, A => {
        let scales = &scales::<<A as Compute>::Real>(x, scale)?.positive()?;
        let p = Quantize { scales, steps: Steps::new(k[0].int(), k[1].bool())? };
        let bad = flat::pass::<A, _, 1, 0, 0, 1>(&p, BLOCK, [x], [], [], [q])?;
        if bad.contains(&true) && !k[2].bool() {
            return Err(Error::Value(
                "x holds negative or non-finite values (nan='zero' takes what is negative or NaN for 0, infinity for the scale)"
                    .into(),
            ));
        }
        Ok(())
    })
}

/// dequantize_log(q, scale) -> x; bits, half
pub fn dequantize(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [q, scale, y] = t else { return Err(super::arrays(3, t)) };
    if q.dtype() != base::Dtype::U8 {
        return Err(Error::Type(format!("codes are uint8, got {}", q.dtype().name())));
    }
    by_float!(y, A => {
        let scales = &scales::<<A as Compute>::Real>(q, scale)?;
        let p = Dequantize { scales, steps: Steps::new(k[0].int(), k[1].bool())?, most: A::MOST };
        if flat::pass::<A, _, 0, 1, 1, 0>(&p, BLOCK, [], [q], [y], [])?.contains(&true) {
            return Err(Error::Value(format!("q holds codes beyond {}, that of 0 for {} bits", p.steps.n, k[0].int())));
        }
        Ok(())
    })
}

/// fake_quantize_log(x, scale) -> y; bits, half
pub fn fake(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [x, scale, y] = t else { return Err(super::arrays(3, t)) };
    by_float!(x, A => {
        let scales = &scales::<<A as Compute>::Real>(x, scale)?;
        let p = Fake { scales, steps: Steps::new(k[0].int(), k[1].bool())?, most: A::MOST };
        flat::pass::<A, _, 1, 0, 1, 0>(&p, BLOCK, [x], [], [y], []).map(drop)
    })
}

/// fake_quantize_log_bwd(g, x, scale) -> dx; bits, half
pub fn backward(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [g, x, scale, dx] = t else { return Err(super::arrays(4, t)) };
    by_float!(x, A => {
        let scales = &scales::<<A as Compute>::Real>(x, scale)?;
        let p = Straight(scales, Steps::new(k[0].int(), k[1].bool())?);
        flat::pass::<A, _, 2, 0, 1, 0>(&p, BLOCK, [g, x], [], [dx], []).map(drop)
    })
}
