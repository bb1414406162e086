//! Distances of every row of x to every row of y, the nearest, and their soft minimum. The one rule: a matrix of distances
//! exists only where it is asked for, and gradients make it again tile by tile.
//!
//! With α = 1 − c|x|², β = 1 − c|y|², q = |x − y|², m = q/αβ: d = 2√m S(cm), S(u) = arsinh √u/√u. A gradient w of d goes to
//! x as f(x − y) + 2wc/α √(m/(1 + cm)) x, f = 2w/(αβ √(m(1 + cm))), and to c as in `dist`.

mod columns;
mod slopes;

use base::pool::{self, Context, Shared};
use base::wide::wide;
use base::{Dtype, Error, Op, Result, Scalar, Tensor, ops, try_vec};
use columns::Columns;
use drivers::pairs::{self, Hyperbolic, LogSumExp, Number, TopK, Write};
use slopes::{Side, Slopes, Upstream};

/// The kernel for f64 or f32 data; 16-bit data comes as f32.
macro_rules! typed {
    ($f:ident, $inputs:literal, $t:expr, $s:expr; $at:literal) => {
        wide($t, $inputs, |t| match t[$at].dtype() {
            Dtype::F64 => $f::<f64>(t, $s),
            Dtype::F32 => $f::<f32>(t, $s),
            other => Err(Error::Type(format!("a float type is needed, got {}", other.name()))),
        })
    };
}

/// The tables of this part of the family.
pub static TABLES: &[&[Op]] = &[OPS];

pub static OPS: &[Op] = ops! {
    cdist(x[b.., n, d], y[b.., m, d], c[]) -> (d[b.., n, m]) = |t, s| typed!(cdist, 3, t, s; 0);
    cdist_bwd(g[b.., n, m], x[b.., n, d], y[b.., m, d], c[]; needs: needs)
        -> (dx[x]?, dy[y]?, dc[c]?) = |t, s| typed!(cdist_bwd, 4, t, s; 1);
    knn(x[b.., n, d], y[b.., m, d], c[]; k: int)
        -> (d[b.., n, k], indices[b.., n, k]: int64) = |t, s| typed!(knn, 3, t, s; 0);
    softmin_dist(x[b.., n, d], y[b.., m, d], beta[], c[]) -> (s[b.., n]) = |t, s| typed!(softmin, 4, t, s; 0);
    softmin_dist_bwd(g[b.., n], x[b.., n, d], y[b.., m, d], beta[], c[]; needs: needs)
        -> (dx[x]?, dy[y]?, dbeta[beta]?, dc[c]?) = |t, s| typed!(softmin_bwd, 5, t, s; 1);
};

/// Multiply-adds under which a pair of stacks is one task.
const SMALL: usize = 1 << 22;

/// The bits of `needs`: which gradients are wanted; those of numbers follow.
const DX: i64 = 1;
const DY: i64 = 2;
const NUMBERS: i64 = !(DX | DY);

/// Two stacks of rows, `[batch, n, d]` and `[batch, m, d]`, and a curvature.
struct Stacks<'a, T> {
    x: &'a [T],
    y: &'a [T],
    batch: usize,
    n: usize,
    m: usize,
    d: usize,
    score: Hyperbolic,
}

fn stacks<'a, T: Number>(x: &Tensor<'a>, y: &Tensor<'a>, c: &Tensor) -> Result<Stacks<'a, T>> {
    let (&[ref lead @ .., n, d], &[ref other @ .., m, e]) = (x.shape(), y.shape()) else {
        return Err(Error::Value(format!("two axes or more are needed, got {:?} and {:?}", x.shape(), y.shape())));
    };
    if lead != other || d != e {
        return Err(Error::Value(format!("{:?} and {:?} do not go together", x.shape(), y.shape())));
    }
    let c = c.number()?;
    if !(c >= 0.0 && c.is_finite()) {
        return Err(Error::Value(format!("curvature must be finite and not negative, got {c}")));
    }
    let batch = lead.iter().product();
    Ok(Stacks { x: x.slice()?, y: y.slice()?, batch, n, m, d, score: Hyperbolic { c } })
}

impl<T: Number> Stacks<'_, T> {
    /// Pair `i` of the stacks.
    fn sides(&self, i: usize) -> (&[T], &[T]) {
        let (n, m) = (self.n * self.d, self.m * self.d);
        (&self.x[i * n..][..n], &self.y[i * m..][..m])
    }
    fn run<R: pairs::Reduce>(&self, i: usize, reduce: &R) -> Result<()> {
        let (x, y) = self.sides(i);
        pairs::run(&self.score, reduce, x, y, self.n, self.m, self.d)
    }
    /// `f` of every pair of stacks: small ones side by side, large ones each on all threads.
    fn each<V: Send>(&self, f: impl Fn(usize) -> Result<V> + Sync) -> Result<Vec<V>> {
        let work = self.n.saturating_mul(self.m).saturating_mul(self.d);
        if work >= SMALL || self.batch == 1 {
            return (0..self.batch).map(f).collect();
        }
        let alone = Context { runner: None, threads: 1, poll: None };
        pool::map(self.batch, work.saturating_mul(self.batch), |i| pool::with(alone, || f(i)))?.into_iter().collect()
    }
}

fn expect(name: &str, t: &Tensor, len: usize) -> Result<()> {
    if t.len() == len {
        return Ok(());
    }
    Err(Error::Value(format!("{name} must have {len} elements, got shape {:?}", t.shape())))
}

/// d
fn cdist<T: Number>(t: &[Tensor], _: &[Scalar]) -> Result<()> {
    let p = stacks::<T>(&t[0], &t[1], &t[2])?;
    expect("d", &t[3], p.batch * p.n * p.m)?;
    let (out, size) = (Shared(t[3].slice_mut::<T>()?.as_mut_ptr()), p.n * p.m);
    // SAFETY: the output has a part for each pair of stacks.
    p.each(|i| p.run(i, &Write::new(p.n, p.m, unsafe { out.part(i * size, size) })?))?;
    Ok(())
}

/// The k nearest rows of y to each of x
fn knn<T: Number>(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let p = stacks::<T>(&t[0], &t[1], &t[2])?;
    let k = usize::try_from(s[0].int()).ok().filter(|&k| k <= p.m);
    let Some(k) = k else {
        return Err(Error::Value(format!("k must be between 0 and the {} rows of y, got {}", p.m, s[0].int())));
    };
    let size = p.n * k;
    expect("d", &t[3], p.batch * size)?;
    expect("indices", &t[4], p.batch * size)?;
    let (d, indices) = (Shared(t[3].slice_mut::<T>()?.as_mut_ptr()), Shared(t[4].slice_mut::<i64>()?.as_mut_ptr()));
    p.each(|i| {
        // SAFETY: both outputs have a part for each pair of stacks.
        let (d, indices) = unsafe { (d.part(i * size, size), indices.part(i * size, size)) };
        p.run(i, &TopK::new(p.n, k, false, |_, _| true, indices, d)?)
    })?;
    Ok(())
}

/// Σ exp(−β d) over the rows of y, as a logarithm, in f64
fn log_sums<T: Number>(p: &Stacks<T>, beta: f64) -> Result<Vec<f64>> {
    let mut sums = try_vec(p.batch * p.n, 0.0)?;
    let out = Shared(sums.as_mut_ptr());
    // SAFETY: there is a part for each pair of stacks.
    p.each(|i| p.run(i, &LogSumExp::new(p.n, -beta, unsafe { out.part(i * p.n, p.n) })?))?;
    Ok(sums)
}

fn sharpness(t: &Tensor) -> Result<f64> {
    let beta = t.number()?;
    if beta > 0.0 && beta.is_finite() {
        return Ok(beta);
    }
    Err(Error::Value(format!("beta must be finite and positive, got {beta}")))
}

/// s = −1/β log Σ exp(−β d)
fn softmin<T: Number>(t: &[Tensor], _: &[Scalar]) -> Result<()> {
    let (p, beta) = (stacks::<T>(&t[0], &t[1], &t[3])?, sharpness(&t[2])?);
    expect("s", &t[4], p.batch * p.n)?;
    let out = t[4].slice_mut::<T>()?;
    for (out, sum) in out.iter_mut().zip(log_sums(&p, beta)?) {
        *out = T::from_f64(0.0 - sum / beta);
    }
    Ok(())
}

fn cdist_bwd<T: Number>(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let p = stacks::<T>(&t[1], &t[2], &t[3])?;
    expect("g", &t[0], p.batch * p.n * p.m)?;
    let g = t[0].slice::<T>()?;
    let size = p.n * p.m;
    let up = |i: usize, turned: bool| Upstream::Matrix {
        g: &g[i * size..][..size],
        strides: if turned { [1, p.m] } else { [p.m, 1] },
    };
    let [dc, _] = gradients(&p, s[0].int(), &t[4], &t[5], up)?;
    if t[6].is_empty() { Ok(()) } else { t[6].set_number(dc) }
}

/// ds/dd = e^(−β(d − s)), the share of a pair; ds/dβ = (Σ share d − s)/β
fn softmin_bwd<T: Number>(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let (p, beta) = (stacks::<T>(&t[1], &t[2], &t[4])?, sharpness(&t[3])?);
    expect("g", &t[0], p.batch * p.n)?;
    let g = t[0].slice::<T>()?;
    let sums = log_sums(&p, beta)?;
    let up = |i: usize, turned: bool| {
        let part = i * p.n..(i + 1) * p.n;
        Upstream::Soft { beta, g: &g[part.clone()], sums: &sums[part], turned }
    };
    let [dc, spread] = gradients(&p, s[0].int(), &t[5], &t[6], up)?;
    if !t[8].is_empty() {
        t[8].set_number(dc)?;
    }
    if !t[7].is_empty() {
        let rest: f64 = g.iter().zip(&sums).map(|(g, sum)| g.to_f64() * if p.m == 0 { 0.0 } else { sum / beta }).sum();
        t[7].set_number((spread + rest) / beta)?;
    }
    Ok(())
}

/// dx and dy where they are wanted; the sums over all pairs that dc and dβ are made of.
fn gradients<'a, T: Number>(
    p: &Stacks<T>,
    needs: i64,
    dx: &Tensor,
    dy: &Tensor,
    up: impl Fn(usize, bool) -> Upstream<'a, T> + Sync,
) -> Result<[f64; 2]> {
    for (bits, t, len) in [(DX, dx, p.x.len()), (DY, dy, p.y.len())] {
        if needs & bits != 0 {
            expect("a gradient", t, len)?;
        }
    }
    let into = |bits: i64, t: &Tensor| -> Result<Option<Shared<T>>> {
        if needs & bits == 0 { Ok(None) } else { Ok(Some(Shared(t.slice_mut::<T>()?.as_mut_ptr()))) }
    };
    let (dx, dy) = (into(DX, dx)?, into(DY, dy)?);
    let numbers = needs & NUMBERS != 0;
    let totals = p.each(|i| {
        let (x, y) = p.sides(i);
        let (x, y) = (Side::new(&p.score, x, p.n, p.d)?, Side::new(&p.score, y, p.m, p.d)?);
        let (nd, md) = (p.n * p.d, p.m * p.d);
        // SAFETY: a gradient has a part for each pair of stacks.
        let (dx, dy) = unsafe { (dx.as_ref().map(|t| t.part(i * nd, nd)), dy.as_ref().map(|t| t.part(i * md, md))) };
        let (mut dc, mut spread) = (try_vec(p.n, 0.0)?, try_vec(p.n, 0.0)?);
        let blocks = Columns::blocks(p.n, p.m, p.d);
        if dx.is_some() && dy.is_some() && size_of::<T>() < 8 && blocks >= 8 {
            // both sides from one walk
            if let Some(dy) = dy {
                let blocks = blocks.min(p.n.div_ceil(pairs::ROWS).max(1));
                let (mut columns, mut dx) = (Columns::new(blocks, p.m, p.d)?, dx);
                for first in (0..p.n).step_by(blocks * pairs::ROWS) {
                    let end = p.n.min(first + blocks * pairs::ROWS);
                    let numbers = numbers.then_some([&mut dc[..], &mut spread[..]]);
                    let (sides, parts) = ([&x, &y], columns.parts());
                    let dx = dx.as_deref_mut();
                    let slopes = Slopes::new(&p.score, p.d, sides, up(i, false), dx, numbers, first, Some(&parts));
                    pairs::run(&p.score, &slopes, &x.rows[first * p.d..end * p.d], y.rows, end - first, p.m, p.d)?;
                    columns.gather();
                }
                columns.finish(&p.score, y.rows, p.d, dy);
            }
            return Ok([dc.iter().sum::<f64>(), spread.iter().sum::<f64>()]);
        }
        if dx.is_some() || numbers {
            let numbers = numbers.then_some([&mut dc[..], &mut spread[..]]);
            let slopes = Slopes::new(&p.score, p.d, [&x, &y], up(i, false), dx, numbers, 0, None);
            pairs::run(&p.score, &slopes, x.rows, y.rows, p.n, p.m, p.d)?;
        }
        if let Some(dy) = dy {
            let slopes = Slopes::new(&p.score, p.d, [&y, &x], up(i, true), Some(dy), None, 0, None);
            pairs::run(&p.score, &slopes, y.rows, x.rows, p.m, p.n, p.d)?;
        }
        Ok([dc.iter().sum::<f64>(), spread.iter().sum::<f64>()])
    })?;
    Ok(totals.into_iter().fold([0.0; 2], |a, b| [a[0] + b[0], a[1] + b[1]]))
}
