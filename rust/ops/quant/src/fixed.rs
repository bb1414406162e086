//! Fixed point: x̂ = clamp(round(x·2^f), −2^(w−1), 2^(w−1) − 1)·2^−f, words of w bits of which f are fractions. The one rule: the
//! product with a power of two is exact, so what is rounded is x itself.

use super::affine::clamp;
use super::drawn::uniform;
use base::random::{Source, tag};
use base::simd::Simd;
use base::{Error, Result, Scalar, Tensor, by_float};
use drivers::flat::{self, BLOCK, Compute, Pass, Real};

#[derive(Clone, Copy)]
struct Words<T> {
    scale: T,
    unit: T,
    lo: T,
    hi: T,
    /// From here on all numbers are integers.
    whole: T,
}

impl<T: Real> Words<T> {
    fn new(w: i64, f: i64) -> Result<Self> {
        if !(2..=32).contains(&w) {
            return Err(Error::Value(format!("wl must lie within 2 and 32, got {w}")));
        }
        if !(-126..=126).contains(&f) {
            return Err(Error::Value(format!("fl must lie within -126 and 126, got {f}")));
        }
        let end = (1i64 << (w - 1)) as f64;
        let hi = T::of(end - 1.0);
        Ok(Words {
            scale: T::power(f as i32),
            unit: T::power(-f as i32),
            lo: -T::of(end),
            // of f32 the last number that is not beyond the words
            hi: if hi.to_f64() < end { hi } else { -(-hi).up() },
            whole: T::of(if size_of::<T>() == 4 { 8_388_608.0 } else { 4_503_599_627_370_496.0 }),
        })
    }

    /// Half to even.
    #[inline(always)]
    fn even(&self, v: T) -> T {
        let a = v.abs();
        let r = if a < self.whole { a + self.whole - self.whole } else { a };
        if v < T::ZERO { -r } else { r }
    }
}

struct Fixed<T: Real> {
    words: Words<T>,
    random: Option<Source>,
    most: T,
}

impl<T: Real> Pass<T, 1, 0, 1, 0> for Fixed<T> {
    type Gather = ();
    fn start(&self, _: usize, _: usize) -> Result<()> {
        Ok(())
    }
    #[inline(always)]
    fn part<S: Simd>(
        &self,
        s: S,
        (): &mut (),
        at: usize,
        [x]: [&[T]; 1],
        _: [&[u8]; 0],
        [y]: [&mut [T]; 1],
        _: [&mut [u8]; 0],
    ) {
        let w = self.words;
        // −0 + 0 is 0: a word has one zero
        let number = |r: T| clamp((r + T::ZERO) * w.unit, -self.most, self.most);
        let Some(source) = self.random else {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = number(w.even(clamp(x * w.scale, w.lo, w.hi)));
            }
            return;
        };
        let mut t = [T::ZERO; 256];
        for (i, (x, y)) in x.chunks(256).zip(y.chunks_mut(256)).enumerate() {
            uniform(s, source, at + i * 256, &mut t[..x.len()]);
            for ((y, &x), &t) in y.iter_mut().zip(x).zip(&t) {
                let v = clamp(x * w.scale, w.lo, w.hi);
                let r = v.trunc();
                let away = if v < T::ZERO { -T::ONE } else { T::ONE };
                *y = number(if t < (v - r).abs() { r + away } else { r });
            }
        }
    }
}

struct Straight<T: Real>(Words<T>);

impl<T: Real> Pass<T, 2, 0, 1, 0> for Straight<T> {
    type Gather = ();
    fn start(&self, _: usize, _: usize) -> Result<()> {
        Ok(())
    }
    #[inline(always)]
    fn part<S: Simd>(
        &self,
        _: S,
        (): &mut (),
        _: usize,
        [g, x]: [&[T]; 2],
        _: [&[u8]; 0],
        [d]: [&mut [T]; 1],
        _: [&mut [u8]; 0],
    ) {
        let w = self.0;
        for ((d, &g), &x) in d.iter_mut().zip(g).zip(x) {
            let r = w.even(x * w.scale);
            *d = if (r >= w.lo) & (r <= w.hi) { g } else { T::ZERO };
        }
    }
}

/// fixed_point(x) -> y; wl, fl, whether rounding is stochastic, seed
pub fn forward(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [x, y] = t else { return Err(super::arrays(2, t)) };
    let random = k[2].bool().then(|| Source::new(k[3].int() as u64, tag::ROUNDING, 0));
    by_float!(x, A => {
        let p = Fixed { words: Words::<<A as Compute>::Real>::new(k[0].int(), k[1].int())?, random, most: A::MOST };
        flat::pass::<A, _, 1, 0, 1, 0>(&p, BLOCK, [x], [], [y], []).map(drop)
    })
}

/// fixed_point_bwd(g, x) -> dx; wl, fl
pub fn backward(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [g, x, dx] = t else { return Err(super::arrays(3, t)) };
    by_float!(x, A => {
        let p = Straight(Words::<<A as Compute>::Real>::new(k[0].int(), k[1].int())?);
        flat::pass::<A, _, 2, 0, 1, 0>(&p, BLOCK, [g, x], [], [dx], []).map(drop)
    })
}
