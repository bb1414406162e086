//! What tile kernels are compiled for. The one rule: two types, and rows of the others come to them widened.

use super::aside::Aside;
use super::block::{Block, blocks};
use super::call::Call;
use super::functor::Ground;
use super::sums::{Acc, Dot2, Plain};
use base::simd::*;
use base::store::Store;
use base::{Dtype, Result};

/// The two types tile kernels are compiled for, each with the sums its data needs.
pub trait Wide: Store {
    type Acc<S: Simd>: Acc<S>;
    /// How rows stored as `dtype` are set aside, if they have to be.
    fn aside(dtype: Dtype, large: bool) -> Option<Aside<Self>>;
    /// Does each block of a call. Not generic: compiled once, whatever the operator.
    #[doc(hidden)]
    fn blocks(call: &Call, ground: &dyn Ground, each: &(dyn Fn(Block<Self>) + Sync)) -> Result<()>;
}
impl Wide for f64 {
    type Acc<S: Simd> = Dot2<S>;
    fn aside(_: Dtype, large: bool) -> Option<Aside<f64>> {
        large.then(Aside::past)
    }
    fn blocks(call: &Call, ground: &dyn Ground, each: &(dyn Fn(Block<f64>) + Sync)) -> Result<()> {
        blocks(call, ground, each)
    }
}
impl Wide for f32 {
    type Acc<S: Simd> = Plain<S>;
    fn aside(dtype: Dtype, large: bool) -> Option<Aside<f32>> {
        Aside::half(dtype).or_else(|| large.then(Aside::past))
    }
    fn blocks(call: &Call, ground: &dyn Ground, each: &(dyn Fn(Block<f32>) + Sync)) -> Result<()> {
        blocks(call, ground, each)
    }
}
