//! Sparse times dense that lies by rows, `y[r] = A x[r] + b`: activations as they come. The one rule: a sum is that of
//! [`super::spmm`], made by its kernel; what is turned are tiles, x on the way in and y on the way out.
//!
//! As many rows of x as fill the registers become a panel of columns in the L2 cache, and stay there for a run of rows of A.
//! Some rows of A make a tile of sums in the L1 cache, whose squares are turned in registers and stored.

use super::product::scratch;
use super::spmm::{Panel, Real, Start};
use super::{Index, Pattern, raced, sized};
use base::lane::{Lane, load, store, transpose};
use base::pool::{self, Shared};
use base::simd::*;
use base::vector::Isa;
use base::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of a panel that should not be passed while it is more than one vector wide.
const PANEL: usize = 512 * 1024;
/// Bytes of a tile of sums.
const TILE: usize = 16 * 1024;
/// Multiply-adds in one task, about: a call can be stopped between tasks.
const TASK: usize = 1 << 28;

/// What is done to a piece of a row of y once its sums are whole.
pub type Finish<'a, T> = Option<&'a (dyn Fn(&mut [T]) + Sync)>;

/// `y[r] = finish(clamp(A x[r] + bias))` for every `r < n`: x is `[n, cols]`, y `[n, rows]`. Columns are taken as they come.
pub fn linear<T: Real + Lane, I: Index>(
    a: &Pattern<I>,
    data: &[T],
    x: &[T],
    n: usize,
    bias: Option<&[T]>,
    clamp: Option<[T; 2]>,
    finish: Finish<T>,
    y: &mut [T],
) -> Result<()> {
    let (rows, cols) = (a.rows(), a.cols());
    sized(&[
        ("data", data.len(), Some(a.entries())),
        ("x", x.len(), cols.checked_mul(n)),
        ("y", y.len(), rows.checked_mul(n)),
        ("bias", bias.map_or(rows, <[T]>::len), Some(rows)),
    ])?;
    if y.is_empty() {
        return Ok(());
    }
    let isa = Isa::current();
    // squares are turned whole, so a panel is so many of them wide
    let (lanes, most) = (T::LANES, T::shape(isa).0 * T::shape(isa).1 / T::LANES);
    let most = (PANEL / (cols * lanes * size_of::<T>()).max(1)).clamp(1, most);
    let vectors = n.div_ceil(lanes);
    let panels = vectors.div_ceil(most);
    // a panel as wide as the widest, so that all tiles are alike
    let width = vectors.div_ceil(panels) * lanes;
    let first = |panel: usize| (panel * vectors / panels * lanes).min(n);
    let height = (TILE / (width * size_of::<T>())).next_multiple_of(T::LANES);
    let parts = if pool::threads() == 1 { 1 } else { (4 * pool::threads()).div_ceil(panels) };
    // each run of rows of A turns the panel again
    let parts = parts.min(a.entries() / cols.max(1) / 16).max(a.entries().saturating_mul(width) / TASK).clamp(1, rows);
    let runs = a.parts(parts);
    let (out, failed, short) = (Shared(y.as_mut_ptr()), AtomicBool::new(false), AtomicBool::new(false));
    let work = (a.entries() + rows + cols).saturating_mul(n);
    pool::run(panels * parts, work, |task| {
        let (run, at) = (runs(task % parts), task / parts);
        let mine = first(at)..first(at + 1);
        let tile = height * width;
        let made = scratch((cols + height) * width, |room: *mut T| {
            // SAFETY: that much room is there, and nobody else's while this runs.
            let (sums, panel) = unsafe {
                (
                    std::slice::from_raw_parts_mut(room, tile),
                    std::slice::from_raw_parts_mut(room.add(tile), cols * width),
                )
            };
            let x = &x[mine.start * cols..mine.end * cols];
            dispatch(Turn { from: x, ld: cols, rows: mine.len(), to: panel, width });
            for first in run.clone().step_by(height) {
                let some = first..run.end.min(first + height);
                let p = Panel {
                    data,
                    indices: a.indices,
                    from: &a.ptr[some.clone()],
                    to: &a.ptr[some.start + 1..=some.end],
                    first: 0,
                    count: cols,
                    x: panel.as_ptr(),
                    ldx: width,
                    y: sums.as_mut_ptr(),
                    ldy: width,
                    width,
                    start: bias.map_or(Start::Zero, |bias| Start::Bias(&bias[some.clone()])),
                    clamp,
                };
                // SAFETY: the panel has `cols` rows of `width` columns, `sums` room for `height` of them; `ptr` are the offsets
                // checked by `Pattern`; a bias has `rows` numbers; `width` is a number of vectors that `isa` has room for.
                if !unsafe { T::panel(isa, &p) } {
                    failed.store(true, Ordering::Relaxed);
                    return;
                }
                dispatch(Back { sums, width, some, mine: mine.clone(), out, ld: rows, finish });
            }
        });
        if made.is_none() {
            short.store(true, Ordering::Relaxed);
        }
    })?;
    match (failed.into_inner(), short.into_inner()) {
        (true, _) => Err(raced()),
        (_, true) => Err(Error::Memory((cols + height) * width * size_of::<T>())),
        _ => Ok(()),
    }
}

/// x turned, `[n, cols]` to `[cols, n]`.
pub fn turned<T: Real + Lane>(x: &[T], [n, cols]: [usize; 2]) -> Result<Vec<T>> {
    let mut y = base::try_vec(x.len(), T::default())?;
    if y.is_empty() {
        return Ok(y);
    }
    let out = Shared(y.as_mut_ptr());
    pool::run(cols.div_ceil(BAND), x.len(), |b| {
        let band = b * BAND..cols.min((b + 1) * BAND);
        dispatch(Back { sums: &x[band.start..], width: cols, some: 0..n, mine: band, out, ld: n, finish: None });
    })?;
    Ok(y)
}

/// Columns of one task of [`turned`].
const BAND: usize = 64;

/// Up to `LANES` rows of up to `LANES` elements, turned; zeros where there are none.
#[inline(always)]
fn square<'a, S: Simd, T: Lane>(s: S, rows: usize, row: impl Fn(usize) -> &'a [T]) -> [T::V<S>; 16] {
    let mut v = [T::V::<S>::splat(s, T::default()); 16];
    for (r, v) in v.iter_mut().enumerate().take(rows.min(T::LANES)) {
        let row = row(r);
        *v = if row.len() == T::LANES {
            load::<S, T>(s, row)
        } else {
            let mut whole = [T::default(); 16];
            whole[..row.len()].copy_from_slice(row);
            load::<S, T>(s, &whole)
        };
    }
    transpose::<S, T>(&mut v);
    v
}

/// Rows of x become the columns of a panel, as many as it is wide: zeros in those that are none.
struct Turn<'a, T> {
    from: &'a [T],
    ld: usize,
    rows: usize,
    to: &'a mut [T],
    width: usize,
}

impl<T: Lane> Kernel for Turn<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (k, to) in (0..self.ld).step_by(T::LANES).zip(self.to.chunks_mut(T::LANES * self.width)) {
            let columns = T::LANES.min(self.ld - k);
            for r in (0..self.width).step_by(T::LANES) {
                let v =
                    square::<S, T>(s, self.rows.saturating_sub(r), |i| &self.from[(r + i) * self.ld + k..][..columns]);
                for (v, to) in v.into_iter().zip(to.chunks_exact_mut(self.width)) {
                    store::<S, T>(v, &mut to[r..]);
                }
            }
        }
    }
}

/// Rows of sums, `width` apart, whose first elements belong to the rows `mine` of y, become the columns `some` of these.
struct Back<'a, T> {
    sums: &'a [T],
    width: usize,
    some: std::ops::Range<usize>,
    mine: std::ops::Range<usize>,
    out: Shared<T>,
    ld: usize,
    finish: Finish<'a, T>,
}

impl<T: Lane> Kernel for Back<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let whole = self.some.len();
        for r in (0..self.mine.len()).step_by(T::LANES) {
            let rows = T::LANES.min(self.mine.len() - r);
            for i in (0..whole).step_by(T::LANES) {
                let columns = T::LANES.min(whole - i);
                let v = square::<S, T>(s, columns, |t| {
                    let row = &self.sums[(i + t) * self.width + r..];
                    &row[..row.len().min(T::LANES)]
                });
                for (t, v) in v.into_iter().enumerate().take(rows) {
                    let at = (self.mine.start + r + t) * self.ld + self.some.start + i;
                    // SAFETY: these columns of these rows of y are the caller's alone.
                    let to = unsafe { self.out.part(at, columns) };
                    if columns == T::LANES {
                        store::<S, T>(v, to);
                    } else {
                        let mut held = [T::default(); 16];
                        store::<S, T>(v, &mut held);
                        to.copy_from_slice(&held[..columns]);
                    }
                }
            }
        }
        if let Some(finish) = self.finish {
            for r in self.mine {
                // SAFETY: as above.
                finish(unsafe { self.out.part(r * self.ld + self.some.start, whole) });
            }
        }
    }
}
