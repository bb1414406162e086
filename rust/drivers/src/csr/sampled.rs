//! Dense times dense where a pattern says (SDDMM), `out[e] = sum_j a[i, j] b[k, j]` for every stored place e = (i, k).
//! The one rule: the order of a sum follows from its length alone.
//!
//! A sum is cut into chunks of [`CHUNK`] columns. Within a chunk lane l of sixteen (f64: eight) adds the products at
//! j = l, l + 16, … by fused multiply-adds, the lanes are added by halves, and what is left over follows one by one; the chunks
//! are added in order. Rows of b are taken in blocks that fit the L2 cache, up to eight entries of a row of a at once.

use super::{Index, Pattern, raced, sized};
use base::Result;
use base::pool::{self, Shared};
use base::simd::*;
use base::store::{STEP, Store};
use base::vector::Float;
use std::sync::atomic::{AtomicBool, Ordering};

/// Columns summed before a result is touched.
const CHUNK: usize = 1024;
/// Bytes of b in a block.
const BLOCK: usize = 512 * 1024;
/// Entries per row and block that make a block worth its cuts.
const PER_BLOCK: usize = 8;

/// The types of [`sddmm`]: the inner products of one row with `G` others of its length.
pub trait Dot: Float + Store {
    fn dots<S: Simd, const G: usize>(s: S, a: &[Self], b: [&[Self]; G]) -> [Self; G];
}

macro_rules! dot { ($($t:ty, $v:ident, $lanes:literal, |$sum:ident| $halves:expr);*) => { $(
    impl Dot for $t {
        #[inline(always)]
        fn dots<S: Simd, const G: usize>(s: S, a: &[$t], b: [&[$t]; G]) -> [$t; G] {
            let n = a.len();
            let whole = n / $lanes * $lanes;
            let mut b = b;
            for b in &mut b {
                *b = &b[..n];
            }
            let mut sum = [$v::splat(s, 0.0); G];
            for j in (0..whole).step_by($lanes) {
                let x = $v::from_slice(s, &a[j..j + $lanes]);
                for g in 0..G {
                    let y = $v::from_slice(s, &b[g][j..j + $lanes]);
                    if fused(s) {
                        sum[g] = x.mul_add(y, sum[g]);
                    } else {
                        let z = sum[g];
                        sum[g] = $v::from_fn(s, #[inline(always)] |l| x[l].mul_add(y[l], z[l]));
                    }
                }
            }
            let mut out = [0.0; G];
            for g in 0..G {
                let $sum = sum[g];
                out[g] = $halves;
            }
            for (out, b) in out.iter_mut().zip(b) {
                for j in whole..n {
                    *out = a[j].mul_add(b[j], *out);
                }
            }
            out
        }
    }
)* } }
dot!(f32, f32x16, 16, |v| {
    let (a, b) = v.split();
    let (a, b) = (a + b).split();
    let v = a + b;
    (v[0] + v[2]) + (v[1] + v[3])
}; f64, f64x8, 8, |v| {
    let (a, b) = v.split();
    let (a, b) = (a + b).split();
    let v = a + b;
    v[0] + v[1]
});

/// Entries taken at once: their sums do not wait for each other.
const SIDE: usize = 8;

macro_rules! by_count {
    ($self:ident, $s:ident, $a:ident, $e:ident, $n:ident, $($count:literal)*) => {
        match $n {
            $($count => $self.group::<S, $count>($s, $a, $e),)*
            _ => false,
        }
    };
}

/// The entries of some rows of the pattern within one block of rows of b and one chunk of columns.
struct Piece<'a, T, I> {
    a: &'a [T],
    b: &'a [T],
    d: usize,
    /// The chunk, and the rows of b.
    columns: std::ops::Range<usize>,
    block: std::ops::Range<usize>,
    rows: std::ops::Range<usize>,
    indices: &'a [I],
    from: &'a [usize],
    to: &'a [usize],
    /// Whether results are set rather than added to.
    fresh: bool,
    out: Shared<T>,
}

impl<T: Dot, I: Index> Kernel for &Piece<'_, T, I> {
    type Output = bool;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> bool {
        for i in self.rows.clone() {
            let a = &self.a[i * self.d..][self.columns.clone()];
            let (mut e, to) = (self.from[i], self.to[i]);
            while e < to {
                // as few groups as can be, about equally large
                let n = (to - e).div_ceil((to - e).div_ceil(SIDE));
                if !by_count!(self, s, a, e, n, 1 2 3 4 5 6 7 8) {
                    return false;
                }
                e += n;
            }
        }
        true
    }
}

impl<T: Dot, I: Index> Piece<'_, T, I> {
    #[inline(always)]
    fn group<S: Simd, const G: usize>(&self, s: S, a: &[T], e: usize) -> bool {
        let mut b: [&[T]; G] = [&[]; G];
        for (g, b) in b.iter_mut().enumerate() {
            // SAFETY: an element of the slice.
            let k = unsafe { I::read(&raw const self.indices[e + g]) };
            if !self.block.contains(&k) {
                return false;
            }
            *b = &self.b[k * self.d..][self.columns.clone()];
        }
        for (g, v) in T::dots(s, a, b).into_iter().enumerate() {
            // SAFETY: entry e + g is one of this task's rows, and there is a result for every entry.
            let out = unsafe { &mut *self.out.at(e + g) };
            if self.fresh {
                *out = v;
            } else {
                *out += v;
            }
        }
        true
    }
}

/// `out[e] = sum over t and j of a[t, i, j] b[t, k, j]`: a is `[batch, rows, d]`, b `[batch, cols, d]`.
pub fn sddmm<T: Dot, I: Index>(p: &Pattern<I>, a: &[T], b: &[T], [batch, d]: [usize; 2], out: &mut [T]) -> Result<()> {
    let (rows, cols) = (p.rows(), p.cols());
    sized(&[
        ("a", a.len(), rows.checked_mul(d).and_then(|v| v.checked_mul(batch))),
        ("b", b.len(), cols.checked_mul(d).and_then(|v| v.checked_mul(batch))),
        ("the output", out.len(), Some(p.entries())),
    ])?;
    if out.is_empty() {
        return Ok(());
    }
    if d == 0 || batch == 0 {
        out.fill(T::default());
        return Ok(());
    }
    let fits = (BLOCK / (d.min(CHUNK) * size_of::<T>())).max(1);
    let mut blocks = cols.div_ceil(fits);
    if p.entries() / rows / blocks < PER_BLOCK {
        blocks = 1;
    }
    let height = cols.div_ceil(blocks);
    let blocks = cols.div_ceil(height);
    let cuts = p.cuts(height, blocks)?;
    let work = p.entries().saturating_mul(d).saturating_mul(batch);
    // a run of rows streams all of b once more; a task should not outlast a wish to stop
    let shared = (4 * pool::threads()).min(p.entries() / cols / 4);
    let parts = if pool::threads() == 1 { 1 } else { shared };
    let parts = parts.max(work >> 28).clamp(1, rows);
    let runs = p.parts(parts);
    let (out, raced_once) = (Shared(out.as_mut_ptr()), AtomicBool::new(false));
    pool::run(parts, work, |part| {
        for t in 0..batch {
            for start in (0..d).step_by(CHUNK) {
                for block in 0..blocks {
                    let piece = Piece {
                        a: &a[t * rows * d..][..rows * d],
                        b: &b[t * cols * d..][..cols * d],
                        d,
                        columns: start..d.min(start + CHUNK),
                        block: block * height..cols.min((block + 1) * height),
                        rows: runs(part),
                        indices: p.indices,
                        from: &cuts[block * rows..][..rows],
                        to: &cuts[(block + 1) * rows..][..rows],
                        fresh: t == 0 && start == 0,
                        out,
                    };
                    if !dispatch(&piece) {
                        raced_once.store(true, Ordering::Relaxed);
                        return;
                    }
                }
            }
        }
    })?;
    if raced_once.into_inner() { Err(raced()) } else { Ok(()) }
}

/// `out[i] = sum over t and j of g[t, i, j]`, in f64 lanes: g is `[batch, rows, n]`.
pub fn row_sums<T: Float + Store>(g: &[T], [batch, rows, n]: [usize; 3], out: &mut [T]) -> Result<()> {
    let to = Shared(out.as_mut_ptr());
    pool::run(rows.div_ceil(SUMS), g.len(), |b| {
        for i in b * SUMS..rows.min((b + 1) * SUMS) {
            let sum = dispatch(RowSum { g, batch, step: rows * n, row: i * n..(i + 1) * n });
            // SAFETY: element i is this block's, and there is one for every row.
            unsafe { *to.at(i) = T::from_f64(sum) };
        }
    })
}

/// `out[j] = sum over i of g[i, j]`, in f64 lanes and in the order of the rows: g is `[rows, n]`.
pub fn column_sums<T: Float + Store>(g: &[T], [rows, n]: [usize; 2], out: &mut [T]) -> Result<()> {
    let to = Shared(out.as_mut_ptr());
    pool::run(n.div_ceil(STEP), g.len(), |b| {
        let columns = b * STEP..n.min((b + 1) * STEP);
        // SAFETY: these columns are this block's, and there is an element for each.
        dispatch(ColumnSum { g, rows, n, out: unsafe { to.part(columns.start, columns.len()) }, columns });
    })
}

/// At most sixteen columns.
struct ColumnSum<'a, T> {
    g: &'a [T],
    rows: usize,
    n: usize,
    columns: std::ops::Range<usize>,
    out: &'a mut [T],
}

impl<T: Float + Store> Kernel for ColumnSum<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut sum = [f64x8::splat(s, 0.0); 2];
        for i in 0..self.rows {
            let row = &self.g[i * self.n..][self.columns.clone()];
            let [a, b] = if row.len() == STEP { T::load16(s, row) } else { T::load_tail(s, row) };
            sum = [sum[0] + a, sum[1] + b];
        }
        T::store_tail(s, sum, self.out);
    }
}

/// Rows summed by one task.
const SUMS: usize = 32;

struct RowSum<'a, T> {
    g: &'a [T],
    batch: usize,
    step: usize,
    row: std::ops::Range<usize>,
}

impl<T: Float + Store> Kernel for RowSum<'_, T> {
    type Output = f64;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        let mut sum = [f64x8::splat(s, 0.0); 2];
        for t in 0..self.batch {
            let row = &self.g[t * self.step..][self.row.clone()];
            let whole = row.len() / STEP * STEP;
            for j in (0..whole).step_by(STEP) {
                let [a, b] = T::load16(s, &row[j..j + STEP]);
                sum = [sum[0] + a, sum[1] + b];
            }
            let [a, b] = T::load_tail(s, &row[whole..]);
            sum = [sum[0] + a, sum[1] + b];
        }
        hsum(sum[0] + sum[1])
    }
}
