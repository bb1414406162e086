//! Losses of pairs. The one rule: no array of N·M numbers in either direction, and a loss is made of the negatives alone, so that
//! a small one keeps its digits.
//!
//! InfoNCE (van den Oord, Li and Vinyals, 2018): u_ij = s(x_i, y_j)/τ, L_i = log Σ_{j≠i} e^{u_ij}, t_i = L_i − u_ii and the loss is
//! log(1 + e^{t_i}). With q_i = g_i σ(t_i) a pair sends G_ij = q_i e^{u_ij − L_i}, and −q_i where j = i: dx = Σ G y/τ and
//! dy = Σ G x/τ for s = ⟨x, y⟩; for the cosine of x̂ and ŷ those of G ŷ across x̂, over |x|. dτ = −Σ G u/τ.

mod entropy;

use base::near;
use base::pool::Shared;
use base::simd::*;
use base::{Dtype, Error, Op, Result, Scalar, Tensor, by_float, math, ops, try_vec};
use drivers::pairs::{
    self, Columns, Cosine, Dot, LogSumExp, Mix, Mixed, Number, Others, Pick, Real, STRIP, Score, Sides, Stacks, Weigh,
};
use std::ops::Range;

/// The tables of the family.
pub static TABLES: &[&[Op]] = &[OPS];

pub static OPS: &[Op] = ops! {
    info_nce(x[b.., n, d], y[b.., m, d], temperature[]; cosine: bool) -> (loss[b.., n]: compute)
        = |t, s| near(t, s[0].bool(), 0, 3, |t| by_float!(t[0], T => forward::<T>(t, s)));
    info_nce_bwd(g[b.., n], x[b.., n, d], y[b.., m, d], temperature[]; cosine: bool, needs: needs)
        -> (dx[x]?, dy[y]?, dtemperature[temperature]?)
        = |t, s| near(t, s[0].bool(), 1, 4, |t| by_float!(t[1], T => backward::<T>(t, s)));
    cross_entropy(logits[b.., c], target[b..], weight[c]?: logits | float32; ignore_index: int, label_smoothing, gamma)
        -> (loss[b..]: compute, (top[b..]: float64), (more[b..]: float64), (rest[b..]: float64), (below[b..]: float64))
        = entropy::forward;
    cross_entropy_bwd(g[b..], logits[b.., c], target[b..], weight[c]?: logits | float32, top[b..], more[b..], rest[b..],
            below[b..]; ignore_index: int, label_smoothing, gamma, needs: needs)
        -> (dlogits[logits]?, dweight[weight]?)
        = entropy::backward;
};

/// The bits of `needs`: which gradients are wanted.
const DX: i64 = 1;
const DY: i64 = 2;
const DT: i64 = 4;

/// Runs `f` on x and y, which are at `at`, or, of a cosine, on rows of their directions where squares are no numbers; brings
/// gradients, if these are what is at `out`, back.
fn near(t: &[Tensor], cosine: bool, at: usize, out: usize, f: impl Fn(&[Tensor]) -> Result<()>) -> Result<()> {
    if !cosine || t[at].dtype() != Dtype::F64 {
        return f(t);
    }
    let (x, y) = (&t[at], &t[at + 1]);
    let mut found = [near::near(x.slice()?, x.rows().1)?, near::near(y.slice()?, y.rows().1)?];
    let mut all = t.to_vec();
    for (i, found) in found.iter_mut().enumerate() {
        if let Some(rows) = found {
            all[at + i] = rows.tensor(&t[at + i])?;
        }
    }
    f(&all)?;
    for (d, found) in t[out..].iter().zip(&found).filter(|(d, _)| at > 0 && !d.is_empty()) {
        found.as_ref().map_or(Ok(()), |rows| rows.back(d))?;
    }
    Ok(())
}

/// Two stacks in which row i of x belongs to row i of y, and 1/τ.
fn stacks<'a, T: Number>(x: &Tensor<'a>, y: &Tensor<'a>, temperature: &Tensor) -> Result<(Stacks<'a, T>, f64)> {
    let (p, temperature) = (Stacks::new(x, y)?, temperature.number()?);
    if p.n > p.m {
        return Err(Error::Value(format!("every row of x needs its own of y: there are {} and {}", p.n, p.m)));
    }
    if !(temperature > 0.0 && temperature.is_finite()) {
        return Err(Error::Value(format!("temperature must be finite and positive, got {temperature}")));
    }
    Ok((p, 1.0 / temperature))
}

/// L and t of every row.
fn logits<T: Number, Sc: Score<Class = Real>>(score: &Sc, sides: &Sides<T>, rate: f64) -> Result<[Vec<f64>; 2]> {
    let (mut sums, mut own) = (try_vec(sides.n, 0.0)?, try_vec(sides.n, 0.0)?);
    let both = (LogSumExp::new(sides.n, rate, &mut sums)?, Pick::new(sides.n, |row| row, &mut own)?);
    sides.run(score, &Others, &both)?;
    for (own, sum) in own.iter_mut().zip(&sums) {
        *own = sum - *own * rate;
    }
    Ok([sums, own])
}

fn forward<T: Number>(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let (p, rate) = stacks::<T>(&t[0], &t[1], &t[2])?;
    t[3].expect("loss", p.batch * p.n)?;
    let found = p.each(|i| {
        let sides = p.sides(i);
        let [_, t] = if s[0].bool() { logits(&Cosine, &sides, rate) } else { logits(&Dot, &sides, rate) }?;
        Ok(t)
    })?;
    // log(1 + e^t), of which nothing cancels
    let losses = found.into_iter().flatten().map(|t| t.max(0.0) + (-t.abs()).exp().ln_1p());
    match t[3].dtype() {
        Dtype::F64 => t[3].slice_mut::<f64>()?.iter_mut().zip(losses).for_each(|(o, v)| *o = v),
        _ => t[3].slice_mut::<f32>()?.iter_mut().zip(losses).for_each(|(o, v)| *o = v as f32),
    }
    Ok(())
}

fn backward<T: Number>(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let (p, rate) = stacks::<T>(&t[1], &t[2], &t[3])?;
    t[0].expect("g", p.batch * p.n)?;
    let mut g = try_vec(p.batch * p.n, 0.0)?;
    match t[0].dtype() {
        Dtype::F64 => g.copy_from_slice(t[0].slice()?),
        _ => g.iter_mut().zip(t[0].slice::<f32>()?).for_each(|(o, &v)| *o = f64::from(v)),
    }
    let (nd, md, needs) = (p.n * p.d, p.m * p.d, s[1].int());
    let into = |bit: i64, name: &str, d: &Tensor, len: usize| -> Result<Option<Shared<T>>> {
        if needs & bit == 0 {
            return Ok(None);
        }
        d.expect(name, len)?;
        Ok(Some(Shared(d.slice_mut::<T>()?.as_mut_ptr())))
    };
    let (dx, dy) = (into(DX, "dx", &t[4], p.batch * nd)?, into(DY, "dy", &t[5], p.batch * md)?);
    let turns = p.each(|i| {
        // SAFETY: a gradient has a part for each pair of stacks.
        let parts = unsafe { [dx.as_ref().map(|d| d.part(i * nd, nd)), dy.as_ref().map(|d| d.part(i * md, md))] };
        let into = parts.map(|d| d.map(|d| Shared(d.as_mut_ptr())));
        let (sides, g) = (p.sides(i), &g[p.rows(i)]);
        if s[0].bool() { pull(&Cosine, &sides, rate, g, into) } else { pull(&Dot, &sides, rate, g, into) }
    })?;
    if needs & DT == 0 { Ok(()) } else { t[6].set_number(-rate * turns.iter().sum::<f64>()) }
}

/// dx and dy of a pair of stacks, as far as there is room for them; Σ G s/τ.
fn pull<T: Number, Sc: Score<Class = Real>>(
    score: &Sc,
    sides: &Sides<T>,
    rate: f64,
    g: &[f64],
    into: [Option<Shared<T>>; 2],
) -> Result<f64> {
    let &Sides { x, y, n, m, d } = sides;
    let [sums, mut shares] = logits(score, sides, rate)?;
    for (share, g) in shares.iter_mut().zip(g) {
        *share = g / (1.0 + (-*share).exp());
    }
    let inverse = |rows: &[T], n: usize| -> Result<Vec<f64>> {
        let mut norms = pairs::terms(score, rows, n, d)?;
        for v in &mut norms {
            *v = if *v == 0.0 { 0.0 } else { 1.0 / *v };
        }
        Ok(norms)
    };
    let inverse = [inverse(x, n)?, inverse(y, m)?];
    let mut turns = try_vec(n, 0.0)?;
    let columns = into[1].is_some();
    let weigh = Pull { sides, rate, sums, shares, inverse, into, turns: Shared(turns.as_mut_ptr()) };
    if columns {
        Mix::both(score, &Others, &weigh, sides, Columns::blocks(n, m, d))?;
    } else {
        Mix::rows(score, &Others, &weigh, sides)?;
    }
    Ok(turns.iter().sum())
}

/// Weights G/τ of the scores, over both norms for the cosine.
struct Pull<'a, T> {
    sides: &'a Sides<'a, T>,
    rate: f64,
    sums: Vec<f64>,
    shares: Vec<f64>,
    /// 1/|x| and 1/|y|, 0 of rows of zeros; empty where the score is the product.
    inverse: [Vec<f64>; 2],
    into: [Option<Shared<T>>; 2],
    turns: Shared<f64>,
}

impl<T: Number> Pull<'_, T> {
    /// What a row gets: its mixture, and across itself for the cosine.
    fn write(&self, side: usize, row: usize, acc: &[f64], along: f64) {
        let Some(into) = &self.into[side] else { return };
        let (rows, d) = ([self.sides.x, self.sides.y][side], self.sides.d);
        let own = self.inverse[side].get(row).map_or(0.0, |v| -along * v * v);
        // SAFETY: each row is finished once, and the gradient has a part for each.
        let out = unsafe { into.part(row * d, d) };
        for ((x, a), out) in rows[row * d..(row + 1) * d].iter().zip(acc).zip(out) {
            *out = T::from_f64(if own == 0.0 { *a } else { x.to_f64().mul_add(own, *a) });
        }
    }
}

impl<T: Number> Weigh<T> for Pull<'_, T> {
    /// Σ G s/τ, in lanes.
    type Sum = [f64; 8];
    const NONE: [f64; 8] = [0.0; 8];
    fn wanted(&self) -> bool {
        self.into[0].is_some()
    }
    #[inline(always)]
    fn weigh<S: Simd>(
        &self,
        s: S,
        rows: Range<usize>,
        cols: Range<usize>,
        live: &[u64],
        keys: &mut [f64],
        sums: &mut [Mixed<[f64; 8]>],
        mut beside: Option<[&mut [f64]; 2]>,
    ) {
        let (zero, norms) = (f64x8::splat(s, 0.0), !self.inverse[0].is_empty());
        for ((row, keys), (mixed, &live)) in rows.zip(keys.chunks_exact_mut(STRIP)).zip(sums.iter_mut().zip(live)) {
            let mut along = f64x8::from_slice(s, &mixed.sum);
            for at in (0..cols.len()).step_by(8) {
                let part = at..at + 8;
                let key = f64x8::from_slice(s, &keys[part.clone()]);
                let share = math::exp(s, key * self.rate - self.sums[row]) * (self.shares[row] * self.rate);
                let mut g = pairs::dead(s, live, at).select(zero, share);
                if (cols.start + at..cols.end.min(cols.start + at + 8)).contains(&row) {
                    g.as_mut_slice()[row - cols.start - at] = -self.shares[row] * self.rate;
                }
                let turn = g * key;
                // past the last column keys mean nothing
                let turn = g.simd_eq(0.0).select(zero, turn);
                along += turn;
                if let Some([column, _]) = &mut beside {
                    for (c, t) in column[at..].iter_mut().zip(turn.as_slice()) {
                        *c += t;
                    }
                }
                if norms {
                    let other = &self.inverse[1][cols.start + at..cols.end.min(cols.start + at + 8)];
                    g = g * self.inverse[0][row] * pairs::padded(s, other);
                }
                g.store_slice(&mut keys[part]);
            }
            along.store_slice(&mut mixed.sum);
        }
    }
    fn merge(&self, into: &mut [f64; 8], later: &[f64; 8]) {
        for (a, b) in into.iter_mut().zip(later) {
            *a += b;
        }
    }
    #[inline(always)]
    fn row<S: Simd>(&self, s: S, row: usize, acc: &[f64], sum: [f64; 8]) {
        let along = hsum(f64x8::from_slice(s, &sum));
        // SAFETY: each row is finished once.
        unsafe { *self.turns.at(row) = along };
        self.write(0, row, acc, along);
    }
    fn column(&self, col: usize, acc: &[f64], [along, _]: [f64; 2]) {
        self.write(1, col, acc, along);
    }
}
