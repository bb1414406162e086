//! What tile kernels are compiled for. The one rule: two types, and rows of the others come to them widened.

use super::aside::Aside;
use super::sums::{Acc, Dot2, Plain};
use base::Dtype;
use base::simd::*;
use base::store::Store;

/// The two types tile kernels are compiled for, each with the sums its data needs.
pub trait Wide: Store {
    type Acc<S: Simd>: Acc<S>;
    /// How rows stored as `dtype` are set aside, if they have to be.
    fn aside(dtype: Dtype, large: bool) -> Option<Aside<Self>>;
}
impl Wide for f64 {
    type Acc<S: Simd> = Dot2<S>;
    fn aside(_: Dtype, large: bool) -> Option<Aside<f64>> {
        large.then(Aside::past)
    }
}
impl Wide for f32 {
    type Acc<S: Simd> = Plain<S>;
    fn aside(dtype: Dtype, large: bool) -> Option<Aside<f32>> {
        Aside::half(dtype).or_else(|| large.then(Aside::past))
    }
}
