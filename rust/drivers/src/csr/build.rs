//! Making the canonical form, and leaving it: sorting, from dense, to dense, transposing. The one rule: what is written
//! is built from copies that were checked, so no input can lead a write astray.

use super::{ENTRIES, Index, Pattern, ROWS, offsets, raced};
use base::pool::{self, Shared};
use base::store::Store;
use base::vector::Float;
use base::{Error, Result, try_vec};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Checks a matrix and sorts each row by column, stably: `data[perm]` are its values in the new order. The outputs have
/// the lengths of the inputs, `perm` that of `indices`.
pub fn sort<I: Index, O: Index>(
    indices: &[I],
    indptr: &[I],
    cols: usize,
    out: &mut [O],
    out_ptr: &mut [O],
    perm: &mut [O],
) -> Result<()> {
    let ptr = offsets(indptr, indices.len())?;
    if [out.len(), perm.len()] != [indices.len(); 2] || out_ptr.len() != ptr.len() {
        return Err(Error::Value("the outputs differ in length from the inputs".into()));
    }
    if O::new(cols).is_none() || O::new(indices.len()).is_none() {
        return Err(Error::Value(format!(
            "{} entries in {cols} columns do not fit {} indices",
            indices.len(),
            O::DTYPE.name()
        )));
    }
    let (rows, bad) = (ptr.len() - 1, AtomicUsize::new(usize::MAX));
    let oom = AtomicUsize::new(0);
    let (to, order) = (Shared(out.as_mut_ptr()), Shared(perm.as_mut_ptr()));
    pool::run(rows.div_ceil(ROWS), indices.len(), |b| {
        let mut pairs: Vec<(O, O)> = Vec::new();
        for i in b * ROWS..rows.min((b + 1) * ROWS) {
            let (from, n) = (ptr[i], ptr[i + 1] - ptr[i]);
            // SAFETY: the entries of a row belong to one block; the outputs have as many as the offsets end at.
            let (out, perm) = unsafe { (to.part(from, n), order.part(from, n)) };
            let mut falls = false;
            for e in 0..n {
                // SAFETY: an element of the slice.
                let k = unsafe { I::read(&raw const indices[from + e]) };
                match (O::new(k), O::new(from + e)) {
                    (Some(k_out), Some(at)) if k < cols => (out[e], perm[e]) = (k_out, at),
                    _ => {
                        bad.fetch_min(from + e, Ordering::Relaxed);
                        return;
                    }
                }
                falls |= e > 0 && out[e - 1] > out[e];
            }
            if falls {
                pairs.clear();
                if pairs.try_reserve(n).is_err() {
                    oom.fetch_max(n * size_of::<(O, O)>(), Ordering::Relaxed);
                    return;
                }
                pairs.extend(out.iter().copied().zip(perm.iter().copied()));
                // places differ, so this is the stable order, without the memory a stable sort asks for
                pairs.sort_unstable();
                for (e, &(k, at)) in pairs.iter().enumerate() {
                    (out[e], perm[e]) = (k, at);
                }
            }
        }
    })?;
    if let e @ 0..usize::MAX = bad.into_inner() {
        let row = ptr.partition_point(|&p| p <= e) - 1;
        return Err(Error::Value(format!("indices[{e}] = {} (row {row}) is outside 0..{cols}", indices[e])));
    }
    match oom.into_inner() {
        0 => {}
        n => return Err(Error::Memory(n)),
    }
    for (o, p) in out_ptr.iter_mut().zip(&ptr) {
        *o = O::new(*p).ok_or_else(raced)?;
    }
    Ok(())
}

/// The transpose of a pattern, [`Pattern::bare`] is enough: its columns' entries in ascending order of row, and where each
/// stands in the original.
pub fn transpose<I: Index>(a: &Pattern<I>, out: &mut [I], out_ptr: &mut [I], perm: &mut [I]) -> Result<()> {
    let (rows, cols, entries) = (a.rows(), a.cols(), a.entries());
    if [out.len(), perm.len()] != [entries; 2] || out_ptr.len() != cols + 1 {
        return Err(Error::Value("the outputs of a transpose have other lengths".into()));
    }
    if I::new(rows).is_none() || I::new(entries).is_none() {
        return Err(Error::Value(format!("{rows} rows do not fit {} indices", I::DTYPE.name())));
    }
    // SAFETY: an element of the slice.
    let column = |e: usize| unsafe { I::read(&raw const a.indices[e]) };
    // counters as small as the indices: these are what must stay in the cache
    let zero = I::new(0).ok_or_else(raced)?;
    let mut next = try_vec(cols, zero)?;
    // SAFETY: a number of our own.
    let of = |n: &I| unsafe { I::read(n) };
    for e in 0..entries {
        let k = column(e);
        let n = next.get_mut(k).ok_or_else(|| crate::index::outside("indices", e, k, 0, cols))?;
        *n = I::new(of(n) + 1).unwrap_or(zero);
    }
    let mut total = 0;
    for (o, n) in out_ptr.iter_mut().zip(next.iter_mut().map(Some).chain([None])) {
        *o = I::new(total).ok_or_else(raced)?;
        if let Some(n) = n {
            total += of(n);
            *n = *o;
        }
    }
    // both numbers of an entry go to one line of the cache, since what is written here and there is what a transpose costs
    let mut both = try_vec(entries, [zero; 2])?;
    let mut fine = true;
    for i in 0..rows {
        let row = I::new(i).ok_or_else(raced)?;
        for e in a.ptr[i]..a.ptr[i + 1] {
            let Some(n) = next.get_mut(column(e)) else {
                fine = false;
                continue;
            };
            let at = of(n);
            if let Some(to) = both.get_mut(at) {
                *to = [row, I::new(e).unwrap_or(zero)];
                *n = I::new(at + 1).unwrap_or(zero);
            } else {
                fine = false;
            }
        }
    }
    for ((o, p), &[row, e]) in out.iter_mut().zip(perm).zip(&both) {
        (*o, *p) = (row, e);
    }
    if fine { Ok(()) } else { Err(raced()) }
}

/// What a dense matrix stores: its nonzeros (NaN is one, -0 is none), or where the mask says.
#[inline(always)]
fn kept<T: Store>(w: &[T], mask: Option<&[u8]>, at: usize) -> bool {
    match mask {
        // as w is f32 or wider here or widens exactly, this is the comparison in its own type
        None => w[at].to_f64() != 0.0,
        Some(m) => m[at] != 0,
    }
}

/// Where the rows of a dense matrix with `cols` columns will begin.
pub fn count<T: Store, I: Index>(w: &[T], mask: Option<&[u8]>, cols: usize, out_ptr: &mut [I]) -> Result<()> {
    let rows = out_ptr.len().saturating_sub(1);
    if out_ptr.is_empty() || rows.checked_mul(cols) != Some(w.len()) {
        return Err(Error::Value("w does not have the rows that indptr asks for".into()));
    }
    let counts = pool::map(rows.div_ceil(ROWS), w.len(), |b| {
        let mut n = [0usize; ROWS];
        for (n, i) in n.iter_mut().zip(b * ROWS..rows) {
            *n = (i * cols..(i + 1) * cols).map(|at| usize::from(kept(w, mask, at))).sum();
        }
        n
    })?;
    let mut total = 0;
    for (i, o) in out_ptr.iter_mut().enumerate() {
        *o = I::new(total).ok_or_else(|| Error::Value(format!("{total} entries do not fit {}", I::DTYPE.name())))?;
        if i < rows {
            total += counts[i / ROWS][i % ROWS];
        }
    }
    Ok(())
}

/// The values and columns of a dense matrix in the rows that [`count`] found.
pub fn fill<T: Store, I: Index>(
    w: &[T],
    mask: Option<&[u8]>,
    cols: usize,
    indptr: &[I],
    data: &mut [T],
    indices: &mut [I],
) -> Result<()> {
    let ptr = offsets(indptr, data.len())?;
    let rows = ptr.len() - 1;
    if rows.checked_mul(cols) != Some(w.len()) || indices.len() != data.len() {
        return Err(Error::Value("w does not have the rows that indptr asks for".into()));
    }
    if I::new(cols).is_none() {
        return Err(Error::Value(format!("{cols} columns do not fit {}", I::DTYPE.name())));
    }
    let (values, columns, wrong) = (Shared(data.as_mut_ptr()), Shared(indices.as_mut_ptr()), AtomicBool::new(false));
    pool::run(rows.div_ceil(ROWS), w.len(), |b| {
        for i in b * ROWS..rows.min((b + 1) * ROWS) {
            let n = ptr[i + 1] - ptr[i];
            // SAFETY: the entries of a row belong to one block; the outputs have as many as the offsets end at.
            let (data, indices) = unsafe { (values.part(ptr[i], n), columns.part(ptr[i], n)) };
            let mut e = 0;
            for k in 0..cols {
                if kept(w, mask, i * cols + k) {
                    if let (true, Some(column)) = (e < n, I::new(k)) {
                        (data[e], indices[e]) = (w[i * cols + k], column);
                    }
                    e += 1;
                }
            }
            if e != n {
                wrong.store(true, Ordering::Relaxed);
            }
        }
    })?;
    if wrong.into_inner() { Err(raced()) } else { Ok(()) }
}

/// The dense matrix, entries of equal place added in order and rounded once.
pub fn dense<T: Store, R: Float, I: Index>(
    a: &Pattern<I>,
    data: &[T],
    out: &mut [T],
    up: impl Fn(T) -> R + Sync,
    down: impl Fn(R) -> T + Sync,
) -> Result<()> {
    let (rows, cols) = (a.rows(), a.cols());
    if data.len() != a.entries() || rows.checked_mul(cols) != Some(out.len()) {
        return Err(Error::Value(format!(
            "{} values for {} places, {} elements for {rows} x {cols}",
            data.len(),
            a.entries(),
            out.len()
        )));
    }
    let (to, wrong) = (Shared(out.as_mut_ptr()), AtomicBool::new(false));
    pool::run(rows.div_ceil(ROWS), out.len(), |b| {
        for i in b * ROWS..rows.min((b + 1) * ROWS) {
            // SAFETY: row i of the output, which has rows x cols elements, is one block's.
            let row = unsafe { to.part(i * cols, cols) };
            row.fill(T::default());
            let (mut e, end) = (a.ptr[i], a.ptr[i + 1]);
            while e < end {
                // SAFETY: elements of the slice.
                let column = |e: usize| unsafe { I::read(&raw const a.indices[e]) };
                let (k, mut sum) = (column(e), up(data[e]));
                e += 1;
                while e < end && column(e) == k {
                    sum += up(data[e]);
                    e += 1;
                }
                match row.get_mut(k) {
                    Some(o) => *o = down(sum),
                    None => wrong.store(true, Ordering::Relaxed),
                }
            }
        }
    })?;
    if wrong.into_inner() { Err(raced()) } else { Ok(()) }
}

/// The elements of a dense matrix at the places of the pattern.
pub fn take<T: Store, I: Index>(a: &Pattern<I>, w: &[T], out: &mut [T]) -> Result<()> {
    let (rows, cols) = (a.rows(), a.cols());
    if out.len() != a.entries() || rows.checked_mul(cols) != Some(w.len()) {
        return Err(Error::Value(format!("{} elements for {rows} x {cols}", w.len())));
    }
    let (to, wrong) = (Shared(out.as_mut_ptr()), AtomicBool::new(false));
    pool::run(rows.div_ceil(ROWS), a.entries(), |b| {
        for i in b * ROWS..rows.min((b + 1) * ROWS) {
            let row = &w[i * cols..(i + 1) * cols];
            for e in a.ptr[i]..a.ptr[i + 1] {
                // SAFETY: an element of the slice; entry e is this block's, and there is a result for every entry.
                unsafe {
                    match row.get(I::read(&raw const a.indices[e])) {
                        Some(&v) => *to.at(e) = v,
                        None => wrong.store(true, Ordering::Relaxed),
                    }
                }
            }
        }
    })?;
    if wrong.into_inner() { Err(raced()) } else { Ok(()) }
}

/// `data[perm]`.
pub fn gather<T: Store, I: Index>(data: &[T], perm: &[I]) -> Result<Vec<T>> {
    let mut out = try_vec(perm.len(), T::default())?;
    let (to, wrong) = (Shared(out.as_mut_ptr()), AtomicBool::new(false));
    pool::run(perm.len().div_ceil(ENTRIES), perm.len(), |b| {
        for e in b * ENTRIES..perm.len().min((b + 1) * ENTRIES) {
            // SAFETY: an element of the slice; entry e is this block's, and there is a result for every entry.
            unsafe {
                match data.get(I::read(&raw const perm[e])) {
                    Some(&v) => *to.at(e) = v,
                    None => wrong.store(true, Ordering::Relaxed),
                }
            }
        }
    })?;
    if wrong.into_inner() { Err(Error::Value("perm points outside the data".into())) } else { Ok(out) }
}
