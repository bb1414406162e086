//! The gradient of EvoNorm. The one rule: planes are met twice, for what they are summed to and for what that sends back.

use super::{Line, Told, Variant, joined, moments, planes, sigmoid};
use crate::affine::{load, store};
use base::near::scaled;
use base::near::times;
use base::simd::*;
use base::store::Store;
use base::{Dtype, Result, Scalar, Tensor, by_float, try_vec};
use drivers::segments::moments::Moment;
use drivers::segments::places::{self, Out};
use drivers::segments::walk::{Piece, lanes};

/// The bits of `needs`.
const DX: i64 = 1;
const DWEIGHT: i64 = 2;
const DBIAS: i64 = 4;
const DV: i64 = 8;

/// What is summed of a plane: Σg and Σgz, z the normalised; of the batch Σk, Σkx, Σk'; of groups Σgx²σ(1 − σ). All without γ.
#[derive(Clone, Copy, Default)]
struct Sums([f64; 5]);

struct Gather<'a, T> {
    grouped: bool,
    lines: &'a [Line],
    g: &'a [T],
    x: &'a [T],
    i: usize,
}
impl<T: Store> Kernel for Gather<'_, T> {
    type Output = Vec<Sums>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<Sums> {
        let Gather { grouped, lines, g, x, i } = self;
        let (zero, one) = (f64x8::splat(s, 0.0), f64x8::splat(s, 1.0));
        let mut all = Vec::with_capacity(lines.len());
        for ((line, x), g) in lines.iter().zip(x.chunks_exact(i)).zip(g.chunks_exact(i)) {
            let [a, p, q] = [line.a, line.p, line.q].map(|v| f64x8::splat(s, v));
            let mut acc = [zero; 5];
            lanes(
                i,
                #[inline(always)]
                |at, n| {
                    let (x, g) = (load(s, x, at, n), load(s, g, at, n));
                    for k in 0..2 {
                        let (x, g) = (x[k], g[k]);
                        acc[0] += g;
                        if grouped {
                            let sigma = sigmoid::<S, T>(s, x * p);
                            let t = x * sigma;
                            acc[1] = g.mul_add(t, acc[1]);
                            acc[2] = (g * x).mul_add(t * (one - sigma), acc[2]);
                        } else {
                            let right = x.mul_add(p, q);
                            let chosen = right.simd_gt(a) | !right.simd_eq(right);
                            let over = one / chosen.select(right, a);
                            let gz = g * x * over;
                            let slope = -(gz * over);
                            let own = chosen.select(slope, zero);
                            acc[1] += gz;
                            acc[2] += own;
                            acc[3] = own.mul_add(x, acc[3]);
                            acc[4] += chosen.select(zero, slope);
                        }
                    }
                },
            );
            let mut sums = Sums::default();
            for (sum, acc) in sums.0.iter_mut().zip(acc) {
                *sum = hsum(acc);
            }
            if grouped {
                sums.0[1] *= line.a;
                sums.0[2] *= line.a;
            }
            all.push(sums);
        }
        all
    }
}

/// What statistics send to the elements of a plane: by(x − at) of its own, and of what is around it.
#[derive(Clone, Copy, Default)]
struct Back {
    own: [f64; 2],
    around: [f64; 2],
}

struct Spread<'a, T> {
    grouped: bool,
    lines: &'a [Line],
    backs: &'a [Back],
    g: &'a [T],
    x: &'a [T],
    dx: &'a mut [T],
    i: usize,
}
impl<T: Store> Kernel for Spread<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Spread { grouped, lines, backs, g, x, dx, i } = self;
        let (zero, one) = (f64x8::splat(s, 0.0), f64x8::splat(s, 1.0));
        let rows = x.chunks_exact(i).zip(g.chunks_exact(i)).zip(dx.chunks_exact_mut(i));
        for ((line, back), ((x, g), dx)) in lines.iter().zip(backs).zip(rows) {
            let [a, p, q, gamma] = [line.a, line.p, line.q, line.gamma].map(|v| f64x8::splat(s, v));
            let [own, around] = [back.own, back.around].map(|v| [f64x8::splat(s, v[0]), f64x8::splat(s, v[1])]);
            lanes(
                i,
                #[inline(always)]
                |at, n| {
                    let (mut x, g) = (load(s, x, at, n), load(s, g, at, n));
                    for k in 0..2 {
                        let (v, h) = (x[k], g[k] * gamma);
                        let rest = (v - around[0]) * around[1];
                        x[k] = if grouped {
                            let sigma = sigmoid::<S, T>(s, v * p);
                            (h * sigma * a).mul_add((v * p).mul_add(one - sigma, one), rest)
                        } else {
                            let right = v.mul_add(p, q);
                            let chosen = right.simd_gt(a) | !right.simd_eq(right);
                            let over = one / chosen.select(right, a);
                            let z = h * over;
                            let rest = (v - own[0]).mul_add(own[1], rest);
                            z + (rest - chosen.select((z * v) * (over * p), zero))
                        };
                    }
                    store(s, x, dx, at, n);
                },
            );
        }
    }
}

/// g, that of the variances, x, γ, β, v, variances, and mean and variance of each channel of a sample; dx, dγ, dβ, dv.
pub fn backward(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let mut told = Told::new(&t[2], [&t[3], &t[4], &t[5], &t[6]], s)?;
    let ([n, c, i], needs) = (told.shape, s[3].int());
    for (name, at, len) in [("g", 0, n * c * i), ("gvar", 1, c), ("own", 7, 2 * n * c)] {
        t[at].expect(name, len)?;
    }
    let gvar = places::numbers(&t[1])?;
    let kept = t[7].slice::<f64>()?.as_chunks::<2>().0;
    let mut own = try_vec(if i == 0 { 0 } else { n * c }, Moment::default())?;
    for (at, m) in own.iter_mut().enumerate() {
        *m = Moment { w: i as f64, mean: kept[at][0], m2: kept[at][1] * i as f64 };
    }
    if t[2].dtype() == Dtype::F64
        && let Some(near) = told.near(t[2].slice()?, &own)?
    {
        let own = moments(&told, &near)?;
        run(&told, &near, &own, &gvar, t, needs)?;
        if needs & DX != 0 {
            t[8].slice_mut::<f64>()?.chunks_exact_mut(i).zip(&told.by).for_each(|(dx, e)| times(dx, -e));
        }
        return Ok(());
    }
    by_float!(t[2], T => run(&told, t[2].slice::<T>()?, &own, &gvar, t, needs))
}

/// The gradients of x, or of what stands for it.
fn run<T: Store>(told: &Told, x: &[T], own: &[Moment], gvar: &[f64], t: &[Tensor], needs: i64) -> Result<()> {
    let ([_, c, i], grouped, g) = (told.shape, told.grouped(), t[0].slice::<T>()?);
    let around = told.merged(own)?;
    let mut lines = try_vec(own.len(), Line::default())?;
    for (at, line) in lines.iter_mut().enumerate() {
        *line = told.line(at, own[at], &around);
    }
    let sums = planes(told.shape, |some, at| {
        dispatch(Gather { grouped, lines: &lines[some], g: &g[at.clone()], x: &x[at], i })
    })?;
    let found: Vec<Sums> = joined(sums, lines.len())?;
    let mut of = [try_vec(c, 0.0)?, try_vec(c, 0.0)?, try_vec(c, 0.0)?];
    let mut sent = try_vec(around.len(), 0.0)?;
    for (at, Sums([sum, along, k, kx, rest])) in found.iter().enumerate() {
        let (channel, gamma) = (at % c, lines[at].gamma);
        of[0][channel] += along;
        of[1][channel] += sum;
        of[2][channel] += gamma * if grouped { scaled(*k, told.power(at)) } else { *kx };
        let around = if grouped { told.group(at) } else { channel };
        sent[around] += gamma * if grouped { along } else { rest };
    }
    let wanted = [(DWEIGHT, 3, 9), (DBIAS, 4, 10), (DV, 5, 11)];
    for ((_, _, to), sums) in
        wanted.iter().zip(&of).filter(|((bit, from, _), _)| needs & bit != 0 && t[*from].shape() != [0])
    {
        places::write(&t[*to], sums)?;
    }
    if needs & DX == 0 {
        return Ok(());
    }
    let mut backs = try_vec(lines.len(), Back::default())?;
    for (at, back) in backs.iter_mut().enumerate() {
        let (line, channel) = (lines[at], at % c);
        if grouped {
            let m = around[told.group(at)];
            let centre = if told.variant == Variant::S2 { 0.0 } else { m.mean };
            back.around = [centre, -sent[told.group(at)] * line.a * line.a / m.w];
            continue;
        }
        if told.given.is_none() {
            let (m, e) = (around[channel], told.power(at));
            back.around = [m.mean, (sent[channel] / line.a + 2.0 * scaled(scaled(gvar[channel], e), e)) / m.w];
        }
        let Sums([_, _, k, kx, _]) = found[at];
        let k = line.gamma * if told.variant == Variant::B1 { k + scaled(kx, told.power(at)) } else { k };
        let centre = if told.variant == Variant::B0 { own[at].mean } else { 0.0 };
        // of nothing nothing is sent, whatever it would be divided by
        back.own = [centre, if k == 0.0 { 0.0 } else { k / (line.q * own[at].w) }];
    }
    t[8].expect("dx", x.len())?;
    let dx = Out::new(t[8].slice_mut::<T>()?);
    planes(told.shape, |some, at| {
        let dx = dx.part(&Piece { at: at.start, len: at.len(), of: [] });
        let (lines, backs) = (&lines[some.clone()], &backs[some]);
        dispatch(Spread { grouped, lines, backs, g: &g[at.clone()], x: &x[at], dx, i });
    })
    .map(drop)
}
