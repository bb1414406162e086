//! The share of a scale with which its elements come back nearest. The one rule: all shares are tried on the same read of x, codes are
//! those of `quantize`, errors are sums of f64, and of equal ones the largest scale is taken.

use super::affine::{Affine, Range, clamp, end};
use super::grain::Piece;
use super::scales::{Form, Scales};
use base::simd::*;
use base::store::{STEP, Store};
use base::{Error, Result, Scalar, Tensor, by_float, math, try_vec};
use drivers::flat::{self, BLOCK, Compute, Pass, Real};

/// Elements that are tried with all shares while they are in registers and the first cache.
const SIDE: usize = 256;

struct Search<'a, T: Real> {
    scales: &'a Scales<'a, T>,
    shares: &'a [T],
    range: Range,
    /// Of |x − x̂|.
    power: f64,
    most: T,
}

/// Errors of the scales that a block uses, from the first of them on, share after share.
struct Found {
    first: usize,
    all: Vec<f64>,
}

impl<T: Real> Search<'_, T> {
    /// A share of a scale; the scale itself where the product is 0.
    #[inline(always)]
    fn shrunk(&self, i: usize, share: T) -> T {
        let (whole, s) = (self.scales.scale(i), self.scales.scale(i) * share);
        if s > T::ZERO { s } else { whole }
    }

    /// The sum of |x − x̂|^p of at most [`SIDE`] elements.
    #[inline(always)]
    fn error<S: Simd>(&self, simd: S, x: &[T], i: usize, share: T) -> f64 {
        let s = self.shrunk(i, share);
        let (a, end) = (Affine::new(s, self.scales.zero(i), self.range, Form::Divide), end(s, self.most));
        let mut far = [T::ZERO; SIDE];
        for (far, &x) in far.iter_mut().zip(x) {
            let r = a.divided(x) + T::MAGIC - T::MAGIC;
            *far = x - clamp(r * s, -end, end);
        }
        let (mut a, mut b) = (f64x8::splat(simd, 0.0), f64x8::splat(simd, 0.0));
        let far = far[..x.len().next_multiple_of(STEP)].chunks_exact(STEP);
        if self.power == 2.0 {
            for far in far {
                let [c, d] = T::load16(simd, far);
                a += c * c;
                b += d * d;
            }
        } else {
            for far in far {
                let [c, d] = T::load16(simd, far);
                a += math::single::exp(simd, math::single::log(simd, c.abs()) * self.power);
                b += math::single::exp(simd, math::single::log(simd, d.abs()) * self.power);
            }
        }
        hsum(a + b)
    }
}

impl<T: Real> Pass<T, 1, 0, 0, 0> for Search<'_, T> {
    type Gather = Found;
    fn start(&self, at: usize, len: usize) -> Result<Found> {
        let (first, end) = self.scales.grain.used(at, len);
        Ok(Found { first, all: try_vec((end - first) * self.shares.len(), 0.0)? })
    }
    #[inline(always)]
    fn part<S: Simd>(
        &self,
        s: S,
        found: &mut Found,
        at: usize,
        [x]: [&[T]; 1],
        _: [&[u8]; 0],
        _: [&mut [T]; 0],
        _: [&mut [u8]; 0],
    ) {
        let (first, tried) = (found.first, self.shares.len());
        let mut kept = [T::ZERO; SIDE];
        self.scales.grain.walk(
            at,
            x.len(),
            #[inline(always)]
            |piece| {
                // one place that tries shares, so that it is compiled once and for these vectors
                let (from, to, i, each) = match piece {
                    Piece::One(from, to, i) => (from, to, i, SIDE),
                    Piece::Each(from, to, i) => (from, to, i, 1),
                };
                for (j, x) in x[from..to].chunks(each).enumerate() {
                    let i = if each == 1 { i + j } else { i };
                    for (k, &x) in kept.iter_mut().zip(x) {
                        *k = if x.is_finite() { x } else { T::ZERO };
                    }
                    let errors = &mut found.all[(i - first) * tried..][..tried];
                    for (error, &share) in errors.iter_mut().zip(self.shares) {
                        *error += self.error(s, &kept[..x.len()], i, share);
                    }
                }
            },
        );
    }
}

/// best_share(x, scale, zero_point) -> best; lo, hi, how many shares 1, 1 − step, …, step, power
pub fn best_share(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [x, scale, zero, best] = t else { return Err(super::arrays(4, t)) };
    let (range, step, power) = (Range::new(k[0].int(), k[1].int())?, k[3].float(), k[4].float());
    let tried = k[2].int();
    let positive = (1..=1024).contains(&tried) && step >= 0.0 && step * (tried - 1) as f64 <= 1.0;
    if !positive {
        return Err(Error::Value(format!("shares 1, 1 - step, ... are positive, got {tried} with a step of {step}")));
    }
    if !(power > 0.0 && power.is_finite()) {
        return Err(Error::Value(format!("norm must be positive and finite, got {power}")));
    }
    best.expect("best", scale.len())?;
    if scale.is_empty() {
        return Ok(());
    }
    by_float!(x, A => {
        let scales = &Scales::<<A as Compute>::Real>::new(x, scale, zero, Form::Divide)?.positive()?;
        let shares: Vec<_> = (0..tried).map(|i| Real::of(1.0 - step * i as f64)).collect();
        let p = Search { scales, shares: &shares, range, power, most: A::MOST };
        let grain = &scales.grain;
        let block = if grain.flat() { BLOCK } else { BLOCK.max(grain.total.saturating_mul(16)) };
        let mut errors = try_vec(grain.total.saturating_mul(shares.len()), 0.0)?;
        for part in flat::pass::<A, _, 1, 0, 0, 0>(&p, block, [x], [], [], [])? {
            let to = &mut errors[part.first * shares.len()..];
            to.iter_mut().zip(part.all).for_each(|(to, e)| *to += e);
        }
        let made = errors.chunks_exact(shares.len()).enumerate().map(|(i, errors)| {
            let least = errors.iter().copied().fold(f64::INFINITY, f64::min);
            let at = errors.iter().position(|&e| e == least).unwrap_or(0);
            p.shrunk(i, shares[at]).to_f64()
        });
        let made: Vec<f64> = made.collect();
        by_float!(best, B => {
            best.slice_mut::<B>()?.iter_mut().zip(&made).for_each(|(b, &v)| *b = B::from_f64(v));
            Ok(())
        })
    })
}
