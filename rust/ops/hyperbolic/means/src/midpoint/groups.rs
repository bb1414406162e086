//! Groups of rows: runs, or lists. The one rule: what a group holds is checked here, and how it is cut into work follows from
//! the lists alone.

use base::store::Store;
use base::{Dtype, Error, Result, Tensor, try_vec};
use std::ops::Range;

/// Entries whose numbers are found together; groups that are solved together.
pub const CHUNK: usize = 128;
pub const SLOTS: usize = 16;
/// Members that are added in one go; a group of more than four such parts has them added side by side.
pub const PART: usize = 1024;
/// Elements that stay in the nearest cache, and elements to a task.
const NEAR: usize = 4 * 1024;
const BLOCK: usize = 16 * 1024;

/// Groups of rows of x: group i has the entries `indptr[i]..indptr[i + 1]`, and these the rows `indices` (or their own).
pub struct Groups<'a, T> {
    pub x: &'a [T],
    pub rows: usize,
    pub d: usize,
    pub c: f64,
    pub weights: Option<&'a [T]>,
    pub indices: Option<Vec<usize>>,
    pub indptr: Vec<usize>,
    pub tangent: bool,
}

impl<T: Store> Groups<'_, T> {
    pub fn len(&self) -> usize {
        self.indptr.len() - 1
    }
    pub fn entries(&self) -> usize {
        self.indptr[self.len()]
    }
    #[inline(always)]
    pub fn row(&self, entry: usize) -> usize {
        if let Some(indices) = &self.indices { indices[entry] } else { entry }
    }
    /// Whether sums are kept in twice f64's precision.
    #[inline(always)]
    pub fn exact(&self) -> bool {
        size_of::<T>() == 8 && !self.tangent
    }
    /// Whether rows and midpoints are taken apart before anything else: what is then small would not be, to the last digit.
    #[inline(always)]
    pub fn apart(&self) -> bool {
        size_of::<T>() == 8 || self.tangent
    }
    /// Whether the parts of group `i` are added side by side.
    pub fn large(&self, i: usize) -> bool {
        self.indptr[i + 1] - self.indptr[i] > 4 * PART
    }
    /// How many entries are worked on together.
    #[inline(always)]
    pub fn chunk(&self) -> usize {
        (NEAR / self.d.max(1) / 8 * 8).clamp(8, CHUNK)
    }
    /// How many groups are solved together.
    pub fn slots(&self) -> usize {
        (NEAR / self.d.max(1)).clamp(1, SLOTS)
    }
    /// The groups from `first` on that are solved together: those whose entries stay near, or one.
    pub fn batch(&self, first: usize, end: usize) -> Range<usize> {
        let (most, near) = (end.min(first + self.slots()), self.chunk());
        let mut last = first + 1;
        while last < most && self.indptr[last + 1] - self.indptr[first] <= near {
            last += 1;
        }
        first..last
    }
    /// The groups of every task.
    pub fn tasks(&self) -> Result<Vec<Range<usize>>> {
        let (ptr, n) = (&self.indptr, self.len());
        let (mut out, mut first) = (Vec::new(), 0);
        while first < n {
            let mut end = first + 1;
            while end < n && (ptr[end + 1] - ptr[first] + end - first) * self.d.max(1) <= BLOCK {
                end += 1;
            }
            out.try_reserve(1).map_err(|_| Error::Memory(n * size_of::<Range<usize>>()))?;
            out.push(first..end);
            first = end;
        }
        Ok(out)
    }
    /// How many rows make a task.
    pub fn block(&self) -> usize {
        (BLOCK / self.d.max(1)).max(1)
    }
}

pub fn runs(groups: usize, members: usize) -> Result<Vec<usize>> {
    let mut out = try_vec(groups + 1, 0)?;
    for (i, v) in out.iter_mut().enumerate() {
        *v = i * members;
    }
    Ok(out)
}

/// A list of int32 or int64; what is negative becomes too large.
pub fn integers(t: &Tensor) -> Result<Vec<usize>> {
    let mut out = try_vec(t.len(), 0)?;
    match t.dtype() {
        Dtype::I64 => out.iter_mut().zip(t.slice::<i64>()?).for_each(|(o, &v)| *o = v as usize),
        Dtype::I32 => out.iter_mut().zip(t.slice::<i32>()?).for_each(|(o, &v)| *o = v as usize),
        other if !t.is_empty() => {
            return Err(Error::Type(format!("indices must be int32 or int64, got {}", other.name())));
        }
        _ => {}
    }
    Ok(out)
}

pub fn check(indices: &[usize], indptr: &[usize], rows: usize) -> Result<()> {
    let falling = indptr.windows(2).any(|w| w[0] > w[1]);
    if falling || indptr.first() != Some(&0) || indptr.last() != Some(&indices.len()) {
        return Err(Error::Value(format!("indptr must rise from 0 to the {} entries", indices.len())));
    }
    match indices.iter().position(|&i| i >= rows) {
        Some(at) => Err(Error::Value(format!("entry {at} names row {} of {rows}", indices[at] as i64))),
        None => Ok(()),
    }
}

/// The entries of each row: where they begin, their places, their groups.
pub struct Turned {
    pub ptr: Vec<usize>,
    pub entries: Vec<usize>,
    pub groups: Vec<usize>,
}

/// None where each row is its own entry.
pub fn turned<T: Store>(groups: &Groups<T>) -> Result<Option<Turned>> {
    let Some(indices) = &groups.indices else { return Ok(None) };
    let entries = indices.len();
    let mut out =
        Turned { ptr: try_vec(groups.rows + 1, 0)?, entries: try_vec(entries, 0)?, groups: try_vec(entries, 0)? };
    for &row in indices {
        out.ptr[row + 1] += 1;
    }
    for i in 0..groups.rows {
        out.ptr[i + 1] += out.ptr[i];
    }
    let mut next = try_vec(groups.rows, 0)?;
    next.copy_from_slice(&out.ptr[..groups.rows]);
    for i in 0..groups.len() {
        for e in groups.indptr[i]..groups.indptr[i + 1] {
            let at = &mut next[indices[e]];
            (out.entries[*at], out.groups[*at]) = (e, i);
            *at += 1;
        }
    }
    Ok(Some(out))
}
