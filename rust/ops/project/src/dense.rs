//! The projections whose every entry counts (gaussian, rademacher). The one rule: a number of the result adds up in runs
//! of 24 terms, the runs in the wider sum, in ascending order, whatever the tiles.
//!
//! The matrix is made in panels that fit in the second cache, used for up to a thousand rows of x, and forgotten: for a few
//! hundred rows or more that costs little beside the products themselves. A run of 24 products in the type itself keeps
//! the error of a sum of n terms under (log₂ n + 8) ulp of the sum of their sizes.

use super::matrix::Matrix;
use super::sum::{STATE, Sum};
use base::lane::{Lane, Stored, load, read, transpose};
use base::pool::{self, Shared};
use base::random::LANES;
use base::simd::*;
use base::{Result, try_vec};

/// Terms in a run, and in a panel.
const RUN: usize = 24;
const PANEL: usize = 22 * RUN;
/// Results in a panel.
const WIDTH: usize = 128;
/// Rows that share a panel.
const ROWS: usize = 1024;
/// Results of a strip of the panel, which lie side by side: two vectors of f32.
const STRIP: usize = 32;

/// y = P x, or Pᵀ x for the adjoint, row by row of `n` rows.
pub fn apply<T: Stored<Lane: Sum>>(matrix: &Matrix, x: &[T], y: &mut [T], n: usize) -> Result<()> {
    let (outputs, terms) = (matrix.outputs(), matrix.terms());
    let out = Shared(y.as_mut_ptr());
    let (units, widths) = (n.div_ceil(ROWS), outputs.div_ceil(WIDTH));
    let work = n.saturating_mul(terms).saturating_mul(outputs);
    pool::map(units * widths, work, |i| {
        let (from, first) = (i / widths * ROWS, i % widths * WIDTH);
        let rows = ROWS.min(n - from);
        let x = &x[from * terms..(from + rows) * terms];
        // SAFETY: the unit writes its own rows and its own results of them.
        let y = unsafe { out.at(from * outputs + first) };
        dispatch(Unit { matrix, x, y, rows, first, width: WIDTH.min(outputs - first), outputs, terms })
    })?
    .into_iter()
    .collect()
}

struct Unit<'a, T> {
    matrix: &'a Matrix,
    x: &'a [T],
    y: *mut T,
    rows: usize,
    first: usize,
    width: usize,
    outputs: usize,
    terms: usize,
}

impl<T: Stored<Lane: Sum>> Kernel for Unit<'_, T> {
    type Output = Result<()>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Result<()> {
        if S::f32s::N >= 16 { self.tiles::<S, 8, 32>(s) } else { self.tiles::<S, 6, 16>(s) }
    }
}

impl<T: Stored<Lane: Sum>> Unit<'_, T> {
    /// With M rows and N results (of f32; half as many of f64) held in registers.
    #[inline(always)]
    fn tiles<S: Simd, const M: usize, const N: usize>(self, s: S) -> Result<()> {
        let zero = T::Lane::of(0.0);
        let lanes = T::Lane::LANES;
        // results that a tile holds, and numbers of state for one of its rows
        let across = N * lanes / LANES;
        let state = N / LANES * STATE;
        let strips = self.width.div_ceil(STRIP);
        let mut panel = try_vec(PANEL * strips, [zero; STRIP])?;
        let mut some = try_vec(M, [zero; PANEL])?;
        let groups = self.rows.div_ceil(M);
        let tiles = strips * STRIP / across;
        let mut sums = try_vec(groups * tiles * M * state, 0.0)?;
        for from in (0..self.terms).step_by(PANEL) {
            let here = PANEL.min(self.terms - from);
            for (strip, panel) in panel.chunks_exact_mut(PANEL).enumerate() {
                self.fill(s, strip * STRIP, from, &mut panel[..here]);
            }
            for g in 0..groups {
                for r in 0..M.min(self.rows - g * M) {
                    let at = (g * M + r) * self.terms + from;
                    read(s, &self.x[at..at + here], &mut some[r][..here]);
                }
                for t in 0..tiles {
                    let at = t * across;
                    let panel = &panel[at / STRIP * PANEL..][..here];
                    let sums = &mut sums[(g * tiles + t) * M * state..][..M * state];
                    tile::<S, T::Lane, M, N>(s, &some, panel, at % STRIP, sums);
                }
            }
        }
        for g in 0..groups {
            for r in 0..M.min(self.rows - g * M) {
                // SAFETY: this row's results `first..first + width` are the unit's own.
                let y = unsafe { std::slice::from_raw_parts_mut(self.y.add((g * M + r) * self.outputs), self.width) };
                for (v, y) in y.chunks_mut(lanes).enumerate() {
                    let (t, v) = (v * lanes / across, v * lanes % across / lanes);
                    let sums = &sums[((g * tiles + t) * M + r) * state + v * STATE..];
                    let v = T::Lane::total(s, sums, self.matrix.scale);
                    if y.len() == lanes {
                        T::put(s, v, y);
                    } else {
                        let mut whole = [T::default(); LANES];
                        T::put(s, v, &mut whole);
                        y.copy_from_slice(&whole[..y.len()]);
                    }
                }
            }
        }
        Ok(())
    }

    /// A strip of the panel: for the terms from `from` on, the entries of the strip's results side by side.
    #[inline(always)]
    fn fill<S: Simd>(&self, s: S, strip: usize, from: usize, panel: &mut [[T::Lane; STRIP]]) {
        let zero = T::Lane::of(0.0);
        let lanes = T::Lane::LANES;
        let many = STRIP.min(self.width - strip);
        let first = self.first + strip;
        if self.matrix.adjoint {
            // a row of the matrix is a term
            let mut block = [[zero; LANES]; PANEL];
            let block = &mut block[..panel.len()];
            for half in (0..many).step_by(LANES) {
                self.matrix.block(from, first + half, block);
                for (panel, block) in panel.iter_mut().zip(&*block) {
                    panel[half..half + LANES].copy_from_slice(block);
                }
            }
            return;
        }
        let mut block = [[zero; LANES]; STRIP];
        for (n, panel) in panel.chunks_mut(LANES).enumerate() {
            self.matrix.block(first, from + n * LANES, &mut block[..many]);
            // sixteen terms of every result become the results of sixteen terms, a square of vectors at a time
            for (at, term) in (0..many).step_by(lanes).flat_map(|r| (0..LANES).step_by(lanes).map(move |c| (r, c))) {
                let mut v = [<T::Lane as Lane>::V::<S>::splat(s, zero); 16];
                for r in 0..lanes {
                    v[r] = load::<S, T::Lane>(s, &block[at + r][term..]);
                }
                transpose::<S, T::Lane>(&mut v);
                for (panel, v) in panel.iter_mut().skip(term).zip(&v[..lanes]) {
                    v.store_slice(&mut panel[at..at + lanes]);
                }
            }
        }
    }
}

/// M rows of x times N results of a strip from `at` on: M·N sums, in runs.
#[inline(always)]
fn tile<S: Simd, L: Sum, const M: usize, const N: usize>(
    s: S,
    x: &[[L; PANEL]],
    panel: &[[L; STRIP]],
    at: usize,
    sums: &mut [f64],
) {
    let zero = L::V::<S>::splat(s, L::of(0.0));
    let x = &x[..M];
    for (n, run) in panel.chunks(RUN).enumerate() {
        let mut a = [zero; M];
        let mut b = [zero; M];
        for (c, p) in (n * RUN..PANEL).zip(run) {
            let p = &p[at..];
            let (p, q) = (load::<S, L>(s, p), if N == 32 { load::<S, L>(s, &p[L::LANES..]) } else { zero });
            for r in 0..M {
                let x = L::V::<S>::splat(s, x[r][c]);
                a[r] = x.mul_add(p, a[r]);
                if N == 32 {
                    b[r] = x.mul_add(q, b[r]);
                }
            }
        }
        for r in 0..M {
            let sums = &mut sums[r * N / LANES * STATE..];
            L::keep(s, a[r], sums);
            if N == 32 {
                L::keep(s, b[r], &mut sums[STATE..]);
            }
        }
    }
}
