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

use super::affine::{Affine, Range, clamp};
use super::grain::Piece;
use super::scales::{Form, Scales};
use crate::flat::{self, BLOCK, Compute, Pass, Real};
use crate::simd::Simd;
use crate::store::Store;
use crate::{Dtype, Error, Result, Scalar, Tensor, by_float, try_vec};

struct Fake<'a, T: Real> {
    scales: &'a Scales<'a, T>,
    range: Range,
    form: Form,
}

impl<T: Real> Fake<'_, T> {
    #[inline(always)]
    fn affine(&self, i: usize) -> (Affine<T>, T) {
        (Affine::new(self.scales.scale(i), self.scales.zero(i), self.range, self.form), self.scales.scale(i))
    }
    #[inline(always)]
    fn number(&self, x: T, (a, s): (Affine<T>, T)) -> T {
        (a.clamped(self.recip(), x) + T::MAGIC - T::MAGIC - a.left) * s
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
        _: S,
        (): &mut (),
        at: usize,
        [x]: [&[T]; 1],
        _: [&[u8]; 0],
        [y]: [&mut [T]; 1],
        _: [&mut [u8]; 0],
    ) {
        self.scales.grain.walk(
            at,
            x.len(),
            #[inline(always)]
            |piece| match piece {
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

/// Whether x is inside, and the slope in s.
#[inline(always)]
fn place<T: Real>(a: Affine<T>, recip: bool, x: T) -> (bool, T) {
    let v = a.quotient(recip, x);
    // one step beyond the ends is outside as well, and small enough to be rounded by the addition
    let r = clamp(v, a.lo - T::ONE, a.hi + T::ONE) + T::MAGIC - T::MAGIC;
    let inside = r >= a.lo && r <= a.hi;
    (inside, if inside { r - v } else { clamp(v, a.lo, a.hi) - a.left })
}

/// dx, and the addends of ds and of −dz/s.
#[inline(always)]
fn addends<T: Real>(a: Affine<T>, recip: bool, g: T, x: T) -> (T, f64, f64) {
    let (inside, slope) = place(a, recip, x);
    let wide = g.to_f64();
    (if inside { g } else { T::ZERO }, wide * slope.to_f64(), if inside { 0.0 } else { wide })
}

#[inline(always)]
fn total(v: [f64; LANES]) -> f64 {
    ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))
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
                    for ((d, &g), &x) in d[from..to].iter_mut().zip(&g[from..to]).zip(&x[from..to]) {
                        *d = if place(a, recip, x).0 { g } else { T::ZERO };
                    }
                }
                Piece::Each(from, to, i) => {
                    for (j, ((d, &g), &x)) in d[from..to].iter_mut().zip(&g[from..to]).zip(&x[from..to]).enumerate() {
                        *d = if place(p.affine(i + j).0, recip, x).0 { g } else { T::ZERO };
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

/// Lanes of a sum: always the same, so that every instruction set adds in the same order.
const LANES: usize = 8;

impl<T: Real> Pass<T, 2, 0, 1, 0> for Learned<'_, T> {
    type Gather = Sums;
    fn start(&self, at: usize, len: usize) -> Result<Sums> {
        let (first, end) = self.0.scales.grain.used(at, len);
        Ok(Sums { first, s: try_vec(end - first, 0.0)?, z: try_vec(end - first, 0.0)? })
    }
    #[inline(always)]
    fn part<S: Simd>(
        &self,
        _: S,
        sums: &mut Sums,
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
                    let (a, s) = p.affine(i);
                    let (mut ds, mut dz) = ([0.0; LANES], [0.0; LANES]);
                    let (d, g, x) = (&mut d[from..to], &g[from..to], &x[from..to]);
                    let whole = d.len() / LANES * LANES;
                    for ((d, g), x) in d.chunks_exact_mut(LANES).zip(g.chunks_exact(LANES)).zip(x.chunks_exact(LANES)) {
                        for j in 0..LANES {
                            let (dx, s, z) = addends(a, recip, g[j], x[j]);
                            d[j] = dx;
                            ds[j] += s;
                            dz[j] += z;
                        }
                    }
                    for (j, ((d, &g), &x)) in d[whole..].iter_mut().zip(&g[whole..]).zip(&x[whole..]).enumerate() {
                        let (dx, s, z) = addends(a, recip, g, x);
                        *d = dx;
                        ds[j] += s;
                        dz[j] += z;
                    }
                    sums.s[i - sums.first] += total(ds);
                    sums.z[i - sums.first] -= total(dz) * s.to_f64();
                }
                Piece::Each(from, to, i) => {
                    let n = to - from;
                    let (ds, dz) = (&mut sums.s[i - sums.first..][..n], &mut sums.z[i - sums.first..][..n]);
                    for (j, ((d, &g), &x)) in d[from..to].iter_mut().zip(&g[from..to]).zip(&x[from..to]).enumerate() {
                        let (a, s) = p.affine(i + j);
                        let (dx, to_s, to_z) = addends(a, recip, g, x);
                        *d = dx;
                        ds[j] += to_s;
                        dz[j] -= to_z * s.to_f64();
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

/// fake_quantize(x, scale, zero_point) -> y; lo, hi, form
pub fn forward(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [x, scale, zero, y] = t else { return Err(super::arrays(4, t)) };
    by_float!(x, A => {
        let (scales, range, form) = prepare::<<A as Compute>::Real>([x, scale, zero], k)?;
        let p = Fake { scales: &scales, range, form };
        flat::pass::<A, _, 1, 0, 1, 0>(&p, BLOCK, [x], [], [y], []).map(drop)
    })
}

/// fake_quantize_bwd(g, x, scale, zero_point) -> dx; lo, hi, form
pub fn backward(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [g, x, scale, zero, dx] = t else { return Err(super::arrays(5, t)) };
    by_float!(x, A => {
        let (scales, range, form) = prepare::<<A as Compute>::Real>([x, scale, zero], k)?;
        let p = Straight(Fake { scales: &scales, range, form });
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
        let p = Learned(Fake { scales: &scales, range, form });
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
