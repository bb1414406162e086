//! Labels as a walk over an array reads them. The one rule: they are checked once, before anything is computed.

use crate::select::bools;
use base::simd::*;
use base::store::STEP;
use base::{Dtype, Error, Result, Tensor, try_vec};

/// The most labels for each of which neighbours are met in vectors.
pub const FEW: usize = 4;
/// The label of what lies in no segment.
pub(super) const OUTSIDE: u32 = u32::MAX;

/// The labels of an array, which are checked here.
pub(super) fn labels(t: &Tensor, segments: usize) -> Result<Vec<u32>> {
    // the largest of all is −1, which is no segment
    let most = segments.min(OUTSIDE as usize) as i64;
    match t.dtype() {
        Dtype::I64 => dispatch(Narrow(t.slice::<i64>()?, most)),
        Dtype::I32 => dispatch(Narrow(t.slice::<i32>()?, most)),
        Dtype::U8 => dispatch(Narrow(t.slice::<u8>()?, most)),
        Dtype::Bool => dispatch(Narrow(bools(t)?, most)),
        other => Err(Error::Type(format!("labels must be int64, int32, uint8 or bool, got {}", other.name()))),
    }
}

struct Narrow<'a, I>(&'a [I], i64);
impl<I: Copy + Into<i64>> Kernel for Narrow<'_, I> {
    type Output = Result<Vec<u32>>;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Self::Output {
        let Narrow(read, most) = self;
        let (mut out, mut wrong) = (try_vec(read.len(), OUTSIDE)?, false);
        for (to, &v) in out.iter_mut().zip(read) {
            let v: i64 = v.into();
            *to = v as u32;
            wrong |= (v < -1) | (v >= most);
        }
        let found = read.iter().map(|&v| v.into()).enumerate().find(|&(_, v)| wrong && (v < -1 || v >= most));
        match found {
            Some((i, v)) => Err(Error::Value(format!("labels[{i}] is {v}, it must lie in [-1, {most})"))),
            None => Ok(out),
        }
    }
}

/// The labels of neighbours that differ in nothing else: segments `label · kept + k`.
#[derive(Clone, Copy)]
pub struct Labels<'a> {
    pub each: &'a [u32],
    pub(super) kept: usize,
    pub(super) k: usize,
}

impl Labels<'_> {
    #[inline(always)]
    pub fn id(&self, label: usize) -> usize {
        label * self.kept + self.k
    }
    #[inline(always)]
    pub fn at(&self, i: usize) -> Option<usize> {
        let label = self.each[i];
        if label == OUTSIDE { None } else { Some(self.id(label as usize)) }
    }
    /// Which of sixteen neighbours from `at` on, of `n` that there are, have this label.
    #[inline(always)]
    pub fn marked<S: Simd>(&self, s: S, label: usize, at: usize, n: usize) -> mask32x16<S> {
        let label = u32x16::splat(s, label as u32);
        if n == STEP {
            return u32x16::from_slice(s, &self.each[at..at + STEP]).simd_eq(label);
        }
        let mut rest = [OUTSIDE; STEP];
        rest[..n].copy_from_slice(&self.each[at..at + n]);
        u32x16::from_slice(s, &rest).simd_eq(label)
    }
    /// The same of both vectors of float64.
    #[inline(always)]
    pub fn marked_wide<S: Simd>(&self, s: S, label: usize, at: usize, n: usize) -> [mask64x8<S>; 2] {
        let ones = self.marked(s, label, at, n).select(f32x16::splat(s, 1.0), f32x16::splat(s, 0.0));
        let (a, b) = ones.widen();
        [a.simd_eq(1.0), b.simd_eq(1.0)]
    }
}
