//! Assignments of least sum by shortest augmenting paths (Jonker and Volgenant). The one rule: of columns equally near a free one
//! comes first, then the lowest, so that of solutions of equal sum it is always the same.

use base::store::Store;
use base::{Error, Result, Scalar, Tensor, by_float, try_vec};

/// What no row or column is.
const NONE: usize = usize::MAX;

/// assignment(cost[b.., n, m]) -> columns[b.., n]
pub fn assignment(t: &[Tensor], _: &[Scalar]) -> Result<()> {
    let &[ref lead @ .., n, m] = t[0].shape() else {
        return Err(Error::Value(format!("cost must have two axes or more, got shape {:?}", t[0].shape())));
    };
    if n > m {
        return Err(Error::Value(format!("{n} rows for {m} columns")));
    }
    let batch = lead.iter().product::<usize>();
    let mut cost = try_vec(t[0].len(), 0.0)?;
    by_float!(t[0], T => {
        for (to, from) in cost.iter_mut().zip(t[0].slice::<T>()?) {
            *to = from.to_f64();
        }
        Ok(())
    })?;
    if cost.iter().any(|c| !c.is_finite()) {
        return Err(Error::Value("cost has non-finite values".into()));
    }
    let out = t[1].slice_mut::<i64>()?;
    for b in 0..if n == 0 { 0 } else { batch } {
        for (to, column) in out[b * n..].iter_mut().zip(solve(&cost[b * n * m..][..n * m], n, m)?) {
            *to = column as i64;
        }
    }
    Ok(())
}

/// The column of each row.
fn solve(cost: &[f64], n: usize, m: usize) -> Result<Vec<usize>> {
    let row = |i: usize| &cost[i * m..][..m];
    let (mut u, mut v) = (try_vec(n, 0.0)?, try_vec(m, 0.0)?);
    let (mut row_of, mut column_of) = (try_vec(m, NONE)?, try_vec(n, NONE)?);
    if n == m {
        reduce(cost, &mut v, &mut row_of, &mut column_of)?;
    }
    for (i, u) in u.iter_mut().enumerate() {
        *u = row(i).iter().zip(&v).map(|(c, v)| c - v).fold(f64::INFINITY, f64::min);
    }
    let (mut far, mut before) = (try_vec(m, 0.0)?, try_vec(m, NONE)?);
    let (mut open, mut seen) = (try_vec(m, 0_usize)?, try_vec(m, 0_usize)?);
    for start in 0..n {
        if column_of[start] != NONE {
            continue;
        }
        far.fill(f64::INFINITY);
        for (j, open) in open.iter_mut().enumerate() {
            *open = j;
        }
        let (mut left, mut closed) = (m, 0);
        let (mut i, mut least) = (start, 0.0);
        let column = loop {
            let (costs, ui) = (row(i), u[i]);
            // the nearest column so far: how far, whether it is taken, which, and where in the list
            let mut best = (f64::INFINITY, true, NONE, NONE);
            for (place, &j) in open[..left].iter().enumerate() {
                let way = least + costs[j] - ui - v[j];
                if way < far[j] {
                    (far[j], before[j]) = (way, i);
                }
                let (d, taken) = (far[j], row_of[j] != NONE);
                if d < best.0 || (d == best.0 && (taken, j) < (best.1, best.2)) {
                    best = (d, taken, j, place);
                }
            }
            let (d, taken, j, place) = best;
            if j == NONE {
                return Err(Error::Value("costs are too large: their sums are not finite".into()));
            }
            least = d;
            left -= 1;
            open.swap(place, left);
            if !taken {
                break j;
            }
            seen[closed] = j;
            closed += 1;
            i = row_of[j];
        };
        u[start] += least;
        for &j in &seen[..closed] {
            let shift = least - far[j];
            u[row_of[j]] += shift;
            v[j] -= shift;
        }
        let mut j = column;
        loop {
            let i = before[j];
            row_of[j] = i;
            std::mem::swap(&mut column_of[i], &mut j);
            if i == start {
                break;
            }
        }
    }
    Ok(column_of)
}

/// Of square costs each column's least gives its dual, and a row that is the least of one takes it.
fn reduce(cost: &[f64], v: &mut [f64], row_of: &mut [usize], column_of: &mut [usize]) -> Result<()> {
    let m = v.len();
    let mut at = try_vec(m, 0_usize)?;
    v.fill(f64::INFINITY);
    for (i, row) in cost.chunks_exact(m.max(1)).enumerate() {
        for ((v, at), &c) in v.iter_mut().zip(&mut at).zip(row) {
            if c < *v {
                (*v, *at) = (c, i);
            }
        }
    }
    for (column, &row) in at.iter().enumerate() {
        if column_of[row] == NONE {
            (column_of[row], row_of[column]) = (column, row);
        }
    }
    Ok(())
}
