//! How far the elements of each scale lie from their mean. The one rule: the mean is known before distances are taken, sums are f64
//! in sixteen lanes, and a value that is not finite has no say if the caller lets it saturate.

use super::grain::{Grain, Piece};
use base::simd::Simd;
use base::store::Store;
use base::{Result, Scalar, Tensor, by_float, try_vec};
use drivers::flat::{self, BLOCK, Compute, Pass, Real};

/// What is added up of an element of a scale.
struct Sum<'a, F> {
    grain: &'a Grain,
    /// Of an element and the position of its scale.
    term: F,
}

/// Sums and numbers of the scales that a block uses, from the first of them on.
struct Found {
    first: usize,
    all: Vec<(f64, f64)>,
}

impl<F: Fn(f64, usize) -> f64> Sum<'_, F> {
    /// The term of an element and 1; zeros of one that is not finite.
    #[inline(always)]
    fn one<T: Real>(&self, x: T, i: usize) -> (f64, f64) {
        if x.is_finite() { ((self.term)(x.to_f64(), i), 1.0) } else { (0.0, 0.0) }
    }
}

impl<T: Real, F: Fn(f64, usize) -> f64 + Sync> Pass<T, 1, 0, 0, 0> for Sum<'_, F> {
    type Gather = Found;
    fn start(&self, at: usize, len: usize) -> Result<Found> {
        let (first, end) = self.grain.used(at, len);
        Ok(Found { first, all: try_vec(end - first, (0.0, 0.0))? })
    }
    #[inline(always)]
    fn part<S: Simd>(
        &self,
        _: S,
        found: &mut Found,
        at: usize,
        [x]: [&[T]; 1],
        _: [&[u8]; 0],
        _: [&mut [T]; 0],
        _: [&mut [u8]; 0],
    ) {
        let first = found.first;
        self.grain.walk(
            at,
            x.len(),
            #[inline(always)]
            |piece| match piece {
                Piece::One(from, to, i) => {
                    let mut lanes = [(0.0, 0.0); 16];
                    for x in x[from..to].chunks(16) {
                        for (lane, &x) in lanes.iter_mut().zip(x) {
                            let (v, n) = self.one(x, i);
                            *lane = (lane.0 + v, lane.1 + n);
                        }
                    }
                    let all = &mut found.all[i - first];
                    *all = lanes.iter().fold(*all, |a, lane| (a.0 + lane.0, a.1 + lane.1));
                }
                Piece::Each(from, to, i) => {
                    for (j, &x) in x[from..to].iter().enumerate() {
                        let (v, n) = self.one(x, i + j);
                        let all = &mut found.all[i + j - first];
                        *all = (all.0 + v, all.1 + n);
                    }
                }
            },
        );
    }
}

/// The mean of the terms of each scale's finite elements; 0 of none.
fn means<A: Compute>(x: &Tensor, grain: &Grain, term: impl Fn(f64, usize) -> f64 + Sync) -> Result<Vec<f64>> {
    let block = if grain.flat() { BLOCK } else { BLOCK.max(grain.total.saturating_mul(16)) };
    let mut sums = try_vec(grain.total, (0.0, 0.0))?;
    for part in flat::pass::<A, _, 1, 0, 0, 0>(&Sum { grain, term }, block, [x], [], [], [])? {
        for ((v, n), sum) in part.all.into_iter().zip(&mut sums[part.first..]) {
            *sum = (sum.0 + v, sum.1 + n);
        }
    }
    Ok(sums.into_iter().map(|(v, n): (f64, f64)| v / n.max(1.0)).collect())
}

/// value_spread(x) -> mean, spread; of a Laplace distribution the mean of |x − μ|, else the root of that of (x − μ)²
pub fn value_spread(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [x, mean, spread] = t else { return Err(super::arrays(3, t)) };
    let (grain, laplace) = (&Grain::new(x, mean)?, k[2].bool());
    if mean.is_empty() {
        return Ok(());
    }
    if !k[3].bool() && !drivers::select::finite(x)? {
        return Err(super::non_finite());
    }
    let (mu, far) = by_float!(x, A => {
        let mu = means::<A>(x, grain, |x, _| x)?;
        let far = if laplace {
            means::<A>(x, grain, |x, i| (x - mu[i]).abs())?
        } else {
            means::<A>(x, grain, |x, i| (x - mu[i]) * (x - mu[i]))?.into_iter().map(f64::sqrt).collect()
        };
        Ok((mu, far))
    })?;
    for (out, values) in [(mean, mu), (spread, far)] {
        out.expect("a result", values.len())?;
        by_float!(out, A => {
            out.slice_mut::<A>()?.iter_mut().zip(&values).for_each(|(o, &v)| *o = A::from_f64(v));
            Ok(())
        })?;
    }
    Ok(())
}
