//! Distances of every row of x to every row of y, the nearest, and their soft minimum. The one rule: a matrix of distances
//! exists only where it is asked for, and gradients make it again tile by tile.
//!
//! With α = 1 − c|x|², β = 1 − c|y|², q = |x − y|², m = q/αβ: d = 2√m S(cm), S(u) = arsinh √u/√u. A gradient w of d goes to
//! x as f(x − y) + 2wc/α √(m/(1 + cm)) x, f = 2w/(αβ √(m(1 + cm))), and to c as in `dist`.

mod slopes;

use base::near::{Near, times};
use base::pool::Shared;
use base::wide::wide;
use base::{Dtype, Error, Op, Result, Scalar, Tensor, by_float, ops, try_vec};
use drivers::pairs::{All, Columns, Hyperbolic, LogSumExp, Mix, Number, Reduce, Stacks, TopK, Write};
use slopes::{Side, Slopes, Upstream};

/// The tables of this part of the family.
pub static TABLES: &[&[Op]] = &[OPS];

pub static OPS: &[Op] = ops! {
    cdist(x[b.., n, d], y[b.., m, d], c[]) -> (d[b.., n, m])
        = |t, s| sized(t, [0, 1, 2], &[(3, 1)], |t| wide(t, 3, |t| by_float!(wide t[0], T => cdist::<T>(t, s))));
    cdist_bwd(g[b.., n, m], x[b.., n, d], y[b.., m, d], c[]; needs: needs)
        -> (dx[x]?, dy[y]?, dc[c]?)
        = |t, s| sized(t, [1, 2, 3], &[(6, 3)], |t| wide(t, 4, |t| by_float!(wide t[1], T => cdist_bwd::<T>(t, s))));
    knn(x[b.., n, d], y[b.., m, d], c[]; k: int)
        -> (d[b.., n, k], indices[b.., n, k]: int64)
        = |t, s| sized(t, [0, 1, 2], &[(3, 1)], |t| wide(t, 3, |t| by_float!(wide t[0], T => knn::<T>(t, s))));
    softmin_dist(x[b.., n, d], y[b.., m, d], beta[], c[]) -> (s[b.., n])
        = |t, s| wide(t, 4, |t| by_float!(wide t[0], T => softmin::<T>(t, s)));
    softmin_dist_bwd(g[b.., n], x[b.., n, d], y[b.., m, d], beta[], c[]; needs: needs)
        -> (dx[x]?, dy[y]?, dbeta[beta]?, dc[c]?) = |t, s| wide(t, 5, |t| by_float!(wide t[1], T => softmin_bwd::<T>(t, s)));
};

/// The bits of `needs`: which gradients are wanted; those of numbers follow.
const DX: i64 = 1;
const DY: i64 = 2;
const NUMBERS: i64 = !(DX | DY);

/// Runs `f` on the arrays `t`, of which those at `places` are x, y and c: of float64, where squares of the longest rows would be
/// no ordinary numbers, with all rows and the curvature brought near 1 by one power of two, which changes no digit. The results
/// at `found` are lengths to the power that stands beside them; gradients by rows are what they were.
fn sized(
    t: &[Tensor],
    [x, y, c]: [usize; 3],
    found: &[(usize, i32)],
    f: impl Fn(&[Tensor]) -> Result<()>,
) -> Result<()> {
    let given = t[c].number()?;
    if t[x].dtype() != Dtype::F64 || t[y].dtype() != Dtype::F64 || !(given >= 0.0 && given.is_finite()) {
        return f(t);
    }
    let longest = |t: &Tensor| -> Result<f64> {
        let finite = t.slice::<f64>()?.iter().filter(|v| v.is_finite());
        Ok(finite.fold(0.0, |top: f64, v| if v.abs() > top { v.abs() } else { top }))
    };
    let top = longest(&t[x])?.max(longest(&t[y])?);
    let by = (top.to_bits() >> 52) as i32 - 1023;
    if top == 0.0 || ORDINARY.contains(&by) {
        return f(t);
    }
    let copy = |t: &Tensor| -> Result<Near> {
        let from = t.slice::<f64>()?;
        let mut rows = try_vec(from.len(), 0.0)?;
        rows.copy_from_slice(from);
        times(&mut rows, -by);
        Ok(Near { rows, by: Vec::new() })
    };
    let (mut near, mut curvature) = ([copy(&t[x])?, copy(&t[y])?], [given]);
    (0..2).for_each(|_| times(&mut curvature, by));
    curvature[0] = curvature[0].min(f64::MAX); // beyond that, the longest row is outside
    let mut all = t.to_vec();
    for (near, place) in near.iter_mut().zip([x, y]) {
        all[place] = near.tensor(&t[place])?;
    }
    all[c] = Tensor::of(&mut curvature);
    f(&all)?;
    for (place, degree) in found.iter().filter(|(place, _)| !t[*place].is_empty()) {
        if t[*place].dtype() == Dtype::F64 {
            (0..*degree).try_for_each(|_| t[*place].slice_mut::<f64>().map(|v| times(v, by)))?;
        } else {
            let mut v = [t[*place].number()?];
            (0..*degree).for_each(|_| times(&mut v, by));
            t[*place].set_number(v[0])?;
        }
    }
    Ok(())
}

/// Exponents of longest rows whose squares, and those of differences of such rows by an ulp, are ordinary numbers.
const ORDINARY: std::ops::RangeInclusive<i32> = -400..=440;

/// Two stacks of rows and a curvature.
struct Points<'a, T> {
    stacks: Stacks<'a, T>,
    score: Hyperbolic,
}

impl<'a, T: Number> Points<'a, T> {
    fn new(x: &Tensor<'a>, y: &Tensor<'a>, c: &Tensor) -> Result<Self> {
        let (stacks, c) = (Stacks::new(x, y)?, c.number()?);
        if !(c >= 0.0 && c.is_finite()) {
            return Err(Error::Value(format!("curvature must be finite and not negative, got {c}")));
        }
        Ok(Points { stacks, score: Hyperbolic { c } })
    }
    fn run(&self, i: usize, reduce: &impl Reduce) -> Result<()> {
        self.stacks.sides(i).run(&self.score, &All, reduce)
    }
}
impl<'a, T> std::ops::Deref for Points<'a, T> {
    type Target = Stacks<'a, T>;
    fn deref(&self) -> &Stacks<'a, T> {
        &self.stacks
    }
}

/// d
fn cdist<T: Number>(t: &[Tensor], _: &[Scalar]) -> Result<()> {
    let p = Points::<T>::new(&t[0], &t[1], &t[2])?;
    t[3].expect("d", p.batch * p.n * p.m)?;
    let (out, size) = (Shared(t[3].slice_mut::<T>()?.as_mut_ptr()), p.n * p.m);
    // SAFETY: the output has a part for each pair of stacks.
    p.each(|i| p.run(i, &Write::new(p.n, p.m, unsafe { out.part(i * size, size) })?))?;
    Ok(())
}

/// The k nearest rows of y to each of x
fn knn<T: Number>(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let p = Points::<T>::new(&t[0], &t[1], &t[2])?;
    let k = usize::try_from(s[0].int()).ok().filter(|&k| k <= p.m);
    let Some(k) = k else {
        return Err(Error::Value(format!("k must be between 0 and the {} rows of y, got {}", p.m, s[0].int())));
    };
    let size = p.n * k;
    t[3].expect("d", p.batch * size)?;
    t[4].expect("indices", p.batch * size)?;
    let (d, indices) = (Shared(t[3].slice_mut::<T>()?.as_mut_ptr()), Shared(t[4].slice_mut::<i64>()?.as_mut_ptr()));
    p.each(|i| {
        // SAFETY: both outputs have a part for each pair of stacks.
        let (d, indices) = unsafe { (d.part(i * size, size), indices.part(i * size, size)) };
        p.run(i, &TopK::new(p.n, k, false, indices, d)?)
    })?;
    Ok(())
}

/// Σ exp(−β d) over the rows of y, as a logarithm, in f64
fn log_sums<T: Number>(p: &Points<T>, beta: f64) -> Result<Vec<f64>> {
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
    let (p, beta) = (Points::<T>::new(&t[0], &t[1], &t[3])?, sharpness(&t[2])?);
    t[4].expect("s", p.batch * p.n)?;
    let out = t[4].slice_mut::<T>()?;
    for (out, sum) in out.iter_mut().zip(log_sums(&p, beta)?) {
        *out = T::from_f64(0.0 - sum / beta);
    }
    Ok(())
}

fn cdist_bwd<T: Number>(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let p = Points::<T>::new(&t[1], &t[2], &t[3])?;
    t[0].expect("g", p.batch * p.n * p.m)?;
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
    let (p, beta) = (Points::<T>::new(&t[1], &t[2], &t[4])?, sharpness(&t[3])?);
    t[0].expect("g", p.batch * p.n)?;
    let g = t[0].slice::<T>()?;
    let sums = log_sums(&p, beta)?;
    let up = |i: usize, turned: bool| {
        let part = p.rows(i);
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
    p: &Points<T>,
    needs: i64,
    dx: &Tensor,
    dy: &Tensor,
    up: impl Fn(usize, bool) -> Upstream<'a, T> + Sync,
) -> Result<[f64; 2]> {
    let (nd, md) = (p.n * p.d, p.m * p.d);
    for (bits, t, len) in [(DX, dx, p.batch * nd), (DY, dy, p.batch * md)] {
        if needs & bits != 0 {
            t.expect("a gradient", len)?;
        }
    }
    let into = |bits: i64, t: &Tensor| -> Result<Option<Shared<T>>> {
        if needs & bits == 0 { Ok(None) } else { Ok(Some(Shared(t.slice_mut::<T>()?.as_mut_ptr()))) }
    };
    let (dx, dy) = (into(DX, dx)?, into(DY, dy)?);
    let numbers = needs & NUMBERS != 0;
    let totals = p.each(|i| {
        let (score, sides) = (&p.score, p.sides(i));
        let (x, y) = (Side::new(score, sides.x, p.n, p.d)?, Side::new(score, sides.y, p.m, p.d)?);
        // SAFETY: a gradient has a part for each pair of stacks.
        let (dx, mut dy) =
            unsafe { (dx.as_ref().map(|t| t.part(i * nd, nd)), dy.as_ref().map(|t| t.part(i * md, md))) };
        let (mut dc, mut spread) = (try_vec(p.n, 0.0)?, try_vec(p.n, 0.0)?);
        let blocks = Columns::blocks(p.n, p.m, p.d);
        // both sides from one walk
        let one = dx.is_some() && dy.is_some() && size_of::<T>() < 8 && blocks >= 8;
        if dx.is_some() || numbers {
            let numbers = numbers.then_some([&mut dc[..], &mut spread[..]]);
            let columns = if one { dy.take() } else { None };
            let slopes = Slopes::new(score, [&x, &y], up(i, false), [dx, columns], numbers);
            if one {
                Mix::both(score, &All, &slopes, &sides, blocks)?;
            } else {
                Mix::rows(score, &All, &slopes, &sides)?;
            }
        }
        if dy.is_some() {
            let slopes = Slopes::new(score, [&y, &x], up(i, true), [dy, None], None);
            Mix::rows(score, &All, &slopes, &sides.turned())?;
        }
        Ok([dc.iter().sum::<f64>(), spread.iter().sum::<f64>()])
    })?;
    Ok(totals.into_iter().fold([0.0; 2], |a, b| [a[0] + b[0], a[1] + b[1]]))
}
