//! The steps of a row that is added to and normalised. The one rule: each is a function of its own: in one of all of them not
//! everything would be inlined, and what is not has no instructions of the level.

use crate::affine::{both, load, store};
use crate::near::{self, Line};
use base::near::{near, times};
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
        [gamma, beta]: [&[f64]; 2],
        y: &mut [T],
        far: &mut Far,
    ) -> Result<()> {
        let unit = self.unit(s, x, far)?;
        match &far.0 {
            None => map(s, unit, x, gamma, beta, y),
            Some((row, _)) => map(s, unit, row, gamma, beta, y),
        }
        Ok(())
    }
    /// N(g, x); what γ and β are sent is added to `into`, as far as that is wanted.
    #[inline(always)]
    pub fn pull<S: Simd, G: Store, T: Store>(
        self,
        s: S,
        (g, x): (&[G], &[T]),
        gamma: &[f64],
        into: [&mut [f64]; 2],
        (dx, far): (&mut [f64], &mut Far),
    ) -> Result<()> {
        let unit = self.unit(s, x, far)?;
        match &far.0 {
            None => self.send(s, unit, (g, x), gamma, into, dx),
            Some((row, by)) => {
                self.send(s, unit, (g, row), gamma, into, dx);
                times(dx, -by);
            }
        }
        Ok(())
    }
    #[inline(never)]
    fn send<S: Simd, G: Store, T: Store>(
        self,
        s: S,
        [mu, r]: [f64; 2],
        (g, x): (&[G], &[T]),
        gamma: &[f64],
        into: [&mut [f64]; 2],
        dx: &mut [f64],
    ) {
        s.vectorize(
            #[inline(always)]
            || {
                let [sum, along] = near::pull(s, [mu, r], (g, x), gamma, into).map(|v| v / x.len() as f64);
                let plus = if self.layer { -r * sum } else { 0.0 };
                near::sent(s, Line { at: mu, by: -r * r * along, plus, pull: r }, Some(gamma), g, x, dx);
            },
        );
    }
}

/// y = (x − μ) r γ + β
#[inline(never)]
fn map<S: Simd, X: Store, T: Store>(s: S, unit: [f64; 2], x: &[X], gamma: &[f64], beta: &[f64], y: &mut [T]) {
    s.vectorize(
        #[inline(always)]
        || near::map(s, unit, x, gamma, beta, y),
    );
}

/// The row over a power of two, if that helps.
#[inline(never)]
fn less<T: Store>(x: &[T]) -> Result<Option<(Vec<f64>, i32)>> {
    let mut row = try_vec(x.len(), 0.0)?;
    row.iter_mut().zip(x).for_each(|(to, v)| *to = v.to_f64());
    Ok(near(&row, x.len())?.map(|found| (found.rows, found.by[0])))
}

/// s = r + (x − μ) ρ γ + β, rounded once
#[inline(never)]
pub fn added<S: Simd, X: Store, T: Store>(
    s: S,
    [mu, rho]: [f64; 2],
    x: &[X],
    [gamma, beta]: [&[f64]; 2],
    residual: &[T],
    out: &mut [T],
) {
    s.vectorize(
        #[inline(always)]
        || {
            let (mu, rho, n) = (f64x8::splat(s, mu), f64x8::splat(s, rho), out.len());
            lanes(
                n,
                #[inline(always)]
                |at, m| {
                    let (x, r) = (load(s, &x[..n], at, m), load(s, &residual[..n], at, m));
                    let (g, b) = (load(s, &gamma[..n], at, m), load(s, &beta[..n], at, m));
                    let sum = both(
                        #[inline(always)]
                        |k| ((x[k] - mu) * rho).mul_add(g[k], b[k]) + r[k],
                    );
                    store(s, sum, out, at, m);
                },
            );
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

/// A row of float64 in the type of the result.
#[inline(never)]
pub fn rounded<S: Simd, T: Store>(s: S, from: &[f64], to: &mut [T]) {
    s.vectorize(
        #[inline(always)]
        || {
            let n = to.len();
            let whole = n - n % STEP;
            let (to, end) = to.split_at_mut(whole);
            for (v, to) in from.as_chunks::<STEP>().0.iter().zip(to.as_chunks_mut::<STEP>().0) {
                T::store16(s, f64::load16(s, v), to);
            }
            if whole < n {
                T::store_tail(s, f64::load_tail(s, &from[whole..n]), end);
            }
        },
    );
}
