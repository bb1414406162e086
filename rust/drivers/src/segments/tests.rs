//! Segments against plain loops in f64: sums, means and maxima; every way to name them, and every number of threads.

use super::*;
use base::pool::{Context, Shared};
use base::store::{STEP, Store};
use base::{Element, Error, Tensor, try_vec};

/// The least of operators: a state of f64 rows.
struct Plain<'a, T> {
    x: &'a [T],
    lists: &'a Lists,
    max: bool,
    mean: bool,
    out: Shared<f64>,
}

impl<T: Store> Plain<'_, T> {
    fn pad(&self) -> usize {
        self.lists.width().next_multiple_of(STEP)
    }
    fn none(&self) -> f64 {
        if self.max { f64::NEG_INFINITY } else { 0.0 }
    }
}

impl<T: Store> Fold<()> for Plain<'_, T> {
    type State = Vec<f64>;
    type Left = ();
    fn start(&self, slots: usize) -> Result<Vec<f64>> {
        try_vec(slots * self.pad(), self.none())
    }
    fn clear(&self, state: &mut Vec<f64>, n: usize) {
        state[..n * self.pad()].fill(self.none());
    }
    #[inline(always)]
    fn add<S: Simd>(&self, s: S, _: usize, state: &mut Vec<f64>, slot: usize, chunk: &Chunk<()>, part: Range<usize>) {
        let d = self.lists.width();
        for &row in &chunk.rows[part] {
            let x = self.x[row * d..(row + 1) * d].chunks(STEP);
            for (x, a) in x.zip(state[slot * self.pad()..].chunks_exact_mut(STEP)) {
                let (v, old) = (T::load_tail(s, x), f64::load16(s, a));
                let new = if self.max { [old[0].max(v[0]), old[1].max(v[1])] } else { [old[0] + v[0], old[1] + v[1]] };
                f64::store16(s, new, a);
            }
        }
    }
    fn merge(&self, _: usize, into: &mut Vec<f64>, later: Vec<f64>) {
        for (a, b) in into.iter_mut().zip(later) {
            *a = if self.max { a.max(b) } else { *a + b };
        }
    }
    #[inline(always)]
    fn finish<S: Simd>(&self, _: S, segments: Range<usize>, state: &mut Vec<f64>) {
        let d = self.lists.width();
        for (slot, i) in segments.enumerate() {
            let n = if self.mean { self.lists.members(i) as f64 } else { 1.0 };
            // SAFETY: each segment is finished once, and has a row of the output.
            let out = unsafe { self.out.part(i * d, d) };
            for (out, a) in out.iter_mut().zip(&state[slot * self.pad()..]) {
                *out = a / n;
            }
        }
    }
    fn left<S: Simd>(&self, _: S, _: Vec<f64>) {}
}

fn folded<T: Store>(x: &[T], lists: &Lists, max: bool, mean: bool) -> Vec<f64> {
    let mut out = vec![7.0; lists.len() * lists.width()];
    each(lists, &Plain { x, lists, max, mean, out: Shared(out.as_mut_ptr()) }).unwrap();
    out
}

fn csr<I: Element, P: Element>(indices: &[I], indptr: &[P], rows: usize, width: usize) -> Result<Lists> {
    fn of<T: Element>(v: &[T]) -> Tensor<'_> {
        // SAFETY: a slice as it is, which is not written to.
        unsafe { Tensor::new(v.as_ptr().cast_mut().cast(), &[v.len()], T::DTYPE, false).unwrap() }
    }
    Lists::of_csr(&of(indices), &of(indptr), rows, width)
}

fn random(n: usize, seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed;
    (0..n).map(move |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    })
}

fn threads(n: usize, f: impl FnOnce() -> Vec<f64>) -> Vec<u64> {
    let context = Context { runner: None, threads: n, poll: None };
    pool::with(context, f).into_iter().map(f64::to_bits).collect()
}

/// Sums, means and maxima of rows by id against loops, and the same bits on any number of threads.
fn check(ids: &[i64], segments: usize, d: usize) {
    let x: Vec<f32> = random(ids.len() * d, 3).map(|v| (v % 2001) as f32 / 1000.0 - 1.0).collect();
    let lists = Lists::of_ids(ids, segments, d).unwrap();
    let narrow: Vec<i32> = ids.iter().map(|&i| i as i32).collect();
    let same = Lists::of_ids(&narrow, segments, d).unwrap();
    for (max, mean) in [(false, false), (false, true), (true, false)] {
        let mut want = vec![if max { f64::NEG_INFINITY } else { 0.0 }; segments * d];
        for (r, &i) in ids.iter().enumerate().filter(|i| *i.1 >= 0) {
            for k in 0..d {
                let (w, v) = (&mut want[i as usize * d + k], f64::from(x[r * d + k]));
                *w = if max { w.max(v) } else { *w + v };
            }
        }
        if mean {
            for i in 0..segments {
                let n = ids.iter().filter(|&&id| id == i as i64).count() as f64;
                want[i * d..(i + 1) * d].iter_mut().for_each(|w| *w /= n);
            }
        }
        let one = threads(1, || folded(&x, &lists, max, mean));
        for (got, want) in one.iter().map(|&b| f64::from_bits(b)).zip(&want) {
            let near = (got - want).abs() <= 1e-9 * (1.0 + want.abs());
            assert!(near || got == *want || (got.is_nan() && want.is_nan()), "{got} {want}");
        }
        for n in 2..=8 {
            assert_eq!(one, threads(n, || folded(&x, &lists, max, mean)), "{n} threads");
        }
        assert_eq!(one, threads(1, || folded(&x, &same, max, mean)));
    }
}

#[test]
fn sums_means_and_maxima() {
    for d in [0, 1, 3, 16, 17, 70] {
        // in order, out of order, with rows of no segment, with empty segments
        check(&(0..500).map(|i| i / 7).collect::<Vec<_>>(), 80, d);
        check(&random(500, 1).map(|v| (v % 41) as i64 - 1).collect::<Vec<_>>(), 60, d);
        check(&[], 3, d);
        check(&[-1, -1], 2, d);
    }
    // many segments of one row each, in the order of another
    check(&(0..3000).map(|i| i * 7 % 3000).collect::<Vec<_>>(), 3000, 5);
}

#[test]
fn one_huge_segment() {
    check(&random(20_000, 2).map(|v| i64::from(v % 50 == 0)).collect::<Vec<_>>(), 3, 9);
    check(&vec![0; 4 * PART + 1], 1, 1);
}

#[test]
fn ways_to_name_them() {
    let x: Vec<f64> = (0..60).map(f64::from).collect();
    let runs = folded(&x, &Lists::runs(5, 4, 3).unwrap(), false, false);
    let ids: Vec<i32> = (0..20).map(|i| i / 4).collect();
    assert_eq!(runs, folded(&x, &Lists::of_ids(&ids, 5, 3).unwrap(), false, false));
    let (all, ptr): (Vec<i64>, Vec<i32>) = ((0..20).collect(), (0..=5).map(|i| 4 * i).collect());
    assert_eq!(runs, folded(&x, &csr(&all, &ptr, 20, 3).unwrap(), false, false));
    // a row in several segments, and twice in one
    let lists = csr(&[19i32, 0, 19, 19], &[0i32, 1, 1, 4], 20, 3).unwrap();
    assert_eq!(folded(&x, &lists, false, false), [57., 58., 59., 0., 0., 0., 114., 117., 120.]);
    let turned = lists.turned().unwrap().unwrap();
    assert_eq!(
        (&turned.ptr[..2], &turned.entries[..], &turned.segments[..]),
        (&[0, 1][..], &[1, 0, 2, 3][..], &[2, 0, 2, 2][..])
    );
}

#[test]
fn what_is_refused() {
    let said = |r: Result<Lists>| match r {
        Err(Error::Value(said)) => said,
        other => panic!("{:?}", other.map(|_| ())),
    };
    assert_eq!(said(Lists::of_ids(&[0i64, 5, 9], 5, 1)), "ids[1] = 5 is outside -1..5");
    assert_eq!(said(Lists::of_ids(&[0i32, -2], 5, 1)), "ids[1] = -2 is outside -1..5");
    assert_eq!(said(Lists::of_ids(&[i64::MIN], 5, 1)), format!("ids[0] = {} is outside -1..5", i64::MIN));
    assert_eq!(said(csr(&[0i32, -1], &[0i32, 2], 5, 1)), "indices[1] = -1 is outside 0..5");
    assert_eq!(said(csr(&[0i64], &[0i32, 2], 5, 1)), "indptr ends at 2, but 1 entries are stored");
    assert_eq!(said(csr(&[0i64], &[0i64, -1], 5, 1)), "indptr falls from 0 to -1 at row 0");
}
