//! The least and the largest value that each scale will have to reach, 0 included. The one rule: one read of x, and a
//! value that is not finite is an error unless the caller lets infinities saturate; then it has no say.

use super::grain::{Grain, Piece};
use base::simd::Simd;
use base::{Error, Result, Scalar, Tensor, by_float, try_vec};
use drivers::flat::{self, BLOCK, Compute, Pass, Real};

/// What has been seen of a group: NaN wins over infinities, they over numbers.
#[derive(Clone, Copy)]
pub struct Extent<T> {
    pub low: T,
    pub high: T,
}

impl<T: Real> Extent<T> {
    pub const NONE: Self = Extent { low: T::ZERO, high: T::ZERO };

    #[inline(always)]
    pub fn join(self, other: Self) -> Self {
        let (a, b) = (self, other);
        Extent {
            low: if a.low < b.low || a.low != a.low { a.low } else { b.low },
            high: if a.high > b.high || a.high != a.high { a.high } else { b.high },
        }
    }

    #[inline(always)]
    pub fn finite(self) -> bool {
        self.low.is_finite() && self.high.is_finite()
    }
}

struct Find<'a, const SATURATE: bool>(&'a Grain);

/// The extents of the scales that a block uses, from the first of them on.
struct Found<T> {
    first: usize,
    all: Vec<Extent<T>>,
}

impl<T: Real, const SATURATE: bool> Pass<T, 1, 0, 0, 0> for Find<'_, SATURATE> {
    type Gather = Found<T>;
    fn start(&self, at: usize, len: usize) -> Result<Found<T>> {
        let (first, end) = self.0.used(at, len);
        Ok(Found { first, all: try_vec(end - first, Extent::NONE)? })
    }
    #[inline(always)]
    fn part<S: Simd>(
        &self,
        _: S,
        found: &mut Found<T>,
        at: usize,
        [x]: [&[T]; 1],
        _: [&[u8]; 0],
        _: [&mut [T]; 0],
        _: [&mut [u8]; 0],
    ) {
        self.0.walk(
            at,
            x.len(),
            #[inline(always)]
            |piece| match piece {
                Piece::One(from, to, i) => {
                    let (low, high) = T::range::<SATURATE>(&x[from..to]);
                    let e = &mut found.all[i - found.first];
                    *e = e.join(Extent { low, high });
                }
                Piece::Each(from, to, i) => {
                    for (e, &x) in found.all[i - found.first..].iter_mut().zip(&x[from..to]) {
                        let x = if SATURATE && !x.is_finite() { T::ZERO } else { x };
                        // both ends carry what is not finite
                        let odd = if x.is_finite() { T::ZERO } else { x };
                        let low = if x < T::ZERO { x } else { odd };
                        let high = if x > T::ZERO { x } else { odd };
                        *e = e.join(Extent { low, high });
                    }
                }
            },
        );
    }
}

/// value_range(x) -> low, high; the axes and the group are in the outputs' shape
pub fn value_range(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [x, low, high] = t else { return Err(super::arrays(3, t)) };
    if low.shape() != high.shape() {
        return Err(super::shapes("high", high, low));
    }
    let grain = &Grain::new(x, low)?;
    by_float!(x, A => {
        let (low, high) = (low.slice_mut::<<A as Compute>::Real>()?, high.slice_mut::<<A as Compute>::Real>()?);
        let block = if grain.flat() { BLOCK } else { BLOCK.max(grain.total.saturating_mul(16)) };
        let parts = if k[2].bool() {
            flat::pass::<A, _, 1, 0, 0, 0>(&Find::<true>(grain), block, [x], [], [], [])
        } else {
            flat::pass::<A, _, 1, 0, 0, 0>(&Find::<false>(grain), block, [x], [], [], [])
        }?;
        if low.len() < grain.total && !x.is_empty() {
            return Err(Error::Value(format!("{} places for {} ranges", low.len(), grain.total)));
        }
        // everything is known before anything is written
        if parts.iter().flat_map(|p| &p.all).any(|e| !e.finite()) {
            return Err(super::non_finite());
        }
        low.fill(Real::ZERO);
        high.fill(Real::ZERO);
        for part in parts {
            for (i, e) in part.all.into_iter().enumerate() {
                let at = part.first + i;
                let e = e.join(Extent { low: low[at], high: high[at] });
                (low[at], high[at]) = (e.low, e.high);
            }
        }
        Ok(())
    })
}
