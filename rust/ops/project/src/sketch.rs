//! Sketches: every column has c entries ±1/√c, one in each of c equal parts of the rows (Charikar, Chen and Farach-Colton 2002;
//! Nelson and Nguyen 2013; c = 1 is the count sketch). The one rule: a number of the result adds up blocks of 2048 terms, in a block
//! the added terms, then the subtracted, ascending; one of the adjoint adds up its terms in their order.
//!
//! Nonzero r of column j is in row r·k/c + ⌊w₂ᵣ·(k/c)/2^32⌋ and has the sign of the top bit of w₂ᵣ₊₁, w the words of column j.
//! Where they are is drawn once per call, and put in the order of the results. Sixteen rows of x go together: a nonzero is one
//! vector read and one addition for all, and a sum stays in registers as long as a block has terms for it.

use super::matrix::{Kind, Matrix};
use super::sparse::{BLOCK, Runs, fill, finish};
use super::sum::{STATE, Sum, TILE};
use base::lane::{Lane, Stored, load};
use base::random::tag;
use base::simd::*;
use base::{Error, Result, Scalar, try_vec};
use drivers::blocks;

/// Results of the adjoint that are added up at a time.
const STEP: usize = 512;
/// Of a nonzero: no row of the window.
const OUTSIDE: u32 = u32::MAX;
/// Of a nonzero: negative.
const MINUS: u32 = 1 << 31;

/// Rows and columns of a sketch; what `Matrix` says of entries does not hold, its window does.
#[derive(Clone, Copy)]
pub struct Sketch {
    pub matrix: Matrix,
    /// Nonzeros of a column, and rows in which one of them may be.
    c: usize,
    part: u32,
}

impl Sketch {
    /// Its own number is c·2^32 + k/c.
    pub fn new(scalars: &[Scalar]) -> Result<Self> {
        let own = scalars[3].int();
        let (c, part) = ((own >> 32) as usize, own as u32);
        if own < 1 << 32 || part == 0 || c.saturating_mul(part as usize) >= 1 << 31 {
            return Err(Error::Value(format!(
                "a sketch needs nonzeros and rows in each part, under 2^31 in all, got {own}"
            )));
        }
        let matrix = Matrix::of(Kind::Rademacher, tag::COUNTSKETCH, scalars)?;
        if matrix.row as usize + matrix.rows > c * part as usize {
            return Err(Error::Value(format!(
                "row and rows must stay in {}, got {} and {}",
                c * part as usize,
                matrix.row,
                matrix.rows
            )));
        }
        Ok(Sketch { matrix, c, part })
    }

    /// `add(row of the window, ±1)` for every nonzero of a column.
    pub fn each(&self, column: usize, mut add: impl FnMut(usize, f64)) {
        let a = self.matrix.col + column as u64;
        for pair in 0..self.c.div_ceil(2) {
            let words = self.matrix.source.block(a, pair as u32);
            for (r, w) in (2 * pair..self.c).zip(words.chunks_exact(2)) {
                let row = r as u64 * u64::from(self.part) + ((u64::from(w[0]) * u64::from(self.part)) >> 32);
                let row = row.wrapping_sub(self.matrix.row) as usize;
                if row < self.matrix.rows {
                    add(row, if w[1] >> 31 == 0 { 1.0 } else { -1.0 });
                }
            }
        }
    }

    /// The nonzeros of all columns, c for each.
    fn table(&self) -> Result<Vec<u32>> {
        let mut table = try_vec(self.matrix.cols.saturating_mul(self.c), OUTSIDE)?;
        blocks::fill(&mut table, self.c, 8, |first, part| {
            for (j, places) in part.chunks_exact_mut(self.c).enumerate() {
                let mut places = places.iter_mut();
                self.each(first + j, |row, sign| {
                    if let Some(place) = places.next() {
                        *place = row as u32 | if sign < 0.0 { MINUS } else { 0 };
                    }
                });
            }
            Ok(())
        })?;
        Ok(table)
    }

    /// The nonzeros of each block of terms in the order of their results.
    fn runs(&self) -> Result<Vec<Runs>> {
        let terms = self.matrix.cols;
        blocks::map(terms, BLOCK, terms.saturating_mul(8 * self.c), |block| {
            let most = block.len() * self.c;
            let mut found = Vec::new();
            found.try_reserve_exact(most).map_err(|_| Error::Memory(8 * most))?;
            for (term, column) in block.clone().enumerate() {
                self.each(column, |row, sign| found.push((row as u32, sign < 0.0, term as u16)));
            }
            Runs::new(block.len(), found)
        })
    }

    /// y = S x, or Sᵀ x for the adjoint, row by row.
    pub fn apply<T: Stored<Lane: Sum>>(&self, x: &[T], y: &mut [T]) -> Result<()> {
        let (outputs, terms) = (self.matrix.outputs(), self.matrix.terms());
        let (table, runs) = if self.matrix.adjoint { (self.table()?, Vec::new()) } else { (Vec::new(), self.runs()?) };
        let cost = (terms * self.c / outputs).max(1);
        // rows in tiles, then those that are left
        let (tiles, rest) = y.split_at_mut(y.len() / (TILE * outputs) * (TILE * outputs));
        let walk = |first: usize, y: &mut [T], rows: usize| {
            let x = &x[first * terms..];
            let tiles = x.chunks(rows * terms).zip(y.chunks_exact_mut(rows * outputs));
            dispatch(Walk { sketch: self, table: &table, runs: &runs, tiles })
        };
        blocks::fill(tiles, TILE * outputs, cost, |first, y| walk(first * TILE, y, TILE))?;
        let (done, left) = (tiles.len() / outputs, rest.len() / outputs);
        if left == 0 { Ok(()) } else { walk(done, rest, left) }
    }
}

/// Some tiles of up to sixteen rows.
struct Walk<'a, I> {
    sketch: &'a Sketch,
    /// Of the adjoint.
    table: &'a [u32],
    /// Of the sketch.
    runs: &'a [Runs],
    tiles: I,
}

impl<'a, T: Stored<Lane: Sum>, I: Iterator<Item = (&'a [T], &'a mut [T])>> Kernel for Walk<'_, I> {
    type Output = Result<()>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Result<()> {
        let Sketch { matrix, c, .. } = *self.sketch;
        let (outputs, terms) = (matrix.outputs(), matrix.terms());
        // the numbers of state for one result of sixteen rows
        let state = STATE * TILE / T::Lane::LANES;
        let held = if matrix.adjoint { terms } else { BLOCK.min(terms) };
        let mut tile = try_vec(held.next_multiple_of(TILE) * TILE, T::Lane::of(0.0))?;
        let mut sums = try_vec(if matrix.adjoint { STEP.min(outputs) } else { outputs } * state, 0.0)?;
        for (x, y) in self.tiles {
            // where the adjoint is taken all blocks are held at once
            sums.fill(0.0);
            for (block, from) in (0..terms).step_by(BLOCK).enumerate() {
                fill(s, x, terms, from, &mut tile[if matrix.adjoint { from * TILE } else { 0 }..]);
                if let Some(runs) = self.runs.get(block) {
                    runs.add(s, &tile, &mut sums, state);
                }
            }
            if !matrix.adjoint {
                finish(s, &sums, matrix.scale, y, outputs, 0);
                continue;
            }
            for at in (0..outputs).step_by(STEP) {
                let sums = &mut sums[..STEP.min(outputs - at) * state];
                sums.fill(0.0);
                for (places, sums) in self.table[at * c..].chunks_exact(c).zip(sums.chunks_exact_mut(state)) {
                    for &place in places.iter().filter(|&&p| p != OUTSIDE) {
                        add::<S, T::Lane>(s, &tile[(place & !MINUS) as usize * TILE..], place & MINUS != 0, sums);
                    }
                }
                finish(s, sums, matrix.scale, y, outputs, at);
            }
        }
        Ok(())
    }
}

/// One term of sixteen rows, added to their sums or taken from them.
#[inline(always)]
fn add<S: Simd, L: Sum>(s: S, term: &[L], minus: bool, sums: &mut [f64]) {
    let sign = L::V::<S>::splat(s, L::of(if minus { -1.0 } else { 1.0 }));
    for (v, sums) in term[..TILE].chunks_exact(L::LANES).zip(sums.chunks_exact_mut(STATE)) {
        L::keep(s, load::<S, L>(s, v) * sign, sums);
    }
}
