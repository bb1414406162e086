//! Which rows a segment has: runs of rows, or lists. The one rule: what a list names is checked here, and how lists are cut
//! into work follows from them and from the width of a row alone.

use crate::index::{Index, copied, offsets, outside};
use base::{Dtype, Error, Result, Tensor, try_vec};
use std::ops::Range;

/// Entries that are met together; segments that are finished together.
pub const CHUNK: usize = 128;
pub const SLOTS: usize = 16;
/// Entries that are added in one go; a segment of more than four such parts has them added side by side.
pub const PART: usize = 1024;
/// Elements that stay in the nearest cache, and elements to a task.
const NEAR: usize = 4 * 1024;
const BLOCK: usize = 16 * 1024;

/// Segments of rows of `width` elements: segment i has the entries `ptr[i]..ptr[i + 1]`, and these the rows of `list` (or
/// their own).
pub struct Lists {
    pub(super) ptr: Vec<usize>,
    list: Option<Vec<usize>>,
    rows: usize,
    width: usize,
}

impl Lists {
    /// Segments of `members` rows each.
    pub fn runs(segments: usize, members: usize, width: usize) -> Result<Self> {
        let mut ptr = try_vec(segments + 1, 0)?;
        for (i, v) in ptr.iter_mut().enumerate() {
            *v = i * members;
        }
        Ok(Lists { ptr, list: None, rows: segments * members, width })
    }

    /// Segment i has the rows `indices[indptr[i]..indptr[i + 1]]`; both are int32 or int64.
    pub fn of_csr(indices: &Tensor, indptr: &Tensor, rows: usize, width: usize) -> Result<Self> {
        let list = match indices.dtype() {
            Dtype::I32 => listed(indices.slice::<i32>()?, rows)?,
            Dtype::I64 => listed(indices.slice::<i64>()?, rows)?,
            _ if indices.is_empty() => Vec::new(),
            other => return Err(refused(other)),
        };
        let ptr = match indptr.dtype() {
            Dtype::I32 => offsets(indptr.slice::<i32>()?, list.len())?,
            Dtype::I64 => offsets(indptr.slice::<i64>()?, list.len())?,
            other => return Err(refused(other)),
        };
        Ok(Lists { ptr, list: Some(list), rows, width })
    }

    /// Row r belongs to segment `ids[r]`, or to none where that is −1; rows keep their order.
    pub fn of_ids<I: Index>(ids: &[I], segments: usize, width: usize) -> Result<Self> {
        let ids = copied(ids, |at, v| {
            // −1 is the largest of all
            if v < segments || v == usize::MAX { Ok(()) } else { Err(outside("ids", at, v, -1, segments)) }
        })?;
        let ptr = counted(ids.iter().filter(|&&i| i < segments), segments)?;
        if ids.is_sorted() && ptr[segments] == ids.len() {
            return Ok(Lists { ptr, list: None, rows: ids.len(), width });
        }
        let (mut next, mut list) = (copy(&ptr)?, try_vec(ptr[segments], 0)?);
        for (row, &i) in ids.iter().enumerate().filter(|&(_, &i)| i < segments) {
            list[next[i]] = row;
            next[i] += 1;
        }
        Ok(Lists { ptr, list: Some(list), rows: ids.len(), width })
    }

    #[inline(always)]
    pub fn len(&self) -> usize {
        self.ptr.len() - 1
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    #[inline(always)]
    pub fn entries(&self) -> usize {
        self.ptr[self.len()]
    }
    pub fn rows(&self) -> usize {
        self.rows
    }
    #[inline(always)]
    pub fn width(&self) -> usize {
        self.width
    }
    /// Whether segments are runs of rows.
    #[inline(always)]
    pub fn plain(&self) -> bool {
        self.list.is_none()
    }
    #[inline(always)]
    pub(super) fn list(&self) -> Option<&[usize]> {
        self.list.as_deref()
    }
    #[inline(always)]
    pub fn row(&self, entry: usize) -> usize {
        if let Some(list) = &self.list { list[entry] } else { entry }
    }
    /// How many entries segment `i` has.
    #[inline(always)]
    pub fn members(&self, i: usize) -> usize {
        self.ptr[i + 1] - self.ptr[i]
    }
    /// Whether the parts of segment `i` are added side by side.
    #[inline(always)]
    pub fn large(&self, i: usize) -> bool {
        self.members(i) > 4 * PART
    }
    /// How many entries are met together.
    #[inline(always)]
    pub fn chunk(&self) -> usize {
        (NEAR / self.width.max(1) / 8 * 8).clamp(8, CHUNK)
    }
    /// How many segments are finished together.
    #[inline(always)]
    pub fn slots(&self) -> usize {
        (NEAR / self.width.max(1)).clamp(1, SLOTS)
    }
    /// How many rows make a task.
    pub fn block(&self) -> usize {
        (BLOCK / self.width.max(1)).max(1)
    }
    /// Elements that a walk meets.
    pub fn work(&self) -> usize {
        self.entries().saturating_mul(self.width)
    }
    /// The segments from `first` on that are finished together: those whose entries stay near, or one.
    #[inline(always)]
    pub fn batch(&self, first: usize, end: usize) -> Range<usize> {
        let (most, near) = (end.min(first + self.slots()), self.chunk());
        let mut last = first + 1;
        while last < most && self.ptr[last + 1] - self.ptr[first] <= near {
            last += 1;
        }
        first..last
    }
    /// The segments of every task.
    pub fn tasks(&self) -> Result<Vec<Range<usize>>> {
        let (ptr, n) = (&self.ptr, self.len());
        let (mut out, mut first) = (Vec::new(), 0);
        while first < n {
            let mut end = first + 1;
            while end < n && (ptr[end + 1] - ptr[first] + end - first) * self.width.max(1) <= BLOCK {
                end += 1;
            }
            out.try_reserve(1).map_err(|_| Error::Memory(n * size_of::<Range<usize>>()))?;
            out.push(first..end);
            first = end;
        }
        Ok(out)
    }

    /// The entries row by row; None where each row is its own.
    pub fn turned(&self) -> Result<Option<Turned>> {
        let Some(list) = &self.list else { return Ok(None) };
        let ptr = counted(list.iter(), self.rows)?;
        let (mut next, mut entries, mut segments) = (copy(&ptr)?, try_vec(list.len(), 0)?, try_vec(list.len(), 0)?);
        for i in 0..self.len() {
            for e in self.ptr[i]..self.ptr[i + 1] {
                let at = &mut next[list[e]];
                (entries[*at], segments[*at]) = (e, i);
                *at += 1;
            }
        }
        Ok(Some(Turned { ptr, entries, segments }))
    }
}

/// The entries of each row: where they begin, their places, their segments.
pub struct Turned {
    pub ptr: Vec<usize>,
    pub entries: Vec<usize>,
    pub segments: Vec<usize>,
}

fn refused(index: Dtype) -> Error {
    Error::Type(format!("indices must be int32 or int64, got {}", index.name()))
}

fn listed<I: Index>(indices: &[I], rows: usize) -> Result<Vec<usize>> {
    copied(indices, |at, v| if v < rows { Ok(()) } else { Err(outside("indices", at, v, 0, rows)) })
}

/// Where each of `n` lists begins, from which one every entry goes to.
fn counted<'a>(of: impl Iterator<Item = &'a usize>, n: usize) -> Result<Vec<usize>> {
    let mut ptr = try_vec(n.saturating_add(1), 0)?;
    for &i in of {
        ptr[i + 1] += 1;
    }
    for i in 0..n {
        ptr[i + 1] += ptr[i];
    }
    Ok(ptr)
}

fn copy(of: &[usize]) -> Result<Vec<usize>> {
    let mut out = try_vec(of.len(), 0)?;
    out.copy_from_slice(of);
    Ok(out)
}
