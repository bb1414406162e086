//! Rows decided one number after another, each seeing what became of those before it: x_k = w_k + Σ_{j<k} (w_j − y_j) M_jk, and
//! y_k is what the functor makes of x_k. The one rule: a sum is one chain of multiply-adds, ascending in j, so that a row comes
//! out the same whatever rows it is decided with.
//!
//! Rows lie across the lanes of a vector. Columns are decided in strips: what the columns before a strip send to it is a
//! product of panels in registers, what its own columns send to each other follows as they are decided. So M is read once for
//! some hundred rows, and nearly all of the work is that product, which goes as fast as multiply-adds do.

#[cfg(test)]
mod tests;

use base::lane::{Lane, Stored, load, store};
use base::pool::{self, Shared};
use base::simd::{Kernel, Simd, SimdBase, SimdFloat, dispatch};
use base::store::Store;
use base::{Error, Result, Tensor, try_vec};

/// Columns decided before the rest hears of them: some tiles, whose sums stay in registers.
const STRIP: usize = 96;
/// Columns that send to a strip in one go: what they send and a tile's panel lie in the first cache.
const DEPTH: usize = 192;
/// Vectors of rows that share a panel of M, at most, and blocks there should be.
const GROUPS: usize = 16;
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
            // an even number: rows that are none are decided too, and told nobody
            sent: try_vec(groups.next_multiple_of(2) * n * lanes, zero)?,
            sums: try_vec(groups.next_multiple_of(2) * STRIP * lanes, zero)?,
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
    /// [groups, STRIP, lanes]: what the columns before the strip sent to it, then its codes.
    sums: Vec<T::Lane>,
    /// [tiles, columns that send, columns of a tile]
    panels: Vec<T::Lane>,
}

impl<T: Stored, D: Decide<T::Lane>> Kernel for Block<'_, T, D> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // a vector of rows in one register, of which there are 32, or in two or four of 16
        if const { <S::f32s as SimdBase<S>>::N == LANES } {
            self.walk::<S, 2, 12>(s);
        } else {
            self.walk::<S, 1, 6>(s);
        }
    }
}

impl<T: Stored, D: Decide<T::Lane>> Block<'_, T, D> {
    /// Strip after strip, `G` vectors of rows by `C` columns in registers.
    #[inline(always)]
    fn walk<S: Simd, const G: usize, const C: usize>(mut self, s: S) {
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
                self.pack::<C>(deep, end, from, to);
                for group in (0..self.with.len()).step_by(G) {
                    self.send::<S, G, C>(s, group, deep, end, to - from);
                }
            }
            self.pack::<C>(from, to, from, to);
            for group in (0..self.with.len()).step_by(G) {
                self.strip::<S, G, C>(s, group, from, to);
            }
            self.tell(from, to);
        }
    }

    /// M's rows `deep..end`, columns `from..to`, tile by tile.
    #[inline(always)]
    fn pack<const C: usize>(&mut self, deep: usize, end: usize, from: usize, to: usize) {
        let (n, high) = (self.factor.order.len(), end - deep);
        for j in deep..end {
            let row = &self.factor.ldl[j * n + from..j * n + to];
            let (tiles, rest) = row.as_chunks::<C>();
            let mut at = (j - deep) * C;
            for tile in tiles {
                *self.panels[at..].first_chunk_mut::<C>().expect("a tile") = *tile;
                at += high * C;
            }
            if !rest.is_empty() {
                self.panels[at..][..C].fill(T::Lane::of(0.0));
                self.panels[at..][..rest.len()].copy_from_slice(rest);
            }
        }
    }

    /// What columns `deep..end` send to a strip of `wide` columns.
    #[inline(always)]
    fn send<S: Simd, const G: usize, const C: usize>(
        &mut self,
        s: S,
        group: usize,
        deep: usize,
        end: usize,
        wide: usize,
    ) {
        let (n, lanes) = (self.factor.order.len(), T::Lane::LANES);
        let sent: [&[T::Lane]; G] =
            std::array::from_fn(|g| &self.sent[((group + g) * n + deep) * lanes..][..(end - deep) * lanes]);
        for (tile, panel) in self.panels.chunks_exact((end - deep) * C).take(wide.div_ceil(C)).enumerate() {
            let mut sums: [_; G] = std::array::from_fn(
                #[inline(always)]
                |g| taken::<S, T::Lane, C>(s, &self.sums[((group + g) * STRIP + tile * C) * lanes..]),
            );
            add::<S, T::Lane, G, C>(s, &mut sums, sent, panel);
            for g in 0..G {
                let at = &mut self.sums[((group + g) * STRIP + tile * C) * lanes..];
                for (at, sum) in at.chunks_exact_mut(lanes).zip(sums[g]) {
                    store::<S, T::Lane>(sum, at);
                }
            }
        }
    }

    /// Decides columns `from..to` of some groups of rows.
    #[inline(always)]
    fn strip<S: Simd, const G: usize, const C: usize>(&mut self, s: S, group: usize, from: usize, to: usize) {
        let (n, lanes) = (self.factor.order.len(), T::Lane::LANES);
        let (zero, damp) = (T::Lane::of(0.0), self.factor.damp);
        let mut errors = [[0.0; LANES]; G];
        for (t, at) in (from..to).step_by(C).enumerate() {
            let panel = &self.panels[t * (to - from) * C..][..(to - from) * C];
            let before = at - from;
            let mut sums: [_; G] = std::array::from_fn(
                #[inline(always)]
                |g| taken::<S, T::Lane, C>(s, &self.sums[((group + g) * STRIP + before) * lanes..]),
            );
            let done: [&[T::Lane]; G] =
                std::array::from_fn(|g| &self.sent[((group + g) * n + from) * lanes..][..before * lanes]);
            add::<S, T::Lane, G, C>(s, &mut sums, done, &panel[..before * C]);
            for j in 0..C.min(to - at) {
                let k = self.factor.order[at + j];
                let weight = self.factor.ldl[(at + j) * (n + 1)].to_f64();
                let m = &panel[(before + j) * C..][..C];
                for g in 0..G {
                    let own = &mut self.sent[((group + g) * n + at + j) * lanes..][..lanes];
                    let w = load::<S, T::Lane>(s, own);
                    let x = w + sums[g][j];
                    let [y, code] = self.d.decide(s, &self.with[(group + g).min(self.with.len() - 1)], k, x);
                    let e = w - y;
                    store::<S, T::Lane>(e, own);
                    store::<S, T::Lane>(code, &mut self.sums[((group + g) * STRIP + before + j) * lanes..]);
                    for i in j + 1..C {
                        sums[g][i] = e.mul_add(<T::Lane as Lane>::V::<S>::splat(s, m[i]), sums[g][i]);
                    }
                    let (mut r, mut moved) = ([zero; LANES], [zero; LANES]);
                    store::<S, T::Lane>(x - y, &mut r);
                    store::<S, T::Lane>(e, &mut moved);
                    for lane in 0..T::Lane::LANES {
                        let (r, e) = (r[lane].to_f64(), moved[lane].to_f64());
                        errors[g][lane] += r * r * weight - e * e * damp;
                    }
                }
            }
        }
        for (g, errors) in errors.iter().enumerate() {
            let first = ((group + g) * lanes).min(self.errors.len());
            for (error, more) in self.errors[first..].iter_mut().zip(&errors[..lanes]) {
                *error += more;
            }
        }
    }

    /// The codes of a strip, row after row.
    #[inline(always)]
    fn tell(&mut self, from: usize, to: usize) {
        let (n, lanes) = (self.factor.order.len(), T::Lane::LANES);
        for (row, codes) in self.codes.chunks_exact_mut(n).enumerate() {
            let decided = &self.sums[row / lanes * STRIP * lanes..][..(to - from) * lanes];
            for (&k, decided) in self.factor.order[from..to].iter().zip(decided.chunks_exact(lanes)) {
                codes[k] = decided[row % lanes].to_f32() as i32 as u8;
            }
        }
    }
}

/// Vectors at the head of a slice.
#[inline(always)]
fn taken<S: Simd, L: Lane, const C: usize>(s: S, x: &[L]) -> [L::V<S>; C] {
    std::array::from_fn(
        #[inline(always)]
        |i| load::<S, L>(s, &x[i * L::LANES..]),
    )
}

/// Adds what the columns of `sent` send to the sums of a tile.
#[inline(always)]
fn add<S: Simd, L: Lane, const G: usize, const C: usize>(
    s: S,
    sums: &mut [[L::V<S>; C]; G],
    sent: [&[L]; G],
    panel: &[L],
) {
    let mut tile = *sums;
    for (j, m) in panel.as_chunks::<C>().0.iter().enumerate() {
        let e: [L::V<S>; G] = std::array::from_fn(
            #[inline(always)]
            |g| load::<S, L>(s, &sent[g][j * L::LANES..]),
        );
        for i in 0..C {
            let m = L::V::<S>::splat(s, m[i]);
            for g in 0..G {
                tile[g][i] = e[g].mul_add(m, tile[g][i]);
            }
        }
    }
    *sums = tile;
}
