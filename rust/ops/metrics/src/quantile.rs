//! Tables of bins of equal mass. The one rule: equal numbers are in the bin of the first of them in order, so that the order of the
//! data is of no account, not even to the last bit.

use super::bins::Sizes;
use base::store::Store;
use base::{Error, Result, Scalar, Tensor, by_float, try_vec};
use drivers::blocks;
use drivers::select::bools;
use drivers::select::order::sort;

/// What one row gives.
struct Row {
    count: Vec<i64>,
    hits: Vec<i64>,
    gap: Vec<f64>,
    edges: Vec<f64>,
}

/// confidences `[rows, n]`, whether each was right, numbers of bins; counts, hits, sums of right minus confidence, and edges.
pub fn tables(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let sizes = Sizes::new(&t[2], s[0].int())?;
    let (rows, n, total) = (t[0].shape()[0], t[0].shape()[1], s[0].int() as usize);
    t[1].expect_shape("hit", t[0].shape())?;
    let hit = bools(&t[1])?;
    let longer = total + sizes.each.len();
    for (name, t, len) in
        [("count", &t[3], total), ("hits", &t[4], total), ("gap", &t[5], total), ("edges", &t[6], longer)]
    {
        t.expect(name, rows * len)?;
    }
    let found = blocks::map(rows, 1, t[0].len().saturating_mul(8), |r| {
        let r = r.start;
        // not below 0, so that the bits of a number are in its order, and the lowest is free to tell whether it was right
        let mut keys = try_vec(n, 0u64)?;
        by_float!(t[0], T => {
            for ((key, p), hit) in keys.iter_mut().zip(&t[0].slice::<T>()?[r * n..]).zip(&hit[r * n..]) {
                if !(0.0..=1.0).contains(&p.to_f64()) {
                    return Err(Error::Value(format!("confidence must lie within 0 and 1, got {:?}", p.to_f64())));
                }
                let bits = if size_of::<T>() == 8 { p.to_f64().to_bits() } else { u64::from(p.to_f32().to_bits()) };
                // -0 has a bit of its own above all
                let bits = if p.to_f64() == 0.0 { 0 } else { bits };
                *key = bits << 1 | u64::from(*hit != 0);
            }
            sort(&mut keys, |k| *k)
        })?;
        let wide = t[0].dtype().size() == 8;
        let value =
            |key: u64| if wide { f64::from_bits(key >> 1) } else { f64::from(f32::from_bits((key >> 1) as u32)) };
        let mut row = Row {
            count: try_vec(total, 0)?,
            hits: try_vec(total, 0)?,
            gap: try_vec(total, 0.0)?,
            edges: try_vec(longer, 0.0)?,
        };
        let mut first = 0;
        while first < n {
            let (p, mut end, mut right) = (value(keys[first]), first, 0);
            while end < n && keys[end] >> 1 == keys[first] >> 1 {
                right += (keys[end] & 1) as i64;
                end += 1;
            }
            for (i, &(bins, before)) in sizes.each.iter().enumerate() {
                let bin = (first as u128 * bins as u128 / n as u128) as usize;
                let (at, many) = (before + bin, (end - first) as i64);
                row.count[at] += many;
                row.hits[at] += right;
                row.gap[at] += p.mul_add(-(many as f64), right as f64);
                row.edges[before + i + bin + 1] = p;
            }
            first = end;
        }
        for (i, &(bins, before)) in sizes.each.iter().enumerate() {
            let edges = &mut row.edges[before + i..=before + i + bins];
            for b in 1..=bins {
                edges[b] = edges[b].max(edges[b - 1]);
            }
        }
        Ok(row)
    })?;
    for (r, row) in found.into_iter().enumerate() {
        t[3].slice_mut::<i64>()?[r * total..][..total].copy_from_slice(&row.count);
        t[4].slice_mut::<i64>()?[r * total..][..total].copy_from_slice(&row.hits);
        t[5].slice_mut::<f64>()?[r * total..][..total].copy_from_slice(&row.gap);
        t[6].slice_mut::<f64>()?[r * longer..][..longer].copy_from_slice(&row.edges);
    }
    Ok(())
}
