//! Maps of float32 in float32: of what is multiplied by and taken away, two parts each. The one rule: what float32 cannot tell
//! is not written here but told to the caller, who does it in float64.
//!
//! With a = r or γr, c = aμ, a = a₁ + a₂ and c = c₁ + c₂, of which a₁ and c₁ are float32: z₁ = a₁x − c₁ is rounded once, as it is
//! small where x is near μ; z₂ = a₂x − c₂ is what is left, and goes in with β. So y = γz₁ + (γz₂ + β) is wrong by half a unit in
//! the last place and 2⁻²⁴(|γz₁| + |β|). That is all unless z₂, which is known to 2⁻⁴⁷c, is no longer small beside z₁.

use crate::near::{self, Line};
use base::simd::*;
use base::store::{STEP, Store};
use base::{Result, try_vec};
use drivers::segments::walk::PIECE;
use std::ops::Range;

/// Neighbours that are looked at together: where one of them is too near to μ, all of these are met again.
const CHUNK: usize = 512;

const fn power(e: i32) -> f64 {
    f64::from_bits(((1023 + e) as u64) << 52)
}
/// What a and the largest |γz| of a line may be.
const LEAST: f64 = power(-60);
const MOST: f64 = power(60);
/// The least |z₁|: of c, and of all, so that its last digit is an ordinary number.
const BESIDE: f64 = power(-14);
const SMALL: f64 = power(-90);
/// The largest μr: beyond it too much is near.
const FAR: f64 = 8.0;

/// a and c in two parts each, and the least |z₁|.
#[derive(Clone, Copy)]
pub struct Parts {
    by: [f32; 2],
    less: [f32; 2],
    least: f32,
}

/// γ and β of rows, and those as float32 if that will do.
pub struct Row<'a> {
    pub gamma: &'a [f64],
    pub beta: &'a [f64],
    narrow: Option<Affine>,
}

/// γ and β of a row as float32, which lie where no load meets two lines of a cache.
pub struct Affine {
    room: Vec<f32>,
    at: usize,
    d: usize,
}

impl<'a> Row<'a> {
    /// Float32 will not do where they are not finite, or more than that, or β is next to its end, or `T` is another type.
    pub fn new<T: Store>(gamma: &'a [f64], beta: &'a [f64]) -> Result<Self> {
        let (d, wide) = (gamma.len(), Row { gamma, beta, narrow: None });
        let holds = |v: &f64| v.is_finite() && f64::from(*v as f32) == *v;
        // what is small goes in with β first, which must not leave the type before γz₁ comes
        let all = gamma.iter().chain(beta).all(holds) && beta.iter().all(|v| v.abs() < f64::from(f32::MAX / 2.0));
        if size_of::<T>() != 4 || !(STEP..=PIECE).contains(&d) || !all {
            return Ok(wide);
        }
        let each = d.next_multiple_of(STEP);
        let mut room = try_vec(2 * each + STEP, 0.0)?;
        let at = room.as_ptr().align_offset(STEP * size_of::<f32>()).min(STEP);
        for (to, from) in room[at..].chunks_mut(each).zip([gamma, beta]) {
            to.iter_mut().zip(from).for_each(|(to, v)| *to = *v as f32);
        }
        Ok(Row { narrow: Some(Affine { room, at, d }), ..wide })
    }
    /// What maps in float32 by (x − μ) r, if that will do.
    #[inline(always)]
    pub fn near<S: Simd, T: Store>(&self, s: S, mu: f64, r: f64) -> Option<(Parts, &Affine)> {
        let affine = self.narrow.as_ref()?;
        if (mu * r).abs() < FAR { Some((Parts::new::<S, T>(s, mu, r)?, affine)) } else { None }
    }
}

impl Affine {
    #[inline(always)]
    fn get(&self) -> [&[f32]; 2] {
        let (one, two) = self.room[self.at..].split_at(self.d.next_multiple_of(STEP));
        [&one[..self.d], &two[..self.d]]
    }
}

fn split(v: f64) -> [f32; 2] {
    let first = v as f32;
    [first, (v - f64::from(first)) as f32]
}

impl Parts {
    /// Of (x − at) · by, where float32 has room for it, and `T` and the level are those that this is for.
    #[inline(always)]
    pub fn new<S: Simd, T: Store>(s: S, at: f64, by: f64) -> Option<Parts> {
        let less = at * by;
        let fits = const { size_of::<T>() == 4 && !portable::<S>() } && fused(s);
        let holds = (LEAST..MOST).contains(&by.abs()) && less.abs() < MOST;
        (fits && holds).then(|| Parts { by: split(by), less: split(less), least: (less.abs() * BESIDE + SMALL) as f32 })
    }
    #[inline(always)]
    fn lanes<S: Simd>(self, s: S) -> [f32x16<S>; 4] {
        let Parts { by: [a, b], less: [c, d], .. } = self;
        [f32x16::splat(s, a), f32x16::splat(s, b), f32x16::splat(s, c), f32x16::splat(s, d)]
    }
}

/// Where steps of sixteen begin in `n` numbers, no fewer: the last of them meets some twice.
#[inline(always)]
fn steps(n: usize, mut f: impl FnMut(usize)) {
    let last = n - STEP;
    for at in (0..last).step_by(STEP) {
        f(at);
    }
    f(last);
}

/// Magnitudes as integers, which are in their order, NaN the largest.
#[inline(always)]
fn sizes<S: Simd>(s: S, v: f32x16<S>) -> u32x16<S> {
    v.bitcast::<u32x16<S>>() & u32x16::splat(s, 0x7fff_ffff)
}

/// y = (x − at) · by + plus, of float32 in float32 as long as that will do.
#[inline(always)]
pub fn lined<S: Simd, T: Store>(s: S, of: Line, x: &[T], y: &mut [T]) {
    let (mut parts, plus, mut missed) = (Parts::new::<S, T>(s, of.at, of.by), of.plus as f32, 0);
    for (x, y) in x.chunks(CHUNK).zip(y.chunks_mut(CHUNK)) {
        if let Some(some) = parts {
            if line(s, some, plus, x, y) {
                continue;
            }
            missed += 1;
            parts = parts.filter(|_| missed < 2);
        }
        near::line(s, of, x, y);
    }
}

/// y = (x − at) · by + plus; false where it is to be done anew: some x are near `at`, or no numbers, or there are few.
#[inline(always)]
fn line<S: Simd, T: Store>(s: S, of: Parts, plus: f32, x: &[T], y: &mut [T]) -> bool {
    let n = x.len();
    if n < STEP {
        return false;
    }
    let ([a, b, c, d], plus, y) = (of.lanes(s), f32x16::splat(s, plus), &mut y[..n]);
    let (mut low, mut high) = (u32x16::splat(s, u32::MAX), u32x16::splat(s, 0));
    steps(
        n,
        #[inline(always)]
        |at| {
            let v = T::load16_f32(s, &x[at..at + STEP]);
            let (first, rest) = (v.mul_sub(a, c), v.mul_sub(b, d));
            let size = sizes(s, first);
            (low, high) = (low.min(size), high.max(size));
            T::store16_f32(s, first + (rest + plus), &mut y[at..at + STEP]);
        },
    );
    let bounds = [of.least, MOST as f32].map(f32::to_bits);
    !(low.simd_lt(bounds[0]) | high.simd_gt(bounds[1])).any_true()
}

/// y = γ(x − μ)r + β; false where some finite x are near μ.
#[inline(always)]
pub fn map<S: Simd, T: Store>(s: S, of: Parts, x: &[T], affine: &Affine, y: &mut [T]) -> bool {
    let ([a, b, c, d], n, [gamma, beta]) = (of.lanes(s), affine.d, affine.get());
    let (x, y) = (&x[..n], &mut y[..n]);
    let mut low = f32x16::splat(s, f32::MAX);
    steps(
        n,
        #[inline(always)]
        |at| {
            let to = at..at + STEP;
            let v = T::load16_f32(s, &x[to.clone()]);
            let (first, rest) = (v.mul_sub(a, c), v.mul_sub(b, d));
            low = low.min(first.abs());
            let (g, plus) = (f32x16::from_slice(s, &gamma[to.clone()]), f32x16::from_slice(s, &beta[to.clone()]));
            T::store16_f32(s, g.mul_add(first, g.mul_add(rest, plus)), &mut y[to]);
        },
    );
    !low.simd_lt(of.least).any_true()
}

/// Hands γ and r x of sixteen numbers after the other to `put`; false where one is next to nothing and not nothing.
#[inline(always)]
fn each<S: Simd, T: Store>(
    s: S,
    of: Parts,
    x: &[T],
    affine: &Affine,
    mut put: impl FnMut(Range<usize>, f32x16<S>, f32x16<S>),
) -> bool {
    let ([a, b, ..], n, [gamma, _]) = (of.lanes(s), affine.d, affine.get());
    let x = &x[..n];
    let mut low = u32x16::splat(s, u32::MAX);
    steps(
        n,
        #[inline(always)]
        |at| {
            let to = at..at + STEP;
            let v = T::load16_f32(s, &x[to.clone()]);
            let z = v.mul_add(a, v * b);
            // nothing is as large as can be
            low = low.min(sizes(s, z) - u32x16::splat(s, 1));
            put(to.clone(), f32x16::from_slice(s, &gamma[to]), z);
        },
    );
    !low.simd_lt(of.least.to_bits()).any_true()
}

/// y = γ r x, which is 0 where x is; false as of [`each`].
#[inline(always)]
pub fn weighed<S: Simd, T: Store>(s: S, of: Parts, x: &[T], affine: &Affine, y: &mut [T]) -> bool {
    let y = &mut y[..affine.d];
    each(
        s,
        of,
        x,
        affine,
        #[inline(always)]
        |to, gamma, z| T::store16_f32(s, gamma * z, &mut y[to]),
    )
}

/// s = q + γ r x; false as of [`each`].
#[inline(always)]
pub fn added<S: Simd, T: Store>(s: S, of: Parts, affine: &Affine, [x, q]: [&[T]; 2], y: &mut [T]) -> bool {
    let (q, y) = (&q[..affine.d], &mut y[..affine.d]);
    each(
        s,
        of,
        x,
        affine,
        #[inline(always)]
        |to, gamma, z| T::store16_f32(s, gamma.mul_add(z, T::load16_f32(s, &q[to.clone()])), &mut y[to]),
    )
}
