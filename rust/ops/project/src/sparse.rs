//! The very sparse projection of dense rows. The one rule: a number of the result adds up in an order that only its own
//! row and column of the slice decide: blocks of 2048 terms, in a block the added terms, then the subtracted, ascending.
//!
//! Which entries are nonzero is drawn once per call into lists of indices, one for every number of a result, and forgotten
//! after it. Sixteen rows of x are transposed into a tile that stays in the second cache, so that a nonzero entry costs
//! one vector read and one addition for sixteen results.

use super::matrix::{Kind, Matrix};
use super::sum::{STATE, Sum, TILE};
use base::lane::{Lane, Stored, transpose};
use base::pool::{self, Shared};
use base::random::LANES;
use base::simd::*;
use base::{Error, Result, try_vec};

/// Terms whose lists are made, and whose tile is held, at a time: an index has 16 bits.
pub const BLOCK: usize = 2048;
/// Results whose lists are kept at a time, at most, and the indices they may take.
const SEGMENT: usize = 4096;
pub const INDICES: usize = 32 << 20;
/// Terms whose lists lie together when they are looked up by term.
const CHUNK: usize = 64;
/// Tiles that a thread takes at a time.
const UNIT: usize = 4;

/// For each of `outputs` results the terms that are added and those that are subtracted, within one block of terms.
pub struct Lists {
    /// 2·outputs + 1 bounds in `index`: added, subtracted, added, …
    bounds: Vec<u32>,
    index: Vec<u16>,
}

impl Lists {
    fn of(&self, output: usize) -> (&[u16], &[u16]) {
        let at = |i: usize| self.bounds[i] as usize;
        let i = 2 * output;
        (&self.index[at(i)..at(i + 1)], &self.index[at(i + 1)..at(i + 2)])
    }
}

/// Makes the lists of results `first..first + outputs` over the terms `from..from + terms`.
struct Draw<'a> {
    matrix: &'a Matrix,
    threshold: u32,
    first: usize,
    outputs: usize,
    from: usize,
    terms: usize,
}

impl Kernel for Draw<'_> {
    type Output = Result<Lists>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Result<Lists> {
        let mut lists = Lists { bounds: Vec::new(), index: Vec::new() };
        let no_memory = |_| Error::Memory(2 * self.outputs * self.terms);
        lists.bounds.try_reserve_exact(2 * self.outputs + 1).map_err(no_memory)?;
        lists.bounds.push(0);
        // a group of results is drawn together: four rows share a block of words, sixteen columns a vector
        let group = if self.matrix.adjoint { LANES } else { 4 };
        let mut found = Found { room: self.terms, at: [0; 2 * LANES], index: try_vec(2 * group * self.terms, 0)? };
        // the first group of rows may begin within a block of words
        let row = self.matrix.row + self.first as u64;
        let skip = if self.matrix.adjoint { 0 } else { (row & 3) as usize };
        let mut done = 0;
        while done < self.outputs {
            let lead = if done == 0 { skip } else { 0 };
            let many = (group - lead).min(self.outputs - done);
            found.at = [0; 2 * LANES];
            if self.matrix.adjoint {
                self.columns(s, done, many, &mut found);
            } else {
                self.rows(s, row + done as u64, many, &mut found);
            }
            for r in 0..2 * many {
                let some = found.some(r);
                lists.index.try_reserve(some.len()).map_err(no_memory)?;
                lists.index.extend_from_slice(some);
                lists.bounds.push(lists.index.len() as u32);
            }
            done += many;
        }
        Ok(lists)
    }
}

impl Draw<'_> {
    /// Rows b … b + many − 1, which share a block of words, over all columns.
    #[inline(always)]
    fn rows<S: Simd>(&self, s: S, b: u64, many: usize, found: &mut Found) {
        let a = self.matrix.col + self.from as u64;
        for c in (0..self.terms).step_by(LANES) {
            let words = self.matrix.source.across(s, a + c as u64, (b >> 2) as u32);
            for r in 0..many {
                let word = u32x16::from_slice(s, &words[(b & 3) as usize + r]);
                let mut hits = hits(s, word, self.threshold) & low(self.terms - c);
                while hits != 0 {
                    let l = hits.trailing_zeros() as usize;
                    found.push(r, c + l, words[(b & 3) as usize + r][l]);
                    hits &= hits - 1;
                }
            }
        }
    }

    /// Columns `done..done + many` of the group over all rows.
    #[inline(always)]
    fn columns<S: Simd>(&self, s: S, done: usize, many: usize, found: &mut Found) {
        let a = self.matrix.col + (self.first + done) as u64;
        let first = self.matrix.row + self.from as u64;
        for block in first >> 2..(first + self.terms as u64).div_ceil(4) {
            let words = self.matrix.source.across(s, a, block as u32);
            for (r, words) in words.iter().enumerate() {
                let b = 4 * block + r as u64;
                if b < first || b >= first + self.terms as u64 {
                    continue;
                }
                let mut hits = hits(s, u32x16::from_slice(s, words), self.threshold) & low(many);
                while hits != 0 {
                    let l = hits.trailing_zeros() as usize;
                    found.push(l, (b - first) as usize, words[l]);
                    hits &= hits - 1;
                }
            }
        }
    }
}

/// The lists of one group of results while they grow.
struct Found {
    room: usize,
    at: [usize; 2 * LANES],
    index: Vec<u16>,
}

impl Found {
    #[inline(always)]
    fn push(&mut self, result: usize, term: usize, word: u32) {
        let r = 2 * result + (word >> 31) as usize;
        self.index[r * self.room + self.at[r]] = term as u16;
        self.at[r] += 1;
    }
    fn some(&self, r: usize) -> &[u16] {
        &self.index[r * self.room..][..self.at[r]]
    }
}

/// Which of sixteen words are nonzero entries.
#[inline(always)]
fn hits<S: Simd>(s: S, words: u32x16<S>, threshold: u32) -> u64 {
    (words & 0x7fff_ffff).simd_lt(u32x16::splat(s, threshold)).to_bitmask()
}

/// A mask of the lowest n bits.
#[inline(always)]
fn low(n: usize) -> u64 {
    if n >= 64 { u64::MAX } else { (1 << n) - 1 }
}

/// y = P x, or Pᵀ x for the adjoint, row by row of `n` rows.
pub fn apply<T: Stored<Lane: Sum>>(matrix: &Matrix, x: &[T], y: &mut [T], n: usize) -> Result<()> {
    let (outputs, terms) = (matrix.outputs(), matrix.terms());
    let out = Shared(y.as_mut_ptr());
    let blocks = terms.div_ceil(BLOCK).max(1);
    // results at a time: their expected indices fit
    let room = (INDICES as f64 / (matrix.density() * terms as f64).max(1.0)) as usize;
    let segment = SEGMENT.min(room / LANES * LANES).max(LANES);
    // results per list: some ten microseconds of drawing
    let chunk = ((1 << 17) / terms.clamp(64, BLOCK)).min(segment);
    for first in (0..outputs).step_by(segment) {
        let segment = segment.min(outputs - first);
        let lists = lists(matrix, first, segment, 0, terms, chunk)?;
        let part = Part { lists: &lists, chunk, blocks, first, segment, outputs, terms, scale: matrix.scale };
        let work = n.saturating_mul(terms + segment);
        pool::map(n.div_ceil(TILE * UNIT), work, |unit| {
            let from = unit * TILE * UNIT;
            let rows = (TILE * UNIT).min(n - from);
            // SAFETY: units are rows of their own.
            let y = unsafe { out.part(from * outputs, rows * outputs) };
            dispatch(Walk { part: &part, x: &x[from * terms..(from + rows) * terms], y })
        })?
        .into_iter()
        .collect::<Result<()>>()?;
    }
    Ok(())
}

/// The lists of all terms over the results `first..first + width`: those of chunk i over block b at i·blocks + b.
pub fn by_term(matrix: &Matrix, first: usize, width: usize) -> Result<Vec<Lists>> {
    let turned = Matrix { adjoint: !matrix.adjoint, ..*matrix };
    lists(&turned, 0, turned.outputs(), first, width, CHUNK)
}

/// What a term adds to the results that `by_term` was told of: `add(result, ±1)`.
#[inline(always)]
pub fn each(lists: &[Lists], width: usize, term: usize, mut add: impl FnMut(usize, f64)) {
    let blocks = width.div_ceil(BLOCK).max(1);
    for (block, lists) in lists[term / CHUNK * blocks..][..blocks].iter().enumerate() {
        let (plus, minus) = lists.of(term % CHUNK);
        for &o in plus {
            add(block * BLOCK + usize::from(o), 1.0);
        }
        for &o in minus {
            add(block * BLOCK + usize::from(o), -1.0);
        }
    }
}

/// The lists of `many` results from `first` on over the terms `from..from + terms`, by chunks of results and blocks of terms.
fn lists(matrix: &Matrix, first: usize, many: usize, from: usize, terms: usize, chunk: usize) -> Result<Vec<Lists>> {
    let Kind::Sparse(threshold) = matrix.kind else {
        return Err(Error::Value("only sparse entries have lists".into()));
    };
    let blocks = terms.div_ceil(BLOCK).max(1);
    pool::map(many.div_ceil(chunk) * blocks, many.saturating_mul(terms), |i| {
        let (block, done) = (i % blocks * BLOCK, i / blocks * chunk);
        dispatch(Draw {
            matrix,
            threshold,
            first: first + done,
            outputs: chunk.min(many - done),
            from: from + block,
            terms: BLOCK.min(terms - block),
        })
    })?
    .into_iter()
    .collect()
}

/// A segment of the results and its lists: those of chunk i over block b at i·blocks + b.
struct Part<'a> {
    lists: &'a [Lists],
    chunk: usize,
    blocks: usize,
    first: usize,
    segment: usize,
    outputs: usize,
    terms: usize,
    scale: f64,
}

/// A segment of the results of some rows.
struct Walk<'a, T> {
    part: &'a Part<'a>,
    x: &'a [T],
    y: &'a mut [T],
}

impl<T: Stored<Lane: Sum>> Kernel for Walk<'_, T> {
    type Output = Result<()>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Result<()> {
        let p = self.part;
        // the numbers of state for one result of sixteen rows
        let state = STATE * TILE / T::Lane::LANES;
        let whole = BLOCK.min(p.terms).next_multiple_of(LANES);
        let mut tile = try_vec(whole * TILE, T::Lane::of(0.0))?;
        // one block: a chunk is finished at once; several: a segment is carried through all of them
        let step = if p.blocks == 1 { p.chunk } else { p.segment };
        let mut sums = try_vec(step.min(p.segment) * state, 0.0)?;
        for (x, y) in self.x.chunks(TILE * p.terms.max(1)).zip(self.y.chunks_mut(TILE * p.outputs)) {
            if p.blocks == 1 {
                fill(s, x, p.terms, 0, &mut tile);
            }
            for done in (0..p.segment).step_by(step) {
                let many = step.min(p.segment - done);
                let sums = &mut sums[..many * state];
                sums.fill(0.0);
                for block in 0..p.blocks {
                    if p.blocks > 1 {
                        fill(s, x, p.terms, block * BLOCK, &mut tile);
                    }
                    for (i, sums) in sums.chunks_mut(p.chunk * state).enumerate() {
                        let lists = &p.lists[(done / p.chunk + i) * p.blocks + block];
                        for (o, sums) in sums.chunks_exact_mut(state).enumerate() {
                            let (plus, minus) = lists.of(o);
                            add_up(s, &tile, plus, minus, sums);
                        }
                    }
                }
                finish(s, sums, p.scale, y, p.outputs, p.first + done);
            }
        }
        Ok(())
    }
}

/// Adds terms of a block to the sums of a result, and takes others from them.
#[inline(always)]
fn add_up<S: Simd, L: Sum>(s: S, tile: &[L], plus: &[u16], minus: &[u16], sums: &mut [f64]) {
    // SAFETY: lists and runs are made here alone, of terms of the block that the tile holds.
    unsafe { L::gather(s, tile, plus, minus, sums) };
}

/// The nonzero entries of a block of terms by their results, where most results have few or none.
pub struct Runs {
    /// How many terms the block has.
    terms: usize,
    /// A result, and the ends of its added terms and of its subtracted ones in `index`.
    ends: Vec<(u32, u32, u32)>,
    index: Vec<u16>,
}

impl Runs {
    /// From (result, subtracted, term of the block), in any order.
    pub fn new(terms: usize, mut found: Vec<(u32, bool, u16)>) -> Result<Self> {
        found.sort_unstable();
        let (mut ends, mut index) = (Vec::new(), try_vec(found.len(), 0)?);
        let most = found.chunk_by(|a, b| a.0 == b.0).count();
        ends.try_reserve_exact(most).map_err(|_| Error::Memory(12 * most))?;
        let mut at = 0;
        for run in found.chunk_by(|a, b| a.0 == b.0) {
            for (index, &(_, _, term)) in index[at..].iter_mut().zip(run) {
                assert!(usize::from(term) < terms, "a term of another block");
                *index = term;
            }
            let plus = run.partition_point(|r| !r.1);
            ends.push((run[0].0, (at + plus) as u32, (at + run.len()) as u32));
            at += run.len();
        }
        Ok(Runs { terms, ends, index })
    }

    /// Adds the block in the tile to the sums of all results, `state` numbers each.
    #[inline(always)]
    pub fn add<S: Simd, L: Sum>(&self, s: S, tile: &[L], sums: &mut [f64], state: usize) {
        assert!(self.terms * TILE <= tile.len());
        let mut from = 0;
        for &(result, plus, minus) in &self.ends {
            let (plus, minus) = (plus as usize, minus as usize);
            let sums = &mut sums[result as usize * state..][..state];
            add_up(s, tile, &self.index[from..plus], &self.index[plus..minus], sums);
            from = minus;
        }
    }
}

/// Transposes the terms from `from` on of up to sixteen rows into the tile: `tile[term·16 + row]`, zeros for missing rows.
#[inline(always)]
pub fn fill<S: Simd, T: Stored>(s: S, x: &[T], terms: usize, from: usize, tile: &mut [T::Lane]) {
    let lanes = T::Lane::LANES;
    let here = BLOCK.min(terms - from);
    for c in (0..here).step_by(lanes) {
        let many = lanes.min(here - c);
        // sixteen rows are one square of f32, two of f64
        for square in (0..TILE).step_by(lanes) {
            let mut v = [<T::Lane as Lane>::V::<S>::splat(s, T::Lane::of(0.0)); 16];
            for r in 0..lanes {
                let at = (square + r) * terms + from + c;
                if at >= x.len() {
                    continue;
                }
                v[r] = if many == lanes {
                    T::vector(s, &x[at..at + lanes])
                } else {
                    let mut some = [T::default(); 16];
                    some[..many].copy_from_slice(&x[at..at + many]);
                    T::vector(s, &some)
                };
            }
            transpose::<S, T::Lane>(&mut v);
            for (r, v) in v[..lanes].iter().enumerate() {
                v.store_slice(&mut tile[(c + r) * TILE + square..][..lanes]);
            }
        }
    }
}

/// Writes the sums of sixteen rows where they belong: `y[row·outputs + at + i]`.
#[inline(always)]
pub fn finish<S: Simd, T: Stored<Lane: Sum>>(s: S, sums: &[f64], scale: f64, y: &mut [T], outputs: usize, at: usize) {
    let lanes = T::Lane::LANES;
    let state = STATE * TILE / lanes;
    for (i, sums) in sums.chunks(state * lanes).enumerate() {
        let many = sums.len() / state;
        for square in 0..TILE / lanes {
            let mut v = [<T::Lane as Lane>::V::<S>::splat(s, T::Lane::of(0.0)); 16];
            for (v, sums) in v.iter_mut().zip(sums.chunks_exact(state)) {
                *v = T::Lane::total(s, &sums[square * STATE..], scale);
            }
            transpose::<S, T::Lane>(&mut v);
            for (r, v) in v[..lanes].iter().enumerate() {
                let from = (square * lanes + r) * outputs + at + i * lanes;
                if from >= y.len() {
                    break;
                }
                if many == lanes {
                    T::put(s, *v, &mut y[from..]);
                } else {
                    let mut some = [T::default(); 16];
                    T::put(s, *v, &mut some);
                    y[from..from + many].copy_from_slice(&some[..many]);
                }
            }
        }
    }
}
