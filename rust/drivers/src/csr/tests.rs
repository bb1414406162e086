//! Sparse matrices against chains written out, bit for bit, and against their error bounds.

mod matmul;

use super::*;
use crate::csr::spmm::{Panel, Real, Start};
use base::lane::Lane;
use base::simd;
use base::store::Store;
use base::vector::{Float, Isa};

/// Numbers from a seed (xorshift64*), good enough to fill matrices.
struct Rng(u64);
impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
    fn real(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
    fn vec<T: Store>(&mut self, n: usize) -> Vec<T> {
        (0..n).map(|_| T::from_f64(self.real())).collect()
    }
}

struct Matrix<T, I> {
    data: Vec<T>,
    indices: Vec<I>,
    indptr: Vec<I>,
    cols: usize,
}
impl<T: Store, I: Index> Matrix<T, I> {
    /// Rows of about `mean` entries, some empty, some columns twice.
    fn random(rng: &mut Rng, rows: usize, cols: usize, mean: usize) -> Self {
        let (mut indices, mut indptr) = (Vec::new(), vec![I::new(0).unwrap()]);
        for _ in 0..rows {
            let n = if cols == 0 || rng.below(5) == 0 { 0 } else { rng.below(2 * mean + 1) };
            let mut row: Vec<usize> = (0..n).map(|_| rng.below(cols)).collect();
            row.sort_unstable();
            indices.extend(row.iter().map(|&k| I::new(k).unwrap()));
            indptr.push(I::new(indices.len()).unwrap());
        }
        Matrix { data: rng.vec(indices.len()), indices, indptr, cols }
    }
    fn pattern(&self) -> Pattern<'_, I> {
        Pattern::new(&self.indices, &self.indptr, self.cols).unwrap()
    }
    fn rows(&self) -> usize {
        self.indptr.len() - 1
    }
    fn row(&self, i: usize) -> impl Iterator<Item = (usize, T)> {
        let at = |i: usize| unsafe { I::read(&raw const self.indptr[i]) };
        (at(i)..at(i + 1)).map(|e| (unsafe { I::read(&raw const self.indices[e]) }, self.data[e]))
    }
}

/// The sums in the order that is promised, and the sums of the magnitudes.
fn chain<T: Float + Store, I: Index>(
    a: &Matrix<T, I>,
    x: &[T],
    [batch, n]: [usize; 2],
    bias: Option<&[T]>,
    clamp: Option<[T; 2]>,
) -> (Vec<T>, Vec<f64>, Vec<f64>) {
    let (mut y, mut exact, mut bound) = (Vec::new(), Vec::new(), Vec::new());
    let u = if size_of::<T>() == 4 { f64::from(f32::EPSILON) / 2.0 } else { f64::EPSILON / 2.0 };
    for b in 0..batch {
        for i in 0..a.rows() {
            for j in 0..n {
                let start = bias.map_or(T::default(), |b| b[i]);
                let (mut sum, mut wide, mut size, mut terms) = (start, start.to_f64(), start.to_f64().abs(), 1.0);
                for (k, w) in a.row(i) {
                    let x = x[(b * a.cols + k) * n + j];
                    sum = w.fused(x, sum);
                    wide = w.to_f64().mul_add(x.to_f64(), wide);
                    size += (w.to_f64() * x.to_f64()).abs();
                    terms += 1.0;
                }
                if let Some([lo, hi]) = clamp {
                    sum = if sum < lo { lo } else { sum };
                    sum = if sum > hi { hi } else { sum };
                    wide = wide.max(lo.to_f64()).min(hi.to_f64());
                }
                y.push(sum);
                exact.push(wide);
                bound.push(terms * u / (1.0 - terms * u) * size + terms * 1.5e-45);
            }
        }
    }
    (y, exact, bound)
}

fn check<T: Float + Real + PartialEq + std::fmt::Debug, I: Index>(
    rng: &mut Rng,
    [rows, cols, mean]: [usize; 3],
    shape: [usize; 2],
) {
    let a = Matrix::<T, I>::random(rng, rows, cols, mean);
    let x: Vec<T> = rng.vec(shape[0] * cols * shape[1]);
    let bias: Vec<T> = rng.vec(rows);
    let bias = (rng.below(2) == 0).then_some(&bias[..]);
    let clamp = (rng.below(2) == 0).then_some([T::from_f64(-0.5), T::from_f64(0.75)]);
    let (want, exact, bound) = chain(&a, &x, shape, bias, clamp);
    for level in simd::available() {
        assert!(simd::force(Some(level)));
        let mut y = vec![T::from_f64(7.0); want.len()];
        spmm(&a.pattern(), &a.data, &x, shape, bias, clamp, &mut y).unwrap();
        simd::force(None);
        assert_eq!(y, want, "{level} {rows}x{cols} {shape:?}");
        if size_of::<T>() == 4 {
            for ((y, e), b) in y.iter().zip(&exact).zip(&bound) {
                assert!((y.to_f64() - e).abs() <= *b, "{level}: {y:?} for {e}, bound {b}");
            }
        }
    }
}

#[test]
fn products_are_the_chains_at_every_width_and_level() {
    let mut rng = Rng(1);
    for n in 0..=131 {
        check::<f32, i32>(&mut rng, [11, 23, 6], [1, n]);
        check::<f64, i64>(&mut rng, [5, 17, 4], [1, n]);
    }
    for shape in [[0, 3], [3, 0], [3, 1], [2, 33], [1, 255], [1, 257]] {
        for sizes in [[0, 5, 2], [5, 0, 0], [1, 1, 1], [33, 9, 20], [70, 1, 1]] {
            check::<f32, i64>(&mut rng, sizes, shape);
            check::<f64, i32>(&mut rng, sizes, shape);
        }
    }
}

#[test]
fn products_in_blocks_and_parts_are_the_same_chains() {
    let mut rng = Rng(2);
    // several blocks of rows of x, sums stored between them; copied and read in place; single columns in blocks
    check::<f32, i32>(&mut rng, [9, 3000, 900], [1, 130]);
    check::<f32, i32>(&mut rng, [400, 3000, 40], [2, 129]);
    check::<f64, i32>(&mut rng, [70, 2100, 300], [1, 70]);
    check::<f32, i32>(&mut rng, [300, 20, 60], [1, 1]);
    check::<f64, i64>(&mut rng, [3, 140_000, 70_000], [1, 1]);
    check::<f32, i64>(&mut rng, [2000, 5000, 2], [1, 40]);
}

#[test]
fn rows_of_x_that_are_read_once_are_chains_too() {
    let mut rng = Rng(10);
    for (rows, mean, n, batch) in [(1, 40, 300, 1), (2, 9, 257, 3), (1, 1, 2100, 1), (3, 17, 4500, 1)] {
        check::<f32, i32>(&mut rng, [rows, 700, mean], [batch, n]);
        check::<f64, i64>(&mut rng, [rows, 700, mean], [batch, n]);
    }
}

#[test]
fn columns_alone_are_columns_together() {
    let mut rng = Rng(3);
    let a = Matrix::<f32, i32>::random(&mut rng, 50, 60, 20);
    let x: Vec<f32> = rng.vec(60 * 97);
    let mut y = vec![0f32; 50 * 97];
    spmm(&a.pattern(), &a.data, &x, [1, 97], None, None, &mut y).unwrap();
    for j in 0..97 {
        let column: Vec<f32> = x.iter().skip(j).step_by(97).copied().collect();
        let mut alone = vec![0f32; 50];
        spmm(&a.pattern(), &a.data, &column, [1, 1], None, None, &mut alone).unwrap();
        assert!(alone.iter().zip(y.iter().skip(j).step_by(97)).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}

#[test]
fn strange_numbers_stay_in_their_rows() {
    // row 0 has no entry in column 1, row 1 has; row 2 is empty
    let (indices, indptr) = ([0i32, 0, 1], [0i32, 1, 3, 3]);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let p = Pattern::new(&indices, &indptr, 2).unwrap();
        let mut y = [9f32; 3];
        spmm(&p, &[2.0, 0.0, 0.0], &[3.0, bad], [1, 1], None, Some([0.0, 6.0]), &mut y).unwrap();
        assert_eq!((y[0], y[2]), (6.0, 0.0));
        assert!(y[1].is_nan());
    }
    let p = Pattern::new(&indices, &indptr, 2).unwrap();
    let (least, mut y) = (f32::from_bits(1), [9f32; 3]);
    spmm(&p, &[1.0, 1.0, 1.0], &[least, least], [1, 1], None, None, &mut y).unwrap();
    assert_eq!(y, [least, 2.0 * least, 0.0]);
}

#[test]
fn what_is_malformed_is_refused() {
    let bad = |indices: &[i32], indptr: &[i32], cols: usize| {
        let mut out = (vec![0i32; indices.len()], vec![0i32; indptr.len()], vec![0i32; indices.len()]);
        let sorted = sort(indices, indptr, cols, &mut out.0, &mut out.1, &mut out.2);
        (Pattern::new(indices, indptr, cols).err(), sorted.err())
    };
    let both: [(&[i32], &[i32], usize, &str); 9] = [
        (&[], &[], 3, "indptr is empty"),
        (&[0], &[1, 1], 3, "starts at 1"),
        (&[0, 1], &[0, 2, 1, 2], 3, "falls from 2 to 1 at row 1"),
        (&[0, 1], &[0, -1, 2], 3, "falls from 0 to -1 at row 0"),
        (&[0, 1], &[0, 3], 3, "ends at 3, but 2"),
        (&[0, 1], &[0, 1], 3, "ends at 1, but 2"),
        (&[0, 3], &[0, 1, 2], 3, ""),
        (&[0, -1], &[0, 1, 2], 3, ""),
        (&[0], &[0, 1], 0, ""),
    ];
    for (indices, indptr, cols, text) in both {
        let (pattern, sorted) = bad(indices, indptr, cols);
        assert!(pattern.unwrap().to_string().contains(text), "{indptr:?}");
        assert!(sorted.unwrap().to_string().contains(text), "{indptr:?}");
    }
    assert_eq!(bad(&[0, 9], &[0, 1, 1, 2], 7).1.unwrap().to_string(), "indices[1] = 9 (row 2) is outside 0..7");
    // out of order is refused by products and mended by `sort`
    let (pattern, sorted) = bad(&[2, 1], &[0, 2], 3);
    assert!(pattern.is_some() && sorted.is_none());
    // sizes that do not fit
    let p = Pattern::new(&[0i32, 1], &[0, 2], 2).unwrap();
    let mut y = [5f32; 3];
    assert!(spmm(&p, &[1.0, 2.0], &[1.0; 2], [1, 1], None, None, &mut y).is_err());
    assert!(spmm(&p, &[1.0], &[1.0; 2], [1, 1], None, None, &mut y[..1]).is_err());
    assert!(spmm(&p, &[1.0, 2.0], &[1.0; 3], [1, 1], None, None, &mut y[..1]).is_err());
    assert!(spmm(&p, &[1.0, 2.0], &[1.0; 2], [1, 1], Some(&[]), None, &mut y[..1]).is_err());
    assert_eq!(y, [5.0; 3]);
}

#[test]
fn an_index_changed_after_the_check_is_met_with_an_error() {
    fn go<T: Real, I: Index>(width: usize, last: i64) {
        let indices: Vec<I> = [0, 1, last].iter().map(|&k| I::new((k & 0x7fff_ffff) as usize).unwrap()).collect();
        let (data, x) = (vec![T::from_f64(1.0); 3], vec![T::from_f64(1.0); 2 * width]);
        for level in simd::available() {
            simd::force(Some(level));
            let isa = Isa::current();
            simd::force(None);
            let (lanes, most) = T::shape(isa);
            let width = width.min(lanes * most);
            let mut y = vec![T::default(); 9 * width];
            let (from, to) = ([0, 0, 0, 0, 0, 0, 0, 0, 2], [2, 2, 2, 2, 2, 2, 2, 2, 3]);
            let p = Panel {
                data: &data,
                indices: &indices,
                from: &from,
                to: &to,
                first: 0,
                count: 2,
                x: x.as_ptr(),
                ldx: width,
                y: y.as_mut_ptr(),
                ldy: width,
                width,
                start: Start::Zero,
                clamp: None,
            };
            // SAFETY: x has two rows and y nine rows of `width`, the entries lie in 0..3.
            assert!(!unsafe { T::panel(isa, &p) });
            assert!(y[..8 * width].iter().all(|v| v.to_f64() == 2.0));
        }
    }
    for width in [1, 3, 16, 40, 64] {
        for last in [2, 3, 1_000_000_000, 0x7fff_ffff] {
            go::<f32, i32>(width, last);
            go::<f64, i64>(width.min(32), last);
        }
    }
}

#[test]
fn sorting_is_stable_and_transposing_twice_is_nothing() {
    let mut rng = Rng(4);
    for (rows, cols, n) in [(0, 3, 0), (1, 1, 4), (40, 13, 300), (3000, 7, 9000)] {
        let mut indptr: Vec<i64> = (0..rows).map(|_| rng.below(n + 1) as i64).collect();
        indptr.sort_unstable();
        indptr.insert(0, 0);
        let n = *indptr.last().unwrap() as usize;
        if let Some(last) = indptr.last_mut() {
            *last = n as i64;
        }
        let indices: Vec<i64> = (0..n).map(|_| rng.below(cols) as i64).collect();
        let (mut c, mut p, mut o) = (vec![0i32; n], vec![0i32; n], vec![0i32; rows + 1]);
        sort(&indices, &indptr, cols, &mut c, &mut o, &mut p).unwrap();
        assert!(o.iter().zip(&indptr).all(|(&a, &b)| i64::from(a) == b));
        for i in 0..rows {
            let row = indptr[i] as usize..indptr[i + 1] as usize;
            let mut want: Vec<(i64, usize)> = row.clone().map(|e| (indices[e], e)).collect();
            want.sort_unstable();
            let got: Vec<(i64, usize)> = row.map(|e| (i64::from(c[e]), p[e] as usize)).collect();
            assert_eq!(got, want);
        }
        let a = Pattern::new(&c, &o, cols).unwrap();
        let (mut r, mut tp, mut back) = (vec![0i32; n], vec![0i32; cols + 1], vec![0i32; n]);
        transpose(&a, &mut r, &mut tp, &mut back).unwrap();
        let t = Pattern::new(&r, &tp, rows).unwrap();
        let (mut c2, mut o2, mut back2) = (vec![0i32; n], vec![0i32; rows + 1], vec![0i32; n]);
        transpose(&t, &mut c2, &mut o2, &mut back2).unwrap();
        assert_eq!((&c2, &o2), (&c, &o));
        assert!(back2.iter().enumerate().all(|(e, &k)| back[k as usize] as usize == e));
    }
    // what does not fit 32 bits is said, not wrapped
    let (mut c, mut o) = (vec![0i32; 1], vec![0i32; 2]);
    assert!(sort(&[0i64], &[0i64, 1], 1 << 40, &mut c, &mut o, &mut [0]).is_err());
}

#[test]
fn dense_and_back() {
    let w = [0.0f32, -0.0, 1.5, f32::NAN, 0.0, f32::from_bits(1), -2.0, 0.0, f32::INFINITY, 0.0, 0.0, 0.0];
    let mut indptr = [0i64; 5];
    count(&w, None, 3, &mut indptr).unwrap();
    assert_eq!(indptr, [0, 1, 3, 5, 5]);
    let (mut data, mut indices) = ([0f32; 5], [0i64; 5]);
    fill(&w, None, 3, &indptr, &mut data, &mut indices).unwrap();
    assert_eq!(indices, [2, 0, 2, 0, 2]);
    let p = Pattern::new(&indices, &indptr, 3).unwrap();
    let mut back = [7f32; 12];
    dense(&p, &data, &mut back, |v| v, |v: f32| v).unwrap();
    assert!(back.iter().zip(&w).all(|(a, b)| a.to_bits() == b.to_bits() || *b == 0.0 && *a == 0.0));
    let mut taken = [0f32; 5];
    take(&p, &w, &mut taken).unwrap();
    assert!(taken.iter().zip(&data).all(|(a, b)| a.to_bits() == b.to_bits()));
    // a mask keeps what it says, zeros too
    let mask = [1u8, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    count(&w, Some(&mask), 3, &mut indptr).unwrap();
    assert_eq!(indptr, [0, 1, 2, 2, 3]);
    // offsets of another matrix are refused
    assert!(fill(&w, None, 3, &indptr, &mut data[..3], &mut indices[..3]).is_err());
    // equal places are added
    let p = Pattern::new(&[1i32, 1, 1], &[0, 3], 2).unwrap();
    let mut out = [9f32; 2];
    dense(&p, &[1.0, 2.0, 4.0], &mut out, |v| v, |v: f32| v).unwrap();
    assert_eq!(out, [0.0, 7.0]);
    assert!(gather(&[1.0f32, 2.0], &[1i32, 0, 2]).is_err());
    assert_eq!(gather(&[1.0f32, 2.0], &[1i32, 0, 1]).unwrap(), [2.0, 1.0, 2.0]);
}

#[test]
fn sampled_products_stay_within_their_bound_and_have_one_value() {
    fn go<T: Dot, I: Index>(rng: &mut Rng, [rows, cols, mean]: [usize; 3], [batch, d]: [usize; 2]) {
        let p = Matrix::<T, I>::random(rng, rows, cols, mean);
        let (a, b): (Vec<T>, Vec<T>) = (rng.vec(batch * rows * d), rng.vec(batch * cols * d));
        let u = if size_of::<T>() == 4 { f64::from(f32::EPSILON) } else { f64::EPSILON };
        let mut results = Vec::new();
        for level in simd::available() {
            assert!(simd::force(Some(level)));
            let mut out = vec![T::from_f64(7.0); p.data.len()];
            sddmm(&p.pattern(), &a, &b, [batch, d], &mut out).unwrap();
            simd::force(None);
            let mut e = 0;
            for i in 0..rows {
                for (k, _) in p.row(i) {
                    let (mut sum, mut size) = (0.0, 0.0);
                    for t in 0..batch {
                        for j in 0..d {
                            let v = a[(t * rows + i) * d + j].to_f64() * b[(t * cols + k) * d + j].to_f64();
                            (sum, size) = (sum + v, size + v.abs());
                        }
                    }
                    let bound = (batch * d) as f64 * u * size;
                    assert!((out[e].to_f64() - sum).abs() <= bound, "{level} {i} {k} {d}");
                    e += 1;
                }
            }
            results.push(out.iter().map(|v| v.to_f64().to_bits()).collect::<Vec<_>>());
        }
        assert!(results.iter().all(|r| *r == results[0]));
    }
    let mut rng = Rng(5);
    for d in 0..=131 {
        go::<f32, i32>(&mut rng, [7, 9, 5], [1, d]);
        go::<f64, i64>(&mut rng, [4, 30, 11], [1, d]);
    }
    for d in [1023, 1024, 1025, 2500] {
        go::<f32, i64>(&mut rng, [5, 300, 100], [2, d]);
        go::<f64, i32>(&mut rng, [5, 300, 100], [2, d]);
    }
    go::<f32, i32>(&mut rng, [300, 40, 12], [3, 20]);
    go::<f32, i32>(&mut rng, [0, 4, 0], [3, 20]);
    go::<f32, i32>(&mut rng, [4, 0, 0], [1, 20]);
    go::<f32, i32>(&mut rng, [4, 4, 2], [0, 20]);
}

#[test]
fn the_gradient_of_a_bias_is_a_sum_of_rows() {
    let mut rng = Rng(6);
    for (batch, rows, n) in [(1, 3, 0), (0, 3, 5), (1, 1, 1), (2, 70, 37), (3, 5, 131)] {
        let g: Vec<f32> = rng.vec(batch * rows * n);
        let mut out = vec![7f32; rows];
        row_sums(&g, [batch, rows, n], &mut out).unwrap();
        for (i, o) in out.iter().enumerate() {
            let mut want = 0.0;
            for t in 0..batch {
                want += g[(t * rows + i) * n..][..n].iter().map(|&v| f64::from(v)).sum::<f64>();
            }
            assert!((f64::from(*o) - want).abs() <= 1e-6 * want.abs() + 1e-12);
        }
    }
}

#[test]
fn rows_have_the_bits_of_columns() {
    fn go<T: Real + Lane>(rng: &mut Rng, [rows, cols, mean]: [usize; 3]) {
        let a = Matrix::<T, i32>::random(rng, rows, cols, mean);
        let (p, bias): (_, Vec<T>) = (a.pattern(), rng.vec(rows));
        for n in [0, 1, 3, 15, 16, 17, 40, 131] {
            let x: Vec<T> = rng.vec(n * cols);
            let columns = turned(&x, [n, cols]).unwrap();
            assert!((0..n * cols).all(|i| columns[i % cols * n + i / cols].to_f64() == x[i].to_f64()));
            let (lo, hi) = (T::from_f64(-0.5), T::from_f64(0.5));
            let mut want = vec![T::default(); rows * n];
            spmm(&p, &a.data, &columns, [1, n], Some(&bias), Some([lo, hi]), &mut want).unwrap();
            for level in simd::available() {
                assert!(simd::force(Some(level)));
                let mut y = vec![T::default(); rows * n];
                let bare = Pattern::bare(&a.indices, &a.indptr, cols).unwrap();
                let twice = |y: &mut [T]| {
                    for y in y {
                        *y += *y;
                    }
                };
                linear(&bare, &a.data, &x, n, Some(&bias), Some([lo, hi]), Some(&twice), &mut y).unwrap();
                simd::force(None);
                for (i, v) in y.iter().enumerate() {
                    let other = 2.0 * want[i % rows * n + i / rows].to_f64();
                    assert_eq!(v.to_f64().to_bits(), other.to_bits(), "{level} {rows} {cols} {n} {i}");
                }
            }
        }
    }
    let mut rng = Rng(9);
    for shape in [[0, 3, 0], [4, 0, 0], [1, 1, 1], [15, 7, 3], [16, 300, 40], [40, 65, 20], [700, 33, 5]] {
        go::<f32>(&mut rng, shape);
        go::<f64>(&mut rng, shape);
    }
    let a = Matrix::<f32, i32> { data: vec![1.0], indices: vec![3], indptr: vec![0, 1], cols: 3 };
    let bare = Pattern::bare(&a.indices, &a.indptr, 3).unwrap();
    assert!(linear(&bare, &a.data, &[0.0; 6], 2, None, None, None, &mut [0.0; 2]).is_err());
}

#[test]
fn lanes_have_the_bits_of_panels() {
    fn go<T: Lanes + Real, P: Place>(rng: &mut Rng, [rows, cols, mean]: [usize; 3]) {
        let a = Matrix::<T, i32>::random(rng, rows, cols, mean);
        let p = a.pattern();
        let (mut places, mut order) = (vec![P::of(0).unwrap(); a.data.len()], vec![0i32; rows]);
        lanes(&p, &mut places, &mut order).unwrap();
        let bias: Vec<T> = rng.vec(rows);
        for batch in [0, 1, 2, 3, 6, 16, 19] {
            let x: Vec<T> = rng.vec(batch * cols);
            let mut turned = vec![T::default(); batch * cols];
            for (i, &v) in x.iter().enumerate() {
                turned[i % cols * batch + i / cols] = v;
            }
            let mut want = vec![T::default(); rows * batch];
            spmm(&p, &a.data, &turned, [1, batch], Some(&bias), None, &mut want).unwrap();
            for level in simd::available() {
                assert!(simd::force(Some(level)));
                let mut y = vec![T::default(); rows * batch];
                let lined = Lined::new(&a.data, &places, &order, &a.indptr, cols).unwrap();
                lined.product(&x, Some(&bias), &mut y).unwrap();
                simd::force(None);
                for (i, v) in y.iter().enumerate() {
                    let other = want[i % rows * batch + i / rows];
                    assert_eq!(v.to_f64().to_bits(), other.to_f64().to_bits(), "{level} {rows} {cols} {batch}");
                }
            }
        }
    }
    let mut rng = Rng(8);
    for shape in [[1, 1, 1], [15, 7, 3], [16, 300, 40], [40, 65, 20], [2100, 33, 5]] {
        go::<f32, i16>(&mut rng, shape);
        go::<f32, i32>(&mut rng, shape);
        go::<f64, i16>(&mut rng, shape);
        go::<f64, i32>(&mut rng, shape);
    }
}
