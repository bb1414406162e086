//! Sums of neighbours, as they are or about a number of their own, in vectors. The one rule: equal numbers add nothing to a
//! spread, and neither do those of other labels.

use super::moment::Moment;
use super::places::Labels;
use super::walk::{PIECE, lanes};
use base::simd::*;
use base::store::{STEP, Store};

/// The sums of x − p and of its square, in lanes.
#[inline(always)]
fn sums<S: Simd, T: Store>(s: S, x: &[T], p: f64) -> [f64; 2] {
    let zero = f64x8::splat(s, 0.0);
    let mut acc = [[zero; 2]; 2];
    let (whole, end) = x.as_chunks::<STEP>();
    let mut rest = [0.0; 2];
    for v in end {
        let d = v.to_f64() - p;
        rest = [rest[0] + d, d.mul_add(d, rest[1])];
    }
    for x in whole {
        let v = T::load16(s, x);
        for k in 0..2 {
            let d = v[k] - p;
            acc[k] = [acc[k][0] + d, d.mul_add(d, acc[k][1])];
        }
    }
    [hsum(acc[0][0] + acc[1][0]) + rest[0], hsum(acc[0][1] + acc[1][1]) + rest[1]]
}

/// The most that the square of a mean may be of a variance which is found of sums of numbers as they are.
const BESIDE: f64 = 16.0;

/// Σx and Σx² of float32 and smaller numbers, whose squares float64 holds exactly: one sum has two chains of each half, since a
/// sum waits for the one before it.
#[inline(always)]
fn plain<S: Simd, T: Store>(s: S, x: &[T]) -> [f64; 2] {
    let zero = f64x8::splat(s, 0.0);
    let mut acc = [[zero; 2]; 4];
    let (pairs, rest) = x.as_chunks::<{ 2 * STEP }>();
    for x in pairs {
        let ([a, b], [c, d]) = (T::load16(s, &x[..STEP]), T::load16(s, &x[STEP..]));
        let v = [a, b, c, d];
        for k in 0..4 {
            acc[k] = [acc[k][0] + v[k], v[k].mul_add(v[k], acc[k][1])];
        }
    }
    let (whole, end) = rest.as_chunks::<STEP>();
    if let [x] = whole {
        let v = T::load16(s, x);
        for k in 0..2 {
            acc[k] = [acc[k][0] + v[k], v[k].mul_add(v[k], acc[k][1])];
        }
    }
    if !end.is_empty() {
        let v = T::load_tail(s, end);
        for k in 0..2 {
            acc[2 + k] = [acc[2 + k][0] + v[k], v[k].mul_add(v[k], acc[2 + k][1])];
        }
    }
    let sum = (acc[0][0] + acc[2][0]) + (acc[1][0] + acc[3][0]);
    let squares = (acc[0][1] + acc[2][1]) + (acc[1][1] + acc[3][1]);
    [hsum(sum), hsum(squares)]
}

/// How many neighbours have a label, and the sums of their x − p and of its square, in lanes.
#[inline(always)]
pub(super) fn sums_of<S: Simd, T: Store>(s: S, labels: &Labels, label: usize, x: &[T], p: T) -> [f64; 3] {
    let (zero, far) = (f64x8::splat(s, 0.0), p.to_f64());
    let (mut acc, mut count) = ([[zero; 2]; 2], f32x16::splat(s, 0.0));
    let (none, one) = (f32x16::splat(s, 0.0), f32x16::splat(s, 1.0));
    lanes(
        x.len(),
        #[inline(always)]
        |at, n| {
            let mark = labels.marked(s, label, at, n);
            count += mark.select(one, none);
            // in the place of others stands p, which adds nothing
            let v = if size_of::<T>() < 8 {
                let v =
                    if n == STEP { T::load16_f32(s, &x[at..at + STEP]) } else { T::load_tail_f32(s, &x[at..at + n]) };
                let (a, b) = mark.select(v, f32x16::splat(s, p.to_f32())).widen();
                [a, b]
            } else {
                let [a, b] = if n == STEP { T::load16(s, &x[at..at + STEP]) } else { T::load_tail(s, &x[at..at + n]) };
                let [m, k] = labels.marked_wide(s, label, at, n);
                [m.select(a, f64x8::splat(s, far)), k.select(b, f64x8::splat(s, far))]
            };
            for k in 0..2 {
                let d = v[k] - far;
                acc[k] = [acc[k][0] + d, d.mul_add(d, acc[k][1])];
            }
        },
    );
    // counts of a lane are those of a piece at most, which float32 holds
    let (a, b) = count.widen();
    [hsum(a + b), hsum(acc[0][0] + acc[1][0]), hsum(acc[0][1] + acc[1][1])]
}

/// The moments of neighbours: of plain sums where their mean is not large beside their deviation, else in one sweep about the
/// first of them, which for float64 a second one about their mean sharpens.
#[inline(always)]
pub fn moments<S: Simd, T: Store>(s: S, x: &[T]) -> Moment {
    let (p, w) = (x[0].to_f64(), x.len() as f64);
    if size_of::<T>() < 8 {
        let [s1, s2] = plain(s, x);
        let mean = s1 / w;
        let m2 = s2 - s1 * mean;
        // equal numbers are not among these, nor what is not finite
        if BESIDE * m2 >= s1 * mean {
            return Moment { w, mean, m2 };
        }
    }
    let [s1, s2] = sums(s, x, p);
    let mut found = Moment::about(p, w, s1, s2);
    if !found.mean.is_finite() {
        // differences that are no numbers: of infinities the mean has the sum, of finite numbers it lies between them
        let all = x.iter().all(|v| v.to_f64().is_finite());
        found.mean = x.iter().map(|v| v.to_f64() / w).sum::<f64>();
        found.m2 = if all { f64::INFINITY } else { f64::NAN };
    } else if size_of::<T>() == 8 {
        let [e1, e2] = sums(s, x, found.mean);
        // squares that are no numbers have no sum either
        found.m2 = if e2.is_finite() { (e2 - e1 * (e1 / w)).max(0.0) } else { e2 };
    }
    found
}

/// The moments of any number of neighbours, piece by piece.
#[inline(always)]
pub fn moments_of<S: Simd, T: Store>(s: S, x: &[T]) -> Moment {
    let mut all = Moment::default();
    for piece in x.chunks(PIECE) {
        all.merge(moments(s, piece));
    }
    all
}

/// Σx², lanes of which are summed in twice the precision of float64 where the numbers are such.
#[inline(always)]
pub fn squares<S: Simd, T: Store>(s: S, x: &[T]) -> f64 {
    if size_of::<T>() < 8 {
        return plain(s, x)[1];
    }
    let zero = f64x8::splat(s, 0.0);
    let mut acc = [[zero; 2]; 2];
    let (whole, end) = x.as_chunks::<STEP>();
    for x in whole {
        square::<S>(s, T::load16(s, x), &mut acc);
    }
    if !end.is_empty() {
        square::<S>(s, T::load_tail(s, end), &mut acc);
    }
    let (sum, rest) = two_sum(acc[0][0], acc[1][0]);
    let (sum, rest) = (hsum(sum), hsum(rest + (acc[0][1] + acc[1][1])));
    // an infinite sum lacks nothing
    if sum.is_finite() { sum + rest } else { sum }
}

#[inline(always)]
fn square<S: Simd>(s: S, v: [f64x8<S>; 2], acc: &mut [[f64x8<S>; 2]; 2]) {
    for k in 0..2 {
        let (p, e) = two_prod(s, v[k], v[k]);
        let (sum, r) = two_sum(acc[k][0], p);
        acc[k] = [sum, acc[k][1] + (e + r)];
    }
}
