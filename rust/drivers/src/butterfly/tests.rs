use super::*;
use base::simd;
use base::store::Store;

const PIECE: usize = 1 << 13;

/// The transform by its definition, one level after the other, in the same order as the rule says.
fn reference<L: Lane>(x: &[L], n: usize, scale: f64) -> Vec<L> {
    let (k, m) = split(n).unwrap();
    let inner = 1 << m;
    let mut y = x.to_vec();
    for row in y.chunks_exact_mut(n) {
        for bit in 0..m {
            for i in 0..n {
                let j = i | 1 << bit;
                if i != j {
                    (row[i], row[j]) = (row[i] + row[j], row[i] - row[j]);
                }
            }
        }
        if k > 1 {
            let signs = paley::signs(k);
            let old = row.to_vec();
            for r in 0..k {
                for t in 0..inner {
                    let mut sum = old[t] * L::of(signs[r * k].into());
                    for c in 1..k {
                        sum += old[c * inner + t] * L::of(signs[r * k + c].into());
                    }
                    row[r * inner + t] = sum;
                }
            }
        }
        for x in row {
            *x *= L::of(scale);
        }
    }
    y
}

fn numbers<L: Lane>(n: usize, seed: u64) -> Vec<L> {
    let source = base::random::Source::new(seed, 1, 0);
    (0..n).map(|i| L::of(source.normal(0, i as u64).into())).collect()
}

fn apply<T: Store>(x: &mut [T], y: Option<&mut [T]>, n: usize, ortho: bool) -> Result<()> {
    let shape = [x.len() / n, n];
    // SAFETY: both are slices of that many elements.
    unsafe {
        let input = Tensor::new(x.as_mut_ptr().cast(), &shape, T::DTYPE, true)?;
        let output = match y {
            Some(y) => Tensor::new(y.as_mut_ptr().cast(), &shape, T::DTYPE, true)?,
            None => input,
        };
        fwht(&input, &output, ortho)
    }
}

fn check<L: Lane>(n: usize, rows: usize) {
    let mut x = numbers::<L>(n * rows, n as u64);
    let mut y = vec![L::default(); x.len()];
    apply(&mut x, Some(&mut y), n, false).unwrap();
    assert!(y == reference(&x, n, 1.0), "n = {n}, {rows} rows");
    apply(&mut x, Some(&mut y), n, true).unwrap();
    let want = reference(&x, n, 1.0 / (n as f64).sqrt());
    assert!(y == want, "n = {n}, {rows} rows, ortho");
    apply(&mut x, None, n, true).unwrap();
    assert!(x == want, "n = {n}, {rows} rows, in place");
}

#[test]
fn the_same_bits_as_the_definition_at_every_size_and_level() {
    for level in simd::available() {
        simd::force(Some(level));
        for n in (1..3000).filter(|&n| split(n).is_some()) {
            for rows in [1, 2, 3, 7, 33] {
                check::<f32>(n, rows);
                check::<f64>(n, rows);
            }
        }
        for n in [PIECE, 2 * PIECE, UNIT, 2 * UNIT, 12 * 4096, 20 * PIECE, 28 * 2 * PIECE, 1 << 17] {
            check::<f32>(n, 3);
            check::<f64>(n, 1);
        }
    }
    simd::force(None);
    check::<f32>(1 << 22, 1);
    check::<f32>(1 << 23, 1);
}

#[test]
fn large_results_past_the_caches_are_the_same() {
    let n = 1024;
    check::<f32>(n, base::stream::LARGE / 4 / n + 3);
    check::<f64>(20, base::stream::LARGE / 8 / 20 + 3);
    check::<f32>(1 << 14, base::stream::LARGE / 4 / (1 << 14) + 3);
    check::<f64>(12 << 11, base::stream::LARGE / 8 / (12 << 11) + 3);
}

#[test]
fn involution_is_exact_on_small_integers() {
    for n in [2, 8, 12, 40, 64, 112, 1024, 4096] {
        let x: Vec<f32> = (0..n).map(|i| ((i * 37) % 11) as f32 - 5.0).collect();
        let mut y = x.clone();
        apply(&mut y, None, n, false).unwrap();
        apply(&mut y, None, n, false).unwrap();
        assert!(x.iter().zip(&y).all(|(x, y)| x * n as f32 == *y));
    }
}

#[test]
fn halves_are_rounded_once() {
    fn check<T: Store + PartialEq>(n: usize, rows: usize) {
        let wide: Vec<f32> = numbers(n * rows, 5);
        let mut x: Vec<T> = wide.iter().map(|&v| T::from_f32(v)).collect();
        let wide: Vec<f32> = x.iter().map(|v| v.to_f32()).collect();
        let want: Vec<T> = reference(&wide, n, 1.0 / (n as f64).sqrt()).iter().map(|&v| T::from_f32(v)).collect();
        apply(&mut x, None, n, true).unwrap();
        assert!(x == want, "n = {n}");
    }
    for n in [1, 2, 12, 16, 64, 80, 4096, PIECE, 4 * PIECE, 8 * PIECE] {
        check::<F16>(n, 3);
        check::<Bf16>(n, 3);
    }
}

#[test]
fn what_is_refused() {
    let mut x = [0f32; 12];
    assert!(apply(&mut x[..6], None, 6, false).is_err());
    assert!(apply(&mut x[..10], None, 10, false).is_err());
    assert!(apply(&mut x, None, 12, false).is_ok());
    assert!(
        (0..200)
            .filter(|&n| split(n).is_some())
            .eq([1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192])
    );
    let mut none: [f32; 0] = [];
    // SAFETY: no elements.
    let empty = unsafe { Tensor::new(none.as_mut_ptr().cast(), &[0, 8], Dtype::F32, true).unwrap() };
    assert!(fwht(&empty, &empty, false).is_ok());
}

struct Counted<L>(Vec<L>);
impl<L: Lane> Fill<L> for Counted<L> {
    fn piece(&self, first: usize, aside: &mut [L]) -> *const L {
        aside.copy_from_slice(&self.0[first..first + aside.len()]);
        aside.as_ptr()
    }
}

#[test]
fn a_row_that_is_made_has_the_bits_of_one_that_was_there() {
    fn check<L: Lane>(m: u32) {
        let n = 1 << m;
        let x = Counted(numbers::<L>(n, 3));
        let whole: Vec<L> = reference(&x.0, n, 1.0).into_iter().map(|v| L::of(v.to_f64() * 0.3)).collect();
        for (first, len) in
            [(0, n), (0, n - 1), (0, n / 2 + 77), (0, 5), (1, n - 1), (n / 3, n / 2), (n - 1, 1), (9, 0)]
        {
            for shift in [0, 1, 4] {
                let mut y = vec![L::default(); len + shift];
                made(m, first, &mut y[shift..], &x, || 0.3).unwrap();
                assert!(y[shift..] == whole[first..first + len], "2^{m}, {len} from {first} on, {shift} from a line");
            }
        }
    }
    for level in simd::available() {
        simd::force(Some(level));
        for m in [LEAST, 15, 17] {
            check::<f32>(m);
            check::<f64>(m);
        }
    }
    simd::force(None);
    check::<f32>(23);
    assert!(made(12, 0, &mut [0f32], &Counted(vec![0.0; 1 << 12]), || 1.0).is_err());
}

#[test]
fn sums_overflow_only_where_the_result_does() {
    fn check<L: Lane>(n: usize, large: f64) {
        let mut x = vec![L::of(large); 3 * n];
        x[n..2 * n].fill(L::of(1.0));
        let mut y = x.clone();
        apply(&mut y, None, n, true).unwrap();
        let want =
            reference(&x.iter().map(|&v| L::of(v.to_f64() / n as f64)).collect::<Vec<L>>(), n, (n as f64).sqrt());
        for (i, (y, w)) in y.iter().zip(&want).enumerate() {
            let (y, w) = (y.to_f64(), w.to_f64());
            assert!((y - w).abs() <= 1e-5 * w.abs().max(1e-30), "{i}: {y} and {w}");
        }
    }
    for n in [2, 16, 12, 1024, 1 << 14, 1 << 17] {
        check::<f64>(n, 0.9 * f64::MAX / (n as f64).sqrt());
        check::<f32>(n, 0.9 * f64::from(f32::MAX) / (n as f64).sqrt());
    }
}

#[test]
fn one_large_number_is_met_where_it_lies() {
    for n in [1 << 18, 12 << 15, 1 << 23] {
        let few = numbers::<f32>(1 << 12, 7);
        for at in [0, n / 2 + 70_000, n - 1] {
            let mut x: Vec<f32> = few.iter().cycle().take(n).copied().collect();
            x[at] = 3e38;
            let mut y = vec![0f32; n];
            apply(&mut x, Some(&mut y), n, true).unwrap();
            let down: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
            let want = reference(&down, n, 1.0 / (n as f64).sqrt());
            let near = |(y, w): (&f32, &f64)| (f64::from(*y) - w).abs() <= 1e-6 * w.abs();
            assert!(y.iter().zip(&want).all(near), "{n}, {at}");
            apply(&mut x, None, n, true).unwrap();
            assert!(x == y, "{n}, {at}");
        }
    }
}
