//! Where the rows of a transform lie. The one rule: a row is whole in one of at most two memories.

/// Rows `stride` apart, the elements before `split` in one memory and those from there on in another.
#[derive(Clone, Copy)]
pub struct Lines<L> {
    pub low: *mut L,
    /// Where element 0 would be if all were there.
    pub high: *mut L,
    pub split: usize,
    pub stride: usize,
}

impl<L> Lines<L> {
    pub fn whole(at: *mut L, stride: usize) -> Self {
        Lines { low: at, high: at, split: usize::MAX, stride }
    }
    /// Rows from element `at` on.
    pub fn from(self, at: usize, stride: usize) -> Self {
        let (low, high) = (self.low.wrapping_add(at), self.high.wrapping_add(at));
        Lines { low, high, split: self.split.saturating_sub(at), stride }
    }
    /// The same memory of numbers by another name.
    pub fn cast<M>(self) -> Lines<M> {
        Lines { low: self.low.cast(), high: self.high.cast(), split: self.split, stride: self.stride }
    }
    /// The same rows from a column on.
    #[inline(always)]
    pub fn right(self, column: usize) -> Self {
        Lines { low: self.low.wrapping_add(column), high: self.high.wrapping_add(column), ..self }
    }
    #[inline(always)]
    pub fn row(&self, i: usize) -> *mut L {
        let at = i * self.stride;
        if at < self.split { self.low.wrapping_add(at) } else { self.high.wrapping_add(at) }
    }
}
