//! Rows divided by their mean deviation: y = d/a, d = x − mean x, a = mean |d|, and 0 of rows that do not vary. The one rule: a row
//! is read into f64 and its sums are in one order, eight side by side.
//!
//! With m = mean(g y): dx = (g − mean g − m (sign d − mean sign d))/a. The L1 normalization of ShiftQuant (Guo et al., 2024).

use base::store::Store;
use base::{Result, Tensor, by_float, try_vec};
use drivers::blocks;

fn mean(x: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = x.len() as f64;
    let mut sums = [0.0; 8];
    for (i, v) in x.enumerate() {
        sums[i % 8] += v;
    }
    let [a, b, c, d, e, f, g, h] = sums;
    (((a + e) + (c + g)) + ((b + f) + (d + h))) / n
}

/// The deviations in place of a row, and their mean magnitude.
fn deviations(x: &mut [f64]) -> f64 {
    // the mean lies among the numbers: of equal ones it is that number, which their sum divided need not be
    let (low, high) = x.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
    let middle = match mean(x.iter().copied()) {
        m if m < low => low,
        m if m > high => high,
        m => m,
    };
    for x in &mut *x {
        *x -= middle;
    }
    mean(x.iter().map(|d| d.abs()))
}

/// Rows of `N` arrays in f64, to a row of the result.
fn rows<T: Store, const N: usize>(
    from: [&Tensor; N],
    to: &Tensor,
    f: impl Fn([&mut [f64]; N], &mut [T]) + Sync,
) -> Result<()> {
    let (n, d) = to.rows();
    for t in from {
        t.expect("rows", n * d)?;
    }
    let mut whole: [&[T]; N] = [&[]; N];
    for (whole, t) in whole.iter_mut().zip(from) {
        *whole = t.slice::<T>()?;
    }
    blocks::fill(to.slice_mut::<T>()?, d, N, |first, part| {
        let mut room = try_vec(N * d, 0.0)?;
        for (i, to) in part.chunks_exact_mut(d).enumerate() {
            let at = (first + i) * d;
            for (row, whole) in room.chunks_exact_mut(d).zip(whole) {
                for (row, v) in row.iter_mut().zip(&whole[at..at + d]) {
                    *row = v.to_f64();
                }
            }
            let mut parts = room.chunks_exact_mut(d);
            f(std::array::from_fn(|_| parts.next().unwrap_or_default()), to);
        }
        Ok(())
    })
}

/// l1_normalize(x) -> y
pub fn forward(t: &[Tensor]) -> Result<()> {
    by_float!(&t[0], T => rows::<T, 1>([&t[0]], &t[1], |[x], y| {
        let a = deviations(x);
        for (y, &d) in y.iter_mut().zip(&*x) {
            *y = T::from_f64(if a == 0.0 { 0.0 } else { d / a });
        }
    }))
}

/// l1_normalize_bwd(g, x) -> dx
pub fn backward(t: &[Tensor]) -> Result<()> {
    fn sign(v: f64) -> f64 {
        if v == 0.0 { 0.0 } else { v.signum() }
    }
    by_float!(&t[1], T => rows::<T, 2>([&t[0], &t[1]], &t[2], |[g, x], dx| {
        let a = deviations(x);
        let m = mean(g.iter().zip(&*x).map(|(g, d)| g * d)) / a;
        let (g0, s0) = (mean(g.iter().copied()), mean(x.iter().map(|&d| sign(d))));
        for ((dx, &g), &d) in dx.iter_mut().zip(&*g).zip(&*x) {
            *dx = T::from_f64(if a == 0.0 { 0.0 } else { (g - g0 - m * (sign(d) - s0)) / a });
        }
    }))
}
