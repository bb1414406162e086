//! What becomes of the scores of a row. The one rule: only live pairs count.

mod nearest;
mod sums;

use super::STRIP;
use super::extent::{All, Extent};
use super::pack::PANEL;
use super::score::Score;
use base::pool::Shared;
use base::simd::*;
use base::store::Store;
use base::{Error, Result};
pub use nearest::{ArgMin, TopK};
use std::marker::PhantomData;
use std::ops::Range;
pub use sums::LogSumExp;

/// A reducer over the columns. Columns come in order, a strip at a time; states of later columns are merged in order.
pub trait Reduce: Sync {
    /// What a row remembers.
    type State: Send;
    /// The memory of a state beyond itself, for `m` columns.
    fn bytes(&self, _m: usize) -> usize {
        size_of::<Self::State>()
    }
    fn start(&self, m: usize) -> Result<Self::State>;
    /// Takes in the keys of columns `cols` of `row` of which bit j of `live` says whether column `cols.start + j` counts; there are
    /// 64 keys, numbers of no meaning past the end.
    #[inline(always)]
    fn update<S: Simd, Sc: Score>(
        &self,
        _: S,
        _: &Sc,
        _state: &mut Self::State,
        _row: usize,
        _cols: Range<usize>,
        _live: u64,
        _keys: &[f64],
    ) {
    }
    /// Keys that are not below this change nothing.
    #[inline(always)]
    fn limit(&self, _state: &Self::State) -> f64 {
        f64::INFINITY
    }
    /// Whether [`Reduce::block`] takes the rows of a block together, in place of [`Reduce::update`] one by one.
    const BLOCKED: bool = false;
    /// As `update`, for rows `rows`; `keys` has 64 for each, and may be used as room.
    #[inline(always)]
    fn block<S: Simd, Sc: Score>(
        &self,
        s: S,
        score: &Sc,
        states: &mut [Self::State],
        rows: Range<usize>,
        cols: Range<usize>,
        live: &[u64],
        keys: &mut [f64],
    ) {
        for (((row, state), &live), keys) in rows.zip(states).zip(live).zip(keys.chunks_exact(STRIP)) {
            self.update(s, score, state, row, cols.clone(), live, keys);
        }
    }
    fn merge(&self, into: &mut Self::State, later: Self::State);
    fn finish<S: Simd, Sc: Score>(&self, s: S, score: &Sc, row: usize, state: Self::State);
}

/// An output with a row of `width` elements for every row of x.
#[derive(Clone, Copy)]
struct Rows<'a, T> {
    data: Shared<T>,
    width: usize,
    life: PhantomData<&'a mut [T]>,
}
impl<'a, T> Rows<'a, T> {
    fn new(out: &'a mut [T], width: usize) -> Self {
        Rows { data: Shared(out.as_mut_ptr()), width, life: PhantomData }
    }
    /// # Safety
    /// Row `row` exists, and nobody else uses these columns of it.
    #[allow(clippy::mut_from_ref)]
    unsafe fn part(&self, row: usize, cols: Range<usize>) -> &mut [T] {
        // SAFETY: promised by the caller.
        unsafe { self.data.part(row * self.width + cols.start, cols.len()) }
    }
}

/// The lanes of eight columns that do not count.
#[inline(always)]
pub fn dead<S: Simd>(s: S, live: u64, at: usize) -> mask64x8<S> {
    let lanes: u64x8<S> = [1, 2, 4, 8, 16, 32, 64, 128].simd_into(s);
    (u64x8::splat(s, live >> at) & lanes).simd_eq(u64x8::splat(s, 0))
}

/// Makes the keys 0 that do not count.
#[inline(always)]
pub fn clear(keys: &mut [f64], live: u64) {
    if live != u64::MAX {
        for (j, key) in keys.iter_mut().enumerate() {
            if live >> j & 1 == 0 {
                *key = 0.0;
            }
        }
    }
}

/// Whether values of this type need no more than f32's precision.
const fn single<T>() -> bool {
    size_of::<T>() < 8
}

fn rows_of(len: usize, width: usize, n: usize) -> Result<()> {
    if n.checked_mul(width) == Some(len) {
        return Ok(());
    }
    Err(Error::Value(format!("an output of {len} elements is not {n} rows of {width}")))
}

/// Every score, as the distance matrix `[n, m]`; what is not live is left as it is.
pub struct Write<'a, T> {
    out: Rows<'a, T>,
}
impl<'a, T: Store> Write<'a, T> {
    pub fn new(n: usize, m: usize, out: &'a mut [T]) -> Result<Self> {
        rows_of(out.len(), m, n)?;
        Ok(Write { out: Rows::new(out, m) })
    }
}
impl<T: Store> Reduce for Write<'_, T> {
    type State = ();
    fn start(&self, _: usize) -> Result<()> {
        Ok(())
    }
    #[inline(always)]
    fn update<S: Simd, Sc: Score>(
        &self,
        s: S,
        score: &Sc,
        (): &mut (),
        row: usize,
        cols: Range<usize>,
        live: u64,
        keys: &[f64],
    ) {
        // SAFETY: the driver shows each row and column once.
        let out = unsafe { self.out.part(row, cols.clone()) };
        let (mut room, whole) = ([T::default(); STRIP], live == All.live(row, cols));
        let into = if whole { &mut *out } else { &mut room[..out.len()] };
        for (keys, out) in keys.chunks_exact(2 * PANEL).zip(into.chunks_mut(2 * PANEL)) {
            let mut v = f64::load16(s, keys);
            for v in &mut v {
                *v = score.value(s, *v, single::<T>());
            }
            if out.len() == 2 * PANEL { T::store16(s, v, out) } else { T::store_tail(s, v, out) }
        }
        for j in (0..if whole { 0 } else { out.len() }).filter(|j| live >> j & 1 == 1) {
            out[j] = room[j];
        }
    }
    fn merge(&self, (): &mut (), (): ()) {}
    #[inline(always)]
    fn finish<S: Simd, Sc: Score>(&self, _: S, _: &Sc, _: usize, (): ()) {}
}

/// The score of one column for each row, live or not, of those that the walk meets; NaN where it meets none.
pub struct Pick<'a, T, F> {
    column: F,
    out: Rows<'a, T>,
}
impl<'a, T: Store, F: Fn(usize) -> usize + Sync> Pick<'a, T, F> {
    pub fn new(n: usize, column: F, out: &'a mut [T]) -> Result<Self> {
        rows_of(out.len(), 1, n)?;
        Ok(Pick { column, out: Rows::new(out, 1) })
    }
}
impl<T: Store, F: Fn(usize) -> usize + Sync> Reduce for Pick<'_, T, F> {
    type State = Option<f64>;
    fn start(&self, _: usize) -> Result<Self::State> {
        Ok(None)
    }
    #[inline(always)]
    fn update<S: Simd, Sc: Score>(
        &self,
        _: S,
        _: &Sc,
        state: &mut Self::State,
        row: usize,
        cols: Range<usize>,
        _: u64,
        keys: &[f64],
    ) {
        let column = (self.column)(row);
        if cols.contains(&column) {
            *state = Some(keys[column - cols.start]);
        }
    }
    fn merge(&self, into: &mut Self::State, later: Self::State) {
        *into = into.or(later);
    }
    #[inline(always)]
    fn finish<S: Simd, Sc: Score>(&self, s: S, score: &Sc, row: usize, state: Self::State) {
        // SAFETY: the driver finishes each row once.
        let out = unsafe { self.out.part(row, 0..1) };
        let key = f64x8::splat(s, state.unwrap_or(f64::NAN));
        out[0] = T::from_f64(score.value(s, key, single::<T>())[0]);
    }
}

/// Two reducers over one walk.
impl<A: Reduce, B: Reduce> Reduce for (A, B) {
    type State = (A::State, B::State);
    fn bytes(&self, m: usize) -> usize {
        self.0.bytes(m) + self.1.bytes(m)
    }
    fn start(&self, m: usize) -> Result<Self::State> {
        Ok((self.0.start(m)?, self.1.start(m)?))
    }
    #[inline(always)]
    fn update<S: Simd, Sc: Score>(
        &self,
        s: S,
        score: &Sc,
        state: &mut Self::State,
        row: usize,
        cols: Range<usize>,
        live: u64,
        keys: &[f64],
    ) {
        self.0.update(s, score, &mut state.0, row, cols.clone(), live, keys);
        self.1.update(s, score, &mut state.1, row, cols, live, keys);
    }
    const BLOCKED: bool = {
        assert!(!A::BLOCKED && !B::BLOCKED, "reducers that take blocks stand alone");
        false
    };
    fn merge(&self, into: &mut Self::State, later: Self::State) {
        self.0.merge(&mut into.0, later.0);
        self.1.merge(&mut into.1, later.1);
    }
    #[inline(always)]
    fn finish<S: Simd, Sc: Score>(&self, s: S, score: &Sc, row: usize, state: Self::State) {
        self.0.finish(s, score, row, state.0);
        self.1.finish(s, score, row, state.1);
    }
}
