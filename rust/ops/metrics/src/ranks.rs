//! Correlations of orders. The one rule: pairs and ranks are counted in whole numbers, and divided once.
//!
//! The pairs in opposite order are the inversions of the one numbers in the order of the others (Knight, 1966).

use base::{Error, Result, Scalar, Tensor, by_number, try_vec};
use drivers::blocks;
use drivers::select::order::{Ranked, inversions, sort};

/// Items of the keys of column `j` and of their places.
fn column<I: Clone + Default>(name: &str, x: &Tensor, j: usize, item: impl Fn(u64, u32) -> I) -> Result<Vec<I>> {
    by_number!(x, T => {
        let (x, wide) = (x.slice::<T>()?, x.shape()[1]);
        let (mut out, mut none) = (try_vec(x.len() / wide, I::default())?, false);
        for (i, (to, row)) in out.iter_mut().zip(x.chunks_exact(wide)).enumerate() {
            let rank = row[j].rank();
            none |= rank.is_none();
            *to = item(rank.unwrap_or(0), i as u32);
        }
        if none { Err(Error::Value(format!("{name} holds NaN, which has no rank"))) } else { Ok(out) }
    })
}

/// A key with its place.
fn placed(rank: u64, place: u32) -> (u64, u32) {
    (rank, place)
}

/// Calls `f` with the bounds of runs of equal keys.
fn runs<T, K: PartialEq>(items: &[T], key: impl Fn(&T) -> K, mut f: impl FnMut(usize, usize)) {
    let mut first = 0;
    for end in 1..=items.len() {
        if end == items.len() || key(&items[end]) != key(&items[first]) {
            f(first, end);
            first = end;
        }
    }
}

/// Pairs of equals.
fn pairs(n: usize) -> i128 {
    n as i128 * (n as i128 - 1) / 2
}

fn each(t: &[Tensor], one: impl Fn(usize, usize) -> Result<f64> + Sync) -> Result<()> {
    let (n, m) = (t[0].shape()[0], t[0].shape()[1]);
    t[1].expect_shape("target", t[0].shape())?;
    t[2].expect("the result", m)?;
    if n > u32::MAX as usize {
        return Err(Error::Value(format!("{n} numbers are more than are ranked, 2^32 - 1")));
    }
    // a number is sorted by its digits and merged by its halves
    let found = blocks::map(m, 1, t[0].len().saturating_mul(32), |j| one(n, j.start))?;
    t[2].slice_mut::<f64>()?.copy_from_slice(&found);
    Ok(())
}

/// preds, target; τ of the variant a, b or c (0, 1, 2).
pub fn kendall(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let variant = s[0].int();
    each(t, |n, j| {
        let (x, mut y) = (column("preds", &t[0], j, |rank, _| rank)?, column("target", &t[1], j, placed)?);
        if n < 2 {
            return Ok(f64::NAN);
        }
        sort(&mut y, |v| v.0)?;
        // what the first numbers are in the order of the others, beside the number of these among the different ones
        let (mut both, mut different, mut tied) = (try_vec(n, (0u64, 0u32))?, [0usize; 2], [0i128; 3]);
        runs(
            &y,
            |v| v.0,
            |from, to| {
                for (b, (_, i)) in both[from..to].iter_mut().zip(&y[from..to]) {
                    *b = (x[*i as usize], different[1] as u32);
                }
                different[1] += 1;
                tied[1] += pairs(to - from);
            },
        );
        drop((x, y));
        sort(&mut both, |v| v.0)?;
        runs(
            &both,
            |v| v.0,
            |from, to| {
                different[0] += 1;
                tied[0] += pairs(to - from);
            },
        );
        runs(&both, |v| *v, |from, to| tied[2] += pairs(to - from));
        let mut last = try_vec(n, 0)?;
        last.iter_mut().zip(&both).for_each(|(to, v)| *to = v.1);
        drop(both);
        if different.contains(&1) {
            return Ok(if variant == 0 { 0.0 } else { f64::NAN });
        }
        let all = pairs(n);
        let excess = all - tied[0] - tied[1] + tied[2] - 2 * i128::from(inversions(&mut last)?);
        Ok(match variant {
            0 => excess as f64 / all as f64,
            1 => (excess as f64 / (((all - tied[0]) * (all - tied[1])) as f64).sqrt()).clamp(-1.0, 1.0),
            _ => {
                let m = different[0].min(different[1]) as i128;
                (2 * excess * m) as f64 / (n as i128 * n as i128 * (m - 1)) as f64
            }
        })
    })
}

/// Twice the average ranks less their mean n + 1, at the places of the numbers: whole numbers that add up to 0.
fn centred(mut v: Vec<(u64, u32)>) -> Result<Vec<i64>> {
    let n = v.len();
    sort(&mut v, |v| v.0)?;
    let mut out = try_vec(n, 0)?;
    runs(
        &v,
        |v| v.0,
        |from, to| {
            for (_, i) in &v[from..to] {
                out[*i as usize] = (from + to) as i64 - n as i64;
            }
        },
    );
    Ok(out)
}

fn dot(a: &[i64], b: &[i64]) -> i128 {
    a.iter().zip(b).map(|(a, b)| i128::from(*a) * i128::from(*b)).sum()
}

/// preds, target; ρ.
pub fn spearman(t: &[Tensor], _: &[Scalar]) -> Result<()> {
    each(t, |n, j| {
        let (x, y) = (column("preds", &t[0], j, placed)?, column("target", &t[1], j, placed)?);
        if n < 2 {
            return Ok(f64::NAN);
        }
        let (a, b) = (centred(x)?, centred(y)?);
        let size = dot(&a, &a) as f64 * dot(&b, &b) as f64;
        Ok(if size == 0.0 { f64::NAN } else { dot(&a, &b) as f64 / size.sqrt() })
    })
}
