use super::form::Projection;
use super::matrix::Matrix;
use super::*;
use base::lane::Lane;
use base::pool::{self, Context};
use base::random::{self, tag};
use base::simd;
use base::store::Store;
use base::store::{Bf16, F16};

mod forms;

const KINDS: [(u8, u32); 5] = [
    (tag::GAUSSIAN, 1),
    (tag::RADEMACHER, 1),
    (tag::SPARSE, 1 << 31),
    (tag::SPARSE, 715_827_883),
    (tag::SPARSE, 53_687_091),
];

fn scalars(kind: (u8, u32), row: usize, rows: usize, col: usize, cols: usize, adjoint: bool) -> [Scalar; 10] {
    let int = |v: usize| Scalar::Int(v as i64);
    [
        int(kind.0.into()),
        Scalar::Int(-77),
        int(5),
        int(kind.1 as usize),
        int(row),
        int(rows),
        int(col),
        int(cols),
        Scalar::Float(0.37),
        Scalar::Bool(adjoint),
    ]
}

fn tensor<'a, T: base::Element>(x: &'a mut [T], shape: &[usize]) -> Tensor<'a> {
    assert_eq!(x.len(), shape.iter().product());
    // SAFETY: a slice of that many elements.
    unsafe { Tensor::new(x.as_mut_ptr().cast(), shape, T::DTYPE, true).unwrap() }
}

fn numbers<T: Store>(n: usize, seed: u64) -> Vec<T> {
    let source = random::Source::new(seed, 99, 0);
    (0..n).map(|i| T::from_f32(source.normal(3, i as u64))).collect()
}

fn run<T: Store>(x: &mut [T], n: usize, c: &[Scalar]) -> Vec<T> {
    let m = Matrix::new(c).unwrap();
    let mut y = vec![T::from_f32(7.0); n * m.outputs()];
    project(&[tensor(x, &[n, m.terms()]), tensor(&mut y, &[n, m.outputs()])], c).unwrap();
    y
}

/// What `f` gives on so many threads.
fn on<T>(threads: usize, f: impl FnOnce() -> T) -> T {
    pool::with(Context { runner: None, threads, poll: None }, f)
}

/// By the definition, in f64: the sum and the sum of the sizes.
fn reference<T: Store>(x: &[T], n: usize, m: &Matrix) -> Vec<(f64, f64)> {
    let mut out = Vec::new();
    for r in 0..n {
        for o in 0..m.outputs() {
            let (mut sum, mut size) = (0.0, 0.0);
            for c in 0..m.terms() {
                let (i, j) = if m.adjoint { (c, o) } else { (o, c) };
                let v = x[r * m.terms() + c].to_f64() * f64::from(m.entry(i, j));
                sum += v;
                size += v.abs();
            }
            out.push((sum * m.scale, size * m.scale));
        }
    }
    out
}

fn check<T: Store>(kind: (u8, u32), n: usize, rows: usize, cols: usize, adjoint: bool, eps: f64) {
    let c = scalars(kind, 3, rows, 11, cols, adjoint);
    let m = Matrix::new(&c).unwrap();
    let mut x = numbers::<T>(n * m.terms(), n as u64);
    let y = run(&mut x, n, &c);
    let bound = ((m.terms() as f64).log2().ceil() + 8.0) * eps;
    for (y, (want, size)) in y.iter().zip(reference(&x, n, &m)) {
        let error = (y.to_f64() - want).abs();
        // one rounding to the type itself, and the reference's own error in f64
        let allowed = bound * size + eps * want.abs() + 1e-15 * size;
        assert!(error <= allowed, "{kind:?} {n}x{rows}x{cols} {adjoint}: {error} > {allowed}");
    }
}

#[test]
fn products_are_those_of_the_entries() {
    let shapes = [(1, 1, 1), (2, 3, 17), (16, 64, 33), (17, 31, 100), (5, 130, 131), (33, 257, 70), (3, 20, 2100)];
    for level in simd::available() {
        simd::force(Some(level));
        for kind in KINDS {
            for (n, rows, cols) in shapes {
                for adjoint in [false, true] {
                    check::<f32>(kind, n, rows, cols, adjoint, 2f64.powi(-23));
                    check::<f64>(kind, n, rows, cols, adjoint, 2f64.powi(-52));
                }
            }
        }
    }
    simd::force(None);
    for kind in KINDS {
        for adjoint in [false, true] {
            check::<F16>(kind, 19, 40, 50, adjoint, 2f64.powi(-10));
            check::<Bf16>(kind, 19, 40, 50, adjoint, 2f64.powi(-7));
            // several blocks of terms, several segments of results
            check::<f32>(kind, 2, 4500, 30, adjoint, 2f64.powi(-23));
            check::<f64>(kind, 2, 30, 4500, adjoint, 2f64.powi(-52));
        }
    }
}

#[test]
fn rows_see_neither_each_other_nor_the_threads() {
    for kind in KINDS {
        for adjoint in [false, true] {
            let (n, rows, cols) = (1100, 70, 90);
            let c = scalars(kind, 1, rows, 2, cols, adjoint);
            let m = Matrix::new(&c).unwrap();
            let (d, k) = (m.terms(), m.outputs());
            let mut x = numbers::<f32>(n * d, 1);
            let whole = run(&mut x, n, &c);
            for threads in [1, 3, 8] {
                assert!(on(threads, || run(&mut x, n, &c)) == whole);
            }
            for (from, to) in [(0, 1), (5, 22), (1000, 1100)] {
                assert!(run(&mut x[from * d..to * d], to - from, &c) == whole[from * k..to * k]);
            }
        }
    }
}

#[test]
fn a_slice_of_the_matrix_gives_the_slice_of_the_result() {
    for kind in KINDS {
        let (n, rows, cols) = (9, 300, 200);
        let c = scalars(kind, 0, rows, 0, cols, false);
        let mut x = numbers::<f32>(n * cols, 1);
        let whole = run(&mut x, n, &c);
        for (from, to) in [(0, 1), (1, 7), (3, 131), (64, 300)] {
            let part = run(&mut x, n, &scalars(kind, from, to - from, 0, cols, false));
            for r in 0..n {
                assert!(part[r * (to - from)..(r + 1) * (to - from)] == whole[r * rows + from..r * rows + to]);
            }
        }
    }
}

fn written<T: Store>(c: &[Scalar]) -> Vec<T> {
    let m = Matrix::new(c).unwrap();
    let mut p = vec![T::default(); m.rows * m.cols];
    let mut like: [T; 0] = [];
    materialise(&[tensor(&mut like, &[0]), tensor(&mut p, &[m.rows, m.cols])], c).unwrap();
    p
}

#[test]
fn the_written_matrix_has_the_entries() {
    for kind in KINDS {
        for (row, rows, col, cols) in
            [(0, 5, 0, 3), (3, 130, 7, 1030), (1, 257, 1 << 33, 20), ((1 << 34) - 9, 9, 5, 17)]
        {
            let c = scalars(kind, row, rows, col, cols, false);
            let m = Matrix::new(&c).unwrap();
            let (p, q) = (written::<f32>(&c), written::<f64>(&c));
            for i in 0..rows {
                for j in 0..cols {
                    let want = f64::from(m.entry(i, j)) * m.scale;
                    assert!(p[i * cols + j] == want as f32 && q[i * cols + j] == want);
                }
            }
        }
    }
}

fn sparse_run<T: Store, I: Index>(data: &mut [T], indices: &mut [I], indptr: &mut [I], c: &[Scalar]) -> Result<Vec<T>> {
    let m = Matrix::new(c)?;
    let n = indptr.len() - 1;
    let mut y = vec![T::from_f32(7.0); n * m.outputs()];
    let (a, b) = ([data.len()], [indices.len()]);
    let t = [tensor(data, &a), tensor(indices, &b), tensor(indptr, &[n + 1]), tensor(&mut y, &[n, m.outputs()])];
    sparse_rows(&t, c)?;
    Ok(y)
}

#[test]
fn sparse_rows_give_what_dense_rows_give() {
    for kind in KINDS {
        // many entries per column, few, and more columns than entries; results of several blocks
        for (n, rows, cols, every) in [(40, 50, 60, 3), (7, 100, 400, 50), (3, 2100, 5000, 4999), (30, 2500, 20, 2)] {
            for adjoint in [false, true] {
                let c = scalars(kind, 2, rows, 3, cols, adjoint);
                let m = Matrix::new(&c).unwrap();
                let (d, k) = (m.terms(), m.outputs());
                let mut x = vec![0f64; n * d];
                let (mut data, mut indices, mut indptr) = (Vec::new(), Vec::new(), vec![0i64]);
                for r in 0..n {
                    for j in (0..d).filter(|j| (j * 7 + r) % every == 0) {
                        data.push((j % 13) as f64 - 6.5);
                        indices.push(j as i64);
                        x[r * d + j] = (j % 13) as f64 - 6.5;
                    }
                    indptr.push(data.len() as i64);
                }
                let want = reference(&x, n, &m);
                let got = sparse_run(&mut data, &mut indices, &mut indptr, &c).unwrap();
                assert_eq!(got.len(), n * k);
                for (y, (want, size)) in got.iter().zip(&want) {
                    assert!((y - want).abs() <= 1e-14 * size, "{kind:?} {n}x{rows}x{cols} {adjoint}");
                }
                let mut data: Vec<f32> = data.iter().map(|&v| v as f32).collect();
                let (mut indices, mut indptr): (Vec<_>, Vec<_>) =
                    (indices.iter().map(|&i| i as i32).collect(), indptr.iter().map(|&i| i as i32).collect());
                let got = sparse_run(&mut data, &mut indices, &mut indptr, &c).unwrap();
                for (y, (want, size)) in got.iter().zip(&want) {
                    assert!((y.to_f64() - want).abs() <= 1e-7 * size.max(want.abs()));
                }
            }
        }
    }
}

#[test]
fn what_is_refused() {
    let good = scalars(KINDS[0], 0, 4, 0, 5, false);
    let with = |at: usize, v: Scalar| {
        let mut c = good;
        c[at] = v;
        Matrix::new(&c)
    };
    for (at, v) in [(0, 0), (0, 9), (0, -1), (2, -1), (2, 1 << 24), (4, -1), (5, -1), (5, (1 << 34) + 1), (6, -1)] {
        assert!(with(at, Scalar::Int(v)).is_err(), "{at} {v}");
    }
    assert!(with(7, Scalar::Int(i64::MAX)).is_ok() && with(8, Scalar::Float(f64::NAN)).is_err());
    for t in [0, -1, (1 << 31) + 1] {
        let mut c = scalars(KINDS[2], 0, 4, 0, 5, false);
        c[3] = Scalar::Int(t);
        assert!(Matrix::new(&c).is_err());
    }
    let (mut x, mut y) = ([0f32; 10], [1f32; 8]);
    let call =
        |x: &mut [f32], xs: &[usize], y: &mut [f32], ys: &[usize]| project(&[tensor(x, xs), tensor(y, ys)], &good);
    assert!(call(&mut x, &[2, 5], &mut y, &[2, 4]).is_ok());
    assert!(call(&mut x, &[5, 2], &mut y, &[2, 4]).is_err());
    assert!(call(&mut x, &[2, 5], &mut y, &[4, 2]).is_err());
    assert!(call(&mut x[..5], &[5], &mut y[..4], &[4]).is_ok());
    assert!(call(&mut x[..0], &[0, 5], &mut y[..0], &[0, 4]).is_ok());
    // no terms: zeros
    y.fill(3.0);
    let none = scalars(KINDS[3], 0, 4, 0, 0, false);
    project(&[tensor(&mut x[..0], &[2, 0]), tensor(&mut y, &[2, 4])], &none).unwrap();
    assert_eq!(y, [0.0; 8]);
    // malformed CSR
    let run = |indices: &[i32], indptr: &[i32]| {
        let mut data = vec![1f32; 3];
        sparse_run(&mut data, &mut indices.to_vec(), &mut indptr.to_vec(), &good).is_ok()
    };
    assert!(run(&[0, 4, 2], &[0, 2, 3]));
    for (indices, indptr) in [
        (&[0, 5, 2][..], &[0, 2, 3][..]),
        (&[0, -1, 2], &[0, 2, 3]),
        (&[0, 1, 2], &[0, 3, 2]),
        (&[0, 1, 2], &[0, 2, 4]),
        (&[0, 1, 2], &[1, 2, 3]),
        (&[0, 1, 2], &[0, -2, 3]),
        (&[0, 1], &[0, 1, 2]),
    ] {
        assert!(!run(indices, indptr), "{indices:?} {indptr:?}");
    }
}

#[test]
fn strange_numbers_stay_in_their_place() {
    for kind in KINDS {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let c = scalars(kind, 0, 40, 0, 30, false);
            let m = Matrix::new(&c).unwrap();
            let mut x = numbers::<f64>(90, 1);
            let good = run(&mut x, 3, &c);
            x[35] = bad;
            let y = run(&mut x, 3, &c);
            assert!(y[..40] == good[..40] && y[80..] == good[80..]);
            for i in 0..40 {
                let e = f64::from(m.entry(i, 5));
                let (got, want) = (y[40 + i], if e == 0.0 { good[40 + i] } else { bad * e });
                assert!(got == want || (got.is_nan() && want.is_nan()), "{kind:?} {bad}: {got} {want}");
            }
        }
    }
}

/// E⟨Px, Py⟩ = ⟨x, y⟩ over seeds, within five standard errors by the exact variance (‖x‖²‖y‖² + ⟨x, y⟩² + (s − 3)·Σx²y²)/k.
#[test]
fn moments_are_exact() {
    let (d, k, draws) = (64, 16, 4000);
    let x: Vec<f64> = (0..d).map(|i| f64::lane(i, 1)).collect();
    let y: Vec<f64> = (0..d).map(|i| f64::lane(i, 2)).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for (kind, t) in KINDS {
        let s = 2f64.powi(31) / f64::from(t);
        let excess = match kind {
            tag::GAUSSIAN => 0.0,
            tag::RADEMACHER => -2.0,
            _ => s - 3.0,
        };
        let scale = if kind == tag::SPARSE { (s / k as f64).sqrt() } else { (1.0 / k as f64).sqrt() };
        let mut c = scalars((kind, t), 0, k, 0, d, false);
        c[8] = Scalar::Float(scale);
        let (mut norm, mut inner) = (0.0, 0.0);
        for seed in 0..draws {
            c[1] = Scalar::Int(seed);
            let both = run(&mut [&x[..], &y[..]].concat(), 2, &c);
            norm += dot(&both[..k], &both[..k]);
            inner += dot(&both[..k], &both[k..]);
        }
        let (xx, yy, xy) = (dot(&x, &x), dot(&y, &y), dot(&x, &y));
        let s22: f64 = x.iter().zip(&y).map(|(x, y)| x * x * y * y).sum();
        let x4: f64 = x.iter().map(|x| x.powi(4)).sum();
        let z = |mean: f64, want: f64, var: f64| (mean / draws as f64 - want) / (var / k as f64 / draws as f64).sqrt();
        let (a, b) = (z(norm, xx, 2.0 * xx * xx + excess * x4), z(inner, xy, xx * yy + xy * xy + excess * s22));
        assert!(a.abs() < 5.0 && b.abs() < 5.0, "kind {kind}, threshold {t}: z = {a}, {b}");
    }
}

/// Fixed numbers of no pattern.
trait Fixed {
    fn lane(i: usize, salt: u64) -> f64;
}
impl<L: Lane> Fixed for L {
    fn lane(i: usize, salt: u64) -> f64 {
        random::Source::new(salt, 98, 0).normal(0, i as u64).into()
    }
}
