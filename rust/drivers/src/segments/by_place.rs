//! Walks, places and moments against plain loops over indices. The one rule: what is expected is found element by element.

use super::moments::{Alone, Moment};
use super::places::{self, OWN, Places};
use super::walk::{self, PIECE, Walk};
use base::pool::{self, Context};
use base::{Element, Error, Tensor};

fn tensor<'a, T: Element>(v: &'a mut [T], shape: &[usize]) -> Tensor<'a> {
    assert_eq!(v.len(), shape.iter().product::<usize>());
    // SAFETY: a slice as it is, of as many elements as the shape has.
    unsafe { Tensor::new(v.as_mut_ptr().cast(), shape, T::DTYPE, true).unwrap() }
}

/// Where element `at` of an array of `shape` lies in one that broadcasts to it.
fn beside(shape: &[usize], own: &[usize], mut at: usize) -> usize {
    let (mut place, mut step) = (0, 1);
    for (i, &n) in shape.iter().enumerate().rev() {
        let (slot, mine) = (at % n, own[i]);
        at /= n;
        if mine != 1 {
            place += slot * step;
        }
        step *= mine;
    }
    place
}

/// The same shape with 1 along axes whose bit is not set.
fn masked(shape: &[usize], bits: usize) -> Vec<usize> {
    shape.iter().enumerate().map(|(i, &n)| if bits >> i & 1 == 1 { n } else { 1 }).collect()
}

const SHAPES: [&[usize]; 8] =
    [&[], &[1], &[7], &[3, 5], &[2, 1, 4], &[2, 3, 4, 5], &[2, 2 * PIECE + 3], &[PIECE + 1, 2]];

#[test]
fn a_walk_meets_every_element_once_and_in_order() {
    for shape in SHAPES {
        let n: usize = shape.iter().product();
        for bits in 0..1usize << shape.len() {
            let own = masked(shape, bits);
            let mut room = vec![0f32; own.iter().product()];
            let (kept, count) = walk::kept(shape, bits as i64);
            assert_eq!(count, room.len());
            let steps = walk::steps("own", shape, &tensor(&mut room, &own)).unwrap();
            let walk = Walk::new(shape, [kept, steps]);
            let (mut next, mut all) = (0, Vec::new());
            walk.each(0..walk.pieces(), |p| {
                assert!(p.at == next && 0 < p.len && p.len <= PIECE);
                next += p.len;
                for i in [0, p.len / 2, p.len - 1] {
                    let want = beside(shape, &own, p.at + i);
                    assert_eq!([0, 1].map(|k| p.of[k] + i * walk.step[k]), [want; 2], "{shape:?} {bits}");
                }
                all.push((p.at, p.len, p.of));
            });
            assert_eq!(next, n);
            // from anywhere on
            let (from, mut some) = (walk.pieces() / 2, Vec::new());
            walk.each(from..walk.pieces(), |p| some.push((p.at, p.len, p.of)));
            assert_eq!(some, all[from..]);
            if let Some(per) = walk.solid(0) {
                let runs = all.chunks(per.max(1)).map(|run| run[0].2[0]).collect::<Vec<_>>();
                assert!(all.iter().enumerate().all(|(i, p)| p.2[0] == runs[i / per]));
                assert!(runs.windows(2).all(|w| w[1] == w[0] + 1 || w[1] == 0));
            }
        }
    }
}

#[test]
fn what_does_not_broadcast_is_refused() {
    let mut room = vec![0f32; 6];
    for own in [&[6][..], &[3, 2], &[1, 2, 3]] {
        assert!(matches!(walk::steps("own", &[2, 3], &tensor(&mut room, own)), Err(Error::Value(_))), "{own:?}");
    }
}

fn found<T: base::store::Store>(places: &Places<OWN>, x: &[T], threads: usize) -> Vec<Moment> {
    let tables =
        pool::with(Context { runner: None, threads, poll: None }, || places::reduce(places, &Alone(places, x)));
    tables.unwrap().into_iter().flat_map(|t| t.found).collect()
}

/// Numbers far from 0 beside their spread.
fn data(n: usize) -> Vec<f64> {
    let mut state = 1u64;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            1000.0 + (state >> 40) as f64 / (1u64 << 24) as f64
        })
        .collect()
}

#[test]
fn moments_are_those_of_two_sweeps_over_each_segment() {
    for shape in SHAPES {
        let n: usize = shape.iter().product();
        let mut x = data(n);
        for (bits, labelled, weighted) in (0..1usize << shape.len())
            .flat_map(|b| [(b, false, false), (b, true, false), (b, false, true), (b, true, true)])
        {
            // labels and weights of other axes than those that are kept
            let own = masked(shape, !bits);
            let size: usize = own.iter().product();
            let mut labels: Vec<i32> = (0..size).map(|i| (i * 7 % 4) as i32 - 1).collect();
            let mut weights: Vec<f64> = (0..size).map(|i| (i % 3) as f64).collect();
            let (mut no, mut none) = (Vec::<i32>::new(), Vec::<f64>::new());
            let ids = if labelled { tensor(&mut labels, &own) } else { tensor(&mut no, &[0]) };
            let weight = if weighted { tensor(&mut weights, &own) } else { tensor(&mut none, &[0]) };
            let groups = if labelled { -3 } else { 0 };
            if (labelled || weighted) && own.is_empty() {
                continue;
            }
            let places =
                Places::<OWN>::new(&tensor(&mut x, shape), bits as i64, groups, &ids, ("weight", &weight), &[])
                    .unwrap();
            let kept = masked(shape, bits);
            let count: usize = kept.iter().product();
            assert_eq!(places.len, if labelled { 3 * count } else { count });
            let mut members = vec![Vec::new(); places.len];
            for (at, v) in x.iter().enumerate() {
                let other = beside(shape, &own, at);
                let label = if labelled { (other * 7 % 4) as i32 - 1 } else { 0 };
                if label >= 0 {
                    let w = if weighted { (other % 3) as f64 } else { 1.0 };
                    members[label as usize * count + beside(shape, &kept, at)].push((*v, w));
                }
            }
            let got = found(&places, &x, 1);
            for (m, members) in got.iter().zip(&members) {
                let w: f64 = members.iter().map(|v| v.1).sum();
                assert_eq!(m.w, w, "{shape:?} {bits} {labelled} {weighted}");
                if w > 0.0 {
                    let mean = members.iter().map(|(v, w)| v * w).sum::<f64>() / w;
                    let m2: f64 = members.iter().map(|(v, w)| w * (v - mean) * (v - mean)).sum();
                    assert!((m.mean - mean).abs() <= 1e-12 * mean.abs(), "{} {mean}", m.mean);
                    assert!((m.m2 - m2).abs() <= 1e-9 * m2 + 1e-18, "{} {m2}", m.m2);
                }
            }
            assert_eq!(got, found(&places, &x, 3));
            // equal numbers have no spread and exactly their mean
            let equal = vec![0.1f32; n];
            let equal = found(&places, &equal, 2);
            assert!(equal.iter().all(|m| m.w == 0.0 || (m.mean == f64::from(0.1f32) && m.m2 == 0.0)));
        }
    }
}

#[test]
fn moments_join() {
    let of = |x: &[f64]| {
        let mut all = Moment::default();
        for &mean in x {
            all.merge(Moment { w: 1.0, mean, m2: 0.0 });
        }
        all
    };
    let (x, nothing) = (data(100), Moment::default());
    let (mut head, tail, all) = (of(&x[..33]), of(&x[33..]), of(&x));
    head.merge(tail);
    assert!((head.mean - all.mean).abs() < 1e-10 && (head.m2 - all.m2).abs() < 1e-9 * all.m2 && head.w == 100.0);
    let before = head;
    head.merge(nothing);
    assert_eq!(head, before);
    let mut empty = nothing;
    empty.merge(before);
    assert_eq!(empty, before);
    // numbers whose difference is none: the mean is between them, the spread is none
    let far = of(&[1.5e308, -1.5e308]);
    assert!(far.mean == 0.0 && far.m2 == f64::INFINITY);
    let mut bad = of(&[f64::INFINITY]);
    bad.merge(of(&[1.0]));
    assert!(bad.mean == f64::INFINITY && bad.m2.is_nan() || bad.m2 == f64::INFINITY);
}

#[test]
fn numbers_at_the_end_of_the_range() {
    for (x, mean) in [([1.5e308, -1.5e308], 0.0), ([1.5e308, 1.5e308], 1.5e308), ([1e300, -1e300], 0.0)] {
        let mut own = x;
        let (mut no, mut none) = ([0i32; 0], [0f64; 0]);
        let (ids, weight) = (tensor(&mut no, &[0]), tensor(&mut none, &[0]));
        let places = Places::<OWN>::new(&tensor(&mut own, &[2]), 0, 0, &ids, ("weight", &weight), &[]).unwrap();
        let got = found(&places, &x, 1)[0];
        assert_eq!(got.mean, mean);
        assert_eq!(got.m2, if x[0] == x[1] { 0.0 } else { f64::INFINITY });
    }
}

#[test]
fn labels_and_weights_outside_are_refused() {
    let said = |labels: &mut [i64], weights: &mut [f64]| {
        let (ids, weight) = (tensor(labels, &[labels.len()]), tensor(weights, &[weights.len()]));
        let groups = if ids.is_empty() { 0 } else { -2 };
        match Places::<OWN>::new(&tensor(&mut [0f32; 3], &[3]), 0, groups, &ids, ("weight", &weight), &[]) {
            Err(Error::Value(said)) => said,
            _ => String::new(),
        }
    };
    assert_eq!(said(&mut [0, 2, 5], &mut []), "labels[1] is 2, it must lie in [-1, 2)");
    assert_eq!(said(&mut [0, 1, -2], &mut []), "labels[2] is -2, it must lie in [-1, 2)");
    assert_eq!(said(&mut [0, 1, i64::MAX], &mut []), format!("labels[2] is {}, it must lie in [-1, 2)", i64::MAX));
    assert_eq!(said(&mut [], &mut [0.0, -1.0, 1.0]), "weight[1] is -1, weights must be finite and not negative");
    assert_eq!(said(&mut [], &mut [0.0, f64::NAN, 1.0]), "weight[1] is NaN, weights must be finite and not negative");
    assert_eq!(said(&mut [0, -1, 1], &mut [0.0, 2.0, 1.0]), "");
}
