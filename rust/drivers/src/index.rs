//! Index lists as they come from outside. The one rule: an index is checked as it is read, whatever was checked before: the
//! arrays belong to the caller, who may write to them while a kernel runs.

use base::{Element, Error, Result};
use std::sync::atomic::{AtomicI32, AtomicI64, Ordering};

/// An index as it lies in memory.
///
/// # Safety
/// `read` touches one element.
pub unsafe trait Index: Element + Ord + std::fmt::Display {
    /// Reads `*p` once, whoever may be writing it. A negative index comes back larger than any size.
    ///
    /// # Safety
    /// `p` points to an element alive and aligned.
    unsafe fn read(p: *const Self) -> usize;
    /// The index as this type, if it fits.
    fn new(i: usize) -> Option<Self>;
}

macro_rules! index { ($($t:ty, $a:ty);*) => { $(
    // SAFETY: one relaxed load of one element: an ordinary move that the compiler will not repeat.
    unsafe impl Index for $t {
        #[inline(always)]
        unsafe fn read(p: *const Self) -> usize {
            // SAFETY: an atomic has the layout of its number; the caller vouches for the pointer.
            unsafe { (*p.cast::<$a>()).load(Ordering::Relaxed) as usize }
        }
        #[inline(always)]
        fn new(i: usize) -> Option<Self> {
            Self::try_from(i).ok()
        }
    }
)* } }
index!(i32, AtomicI32; i64, AtomicI64);

/// `by_index!(array, I => body)`: the body with `I` the type of indices.
#[macro_export]
macro_rules! by_index {
    ($x:expr, $i:ident => $body:expr) => {
        match $x.dtype() {
            $crate::base::Dtype::I32 => {
                type $i = i32;
                $body
            }
            $crate::base::Dtype::I64 => {
                type $i = i64;
                $body
            }
            other => Err($crate::base::Error::Type(format!(
                "indices must be int32 or int64, and all of one type, got {}",
                other.name()
            ))),
        }
    };
}

/// An entry of `list`.
#[inline(always)]
pub fn entry<I: Index>(list: &[I], at: usize) -> usize {
    // SAFETY: an element of the slice.
    unsafe { I::read(&raw const list[at]) }
}

/// Checks that the entries of `list` lie within `0..limit`.
pub fn within<I: Index>(name: &str, list: &[I], limit: usize) -> Result<()> {
    // SAFETY: an element of the slice.
    let found = list.iter().map(|p| unsafe { I::read(p) }).enumerate().find(|&(_, v)| v >= limit);
    found.map_or(Ok(()), |(at, v)| Err(outside(name, at, v, 0, limit)))
}

/// What is said of an entry that names nothing; `low` is the least that does.
pub fn outside(name: &str, at: usize, v: usize, low: i8, limit: usize) -> Error {
    Error::Value(format!("{name}[{at}] = {} is outside {low}..{limit}", v as i64))
}

/// A copy of `list`, every entry seen by `check` with its place.
pub fn copied<I: Index>(list: &[I], mut check: impl FnMut(usize, usize) -> Result<()>) -> Result<Vec<usize>> {
    let mut out: Vec<usize> = Vec::new();
    out.try_reserve_exact(list.len()).map_err(|_| Error::Memory(list.len().saturating_mul(size_of::<usize>())))?;
    for (at, p) in list.iter().enumerate() {
        // SAFETY: an element of the slice.
        let v = unsafe { I::read(p) };
        check(at, v)?;
        out.push(v);
    }
    Ok(out)
}

/// Where lists begin: a copy of `indptr`, found to start at 0, never to fall, and to end at `entries`.
pub fn offsets<I: Index>(indptr: &[I], entries: usize) -> Result<Vec<usize>> {
    let mut before = 0;
    let ptr = copied(indptr, |i, at| {
        if i == 0 && at != 0 {
            return Err(Error::Value(format!("indptr starts at {}, not at 0", at as i64)));
        }
        if at < before || at > isize::MAX as usize {
            let row = i.saturating_sub(1);
            return Err(Error::Value(format!("indptr falls from {before} to {} at row {row}", at as i64)));
        }
        before = at;
        Ok(())
    })?;
    match ptr.last() {
        None => Err(Error::Value("indptr is empty; it has one entry more than rows".into())),
        Some(&end) if end != entries => {
            Err(Error::Value(format!("indptr ends at {end}, but {entries} entries are stored")))
        }
        Some(_) => Ok(ptr),
    }
}
