//! Stacks of pairs of arrays of rows: the batch. The one rule: small pairs go side by side, large ones each on all threads.

use super::{Extent, Item, Reduce, Score, walk};
use base::pool::{self, Context};
use base::{Element, Error, Result, Tensor};
use std::ops::Range;

/// Multiply-adds under which a pair of arrays is one task.
const SMALL: usize = 1 << 22;

/// Two row-major arrays of rows: x [n, d] and y [m, d].
#[derive(Clone, Copy)]
pub struct Sides<'a, T> {
    pub x: &'a [T],
    pub y: &'a [T],
    pub n: usize,
    pub m: usize,
    pub d: usize,
}

impl<'a, T> Sides<'a, T> {
    pub fn new(x: &'a [T], y: &'a [T], n: usize, m: usize, d: usize) -> Result<Self> {
        if n.checked_mul(d) != Some(x.len()) || m.checked_mul(d) != Some(y.len()) {
            return Err(Error::Value(format!("{} and {} elements are not {n} and {m} rows of {d}", x.len(), y.len())));
        }
        Ok(Sides { x, y, n, m, d })
    }
    /// The sides with their roles changed.
    pub fn turned(&self) -> Self {
        Sides { x: self.y, y: self.x, n: self.m, m: self.n, d: self.d }
    }
    /// Scores every row of x with the rows of y that it meets, and reduces over these.
    pub fn run<Sc, E, R>(&self, score: &Sc, extent: &E, reduce: &R) -> Result<()>
    where
        Sc: Score,
        T: Item<Class = Sc::Class>,
        E: Extent,
        R: Reduce,
    {
        walk(score, extent, reduce, self, 0..self.n)
    }
}

/// Stacks of both: x [batch, n, d] and y [batch, m, d].
pub struct Stacks<'a, T> {
    x: &'a [T],
    y: &'a [T],
    pub batch: usize,
    pub n: usize,
    pub m: usize,
    pub d: usize,
}

impl<'a, T: Element> Stacks<'a, T> {
    pub fn new(x: &Tensor<'a>, y: &Tensor<'a>) -> Result<Self> {
        let (&[ref lead @ .., n, d], &[ref other @ .., m, e]) = (x.shape(), y.shape()) else {
            return Err(Error::Value(format!("two axes or more are needed, got {:?} and {:?}", x.shape(), y.shape())));
        };
        if lead != other || d != e {
            return Err(Error::Value(format!("{:?} and {:?} do not go together", x.shape(), y.shape())));
        }
        Ok(Stacks { x: x.slice()?, y: y.slice()?, batch: lead.iter().product(), n, m, d })
    }
    /// Pair `i` of the stacks.
    pub fn sides(&self, i: usize) -> Sides<'a, T> {
        let part = |of: &'a [T], size: usize| &of[i * size..(i + 1) * size];
        Sides { x: part(self.x, self.n * self.d), y: part(self.y, self.m * self.d), n: self.n, m: self.m, d: self.d }
    }
    /// The rows of x that pair `i` has, of all.
    pub fn rows(&self, i: usize) -> Range<usize> {
        i * self.n..(i + 1) * self.n
    }
    /// `f` of every pair.
    pub fn each<V: Send>(&self, f: impl Fn(usize) -> Result<V> + Sync) -> Result<Vec<V>> {
        let work = self.n.saturating_mul(self.m).saturating_mul(self.d);
        if work >= SMALL || self.batch == 1 {
            return (0..self.batch).map(f).collect();
        }
        let alone = Context { runner: None, threads: 1, poll: None };
        pool::map(self.batch, work.saturating_mul(self.batch), |i| pool::with(alone, || f(i)))?.into_iter().collect()
    }
}
