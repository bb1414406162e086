//! Two sparse matrices multiplied, against chains written out bit for bit, and softmax of rows against f64; at every level and for
//! any number of threads.

use super::*;
use crate::csr::{Matmul, matmul_count, matmul_places, softmax, softmax_bwd};
use base::pool;
use std::collections::BTreeMap;

/// Runs `go` at every level, on one thread and on three, and gives what it was each time.
fn every<R>(mut go: impl FnMut() -> R) -> Vec<R> {
    let mut found = Vec::new();
    for level in simd::available() {
        assert!(simd::force(Some(level)));
        for threads in [1, 3] {
            pool::set_threads(threads);
            found.push(go());
        }
        pool::set_threads(0);
        simd::force(None);
    }
    found
}

fn multiplied<T: Float + Store + PartialEq + std::fmt::Debug, I: Index + PartialEq + std::fmt::Debug>(
    rng: &mut Rng,
    [rows, inner, cols, mean]: [usize; 4],
) {
    let (a, b) = (Matrix::<T, I>::random(rng, rows, inner, mean), Matrix::<T, I>::random(rng, inner, cols, mean));
    let zero = T::from_f64(0.0);
    let mut want: Vec<BTreeMap<usize, T>> = Vec::new();
    for i in 0..rows {
        let mut row = BTreeMap::new();
        for (k, v) in a.row(i) {
            for (j, w) in b.row(k) {
                let sum = row.entry(j).or_insert(zero);
                *sum = v.fused(w, *sum);
            }
        }
        want.push(row);
    }
    let places: Vec<usize> = want.iter().flat_map(|row| row.keys().copied()).collect();
    let values: Vec<T> = want.iter().flat_map(|row| row.values().copied()).collect();
    let g: Vec<T> = rng.vec(values.len());
    let (mut left, mut right, mut start) = (Vec::new(), vec![zero; b.data.len()], 0);
    for (i, row) in want.iter().enumerate() {
        let at: BTreeMap<usize, T> = row.keys().copied().zip(g[start..].iter().copied()).collect();
        start += row.len();
        for (k, v) in a.row(i) {
            let from = unsafe { I::read(&raw const b.indptr[k]) };
            let mut sum = zero;
            for (f, (j, w)) in b.row(k).enumerate() {
                sum = at[&j].fused(w, sum);
                right[from + f] = v.fused(at[&j], right[from + f]);
            }
            left.push(sum);
        }
    }
    let (pa, pb) = (a.pattern(), b.pattern());
    let found = every(|| {
        let mut count = vec![-1i64; rows + 1];
        matmul_count(&pa, &pb, &mut count).unwrap();
        let indptr: Vec<I> = count.iter().map(|&n| I::new(usize::try_from(n).unwrap()).unwrap()).collect();
        let mut indices = vec![I::new(0).unwrap(); places.len()];
        matmul_places(&pa, &pb, &indptr, &mut indices).unwrap();
        let c = Pattern::new(&indices, &indptr, cols).unwrap();
        let m = Matmul::new((&pa, &a.data), (&pb, &b.data), &c).unwrap();
        let (mut y, mut da, mut db) = (vec![zero; g.len()], vec![zero; a.data.len()], vec![zero; b.data.len()]);
        m.values(&mut y).unwrap();
        m.left(&g, &mut da).unwrap();
        m.right(&g, &mut db).unwrap();
        (indices, y, da, db)
    });
    for (indices, y, da, db) in found {
        assert!(indices.iter().map(|k| unsafe { I::read(k) }).eq(places.iter().copied()));
        assert_eq!((y, da, db), (values.clone(), left.clone(), right.clone()));
    }
}

#[test]
fn products_of_two_are_the_chains_whoever_runs_them() {
    let mut rng = Rng(11);
    for sizes in [[0, 3, 4, 2], [3, 0, 4, 2], [3, 4, 0, 2], [1, 1, 1, 1], [9, 12, 70, 3], [40, 30, 5000, 4]] {
        multiplied::<f32, i32>(&mut rng, sizes);
        multiplied::<f64, i64>(&mut rng, sizes);
    }
    // so wide that a few terms are sorted, and so many that rows are parted
    multiplied::<f64, i32>(&mut rng, [20, 30, 3_000_000, 2]);
    multiplied::<f32, i64>(&mut rng, [1500, 1200, 1100, 24]);
}

#[test]
fn rows_become_shares_of_one() {
    fn check<T: Store, I: Index>(a: &Matrix<T, I>, x: &[T], g: &[T], y: &[T], dx: &[T], eps: f64) {
        for i in 0..a.rows() {
            let (from, to) = unsafe { (I::read(&raw const a.indptr[i]), I::read(&raw const a.indptr[i + 1])) };
            let most = x[from..to].iter().map(|v| v.to_f64()).fold(f64::NEG_INFINITY, f64::max);
            let e: Vec<f64> = x[from..to].iter().map(|v| (v.to_f64() - most).exp()).collect();
            let total: f64 = e.iter().sum();
            let mean: f64 = (from..to).map(|k| y[k].to_f64() * g[k].to_f64()).sum();
            for k in from..to {
                let want = e[k - from] / total;
                assert!((y[k].to_f64() - want).abs() <= 8.0 * eps * want + 1e-300, "{} for {want}", y[k].to_f64());
                let want = y[k].to_f64() * (g[k].to_f64() - mean);
                assert!((dx[k].to_f64() - want).abs() <= 8.0 * eps * y[k].to_f64() + 1e-40);
            }
        }
    }
    fn go<T: Store, I: Index>(rng: &mut Rng, [rows, cols, mean]: [usize; 3]) {
        let a = Matrix::<T, I>::random(rng, rows, cols, mean);
        let x: Vec<T> = a.data.iter().map(|v| T::from_f64(v.to_f64() * 30.0)).collect();
        let g: Vec<T> = rng.vec(x.len());
        let eps = if size_of::<T>() == 4 { f64::from(f32::EPSILON) } else { f64::EPSILON };
        let found = every(|| {
            let (mut y, mut dx) = (vec![T::from_f64(7.0); x.len()], vec![T::from_f64(7.0); x.len()]);
            softmax(&a.indptr, &x, &mut y).unwrap();
            softmax_bwd(&a.indptr, &g, &y, &mut dx).unwrap();
            (y, dx)
        });
        let bits = |v: &[T]| v.iter().map(|v| v.to_f64().to_bits()).collect::<Vec<_>>();
        // float64's exponentials are a level's own; whoever runs which rows, they are the same
        for same in found.chunks(2) {
            assert!(bits(&same[0].0) == bits(&same[1].0) && bits(&same[0].1) == bits(&same[1].1));
        }
        for (y, dx) in &found {
            check(&a, &x, &g, y, dx, eps);
        }
    }
    let mut rng = Rng(12);
    for sizes in [[0, 3, 2], [5, 1, 1], [70, 40, 7], [300, 9000, 3], [3, 9000, 4000]] {
        go::<f32, i32>(&mut rng, sizes);
        go::<f64, i64>(&mut rng, sizes);
    }
}
