//! The steps of a row that is added to and normalised. The one rule: each is a function of its own: in one of all of them not
//! everything would be inlined, and what is not has no instructions of the level.

use crate::affine::{both, load, store};
use crate::narrow::{self, Affine, Parts, Row};
use crate::near::{self, Line};
use crate::runs;
use base::near::{near, scaled, times};
use base::simd::*;
use base::store::{STEP, Store};
use base::{Result, try_vec};
use drivers::segments::walk::lanes;
use drivers::segments::{moments_of, squares};

/// What a norm divides by.
#[derive(Clone, Copy)]
pub struct Kind {
    pub layer: bool,
    pub eps: f64,
}

/// γ and β, and whether neither a mean is taken away nor a β added.
pub struct Weights<'a> {
    pub row: Row<'a>,
    pub plain: bool,
}

/// A row of float64 over 2^by, if its squares are no numbers.
#[derive(Default)]
pub struct Far(pub Option<(Vec<f64>, i32)>);

impl Kind {
    /// μ, and v + ε.
    #[inline(never)]
    fn spread<S: Simd, T: Store>(self, s: S, x: &[T], eps: f64) -> [f64; 2] {
        s.vectorize(
            #[inline(always)]
            || {
                let n = x.len() as f64;
                if self.layer {
                    let all = moments_of(s, x);
                    return [all.mean, all.m2 / n + eps];
                }
                [0.0, squares(s, x) / n + eps]
            },
        )
    }
    /// μ and ρ of a row, or of the one that stands for it in `far`.
    #[inline(always)]
    pub fn unit<S: Simd, T: Store>(self, s: S, x: &[T], far: &mut Far) -> Result<[f64; 2]> {
        let [mut mu, mut v] = self.spread(s, x, self.eps);
        far.0 = None;
        if size_of::<T>() == 8 && !(v > f64::MIN_POSITIVE && v < f64::INFINITY) {
            far.0 = less(x)?;
            if let Some((row, by)) = &far.0 {
                let mut eps = [self.eps];
                (0..2).for_each(|_| times(&mut eps, -by));
                [mu, v] = self.spread(s, row, eps[0]);
            }
        }
        Ok([mu, 1.0 / v.sqrt()])
    }
    /// y = γ n(x) + β
    #[inline(always)]
    pub fn norm<S: Simd, T: Store>(
        self,
        s: S,
        x: &[T],
        Weights { row: of, plain }: &Weights,
        y: &mut [T],
        far: &mut Far,
    ) -> Result<()> {
        let unit = self.unit(s, x, far)?;
        match &far.0 {
            None if *plain => runs::weighed(s, unit[1], of, x, y),
            None => runs::mapped(s, unit, of, x, y),
            Some((row, _)) => near::mapped(s, unit, row, of.gamma, of.beta, y),
        }
        Ok(())
    }
    /// What N(g, x) is of the row x · 2^by, as a line of x; what γ and β are sent is added to `into`, as far as that is wanted.
    #[inline(never)]
    pub fn pull<S: Simd, G: Store, X: Store>(
        self,
        s: S,
        [mu, r]: [f64; 2],
        (g, x, by): (&[G], &[X], i32),
        gamma: &[f64],
        into: [&mut [f64]; 2],
    ) -> Line {
        s.vectorize(
            #[inline(always)]
            || {
                let [sum, along] = near::pull(s, [mu, r], (g, x), gamma, into).map(|v| v / x.len() as f64);
                let plus = if self.layer { -r * sum } else { 0.0 };
                let of = Line { at: mu, by: -r * r * along, plus, pull: r };
                if by == 0 {
                    return of;
                }
                Line { at: mu, by: scaled(of.by, -by), plus: scaled(of.plus, -by), pull: scaled(of.pull, -by) }
            },
        )
    }
}

/// The row over a power of two, if that helps.
#[inline(never)]
fn less<T: Store>(x: &[T]) -> Result<Option<(Vec<f64>, i32)>> {
    let mut row = try_vec(x.len(), 0.0)?;
    row.iter_mut().zip(x).for_each(|(to, v)| *to = v.to_f64());
    Ok(near(&row, x.len())?.map(|found| (found.rows, found.by[0])))
}

/// [`added`], of float32 in float32 where that will do.
#[inline(always)]
pub fn within<S: Simd, T: Store>(s: S, unit: [f64; 2], x: &[T], of: &Weights, residual: &[T], out: &mut [T]) {
    let near = if of.plain { of.row.near::<S, T>(s, 0.0, unit[1]) } else { None };
    if !near.is_some_and(|(parts, affine)| scaled_sum(s, parts, affine, [x, residual], out)) {
        added(s, unit, x, of, residual, out);
    }
}

#[inline(never)]
fn scaled_sum<S: Simd, T: Store>(s: S, of: Parts, affine: &Affine, x: [&[T]; 2], out: &mut [T]) -> bool {
    s.vectorize(
        #[inline(always)]
        || narrow::added(s, of, affine, x, out),
    )
}

/// s = r + (x − μ) ρ γ + β, rounded once
#[inline(never)]
pub fn added<S: Simd, X: Store, T: Store>(
    s: S,
    [mu, rho]: [f64; 2],
    x: &[X],
    Weights { row: Row { gamma, beta, .. }, plain }: &Weights,
    residual: &[T],
    out: &mut [T],
) {
    s.vectorize(
        #[inline(always)]
        || {
            let (mu, rho, n) = (f64x8::splat(s, mu), f64x8::splat(s, rho), out.len());
            let (x, residual, gamma, beta) = (&x[..n], &residual[..n], &gamma[..n], &beta[..n]);
            let whole = n - n % STEP;
            let steps = x.as_chunks::<STEP>().0.iter().zip(residual.as_chunks::<STEP>().0);
            let affine = gamma.as_chunks::<STEP>().0.iter().zip(beta.as_chunks::<STEP>().0);
            let outs = out.as_chunks_mut::<STEP>().0;
            if *plain {
                for (((x, r), (g, _)), out) in steps.zip(affine).zip(outs) {
                    let ([a, b], [c, d], [g, h]) = (X::load16(s, x), T::load16(s, r), f64::load16(s, g));
                    T::store16(s, [(a * rho).mul_add(g, c), (b * rho).mul_add(h, d)], out);
                }
            } else {
                for (((x, r), (g, b)), out) in steps.zip(affine).zip(outs) {
                    let ([x, y], [r, q]) = (X::load16(s, x), T::load16(s, r));
                    let ([g, h], [b, c]) = (f64::load16(s, g), f64::load16(s, b));
                    let sum = [((x - mu) * rho).mul_add(g, b) + r, ((y - mu) * rho).mul_add(h, c) + q];
                    T::store16(s, sum, out);
                }
            }
            if whole < n {
                let (x, r) = (X::load_tail(s, &x[whole..]), T::load_tail(s, &residual[whole..]));
                let (g, b) = (f64::load_tail(s, &gamma[whole..]), f64::load_tail(s, &beta[whole..]));
                let sum = both(
                    #[inline(always)]
                    |k| {
                        if *plain {
                            return (x[k] * rho).mul_add(g[k], r[k]);
                        }
                        ((x[k] - mu) * rho).mul_add(g[k], b[k]) + r[k]
                    },
                );
                T::store_tail(s, sum, &mut out[whole..]);
            }
        },
    );
}

/// out = a + b, rounded once
#[inline(never)]
pub fn sum<S: Simd, A: Store, T: Store, O: Store>(s: S, a: &[A], b: &[T], out: &mut [O]) {
    s.vectorize(
        #[inline(always)]
        || {
            let n = out.len();
            let whole = n - n % STEP;
            let (out, end) = out.split_at_mut(whole);
            let both = a.as_chunks::<STEP>().0.iter().zip(b.as_chunks::<STEP>().0);
            for ((a, b), out) in both.zip(out.as_chunks_mut::<STEP>().0) {
                let ([a, c], [b, d]) = (A::load16(s, a), T::load16(s, b));
                O::store16(s, [a + b, c + d], out);
            }
            if whole < n {
                let ([a, c], [b, d]) = (A::load_tail(s, &a[whole..n]), T::load_tail(s, &b[whole..n]));
                O::store_tail(s, [a + b, c + d], end);
            }
        },
    );
}

/// What goes on along the stream: N(g, x), whose line is `of`, and what came along it. In float64 for the norm within, and rounded
/// once for what is written of it, if anything is.
#[inline(never)]
pub fn joined<S: Simd, X: Store, T: Store>(
    s: S,
    of: Line,
    gamma: &[f64],
    (g, x, stream): (&[T], &[X], &[T]),
    all: &mut [f64],
    out: &mut [T],
) {
    s.vectorize(
        #[inline(always)]
        || {
            let [from, by, plus, pull] = of.of(s);
            let n = all.len();
            let (g, x, stream, gamma) = (&g[..n], &x[..n], &stream[..n], &gamma[..n]);
            lanes(
                n,
                #[inline(always)]
                |at, n| {
                    let (g, x, r, a) =
                        (load(s, g, at, n), load(s, x, at, n), load(s, stream, at, n), load(s, gamma, at, n));
                    let v = both(
                        #[inline(always)]
                        |k| g[k].mul_add(a[k] * pull, (x[k] - from).mul_add(by, plus)) + r[k],
                    );
                    store(s, v, all, at, n);
                    if !out.is_empty() {
                        store(s, v, out, at, n);
                    }
                },
            );
        },
    );
}

/// N(g, x), whose line is `of`.
#[inline(never)]
pub fn sent<S: Simd, X: Store, T: Store>(s: S, of: Line, gamma: &[f64], g: &[f64], x: &[X], out: &mut [T]) {
    s.vectorize(
        #[inline(always)]
        || near::sent(s, of, Some(gamma), g, x, out),
    );
}
