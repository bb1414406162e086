//! Mixtures for the rows of y, made in the walk over those of x. The one rule: every block of rows of x leaves a part of its own,
//! and parts are added in the order of blocks.

use super::{ROWS, STRIP};
use base::pool::Shared;
use base::simd::*;
use base::store::{STEP, Store};
use base::{Result, try_vec};
use std::ops::Range;

/// For each block of rows of x apart: Σ w x in padded rows, and two numbers beside it.
pub struct Columns {
    acc: Vec<f64>,
    beside: [Vec<f64>; 2],
    blocks: usize,
    m: usize,
    pad: usize,
}

impl Columns {
    /// How many blocks of rows of x may be met before what they left is added up: as many as fit into the room that n m
    /// numbers take, if that is more than 4 MiB, and into 64 MiB; 0 where one is too much.
    pub fn blocks(n: usize, m: usize, d: usize) -> usize {
        let room = n.saturating_mul(m).saturating_mul(size_of::<f32>()).clamp(4 << 20, 64 << 20);
        (room / (m.max(1) * d.next_multiple_of(STEP).max(1) * size_of::<f64>())).min(64)
    }
    pub(super) fn new(blocks: usize, m: usize, d: usize) -> Result<Self> {
        let pad = d.next_multiple_of(STEP);
        let beside = [try_vec(blocks * m, 0.0)?, try_vec(blocks * m, 0.0)?];
        Ok(Columns { acc: try_vec(blocks * m * pad, 0.0)?, beside, blocks, m, pad })
    }
    /// Adds all blocks, in order, to the first.
    pub(super) fn gather(&mut self) {
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
        for v in &mut self.beside {
            fold(v, self.m);
        }
    }
    /// Shows every column.
    pub(super) fn each(&self, f: impl Fn(usize, &[f64], [f64; 2])) {
        for j in 0..self.m {
            f(j, &self.acc[j * self.pad..][..self.pad], [self.beside[0][j], self.beside[1][j]]);
        }
    }
    /// Where tasks write.
    pub(super) fn parts(&mut self) -> Parts {
        let beside = self.beside.each_mut().map(|v| Shared(v.as_mut_ptr()));
        Parts { acc: Shared(self.acc.as_mut_ptr()), beside, blocks: self.blocks, m: self.m, pad: self.pad }
    }
}

pub(super) struct Parts {
    acc: Shared<f64>,
    beside: [Shared<f64>; 2],
    blocks: usize,
    m: usize,
    pub pad: usize,
}

impl Parts {
    /// Where the columns of the block begin that has a row.
    #[inline(always)]
    fn first(&self, row: usize, cols: &Range<usize>) -> usize {
        row / ROWS % self.blocks * self.m + cols.start
    }
    /// Σ w x of these columns, from the block of a row.
    ///
    /// # Safety
    /// Nobody else uses these columns of the block.
    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    pub unsafe fn mixtures(&self, row: usize, cols: Range<usize>) -> &mut [f64] {
        // SAFETY: promised by the caller; there is a part for each block.
        unsafe { self.acc.part(self.first(row, &cols) * self.pad, cols.len() * self.pad) }
    }
    /// The numbers beside them.
    ///
    /// # Safety
    /// As above.
    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    pub unsafe fn beside(&self, row: usize, cols: Range<usize>) -> [&mut [f64]; 2] {
        let at = self.first(row, &cols);
        // SAFETY: as above.
        self.beside.each_ref().map(|v| unsafe { v.part(at, cols.len()) })
    }
}

/// R columns of the product across.
#[inline(always)]
pub(super) fn columns_of<S: Simd, const R: usize>(s: S, into: &mut [f64], pad: usize, f: &[f64], x: &[f64]) {
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
