//! Numbers of one type as those of another. The one rule: a number is rounded once, whichever way it goes.

use super::{STEP, Store};
use crate::simd::{Kernel, Simd, dispatch};

/// Writes x into y, each number rounded to nearest even; as many as there are of both.
pub fn convert<A: Store, B: Store>(x: &[A], y: &mut [B]) {
    dispatch(Convert(x, y));
}

struct Convert<'a, A, B>(&'a [A], &'a mut [B]);
impl<A: Store, B: Store> Kernel for Convert<'_, A, B> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // by way of f32 where that holds both, in half of the vectors
        let single = const { size_of::<A>() < 8 && size_of::<B>() < 8 };
        let Convert(x, y) = self;
        for (x, y) in x.chunks(STEP).zip(y.chunks_mut(STEP)) {
            match (single, x.len() == STEP && y.len() == STEP) {
                (true, true) => B::store16_f32(s, A::load16_f32(s, x), y),
                (true, false) => B::store_tail_f32(s, A::load_tail_f32(s, x), y),
                (false, true) => B::store16(s, A::load16(s, x), y),
                (false, false) => B::store_tail(s, A::load_tail(s, x), y),
            }
        }
    }
}
