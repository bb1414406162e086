//! EvoNorm (Liu et al., 2020), of the batch y = γx/max(a, px + q) + β and of groups y = γxσ(vx)/d + β. The one rule: a channel of a
//! sample is met as one, and the moments of batches and groups are those of what they are made of.
//!
//! a = (var_B + ε)^½ of a channel, and of a channel of a sample, with b = (var_I + ε)^½ and ρ = (mean_I x² + ε)^½: p, q = v, b; ρ, ρ;
//! −1, ρ. d = (var_G + ε)^½, in the last variant (mean_G x² + ε)^½. Backwards, h = γg:
//! of the batch, k = −hx/max², where px + q > a and 0 elsewhere, k' the others: dx = h/max + kp + (x − μ_I)Σk/(n_I b) + (x − μ_B)Σk'/(n_B a),
//! with x Σk(x + 1)/(n_I ρ) or xΣk/(n_I ρ) for the third term; of groups,
//! dx = hσ(1 + vx(1 − σ))/d − (x − μ_G)Σhxσ/(n_G d³).

mod back;

pub use back::backward;

use crate::affine::{load, store};
use base::math;
use base::simd::*;
use base::store::Store;
use base::{Error, Result, Scalar, Tensor, by_float, try_vec};
use drivers::blocks::{self, BLOCK};
use drivers::segments::moments::Moment;
use drivers::segments::places::Out;
use drivers::segments::walk::{Piece, lanes};
use drivers::segments::{moments_of, places};
use std::ops::Range;

#[derive(Clone, Copy, PartialEq)]
enum Variant {
    B0,
    B1,
    B2,
    /// Of the variance of groups.
    S,
    /// Of their mean square.
    S2,
}

/// What is told: the shape [n, c, i], and numbers of the channels.
struct Told {
    shape: [usize; 3],
    variant: Variant,
    groups: usize,
    eps: f64,
    gamma: Vec<f64>,
    beta: Vec<f64>,
    v: Vec<f64>,
    /// The variances in place of the batch's.
    given: Option<Vec<f64>>,
}

impl Told {
    fn new(x: &Tensor, [weight, bias, v, given]: [&Tensor; 4], s: &[Scalar]) -> Result<Self> {
        let &[n, c, i] = x.shape() else {
            return Err(Error::Value(format!("x must be [n, c, i], got {:?}", x.shape())));
        };
        let variant = match s[0].int() {
            0 => Variant::B0,
            1 => Variant::B1,
            2 => Variant::B2,
            3 | 4 => Variant::S,
            5 => Variant::S2,
            other => return Err(Error::Value(format!("there is no variant {other}"))),
        };
        let groups = s[1].int().max(0) as usize;
        let grouped = matches!(variant, Variant::S | Variant::S2);
        if grouped && (groups == 0 || c % groups != 0) {
            return Err(Error::Value(format!("groups={groups} does not divide {c} channels")));
        }
        let numbers = |name: &str, t: &Tensor, absent: f64| {
            if t.shape() == [0] {
                return try_vec(c, absent);
            }
            t.expect(name, c)?;
            places::numbers(t)
        };
        let given_too = !grouped && given.shape() != [0];
        Ok(Told {
            shape: [n, c, i],
            variant,
            groups: if grouped { groups } else { 1 },
            eps: s[2].float(),
            gamma: numbers("weight", weight, 1.0)?,
            beta: numbers("bias", bias, 0.0)?,
            v: numbers("v", v, 1.0)?,
            given: if given_too { Some(numbers("running_var", given, 0.0)?) } else { None },
        })
    }
    fn grouped(&self) -> bool {
        matches!(self.variant, Variant::S | Variant::S2)
    }
    /// The group of a channel of a sample.
    fn group(&self, plane: usize) -> usize {
        let c = self.shape[1];
        plane / c * self.groups + plane % c / (c / self.groups)
    }
    /// The moments of channels, or of groups, from those of the channels of samples.
    fn merged(&self, planes: &[Moment]) -> Result<Vec<Moment>> {
        let [n, c, _] = self.shape;
        let mut all = try_vec(if self.grouped() { n * self.groups } else { c }, Moment::default())?;
        for (at, m) in planes.iter().enumerate() {
            all[if self.grouped() { self.group(at) } else { at % c }].merge(*m);
        }
        Ok(all)
    }
    /// What a channel of a sample is divided by: a, p, q; of groups 1/d, v, 0.
    fn line(&self, at: usize, own: Moment, around: &[Moment]) -> Line {
        let c = at % self.shape[1];
        let root = |v: f64| (v + self.eps).sqrt();
        let square = |m: &Moment| m.mean * m.mean + m.m2 / m.w;
        let [a, p, q] = match self.variant {
            Variant::S => [1.0 / root(var(&around[self.group(at)])), self.v[c], 0.0],
            Variant::S2 => [1.0 / root(square(&around[self.group(at)])), self.v[c], 0.0],
            of => {
                let a = root(self.given.as_ref().map_or_else(|| var(&around[c]), |v| v[c]));
                match of {
                    Variant::B0 => [a, self.v[c], root(var(&own))],
                    Variant::B1 => [a, root(square(&own)), root(square(&own))],
                    _ => [a, -1.0, root(square(&own))],
                }
            }
        };
        Line { a, p, q, gamma: self.gamma[c], beta: self.beta[c] }
    }
}

fn var(m: &Moment) -> f64 {
    m.m2 / m.w
}

#[derive(Clone, Copy, Default)]
struct Line {
    a: f64,
    p: f64,
    q: f64,
    gamma: f64,
    beta: f64,
}

#[inline(always)]
fn sigmoid<S: Simd, T: Store>(s: S, z: f64x8<S>) -> f64x8<S> {
    let e = if size_of::<T>() < 8 { math::single::exp(s, -z) } else { math::exp(s, -z) };
    f64x8::splat(s, 1.0) / (e + 1.0)
}

/// The moments of planes.
struct Met<'a, T>(&'a [T], usize);
impl<T: Store> Kernel for Met<'_, T> {
    type Output = Vec<Moment>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<Moment> {
        let mut all = Vec::with_capacity(self.0.len() / self.1);
        for x in self.0.chunks_exact(self.1) {
            all.push(moments_of(s, x));
        }
        all
    }
}

/// y of planes, by their lines.
struct Map<'a, T> {
    grouped: bool,
    lines: &'a [Line],
    x: &'a [T],
    y: &'a mut [T],
    i: usize,
}
impl<T: Store> Kernel for Map<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Map { grouped, lines, x, y, i } = self;
        for ((line, x), y) in lines.iter().zip(x.chunks_exact(i)).zip(y.chunks_exact_mut(i)) {
            let [a, p, q, gamma, beta] = [line.a, line.p, line.q, line.gamma, line.beta].map(|v| f64x8::splat(s, v));
            lanes(
                i,
                #[inline(always)]
                |at, n| {
                    let mut x = load(s, x, at, n);
                    for x in &mut x {
                        *x = if grouped {
                            (*x * sigmoid::<S, T>(s, *x * p)).mul_add(a * gamma, beta)
                        } else {
                            let right = x.mul_add(p, q);
                            (gamma * *x / (right.simd_gt(a) | !right.simd_eq(right)).select(right, a)) + beta
                        };
                    }
                    store(s, x, y, at, n);
                },
            );
        }
    }
}

/// What blocks left, in their order.
fn joined<V: Copy + Default>(parts: Vec<Vec<V>>, n: usize) -> Result<Vec<V>> {
    let (mut all, mut at) = (try_vec(n, V::default())?, 0);
    for part in parts {
        all[at..at + part.len()].copy_from_slice(&part);
        at += part.len();
    }
    Ok(all)
}

/// Blocks of planes of i elements.
fn planes<V: Send>([n, c, i]: [usize; 3], f: impl Fn(Range<usize>, Range<usize>) -> V + Sync) -> Result<Vec<V>> {
    let many = if i == 0 { 0 } else { n * c };
    blocks::map(many, BLOCK / i.max(1), many * i, |some| Ok(f(some.clone(), some.start * i..some.end * i)))
}

/// x, γ, β, v, variances; y, variances, and mean and variance of each channel of a sample.
pub fn forward(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let told = Told::new(&t[0], [&t[1], &t[2], &t[3], &t[4]], s)?;
    let [n, c, i] = told.shape;
    let grouped = told.grouped();
    for (name, at, len) in [("y", 5, n * c * i), ("var", 6, c), ("own", 7, 2 * n * c)] {
        t[at].expect(name, len)?;
    }
    by_float!(t[0], T => {
        let (x, y) = (t[0].slice::<T>()?, t[5].slice_mut::<T>()?);
        let own = joined(planes(told.shape, |_, at| dispatch(Met(&x[at], i)))?, if i == 0 { 0 } else { n * c })?;
        let around = told.merged(&own)?;
        let mut lines = try_vec(own.len(), Line::default())?;
        for (at, line) in lines.iter_mut().enumerate() {
            *line = told.line(at, own[at], &around);
        }
        let y = Out::new(y);
        planes(told.shape, |some, at| {
            let y = y.part(&Piece { at: at.start, len: at.len(), of: [] });
            dispatch(Map { grouped, lines: &lines[some], x: &x[at], y, i });
        })?;
        let kept = t[7].slice_mut::<f64>()?;
        kept.fill(f64::NAN);
        kept.as_chunks_mut::<2>().0.iter_mut().zip(&own).for_each(|(to, m)| *to = [m.mean, var(m)]);
        let whole = t[6].slice_mut::<f64>()?;
        match &told.given {
            _ if grouped => whole.fill(0.0),
            Some(given) => whole.copy_from_slice(given),
            None => whole.iter_mut().zip(&around).for_each(|(to, m)| *to = var(m)),
        }
        Ok(())
    })
}
