//! What two rows near 1 have between them. The one rule: what is across is a difference of exact products, which is nothing on one
//! ray, so that an angle has its digits however small it is.

use super::meet::{both, of, one, total};
use base::dd::{Dd, Num};
use base::simd::*;

/// The slopes of a distance: by each row and by c.
pub struct Slopes {
    pub rows: [Slope; 2],
    pub c: f64,
}

/// `pull` x + `turn` (κx − y), where y − κx may be given as (x_p y − y_p x)/x_p − κx.
pub struct Slope {
    pub pull: f64,
    pub turn: f64,
    pub kappa: [f64; 2],
    pub pivot: Option<[f64; 2]>,
}

/// Two rows near 1.
pub struct Pair<'a> {
    pub x: &'a [f64],
    pub y: &'a [f64],
    /// the largest element of each, and that of the other row there
    pub pivots: [[f64; 2]; 2],
}

pub struct Seen {
    pub squares: [f64; 2],
    /// |x|² − |y|²
    pub more: f64,
    /// of y across x, the square, and of x across y
    pub across: [f64; 2],
    /// what of y − (y_p/x_p)x is along x, and the same of x
    pub along: [[f64; 2]; 2],
    pub product: f64,
}

/// y − (y_p/x_p)x: each product is exact, so that of a row on the ray of the other nothing is left.
#[inline(always)]
fn aside<S: Simd>(x: f64x8<S>, y: f64x8<S>, [p, q]: [f64; 2]) -> Dd<S> {
    let s = x.witness();
    let (p, q) = (f64x8::splat(s, p), f64x8::splat(s, q));
    (Dd::product(y, p) - Dd::product(x, q)) / Dd::of(p)
}

impl Kernel for Pair<'_> {
    type Output = Seen;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Seen {
        let n = self.x.len().min(self.y.len()) / 8 * 8;
        let mut sums = [of(s, 0.0); 8];
        for i in (0..n).step_by(8) {
            let (x, y) = (f64x8::from_slice(s, &self.x[i..i + 8]), f64x8::from_slice(s, &self.y[i..i + 8]));
            let (v, w) = (aside(x, y, self.pivots[0]), aside(y, x, self.pivots[1]));
            sums[0] = sums[0] + Dd::product(x, x);
            sums[1] = sums[1] + Dd::product(y, y);
            sums[2] = sums[2] + Dd::product(x, y);
            sums[3] = sums[3] + Dd::sum(x, -y) * Dd::sum(x, y);
            sums[4] = sums[4] + v.square();
            sums[5] = sums[5] + w.square();
            sums[6] = sums[6] + v * x;
            sums[7] = sums[7] + w * y;
        }
        for sum in &mut sums {
            *sum = total(s, *sum);
        }
        let [xx, yy, xy, more, vv, ww, vx, wy] = sums;
        let along = [vx / xx, wy / yy];
        Seen {
            squares: [one(xx.get()), one(yy.get())],
            more: one(more.get()),
            across: [one((vv - vx * along[0]).get()).max(0.0), one((ww - wy * along[1]).get()).max(0.0)],
            along: [both(along[0]), both(along[1])],
            product: one(xy.get()),
        }
    }
}

/// A slope in place of x.
pub struct Along<'a> {
    pub x: &'a mut [f64],
    pub y: &'a [f64],
    pub slope: &'a Slope,
}

impl Kernel for Along<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Slope { pull, turn, kappa, pivot, .. } = *self.slope;
        let kappa = Dd { hi: f64x8::splat(s, kappa[0]), lo: f64x8::splat(s, kappa[1]) };
        for (x, y) in self.x.chunks_exact_mut(8).zip(self.y.chunks_exact(8)) {
            let (a, b) = (f64x8::from_slice(s, x), f64x8::from_slice(s, y));
            let mut v = f64x8::splat(s, 0.0);
            if turn != 0.0 {
                let rest = match pivot {
                    Some(pivot) => aside(a, b, pivot),
                    None => Dd::of(b),
                };
                v = (kappa * a - rest).get() * turn;
            }
            a.mul_add(pull, v).store_slice(x);
        }
    }
}

/// The largest element of a row, and that of another there.
pub fn pivot(x: &[f64], y: &[f64]) -> [f64; 2] {
    let first = [x[0], y[0]];
    x.iter().zip(y).fold(first, |most, (&a, &b)| if a.abs() > most[0].abs() { [a, b] } else { most })
}

/// A row's largest element as a power of two; of a row of zeros `i32::MIN`, and none where there is one that is no number.
pub fn exponent(row: &[f64]) -> Option<i32> {
    let top = row.iter().fold(0.0, |top: f64, v| if v.abs() > top || v.is_nan() { v.abs() } else { top });
    let small = top < f64::MIN_POSITIVE;
    let bits = |v: f64| (v.to_bits() >> 52) as i32 - 1023;
    match top {
        0.0 => Some(i32::MIN),
        v if v.is_finite() => Some(if small { bits(v * (1u64 << 60) as f64) - 60 } else { bits(v) }),
        _ => None,
    }
}

/// 1 − k, of a pair.
pub fn less([hi, lo]: [f64; 2]) -> [f64; 2] {
    let whole = 1.0 - hi;
    let rest = whole - 1.0;
    let lost = (1.0 - (whole - rest)) - (hi + rest);
    [whole, lost - lo]
}

/// |x − y|²
pub struct Chord<'a>(pub &'a [f64], pub &'a [f64]);
impl Kernel for Chord<'_> {
    type Output = f64;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        let mut sum = of(s, 0.0);
        for (x, y) in self.0.chunks_exact(8).zip(self.1.chunks_exact(8)) {
            sum = sum + Dd::sum(f64x8::from_slice(s, x), -f64x8::from_slice(s, y)).square();
        }
        one(total(s, sum).get())
    }
}
