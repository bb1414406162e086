//! Sparse times sparse by rows (Gustavson, "Two fast algorithms for sparse matrices", 1978): first the places of a product, then
//! its values at given places, and what these send back. The one rule: a value is one chain of fused multiply-adds over the
//! columns of the left matrix as they are stored, whoever runs which rows.
//!
//! Places are marked in bits, which are then read in order, so that nothing is sorted; in matrices so wide that reading the
//! marks would cost more than the terms of a row, these are sorted.

use super::{Index, Pattern, raced, sized};
use base::pool::{self, Shared};
use base::simd::*;
use base::vector::Float;
use base::{Error, Result, try_vec};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Terms that one task takes, about.
const TERMS: usize = 1 << 18;
/// Words of the upper marks that are read as fast as one term is sorted.
const READ: usize = 16;

/// An index that was checked when its pattern was made, and is compared again where it is used.
#[inline(always)]
fn at<I: Index>(list: &[I], e: usize) -> usize {
    // SAFETY: an element of the slice.
    unsafe { I::read(&raw const list[e]) }
}

/// The entries of b that an entry of a meets; none if the entry is none, which [`Pattern::new`] has ruled out.
#[inline(always)]
fn met<I: Index>(b: &Pattern<I>, k: usize) -> Range<usize> {
    if k < b.rows() { b.ptr[k]..b.ptr[k + 1] } else { 0..0 }
}

fn fits<I: Index>(a: &Pattern<I>, b: &Pattern<I>) -> Result<()> {
    if a.cols() == b.rows() {
        return Ok(());
    }
    Err(Error::Value(format!("a has {} columns, b {} rows", a.cols(), b.rows())))
}

/// Bounds of runs of rows of a, as many as there is work for; room for a whole row of b is made for each.
fn runs<'a, I: Index>(
    a: &'a Pattern<I>,
    b: &Pattern<I>,
) -> (usize, usize, impl Fn(usize) -> Range<usize> + use<'a, I>) {
    let terms = (0..a.entries()).map(|e| met(b, at(a.indices, e)).len()).fold(0, usize::saturating_add);
    let parts = (terms / TERMS).min(terms / b.cols().max(1)).clamp(1, a.rows().max(1));
    (parts, terms, a.parts(parts))
}

/// The columns that a row reaches: a bit for each, and a bit for each word of these.
struct Marks {
    bits: Vec<u64>,
    words: Vec<u64>,
    list: Vec<usize>,
}

impl Marks {
    fn new(cols: usize) -> Result<Self> {
        let bits = try_vec(cols.div_ceil(64), 0u64)?;
        Ok(Marks { words: try_vec(bits.len().div_ceil(64), 0u64)?, bits, list: Vec::new() })
    }

    /// Gives `each` the columns of row i of the product in ascending order, each once; false if there was no room.
    #[inline(always)]
    fn row<I: Index>(&mut self, a: &Pattern<I>, b: &Pattern<I>, i: usize, mut each: impl FnMut(usize)) -> bool {
        let entries = a.ptr[i]..a.ptr[i + 1];
        let terms = entries.clone().map(|e| met(b, at(a.indices, e)).len()).fold(0, usize::saturating_add);
        if terms.saturating_mul(READ) < self.words.len() {
            self.list.clear();
            if self.list.try_reserve(terms).is_err() {
                return false;
            }
            for e in entries {
                self.list.extend(met(b, at(a.indices, e)).map(|f| at(b.indices, f)));
            }
            self.list.sort_unstable();
            self.list.dedup();
            self.list.iter().for_each(|&j| each(j));
            return true;
        }
        for e in entries {
            for f in met(b, at(a.indices, e)) {
                let j = at(b.indices, f);
                // a column out of bounds after all is left out, and missed by who counts
                if let (Some(w), Some(up)) = (self.bits.get_mut(j / 64), self.words.get_mut(j / 4096)) {
                    *w |= 1 << (j % 64);
                    *up |= 1 << (j / 64 % 64);
                }
            }
        }
        for (u, up) in self.words.iter_mut().enumerate() {
            while *up != 0 {
                let w = u * 64 + up.trailing_zeros() as usize;
                *up &= *up - 1;
                let mut bits = std::mem::take(&mut self.bits[w]);
                while bits != 0 {
                    each(w * 64 + bits.trailing_zeros() as usize);
                    bits &= bits - 1;
                }
            }
        }
        true
    }
}

/// Where the rows of a product begin.
pub fn matmul_count<I: Index>(a: &Pattern<I>, b: &Pattern<I>, out_ptr: &mut [i64]) -> Result<()> {
    fits(a, b)?;
    sized(&[("indptr", out_ptr.len(), Some(a.rows() + 1))])?;
    let (parts, terms, rows) = runs(a, b);
    let (to, short) = (Shared(out_ptr.as_mut_ptr()), AtomicBool::new(false));
    pool::run(parts, terms, |part| {
        let Ok(mut marks) = Marks::new(b.cols()) else { return short.store(true, Ordering::Relaxed) };
        for i in rows(part) {
            let mut n = 0i64;
            if !marks.row(a, b, i, |_| n += 1) {
                return short.store(true, Ordering::Relaxed);
            }
            // SAFETY: the rows of a part are its own, and there is one number more than rows.
            unsafe { *to.at(i + 1) = n }
        }
    })?;
    if short.into_inner() {
        return Err(Error::Memory(b.cols() / 8));
    }
    out_ptr[0] = 0;
    let mut total = 0i64;
    for n in &mut out_ptr[1..] {
        total = total.checked_add(*n).ok_or_else(|| Error::Value("the product has more than 2^63 entries".into()))?;
        *n = total;
    }
    Ok(())
}

/// The columns of a product in the rows that [`matmul_count`] found.
pub fn matmul_places<I: Index>(a: &Pattern<I>, b: &Pattern<I>, indptr: &[I], out: &mut [I]) -> Result<()> {
    fits(a, b)?;
    let ptr = super::offsets(indptr, out.len())?;
    sized(&[("indptr", ptr.len(), Some(a.rows() + 1))])?;
    if I::new(b.cols()).is_none() {
        return Err(Error::Value(format!("{} columns do not fit {}", b.cols(), I::DTYPE.name())));
    }
    let (parts, terms, rows) = runs(a, b);
    let (to, short, wrong) = (Shared(out.as_mut_ptr()), AtomicBool::new(false), AtomicBool::new(false));
    pool::run(parts, terms, |part| {
        let Ok(mut marks) = Marks::new(b.cols()) else { return short.store(true, Ordering::Relaxed) };
        for i in rows(part) {
            // SAFETY: the entries of a row belong to one part; the output has as many as the offsets end at.
            let row = unsafe { to.part(ptr[i], ptr[i + 1] - ptr[i]) };
            let mut n = 0;
            let room = marks.row(a, b, i, |j| {
                if let (Some(o), Some(j)) = (row.get_mut(n), I::new(j)) {
                    *o = j;
                }
                n += 1;
            });
            if !room {
                return short.store(true, Ordering::Relaxed);
            }
            if n != row.len() {
                wrong.store(true, Ordering::Relaxed);
            }
        }
    })?;
    match (short.into_inner(), wrong.into_inner()) {
        (true, _) => Err(Error::Memory(b.cols() / 8)),
        (_, true) => Err(Error::Value("indptr is not that of the product".into())),
        _ => Ok(()),
    }
}

/// What two matrices and the places of a result are, of which `out` is made.
struct Job<'a, T, I> {
    a: (&'a Pattern<'a, I>, &'a [T]),
    b: (&'a Pattern<'a, I>, &'a [T]),
    c: &'a Pattern<'a, I>,
    what: What<'a, T>,
    rows: Range<usize>,
    out: Shared<T>,
    /// A row of b, whole; for gradients, zeros before and after.
    room: &'a mut [T],
}

/// The values, or the gradient of one of the two from that of the values.
#[derive(Clone, Copy)]
enum What<'a, T> {
    Values,
    Left(&'a [T]),
    /// Of the entries of b in these rows.
    Right(&'a [T], usize, usize),
}

impl<T: Float, I: Index> Kernel for Job<'_, T, I> {
    /// Whether every index was within bounds.
    type Output = bool;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> bool {
        let Job { a: (a, da), b: (b, db), c, what, rows, out, room } = self;
        let mut fine = true;
        for i in rows {
            let mut mine = a.ptr[i]..a.ptr[i + 1];
            if let What::Right(_, from, to) = what {
                let row = &a.indices[mine.clone()];
                // SAFETY: elements of the slice.
                let below = |limit: usize| row.partition_point(|k| unsafe { I::read(k) } < limit);
                mine = mine.start + below(from)..mine.start + below(to);
            }
            let places = c.ptr[i]..c.ptr[i + 1];
            if mine.is_empty() && !matches!(what, What::Values) {
                continue;
            }
            for e in places.clone() {
                match (room.get_mut(at(c.indices, e)), what) {
                    // what other rows left at other places is not read
                    (Some(r), What::Values) => *r = T::default(),
                    (Some(r), What::Left(g) | What::Right(g, ..)) => *r += g[e],
                    (None, _) => fine = false,
                }
            }
            for e in mine {
                let (k, mut sum) = (at(a.indices, e), T::default());
                if let What::Right(_, from, to) = what
                    && !(from..to).contains(&k)
                {
                    fine = false;
                    continue;
                }
                let v = da[e];
                for f in met(b, k) {
                    let Some(r) = room.get_mut(at(b.indices, f)) else {
                        fine = false;
                        continue;
                    };
                    match what {
                        What::Values => *r = v.fused(db[f], *r),
                        What::Left(_) => sum = r.fused(db[f], sum),
                        // SAFETY: entry f is of a row of b in this part, and there is a gradient for every entry.
                        What::Right(..) => unsafe { *out.at(f) = v.fused(*r, *out.at(f)) },
                    }
                }
                if let What::Left(_) = what {
                    // SAFETY: entry e is of a row of this part, and there is a gradient for every entry.
                    unsafe { *out.at(e) = sum }
                }
            }
            for e in places {
                match (room.get_mut(at(c.indices, e)), what) {
                    // SAFETY: entry e is of a row of this part, and there is a value for every entry.
                    (Some(r), What::Values) => unsafe { *out.at(e) = *r },
                    (Some(r), _) => *r = T::default(),
                    (None, _) => fine = false,
                }
            }
        }
        fine
    }
}

/// The values of `A B` at the places of c, and the gradients of these with respect to the values of a and b.
pub struct Matmul<'a, T, I> {
    a: (&'a Pattern<'a, I>, &'a [T]),
    b: (&'a Pattern<'a, I>, &'a [T]),
    c: &'a Pattern<'a, I>,
}

impl<'a, T: Float, I: Index> Matmul<'a, T, I> {
    pub fn new(
        a: (&'a Pattern<'a, I>, &'a [T]),
        b: (&'a Pattern<'a, I>, &'a [T]),
        c: &'a Pattern<'a, I>,
    ) -> Result<Self> {
        fits(a.0, b.0)?;
        sized(&[("a_data", a.1.len(), Some(a.0.entries())), ("b_data", b.1.len(), Some(b.0.entries()))])?;
        if c.rows() != a.0.rows() || c.cols() != b.0.cols() {
            let [n, m] = [a.0.rows(), b.0.cols()];
            return Err(Error::Value(format!(
                "the places are of {} x {}, the product of {n} x {m}",
                c.rows(),
                c.cols()
            )));
        }
        Ok(Matmul { a, b, c })
    }

    fn run(
        &self,
        what: impl Fn(usize) -> What<'a, T> + Sync,
        rows: impl Fn(usize) -> Range<usize> + Sync,
        (parts, work): (usize, usize),
        out: &mut [T],
    ) -> Result<()> {
        let (to, wrong, short) = (Shared(out.as_mut_ptr()), AtomicBool::new(false), AtomicUsize::new(0));
        let cols = self.b.0.cols();
        pool::run(parts, work, |part| {
            let Ok(mut room) = try_vec(cols, T::default()) else {
                return short.store(cols.saturating_mul(size_of::<T>()), Ordering::Relaxed);
            };
            let (a, b, c) = (self.a, self.b, self.c);
            if !dispatch(Job { a, b, c, what: what(part), rows: rows(part), out: to, room: &mut room }) {
                wrong.store(true, Ordering::Relaxed);
            }
        })?;
        match (short.into_inner(), wrong.into_inner()) {
            (0, false) => Ok(()),
            (0, true) => Err(raced()),
            (n, _) => Err(Error::Memory(n)),
        }
    }

    pub fn values(&self, out: &mut [T]) -> Result<()> {
        sized(&[("data", out.len(), Some(self.c.entries()))])?;
        let (parts, terms, rows) = runs(self.a.0, self.b.0);
        self.run(|_| What::Values, rows, (parts, terms.saturating_add(out.len())), out)
    }

    /// The gradient of the values of a.
    pub fn left(&self, g: &'a [T], out: &mut [T]) -> Result<()> {
        sized(&[("g", g.len(), Some(self.c.entries())), ("da", out.len(), Some(self.a.0.entries()))])?;
        let (parts, terms, rows) = runs(self.a.0, self.b.0);
        self.run(|_| What::Left(g), rows, (parts, terms.saturating_add(g.len())), out)
    }

    /// The gradient of the values of b: a part owns some rows of b and meets all rows of a, so that a sum is in their order.
    pub fn right(&self, g: &'a [T], out: &mut [T]) -> Result<()> {
        sized(&[("g", g.len(), Some(self.c.entries())), ("db", out.len(), Some(self.b.0.entries()))])?;
        let (most, terms, _) = runs(self.a.0, self.b.0);
        let (b, all) = (self.b.0, self.a.0.rows());
        let parts = if pool::threads() == 1 { 1 } else { most.min(2 * pool::threads()).clamp(1, b.rows().max(1)) };
        let owned = b.parts(parts);
        out.fill(T::default());
        let what = |part| {
            let rows = owned(part);
            What::Right(g, rows.start, rows.end)
        };
        self.run(what, |_| 0..all, (parts, terms.saturating_add(g.len())), out)
    }
}
