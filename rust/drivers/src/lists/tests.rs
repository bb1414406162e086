//! The one rule: every element once, and the same of an entry whatever stands beside it.

use super::*;
use base::store::Store;

fn plan(lens: &[usize], per: usize) -> Plan {
    Plan::of(lens, per, |_| true).unwrap()
}

#[test]
fn every_element_stands_in_one_piece() {
    for (lens, per) in [
        (&[][..], 1),
        (&[0, 0], 1),
        (&[1, 0, 5, 3 * BLOCK + 7, 2], 1),
        (&[BLOCK; 3], 1),
        (&[6, 0, 4 * BLOCK + 2], 2),
        (&[0, 0], 0),
    ] {
        let plan = plan(lens, per);
        for (i, &n) in lens.iter().enumerate() {
            let of: Vec<_> = plan.pieces.iter().filter(|p| p.entry == i).collect();
            assert_eq!(of.iter().map(|p| p.len).sum::<usize>(), n);
            assert!(of.iter().zip(of.iter().skip(1)).all(|(a, b)| a.at + a.len == b.at));
            assert!(of.iter().all(|p| p.len <= BLOCK && p.row == i * per + p.at / (n / per)));
        }
        let tasks: usize = (0..plan.ends.len()).map(|i| plan.task(i).len()).sum();
        assert_eq!(tasks, plan.pieces.len());
        let whole = |i| plan.task(i).iter().map(|p| p.len).sum::<usize>();
        assert!((1..plan.ends.len()).all(|i| (BLOCK..2 * BLOCK).contains(&whole(i - 1))));
    }
}

struct Twice;
impl Pass for Twice {
    type Gather = f64;
    fn chunk(&self, gather: &mut f64, at: Piece, lists: &Reader, _: &mut Room, y: &mut [f64]) {
        let mut x = [0.0; CHUNK];
        lists.read(0, &mut x[..at.len]);
        *gather += absolute(&x[..at.len]).get();
        for (y, x) in y.iter_mut().zip(x) {
            *y = 2.0 * x;
        }
    }
}

#[test]
fn entries_of_several_types_in_place() {
    let (mut a, mut b) = (vec![1.5f32; 2 * BLOCK + 3], vec![3.0f64; 5]);
    let mut c = vec![base::store::Bf16::from_f32(-0.5); 17];
    let list = [Tensor::of(&mut a), Tensor::of(&mut b), Tensor::of(&mut c)];
    let lens: Vec<_> = list.iter().map(Tensor::len).collect();
    let found = walk(&Twice, &plan(&lens, 1), &[&list], &list).unwrap();
    assert_eq!(found.iter().map(|f| f.0.entry).collect::<Vec<_>>(), [0, 0, 0, 1, 2]);
    assert_eq!(found.iter().map(|f| f.1).sum::<f64>(), 1.5 * (2.0 * BLOCK as f64 + 3.0) + 15.0 + 8.5);
    assert!(a.iter().all(|&v| v == 3.0) && b.iter().all(|&v| v == 6.0) && c.iter().all(|v| v.to_f64() == -1.0));
    assert!(walk(&Twice, &plan(&[9], 1), &[&[Tensor::of(&mut b)]], &[]).is_err());
    assert!(walk(&Twice, &plan(&[5], 1), &[&[Tensor::of(&mut b)]], &[Tensor::of(&mut [0.0; 4])]).is_err());
}

#[test]
fn sums_lose_nothing_on_the_way() {
    let x: Vec<f64> = (0..CHUNK).map(|i| if i % 2 == 0 { 1e16 } else { 1.0 }).collect();
    let y: Vec<f64> = (0..CHUNK).map(|i| if i % 4 == 2 { -1.0 } else { 1.0 }).collect();
    for n in [0, 1, 15, 16, 17, 500, CHUNK] {
        let want: i128 = (0..n).map(|i| (x[i] as i128) * (y[i] as i128)).sum();
        assert_eq!(dot(&x[..n], &y[..n]).get(), want as f64);
        let want: i128 = (0..n).map(|i| x[i] as i128).sum();
        assert_eq!(absolute(&x[..n]).get(), want as f64);
    }
    assert_eq!(absolute(&[f64::MAX; 4]).get(), f64::INFINITY);
}

#[test]
fn levels_agree() {
    let x: Vec<f32> = (0..BLOCK + 77).map(|i| ((i * 7919 % 1009) as f32 - 504.0) * 1e-3).collect();
    let wide: Vec<f64> = x.iter().map(|&v| f64::from(v) * 1.000_000_1).collect();
    let mut seen = vec![];
    for level in base::simd::available() {
        assert!(base::simd::force(Some(level)));
        let mut bits = vec![dot(&wide[..CHUNK - 5], &wide[3..CHUNK - 2]).get(), absolute(&wide[..CHUNK - 5]).get()];
        let (mut a, mut h) = (x.clone(), x.iter().map(|&v| base::store::F16::from_f32(v)).collect::<Vec<_>>());
        let mut b: Vec<_> = x.iter().map(|&v| base::store::Bf16::from_f32(v)).collect();
        let list = [Tensor::of(&mut a), Tensor::of(&mut h), Tensor::of(&mut b)];
        let lens: Vec<_> = list.iter().map(Tensor::len).collect();
        bits.extend(walk(&Twice, &plan(&lens, 1), &[&list], &list).unwrap().into_iter().map(|(_, sum)| sum));
        bits.extend(
            a.iter().map(|v| v.to_f64()).chain(h.iter().map(|v| v.to_f64())).chain(b.iter().map(|v| v.to_f64())),
        );
        seen.push(bits.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
    }
    base::simd::force(None);
    assert!(seen.iter().all(|s| *s == seen[0]));
}
