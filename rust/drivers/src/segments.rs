//! Segmented reductions: what the rows of a segment add up to, and what a segment sends back to its rows. The one rule: entries
//! are added in their order, in parts whose bounds follow from the lists alone, so that bits do not depend on the threads.
//!
//! Small segments are met several at a time, so that a functor may finish them in vectors, and while their rows are near they may
//! be read again. The parts of a large segment are added side by side and merged in order.

mod chunk;
mod labels;
mod lists;
mod moment;
pub mod moments;
pub mod places;
mod sums;
pub mod walk;

pub use chunk::Chunk;
pub use lists::{CHUNK, Lists, PART, SLOTS, Turned};
pub use sums::{moments_of, squares};

use base::Result;
use base::pool;
use base::simd::*;
use std::ops::Range;

/// Segments, and what is found of single entries before they are added.
pub trait Segments: Sync {
    type Numbers;
    fn lists(&self) -> &Lists;
    fn numbers(&self) -> Self::Numbers;
    /// The numbers of `n` entries: their rows, and their places in the lists.
    fn lift<S: Simd>(&self, s: S, n: usize, rows: &[usize; CHUNK], places: &[usize; CHUNK], into: &mut Self::Numbers);
}

/// Rows that are added as they are.
impl Segments for Lists {
    type Numbers = ();
    #[inline(always)]
    fn lists(&self) -> &Lists {
        self
    }
    fn numbers(&self) {}
    #[inline(always)]
    fn lift<S: Simd>(&self, _: S, _: usize, _: &[usize; CHUNK], _: &[usize; CHUNK], (): &mut ()) {}
}

/// A reduction over the entries of segments.
pub trait Fold<N>: Sync {
    /// What segments met together, at most [`SLOTS`], know of their entries so far.
    type State: Send + Sync;
    /// What a task leaves behind.
    type Left: Send;
    /// How often the entries are met; each time more is known.
    fn sweeps(&self) -> usize {
        1
    }
    /// Whether the entries of small segments are met once more when these are finished, by [`Fold::apply`].
    fn applies(&self) -> bool {
        false
    }
    fn start(&self, slots: usize) -> Result<Self::State>;
    /// `n` segments that know of nothing.
    fn clear(&self, state: &mut Self::State, n: usize);
    /// Adds a part of a chunk to the segment in a slot.
    fn add<S: Simd>(
        &self,
        s: S,
        sweep: usize,
        state: &mut Self::State,
        slot: usize,
        chunk: &Chunk<N>,
        part: Range<usize>,
    );
    /// Between two sweeps over `n` segments.
    fn turn<S: Simd>(&self, _: S, _state: &mut Self::State, _n: usize) {}
    /// A state that knows what the first slot of another does, for a part of a later sweep.
    fn fork(&self, _of: &Self::State) -> Result<Self::State> {
        self.start(1)
    }
    /// Adds what the part of one segment found in a sweep, to the first slot.
    fn merge(&self, sweep: usize, into: &mut Self::State, later: Self::State);
    fn finish<S: Simd>(&self, s: S, segments: Range<usize>, state: &mut Self::State);
    #[inline(always)]
    fn apply<S: Simd>(&self, _: S, _state: &mut Self::State, _: &Chunk<N>) {}
    fn left<S: Simd>(&self, s: S, state: Self::State) -> Self::Left;
}

/// Folds every segment, each on one thread but for the parts of large ones; what tasks leave, in order.
pub fn each<G: Segments, F: Fold<G::Numbers>>(of: &G, fold: &F) -> Result<Vec<F::Left>> {
    let lists = of.lists();
    let (tasks, work) = (lists.tasks()?, lists.work());
    let mut left = pool::map(tasks.len(), work, |b| {
        let state = fold.start(lists.slots())?;
        Ok(dispatch(Task { of, fold, segments: tasks[b].clone(), state }))
    })?
    .into_iter()
    .collect::<Result<Vec<_>>>()?;
    for i in (0..lists.len()).filter(|&i| lists.large(i)) {
        let (first, end) = (lists.ptr[i], lists.ptr[i + 1]);
        let mut total = fold.start(1)?;
        for sweep in 0..fold.sweeps() {
            if sweep > 0 {
                dispatch(Turn::<G::Numbers, F>(fold, &mut total));
            }
            let known = &total;
            let parts = pool::map((end - first).div_ceil(PART), work, |b| {
                let mut state = if sweep == 0 { fold.start(1)? } else { fold.fork(known)? };
                let from = first + b * PART;
                let entries = from..end.min(from + PART);
                dispatch(Part { of, fold, segment: i, sweep, entries, state: &mut state });
                Ok(state)
            })?;
            for part in parts {
                fold.merge(sweep, &mut total, part?);
            }
        }
        left.push(dispatch(Finish::<G::Numbers, F> { fold, segment: i, state: total }));
    }
    Ok(left)
}

/// The segments of a task that are not large.
struct Task<'a, G, F, State> {
    of: &'a G,
    fold: &'a F,
    segments: Range<usize>,
    state: State,
}

impl<G: Segments, F: Fold<G::Numbers>> Kernel for Task<'_, G, F, F::State> {
    type Output = F::Left;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> F::Left {
        let Task { of, fold, segments, mut state } = self;
        let (lists, mut chunk) = (of.lists(), Chunk::new(of.numbers()));
        let mut first = segments.start;
        while first < segments.end {
            let batch = lists.batch(first, segments.end);
            first = batch.end;
            if lists.large(batch.start) {
                continue;
            }
            let entries = lists.ptr[batch.start]..lists.ptr[batch.end];
            fold.clear(&mut state, batch.len());
            for sweep in 0..fold.sweeps() {
                if sweep > 0 {
                    fold.turn(s, &mut state, batch.len());
                }
                add(s, of, fold, batch.clone(), entries.clone(), sweep, &mut state, &mut chunk);
            }
            fold.finish(s, batch.clone(), &mut state);
            if fold.applies() {
                for at in entries.clone().step_by(lists.chunk()) {
                    let end = entries.end.min(at + lists.chunk());
                    chunk.take(s, of, at..end, batch.start, batch.start);
                    fold.apply(s, &mut state, &chunk);
                }
            }
        }
        fold.left(s, state)
    }
}

/// Adds entries to their segments, chunk by chunk.
#[inline(always)]
fn add<S: Simd, G: Segments, F: Fold<G::Numbers>>(
    s: S,
    of: &G,
    fold: &F,
    segments: Range<usize>,
    entries: Range<usize>,
    sweep: usize,
    state: &mut F::State,
    chunk: &mut Chunk<G::Numbers>,
) {
    let (lists, base) = (of.lists(), segments.start);
    for first in entries.clone().step_by(lists.chunk()) {
        let end = entries.end.min(first + lists.chunk());
        chunk.take(s, of, first..end, base, base);
        for i in segments.clone() {
            let (from, to) = (lists.ptr[i].max(first), lists.ptr[i + 1].min(end));
            if from < to {
                fold.add(s, sweep, state, i - base, chunk, from - first..to - first);
            }
        }
    }
}

/// A part of a large segment, in one sweep; what the others found comes first.
struct Part<'a, G, F, State> {
    of: &'a G,
    fold: &'a F,
    segment: usize,
    sweep: usize,
    entries: Range<usize>,
    state: &'a mut State,
}

impl<G: Segments, F: Fold<G::Numbers>> Kernel for Part<'_, G, F, F::State> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Part { of, fold, segment, sweep, entries, state } = self;
        let mut chunk = Chunk::new(of.numbers());
        add(s, of, fold, segment..segment + 1, entries, sweep, state, &mut chunk);
    }
}

/// Between two sweeps over a large segment.
struct Turn<'a, N, F: Fold<N>>(&'a F, &'a mut F::State);
impl<N, F: Fold<N>> Kernel for Turn<'_, N, F> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.0.turn(s, self.1, 1);
    }
}

/// A large segment whose entries were all met.
struct Finish<'a, N, F: Fold<N>> {
    fold: &'a F,
    segment: usize,
    state: F::State,
}
impl<N, F: Fold<N>> Kernel for Finish<'_, N, F> {
    type Output = F::Left;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> F::Left {
        let Finish { fold, segment, mut state } = self;
        fold.finish(s, segment..segment + 1, &mut state);
        fold.left(s, state)
    }
}

/// What segments send to their rows.
pub trait Spread<N>: Sync {
    /// What a task keeps: a row of several entries, say, until the last of them.
    type Kept: Send;
    type Left: Send;
    fn start(&self) -> Result<Self::Kept>;
    /// Rows that no entry may name.
    fn clear(&self, rows: Range<usize>);
    /// Entries of rows that are the task's alone; segments count from 0.
    fn apply<S: Simd>(&self, s: S, kept: &mut Self::Kept, chunk: &Chunk<N>);
    fn left<S: Simd>(&self, s: S, kept: Self::Kept) -> Self::Left;
}

/// Meets every entry once, row by row and a row's in the order of the segments; what tasks leave, in order.
pub fn spread<G: Segments, F: Spread<G::Numbers>>(of: &G, turned: Option<&Turned>, spread: &F) -> Result<Vec<F::Left>> {
    let (block, all) = (of.lists().block(), of.lists().rows());
    let work = of.lists().entries().max(all).saturating_mul(of.lists().width());
    pool::map(all.div_ceil(block), work, |b| {
        let rows = b * block..all.min((b + 1) * block);
        Ok(dispatch(Rows { of, turned, spread, rows, kept: spread.start()? }))
    })?
    .into_iter()
    .collect()
}

struct Rows<'a, G, F, Kept> {
    of: &'a G,
    turned: Option<&'a Turned>,
    spread: &'a F,
    rows: Range<usize>,
    kept: Kept,
}

impl<G: Segments, F: Spread<G::Numbers>> Kernel for Rows<'_, G, F, F::Kept> {
    type Output = F::Left;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> F::Left {
        let Rows { of, turned, spread, rows, mut kept } = self;
        let (lists, mut chunk) = (of.lists(), Chunk::new(of.numbers()));
        let entries = if let Some(turned) = turned {
            spread.clear(rows.clone());
            turned.ptr[rows.start]..turned.ptr[rows.end]
        } else {
            rows
        };
        for at in entries.clone().step_by(lists.chunk()) {
            let part = at..entries.end.min(at + lists.chunk());
            if let Some(turned) = turned {
                chunk.take_turned(s, of, part, turned);
            } else {
                let first = lists.ptr.partition_point(|&p| p <= at) - 1;
                chunk.take(s, of, part, first, 0);
            }
            spread.apply(s, &mut kept, &chunk);
        }
        spread.left(s, kept)
    }
}

#[cfg(test)]
mod by_place;
#[cfg(test)]
mod tests;
