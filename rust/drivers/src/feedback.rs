//! Rows decided one number after another, each seeing what became of those before it: x_k = w_k + Σ_{j<k} (w_j − y_j) M_jk, and
//! y_k is what the functor makes of x_k. The one rule: a sum is one chain of multiply-adds, ascending in j, so that a row comes
//! out the same whatever rows it is decided with.
//!
//! Rows lie across the lanes of a vector. Columns are decided in strips: what the columns before a strip send to it is a
//! product of panels in registers, what its own columns send to each other follows as they are decided. So M is read once for
//! some hundred rows, and what was decided stays in the second cache.

#[cfg(test)]
mod tests;

use base::lane::{Lane, Stored, load, store};
use base::pool::{self, Shared};
use base::simd::{Kernel, Simd, SimdBase, SimdFloat, dispatch};
use base::store::Store;
use base::{Error, Result, Tensor, try_vec};

/// Columns of a tile, so that its sums stay in registers at every level.
const TILE: usize = 6;
/// Columns decided before the rest hears of them.
const STRIP: usize = 16 * TILE;
/// Columns that send to a strip in one go.
const DEPTH: usize = 256;
/// Vectors of rows that share a panel of M, at most, and blocks there should be.
const GROUPS: usize = 8;
const BLOCKS: usize = 16;
/// The most lanes of a vector.
const LANES: usize = 16;

/// How numbers are decided.
pub trait Decide<L: Lane>: Sync {
    /// What rows are decided with.
    type Rows: Send;
    /// Of the rows from `first` on, one a lane; lanes without a row may hold anything that divides.
    fn rows(&self, first: usize, lanes: usize) -> Result<Self::Rows>;
    /// What becomes of the numbers `x`, a row each, of column `column`: numbers, and codes as whole numbers that fit a byte.
    /// `#[inline(always)]` in every implementation.
    fn decide<S: Simd>(&self, s: S, rows: &Self::Rows, column: usize, x: L::V<S>) -> [L::V<S>; 2];
}

/// What decided numbers send to those that follow.
#[derive(Clone, Copy)]
pub struct Factor<'a, L> {
    /// [n, n]: M above the diagonal, D on it, what lies below is not read.
    pub ldl: &'a [L],
    /// The columns of the rows in the order in which they are decided, which is that of `ldl`: each once.
    pub order: &'a [usize],
    /// Subtracted from D + MᵀM's diagonal where errors are told.
    pub damp: f64,
}

/// Decides the rows of `w` [.., n] into `codes`, and tells each row's error Σ_k (x_k − y_k)² D_k − damp Σ_k (w_k − y_k)².
pub fn run<T, D>(d: &D, w: &[T], factor: Factor<T::Lane>, codes: &Tensor, errors: &mut [f64]) -> Result<()>
where
    T: Stored,
    D: Decide<T::Lane>,
{
    let (n, rows, lanes) = (factor.order.len(), errors.len(), T::Lane::LANES);
    if w.len() != rows * n || codes.len() != w.len() || factor.ldl.len() != n * n {
        return Err(Error::Value(format!(
            "{rows} rows of {n}: {} numbers, {} codes, a factor of {}",
            w.len(),
            codes.len(),
            factor.ldl.len()
        )));
    }
    let mut seen = try_vec(n, false)?;
    for &k in factor.order {
        if std::mem::replace(seen.get_mut(k).ok_or_else(|| twice(k, n))?, true) {
            return Err(twice(k, n));
        }
    }
    let groups = rows.div_ceil(lanes);
    let some = GROUPS.min(groups.div_ceil(BLOCKS)).max(1);
    if codes.dtype().size() != 1 || !codes.writable() {
        return Err(Error::Value(format!("codes are bytes to be written, got {}", codes.dtype().name())));
    }
    let (codes, errors) = (Shared(codes.as_ptr()), Shared(errors.as_mut_ptr()));
    let work = w.len().saturating_mul(n);
    let done = pool::map(groups.div_ceil(some), work, |block| {
        let first = block * some * lanes;
        let count = (rows - first).min(some * lanes);
        let groups = count.div_ceil(lanes);
        let mut with = Vec::new();
        for g in 0..groups {
            with.push(d.rows(first + g * lanes, lanes)?);
        }
        let zero = T::Lane::of(0.0);
        dispatch(Block {
            d,
            w: &w[first * n..(first + count) * n],
            factor,
            // SAFETY: the codes and the errors of this block's rows.
            codes: unsafe { codes.part(first * n, count * n) },
            // SAFETY: as above.
            errors: unsafe { errors.part(first, count) },
            with,
            sent: try_vec(groups * n * lanes, zero)?,
            sums: try_vec(groups * STRIP * lanes, zero)?,
            panels: try_vec(DEPTH.max(STRIP) * STRIP, zero)?,
        });
        Ok(())
    })?;
    done.into_iter().collect()
}

fn twice(k: usize, n: usize) -> Error {
    Error::Value(format!("order names each column of 0..{n} once, got {} out of turn", k as i64))
}

struct Block<'a, T: Stored, D: Decide<T::Lane>> {
    d: &'a D,
    w: &'a [T],
    factor: Factor<'a, T::Lane>,
    codes: &'a mut [u8],
    errors: &'a mut [f64],
    with: Vec<D::Rows>,
    /// [groups, n, lanes]: w where nothing is decided yet, w − y where it is.
    sent: Vec<T::Lane>,
    /// [groups, STRIP, lanes]: what the columns before the strip sent to it.
    sums: Vec<T::Lane>,
    /// [tiles, columns that send, TILE]
    panels: Vec<T::Lane>,
}

impl<T: Stored, D: Decide<T::Lane>> Kernel for Block<'_, T, D> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let (n, lanes) = (self.factor.order.len(), T::Lane::LANES);
        for (row, w) in self.w.chunks_exact(n.max(1)).enumerate() {
            let (group, lane) = (row / lanes, row % lanes);
            let sent = &mut self.sent[group * n * lanes..][..n * lanes];
            for (sent, &k) in sent.chunks_exact_mut(lanes).zip(self.factor.order) {
                sent[lane] = T::Lane::of(w[k].to_f64());
            }
        }
        self.errors.fill(0.0);
        for from in (0..n).step_by(STRIP) {
            let to = n.min(from + STRIP);
            self.sums.fill(T::Lane::of(0.0));
            for deep in (0..from).step_by(DEPTH) {
                let end = from.min(deep + DEPTH);
                self.pack(deep, end, from, to);
                self.send(s, deep, end, to - from);
            }
            self.pack(from, to, from, to);
            for group in 0..self.with.len() {
                self.strip(s, group, from, to);
            }
        }
    }
}

impl<T: Stored, D: Decide<T::Lane>> Block<'_, T, D> {
    /// M's rows `deep..end`, columns `from..to`, tile by tile.
    #[inline(always)]
    fn pack(&mut self, deep: usize, end: usize, from: usize, to: usize) {
        let n = self.factor.order.len();
        for (tile, panel) in (from..to).step_by(TILE).zip(self.panels.chunks_exact_mut((end - deep) * TILE)) {
            let wide = TILE.min(to - tile);
            for (j, panel) in (deep..end).zip(panel.chunks_exact_mut(TILE)) {
                panel[..wide].copy_from_slice(&self.factor.ldl[j * n + tile..][..wide]);
                panel[wide..].fill(T::Lane::of(0.0));
            }
        }
    }

    /// What columns `deep..end` send to a strip of `wide` columns.
    #[inline(always)]
    fn send<S: Simd>(&mut self, s: S, deep: usize, end: usize, wide: usize) {
        let (n, lanes) = (self.factor.order.len(), T::Lane::LANES);
        for (group, sums) in self.sums.chunks_exact_mut(STRIP * lanes).enumerate() {
            let sent = &self.sent[(group * n + deep) * lanes..(group * n + end) * lanes];
            let tiles = wide.div_ceil(TILE);
            for (sums, panel) in
                sums.chunks_exact_mut(TILE * lanes).zip(self.panels.chunks_exact((end - deep) * TILE)).take(tiles)
            {
                let sum = add::<S, T::Lane>(s, taken(s, sums), sent, panel);
                for (sums, sum) in sums.chunks_exact_mut(lanes).zip(sum) {
                    store::<S, T::Lane>(sum, sums);
                }
            }
        }
    }

    /// Decides columns `from..to` of a group of rows.
    #[inline(always)]
    fn strip<S: Simd>(&mut self, s: S, group: usize, from: usize, to: usize) {
        let (n, lanes) = (self.factor.order.len(), T::Lane::LANES);
        let sent = &mut self.sent[group * n * lanes..][..n * lanes];
        let first = group * lanes;
        let (zero, damp) = (T::Lane::of(0.0), self.factor.damp);
        let mut errors = [0.0; LANES];
        for (t, at) in (from..to).step_by(TILE).enumerate() {
            let panel = &self.panels[t * (to - from) * TILE..][..(to - from) * TILE];
            let sums = &self.sums[(group * STRIP + t * TILE) * lanes..][..TILE * lanes];
            let before = at - from;
            let (done, rest) = sent[from * lanes..].split_at_mut(before * lanes);
            let mut sum = add::<S, T::Lane>(s, taken(s, sums), done, &panel[..before * TILE]);
            for j in 0..TILE.min(to - at) {
                let (w, k) = (load::<S, T::Lane>(s, &rest[j * lanes..]), self.factor.order[at + j]);
                let x = w + sum[j];
                let [y, code] = self.d.decide(s, &self.with[group], k, x);
                let e = w - y;
                store::<S, T::Lane>(e, &mut rest[j * lanes..]);
                let m = &panel[(before + j) * TILE..][..TILE];
                for i in j + 1..TILE {
                    sum[i] = e.mul_add(<T::Lane as Lane>::V::<S>::splat(s, m[i]), sum[i]);
                }
                let weight = self.factor.ldl[(at + j) * (n + 1)].to_f64();
                let (mut r, mut moved, mut codes, mut octets) =
                    ([zero; LANES], [zero; LANES], [zero; LANES], [0; LANES]);
                store::<S, T::Lane>(x - y, &mut r);
                store::<S, T::Lane>(e, &mut moved);
                store::<S, T::Lane>(code, &mut codes);
                for lane in 0..T::Lane::LANES {
                    let (r, e) = (r[lane].to_f64(), moved[lane].to_f64());
                    errors[lane] += r * r * weight - e * e * damp;
                    octets[lane] = codes[lane].to_f32() as i32 as u8;
                }
                for (row, octet) in self.codes[first * n..].chunks_exact_mut(n).zip(&octets[..lanes]) {
                    row[k] = *octet;
                }
            }
        }
        for (error, more) in self.errors[first..].iter_mut().zip(&errors[..lanes]) {
            *error += more;
        }
    }
}

/// Vectors at the head of a slice.
#[inline(always)]
fn taken<S: Simd, L: Lane>(s: S, x: &[L]) -> [L::V<S>; TILE] {
    std::array::from_fn(
        #[inline(always)]
        |i| load::<S, L>(s, &x[i * L::LANES..]),
    )
}

/// The sums of a tile, and what the columns of `sent` send to it.
#[inline(always)]
fn add<S: Simd, L: Lane>(s: S, mut sum: [L::V<S>; TILE], sent: &[L], panel: &[L]) -> [L::V<S>; TILE] {
    for (e, m) in sent.chunks_exact(L::LANES).zip(panel.chunks_exact(TILE)) {
        let e = load::<S, L>(s, e);
        for i in 0..TILE {
            sum[i] = e.mul_add(L::V::<S>::splat(s, m[i]), sum[i]);
        }
    }
    sum
}
