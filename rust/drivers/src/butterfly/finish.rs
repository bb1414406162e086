//! What is done to the numbers of a last level before they are written. The one rule: it is one factor and one rounding.

use base::lane::{Lane, load, store};
use base::simd::*;

/// A factor, told once for a whole piece: a type of its own for every kind of it would be every level compiled again.
#[derive(Clone, Copy)]
pub struct Finish {
    factor: f64,
    wide: bool,
}

impl Finish {
    /// Nothing: a product with 1, which the units that multiply take beside what those that add have to do.
    pub const NONE: Finish = Finish { factor: 1.0, wide: false };

    /// A factor of the type that is computed in.
    pub fn times(factor: f64) -> Self {
        Finish { factor, wide: false }
    }

    /// A float64 factor: the product is rounded once.
    pub fn rounded(factor: f64) -> Self {
        Finish { factor, wide: true }
    }

    /// The same where no product is of float64, so that nothing is compiled for it.
    #[inline(always)]
    pub fn narrow(self) -> Self {
        Finish { factor: self.factor, wide: false }
    }

    #[inline(always)]
    pub fn one<L: Lane>(self, v: L) -> L {
        if self.wide { L::of(v.to_f64() * self.factor) } else { v * L::of(self.factor) }
    }

    #[inline(always)]
    pub fn all<S: Simd, L: Lane, const R: usize>(self, s: S, v: &mut [L::V<S>; R]) {
        if self.wide && L::LANES == 16 {
            let mut line = [L::of(0.0); 16];
            for r in 0..R {
                store::<S, L>(v[r], &mut line);
                let [a, b] = L::load16(s, &line);
                L::store16(s, [a * self.factor, b * self.factor], &mut line);
                v[r] = load::<S, L>(s, &line);
            }
        } else {
            let factor = L::of(self.factor);
            for r in 0..R {
                v[r] *= factor;
            }
        }
    }
}
