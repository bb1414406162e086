//! Gradients of the rows of y, met in the walk over those of x. The one rule: every block of rows of x leaves a part of its own,
//! and parts are added in the order of blocks.

use base::pool::Shared;
use base::simd::*;
use base::store::{STEP, Store};
use base::{Result, try_vec};
use drivers::pairs::{Hyperbolic, STRIP};

/// What the rows of y are pulled by, for each block of rows of x apart: Σ f x in padded rows, the weight of y beside it, Σ f.
pub struct Columns {
    acc: Vec<f64>,
    along: Vec<f64>,
    mass: Vec<f64>,
    m: usize,
    pad: usize,
}

impl Columns {
    /// How many blocks of rows of x may be met before what they left is added up: as many as fit into the room that the n m
    /// distances take, if that is more than 4 MiB, and into 64 MiB; 0 where one is too much.
    pub fn blocks(n: usize, m: usize, d: usize) -> usize {
        let room = n.saturating_mul(m).saturating_mul(size_of::<f32>()).clamp(4 << 20, 64 << 20);
        (room / (m.max(1) * d.next_multiple_of(STEP).max(1) * size_of::<f64>())).min(64)
    }
    pub fn new(blocks: usize, m: usize, d: usize) -> Result<Self> {
        let pad = d.next_multiple_of(STEP);
        Ok(Columns {
            acc: try_vec(blocks * m * pad, 0.0)?,
            along: try_vec(blocks * m, 0.0)?,
            mass: try_vec(blocks * m, 0.0)?,
            m,
            pad,
        })
    }
    /// Adds all blocks, in order, to the first.
    pub fn gather(&mut self) {
        let fold = |v: &mut Vec<f64>, size: usize| {
            let (first, later) = v.split_at_mut(size);
            for part in later.chunks_exact(size.max(1)) {
                for (a, b) in first.iter_mut().zip(part) {
                    *a += b;
                }
            }
            later.fill(0.0);
        };
        fold(&mut self.acc, self.m * self.pad);
        fold(&mut self.along, self.m);
        fold(&mut self.mass, self.m);
    }
    /// The gradient of y.
    pub fn finish<T: Store>(&self, score: &Hyperbolic, y: &[T], d: usize, out: &mut [T]) {
        for ((j, y), out) in y.chunks_exact(d.max(1)).enumerate().zip(out.chunks_exact_mut(d.max(1))) {
            let own = self.along[j].mul_add(score.c, self.mass[j]);
            for ((y, a), out) in y.iter().zip(&self.acc[j * self.pad..]).zip(out) {
                *out = T::from_f64(y.to_f64().mul_add(own, -a));
            }
        }
    }
    /// Where tasks write.
    pub fn parts(&mut self) -> Parts {
        let [acc, along, mass] = [&mut self.acc, &mut self.along, &mut self.mass].map(|v| Shared(v.as_mut_ptr()));
        Parts { acc, along, mass, m: self.m, pad: self.pad }
    }
}

pub struct Parts {
    acc: Shared<f64>,
    along: Shared<f64>,
    mass: Shared<f64>,
    m: usize,
    pub pad: usize,
}

impl Parts {
    /// Of one block: Σ f x, weights and Σ f of the columns from `at` on.
    ///
    /// # Safety
    /// The block exists, and nobody else uses these columns of it.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part(&self, block: usize, at: usize, n: usize) -> (&mut [f64], &mut [f64], &mut [f64]) {
        let first = block * self.m + at;
        // SAFETY: promised by the caller; there is a part for each block.
        unsafe { (self.acc.part(first * self.pad, n * self.pad), self.along.part(first, n), self.mass.part(first, n)) }
    }
}

/// R columns of the product across.
#[inline(always)]
pub fn columns_of<S: Simd, const R: usize>(s: S, into: &mut [f64], pad: usize, f: &[f64], x: &[f64]) {
    let mut acc = [[f64x8::splat(s, 0.0); 2]; R];
    for r in 0..R {
        acc[r] = f64::load16(s, &into[r * pad..]);
    }
    for (x, f) in x.chunks_exact(STEP).zip(f.chunks(STRIP)) {
        let (v, f) = (f64::load16(s, x), &f[..R]);
        for r in 0..R {
            let f = f64x8::splat(s, f[r]);
            acc[r] = [v[0].mul_add(f, acc[r][0]), v[1].mul_add(f, acc[r][1])];
        }
    }
    for r in 0..R {
        f64::store16(s, acc[r], &mut into[r * pad..]);
    }
}
