//! The walk over blocks: what comes out is what a plain loop gives, whatever the size, the offset, the type and the level.

use super::*;
use base::simd::{available, force};
use base::store::{Bf16, F16, Store};
use base::{Dtype, Element};

const SIZES: [usize; 12] = [255, 256, 257, 1023, 1024, 1025, 2047, 2049, 32767, 32768, 32769, 100_003];

fn tensor<T: Element>(v: &mut [T]) -> Tensor<'_> {
    // SAFETY: the slice itself.
    unsafe { Tensor::new(v.as_mut_ptr().cast(), &[v.len()], T::DTYPE, true).unwrap() }
}

struct Each<F>(F);
impl<T: Real, F: Fn(T) -> T + Sync> Pass<T, 1, 0, 1, 0> for Each<F> {
    type Gather = ();
    fn start(&self, _: usize, _: usize) -> Result<()> {
        Ok(())
    }
    #[inline(always)]
    fn part<S: Simd>(
        &self,
        _: S,
        (): &mut (),
        _: usize,
        [x]: [&[T]; 1],
        _: [&[u8]; 0],
        [y]: [&mut [T]; 1],
        _: [&mut [u8]; 0],
    ) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = (self.0)(x);
        }
    }
}

/// `y = f(x)`, element by element; `f` is `#[inline(always)]`.
fn map<T: Compute>(x: &Tensor, y: &Tensor, f: impl Fn(T::Real) -> T::Real + Sync) -> Result<()> {
    pass::<T, _, 1, 0, 1, 0>(&Each(f), BLOCK, [x], [], [y], []).map(drop)
}

struct Fold<A, F> {
    start: A,
    add: F,
}
impl<T: Real, A: Clone + Send + Sync, F: Fn(&mut A, &[T]) + Sync> Pass<T, 1, 0, 0, 0> for Fold<A, F> {
    type Gather = A;
    fn start(&self, _: usize, _: usize) -> Result<A> {
        Ok(self.start.clone())
    }
    #[inline(always)]
    fn part<S: Simd>(
        &self,
        _: S,
        gather: &mut A,
        _: usize,
        [x]: [&[T]; 1],
        _: [&[u8]; 0],
        _: [&mut [T]; 0],
        _: [&mut [u8]; 0],
    ) {
        (self.add)(gather, x);
    }
}

/// What `add` gathers from the parts of each block, beginning with `start`, joined in the order of the blocks.
fn reduce<T: Compute, A: Clone + Send + Sync>(
    x: &Tensor,
    start: A,
    add: impl Fn(&mut A, &[T::Real]) + Sync,
    join: impl Fn(A, A) -> A,
) -> Result<A> {
    let fold = Fold { start, add };
    let parts = pass::<T, _, 1, 0, 0, 0>(&fold, BLOCK, [x], [], [], [])?;
    Ok(parts.into_iter().fold(fold.start, join))
}

fn sizes() -> impl Iterator<Item = usize> {
    (0..=131).chain(SIZES)
}

fn value(i: usize) -> f64 {
    // a few significant bits, so that every type holds it and every sum is exact
    ((i * 37) % 253) as f64 - 126.0
}

fn all<T: Compute>() {
    for level in available() {
        force(Some(level));
        for n in sizes() {
            for offset in [0, 1, 3] {
                let mut x: Vec<T> = (0..n + offset).map(|i| T::from_f64(value(i))).collect();
                let mut y = vec![T::from_f64(7.0); n + offset];
                let x = tensor(&mut x[offset..]);
                {
                    let y = tensor(&mut y[offset..]);
                    map::<T>(
                        &x,
                        &y,
                        #[inline(always)]
                        |v| v + v,
                    )
                    .unwrap();
                }
                for (i, y) in y.iter().enumerate() {
                    let want = if i < offset { 7.0 } else { 2.0 * value(i) };
                    assert_eq!(y.to_f64(), want, "{level} {n} {offset} {i}");
                }
                let sum = reduce::<T, f64>(&x, 0.0, |a, x| x.iter().for_each(|v| *a += v.to_f64()), |a, b| a + b);
                assert_eq!(sum.unwrap(), (offset..n + offset).map(value).sum::<f64>());
            }
        }
    }
    force(None);
}

#[test]
fn f64s() {
    all::<f64>();
}
#[test]
fn f32s() {
    all::<f32>();
}
#[test]
fn f16s() {
    all::<F16>();
}
#[test]
fn bf16s() {
    all::<Bf16>();
}

#[test]
fn beyond_the_caches() {
    for offset in [0, 3] {
        let n = stream::LARGE / 4 + 1000;
        let mut x: Vec<f32> = (0..n).map(|i| value(i) as f32).collect();
        let mut y = vec![7f32; n + offset];
        map::<f32>(&tensor(&mut x), &tensor(&mut y[offset..]), |v| v + 1.0).unwrap();
        assert!(y[..offset].iter().all(|&v| v == 7.0));
        assert!(y[offset..].iter().zip(&x).all(|(y, x)| *y == x + 1.0));
    }
}

#[test]
fn in_place() {
    let mut x: Vec<f32> = (0..70_000).map(|i| i as f32).collect();
    let x = tensor(&mut x);
    map::<f32>(&x, &x, |v| v + 1.0).unwrap();
    assert!(x.slice::<f32>().unwrap().iter().enumerate().all(|(i, &v)| v == i as f32 + 1.0));
}

#[test]
fn what_is_refused() {
    let (mut a, mut b, mut c) = ([0f32; 3], [0f32; 4], [0f64; 3]);
    let (a, b, c) = (tensor(&mut a), tensor(&mut b), tensor(&mut c));
    assert!(matches!(map::<f32>(&a, &b, |v| v), Err(Error::Value(_))));
    assert!(matches!(map::<f32>(&a, &c, |v| v), Err(Error::Type(_))));
    // SAFETY: the memory of `a`, declared read-only.
    let fixed = unsafe { Tensor::new(a.as_ptr(), &[3], Dtype::F32, false).unwrap() };
    assert!(matches!(map::<f32>(&a, &fixed, |v| v), Err(Error::Value(_))));
}

#[test]
fn ranges() {
    fn check<T: Real>() {
        let of = |v: &[f64]| v.iter().map(|&v| T::of(v)).collect::<Vec<_>>();
        for n in 0..=131 {
            let v: Vec<f64> = (0..n).map(value).collect();
            let x = of(&v);
            let (lo, hi) = T::range::<false>(&x);
            assert_eq!(lo.to_f64(), v.iter().copied().fold(0.0, f64::min));
            assert_eq!(hi.to_f64(), v.iter().copied().fold(0.0, f64::max));
            assert_eq!(T::amax::<false>(&x).to_f64(), v.iter().fold(0.0, |a, v| v.abs().max(a)));
        }
        let mut odd = of(&[1.0, -2.0, f64::NAN, 0.5]);
        assert!(!T::amax::<false>(&odd).is_finite());
        assert_eq!(T::amax::<true>(&odd).to_f64(), 2.0);
        for bad in [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            odd[2] = T::of(bad);
            let (lo, hi) = T::range::<false>(&odd);
            assert!(!(lo.is_finite() && hi.is_finite()));
            let (lo, hi) = T::range::<true>(&odd);
            assert_eq!((lo.to_f64(), hi.to_f64()), (-2.0, 1.0));
        }
        let small = [T::TINY * T::of(0.25), -T::ZERO];
        assert_eq!(T::amax::<false>(&small), small[0]);
    }
    check::<f32>();
    check::<f64>();
}

/// Codes that are the numbers themselves, two a byte; a row of an odd number of them ends within one.
#[test]
fn rows_beside_their_bytes() {
    fn bytes(n: usize) -> usize {
        n.div_ceil(2)
    }
    fn put<T: Real>(x: &[T], out: &mut [u8]) -> u8 {
        for (o, x) in out.iter_mut().zip(x.chunks(2)) {
            let code = |i: usize| x.get(i).map_or(0, |v| v.to_f64() as u8);
            *o = code(0) | code(1) << 4;
        }
        x.iter().fold(0, |all, v| all | v.to_f64() as u8)
    }
    fn take<T: Real>(data: &[u8], y: &mut [T]) {
        for (i, y) in y.iter_mut().enumerate() {
            *y = T::int(i32::from(data[i / 2] >> (i % 2 * 4) & 15));
        }
    }
    fn check<A: Compute>(rows: usize, len: usize) {
        let code = |i: usize| (i % 13 + i / 17 % 3) as u8;
        let mut x: Vec<A> = (0..rows * len).map(|i| A::from_f64(f64::from(code(i)))).collect();
        let (mut data, mut y) = (vec![0xffu8; rows * bytes(len)], vec![A::from_f64(-1.0); rows * len]);
        // SAFETY: the arrays themselves.
        let of = |at: *mut u8, shape: &[usize], kind| unsafe { Tensor::new(at, shape, kind, true).unwrap() };
        let (x, y) =
            (of(x.as_mut_ptr().cast(), &[rows, len], A::DTYPE), of(y.as_mut_ptr().cast(), &[rows, len], A::DTYPE));
        let data = of(data.as_mut_ptr(), &[rows, bytes(len)], Dtype::U8);
        let all = to_bytes::<A, u8>(&x, &data, bytes, put, |a, b| a | b).unwrap();
        assert_eq!(all, (0..rows * len).map(code).fold(0, |a, b| a | b));
        from_bytes::<A>(&data, &y, bytes, |_, data, y| take(data, y)).unwrap();
        assert!(y.slice::<A>().unwrap().iter().enumerate().all(|(i, y)| y.to_f64() == f64::from(code(i))));
        assert!(from_bytes::<A>(&data, &y, |n| n, |_, _, _| ()).is_err() || bytes(len) == len || rows == 0);
    }
    for (rows, len) in [(0, 5), (3, 0), (1, 1), (5, 7), (2, 2049), (3, 4096), (1, 70_001), (9000, 300)] {
        check::<f32>(rows, len);
        check::<f64>(rows, len);
        check::<Bf16>(rows, len);
    }
}
