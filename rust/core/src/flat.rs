//! A long array in fixed blocks. The one rule: what a functor computes for an element never depends on how the array
//! was cut, and partial results are joined in the order of the blocks.
//!
//! A functor sees slices of one compute type: f64 for f64, f32 for f32, f16 and bf16. Arrays of the compute type are
//! handed over as they lie; 16-bit types, and an output that is the memory of an input, go through a scratch of
//! [`CHUNK`] elements that stays in the first cache, and so do results that no cache would hold, on their way past.

use crate::micro::stream;
use crate::simd::{Kernel, Simd, dispatch};
use crate::store::{Bf16, F16, STEP, Store};
use crate::{Error, Result, Tensor, pool};
use std::marker::PhantomData;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// Elements a thread takes at a time.
pub const BLOCK: usize = 32 * 1024;
/// Elements converted at a time.
pub const CHUNK: usize = 2048;

/// A type to compute in.
pub trait Real:
    Compute<Real = Self>
    + PartialOrd
    + std::fmt::Debug
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    const ZERO: Self;
    const ONE: Self;
    /// 1.5 · 2^(p − 1) for a significand of p bits: added to |v| ≤ 2^(p − 2), it rounds v to an integer, half to even,
    /// and leaves that integer in the low bits.
    const MAGIC: Self;
    /// The smallest normal number.
    const TINY: Self;
    fn of(v: f64) -> Self;
    fn int(v: i32) -> Self;
    #[must_use]
    fn abs(self) -> Self;
    #[must_use]
    fn trunc(self) -> Self;
    /// The next number up.
    #[must_use]
    fn up(self) -> Self;
    /// The low 32 bits of the representation.
    fn low(self) -> i32;
    fn is_finite(self) -> bool;
    /// The largest |x|; NaN above infinity above every number. With `FINITE`, what is not finite counts as 0.
    fn amax<const FINITE: bool>(x: &[Self]) -> Self;
    /// The least and the largest of x and 0; whatever is not finite shows in one of them, or, with `FINITE`, in none.
    fn range<const FINITE: bool>(x: &[Self]) -> (Self, Self);
}

/// A type to store in and its type to compute in.
pub trait Compute: Store {
    type Real: Real;
    /// Whether the two are the same, so that a slice needs no conversion.
    const SAME: bool;
    fn widen(x: &[Self], y: &mut [Self::Real]);
    fn narrow(x: &[Self::Real], y: &mut [Self]);
}

macro_rules! real {
    ($t:ty, $u:ty, $i:ty, $magic:expr) => {
        impl Compute for $t {
            type Real = $t;
            const SAME: bool = true;
            fn widen(x: &[Self], y: &mut [Self]) {
                y.copy_from_slice(x);
            }
            fn narrow(x: &[Self], y: &mut [Self]) {
                y.copy_from_slice(x);
            }
        }
        impl Real for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const MAGIC: Self = $magic;
            const TINY: Self = <$t>::MIN_POSITIVE;
            #[inline(always)]
            fn of(v: f64) -> Self {
                v as $t
            }
            #[inline(always)]
            fn int(v: i32) -> Self {
                v as $t
            }
            #[inline(always)]
            fn abs(self) -> Self {
                self.abs()
            }
            #[inline(always)]
            fn trunc(self) -> Self {
                self.trunc()
            }
            #[inline(always)]
            fn up(self) -> Self {
                self.next_up()
            }
            #[inline(always)]
            fn low(self) -> i32 {
                self.to_bits() as i32
            }
            #[inline(always)]
            fn is_finite(self) -> bool {
                self.is_finite()
            }
            // the bits of a number without its sign order as the number does, and integer reductions become vectors
            #[inline(always)]
            fn amax<const FINITE: bool>(x: &[Self]) -> Self {
                const INF: $i = <$t>::INFINITY.to_bits() as $i;
                let mut most: $i = 0;
                for &v in x {
                    let u = v.to_bits() as $i & <$i>::MAX;
                    most = most.max(if FINITE && u >= INF { 0 } else { u });
                }
                <$t>::from_bits(most as $u)
            }
            #[inline(always)]
            fn range<const FINITE: bool>(x: &[Self]) -> (Self, Self) {
                const INF: $i = <$t>::INFINITY.to_bits() as $i;
                // as signed integers the positive numbers are in order and above all others; as unsigned ones the
                // negative numbers are above all others, the lowest on top
                let (mut high, mut low): ($i, $u) = (0, 0);
                for &v in x {
                    let u = v.to_bits();
                    let u = if FINITE && u as $i & <$i>::MAX >= INF { 0 } else { u };
                    high = high.max(u as $i);
                    low = low.max(u);
                }
                let low = if low as $i < 0 { <$t>::from_bits(low) } else { 0.0 };
                (low + 0.0, <$t>::from_bits(high as $u))
            }
        }
    };
}
real!(f32, u32, i32, 12_582_912.0);
real!(f64, u64, i64, 6_755_399_441_055_744.0);

struct Widen<'a, A>(&'a [A], &'a mut [f32]);
impl<A: Store> Kernel for Widen<'_, A> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Widen(x, y) = self;
        let whole = x.len() / STEP * STEP;
        for (x, y) in x.chunks_exact(STEP).zip(y.chunks_exact_mut(STEP)) {
            f32::store16_f32(s, A::load16_f32(s, x), y);
        }
        for (x, y) in x[whole..].iter().zip(&mut y[whole..]) {
            *y = x.to_f32();
        }
    }
}

struct Narrow<'a, A>(&'a [f32], &'a mut [A]);
impl<A: Store> Kernel for Narrow<'_, A> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Narrow(x, y) = self;
        let whole = x.len() / STEP * STEP;
        for (x, y) in x.chunks_exact(STEP).zip(y.chunks_exact_mut(STEP)) {
            A::store16_f32(s, f32::load16_f32(s, x), y);
        }
        for (x, y) in x[whole..].iter().zip(&mut y[whole..]) {
            *y = A::from_f32(*x);
        }
    }
}

macro_rules! half { ($($t:ty)*) => { $(
    impl Compute for $t {
        type Real = f32;
        const SAME: bool = false;
        fn widen(x: &[Self], y: &mut [f32]) {
            dispatch(Widen(x, y));
        }
        fn narrow(x: &[f32], y: &mut [Self]) {
            dispatch(Narrow(x, y));
        }
    }
)* } }
half!(F16 Bf16);

/// `by_float!(tensor, T => body)`: the body with `T` the storage type of a float array.
#[macro_export]
macro_rules! by_float {
    ($x:expr, $t:ident => $body:expr) => {
        match $x.dtype() {
            $crate::Dtype::F64 => {
                type $t = f64;
                $body
            }
            $crate::Dtype::F32 => {
                type $t = f32;
                $body
            }
            $crate::Dtype::F16 => {
                type $t = $crate::store::F16;
                $body
            }
            $crate::Dtype::Bf16 => {
                type $t = $crate::store::Bf16;
                $body
            }
            other => Err($crate::Error::Type(format!(
                "expected float64, float32, float16 or bfloat16, got {}",
                other.name()
            ))),
        }
    };
}

/// What happens to a part of the arrays: `X` float and `B` byte arrays in, `Y` float and `C` byte arrays out, and
/// something gathered per block. All arrays have the same number of elements; `at` is the first one of the part.
pub trait Pass<T: Real, const X: usize, const B: usize, const Y: usize, const C: usize>: Sync {
    type Gather: Send;
    /// What a block of `len` elements from `at` on starts with.
    fn start(&self, at: usize, len: usize) -> Result<Self::Gather>;
    /// `#[inline(always)]` in every implementation.
    fn part<S: Simd>(
        &self,
        s: S,
        gather: &mut Self::Gather,
        at: usize,
        x: [&[T]; X],
        b: [&[u8]; B],
        y: [&mut [T]; Y],
        c: [&mut [u8]; C],
    );
}

/// Walks over all arrays once, in blocks of `block` elements, and returns what the blocks gathered, in order.
pub fn pass<T, P, const X: usize, const B: usize, const Y: usize, const C: usize>(
    p: &P,
    block: usize,
    x: [&Tensor; X],
    b: [&Tensor; B],
    y: [&Tensor; Y],
    c: [&Tensor; C],
) -> Result<Vec<P::Gather>>
where
    T: Compute,
    P: Pass<T::Real, X, B, Y, C>,
{
    let n = length(&[&x, &b, &y, &c])?;
    for (t, out) in x.iter().map(|t| (t, false)).chain(y.iter().map(|t| (t, true))) {
        check(t, T::DTYPE == t.dtype(), T::DTYPE.name(), out)?;
    }
    for (t, out) in b.iter().map(|t| (t, false)).chain(c.iter().map(|t| (t, true))) {
        check(t, t.dtype().size() == 1, "an array of bytes", out)?;
    }
    let shared = x.iter().any(|x| y.iter().any(|y| x.as_ptr() == y.as_ptr()));
    let walk = Walk::<T, P, X, B, Y, C> {
        p,
        // an output that is also an input may not be lent twice: it is read through the scratch
        scratch: !T::SAME || shared,
        past: T::SAME && !shared && y.iter().map(|y| y.bytes()).sum::<usize>() >= stream::LARGE,
        x: x.map(|t| Bytes(t.as_ptr())),
        b: b.map(|t| Bytes(t.as_ptr())),
        y: y.map(|t| Bytes(t.as_ptr())),
        c: c.map(|t| Bytes(t.as_ptr())),
        of: PhantomData,
    };
    let block = block.max(1);
    pool::map(n.div_ceil(block), n, |i| walk.block(i * block, block.min(n - i * block)))?.into_iter().collect()
}

fn length(groups: &[&[&Tensor]]) -> Result<usize> {
    let mut all = groups.iter().flat_map(|g| g.iter());
    let n = all.next().map_or(0, |t| t.len());
    match all.find(|t| t.len() != n) {
        Some(t) => Err(Error::Value(format!("arrays of {n} and {} elements", t.len()))),
        None => Ok(n),
    }
}

fn check(t: &Tensor, fits: bool, expected: &str, out: bool) -> Result<()> {
    if !fits {
        return Err(Error::Type(format!("expected {expected}, got {}", t.dtype().name())));
    }
    if out && !t.writable() {
        return Err(Error::Value("the output is read-only".into()));
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Bytes(*mut u8);
// SAFETY: every block reads and writes its own elements only.
unsafe impl Send for Bytes {}
// SAFETY: as above.
unsafe impl Sync for Bytes {}

impl Bytes {
    /// # Safety
    /// Elements `at..at + len` of type `T` exist, live for `'a`, and nobody writes them meanwhile.
    #[inline(always)]
    unsafe fn read<'a, T>(self, at: usize, len: usize) -> &'a [T] {
        // SAFETY: promised by the caller.
        unsafe { std::slice::from_raw_parts(self.0.cast::<T>().add(at), len) }
    }
    /// # Safety
    /// Elements `at..at + len` of type `T` exist, live for `'a`, and nobody else touches them meanwhile.
    #[inline(always)]
    unsafe fn write<'a, T>(self, at: usize, len: usize) -> &'a mut [T] {
        // SAFETY: promised by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.0.cast::<T>().add(at), len) }
    }
}

struct Walk<'a, T, P, const X: usize, const B: usize, const Y: usize, const C: usize> {
    p: &'a P,
    /// Converted, part by part.
    scratch: bool,
    /// Results go past the caches.
    past: bool,
    x: [Bytes; X],
    b: [Bytes; B],
    y: [Bytes; Y],
    c: [Bytes; C],
    of: PhantomData<fn() -> T>,
}

impl<T, P, const X: usize, const B: usize, const Y: usize, const C: usize> Walk<'_, T, P, X, B, Y, C>
where
    T: Compute,
    P: Pass<T::Real, X, B, Y, C>,
{
    fn block(&self, start: usize, len: usize) -> Result<P::Gather> {
        let (p, mut gather) = (self.p, self.p.start(start, len)?);
        if self.past {
            let mut ys = [[T::Real::ZERO; CHUNK]; Y];
            for at in (start..start + len).step_by(CHUNK) {
                let n = CHUNK.min(start + len - at);
                // SAFETY: as below.
                let (x, b, c) = unsafe {
                    (self.x.map(|t| t.read(at, n)), self.b.map(|t| t.read(at, n)), self.c.map(|t| t.write(at, n)))
                };
                let y = ys.each_mut().map(|y| &mut y[..n]);
                dispatch(Part { p, gather: &mut gather, at, x, b, y, c });
                for (y, t) in ys.iter().zip(self.y) {
                    // SAFETY: as below; T is its own compute type.
                    stream::copy(&y[..n], unsafe { t.write(at, n) });
                }
            }
            stream::fence();
            return Ok(gather);
        }
        if !self.scratch {
            // SAFETY: the range lies within arrays of equal length, T is its own compute type, inputs are written by
            // nobody (no output shares their memory, else there would be a scratch), outputs by this block alone.
            let (x, b, y, c) = unsafe {
                (
                    self.x.map(|t| t.read(start, len)),
                    self.b.map(|t| t.read(start, len)),
                    self.y.map(|t| t.write(start, len)),
                    self.c.map(|t| t.write(start, len)),
                )
            };
            dispatch(Part { p, gather: &mut gather, at: start, x, b, y, c });
            return Ok(gather);
        }
        let mut xs = [[T::Real::ZERO; CHUNK]; X];
        let mut ys = [[T::Real::ZERO; CHUNK]; Y];
        for at in (start..start + len).step_by(CHUNK) {
            let n = CHUNK.min(start + len - at);
            for (x, t) in xs.iter_mut().zip(self.x) {
                // SAFETY: as above; the slice is gone before the outputs are lent.
                T::widen(unsafe { t.read::<T>(at, n) }, &mut x[..n]);
            }
            // SAFETY: as above; byte outputs share no memory with any input.
            let (b, c) = unsafe { (self.b.map(|t| t.read(at, n)), self.c.map(|t| t.write(at, n))) };
            let (x, y) = (xs.each_ref().map(|x| &x[..n]), ys.each_mut().map(|y| &mut y[..n]));
            dispatch(Part { p, gather: &mut gather, at, x, b, y, c });
            for (y, t) in ys.iter().zip(self.y) {
                // SAFETY: as above; no input is lent any more.
                T::narrow(&y[..n], unsafe { t.write::<T>(at, n) });
            }
        }
        Ok(gather)
    }
}

/// One call of a functor: compiled once per compute type, whatever is stored.
struct Part<'a, T, P, G, const X: usize, const B: usize, const Y: usize, const C: usize> {
    p: &'a P,
    gather: &'a mut G,
    at: usize,
    x: [&'a [T]; X],
    b: [&'a [u8]; B],
    y: [&'a mut [T]; Y],
    c: [&'a mut [u8]; C],
}

impl<T, P, const X: usize, const B: usize, const Y: usize, const C: usize> Kernel
    for Part<'_, T, P, P::Gather, X, B, Y, C>
where
    T: Real,
    P: Pass<T, X, B, Y, C>,
{
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.p.part(s, self.gather, self.at, self.x, self.b, self.y, self.c);
    }
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
pub fn map<T: Compute>(x: &Tensor, y: &Tensor, f: impl Fn(T::Real) -> T::Real + Sync) -> Result<()> {
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
pub fn reduce<T: Compute, A: Clone + Send + Sync>(
    x: &Tensor,
    start: A,
    add: impl Fn(&mut A, &[T::Real]) + Sync,
    join: impl Fn(A, A) -> A,
) -> Result<A> {
    let fold = Fold { start, add };
    let parts = pass::<T, _, 1, 0, 0, 0>(&fold, BLOCK, [x], [], [], [])?;
    Ok(parts.into_iter().fold(fold.start, join))
}

struct Count<F> {
    bins: usize,
    bin: F,
}
impl<T: Real, F: Fn(T) -> usize + Sync> Pass<T, 1, 0, 0, 0> for Count<F> {
    type Gather = Vec<u64>;
    fn start(&self, _: usize, _: usize) -> Result<Vec<u64>> {
        crate::try_vec(self.bins, 0)
    }
    #[inline(always)]
    fn part<S: Simd>(
        &self,
        _: S,
        counts: &mut Vec<u64>,
        _: usize,
        [x]: [&[T]; 1],
        _: [&[u8]; 0],
        _: [&mut [T]; 0],
        _: [&mut [u8]; 0],
    ) {
        for &x in x {
            if let Some(count) = counts.get_mut((self.bin)(x)) {
                *count += 1;
            }
        }
    }
}

/// How many elements fall into each of `bins` bins; an element whose bin there is not counts nowhere.
pub fn histogram<T: Compute>(x: &Tensor, bins: usize, bin: impl Fn(T::Real) -> usize + Sync) -> Result<Vec<u64>> {
    // counts do not depend on the cut, so blocks are as large as keeps the tables of all blocks small
    let block = BLOCK.max(x.len().div_ceil(64));
    let parts = pass::<T, _, 1, 0, 0, 0>(&Count { bins, bin }, block, [x], [], [], [])?;
    let mut all = crate::try_vec(bins, 0u64)?;
    for part in parts {
        for (a, p) in all.iter_mut().zip(part) {
            *a += p;
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{available, force};
    use crate::{Dtype, Element};

    const SIZES: [usize; 12] = [255, 256, 257, 1023, 1024, 1025, 2047, 2049, 32767, 32768, 32769, 100_003];

    fn tensor<T: Element>(v: &mut [T]) -> Tensor<'_> {
        // SAFETY: the slice itself.
        unsafe { Tensor::new(v.as_mut_ptr().cast(), &[v.len()], T::DTYPE, true).unwrap() }
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
                    let h = histogram::<T>(&x, 253, |v| (v.to_f64() + 126.0) as usize).unwrap();
                    assert_eq!(h.iter().sum::<u64>(), n as u64);
                    assert_eq!(h.first(), Some(&((offset..n + offset).filter(|i| value(*i) == -126.0).count() as u64)));
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
}
