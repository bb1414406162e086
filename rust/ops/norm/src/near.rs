//! Neighbours of one segment, and of a few labels, in vectors. The one rule: sixteen at a time, from memory to memory, and what
//! is left of a row goes the same way.

use crate::affine::{both, load, store};
use base::simd::*;
use base::store::{STEP, Store};
use drivers::segments::places::{FEW, Labels};
use drivers::segments::walk::lanes;

/// What a segment does to its elements: (x − at) · by + plus, and of a backward the same of x with g · pull before it.
#[derive(Clone, Copy, Default)]
pub struct Line {
    pub at: f64,
    pub by: f64,
    pub plus: f64,
    pub pull: f64,
}

impl Line {
    /// at, by, plus and pull in vectors.
    #[inline(always)]
    pub fn of<S: Simd>(self, s: S) -> [f64x8<S>; 4] {
        [f64x8::splat(s, self.at), f64x8::splat(s, self.by), f64x8::splat(s, self.plus), f64x8::splat(s, self.pull)]
    }
}

/// y = (x − at) · by + plus
#[inline(always)]
pub fn line<S: Simd, T: Store>(s: S, of: Line, x: &[T], y: &mut [T]) {
    let [at, by, plus, _] = of.of(s);
    let whole = x.len() - x.len() % STEP;
    let (y, end) = y[..x.len()].split_at_mut(whole);
    for (x, y) in x.as_chunks::<STEP>().0.iter().zip(y.as_chunks_mut::<STEP>().0) {
        let [a, b] = T::load16(s, x);
        T::store16(s, [(a - at).mul_add(by, plus), (b - at).mul_add(by, plus)], y);
    }
    if whole < x.len() {
        let [a, b] = T::load_tail(s, &x[whole..]);
        T::store_tail(s, [(a - at).mul_add(by, plus), (b - at).mul_add(by, plus)], end);
    }
}

/// y = (x − μ) r γ + β, of γ and β for each
#[inline(always)]
pub fn map<S: Simd, X: Store, T: Store>(s: S, [mu, r]: [f64; 2], x: &[X], gamma: &[f64], beta: &[f64], y: &mut [T]) {
    let (mu, r) = (f64x8::splat(s, mu), f64x8::splat(s, r));
    let n = x.len();
    let (gamma, beta, y) = (&gamma[..n], &beta[..n], &mut y[..n]);
    let whole = n - n % STEP;
    let (y, end) = y.split_at_mut(whole);
    // chunks of a known size, for which no bound is asked
    let affine = gamma.as_chunks::<STEP>().0.iter().zip(beta.as_chunks::<STEP>().0);
    for ((x, y), (gamma, beta)) in x.as_chunks::<STEP>().0.iter().zip(y.as_chunks_mut::<STEP>().0).zip(affine) {
        let [a, b] = X::load16(s, x);
        let (a, b) = ((a - mu) * r, (b - mu) * r);
        let a = a.mul_add(f64x8::from_slice(s, &gamma[..8]), f64x8::from_slice(s, &beta[..8]));
        let b = b.mul_add(f64x8::from_slice(s, &gamma[8..]), f64x8::from_slice(s, &beta[8..]));
        T::store16(s, [a, b], y);
    }
    if whole < n {
        let ([a, b], g) = (X::load_tail(s, &x[whole..]), f64::load_tail(s, &gamma[whole..]));
        let plus = f64::load_tail(s, &beta[whole..]);
        T::store_tail(s, [((a - mu) * r).mul_add(g[0], plus[0]), ((b - mu) * r).mul_add(g[1], plus[1])], end);
    }
}

/// [`map`] as a function of its own.
#[inline(never)]
pub fn mapped<S: Simd, X: Store, T: Store>(s: S, unit: [f64; 2], x: &[X], gamma: &[f64], beta: &[f64], y: &mut [T]) {
    s.vectorize(
        #[inline(always)]
        || map(s, unit, x, gamma, beta, y),
    );
}

/// y = γ r x
#[inline(never)]
pub fn weighed<S: Simd, T: Store>(s: S, r: f64, x: &[T], gamma: &[f64], y: &mut [T]) {
    s.vectorize(
        #[inline(always)]
        || {
            let (r, n) = (f64x8::splat(s, r), x.len());
            let (gamma, y, whole) = (&gamma[..n], &mut y[..n], n - n % STEP);
            let (y, end) = y.split_at_mut(whole);
            let steps = x.as_chunks::<STEP>().0.iter().zip(gamma.as_chunks::<STEP>().0);
            for ((x, gamma), y) in steps.zip(y.as_chunks_mut::<STEP>().0) {
                let ([a, b], [c, d]) = (T::load16(s, x), f64::load16(s, gamma));
                T::store16(s, [a * r * c, b * r * d], y);
            }
            if whole < n {
                let ([a, b], [c, d]) = (T::load_tail(s, &x[whole..]), f64::load_tail(s, &gamma[whole..]));
                T::store_tail(s, [a * r * c, b * r * d], end);
            }
        },
    );
}

/// Σg and Σg(x − μ)
#[inline(always)]
pub fn along<S: Simd, T: Store>(s: S, mu: f64, g: &[T], x: &[T]) -> [f64; 2] {
    let (mu, zero) = (f64x8::splat(s, mu), f64x8::splat(s, 0.0));
    let mut acc = [[zero; 2]; 2];
    let ((g, last), (x, end)) = (g.as_chunks::<STEP>(), x.as_chunks::<STEP>());
    for (g, x) in g.iter().zip(x) {
        let (g, x) = (T::load16(s, g), T::load16(s, x));
        for k in 0..2 {
            acc[k] = [acc[k][0] + g[k], g[k].mul_add(x[k] - mu, acc[k][1])];
        }
    }
    if !last.is_empty() {
        let (g, x) = (T::load_tail(s, last), T::load_tail(s, end));
        for k in 0..2 {
            // no gradient comes from past the end
            acc[k] = [acc[k][0] + g[k], g[k].mul_add(x[k] - mu, acc[k][1])];
        }
    }
    [hsum(acc[0][0] + acc[1][0]), hsum(acc[0][1] + acc[1][1])]
}

/// Σγg and Σγgz with z = (x − μ)r, of γ for each; gz and g are added to what is wanted of the gradients of γ and β.
#[inline(always)]
pub fn pull<S: Simd, G: Store, X: Store>(
    s: S,
    [mu, r]: [f64; 2],
    (g, x): (&[G], &[X]),
    gamma: &[f64],
    into: [&mut [f64]; 2],
) -> [f64; 2] {
    let (mu, r, zero) = (f64x8::splat(s, mu), f64x8::splat(s, r), f64x8::splat(s, 0.0));
    let mut acc = [[zero; 2]; 2];
    let [dgamma, dbeta] = into;
    let n = g.len();
    lanes(
        n,
        #[inline(always)]
        |at, m| {
            let (g, x, a) = (load(s, g, at, m), load(s, x, at, m), load(s, gamma, at, m));
            let gz = both(
                #[inline(always)]
                |k| g[k] * ((x[k] - mu) * r),
            );
            for k in 0..2 {
                acc[k] = [g[k].mul_add(a[k], acc[k][0]), gz[k].mul_add(a[k], acc[k][1])];
            }
            for (d, v) in [(&mut *dgamma, gz), (&mut *dbeta, g)] {
                if !d.is_empty() {
                    let old = load(s, d, at, m);
                    store(s, [old[0] + v[0], old[1] + v[1]], d, at, m);
                }
            }
        },
    );
    [hsum(acc[0][0] + acc[1][0]), hsum(acc[0][1] + acc[1][1])]
}

/// dx = γ g · pull + (x − at) · by + plus, of γ for each if it is given
#[inline(always)]
pub fn sent<S: Simd, G: Store, X: Store, T: Store>(
    s: S,
    of: Line,
    gamma: Option<&[f64]>,
    g: &[G],
    x: &[X],
    dx: &mut [T],
) {
    let [from, by, plus, pull] = of.of(s);
    let n = x.len();
    let whole = n - n % STEP;
    let chunks = g.as_chunks::<STEP>().0.iter().zip(x.as_chunks::<STEP>().0);
    let out = dx.as_chunks_mut::<STEP>().0;
    if let Some(a) = gamma {
        for (((g, x), dx), a) in chunks.zip(out).zip(a.as_chunks::<STEP>().0) {
            let ([g0, g1], [x0, x1]) = (G::load16(s, g), X::load16(s, x));
            let (p0, p1) = (f64x8::from_slice(s, &a[..8]) * pull, f64x8::from_slice(s, &a[8..]) * pull);
            let v = [g0.mul_add(p0, (x0 - from).mul_add(by, plus)), g1.mul_add(p1, (x1 - from).mul_add(by, plus))];
            T::store16(s, v, dx);
        }
    } else {
        for ((g, x), dx) in chunks.zip(out) {
            let ([g0, g1], [x0, x1]) = (G::load16(s, g), X::load16(s, x));
            let v = [g0.mul_add(pull, (x0 - from).mul_add(by, plus)), g1.mul_add(pull, (x1 - from).mul_add(by, plus))];
            T::store16(s, v, dx);
        }
    }
    if whole < n {
        let (g, x) = (G::load_tail(s, &g[whole..n]), X::load_tail(s, &x[whole..]));
        let a = match gamma {
            Some(a) => f64::load_tail(s, &a[whole..n]),
            None => [f64x8::splat(s, 1.0); 2],
        };
        let v = both(
            #[inline(always)]
            |k| g[k].mul_add(a[k] * pull, (x[k] - from).mul_add(by, plus)),
        );
        T::store_tail(s, v, &mut dx[whole..n]);
    }
}

/// Of the neighbours of one label, Σg and Σg(x − μ)
#[inline(always)]
pub fn along_of<S: Simd, T: Store>(s: S, labels: &Labels, label: usize, mu: f64, g: &[T], x: &[T]) -> [f64; 2] {
    let (mu, zero) = (f64x8::splat(s, mu), f64x8::splat(s, 0.0));
    let mut acc = [[zero; 2]; 2];
    lanes(
        x.len(),
        #[inline(always)]
        |at, n| {
            let (g, x, mark) = (load(s, g, at, n), load(s, x, at, n), labels.marked_wide(s, label, at, n));
            for k in 0..2 {
                let (g, u) = (mark[k].select(g[k], zero), mark[k].select(x[k] - mu, zero));
                acc[k] = [acc[k][0] + g, g.mul_add(u, acc[k][1])];
            }
        },
    );
    [hsum(acc[0][0] + acc[1][0]), hsum(acc[0][1] + acc[1][1])]
}

/// The line of its label for every element, with g · pull where a gradient is given; 0 in no segment.
#[inline(always)]
pub fn lines<S: Simd, T: Store>(s: S, labels: &Labels, of: &[Line], g: Option<&[T]>, x: &[T], y: &mut [T]) {
    debug_assert!(of.len() <= FEW);
    let zero = f64x8::splat(s, 0.0);
    lanes(
        x.len(),
        #[inline(always)]
        |at, n| {
            let v = load(s, x, at, n);
            let up = match g {
                Some(g) => load(s, g, at, n),
                None => [zero; 2],
            };
            let mut found = [zero; 2];
            for (label, line) in of.iter().enumerate() {
                let mark = labels.marked_wide(s, label, at, n);
                for k in 0..2 {
                    let own = (v[k] - line.at).mul_add(f64x8::splat(s, line.by), f64x8::splat(s, line.plus));
                    let own = if g.is_some() { up[k].mul_add(f64x8::splat(s, line.pull), own) } else { own };
                    found[k] = mark[k].select(own, found[k]);
                }
            }
            store(s, found, y, at, n);
        },
    );
}
