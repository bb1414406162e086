//! Sketches and transforms against their definitions, word by word.

use super::*;
use base::random::Source;
use drivers::butterfly;

/// Kind, its own number, and how many rows and columns there are.
const FORMS: [(u8, u32, usize, usize, usize); 9] = [
    (tag::COUNTSKETCH, 40, 1, 40, 90),
    (tag::COUNTSKETCH, 9, 5, 45, 2100),
    (tag::SRHT, 7, 0, 60, 90),
    (tag::SRHT, 0, 0, 1, 1),
    (tag::SPINNER, 6 | 3 << 8, 0, 150, 50),
    (tag::SPINNER, 5 | 1 << 8, 0, 20, 32),
    (tag::FASTFOOD, 8 | 5 << 8, 0, 200, 30),
    (tag::FASTFOOD, 7 | 7 << 8 | 1 << 16, 0, 128, 128),
    (tag::FASTFOOD, 15 | 3 << 8, 0, 40, 7),
];

fn numbers_of((kind, own, c, rows, cols): (u8, u32, usize, usize, usize), adjoint: bool) -> [Scalar; 10] {
    let mut scalars = scalars((kind, 1), 0, rows, 0, cols, adjoint);
    scalars[3] = Scalar::Int((c as i64) << 32 | i64::from(own));
    scalars
}

/// H v.
fn h(v: &[f64]) -> Vec<f64> {
    let mut v = v.to_vec();
    butterfly::row(&mut v, 1.0).unwrap();
    v
}

/// The matrix by its definition, a column of numbers for each of its columns, without the scale.
fn defined((kind, own, c, rows, cols): (u8, u32, usize, usize, usize)) -> Vec<Vec<f64>> {
    let source = Source::new(-77i64 as u64, kind, 5);
    let sign = |a: u64, b: usize| f64::from(source.sign(a, b as u64));
    let n = if kind == tag::COUNTSKETCH { 1 } else { 1usize << (own & 0xff) };
    let column = |j: usize| -> Vec<f64> {
        let mut unit = vec![0.0; n];
        match kind {
            tag::COUNTSKETCH => {
                let mut column = vec![0.0; rows];
                for r in 0..c as u64 {
                    let (w, s) = (source.word(j as u64, 2 * r), source.word(j as u64, 2 * r + 1));
                    let row = r * u64::from(own) + ((u64::from(w) * u64::from(own)) >> 32);
                    column[row as usize] = if s >> 31 == 0 { 1.0 } else { -1.0 };
                }
                column
            }
            tag::SRHT => {
                unit[j] = sign(0, j);
                let (v, places) = (h(&unit), source.permutation(1, own & 0xff));
                (0..rows).map(|i| v[places.at(i as u64) as usize]).collect()
            }
            tag::SPINNER => {
                let turns = u64::from(own >> 8);
                let block = |block: u64| {
                    let mut v = unit.clone();
                    v[j] = 1.0;
                    for t in 0..turns {
                        v = h(&v.iter().enumerate().map(|(i, v)| v * sign(3 * block + t, i)).collect::<Vec<_>>());
                    }
                    v.iter().map(|v| v / (n as f64).powi(turns as i32 - 1).sqrt()).collect::<Vec<_>>()
                };
                (0..rows.div_ceil(n)).flat_map(|b| block(b as u64)).take(rows).collect()
            }
            _ => {
                unit[j] = sign(0, j);
                let (v, places) = (h(&unit), source.permutation(1, own & 0xff));
                let g = |i: usize| if own >> 16 == 0 { f64::from(source.normal(2, i as u64)) } else { sign(2, i) };
                let norm = (0..n).map(|i| g(i) * g(i)).sum::<f64>().sqrt();
                let u: Vec<f64> = (0..n).map(|i| g(i) * v[places.at(i as u64) as usize] / norm).collect();
                h(&u)[..rows].to_vec()
            }
        }
    };
    (0..cols).map(column).collect()
}

fn product<T: Store>(x: &mut [T], n: usize, c: &[Scalar]) -> Vec<T> {
    let p = Projection::new(c).unwrap();
    let (terms, outputs) = (p.matrix().terms(), p.matrix().outputs());
    let mut y = vec![T::from_f32(7.0); n * outputs];
    project(&[tensor(x, &[n, terms]), tensor(&mut y, &[n, outputs])], c).unwrap();
    y
}

#[test]
fn they_are_what_they_are_defined_as() {
    for form in FORMS {
        let (rows, cols) = (form.3, form.4);
        let p = defined(form);
        for adjoint in [false, true] {
            let c = numbers_of(form, adjoint);
            let (terms, outputs) = if adjoint { (rows, cols) } else { (cols, rows) };
            let n = if form.1 & 0xff == 15 { 2 } else { 19 };
            let mut x = numbers::<f64>(n * terms, 3);
            let mut narrow: Vec<f32> = x.iter().map(|&v| v as f32).collect();
            let (y, z) = (product(&mut x, n, &c), product(&mut narrow, n, &c));
            for r in 0..n {
                for o in 0..outputs {
                    let e = |t: usize| if adjoint { p[o][t] } else { p[t][o] };
                    let row = &x[r * terms..][..terms];
                    let want: f64 = row.iter().enumerate().map(|(t, v)| v * e(t)).sum::<f64>() * 0.37;
                    let size = row.iter().map(|v| v * v).sum::<f64>().sqrt() * (1.0 + terms as f64).sqrt();
                    assert!((y[r * outputs + o] - want).abs() <= 1e-14 * size, "{form:?} {adjoint} {r} {o}");
                    let off = (f64::from(z[r * outputs + o]) - want).abs();
                    assert!(off <= 4e-6 * size, "{form:?} {adjoint} {r} {o}: {off}");
                }
            }
        }
        // written out
        let c = numbers_of(form, false);
        let (mut m, mut like): (Vec<f64>, [f64; 0]) = (vec![7.0; rows * cols], []);
        materialise(&[tensor(&mut like, &[0]), tensor(&mut m, &[rows, cols])], &c).unwrap();
        for (at, m) in m.iter().enumerate() {
            assert!((m - p[at % cols][at / cols] * 0.37).abs() < 1e-13);
        }
    }
}

#[test]
fn their_slices_are_slices_whatever_the_threads() {
    for form in FORMS {
        let (rows, cols) = (form.3, form.4);
        let (n, c) = (35, numbers_of(form, false));
        let mut x = numbers::<f32>(n * cols, 1);
        let whole = product(&mut x, n, &c);
        for threads in [1, 3, 8] {
            assert!(on(threads, || product(&mut x, n, &c)) == whole);
        }
        for (from, to) in [(0, 1), (5, 22), (16, 35)] {
            assert!(product(&mut x[from * cols..to * cols], to - from, &c) == whole[from * rows..to * rows]);
        }
        for (from, to) in [(0, rows), (rows / 3, rows / 2 + 1), (rows - 1, rows)] {
            let mut c = c;
            (c[4], c[5]) = (Scalar::Int(from as i64), Scalar::Int((to - from) as i64));
            let part = product(&mut x, n, &c);
            for r in 0..n {
                assert!(part[r * (to - from)..][..to - from] == whole[r * rows + from..r * rows + to], "{form:?}");
            }
        }
    }
}

#[test]
fn their_sparse_rows_are_their_dense_rows() {
    for form in FORMS {
        for adjoint in [false, true] {
            let c = numbers_of(form, adjoint);
            let p = Projection::new(&c).unwrap();
            let (n, terms) = (6, p.matrix().terms());
            let (mut data, mut indices, mut indptr, mut x) = (vec![], vec![], vec![0i32], vec![0f64; n * terms]);
            for r in 0..n {
                // some columns come twice
                for j in (r..terms).step_by(3).chain([0, terms / 2]) {
                    data.push(j as f64 - 3.5);
                    indices.push(j as i32);
                    x[r * terms + j] += j as f64 - 3.5;
                }
                indptr.push(data.len() as i32);
            }
            let outputs = p.matrix().outputs();
            let mut y = vec![7f64; n * outputs];
            let (a, b) = ([data.len()], [indices.len()]);
            let (indices, indptr) = (tensor(&mut indices, &b), tensor(&mut indptr, &[n + 1]));
            sparse_rows(&[tensor(&mut data, &a), indices, indptr, tensor(&mut y, &[n, outputs])], &c).unwrap();
            let want = product(&mut x, n, &c);
            let most = x.iter().fold(0f64, |m, v| m.max(v.abs())) * terms as f64;
            assert!(y.iter().zip(&want).all(|(a, b)| (a - b).abs() <= 1e-13 * most), "{form:?} {adjoint}");
        }
    }
}

#[test]
fn what_no_form_has_is_refused() {
    let refused = |kind: u8, own: i64, rows: usize, cols: usize| {
        let mut c = scalars((kind, 1), 0, rows, 0, cols, false);
        c[3] = Scalar::Int(own);
        Projection::new(&c).is_err()
    };
    for (kind, own, rows, cols) in [
        (tag::COUNTSKETCH, 40, 4, 4),
        (tag::COUNTSKETCH, 1 << 32, 4, 4),
        (tag::COUNTSKETCH, -1, 4, 4),
        (tag::COUNTSKETCH, 1 << 32 | 4, 5, 4),
        (tag::COUNTSKETCH, 2 << 32 | 1 << 31, 5, 4),
        (tag::SRHT, 3, 9, 4),
        (tag::SRHT, 3, 4, 9),
        (tag::SRHT, 32, 4, 4),
        (tag::SRHT, -1, 4, 4),
        (tag::SPINNER, 3, 4, 4),
        (tag::SPINNER, 3 | 4 << 8, 4, 4),
        (tag::FASTFOOD, 3 | 4 << 8, 4, 4),
        (tag::FASTFOOD, 3 | 2 << 8, 4, 5),
        (tag::FASTFOOD, 3 | 3 << 8 | 1 << 17, 4, 4),
        (8, 3, 4, 4),
    ] {
        assert!(refused(kind, own, rows, cols), "{kind} {own} {rows} {cols}");
    }
}
