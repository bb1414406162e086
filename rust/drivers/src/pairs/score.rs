//! Scores of pairs. The one rule: a score is a sum of steps over the features, a key made of it and of one number per
//! row, and a value that does not decrease with the key, so that a reducer may choose by keys and value only the chosen.

use super::pack::{Bits, DEPTH, Item, Lines, PANEL, Real, pack};
use base::dd::{Dd, Num};
use base::math;
use base::simd::*;

/// A score of two rows.
pub trait Score: Sync {
    /// [`Real`] or [`Bits`]: the rows it takes.
    type Class;
    /// Whether [`Score::term`] says something.
    const TERMS: bool = false;
    /// Whether it is the number of different bits, for which [`super::words`] has instructions.
    const COUNTS: bool = false;
    /// The sum with one feature more.
    fn step<S: Simd>(&self, s: S, sum: f64x8<S>, x: f64x8<S>, y: f64x8<S>) -> f64x8<S>;
    /// The sum of two sums.
    #[inline(always)]
    fn join<S: Simd>(&self, _: S, a: f64x8<S>, b: f64x8<S>) -> f64x8<S> {
        a + b
    }
    /// What the key needs of a row alone, from its squared norm.
    #[inline(always)]
    fn term<S: Simd>(&self, _: S, norm2: Dd<S>) -> f64x8<S> {
        norm2.get()
    }
    /// The key, from the sum and the terms of both rows.
    #[inline(always)]
    fn key<S: Simd>(&self, _: S, sum: f64x8<S>, _: f64x8<S>, _: f64x8<S>) -> f64x8<S> {
        sum
    }
    /// The score, from its key; `single`: as an f32 needs it.
    #[inline(always)]
    fn value<S: Simd>(&self, _: S, key: f64x8<S>, _single: bool) -> f64x8<S> {
        key
    }
}

/// ⟨x, y⟩
pub struct Dot;
impl Score for Dot {
    type Class = Real;
    #[inline(always)]
    fn step<S: Simd>(&self, _: S, sum: f64x8<S>, x: f64x8<S>, y: f64x8<S>) -> f64x8<S> {
        x.mul_add(y, sum)
    }
}

/// ⟨x, y⟩ / (|x| |y|); 0 for a zero row.
pub struct Cosine;
impl Score for Cosine {
    type Class = Real;
    const TERMS: bool = true;
    #[inline(always)]
    fn step<S: Simd>(&self, s: S, sum: f64x8<S>, x: f64x8<S>, y: f64x8<S>) -> f64x8<S> {
        Dot.step(s, sum, x, y)
    }
    #[inline(always)]
    fn term<S: Simd>(&self, _: S, norm2: Dd<S>) -> f64x8<S> {
        norm2.root().get()
    }
    #[inline(always)]
    fn key<S: Simd>(&self, s: S, sum: f64x8<S>, x: f64x8<S>, y: f64x8<S>) -> f64x8<S> {
        x.min(y).simd_eq(0.0).select(f64x8::splat(s, 0.0), sum / x / y)
    }
}

/// |x − y|²
pub struct SquaredDistance;
impl Score for SquaredDistance {
    type Class = Real;
    #[inline(always)]
    fn step<S: Simd>(&self, _: S, sum: f64x8<S>, x: f64x8<S>, y: f64x8<S>) -> f64x8<S> {
        let d = y - x; // in this order the number of x that all lanes take comes out of memory with the subtraction
        d.mul_add(d, sum)
    }
}

/// |x − y|
pub struct Distance;
impl Score for Distance {
    type Class = Real;
    #[inline(always)]
    fn step<S: Simd>(&self, s: S, sum: f64x8<S>, x: f64x8<S>, y: f64x8<S>) -> f64x8<S> {
        SquaredDistance.step(s, sum, x, y)
    }
    #[inline(always)]
    fn value<S: Simd>(&self, _: S, key: f64x8<S>, _single: bool) -> f64x8<S> {
        key.sqrt()
    }
}

/// Distance in the Poincaré ball of curvature −c: d = 2/√c arsinh √(c q / αβ), q = |x − y|², α = 1 − c|x|²,
/// β = 1 − c|y|²; for c = 0 its limit 2√q. NaN outside the ball.
pub struct Hyperbolic {
    pub c: f64,
}
impl Score for Hyperbolic {
    type Class = Real;
    const TERMS: bool = true;
    #[inline(always)]
    fn step<S: Simd>(&self, s: S, sum: f64x8<S>, x: f64x8<S>, y: f64x8<S>) -> f64x8<S> {
        SquaredDistance.step(s, sum, x, y)
    }
    /// 1/α, to the last bit near the boundary too.
    #[inline(always)]
    fn term<S: Simd>(&self, s: S, norm2: Dd<S>) -> f64x8<S> {
        let alpha = (Dd::of(f64x8::splat(s, 1.0)) - norm2 * f64x8::splat(s, self.c)).get();
        1.0 / alpha.simd_ge(0.0).select(alpha, f64x8::splat(s, f64::NAN))
    }
    #[inline(always)]
    fn key<S: Simd>(&self, _: S, sum: f64x8<S>, x: f64x8<S>, y: f64x8<S>) -> f64x8<S> {
        sum * (x * y)
    }
    #[inline(always)]
    fn value<S: Simd>(&self, s: S, key: f64x8<S>, single: bool) -> f64x8<S> {
        let root = self.c.sqrt();
        // so small a curvature changes no digit of an f32, whose largest numbers are not near the edge
        if root == 0.0 || (single && self.c < 1e-100) {
            let w = key.sqrt();
            return w + w;
        }
        if single {
            // 2 arsinh √u = log(1 + 2(u + √(u(u + 1)))): one root and no division
            let u = key * self.c;
            return math::single::log1p(s, (u + (u * (u + 1.0)).sqrt()) * 2.0) * (1.0 / root);
        }
        // the fewest roundings; where c key may underflow, the roots are taken apart
        let w = if self.c > 1e-100 { (key * self.c).sqrt() } else { key.sqrt() * root };
        let w = math::asinh(s, w);
        (w + w) / root
    }
}

/// The number of different bits.
pub struct Hamming;
impl Score for Hamming {
    type Class = Bits;
    const COUNTS: bool = true;
    #[inline(always)]
    fn step<S: Simd>(&self, s: S, sum: f64x8<S>, x: f64x8<S>, y: f64x8<S>) -> f64x8<S> {
        let (x, y): (u64x8<S>, u64x8<S>) = (x.bitcast(), y.bitcast());
        self.join(s, sum, ones(s, x ^ y).bitcast())
    }
    #[inline(always)]
    fn join<S: Simd>(&self, _: S, a: f64x8<S>, b: f64x8<S>) -> f64x8<S> {
        let (a, b): (u64x8<S>, u64x8<S>) = (a.bitcast(), b.bitcast());
        (a + b).bitcast()
    }
    /// The integer as a number, below 2^52.
    #[inline(always)]
    fn key<S: Simd>(&self, _: S, sum: f64x8<S>, _: f64x8<S>, _: f64x8<S>) -> f64x8<S> {
        let bits: u64x8<S> = sum.bitcast();
        let number: f64x8<S> = (bits | 0x4330_0000_0000_0000).bitcast();
        number - 4_503_599_627_370_496.0
    }
}

/// The number of ones in every lane.
#[inline(always)]
fn ones<S: Simd>(s: S, x: u64x8<S>) -> u64x8<S> {
    let x = x.as_slice();
    let n: [u64; 8] = std::array::from_fn(
        #[inline(always)]
        |i| u64::from(x[i].count_ones()),
    );
    n.simd_into(s)
}

/// The terms of rows `first..first + out.len()`, eight rows at a time, squared norms summed in twice the precision
/// (Dot2 of Ogita, Rump and Oishi, 2005).
pub(super) struct Terms<'a, T, Sc> {
    pub score: &'a Sc,
    pub x: &'a [T],
    pub d: usize,
    pub first: usize,
    pub lines: &'a mut Lines,
    pub packed: &'a mut [f64],
    pub out: &'a mut [f64],
}

impl<T: Item, Sc: Score> Kernel for Terms<'_, T, Sc> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Terms { score, x, d, first, lines, packed, out } = self;
        let end = first + out.len();
        for (at, out) in (first..end).step_by(PANEL).zip(out.chunks_mut(PANEL)) {
            let (mut hi, mut lo) = (f64x8::splat(s, 0.0), f64x8::splat(s, 0.0));
            for k in (0..d).step_by(DEPTH) {
                let depth = DEPTH.min(d - k);
                pack(s, x, d, at..end.min(at + PANEL), k, depth, lines, packed);
                for v in packed[..PANEL * depth].chunks_exact(PANEL) {
                    let v = f64x8::from_slice(s, v);
                    let (p, e) = two_prod(s, v, v);
                    let (sum, r) = two_sum(hi, p);
                    hi = sum;
                    lo += e + r;
                }
            }
            let term = score.term(s, Dd::pair(hi, lo));
            out.copy_from_slice(&term.as_slice()[..out.len()]);
        }
    }
}
