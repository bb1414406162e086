//! Segments told by labels and by the axes that are kept, and reductions over them. The one rule: a segment's elements are added in
//! the order of the array, in blocks that follow from shapes alone, and blocks are joined in order.
//!
//! Where all of a segment lies together and fits into a cache, a block is some whole segments, which are read again while they
//! are near. Elsewhere every block has a table of all segments.

pub use super::labels::{FEW, Labels};
use super::labels::{OUTSIDE, labels};
use super::walk::{self, Piece, Walk};
use base::pool::{self, Shared};
use base::simd::*;
use base::store::Store;
use base::{Error, Result, Tensor, by_float, try_vec};
use std::marker::PhantomData;
use std::ops::Range;

/// Arrays beside: the axes that are kept, labels and weights come first.
pub const OWN: usize = 3;
const KEPT: usize = 0;
const LABEL: usize = 1;
const WEIGHT: usize = 2;
/// Bytes of a segment that is read again while it is near.
const NEAR: usize = 1 << 20;
/// Elements of whole segments that are read again from the nearest cache.
const NEAREST: usize = 1 << 12;
/// Elements of a block of whole segments.
pub const BLOCK: usize = 1 << 14;

/// To which segment each element of an array belongs, and what it weighs; the element is in segment label · kept + k.
pub struct Places<const K: usize> {
    pub walk: Walk<K>,
    /// How many segments there are.
    pub len: usize,
    kept: usize,
    labels: Vec<u32>,
    weights: Vec<f64>,
    bytes: usize,
}

/// The segments of neighbours.
pub enum Ids<'a> {
    /// They lie in no segment.
    None,
    One(usize),
    /// The first of them, and the next ones the next.
    Run(usize),
    Each(&'a [usize]),
}

impl Ids<'_> {
    #[inline(always)]
    pub fn at(&self, i: usize) -> Option<usize> {
        match self {
            Ids::None => None,
            Ids::One(id) => Some(*id),
            Ids::Run(from) => Some(from + i),
            Ids::Each(ids) => Some(ids[i]).filter(|&id| id != usize::MAX),
        }
    }
}

/// The weights of neighbours.
pub enum Weight<'a> {
    One(f64),
    Each(&'a [f64]),
}

impl Weight<'_> {
    #[inline(always)]
    pub fn at(&self, i: usize) -> f64 {
        match self {
            Weight::One(w) => *w,
            Weight::Each(w) => w[i],
        }
    }
}

/// Numbers of any float type, in float64.
pub fn numbers(t: &Tensor) -> Result<Vec<f64>> {
    let mut out = try_vec(t.len(), 0.0)?;
    by_float!(t, A => {
        for (o, v) in out.iter_mut().zip(t.slice::<A>()?) {
            *o = v.to_f64();
        }
        Ok(out)
    })
}

/// Writes numbers in the type of the array.
pub fn write(t: &Tensor, numbers: &[f64]) -> Result<()> {
    by_float!(t, A => {
        t.slice_mut::<A>()?.iter_mut().zip(numbers).for_each(|(o, v)| *o = A::from_f64(*v));
        Ok(())
    })
}

/// What blocks gathered, added in their order.
pub fn total(tables: &[Vec<f64>], n: usize) -> Result<Vec<f64>> {
    let mut sum = try_vec(n, 0.0)?;
    for table in tables {
        sum.iter_mut().zip(table).for_each(|(a, b)| *a += b);
    }
    Ok(sum)
}

fn absent(t: &Tensor) -> bool {
    t.shape() == [0]
}

impl<const K: usize> Places<K> {
    /// Segments of `x` by the bits of the axes that are kept and by labels, of which there are `-groups` where they are given;
    /// and arrays beside.
    pub fn new(
        x: &Tensor,
        axes: i64,
        groups: i64,
        ids: &Tensor,
        (name, weight): (&str, &Tensor),
        beside: &[(&str, &Tensor)],
    ) -> Result<Self> {
        let (shape, mut steps) = (x.shape(), [[0; base::MAX_DIMS]; K]);
        let (own, kept) = walk::kept(shape, axes);
        let segments = groups.unsigned_abs() as usize;
        steps[KEPT] = own;
        for (k, name, t) in [(LABEL, "labels", ids), (WEIGHT, name, weight)] {
            if !absent(t) {
                steps[k] = walk::steps(name, shape, t)?;
            }
        }
        for (i, (name, t)) in beside.iter().enumerate().filter(|(_, (_, t))| !absent(t)) {
            steps[OWN + i] = walk::steps(name, shape, t)?;
        }
        if groups > 0 || (groups == 0) != absent(ids) {
            return Err(Error::Value("labels need their number, and it them".into()));
        }
        let len = if groups == 0 { Some(kept) } else { kept.checked_mul(segments) }.filter(|&n| n < 1 << 62);
        let Some(len) = len else {
            return Err(Error::Value(format!("{segments} segments of {kept} are too many")));
        };
        let labels = if groups == 0 { Vec::new() } else { labels(ids, segments)? };
        let weights = if absent(weight) { Vec::new() } else { numbers(weight)? };
        if let Some((i, w)) = weights.iter().enumerate().find(|(_, w)| !(**w >= 0.0 && w.is_finite())) {
            return Err(Error::Value(format!("{name}[{i}] is {w}, weights must be finite and not negative")));
        }
        let bytes = x.dtype().size();
        Ok(Places { walk: Walk::new(shape, steps), len, kept, labels, weights, bytes })
    }

    /// Whether neighbours lie in neighbouring segments, and whether in any others or with weights of their own.
    pub fn apart(&self) -> [bool; 2] {
        let each = [LABEL, WEIGHT].iter().any(|&k| self.walk.step[k] != 0);
        [!each && self.walk.step[KEPT] != 0, each]
    }

    pub fn weighted(&self) -> bool {
        !self.weights.is_empty()
    }

    /// Room for the segments of a piece.
    pub fn room(&self) -> Result<Vec<usize>> {
        let each = self.walk.step[LABEL] != 0;
        try_vec(if each { self.walk.longest() } else { 0 }, 0)
    }

    #[inline(always)]
    pub fn ids<'a>(&self, p: &Piece<K>, room: &'a mut [usize]) -> Ids<'a> {
        let (k, step) = (p.of[KEPT], self.walk.step[KEPT]);
        if self.labels.is_empty() {
            return if step == 0 { Ids::One(k) } else { Ids::Run(k) };
        }
        if self.walk.step[LABEL] == 0 {
            return match self.labels[p.of[LABEL]] {
                OUTSIDE => Ids::None,
                label if step == 0 => Ids::One(label as usize * self.kept + k),
                label => Ids::Run(label as usize * self.kept + k),
            };
        }
        for (i, (id, &label)) in room[..p.len].iter_mut().zip(&self.labels[p.of[LABEL]..]).enumerate() {
            let at = (label as usize).wrapping_mul(self.kept).wrapping_add(k + i * step);
            *id = if label == OUTSIDE { usize::MAX } else { at };
        }
        Ids::Each(&room[..p.len])
    }

    /// The labels of a piece, if every neighbour has its own.
    #[inline(always)]
    pub fn labels(&self, p: &Piece<K>) -> Option<Labels<'_>> {
        let own = self.walk.step[LABEL] == 1 && self.walk.step[KEPT] == 0;
        own.then(|| Labels { each: &self.labels[p.of[LABEL]..p.of[LABEL] + p.len], kept: self.kept, k: p.of[KEPT] })
    }

    /// How many labels there are, where they are so few that neighbours are met in vectors once for each.
    #[inline(always)]
    pub fn few(&self) -> Option<usize> {
        let labels = self.len / self.kept.max(1);
        (!self.labels.is_empty() && labels <= FEW).then_some(labels)
    }

    #[inline(always)]
    pub fn weight(&self, p: &Piece<K>) -> Weight<'_> {
        match (self.weights.is_empty(), self.walk.step[WEIGHT]) {
            (true, _) => Weight::One(1.0),
            (_, 0) => Weight::One(self.weights[p.of[WEIGHT]]),
            _ => Weight::Each(&self.weights[p.of[WEIGHT]..p.of[WEIGHT] + p.len]),
        }
    }

    /// Where the weight of a piece lies, and the step along it.
    pub fn weight_place(&self, p: &Piece<K>) -> (usize, usize) {
        (p.of[WEIGHT], self.walk.step[WEIGHT])
    }

    /// Pieces of a segment, where it is one run of the array, all of which weighs the same, and near when it is met again.
    pub fn together(&self) -> Option<usize> {
        self.whole().filter(|_| self.weights.is_empty())
    }

    /// Pieces of a segment, where a block is of whole segments: they lie together and are near when they are read again.
    fn whole(&self) -> Option<usize> {
        let per = self.walk.solid(KEPT).filter(|_| self.labels.is_empty())?;
        (per * self.walk.longest() * self.bytes <= NEAR && self.walk.pieces() == per * self.len).then_some(per)
    }
}

/// A reduction over segments, and what these send back.
pub trait Reduction<const K: usize>: Sync {
    /// What is known of some segments, and whatever else a block gathers.
    type Table: Send + Sync;
    /// Numbers of a table besides those of its segments.
    fn extra(&self) -> usize {
        0
    }
    fn table(&self, segments: Range<usize>) -> Result<Self::Table>;
    /// `#[inline(always)]` in every implementation, as the following.
    fn gather<S: Simd>(&self, s: S, table: &mut Self::Table, pieces: Range<usize>) -> Result<()>;
    fn merge(&self, into: &mut Self::Table, later: &Self::Table);
    /// All of these segments was gathered.
    fn finish(&self, _: &mut Self::Table, _: Range<usize>) {}
    /// Whether pieces are met once more.
    fn spreads(&self) -> bool {
        false
    }
    #[inline(always)]
    fn spread<S: Simd>(&self, _: S, _: &Self::Table, _: Range<usize>) -> Result<()> {
        Ok(())
    }
}

struct Gather<'a, const K: usize, R: Reduction<K>>(&'a R, &'a mut R::Table, Range<usize>);
impl<const K: usize, R: Reduction<K>> Kernel for Gather<'_, K, R> {
    type Output = Result<()>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Result<()> {
        let Gather(r, table, pieces) = self;
        r.gather(s, table, pieces)
    }
}
struct Spread<'a, const K: usize, R: Reduction<K>>(&'a R, &'a R::Table, Range<usize>);
impl<const K: usize, R: Reduction<K>> Kernel for Spread<'_, K, R> {
    type Output = Result<()>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Result<()> {
        let Spread(r, table, pieces) = self;
        r.spread(s, table, pieces)
    }
}

/// Reduces; what is left are tables in order, of whole segments each or one of all.
pub fn reduce<const K: usize, R: Reduction<K>>(places: &Places<K>, r: &R) -> Result<Vec<R::Table>> {
    let (walk, n) = (&places.walk, places.len);
    let work = walk.pieces().saturating_mul(walk.longest());
    if let Some(per) = places.whole() {
        let size = (per * walk.longest()).max(1);
        let near = (NEAREST / size).max(1);
        // as many blocks as their tables allow
        let most = walk.block(r.extra()).div_ceil(per.max(1));
        let each = if r.extra() == 0 { (BLOCK / size).max(1) } else { (BLOCK / size).max(1).max(most) };
        return pool::map(n.div_ceil(each), work, |b| {
            let segments = b * each..n.min((b + 1) * each);
            let mut table = r.table(segments.clone())?;
            for first in segments.clone().step_by(near) {
                let some = first..segments.end.min(first + near);
                let pieces = some.start * per..some.end * per;
                dispatch(Gather(r, &mut table, pieces.clone()))?;
                r.finish(&mut table, some);
                if r.spreads() {
                    dispatch(Spread(r, &table, pieces))?;
                }
            }
            Ok(table)
        })?
        .into_iter()
        .collect();
    }
    let block = walk.block(4 * n + r.extra());
    let blocks = walk.pieces().div_ceil(block);
    let pieces = |b: usize| b * block..walk.pieces().min((b + 1) * block);
    let mut all = r.table(0..n)?;
    let tables = pool::map(blocks, work, |b| {
        let mut table = r.table(0..n)?;
        dispatch(Gather(r, &mut table, pieces(b)))?;
        Ok(table)
    })?;
    for table in tables {
        r.merge(&mut all, &table?);
    }
    r.finish(&mut all, 0..n);
    if r.spreads() {
        let block = walk.block(0);
        let pieces = |b: usize| b * block..walk.pieces().min((b + 1) * block);
        pool::map(walk.pieces().div_ceil(block), work, |b| dispatch(Spread(r, &all, pieces(b))))?
            .into_iter()
            .collect::<Result<()>>()?;
    }
    Ok(vec![all])
}

/// A result of which every piece has its own part.
pub struct Out<'a, T>(Shared<T>, usize, PhantomData<&'a mut [T]>);
impl<'a, T> Out<'a, T> {
    pub fn new(t: &'a mut [T]) -> Self {
        Out(Shared(t.as_mut_ptr()), t.len(), PhantomData)
    }
    /// The part of a piece, which is handed out once in a sweep.
    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    pub fn part<const K: usize>(&self, p: &Piece<K>) -> &mut [T] {
        assert!(p.at + p.len <= self.1);
        // SAFETY: within the array that is borrowed; pieces are made by a walk, or by one task for each block of rows: they are
        // disjoint and each is met by one task, and what a sweep writes it asks for once.
        unsafe { self.0.part(p.at, p.len) }
    }
}
