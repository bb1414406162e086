//! Codes that are places in a table of 16 or 256 numbers: s = max|x| of a group, q the place of the number nearest to x/s, of two
//! the lower one. The one rule: a table may be in any order; what decides is the quotient, rounded once.
//!
//! NF4: Dettmers et al., "QLoRA" (2023), appendix E. The thresholds between the sorted numbers that a quotient is above are
//! counted: all fifteen, which needs no branch, or by halves, of 256 numbers. The count is the place in the sorted table.

use super::encode::{Scheme, encode};
use super::range::Extent;
use base::lane::{Lane, load, store};
use base::simd::*;
use base::{Error, Result, Scalar, Tensor};
use drivers::flat::Real;

/// Numbers of a table of codes of 4 bits, and of 8.
const PLACES: usize = 16;
const MOST: usize = 256;

/// Infinite after the last.
type Thresholds<T> = [T; MOST - 1];

#[derive(Clone, Copy)]
struct Table {
    single: Thresholds<f32>,
    double: Thresholds<f64>,
    /// Where the sorted numbers stand in the table, and whether that is where they are.
    places: [u8; MOST],
    sorted: bool,
    bits: usize,
    /// x·(1/s) instead of x/s, and 1/s at most 1e38.
    recip: bool,
}

/// The thresholds of a type.
trait Typed: Real + Lane {
    fn thresholds(t: &Table) -> &Thresholds<Self>;
}
impl Typed for f32 {
    #[inline(always)]
    fn thresholds(t: &Table) -> &Thresholds<f32> {
        &t.single
    }
}
impl Typed for f64 {
    #[inline(always)]
    fn thresholds(t: &Table) -> &Thresholds<f64> {
        &t.double
    }
}

/// The largest f32 that is not above v: who is an f32 is above both or neither.
fn down(v: f64) -> f32 {
    let f = v as f32;
    if f64::from(f) > v { f.next_down() } else { f }
}

impl Table {
    /// With `peer`, the form of bitsandbytes: thresholds rounded to f32, equal numbers each with a place of its own.
    fn new(numbers: &[f32], peer: bool) -> Result<Table> {
        let n = numbers.len();
        if (n != PLACES && n != MOST) || numbers.iter().any(|v| !v.is_finite()) {
            return Err(Error::Value(format!("a table holds {PLACES} or {MOST} finite numbers, got {numbers:?}")));
        }
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&a, &b| numbers[a].partial_cmp(&numbers[b]).unwrap_or(std::cmp::Ordering::Equal));
        if !peer {
            order.dedup_by(|b, a| numbers[*a] == numbers[*b]);
        }
        let (mut single, mut double) = ([f32::INFINITY; MOST - 1], [f64::INFINITY; MOST - 1]);
        for (i, pair) in order.windows(2).enumerate() {
            let (a, b) = (numbers[pair[0]], numbers[pair[1]]);
            let middle = f64::midpoint(f64::from(a), f64::from(b));
            single[i] = if peer { f32::midpoint(a, b) } else { down(middle) };
            double[i] = if peer { f64::from(single[i]) } else { middle };
        }
        let mut places = [0; MOST];
        places.iter_mut().zip(&order).for_each(|(p, &i)| *p = i as u8);
        let sorted = order.iter().enumerate().all(|(i, &at)| i == at);
        Ok(Table { single, double, places, sorted, bits: n.trailing_zeros() as usize, recip: peer })
    }
}

impl<T: Typed> Scheme<T> for &Table {
    type Kept = T;
    type Step = T;
    #[inline(always)]
    fn see<const FINITE: bool>(self, x: &[T]) -> Extent<T> {
        Extent { low: T::ZERO, high: T::amax::<FINITE>(x) }
    }
    #[inline(always)]
    fn solve(self, e: Extent<T>) -> (T, u8, T) {
        let s = e.high;
        if self.recip {
            let tiny = T::from_f32(1e-38);
            return (s, 0, T::ONE / if s > tiny { s } else { tiny });
        }
        (s, 0, if s > T::ZERO { s } else { T::ONE })
    }
    #[inline(always)]
    fn code(self, &s: &T, x: T) -> u8 {
        let v = if self.recip { x * s } else { x / s };
        let (above, mut at) = (T::thresholds(self), 0);
        for k in (0..self.bits).rev() {
            at += usize::from(v > above[at + (1 << k) - 1]) << k;
        }
        self.places[at]
    }
    /// Threshold after threshold for two vectors of numbers that stay in registers.
    #[inline(always)]
    fn codes<S: Simd>(self, s: S, step: &T, x: &[T], codes: &mut [u8]) {
        if self.bits == 8 {
            for (c, &x) in codes.iter_mut().zip(x) {
                *c = self.code(step, x);
            }
            return;
        }
        let (above, by) = (&T::thresholds(self)[..PLACES - 1], T::V::<S>::splat(s, *step));
        let (zero, one) = (T::V::<S>::splat(s, T::ZERO), T::V::<S>::splat(s, T::ONE));
        let (mut xs, mut cs) = (x.chunks_exact(2 * T::LANES), codes.chunks_exact_mut(2 * T::LANES));
        for (x, codes) in xs.by_ref().zip(cs.by_ref()) {
            let (a, b) = (load::<S, T>(s, x), load::<S, T>(s, &x[T::LANES..]));
            let (a, b) = if self.recip { (a * by, b * by) } else { (a / by, b / by) };
            let mut count = [zero; 2];
            for &t in above {
                let t = T::V::<S>::splat(s, t);
                count[0] += a.simd_gt(t).select(one, zero);
                count[1] += b.simd_gt(t).select(one, zero);
            }
            let mut n = [T::ZERO; 32];
            store::<S, T>(count[0] + T::V::<S>::splat(s, T::MAGIC), &mut n);
            store::<S, T>(count[1] + T::V::<S>::splat(s, T::MAGIC), &mut n[T::LANES..]);
            for (c, n) in codes.iter_mut().zip(&n) {
                *c = n.low() as u8;
            }
            if !self.sorted {
                for c in codes.iter_mut() {
                    *c = self.places[usize::from(*c & 15)];
                }
            }
        }
        for (c, &x) in cs.into_remainder().iter_mut().zip(xs.remainder()) {
            *c = self.code(step, x);
        }
    }
}

/// encode_table(x, table) -> data, scale; group (0: the last axis), peer, saturate
pub fn encode_table(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [x, table, data, scale] = t else { return Err(super::arrays(4, t)) };
    let table = Table::new(table.slice::<f32>()?, k[1].bool())?;
    encode(&table, [x, data, scale], None, table.bits, k[0].int(), k[2].bool())
}
