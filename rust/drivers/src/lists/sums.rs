//! Sums over lists. The one rule: they are kept in twice the precision (Ogita, Rump and Oishi, "Accurate sum and dot product",
//! 2005), lanes apart to the end of a chunk, so that an error does not grow with the length of a list.

use base::simd::*;
use base::store::{STEP, Store};

/// hi + lo
#[derive(Clone, Copy, Default, Debug)]
pub struct Sum {
    pub hi: f64,
    pub lo: f64,
}

impl Sum {
    /// The sum of two.
    pub fn and(self, o: Sum) -> Sum {
        let hi = self.hi + o.hi;
        let b = hi - self.hi;
        Sum { hi, lo: ((self.hi - (hi - b)) + (o.hi - b)) + (self.lo + o.lo) }
    }
    /// Rounded to f64; beyond it and of what is not finite there is no rest.
    pub fn get(self) -> f64 {
        if self.hi.is_finite() { self.hi + self.lo } else { self.hi }
    }
}

/// Σ x y
pub fn dot(x: &[f64], y: &[f64]) -> Sum {
    dispatch(Dot(x, y))
}

/// Σ |x|
pub fn absolute(x: &[f64]) -> Sum {
    dispatch(Absolute(x))
}

/// Sixteen lanes, as two vectors of a sum and of what it lacks.
struct Lanes<S: Simd>([[f64x8<S>; 2]; 2]);
impl<S: Simd> Lanes<S> {
    #[inline(always)]
    fn new(s: S) -> Self {
        Lanes([[f64x8::splat(s, 0.0); 2]; 2])
    }
    #[inline(always)]
    fn add(&mut self, k: usize, p: f64x8<S>, e: f64x8<S>) {
        let [hi, lo] = self.0[k];
        let (sum, f) = two_sum(hi, p);
        self.0[k] = [sum, lo + (e + f)];
    }
    #[inline(always)]
    fn total(self) -> Sum {
        let mut all = Sum::default();
        for [hi, lo] in self.0 {
            for (&hi, &lo) in hi.as_slice().iter().zip(lo.as_slice()) {
                all = all.and(Sum { hi, lo });
            }
        }
        all
    }
}

struct Dot<'a>(&'a [f64], &'a [f64]);
impl Kernel for Dot<'_> {
    type Output = Sum;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Sum {
        let Dot(x, y) = self;
        let (mut lanes, whole) = (Lanes::new(s), x.len() / STEP * STEP);
        for (x, y) in x.chunks_exact(STEP).zip(y.chunks_exact(STEP)) {
            let (x, y) = (f64::load16(s, x), f64::load16(s, y));
            for k in 0..2 {
                let (p, e) = two_prod(s, x[k], y[k]);
                lanes.add(k, p, e);
            }
        }
        let (x, y) = (f64::load_tail(s, &x[whole..]), f64::load_tail(s, &y[whole..]));
        for k in 0..2 {
            let (p, e) = two_prod(s, x[k], y[k]);
            lanes.add(k, p, e);
        }
        lanes.total()
    }
}

struct Absolute<'a>(&'a [f64]);
impl Kernel for Absolute<'_> {
    type Output = Sum;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Sum {
        let (mut lanes, zero) = (Lanes::new(s), f64x8::splat(s, 0.0));
        for x in self.0.chunks(STEP) {
            let x = if x.len() == STEP { f64::load16(s, x) } else { f64::load_tail(s, x) };
            for k in 0..2 {
                lanes.add(k, x[k].abs(), zero);
            }
        }
        lanes.total()
    }
}
