//! Fake quantization: x̂ = (clamp(rne(x/s) + z, lo, hi) − z)·s without leaving floats, and its gradients. The one rule: it is
//! a map, so NaN stays NaN, and it equals dequantize(quantize(x)) wherever x is a number.
//!
//! With L = lo − z, H = hi − z and r = rne(x/s), the inside is L ≤ r ≤ H, on the rounded and not on the clamped value:
//!
//! |         | ∂x̂/∂x | ∂x̂/∂s      | ∂x̂/∂z |
//! |---------|--------|------------|--------|
//! | inside  | 1      | r − x/s    | 0      |
//! | outside | 0      | L or H     | −s     |
//!
//! Straight-through estimator of Bengio, Léonard and Courville (2013) for x; for s, Esser et al., "Learned step size
//! quantization" (2020), equation 3; for z, Bhalgat et al., "LSQ+" (2020), equation 4.

use super::affine::{Affine, Range, Round, clamp, end, over};
use super::grain::Piece;
use super::scales::{Form, Scales};
use base::simd::*;
use base::store::{STEP, Store};
use base::{Dtype, Error, Result, Scalar, Tensor, by_float, try_vec};
use drivers::flat::{self, BLOCK, Compute, Pass, Real};

struct Fake<'a, T: Real> {
    scales: &'a Scales<'a, T>,
    range: Range,
    form: Form,
    /// Of the forward alone: gradients are those of the nearest codes.
    round: Round,
    /// The largest finite number of the type that is stored.
    most: T,
}

impl<T: Real> Fake<'_, T> {
    #[inline(always)]
    fn affine(&self, i: usize) -> (Affine<T>, T) {
        (Affine::new(self.scales.scale(i), self.scales.zero(i), self.range, self.form), self.scales.scale(i))
    }
    #[inline(always)]
    fn number(&self, x: T, (a, s): (Affine<T>, T)) -> T {
        let end = end(s, self.most);
        clamp((a.clamped(self.recip(), x) + T::MAGIC - T::MAGIC - a.left) * s, -end, end)
    }
    /// As `number` of each, by fractions over limits that are drawn for the elements from `at` on.
    #[inline(always)]
    fn over<S: Simd>(&self, s: S, at: usize, x: &[T], y: &mut [T], affine: impl Fn(usize) -> (Affine<T>, T)) {
        let mut t = [T::ZERO; 256];
        for (i, (x, y)) in x.chunks(256).zip(y.chunks_mut(256)).enumerate() {
            self.round.limits(s, at + i * 256, &mut t[..x.len()]);
            for (j, ((y, &x), &t)) in y.iter_mut().zip(x).zip(&t).enumerate() {
                let (a, scale) = affine(i * 256 + j);
                let end = end(scale, self.most);
                *y = clamp((over(a.clamped(self.recip(), x), t) - a.left) * scale, -end, end);
            }
        }
    }
    #[inline(always)]
    fn recip(&self) -> bool {
        self.form == Form::Reciprocal
    }
}

impl<T: Real> Pass<T, 1, 0, 1, 0> for Fake<'_, T> {
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
        let nearest = matches!(self.round, Round::HalfEven);
        self.scales.grain.walk(
            at,
            x.len(),
            #[inline(always)]
            |piece| match piece {
                Piece::One(from, to, i) if !nearest => {
                    let a = self.affine(i);
                    self.over(s, at + from, &x[from..to], &mut y[from..to], |_| a);
                }
                Piece::Each(from, to, i) if !nearest => {
                    self.over(s, at + from, &x[from..to], &mut y[from..to], |j| self.affine(i + j));
                }
                Piece::One(from, to, i) => {
                    let a = self.affine(i);
                    for (y, &x) in y[from..to].iter_mut().zip(&x[from..to]) {
                        *y = self.number(x, a);
                    }
                }
                Piece::Each(from, to, i) => {
                    for (j, (y, &x)) in y[from..to].iter_mut().zip(&x[from..to]).enumerate() {
                        *y = self.number(x, self.affine(i + j));
                    }
                }
            },
        );
    }
}

/// The quotients that are rounded to a code: rne(v) ≥ L is v ≥ L − 1/2, and a tie goes to the even one.
#[derive(Clone, Copy)]
struct Inside<T> {
    low: T,
    high: T,
}

impl<T: Real> Inside<T> {
    #[inline(always)]
    fn of(a: Affine<T>) -> Self {
        let (low, high) = (a.lo - T::of(0.5), a.hi + T::of(0.5));
        Inside { low: if even(a.lo) { low } else { low.up() }, high: if even(a.hi) { high } else { -(-high).up() } }
    }
    #[inline(always)]
    #[allow(clippy::needless_bitwise_bool)] // a branch would keep the loop from becoming vectors: 1.4 times the time
    fn has(self, v: T) -> bool {
        (v >= self.low) & (v <= self.high)
    }
}

#[inline(always)]
fn even<T: Real>(v: T) -> bool {
    (v + T::MAGIC).low() & 1 == 0
}

struct Straight<'a, T: Real>(Fake<'a, T>);

impl<T: Real> Pass<T, 2, 0, 1, 0> for Straight<'_, T> {
    type Gather = ();
    fn start(&self, _: usize, _: usize) -> Result<()> {
        Ok(())
    }
    #[inline(always)]
    fn part<S: Simd>(
        &self,
        _: S,
        (): &mut (),
        at: usize,
        [g, x]: [&[T]; 2],
        _: [&[u8]; 0],
        [d]: [&mut [T]; 1],
        _: [&mut [u8]; 0],
    ) {
        let p = &self.0;
        let recip = p.recip();
        p.scales.grain.walk(
            at,
            x.len(),
            #[inline(always)]
            |piece| match piece {
                Piece::One(from, to, i) => {
                    let a = p.affine(i).0;
                    let inside = Inside::of(a);
                    for ((d, &g), &x) in d[from..to].iter_mut().zip(&g[from..to]).zip(&x[from..to]) {
                        *d = if inside.has(a.quotient(recip, x)) { g } else { T::ZERO };
                    }
                }
                Piece::Each(from, to, i) => {
                    for (j, ((d, &g), &x)) in d[from..to].iter_mut().zip(&g[from..to]).zip(&x[from..to]).enumerate() {
                        let a = p.affine(i + j).0;
                        *d = if Inside::of(a).has(a.quotient(recip, x)) { g } else { T::ZERO };
                    }
                }
            },
        );
    }
}

struct Learned<'a, T: Real>(Fake<'a, T>);

/// The gradients of the scales and zero points that a block uses, from the first of them on.
struct Sums {
    first: usize,
    s: Vec<f64>,
    z: Vec<f64>,
}

impl<T: Real> Learned<'_, T> {
    /// dx, the slope in s, and, where x is outside, g itself: −∂/∂z in units of s.
    #[inline(always)]
    fn one(&self, g: T, x: T, a: Affine<T>, inside: Inside<T>) -> (T, T, T) {
        let v = a.quotient(self.0.recip(), x);
        let end = clamp(v, a.lo, a.hi);
        if inside.has(v) { (g, end + T::MAGIC - T::MAGIC - v, T::ZERO) } else { (T::ZERO, end - a.left, g) }
    }
}

impl<T: Real> Pass<T, 2, 0, 1, 0> for Learned<'_, T> {
    type Gather = Sums;
    fn start(&self, at: usize, len: usize) -> Result<Sums> {
        let (first, end) = self.0.scales.grain.used(at, len);
        Ok(Sums { first, s: try_vec(end - first, 0.0)?, z: try_vec(end - first, 0.0)? })
    }
    #[inline(always)]
    fn part<S: Simd>(
        &self,
        s: S,
        sums: &mut Sums,
        at: usize,
        [g, x]: [&[T]; 2],
        _: [&[u8]; 0],
        [d]: [&mut [T]; 1],
        _: [&mut [u8]; 0],
    ) {
        let p = &self.0;
        let (mut slope, mut outside) = ([T::ZERO; 256], [T::ZERO; 256]);
        p.scales.grain.walk(
            at,
            x.len(),
            #[inline(always)]
            |piece| match piece {
                Piece::One(from, to, i) => {
                    let (a, scale) = p.affine(i);
                    let inside = Inside::of(a);
                    let (mut ds, mut dz) = ([f64x8::splat(s, 0.0); 2], [f64x8::splat(s, 0.0); 2]);
                    for from in (from..to).step_by(256) {
                        let n = 256.min(to - from);
                        let (d, g, x) = (&mut d[from..from + n], &g[from..from + n], &x[from..from + n]);
                        for (j, ((d, &g), &x)) in d.iter_mut().zip(g).zip(x).enumerate() {
                            (*d, slope[j], outside[j]) = self.one(g, x, a, inside);
                        }
                        // sums are f64, sixteen lanes, products rounded on their own: the same bits everywhere
                        for ((g, slope), outside) in g.chunks(STEP).zip(slope.chunks(STEP)).zip(outside.chunks(STEP)) {
                            let n = g.len();
                            let (g, slope, outside) = if n == STEP {
                                (T::load16(s, g), T::load16(s, slope), T::load16(s, outside))
                            } else {
                                (T::load_tail(s, g), T::load_tail(s, &slope[..n]), T::load_tail(s, &outside[..n]))
                            };
                            for l in 0..2 {
                                ds[l] += g[l] * slope[l];
                                dz[l] += outside[l];
                            }
                        }
                    }
                    sums.s[i - sums.first] += hsum(ds[0] + ds[1]);
                    sums.z[i - sums.first] -= hsum(dz[0] + dz[1]) * scale.to_f64();
                }
                Piece::Each(from, to, i) => {
                    let n = to - from;
                    let (ds, dz) = (&mut sums.s[i - sums.first..][..n], &mut sums.z[i - sums.first..][..n]);
                    for (j, ((d, &g), &x)) in d[from..to].iter_mut().zip(&g[from..to]).zip(&x[from..to]).enumerate() {
                        let (a, scale) = p.affine(i + j);
                        let (dx, slope, outside) = self.one(g, x, a, Inside::of(a));
                        *d = dx;
                        ds[j] += g.to_f64() * slope.to_f64();
                        dz[j] -= outside.to_f64() * scale.to_f64();
                    }
                }
            },
        );
    }
}

fn prepare<'a, T: Real>(t: [&Tensor<'a>; 3], k: &[Scalar]) -> Result<(Scales<'a, T>, Range, Form)> {
    let form = Form::of(k[2].int())?;
    Ok((Scales::new(t[0], t[1], t[2], form)?, Range::new(k[0].int(), k[1].int())?, form))
}

/// fake_quantize(x, scale, zero_point) -> y; lo, hi, form, and, except for the learned one, rounding and seed
pub fn forward(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [x, scale, zero, y] = t else { return Err(super::arrays(4, t)) };
    by_float!(x, A => {
        let (scales, range, form) = prepare::<<A as Compute>::Real>([x, scale, zero], k)?;
        let round = if k.len() > 4 { Round::of::<<A as Compute>::Real>(k[3].int(), k[4].int())? } else { Round::HalfEven };
        let p = Fake { scales: &scales, range, form, round, most: A::MOST };
        flat::pass::<A, _, 1, 0, 1, 0>(&p, BLOCK, [x], [], [y], []).map(drop)
    })
}

/// fake_quantize_bwd(g, x, scale, zero_point) -> dx; lo, hi, form
pub fn backward(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [g, x, scale, zero, dx] = t else { return Err(super::arrays(5, t)) };
    by_float!(x, A => {
        let (scales, range, form) = prepare::<<A as Compute>::Real>([x, scale, zero], k)?;
        let p = Straight(Fake { scales: &scales, range, form, round: Round::HalfEven, most: A::MOST });
        flat::pass::<A, _, 2, 0, 1, 0>(&p, BLOCK, [g, x], [], [dx], []).map(drop)
    })
}

/// fake_quantize_lsq_bwd(g, x, scale, zero_point) -> dx, dscale, dzero_point; lo, hi, form, and the factor of the last two
pub fn backward_lsq(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [g, x, scale, zero, dx, ds, dz] = t else { return Err(super::arrays(7, t)) };
    let factor = k[3].float();
    let target = |name: &str, d: &Tensor, like: &Tensor| {
        if d.len() != like.len() {
            return Err(super::shapes(name, d, like));
        }
        if d.writable() { Ok(()) } else { Err(Error::Value(format!("{name} is read-only"))) }
    };
    target("dscale", ds, scale)?;
    target("dzero_point", dz, zero)?;
    let sums = by_float!(x, A => {
        let (scales, range, form) = prepare::<<A as Compute>::Real>([x, scale, zero], k)?;
        let grain = &scales.grain;
        // a block holds the sums of all scales it may meet: it is made much longer than they are many
        let block = if grain.flat() { BLOCK } else { BLOCK.max(grain.total.saturating_mul(16)) };
        let p = Learned(Fake { scales: &scales, range, form, round: Round::HalfEven, most: A::MOST });
        let mut all = (try_vec(scale.len(), 0.0)?, try_vec(scale.len(), 0.0)?);
        for part in flat::pass::<A, _, 2, 0, 1, 0>(&p, block, [g, x], [], [dx], [])? {
            for (i, (s, z)) in part.s.iter().zip(&part.z).enumerate() {
                all.0[part.first + i] += s * factor;
                all.1[part.first + i] += z * factor;
            }
        }
        Ok(all)
    })?;
    write(ds, &sums.0)?;
    // one zero point for many scales gets the sum of their gradients; one that is no float has none
    match (zero.len(), zero.dtype().is_float()) {
        (0, _) => Ok(()),
        (_, false) => match dz.dtype() {
            Dtype::I8 => dz.slice_mut::<i8>().map(|d| d.fill(0)),
            Dtype::U8 => dz.slice_mut::<u8>().map(|d| d.fill(0)),
            Dtype::I16 => dz.slice_mut::<i16>().map(|d| d.fill(0)),
            Dtype::I32 => dz.slice_mut::<i32>().map(|d| d.fill(0)),
            _ => dz.slice_mut::<i64>().map(|d| d.fill(0)),
        },
        (1, true) => write(dz, &[sums.1.iter().sum()]),
        _ => write(dz, &sums.1),
    }
}

fn write(d: &Tensor, values: &[f64]) -> Result<()> {
    by_float!(d, A => {
        for (d, &v) in d.slice_mut::<A>()?.iter_mut().zip(values) {
            *d = A::from_f64(v);
        }
        Ok(())
    })
}
