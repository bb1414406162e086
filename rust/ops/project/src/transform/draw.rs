//! G Π v, drawn piece by piece. The one rule: the squares of G are added up in the order of the row, whoever draws which piece.

use super::CHUNK;
use super::pieces::Squares;
use crate::matrix::Matrix;
use base::lane::Lane;
use base::random::Permutation;
use base::simd::*;
use base::{Result, try_vec};
use drivers::{blocks, butterfly};
use std::sync::atomic::{AtomicU64, Ordering};

pub struct Draw<'a, L> {
    /// Whose numbers at 2 are G.
    g: Matrix,
    /// As long as a power of two: v is these again and again.
    short: &'a [L],
    places: Permutation,
    /// Σ g² of each chunk of the row.
    sums: Vec<AtomicU64>,
}

impl<'a, L: Lane> Draw<'a, L> {
    pub fn new(g: Matrix, short: &'a [L], places: Permutation, n: usize) -> Result<Self> {
        let sums = try_vec(n.div_ceil(CHUNK), 0)?.into_iter().map(AtomicU64::new).collect();
        Ok(Draw { g, short, places, sums })
    }

    /// The numbers of G from `first` on, whose squares are kept in mind; at most a chunk, which begins there.
    pub fn numbers(&self, first: usize, g: &mut [f32]) {
        dispatch(Numbers { of: self, first, g });
    }

    /// √ΣG², once all was drawn.
    pub fn norm(&self) -> f64 {
        let chunks = self.sums.chunks(blocks::BLOCK / CHUNK);
        let all = |sums: &[AtomicU64]| sums.iter().fold(0.0, |sum, s| sum + f64::from_bits(s.load(Ordering::Relaxed)));
        chunks.map(all).sum::<f64>().sqrt()
    }

    #[inline(always)]
    fn keep<S: Simd>(&self, s: S, first: usize, g: &mut [f32]) {
        self.g.along(s, 2, first, g);
        self.sums[first / CHUNK].store(Squares(g).run(s).to_bits(), Ordering::Relaxed);
    }

    /// What the row has from `first` on, where a chunk begins.
    #[inline(always)]
    fn fill<S: Simd>(&self, s: S, first: usize, out: &mut [L]) {
        let (mut g, mut at) = ([0.0; CHUNK], [0; CHUNK]);
        let within = self.short.len().wrapping_sub(1);
        for (n, out) in out.chunks_mut(CHUNK).enumerate() {
            let (from, g, at) = (first + n * CHUNK, &mut g[..out.len()], &mut at[..out.len()]);
            self.keep(s, from, g);
            self.places.fill(s, from as u32, at);
            for (out, &at) in out.iter_mut().zip(&*at) {
                *out = self.short[at as usize & within];
            }
            for (out, &g) in out.iter_mut().zip(&*g) {
                *out *= L::of(g.into());
            }
        }
    }
}

impl<L: Lane> butterfly::Fill<L> for Draw<'_, L> {
    fn piece(&self, first: usize, aside: &mut [L]) -> *const L {
        dispatch(Drawn { of: self, first, out: aside });
        aside.as_ptr()
    }
}

/// A piece of the row by itself.
pub struct Drawn<'a, L> {
    pub of: &'a Draw<'a, L>,
    pub first: usize,
    pub out: &'a mut [L],
}
impl<L: Lane> Kernel for Drawn<'_, L> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.of.fill(s, self.first, self.out);
    }
}

struct Numbers<'a, L> {
    of: &'a Draw<'a, L>,
    first: usize,
    g: &'a mut [f32],
}
impl<L: Lane> Kernel for Numbers<'_, L> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.of.keep(s, self.first, self.g);
    }
}
