//! Batch normalisation by midpoint as one operator. The one rule: what it is made of is written elsewhere, and what it makes
//! on the way, for all rows, is one number per row.
//!
//! m the midpoint of all rows, v the mean of d(x, m)², r = γ/√(v + ε), y = exp_b(r P_{m→b} log_m x).

use super::carry::{Carry, CarryBwd};
use super::midpoint;
use super::spread::{Spread, SpreadOnto};
use base::wide::wide;
use base::{Error, Op, Result, Scalar, Tensor, by_float, ops, try_vec};
use drivers::rows::{self, Margin, Wide};

pub static OPS: &[Op] = ops! {
    normalize(x[l.., d], b[d], gamma[], c[]; epsilon, ball: bool, eps) -> (y[x], m[d], v[])
        = |t, s| wide(t, 4, |t| by_float!(wide t[0], T => forward::<T>(t, s)));
    normalize_bwd(g[l.., d], gm[d], gv[], x[l.., d], b[d], gamma[], c[], m[d], v[]; epsilon, ball: bool)
        -> (dx[x], db[b], dgamma[gamma], dc[c])
        = |t, s| wide(t, 9, |t| by_float!(wide t[3], T => backward::<T>(t, s)));
};

/// The sizes of x, checked against b.
fn sizes(x: &Tensor, b: &Tensor) -> Result<(usize, usize)> {
    let (n, d) = x.rows();
    if x.shape().is_empty() || n == 0 {
        return Err(Error::Value(format!("a batch of no points has no midpoint: x has shape {:?}", x.shape())));
    }
    b.expect("b", d)?;
    Ok((n, d))
}

fn forward<T: Wide>(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let &[x, b, gamma, c, y, m, v] = t else { return Err(Error::Type("wrong number of arrays".into())) };
    let (epsilon, ball, margin) = (s[0].float(), s[1].bool(), Margin::of(s[2].float())?);
    let (n, d) = sizes(&x, &b)?;
    m.expect("m", d)?;
    midpoint::middle::<T>(&x, &c, !ball, m.slice_mut()?, margin)?;
    let mut squares = try_vec(n, 0.0)?;
    rows::run(&Spread(ball), &[x, m, c, Tensor::of(&mut squares)])?;
    let spread = squares.iter().sum::<f64>() / n as f64;
    v.set_number(spread)?;
    let mut r = [gamma.number()? / (spread + epsilon).sqrt()];
    rows::run(&Carry(ball, margin), &[x, m, b, Tensor::of(&mut r), c, y])
}

fn backward<T: Wide>(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let &[g, gm, gv, x, b, gamma, c, m, v, dx, db, dgamma, dc] = t else {
        return Err(Error::Type("wrong number of arrays".into()));
    };
    let (epsilon, ball) = (s[0].float(), s[1].bool());
    let (n, d) = sizes(&x, &b)?;
    for (name, t, len) in [("g", &g, n * d), ("gm", &gm, d), ("m", &m, d), ("dx", &dx, n * d)] {
        t.expect(name, len)?;
    }
    let spread = v.number()? + epsilon;
    let gamma = gamma.number()?;
    let per = 1.0 / spread.sqrt();
    let zero = T::from_f64(0.0);
    let (mut by_m, mut also) = (try_vec(d, zero)?, try_vec(d, zero)?);
    let (mut r, mut by_r, mut by_c, mut more) = ([gamma * per], [0.0], [0.0], [0.0]);
    rows::run(
        &CarryBwd(ball),
        &[
            g,
            x,
            m,
            b,
            Tensor::of(&mut r),
            c,
            dx,
            Tensor::of(&mut by_m),
            db,
            Tensor::of(&mut by_r),
            Tensor::of(&mut by_c),
        ],
    )?;
    dgamma.set_number(by_r[0] * per)?;
    let mut each = [(gv.number()? - by_r[0] * gamma * per / (2.0 * spread)) / n as f64];
    rows::run(
        &SpreadOnto(ball),
        &[dx, x, m, Tensor::of(&mut each), c, dx, Tensor::of(&mut also), Tensor::of(&mut more)],
    )?;
    for ((a, b), g) in by_m.iter_mut().zip(&also).zip(gm.slice::<T>()?) {
        *a = T::from_f64(a.to_f64() + b.to_f64() + g.to_f64());
    }
    let rest = midpoint::middle_bwd::<T>(&x, &c, !ball, &by_m, dx.slice_mut()?)?;
    dc.set_number(by_c[0] + more[0] + rest)
}
