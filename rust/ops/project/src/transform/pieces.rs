//! What is done to pieces of a row between transforms. The one rule: each is one pass, in the vectors of whatever level there is.

use base::Result;
use base::lane::{Lane, Stored};
use base::random::Permutation;
use base::simd::*;
use base::store::Store;
use drivers::blocks;

/// The numbers at a place of a row, zeros elsewhere.
pub fn put<T: Stored>(x: &[T], at: usize, a: &mut [T::Lane]) -> Result<()> {
    blocks::fill(a, 1, 1, |first, a| {
        a.fill(T::Lane::of(0.0));
        let (from, to) = (at.max(first), (at + x.len()).min(first + a.len()));
        if from < to {
            dispatch(Read { x: &x[from - at..to - at], a: &mut a[from - first..to - first] });
        }
        Ok(())
    })
}

/// y = scale·a, rounded.
pub fn take<T: Stored>(a: &[T::Lane], scale: f64, y: &mut [T]) -> Result<()> {
    blocks::fill(y, 1, 1, |first, y| {
        for (y, a) in y.iter_mut().zip(&a[first..]) {
            *y = T::from_f64(a.to_f64() * scale);
        }
        Ok(())
    })
}

struct Read<'a, T: Stored> {
    x: &'a [T],
    a: &'a mut [T::Lane],
}
impl<T: Stored> Kernel for Read<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        base::lane::read(s, self.x, self.a);
    }
}

/// x times ±1.
pub struct Times<'a, L> {
    pub x: &'a mut [L],
    pub signs: &'a [f32],
}
impl<L: Lane> Kernel for Times<'_, L> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (x, &sign) in self.x.iter_mut().zip(self.signs) {
            *x = L::of(x.to_f64() * f64::from(sign));
        }
    }
}

/// Σ g² in eight sums side by side.
pub struct Squares<'a>(pub &'a [f32]);
impl Kernel for Squares<'_> {
    type Output = f64;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f64 {
        let mut sums = [0.0; 8];
        for g in self.0.chunks(8) {
            for (sum, &g) in sums.iter_mut().zip(g) {
                *sum += f64::from(g) * f64::from(g);
            }
        }
        sums.iter().sum()
    }
}

/// Where a permutation sends `first`, `first` + 1, …, or what it sends there.
pub struct Places<'a> {
    pub of: &'a Permutation,
    pub back: bool,
    pub first: usize,
    pub out: &'a mut [u32],
}
impl Kernel for Places<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if self.back {
            self.of.fill_back(s, self.first as u32, self.out);
        } else {
            self.of.fill(s, self.first as u32, self.out);
        }
    }
}
