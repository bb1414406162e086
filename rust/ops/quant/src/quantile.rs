//! Two quantiles of every row. The one rule: an order statistic is found by the bits of numbers, digit by digit, so that it is exact
//! however long a row is, and only the two beside a rank are mixed, in f64.
//!
//! Of n numbers x₁ ≤ … ≤ xₙ and a share q: r = (n − 1) q, i = ⌊r⌋, t = r − i, and xᵢ + (xᵢ₊₁ − xᵢ) t, counted from 0; from t = 1/2
//! on xᵢ₊₁ − (xᵢ₊₁ − xᵢ)(1 − t), as NumPy's default has it (Hyndman and Fan, 1996, definition 7).

use base::store::Store;
use base::{Dtype, Error, Result, Scalar, Tensor, by_float, try_vec};
use drivers::blocks;
use drivers::select::{self, Format, Nan, Order, Round};

/// Elements of a row from which its digits are counted by all threads; shorter ones are each put in part in order by one.
const LONG: usize = 1 << 17;
/// Bits of a digit.
const DIGIT: u32 = 16;

fn mix(a: f64, b: f64, t: f64) -> f64 {
    if t < 0.5 { a + (b - a) * t } else { b - (b - a) * (1.0 - t) }
}

/// The rank below a share of n ≥ 1 numbers, and how far beyond it the share is.
fn rank(n: usize, q: f64) -> (usize, f64) {
    let r = (n - 1) as f64 * q;
    let i = (r.floor() as usize).min(n - 1);
    (i, r - i as f64)
}

/// The keys of the ranks, which ascend, among the keys of a whole row: one read for every digit.
fn digits(x: &Tensor, order: Order, ranks: &[usize]) -> Result<Vec<u64>> {
    let width = order.format.bits();
    let mut found: Vec<(u64, usize)> = ranks.iter().map(|&r| (0, r)).collect();
    for shift in (0..width).step_by(DIGIT as usize).map(|done| width - done - DIGIT) {
        let mut prefixes: Vec<i64> = found.iter().map(|f| f.0 as i64).collect();
        prefixes.dedup();
        let round = Round { prefixes: &prefixes, shift, bits: DIGIT };
        let mut counts = try_vec(prefixes.len() << DIGIT, 0)?;
        select::count(x, order, &round, &mut counts)?;
        for (prefix, left) in &mut found {
            let at = prefixes.iter().position(|&p| p == *prefix as i64).unwrap_or(0);
            let mut digit = 0;
            for (i, &n) in counts[at << DIGIT..(at + 1) << DIGIT].iter().enumerate() {
                digit = i as u64;
                if *left < n as usize {
                    break;
                }
                *left -= n as usize;
            }
            *prefix = *prefix << DIGIT | digit;
        }
    }
    Ok(found.into_iter().map(|f| f.0).collect())
}

/// The number of a key.
fn number(key: u64, order: Order) -> f64 {
    let bits = order.format.bits();
    let top = 1 << (bits - 1);
    let key = match (order.signed, key & top != 0) {
        (false, _) => key >> 1,
        (true, true) => key ^ top,
        (true, false) => !key & (u64::MAX >> (64 - bits)),
    };
    match order.format {
        Format::F16 => base::store::F16(key as u16).to_f64(),
        Format::Bf16 => base::store::Bf16(key as u16).to_f64(),
        Format::F32 => f64::from(f32::from_bits(key as u32)),
        Format::F64 => f64::from_bits(key),
    }
}

/// The quantiles of a long row.
fn long(x: &Tensor, magnitude: bool, shares: [f64; 2], saturate: bool) -> Result<[f64; 2]> {
    let format = match x.dtype() {
        Dtype::F64 => Format::F64,
        Dtype::F32 => Format::F32,
        Dtype::F16 => Format::F16,
        _ => Format::Bf16,
    };
    let order = Order { format, signed: !magnitude, nan: Nan::Lowest };
    // in order come NaN and −∞, what is finite, and ∞
    let (mut first, mut n) = (0, x.len());
    if !select::finite(x)? {
        if !saturate {
            return Err(super::non_finite());
        }
        let (nan, below, above) = odd(x)?;
        (first, n) = (nan + if magnitude { 0 } else { below }, n - nan - below - above);
        if n == 0 {
            return Ok([0.0; 2]);
        }
    }
    let ends = shares.map(|q| rank(n, q));
    let ranks: Vec<usize> = ends.iter().flat_map(|&(i, _)| [first + i, first + (i + 1).min(n - 1)]).collect();
    let mut sorted = ranks.clone();
    sorted.sort_unstable();
    let keys = digits(x, order, &sorted)?;
    let at = |r: usize| number(keys[sorted.partition_point(|&s| s < r)], order);
    Ok([0, 1].map(|e| mix(at(ranks[2 * e]), at(ranks[2 * e + 1]), ends[e].1)))
}

/// How many are NaN, −∞ and ∞.
fn odd(x: &Tensor) -> Result<(usize, usize, usize)> {
    by_float!(x, A => {
        let x = x.slice::<A>()?;
        let parts = blocks::map(x.len(), blocks::BLOCK, x.len(), |part| {
            Ok(x[part].iter().map(|v| v.to_f64()).fold((0, 0, 0), |n, v| match v {
                v if v.is_finite() => n,
                v if v.is_nan() => (n.0 + 1, n.1, n.2),
                v if v < 0.0 => (n.0, n.1 + 1, n.2),
                _ => (n.0, n.1, n.2 + 1),
            }))
        })?;
        Ok(parts.into_iter().fold((0, 0, 0), |a, b| (a.0 + b.0, a.1 + b.1, a.2 + b.2)))
    })
}

/// The quantiles of a row that one thread orders, as far as it must.
fn short<A: Store>(x: &[A], magnitude: bool, shares: [f64; 2], saturate: bool) -> Result<[f64; 2]> {
    let (mut kept, mut n) = (try_vec(x.len(), 0.0)?, 0);
    for v in x.iter().map(|v| v.to_f64()) {
        if v.is_finite() {
            kept[n] = if magnitude { v.abs() } else { v + 0.0 };
            n += 1;
        } else if !saturate {
            return Err(super::non_finite());
        }
    }
    if n == 0 {
        return Ok([0.0; 2]);
    }
    let kept = &mut kept[..n];
    Ok(shares.map(|q| {
        let (i, t) = rank(n, q);
        let (_, &mut a, above) = kept.select_nth_unstable_by(i, f64::total_cmp);
        let b = above.iter().copied().reduce(f64::min).unwrap_or(a);
        mix(a, b, t)
    }))
}

/// row_quantiles(x) -> low, high; the shares of both, and whether they are of |x|: then the first is −, the second +
pub fn row_quantiles(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [x, low, high] = t else { return Err(super::arrays(3, t)) };
    let (shares, magnitude, saturate) = ([k[0].float(), k[1].float()], k[2].bool(), k[3].bool());
    if let Some(q) = shares.iter().find(|q| !(0.0..=1.0).contains(*q)) {
        return Err(Error::Value(format!("a share lies within 0 and 1, got {q}")));
    }
    let (n, d) = x.rows();
    low.expect("low", n)?;
    high.expect("high", n)?;
    let ends: Vec<[f64; 2]> = by_float!(x, A => {
        let rows = x.slice::<A>()?;
        if d == 0 {
            Ok(vec![[0.0; 2]; n])
        } else if d < LONG {
            let each = (blocks::BLOCK / d).max(1);
            let parts = blocks::map(n, each, x.len(), |part| {
                part.map(|i| short(&rows[i * d..(i + 1) * d], magnitude, shares, saturate)).collect::<Result<Vec<_>>>()
            })?;
            Ok(parts.into_iter().flatten().collect())
        } else if n == 1 {
            Ok(vec![long(x, magnitude, shares, saturate)?])
        } else {
            let mut own = try_vec(d, rows[0])?;
            let each = rows.chunks_exact(d).map(|row| {
                own.copy_from_slice(row);
                long(&Tensor::of(&mut own), magnitude, shares, saturate)
            });
            each.collect()
        }
    })?;
    for (e, out) in [low, high].into_iter().enumerate() {
        by_float!(out, A => {
            for (o, v) in out.slice_mut::<A>()?.iter_mut().zip(&ends) {
                *o = A::from_f64(if magnitude && e == 0 { -v[0] } else { v[e] });
            }
            Ok(())
        })?;
    }
    Ok(())
}
