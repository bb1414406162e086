//! What is done to pieces of a row between transforms. The one rule: each is one pass, in the vectors of whatever level there is.

use super::SHORT;
use base::Result;
use base::lane::{Lane, Stored};
use base::random::{Permutation, Source};
use base::simd::*;
use base::store::Store;
use drivers::blocks;

/// `f` of a row, or of its parts where threads may share it.
pub fn parts<V: Send>(a: &mut [V], f: impl Fn(usize, &mut [V]) + Sync) -> Result<()> {
    if a.len() <= SHORT {
        f(0, a);
        return Ok(());
    }
    blocks::fill(a, 1, 1, |first, a| {
        f(first, a);
        Ok(())
    })
}

/// The numbers at a place of a row, zeros elsewhere.
pub fn put<T: Stored>(x: &[T], at: usize, a: &mut [T::Lane]) -> Result<()> {
    parts(a, |first, a| {
        let (from, to) = (at.max(first), (at + x.len()).min(first + a.len()));
        if from < to {
            a[..from - first].fill(T::Lane::of(0.0));
            a[to - first..].fill(T::Lane::of(0.0));
            dispatch(Read { x: &x[from - at..to - at], a: &mut a[from - first..to - first] });
        } else {
            a.fill(T::Lane::of(0.0));
        }
    })
}

/// y = scale·a, rounded.
pub fn take<T: Stored>(a: &[T::Lane], scale: f64, y: &mut [T]) -> Result<()> {
    parts(y, |first, y| dispatch(Take { a: &a[first..], scale, y }))
}

pub struct Take<'a, T: Stored> {
    pub a: &'a [T::Lane],
    pub scale: f64,
    pub y: &'a mut [T],
}
impl<T: Stored> Kernel for Take<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (whole, rest) = self.y.as_chunks_mut::<16>();
        let left = &self.a[16 * whole.len()..];
        for (y, a) in whole.iter_mut().zip(self.a.as_chunks::<16>().0) {
            let [a, b] = T::Lane::load16(s, a);
            T::store16(s, [a * self.scale, b * self.scale], y);
        }
        for (y, a) in rest.iter_mut().zip(left) {
            *y = T::from_f64(a.to_f64() * self.scale);
        }
    }
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

/// Numbers by their signs, a bit each, thirty-two of them a word.
pub struct Flip<'a, L> {
    pub x: &'a mut [L],
    pub words: &'a [u32],
}
impl<L: Lane> Kernel for Flip<'_, L> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        #[inline(always)]
        fn flip<L: Lane>(x: &mut [L], word: u32) {
            for (i, x) in x.iter_mut().enumerate() {
                *x = if word >> i & 1 == 0 { *x } else { -*x };
            }
        }
        let (whole, rest) = self.x.as_chunks_mut::<32>();
        for (x, &word) in whole.iter_mut().zip(self.words) {
            flip(x, word);
        }
        if !rest.is_empty() {
            flip(rest, self.words[whole.len()]);
        }
    }
}

/// Words 0, 1, … of a column.
pub struct Words<'a> {
    pub source: Source,
    pub column: u64,
    pub first: usize,
    pub out: &'a mut [u32],
}
impl Kernel for Words<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // sixteen blocks of four words
        for (n, out) in self.out.chunks_mut(64).enumerate() {
            let words = self.source.along(s, self.column, (self.first / 4 + 16 * n) as u32);
            for (i, out) in out.iter_mut().enumerate() {
                *out = words[i & 3][i >> 2];
            }
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
