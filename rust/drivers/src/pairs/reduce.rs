//! What becomes of the scores of a row. The one rule: only live pairs count; of equal scores the one of the lowest column is
//! chosen, and NaN never is.

use super::STRIP;
use super::extent::{All, Extent};
use super::pack::PANEL;
use super::score::Score;
use base::math;
use base::pool::Shared;
use base::simd::*;
use base::store::Store;
use base::{Error, Result};
use std::marker::PhantomData;
use std::ops::Range;

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

/// The column of the least (or greatest) score, −1 where there is none, and that score.
pub struct ArgMin<'a, T> {
    sign: f64,
    ids: Rows<'a, i64>,
    values: Rows<'a, T>,
}
impl<'a, T: Store> ArgMin<'a, T> {
    pub fn new(n: usize, largest: bool, ids: &'a mut [i64], values: &'a mut [T]) -> Result<Self> {
        rows_of(ids.len(), 1, n)?;
        rows_of(values.len(), 1, n)?;
        let sign = if largest { -1.0 } else { 1.0 };
        Ok(ArgMin { sign, ids: Rows::new(ids, 1), values: Rows::new(values, 1) })
    }
}
impl<T: Store> Reduce for ArgMin<'_, T> {
    type State = Option<(f64, usize)>;
    fn start(&self, _: usize) -> Result<Self::State> {
        Ok(None)
    }
    #[inline(always)]
    fn limit(&self, state: &Self::State) -> f64 {
        state.filter(|_| self.sign > 0.0).map_or(f64::INFINITY, |(best, _)| best)
    }
    #[inline(always)]
    fn update<S: Simd, Sc: Score>(
        &self,
        s: S,
        _: &Sc,
        state: &mut Self::State,
        _: usize,
        cols: Range<usize>,
        live: u64,
        keys: &[f64],
    ) {
        for (at, keys) in (0..cols.len()).step_by(PANEL).zip(keys.chunks_exact(PANEL)) {
            let keys = f64x8::from_slice(s, keys) * self.sign;
            if state.is_some_and(|(best, _)| !keys.simd_lt(best).any_true()) {
                continue;
            }
            for (i, &key) in keys.as_slice().iter().enumerate() {
                if live >> (at + i) & 1 == 1 && state.map_or(!key.is_nan(), |(best, _)| key < best) {
                    *state = Some((key, cols.start + at + i));
                }
            }
        }
    }
    fn merge(&self, into: &mut Self::State, later: Self::State) {
        if let Some(next) = later
            && into.is_none_or(|(best, _)| next.0 < best)
        {
            *into = later;
        }
    }
    #[inline(always)]
    fn finish<S: Simd, Sc: Score>(&self, s: S, score: &Sc, row: usize, state: Self::State) {
        let (key, id) = state.map_or((f64::NAN, -1), |(key, id)| (key * self.sign, id as i64));
        // SAFETY: the driver finishes each row once.
        let (ids, values) = unsafe { (self.ids.part(row, 0..1), self.values.part(row, 0..1)) };
        ids[0] = id;
        values[0] = T::from_f64(score.value(s, f64x8::splat(s, key), single::<T>())[0]);
    }
}

/// The columns of the k least (or greatest) scores in order, and those scores; −1 and NaN where there are fewer.
pub struct TopK<'a, T> {
    k: usize,
    sign: f64,
    ids: Rows<'a, i64>,
    values: Rows<'a, T>,
}
impl<'a, T: Store> TopK<'a, T> {
    pub fn new(n: usize, k: usize, largest: bool, ids: &'a mut [i64], values: &'a mut [T]) -> Result<Self> {
        rows_of(ids.len(), k, n)?;
        rows_of(values.len(), k, n)?;
        let sign = if largest { -1.0 } else { 1.0 };
        Ok(TopK { k, sign, ids: Rows::new(ids, k), values: Rows::new(values, k) })
    }
}

/// At most k keys with their columns, the worst first: a heap.
pub struct Best(Vec<(f64, usize)>);
impl Best {
    fn worse(a: (f64, usize), b: (f64, usize)) -> bool {
        a.0 > b.0 || (a.0 == b.0 && a.1 > b.1)
    }
    /// Takes in a key, not NaN, if it is among the best k. Nothing allocates: there is room for k.
    fn offer(&mut self, k: usize, new: (f64, usize)) {
        let heap = &mut self.0;
        if heap.len() < k {
            heap.push(new);
            let mut at = heap.len() - 1;
            while at > 0 && Self::worse(heap[at], heap[(at - 1) / 2]) {
                heap.swap(at, (at - 1) / 2);
                at = (at - 1) / 2;
            }
        } else if k > 0 && Self::worse(heap[0], new) {
            heap[0] = new;
            let mut at = 0;
            loop {
                let (left, right) = (2 * at + 1, 2 * at + 2);
                let mut down = at;
                if left < k && Self::worse(heap[left], heap[down]) {
                    down = left;
                }
                if right < k && Self::worse(heap[right], heap[down]) {
                    down = right;
                }
                if down == at {
                    break;
                }
                heap.swap(at, down);
                at = down;
            }
        }
    }
}

impl<T: Store> Reduce for TopK<'_, T> {
    type State = Best;
    fn bytes(&self, m: usize) -> usize {
        size_of::<Best>() + self.k.min(m).saturating_mul(size_of::<(f64, usize)>())
    }
    fn start(&self, m: usize) -> Result<Best> {
        let mut heap = Vec::new();
        heap.try_reserve_exact(self.k.min(m)).map_err(|_| Error::Memory(self.bytes(m)))?;
        Ok(Best(heap))
    }
    #[inline(always)]
    fn limit(&self, state: &Best) -> f64 {
        match state.0.first() {
            Some(worst) if state.0.len() == self.k && self.sign > 0.0 => worst.0,
            None if self.k == 0 => f64::NEG_INFINITY,
            _ => f64::INFINITY,
        }
    }
    #[inline(always)]
    fn update<S: Simd, Sc: Score>(
        &self,
        s: S,
        _: &Sc,
        state: &mut Best,
        _: usize,
        cols: Range<usize>,
        live: u64,
        keys: &[f64],
    ) {
        for (at, keys) in (0..cols.len()).step_by(PANEL).zip(keys.chunks_exact(PANEL)) {
            let keys = f64x8::from_slice(s, keys) * self.sign;
            if state.0.len() == self.k && !state.0.first().is_some_and(|worst| keys.simd_lt(worst.0).any_true()) {
                continue;
            }
            for (i, &key) in keys.as_slice().iter().enumerate() {
                // columns come in order: an equal key is a later one and loses
                let good = if state.0.len() < self.k { !key.is_nan() } else { key < state.0[0].0 };
                if good && live >> (at + i) & 1 == 1 {
                    state.offer(self.k, (key, cols.start + at + i));
                }
            }
        }
    }
    fn merge(&self, into: &mut Best, later: Best) {
        for new in later.0 {
            into.offer(self.k, new);
        }
    }
    #[inline(always)]
    fn finish<S: Simd, Sc: Score>(&self, s: S, score: &Sc, row: usize, mut state: Best) {
        state.0.sort_unstable_by(|a, b| {
            if Best::worse(*b, *a) { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater }
        });
        // SAFETY: the driver finishes each row once.
        let (ids, values) = unsafe { (self.ids.part(row, 0..self.k), self.values.part(row, 0..self.k)) };
        ids.fill(-1);
        values.fill(T::from_f64(f64::NAN));
        for ((best, ids), values) in state.0.chunks(PANEL).zip(ids.chunks_mut(PANEL)).zip(values.chunks_mut(PANEL)) {
            let mut keys = [0.0; PANEL];
            for (i, &(key, id)) in best.iter().enumerate() {
                keys[i] = key * self.sign;
                ids[i] = id as i64;
            }
            let v = score.value(s, keys.simd_into(s), single::<T>());
            for i in 0..best.len() {
                values[i] = T::from_f64(v[i]);
            }
        }
    }
}

/// log Σ exp(scale · score) over the columns; −∞ for none.
pub struct LogSumExp<'a, T> {
    scale: f64,
    out: Rows<'a, T>,
}
impl<'a, T: Store> LogSumExp<'a, T> {
    pub fn new(n: usize, scale: f64, out: &'a mut [T]) -> Result<Self> {
        rows_of(out.len(), 1, n)?;
        Ok(LogSumExp { scale, out: Rows::new(out, 1) })
    }
}
/// The greatest term so far and the sum of e^(term − greatest).
type Sum = (f64, f64);
fn joined(a: Sum, b: Sum) -> Sum {
    let top = if a.0 > b.0 || a.0.is_nan() { a.0 } else { b.0 };
    if top.is_infinite() {
        // no terms at all, or one that outweighs every other; a NaN among them stays
        return (top, if (a.1 + b.1).is_nan() { f64::NAN } else { 1.0 });
    }
    (top, a.1 * (a.0 - top).exp() + b.1 * (b.0 - top).exp())
}
impl<T: Store> Reduce for LogSumExp<'_, T> {
    type State = Sum;
    fn start(&self, _: usize) -> Result<Sum> {
        Ok((f64::NEG_INFINITY, 0.0))
    }
    #[inline(always)]
    fn update<S: Simd, Sc: Score>(
        &self,
        s: S,
        score: &Sc,
        state: &mut Sum,
        _: usize,
        _: Range<usize>,
        live: u64,
        keys: &[f64],
    ) {
        if live == 0 {
            return;
        }
        let none = f64x8::splat(s, f64::NEG_INFINITY);
        let mut terms = [none; STRIP / PANEL];
        for (term, keys) in terms.iter_mut().zip(keys.chunks_exact(PANEL)) {
            *term = score.value(s, f64x8::from_slice(s, keys), single::<T>()) * self.scale;
        }
        if live != u64::MAX {
            for (i, term) in terms.iter_mut().enumerate() {
                *term = dead(s, live, i * PANEL).select(none, *term);
            }
        }
        let mut top = none;
        for &term in &terms {
            top = top.max(term);
        }
        let top = top.as_slice().iter().fold(f64::NEG_INFINITY, |a, &b| if b > a { b } else { a });
        let mut sum = f64x8::splat(s, 0.0);
        // with an infinite top the sum only has to tell NaN from numbers
        let from = if top.is_infinite() { 0.0 } else { top };
        for &term in &terms {
            sum += math::exp(s, term - from);
        }
        *state = joined(*state, (top, hsum(sum)));
    }
    fn merge(&self, into: &mut Sum, later: Sum) {
        *into = joined(*into, later);
    }
    #[inline(always)]
    fn finish<S: Simd, Sc: Score>(&self, _: S, _: &Sc, row: usize, (top, sum): Sum) {
        // SAFETY: the driver finishes each row once.
        let out = unsafe { self.out.part(row, 0..1) };
        out[0] = T::from_f64(if sum == 0.0 { f64::NEG_INFINITY } else { top + sum.ln() });
    }
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
