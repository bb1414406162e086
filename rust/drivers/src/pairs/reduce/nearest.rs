//! The nearest columns of a row, by the least or greatest scores. The one rule: of equal ones the lowest column is nearer, and NaN
//! never is.

use super::super::pack::PANEL;
use super::super::score::Score;
use super::{Reduce, Rows, rows_of, single};
use base::simd::*;
use base::store::Store;
use base::{Error, Result};
use std::ops::Range;

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
