//! Pairs against plain loops in f64: every tail of rows, columns and features, every type, every level, every wave.

use super::*;
use base::store::{Bf16, F16};

/// Numbers in (-1, 1) with repetitions, so that there are ties.
fn numbers<T: Number>(n: usize, seed: u64) -> Vec<T> {
    let mut state = seed;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            T::from_f64(((state >> 59) as f64 - 15.5) / 16.0)
        })
        .collect()
}

fn naive<T: Number>(x: &[T], y: &[T], n: usize, m: usize, d: usize, f: impl Fn(&[f64], &[f64]) -> f64) -> Vec<f64> {
    let wide = |v: &[T]| v.iter().map(|v| v.to_f64()).collect::<Vec<_>>();
    let (x, y) = (wide(x), wide(y));
    (0..n * m).map(|i| f(&x[i / m * d..][..d], &y[i % m * d..][..d])).collect()
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}
fn square(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| (x - y) * (x - y)).sum()
}

fn written<T: Item<Class = Sc::Class>, Sc: Score>(
    score: &Sc,
    x: &[T],
    y: &[T],
    n: usize,
    m: usize,
    d: usize,
) -> Vec<f64> {
    let mut out = vec![7.0; n * m];
    run(score, &Write::new(n, m, &mut out).unwrap(), x, y, n, m, d).unwrap();
    out
}

fn close(a: &[f64], b: &[f64], tolerance: f64) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        let same =
            (a - b).abs() <= tolerance * (1.0 + b.abs()) || a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
        assert!(same, "{i}: {a} and {b}");
    }
}

fn all_scores(n: usize, m: usize, d: usize) {
    let (x, y) = (numbers::<f32>(n * d, 1), numbers::<f32>(m * d, 2));
    close(&written(&Dot, &x, &y, n, m, d), &naive(&x, &y, n, m, d, dot), 1e-14);
    close(&written(&Distance, &x, &y, n, m, d), &naive(&x, &y, n, m, d, |x, y| square(x, y).sqrt()), 1e-14);
    let cosine = |x: &[f64], y: &[f64]| match dot(x, x).min(dot(y, y)) {
        0.0 => 0.0,
        _ => dot(x, y) / dot(x, x).sqrt() / dot(y, y).sqrt(),
    };
    close(&written(&Cosine, &x, &y, n, m, d), &naive(&x, &y, n, m, d, cosine), 1e-14);
    distances::<f32>(n, m, d);
}

fn distances<T: Number>(n: usize, m: usize, d: usize) {
    let small = |v: Vec<T>| v.into_iter().map(|v| T::from_f64(v.to_f64() / (d.max(1) as f64).sqrt()));
    let x: Vec<T> = small(numbers(n * d, 1)).collect();
    let y: Vec<T> = small(numbers(m * d, 2)).collect();
    close(&written(&SquaredDistance, &x, &y, n, m, d), &naive(&x, &y, n, m, d, square), 1e-14);
    for c in [0.0, 0.3, 1.0] {
        let distance = |x: &[f64], y: &[f64]| {
            let w = (square(x, y) / ((1.0 - c * dot(x, x)) * (1.0 - c * dot(y, y)))).sqrt();
            if c == 0.0 { 2.0 * w } else { 2.0 / f64::sqrt(c) * (f64::sqrt(c) * w).asinh() }
        };
        close(&written(&Hyperbolic { c }, &x, &y, n, m, d), &naive(&x, &y, n, m, d, distance), 1e-13);
    }
}

/// The level is a global of the process, and results are right at any: tests may run side by side.
fn on_every_level(f: impl Fn()) {
    for level in base::simd::available() {
        base::simd::force(Some(level));
        f();
    }
    base::simd::force(None);
}

#[test]
fn tails_of_features() {
    on_every_level(|| {
        for d in (0..=131).chain([255, 256, 257, 300]) {
            all_scores(3, 5, d);
        }
        // every part of a block at once: panels, strips, depths
        all_scores(131, 139, 131);
    });
}

#[test]
fn tails_of_rows_and_columns() {
    on_every_level(|| {
        for n in 0..=19 {
            distances::<f64>(n, 9, 5);
            distances::<f64>(2, n, 17);
        }
        for n in (0..=131).step_by(13).chain([63, 64, 65, 127, 128, 129, 257]) {
            all_scores(n, 3, 2);
            all_scores(3, n, 2);
        }
    });
}

#[test]
fn halves() {
    on_every_level(|| {
        distances::<F16>(11, 70, 37);
        distances::<Bf16>(11, 70, 37);
    });
}

#[test]
fn hamming_counts() {
    let word = |i: usize| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (i as u64) << 40;
    on_every_level(|| {
        for (n, m, d) in [(0, 3, 1), (1, 1, 0), (5, 66, 1), (3, 9, 16), (9, 70, 131), (2, 3, 300)] {
            let x: Vec<u64> = (0..n * d).map(word).collect();
            let mut y: Vec<u64> = (0..m * d).map(|i| word(i + 7777)).collect();
            // patterns that are NaN as floats
            y.iter_mut().step_by(3).for_each(|y| *y |= 0x7ff0_0000_0000_0001);
            let want: Vec<f64> = (0..n * m)
                .map(|i| (0..d).map(|k| f64::from((x[i / m * d + k] ^ y[i % m * d + k]).count_ones())).sum())
                .collect();
            assert_eq!(written(&Hamming, &x, &y, n, m, d), want);
        }
    });
}

/// Few words have many equal distances; rows and columns that do not fill a tile, few rows, and extents, at every level.
#[test]
fn the_nearest_codes_with_ties() {
    fn check(extent: &impl Extent, [n, m, d]: [usize; 3], k: usize, says: impl Fn(usize, usize) -> bool) {
        let word = |i: usize| {
            (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(i as u32 % 64) & 0x1111_1111_1111_1111
        };
        let x: Vec<u64> = (0..n * d).map(word).collect();
        let y: Vec<u64> = (0..m * d).map(|i| word(i + 7777)).collect();
        let (mut ids, mut values) = (vec![9; n * k], vec![9.0f64; n * k]);
        let sides = Sides::new(&x, &y, n, m, d).unwrap();
        sides.run(&Hamming, extent, &TopK::new(n, k, false, &mut ids, &mut values).unwrap()).unwrap();
        let (mut last, mut most) = (vec![9; n], vec![9.0f64; n]);
        sides.run(&Hamming, extent, &ArgMin::new(n, true, &mut last, &mut most).unwrap()).unwrap();
        for i in 0..n {
            let count = |j: usize| (0..d).map(|q| (x[i * d + q] ^ y[j * d + q]).count_ones()).sum::<u32>();
            let mut all: Vec<(u32, usize)> = (0..m).filter(|&j| says(i, j)).map(|j| (count(j), j)).collect();
            all.sort_unstable();
            for r in 0..k {
                let want = all.get(r).map_or(-1, |&(_, j)| j as i64);
                assert_eq!(ids[i * k + r], want, "row {i}, rank {r} of {n} x {m} x {d}");
                assert!(all.get(r).map_or(values[i * k + r].is_nan(), |&(c, _)| values[i * k + r] == f64::from(c)));
            }
            let greatest = all.iter().map(|&(c, _)| c).max();
            let first = all.iter().filter(|&&(c, _)| Some(c) == greatest).map(|&(_, j)| j as i64).min();
            assert_eq!(last[i], first.unwrap_or(-1));
        }
    }
    on_every_level(|| {
        for (n, m, d) in
            [(1, 300, 3), (2, 9, 1), (3, 70, 40), (11, 100, 16), (130, 77, 2), (9, 0, 2), (5, 5, 0), (19, 131, 9)]
        {
            for k in [0, 1, 10] {
                check(&All, [n, m, d], k, |_, _| true);
                check(&Others, [n, m, d], k, |i, j| i != j);
                check(&Band { before: 3, after: 20 }, [n, m, d], k, |i, j| j + 3 >= i && j <= i + 20);
            }
        }
    });
}

/// The order that a stable sort of a row gives.
fn sorted(row: &[f64], largest: bool) -> Vec<usize> {
    let mut ids: Vec<usize> = (0..row.len()).filter(|&i| !row[i].is_nan()).collect();
    ids.sort_by(|&a, &b| if largest { row[b].total_cmp(&row[a]) } else { row[a].total_cmp(&row[b]) });
    ids
}

/// Columns whose number and the row's are not both odd or both even.
struct Odd;
impl Extent for Odd {
    fn hull(&self, _: Range<usize>, m: usize) -> impl Iterator<Item = Range<usize>> {
        std::iter::once(0..m)
    }
    fn live(&self, row: usize, strip: Range<usize>) -> u64 {
        All.live(row, strip.clone()) & (0x5555_5555_5555_5555 << ((row + strip.start + 1) % 2))
    }
}

fn chosen<T: Number>(n: usize, m: usize, d: usize, k: usize, largest: bool) {
    let (x, mut y) = (numbers::<T>(n * d, 3), numbers::<T>(m * d, 4));
    if m > 7 {
        y[5 * d..6 * d].fill(T::from_f64(f64::NAN));
    }
    let score = SquaredDistance;
    let all = written(&score, &x, &y, n, m, d);
    let (mut ids, mut values) = (vec![9; n * k], vec![9.0; n * k]);
    run(&score, &TopK::new(n, k, largest, &mut ids, &mut values).unwrap(), &x, &y, n, m, d).unwrap();
    let (mut some, mut part) = (vec![9; n * k], vec![9.0; n * k]);
    let odd = |row: usize, col: usize| (row + col) % 2 == 1;
    let sides = Sides::new(&x, &y, n, m, d).unwrap();
    sides.run(&score, &Odd, &TopK::new(n, k, largest, &mut some, &mut part).unwrap()).unwrap();
    let (mut best, mut least) = (vec![9; n], vec![9.0; n]);
    run(&score, &ArgMin::new(n, largest, &mut best, &mut least).unwrap(), &x, &y, n, m, d).unwrap();
    for i in 0..n {
        let row = &all[i * m..][..m];
        let order = sorted(row, largest);
        let id = |j: usize| order.get(j).map_or(-1, |&id| id as i64);
        let value = |id: i64| if id < 0 { f64::NAN } else { row[id as usize] };
        assert_eq!(best[i], id(0));
        close(&least[i..=i], &[value(id(0))], 0.0);
        for j in 0..k {
            assert_eq!(ids[i * k + j], id(j), "row {i}, rank {j} of {n} x {m} x {d}");
            close(&values[i * k + j..][..1], &[value(id(j))], 0.0);
        }
        let order: Vec<usize> = order.into_iter().filter(|&c| odd(i, c)).collect();
        for j in 0..k {
            assert_eq!(some[i * k + j], order.get(j).map_or(-1, |&id| id as i64));
        }
    }
}

#[test]
fn the_best_with_ties() {
    on_every_level(|| {
        for m in [0, 1, 2, 7, 8, 9, 63, 64, 65, 200] {
            for k in [0, 1, 3, 10] {
                chosen::<f32>(5, m, 2, k, k % 2 == 1);
            }
        }
        chosen::<f64>(130, 300, 1, 4, false);
    });
}

#[test]
fn waves_and_chunks_meet() {
    // many chunks side by side for few rows, several waves for many
    for (n, m, d) in [(3, 40_000, 33), (9000, 70, 3)] {
        let (x, y) = (numbers::<f32>(n * d, 5), numbers::<f32>(m * d, 6));
        let mut results = Vec::new();
        for threads in [1, 2, 5] {
            let (mut ids, mut values, mut sums) = (vec![0; n * 5], vec![0.0f32; n * 5], vec![0.0f64; n]);
            pool::with(pool::Context { runner: None, threads, poll: None }, || {
                let best = TopK::new(n, 5, false, &mut ids, &mut values).unwrap();
                run(&Distance, &best, &x, &y, n, m, d).unwrap();
                run(&Distance, &LogSumExp::new(n, -1.0, &mut sums).unwrap(), &x, &y, n, m, d).unwrap();
            });
            results.push((ids, values, sums.iter().map(|v| v.to_bits()).collect::<Vec<_>>()));
        }
        assert!(results.windows(2).all(|w| w[0] == w[1]));
        for i in [0, n / 2, n - 1] {
            let all = naive(&x[i * d..][..d], &y, 1, m, d, |x, y| square(x, y).sqrt());
            let want: Vec<i64> = sorted(&all, false).into_iter().take(5).map(|c| c as i64).collect();
            let got = &results[0].0[i * 5..][..5];
            // columns at the same distance but for rounding may change places with the plain loop's
            for (a, b) in got.iter().zip(&want) {
                assert!((all[*a as usize] - all[*b as usize]).abs() < 1e-12);
            }
            let lse = all.iter().map(|v| (-v).exp()).sum::<f64>().ln();
            close(&[f64::from_bits(results[0].2[i])], &[lse], 1e-12);
        }
    }
}

#[test]
fn log_sum_exp_of_extremes() {
    let inf = f64::INFINITY;
    let lse = |y: &[f64], scale: f64| {
        let mut out = [0.0];
        run(&Dot, &LogSumExp::new(1, scale, &mut out).unwrap(), &[1.0], y, 1, y.len(), 1).unwrap();
        out[0]
    };
    on_every_level(|| {
        assert_eq!(lse(&[], 1.0), -inf);
        assert_eq!(lse(&[-3.5], 2.0), -7.0);
        close(&[lse(&[1e300, 1e300], 1.0), lse(&[-1e300; 2], 1.0)], &[1e300, -1e300], 1e-16);
        close(&[lse(&[700.0; 1000], 1.0)], &[700.0 + 1000f64.ln()], 1e-15);
        assert_eq!(lse(&[-inf; 70], 1.0), -inf);
        assert_eq!(lse(&[1.0, inf, 2.0], 1.0), inf);
        for at in [0, 8, 69] {
            let mut y = vec![-inf; 70];
            y[at] = f64::NAN;
            assert!(lse(&y, 1.0).is_nan());
            y[at] = 2.5;
            assert_eq!(lse(&y, 1.0), 2.5);
            y[69 - at] = inf;
            assert_eq!(lse(&y, 1.0), inf);
        }
    });
}

#[test]
fn hyperbolic_at_the_boundary() {
    // 1 - |x|² in integers: with a = 1 - 2^-40 and b = 2^-20 the plain form has lost a third of its digits
    let (a, b) = (1.0 - f64::powi(2.0, -40), f64::powi(2.0, -21));
    let alpha = 2f64.powi(-39) - 2f64.powi(-80) - 2f64.powi(-42);
    let w = (4.0 * b * b / (alpha * alpha)).sqrt();
    let want = 2.0 * w.asinh();
    let d = written(&Hyperbolic { c: 1.0 }, &[a, b], &[a, -b, a, b, 2.0, 0.0], 1, 3, 2);
    close(&d, &[want, 0.0, f64::NAN], 1e-15);
    let (ab, ba) = (
        written(&Hyperbolic { c: 0.7 }, &[0.1, 0.9], &[0.3, -0.2], 1, 1, 2),
        written(&Hyperbolic { c: 0.7 }, &[0.3, -0.2], &[0.1, 0.9], 1, 1, 2),
    );
    assert_eq!(ab[0].to_bits(), ba[0].to_bits());
}

#[test]
fn shapes_are_checked() {
    let mut out = [0.0; 4];
    assert!(Write::<f64>::new(2, 3, &mut out).is_err());
    let write = Write::new(2, 2, &mut out).unwrap();
    assert!(run(&Dot, &write, &[0.0f32; 3], &[0.0f32; 4], 2, 2, 2).is_err());
    assert!(run(&Dot, &write, &[0.0f32; 4], &[0.0f32; 4], 2, 2, usize::MAX).is_err());
}

/// The extents against what they say, pair by pair: through a walk, so that hulls and strips are tested with them.
#[test]
fn extents() {
    fn check(extent: &impl Extent, n: usize, m: usize, says: impl Fn(usize, usize) -> bool) {
        let (x, y) = (numbers::<f32>(n * 3, 1), numbers::<f32>(m * 3, 2));
        let (mut out, mut sums) = (vec![7.0; n * m], vec![0.0; n]);
        let sides = Sides::new(&x, &y, n, m, 3).unwrap();
        sides.run(&Dot, extent, &Write::new(n, m, &mut out).unwrap()).unwrap();
        let mut picked = vec![0.0; n];
        let last = Pick::new(n, |_| m.wrapping_sub(1), &mut picked).unwrap();
        sides.run(&Dot, extent, &(LogSumExp::new(n, 1.0, &mut sums).unwrap(), last)).unwrap();
        let all = naive(&x, &y, n, m, 3, dot);
        for i in 0..n {
            let (mut sum, mut any) = (0.0, f64::NEG_INFINITY);
            for j in 0..m {
                let want = if says(i, j) { all[i * m + j] } else { 7.0 };
                close(&[out[i * m + j]], &[want], 1e-14);
                if says(i, j) {
                    sum += all[i * m + j].exp();
                    any = sum.ln();
                }
            }
            close(&[sums[i]], &[any], 1e-12);
            if m > 0 && says(i, m - 1) {
                close(&[picked[i]], &[all[i * m + m - 1]], 1e-14);
            }
        }
    }
    for (n, m) in [(0, 5), (5, 0), (1, 1), (70, 63), (200, 190), (260, 300)] {
        check(&All, n, m, |_, _| true);
        check(&Others, n, m, |i, j| i != j);
        for ahead in [-300, -70, -1, 0, 5, 1000] {
            check(&Causal { ahead }, n, m, |i, j| j as isize <= i as isize + ahead);
        }
        for (before, after) in [(0, 0), (3, 1), (64, 0), (0, 130), (usize::MAX, 2), (1, usize::MAX)] {
            check(&Band { before, after }, n, m, |i, j| i.saturating_sub(before) <= j && j <= i.saturating_add(after));
        }
        for (width, reach) in [(1, [1, 1]), (7, [1, 2]), (30, [0, 3]), (100, [1, 1]), (64, [2, usize::MAX / 2])] {
            check(&Window { width, reach }, n, m, |i, j| {
                (i / width).abs_diff(j / width) <= reach[0] && (i % width).abs_diff(j % width) <= reach[1]
            });
        }
        let (a, b): (Vec<_>, Vec<_>) = ((0..n as i64).map(|i| i % 5).collect(), (0..m as i64).map(|j| j % 3).collect());
        for same in [true, false] {
            check(&Labels { x: &a, y: &b, same }, n, m, |i, j| (a[i] == b[j]) == same);
            let both = (Labels { x: &a, y: &b, same }, Causal { ahead: 3 });
            check(&both, n, m, |i, j| (a[i] == b[j]) == same && j <= i + 3);
        }
        let both = (Window { width: 9, reach: [3, 3] }, Band { before: 20, after: 1 });
        check(&both, n, m, |i, j| {
            (i / 9).abs_diff(j / 9) <= 3 && (i % 9).abs_diff(j % 9) <= 3 && i <= j + 20 && j <= i + 1
        });
    }
}

/// Weights that are the scores themselves.
struct Plain<'a> {
    d: usize,
    x: Shared<f64>,
    y: Shared<f64>,
    life: std::marker::PhantomData<&'a mut [f64]>,
}
impl<T> Weigh<T> for Plain<'_> {
    type Sum = f64;
    const NONE: f64 = 0.0;
    fn weigh<S: Simd>(
        &self,
        _: S,
        _: Range<usize>,
        cols: Range<usize>,
        live: &[u64],
        keys: &mut [f64],
        sums: &mut [Mixed<f64>],
        mut beside: Option<[&mut [f64]; 2]>,
    ) {
        for ((keys, sum), &live) in keys.chunks_exact_mut(STRIP).zip(sums).zip(live) {
            clear(keys, live);
            sum.sum += keys.iter().sum::<f64>();
            if let Some([column, _]) = &mut beside {
                column.iter_mut().zip(&keys[..cols.len()]).for_each(|(c, k)| *c += k);
            }
        }
    }
    fn merge(&self, into: &mut f64, later: &f64) {
        *into += later;
    }
    fn row<S: Simd>(&self, _: S, row: usize, acc: &[f64], sum: f64) {
        // SAFETY: each row is finished once, and has d + 1 numbers.
        let out = unsafe { self.x.part(row * (self.d + 1), self.d + 1) };
        out[..self.d].copy_from_slice(&acc[..self.d]);
        out[self.d] = sum;
    }
    fn column(&self, col: usize, acc: &[f64], beside: [f64; 2]) {
        // SAFETY: as above.
        let out = unsafe { self.y.part(col * (self.d + 1), self.d + 1) };
        out[..self.d].copy_from_slice(&acc[..self.d]);
        out[self.d] = beside[0];
    }
}

/// Σ s y and Σ s x over the pairs of an extent, with the sums of s beside them; on any number of threads.
#[test]
fn mixtures_of_both_sides() {
    fn check<T: Number>(
        extent: &impl Extent,
        [n, m, d]: [usize; 3],
        blocks: usize,
        says: impl Fn(usize, usize) -> bool,
    ) {
        let (x, y) = (numbers::<T>(n * d, 7), numbers::<T>(m * d, 8));
        let all = naive(&x, &y, n, m, d, dot);
        let (mut to_x, mut to_y) = (vec![0.0; n * (d + 1)], vec![0.0; m * (d + 1)]);
        for (i, j) in (0..n * m).map(|p| (p / m, p % m)).filter(|&(i, j)| says(i, j)) {
            for k in 0..=d {
                let (a, b) = if k < d { (x[i * d + k].to_f64(), y[j * d + k].to_f64()) } else { (1.0, 1.0) };
                to_x[i * (d + 1) + k] += all[i * m + j] * b;
                to_y[j * (d + 1) + k] += all[i * m + j] * a;
            }
        }
        let sides = Sides::new(&x, &y, n, m, d).unwrap();
        let mut results = Vec::new();
        for threads in [1, 3] {
            let (mut a, mut b) = (vec![7.0; to_x.len()], vec![7.0; to_y.len()]);
            let life = std::marker::PhantomData;
            let weigh = Plain { d, x: Shared(a.as_mut_ptr()), y: Shared(b.as_mut_ptr()), life };
            pool::with(pool::Context { runner: None, threads, poll: None }, || {
                Mix::both(&Dot, extent, &weigh, &sides, blocks).unwrap();
            });
            close(&a, &to_x, 1e-12);
            close(&b, &to_y, 1e-12);
            results.push((a, b));
        }
        assert_eq!(results[0], results[1]);
    }
    for shape in [[0, 3, 2], [3, 0, 2], [1, 1, 1], [9, 70, 0], [300, 130, 17], [150, 200, 40], [700, 90, 150]] {
        for blocks in [0, 2, 64] {
            check::<f32>(&All, shape, blocks, |_, _| true);
            check::<f64>(&Causal { ahead: -2 }, shape, blocks, |i, j| j + 2 <= i);
            check::<F16>(&(Others, Band { before: 80, after: 3 }), shape, blocks, |i, j| {
                i != j && j <= i + 3 && i <= j + 80
            });
        }
    }
}
