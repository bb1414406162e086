//! Pairs of rows: scores of every row of x with the rows of y that it meets ([`extent`]), taken in by a running reducer; no N×M
//! array anywhere. The one rule: a pair's score is summed in f64 lanes in one order (32 terms, then the sums of those),
//! whatever the tile.
//!
//! Rows are packed eight at a time with the features first ([`pack`]), so that a vector holds one feature of eight rows
//! of y and the tile of R rows × 8 columns is R independent sums without a horizontal step. A strip of 64 columns of
//! finished scores then goes to the reducer, row by row. Differences are squared as they are; |x|² + |y|² − 2⟨x, y⟩
//! would cancel. Blocks of 128 rows × a few thousand columns follow from the shapes alone.

mod columns;
pub mod extent;
pub mod mix;
mod pack;
pub mod reduce;
pub mod score;
mod stacks;
mod words;

pub use columns::Columns;
pub use extent::{All, Band, Causal, Extent, Labels, Others, Window};
pub use mix::{Mix, Mixed, Weigh};
pub use pack::{Item, Number, Real, padded, transpose};
pub use reduce::{ArgMin, LogSumExp, Pick, Reduce, TopK, Write, clear, dead};
pub use score::{Cosine, Distance, Dot, Hamming, Hyperbolic, Score, SquaredDistance};
pub use stacks::{Sides, Stacks};

use base::pool::{self, Shared};
use base::simd::*;
use base::{Error, Result, try_vec};
use pack::{DEPTH, Lines, PANEL, pack};
use std::ops::Range;
use words::{Counter, Words};

/// Rows of x in a block, columns in a strip.
pub const ROWS: usize = 128;
pub const STRIP: usize = 64;
/// Terms added in one go: more of them would round more.
const TERMS: usize = 32;
/// Blocks that run side by side before their reducers meet.
const WAVE: usize = 64;

/// Scores every row of `x[n, d]` with every row of `y[m, d]` and reduces over the rows of y.
pub fn run<T, Sc, R>(score: &Sc, reduce: &R, x: &[T], y: &[T], n: usize, m: usize, d: usize) -> Result<()>
where
    Sc: Score,
    T: Item<Class = Sc::Class>,
    R: Reduce,
{
    Sides::new(x, y, n, m, d)?.run(score, &All, reduce)
}

/// Scores rows of x with the rows of y that they meet, and reduces over these.
fn walk<T, Sc, E, R>(score: &Sc, extent: &E, reduce: &R, sides: &Sides<T>, of: Range<usize>) -> Result<()>
where
    Sc: Score,
    T: Item<Class = Sc::Class>,
    E: Extent,
    R: Reduce,
{
    let (n, m, d) = (of.len(), sides.m, sides.d);
    let (xt, yt) = (terms(score, &sides.x[of.start * d..of.end * d], n, d)?, terms(score, sides.y, m, d)?);
    let counter = if Sc::COUNTS { Counter::current() } else { None };
    // about 2^25 multiply-adds to a block, or 2^28 words: milliseconds, so that an interrupt is heard
    let adds = if counter.is_some() { 1 << 28 } else { 1 << 25 };
    let columns = (adds / (ROWS * d.max(16)) / STRIP * STRIP).max(STRIP);
    let (blocks, chunks) = (n.div_ceil(ROWS), m.div_ceil(columns));
    let room = (64 << 20) / (ROWS * reduce.bytes(m).max(1));
    let wide = room.clamp(1, WAVE);
    for first in (0..blocks).step_by(wide) {
        let beside = wide.min(blocks - first);
        let deep = (wide / beside).max(1);
        let rows = (first * ROWS)..n.min((first + beside) * ROWS);
        let mut states = Vec::new();
        states.try_reserve_exact(rows.len()).map_err(|_| Error::Memory(rows.len() * size_of::<R::State>()))?;
        for _ in rows.clone() {
            states.push(reduce.start(m)?);
        }
        for chunk in (0..chunks).step_by(deep) {
            let deep = deep.min(chunks - chunk);
            let shared = Shared(states.as_mut_ptr());
            let work = rows.len().saturating_mul(deep * columns).saturating_mul(d.max(1));
            let parts = pool::map(beside * deep, work, |b| {
                let (block, at) = (b % beside, chunk + b / beside);
                let part = of.start + (first + block) * ROWS..of.start + n.min((first + block + 1) * ROWS);
                let cols = at * columns..m.min((at + 1) * columns);
                if !extent.hull(part.clone(), m).any(|hull| hull.start < cols.end && cols.start < hull.end) {
                    return Ok(Vec::new());
                }
                let tile = |states: &mut [R::State]| {
                    let (rows, cols) = (part.clone(), cols.clone());
                    if let (Some(counter), false) = (counter, R::BLOCKED) {
                        let (y, w, room) =
                            (T::words(sides.y), d, words::Room::new(T::words(sides.x), d, rows.clone())?);
                        dispatch(Words { counter, score, extent, reduce, y, w, m, rows, cols, room, states });
                        return Ok(());
                    }
                    let mut room = Room::new(part.len(), cols.len(), d)?;
                    let room = &mut room;
                    let xt = if Sc::TERMS { &xt[rows.start - of.start..rows.end - of.start] } else { &xt };
                    dispatch(Block { sides, score, extent, reduce, terms: [xt, &yt], rows, cols, room, states });
                    Ok(())
                };
                if b < beside {
                    // SAFETY: the blocks of the first chunk own the states of their rows, which are disjoint.
                    tile(unsafe { shared.part(block * ROWS, part.len()) })?;
                    return Ok(Vec::new());
                }
                let mut own = Vec::new();
                own.try_reserve_exact(part.len()).map_err(|_| Error::Memory(ROWS * size_of::<R::State>()))?;
                for _ in part.clone() {
                    own.push(reduce.start(m)?);
                }
                tile(&mut own)?;
                Ok(own)
            })?;
            for (b, part) in parts.into_iter().enumerate() {
                let into = &mut states[b % beside * ROWS..];
                for (into, later) in into.iter_mut().zip(part?) {
                    reduce.merge(into, later);
                }
            }
        }
        for (row, state) in rows.zip(states) {
            dispatch(Finish { score, reduce, row: of.start + row, state });
        }
    }
    Ok(())
}

/// What a score needs to know of each row alone.
pub fn terms<T: Item<Class = Sc::Class>, Sc: Score>(score: &Sc, x: &[T], n: usize, d: usize) -> Result<Vec<f64>> {
    let mut out = try_vec(if Sc::TERMS { n } else { 0 }, 0.0)?;
    let shared = Shared(out.as_mut_ptr());
    let blocks = if Sc::TERMS { n.div_ceil(ROWS) } else { 0 };
    pool::run(blocks, n.saturating_mul(d), |b| {
        let rows = b * ROWS..n.min((b + 1) * ROWS);
        let (mut lines, mut packed) = ([[0.0; DEPTH]; PANEL], [0.0; PANEL * DEPTH]);
        // SAFETY: each block writes the terms of its own rows.
        let out = unsafe { shared.part(rows.start, rows.len()) };
        dispatch(score::Terms { score, x, d, first: rows.start, lines: &mut lines, packed: &mut packed, out });
    })?;
    Ok(out)
}

/// Packed rows of both sides and the sums of a strip.
struct Room {
    lines: Lines,
    x: Vec<f64>,
    y: Vec<f64>,
    sums: Vec<f64>,
}

impl Room {
    fn new(rows: usize, cols: usize, d: usize) -> Result<Self> {
        let (rows, cols) = (rows.next_multiple_of(PANEL), cols.min(STRIP).next_multiple_of(PANEL));
        let depth = d.min(DEPTH).next_multiple_of(base::store::STEP);
        let lines = [[0.0; DEPTH]; PANEL];
        Ok(Room {
            lines,
            x: try_vec(rows * depth, 0.0)?,
            y: try_vec(cols * depth, 0.0)?,
            sums: try_vec(rows * STRIP, 0.0)?,
        })
    }
}

/// One block of rows against one chunk of columns.
struct Block<'a, T, Sc, E, R: Reduce> {
    sides: &'a Sides<'a, T>,
    score: &'a Sc,
    extent: &'a E,
    reduce: &'a R,
    terms: [&'a [f64]; 2],
    rows: Range<usize>,
    cols: Range<usize>,
    room: &'a mut Room,
    states: &'a mut [R::State],
}

impl<T: Item<Class = Sc::Class>, Sc: Score, E: Extent, R: Reduce> Kernel for Block<'_, T, Sc, E, R> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Block { sides, score, extent, reduce, terms: [xt, yt], rows, cols, room, states } = self;
        let (&Sides { x, y, d, m, .. }, mut packed) = (sides, false);
        let (mut col, mut live) = (cols.start, [0; ROWS]);
        for hull in extent.hull(rows.clone(), m) {
            // the strip that holds its first column, if it was not met already
            col = col.max(cols.start + hull.start.saturating_sub(cols.start) / STRIP * STRIP);
            while col < hull.end.min(cols.end) {
                let strip = col..cols.end.min(col + STRIP);
                room.sums.fill(0.0);
                for k in (0..d).step_by(DEPTH) {
                    let depth = DEPTH.min(d - k);
                    if d > DEPTH || !packed {
                        pack(s, x, d, rows.clone(), k, depth, &mut room.lines, &mut room.x);
                        packed = true;
                    }
                    pack(s, y, d, strip.clone(), k, depth, &mut room.lines, &mut room.y);
                    sums(s, score, rows.len(), strip.len(), depth, room);
                }
                let each = rows.clone().zip(states.iter_mut()).zip(room.sums.chunks_exact_mut(STRIP)).zip(&mut live);
                for (((row, state), sums), live) in each {
                    let own = f64x8::splat(s, if Sc::TERMS { xt[row - rows.start] } else { 0.0 });
                    for (at, v) in (strip.start..strip.end).step_by(PANEL).zip(sums.chunks_exact_mut(PANEL)) {
                        let other = if Sc::TERMS { padded(s, &yt[at..strip.end.min(at + PANEL)]) } else { own };
                        score.key(s, f64x8::from_slice(s, v), own, other).store_slice(v);
                    }
                    *live = extent.live(row, strip.clone());
                    if !R::BLOCKED {
                        reduce.update(s, score, state, row, strip.clone(), *live, sums);
                    }
                }
                if R::BLOCKED {
                    reduce.block(s, score, states, rows.clone(), strip, &live[..rows.len()], &mut room.sums);
                }
                col += STRIP;
            }
        }
    }
}

/// Adds `depth` features to the sums of every tile of a strip. A function of its own at every level: it is the same for
/// every type of element and every reducer.
fn sums<S: Simd, Sc: Score>(s: S, score: &Sc, rows: usize, cols: usize, depth: usize, room: &mut Room) {
    s.vectorize(
        #[inline(always)]
        || {
            // as many sums as leave room in the registers; two rows or fewer are not worth a padded tile
            match S::f64s::N {
                8 => tiles::<S, Sc, 8>(s, score, rows, cols, depth, room),
                4 => tiles::<S, Sc, 4>(s, score, rows, cols, depth, room),
                _ => tiles::<S, Sc, 2>(s, score, rows, cols, depth, room),
            }
        },
    );
}

#[inline(always)]
fn tiles<S: Simd, Sc: Score, const R: usize>(
    s: S,
    score: &Sc,
    rows: usize,
    cols: usize,
    depth: usize,
    room: &mut Room,
) {
    let panel = PANEL * depth.next_multiple_of(base::store::STEP);
    let mut row = 0;
    while row < rows {
        let x = &room.x[row / PANEL * panel..][..PANEL * depth];
        let sums = &mut room.sums[row * STRIP..];
        let few = rows - row <= 2;
        for (at, y) in (0..cols).step_by(PANEL).zip(room.y.chunks_exact(panel)) {
            let y = &y[..PANEL * depth];
            if few {
                tile::<S, Sc, 1>(s, score, x, row % PANEL, y, &mut sums[at..]);
            } else {
                tile::<S, Sc, R>(s, score, x, row % PANEL, y, &mut sums[at..]);
            }
        }
        row += if few { 1 } else { R };
    }
}

/// R rows from `first` on of a panel of x with a panel of y.
#[inline(always)]
fn tile<S: Simd, Sc: Score, const R: usize>(s: S, score: &Sc, x: &[f64], first: usize, y: &[f64], sums: &mut [f64]) {
    for (x, y) in x.chunks(PANEL * TERMS).zip(y.chunks(PANEL * TERMS)) {
        let mut acc = [f64x8::splat(s, 0.0); R];
        for (x, y) in x.chunks_exact(PANEL).zip(y.chunks_exact(PANEL)) {
            let y = f64x8::from_slice(s, y);
            let x = &x[first..first + R];
            for r in 0..R {
                acc[r] = score.step(s, acc[r], f64x8::splat(s, x[r]), y);
            }
        }
        for (r, acc) in acc.into_iter().enumerate() {
            let sum = &mut sums[r * STRIP..][..PANEL];
            score.join(s, f64x8::from_slice(s, sum), acc).store_slice(sum);
        }
    }
}

struct Finish<'a, Sc, R: Reduce> {
    score: &'a Sc,
    reduce: &'a R,
    row: usize,
    state: R::State,
}

impl<Sc: Score, R: Reduce> Kernel for Finish<'_, Sc, R> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.reduce.finish(s, self.score, self.row, self.state);
    }
}

#[cfg(test)]
mod tests;
