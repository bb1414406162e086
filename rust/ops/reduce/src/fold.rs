//! Sums, extremes, logarithms of sums of exponentials and counts of segments. The one rule: a fold says how a number is added and how
//! two are joined, and everything else is the driver's.

use base::simd::*;
use base::store::{STEP, Store};
use base::{Dtype, Element, Error, Result, Scalar, Tensor, by_float, by_number, try_vec};
use drivers::segments::places::{self, Ids, OWN, Places, Reduction, Weight};
use drivers::select::bools;
use std::marker::PhantomData;
use std::ops::Range;

/// What a segment gathers from numbers of type V.
trait Fold<T: Copy + Sync>: Sync {
    type Acc: Copy + Send + Sync;
    const NONE: Self::Acc;
    fn push(acc: &mut Self::Acc, x: T, w: f64, at: usize);
    /// Neighbours of one segment and weight.
    #[inline(always)]
    fn row<S: Simd>(_: S, acc: &mut Self::Acc, x: &[T], w: f64, at: usize) {
        for (i, x) in x.iter().enumerate() {
            Self::push(acc, *x, w, at + i);
        }
    }
    fn merge(acc: &mut Self::Acc, later: Self::Acc);
}

struct Folded<'a, T, F> {
    places: &'a Places<OWN>,
    x: &'a [T],
    of: PhantomData<fn() -> F>,
}

/// The segments of a block, from the first on.
struct Table<A>(usize, Vec<A>);

impl<T: Copy + Sync, F: Fold<T>> Reduction<OWN> for Folded<'_, T, F> {
    type Table = Table<F::Acc>;
    fn table(&self, segments: Range<usize>) -> Result<Self::Table> {
        Ok(Table(segments.start, try_vec(segments.len(), F::NONE)?))
    }
    #[inline(always)]
    fn gather<S: Simd>(&self, s: S, Table(first, accs): &mut Self::Table, pieces: Range<usize>) -> Result<()> {
        let mut room = self.places.room()?;
        self.places.walk.each(
            pieces,
            #[inline(always)]
            |p| {
                let x = &self.x[p.at..p.at + p.len];
                if let Some(labels) = self.places.labels(&p) {
                    let weight = self.places.weight(&p);
                    for (i, x) in x.iter().enumerate() {
                        if let Some(id) = labels.at(i) {
                            F::push(&mut accs[id - *first], *x, weight.at(i), p.at + i);
                        }
                    }
                    return;
                }
                match (self.places.ids(&p, &mut room), self.places.weight(&p)) {
                    (Ids::None, _) => {}
                    (Ids::One(id), Weight::One(w)) => F::row(s, &mut accs[id - *first], x, w, p.at),
                    (Ids::Run(from), Weight::One(w)) => {
                        for (i, (acc, x)) in accs[from - *first..].iter_mut().zip(x).enumerate() {
                            F::push(acc, *x, w, p.at + i);
                        }
                    }
                    (ids, weight) => {
                        for (i, x) in x.iter().enumerate() {
                            if let Some(id) = ids.at(i) {
                                F::push(&mut accs[id - *first], *x, weight.at(i), p.at + i);
                            }
                        }
                    }
                }
            },
        );
        Ok(())
    }
    fn merge(&self, into: &mut Self::Table, later: &Self::Table) {
        into.1.iter_mut().zip(&later.1).for_each(|(a, b)| F::merge(a, *b));
    }
}

/// What every segment gathered.
fn run<T: Copy + Sync, F: Fold<T>>(places: &Places<OWN>, x: &[T]) -> Result<Vec<F::Acc>> {
    let tables = places::reduce(places, &Folded::<T, F> { places, x, of: PhantomData })?;
    Ok(tables.into_iter().flat_map(|t| t.1).collect())
}

/// Σwx in float64, of float64 in twice its precision.
struct Sum;
impl<T: Store> Fold<T> for Sum {
    type Acc = [f64; 2];
    const NONE: [f64; 2] = [0.0; 2];
    #[inline(always)]
    fn push(acc: &mut [f64; 2], x: T, w: f64, _: usize) {
        let v = w * x.to_f64();
        if size_of::<T>() < 8 {
            acc[0] += v;
            return;
        }
        let sum = acc[0] + v;
        let part = sum - acc[0];
        let error = (acc[0] - (sum - part)) + (v - part);
        *acc = [sum, acc[1] + if sum.is_finite() { error } else { 0.0 }];
    }
    #[inline(always)]
    fn row<S: Simd>(s: S, acc: &mut [f64; 2], x: &[T], w: f64, at: usize) {
        let zero = f64x8::splat(s, 0.0);
        let (mut sums, mut errors) = ([zero; 2], zero);
        let whole = x.chunks_exact(STEP);
        let rest = whole.remainder();
        for x in whole {
            for (sum, v) in sums.iter_mut().zip(T::load16(s, x)) {
                if size_of::<T>() < 8 {
                    *sum += v * w;
                } else {
                    let (next, error) = two_sum(*sum, v * w);
                    *sum = next;
                    errors += error;
                }
            }
        }
        if size_of::<T>() < 8 {
            acc[0] += hsum(sums[0] + sums[1]);
        } else {
            for v in sums.iter().flat_map(SimdBase::as_slice) {
                <Sum as Fold<f64>>::push(acc, *v, 1.0, 0);
            }
            let error = hsum(errors);
            // of infinities the sum is all there is
            acc[1] += if error.is_finite() { error } else { 0.0 };
        }
        for (i, x) in rest.iter().enumerate() {
            Self::push(acc, *x, w, at + i);
        }
    }
    fn merge(acc: &mut [f64; 2], later: [f64; 2]) {
        <Sum as Fold<f64>>::push(acc, later[0], 1.0, 0);
        acc[1] += later[1];
    }
}

/// The largest, or the least, and where it is first: NaN before all.
struct Extreme<const LARGEST: bool>;
impl<T: Order, const LARGEST: bool> Fold<T> for Extreme<LARGEST> {
    type Acc = (Option<T>, usize);
    const NONE: Self::Acc = (None, usize::MAX);
    #[inline(always)]
    fn push(acc: &mut Self::Acc, x: T, _: f64, at: usize) {
        let better = match acc.0 {
            None => true,
            Some(y) if y.nan() => false,
            Some(y) => x.nan() || if LARGEST { y.less(x) } else { x.less(y) },
        };
        if better {
            *acc = (Some(x), at);
        }
    }
    fn merge(acc: &mut Self::Acc, later: Self::Acc) {
        if let Some(x) = later.0 {
            Self::push(acc, x, 1.0, later.1);
        }
    }
}

/// Numbers that are compared.
trait Order: Copy + Send + Sync {
    fn nan(self) -> bool;
    fn less(self, other: Self) -> bool;
}
macro_rules! order { (floats $($f:ty)*; integers $($i:ty)*) => {
    $(impl Order for $f {
        #[inline(always)]
        fn nan(self) -> bool {
            self.to_f64().is_nan()
        }
        #[inline(always)]
        fn less(self, other: Self) -> bool {
            self.to_f64() < other.to_f64()
        }
    })*
    $(impl Order for $i {
        #[inline(always)]
        fn nan(self) -> bool {
            false
        }
        #[inline(always)]
        fn less(self, other: Self) -> bool {
            self < other
        }
    })*
} }
order!(floats f64 f32 base::store::F16 base::store::Bf16; integers i64 i32 i16 i8 u8);

/// max x and Σ exp(x − max x).
struct LogSumExp;
impl<T: Store> Fold<T> for LogSumExp {
    type Acc = [f64; 2];
    const NONE: [f64; 2] = [f64::NEG_INFINITY, 0.0];
    #[inline(always)]
    fn push(acc: &mut [f64; 2], x: T, _: f64, at: usize) {
        let _ = at;
        <Self as Fold<T>>::merge(acc, [x.to_f64(), 1.0]);
    }
    #[inline(always)]
    fn merge(acc: &mut [f64; 2], [top, sum]: [f64; 2]) {
        if top == f64::NEG_INFINITY || acc[0].is_nan() {
            return;
        }
        if top <= acc[0] {
            // of two infinities, one
            acc[1] += if top == acc[0] { sum } else { sum * (top - acc[0]).exp() };
        } else {
            let kept = if acc[1] == 0.0 { 0.0 } else { acc[1] * (acc[0] - top).exp() };
            *acc = [top, kept + sum];
        }
    }
}

fn places(t: &[Tensor], s: &[Scalar], weight: Option<&Tensor>) -> Result<Places<OWN>> {
    let none = Tensor::of::<f32>(&mut []);
    Places::new(&t[0], s[0].int(), s[1].int(), &t[1], ("weight", weight.unwrap_or(&none)), &[])
}

/// x, labels, weights; sums.
pub fn sum(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let places = places(t, s, Some(&t[2]))?;
    t[3].expect("y", places.len)?;
    by_float!(t[0], T => {
        let (x, y) = (t[0].slice::<T>()?, t[3].slice_mut::<T>()?);
        let found = run::<T, Sum>(&places, x)?;
        for (y, [sum, error]) in y.iter_mut().zip(&found) {
            *y = T::from_f64(sum + error);
        }
        if size_of::<T>() == 8 && found.iter().any(|[sum, _]| !sum.is_finite()) {
            // numbers may leave the range on the way to a sum that lies in it: once more, far below its end
            let mut less = try_vec(x.len(), 0.0)?;
            less.iter_mut().zip(x).for_each(|(l, x)| *l = x.to_f64() * FAR.recip());
            let again = run::<f64, Sum>(&places, &less)?;
            for ((y, [sum, error]), first) in y.iter_mut().zip(again).zip(found) {
                if !first[0].is_finite() {
                    *y = T::from_f64((sum + error) * FAR);
                }
            }
        }
        Ok(())
    })
}

/// More than there are numbers in any array.
const FAR: f64 = (1u128 << 64) as f64;

fn extremes<T: Order, const LARGEST: bool>(
    places: &Places<OWN>,
    x: &[T],
    y: &mut [T],
    at: &mut [i64],
    none: T,
) -> Result<()> {
    for ((y, at), (v, first)) in y.iter_mut().zip(at).zip(run::<T, Extreme<LARGEST>>(places, x)?) {
        (*y, *at) = (v.unwrap_or(none), if v.is_some() { first as i64 } else { -1 });
    }
    Ok(())
}

/// What an empty segment gives: the end of the type.
fn end<T: Element + Ends>(largest: bool) -> T {
    if largest { T::LOW } else { T::HIGH }
}
trait Ends: Sized {
    const LOW: Self;
    const HIGH: Self;
}
macro_rules! ends { ($($t:ty => $low:expr, $high:expr;)*) => { $(impl Ends for $t {
    const LOW: Self = $low;
    const HIGH: Self = $high;
})* } }
ends! {
    f64 => f64::NEG_INFINITY, f64::INFINITY; f32 => f32::NEG_INFINITY, f32::INFINITY;
    base::store::F16 => base::store::F16(0xfc00), base::store::F16(0x7c00);
    base::store::Bf16 => base::store::Bf16(0xff80), base::store::Bf16(0x7f80);
    i64 => i64::MIN, i64::MAX; i32 => i32::MIN, i32::MAX; i16 => i16::MIN, i16::MAX; i8 => i8::MIN, i8::MAX;
    u8 => u8::MIN, u8::MAX;
}

/// x, labels; the least or largest of each segment and where it is first.
pub fn extreme(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let (places, largest) = (places(t, s, None)?, s[2].bool());
    t[2].expect("y", places.len)?;
    let at = t[3].slice_mut::<i64>()?;
    by_number!(t[0], T => {
        let (x, y, none) = (t[0].slice::<T>()?, t[2].slice_mut::<T>()?, end::<T>(largest));
        if largest { extremes::<T, true>(&places, x, y, at, none) } else { extremes::<T, false>(&places, x, y, at, none) }
    })
}

/// g, x, and where the elements are that it goes to; dx.
pub fn extreme_backward(t: &[Tensor], _: &[Scalar]) -> Result<()> {
    by_float!(t[1], T => {
        let (g, at, dx) = (t[0].slice::<T>()?, t[2].slice::<i64>()?, t[3].slice_mut::<T>()?);
        t[0].expect("g", at.len())?;
        dx.fill(T::default());
        for (g, &at) in g.iter().zip(at).filter(|(_, at)| **at >= 0) {
            let n = dx.len();
            match dx.get_mut(at as usize) {
                Some(d) => *d = *g,
                None => return Err(Error::Value(format!("at is {at} in an array of {n} elements"))),
            }
        }
        Ok(())
    })
}

/// x, labels; log Σ exp of each segment, and the same in float64.
pub fn logsumexp(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let places = places(t, s, None)?;
    t[2].expect("y", places.len)?;
    by_float!(t[0], T => {
        let found = run::<T, LogSumExp>(&places, t[0].slice()?)?;
        for ((y, total), [top, sum]) in t[2].slice_mut::<T>()?.iter_mut().zip(t[3].slice_mut::<f64>()?).zip(found) {
            *total = if sum == 0.0 || top == f64::INFINITY { top } else { top + sum.ln() };
            *y = T::from_f64(*total);
        }
        Ok(())
    })
}

struct Softmax<'a, T> {
    places: &'a Places<OWN>,
    g: &'a [T],
    x: &'a [T],
    total: &'a [f64],
    dx: places::Out<'a, T>,
}
impl<T: Store> Reduction<OWN> for Softmax<'_, T> {
    type Table = ();
    fn table(&self, _: Range<usize>) -> Result<()> {
        Ok(())
    }
    #[inline(always)]
    fn gather<S: Simd>(&self, _: S, (): &mut (), pieces: Range<usize>) -> Result<()> {
        let mut room = self.places.room()?;
        self.places.walk.each(
            pieces,
            #[inline(always)]
            |p| {
                let ids = self.places.ids(&p, &mut room);
                let dx = self.dx.part(&p);
                for (i, (d, x)) in dx.iter_mut().zip(&self.x[p.at..]).enumerate() {
                    *d = ids.at(i).map_or(T::default(), |id| {
                        T::from_f64(self.g[id].to_f64() * (x.to_f64() - self.total[id]).exp())
                    });
                }
            },
        );
        Ok(())
    }
    fn merge(&self, (): &mut (), (): &()) {}
}

/// g, x, labels, log Σ exp; dx = g exp(x − log Σ exp).
pub fn logsumexp_backward(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let places = places(&t[1..], s, None)?;
    t[0].expect("g", places.len)?;
    t[3].expect("total", places.len)?;
    by_float!(t[1], T => {
        let dx = places::Out::new(t[4].slice_mut::<T>()?);
        let (g, x, total) = (t[0].slice()?, t[1].slice()?, t[3].slice()?);
        places::reduce(&places, &Softmax::<T> { places: &places, g, x, total, dx }).map(drop)
    })
}

/// Sums of integers, exact, and counts.
struct Whole<const COUNT: bool>;
impl<T: Copy + Sync + Into<i64>, const COUNT: bool> Fold<T> for Whole<COUNT> {
    type Acc = i128;
    const NONE: i128 = 0;
    #[inline(always)]
    fn push(acc: &mut i128, x: T, _: f64, _: usize) {
        *acc += if COUNT { 1 } else { i128::from(x.into()) };
    }
    fn merge(acc: &mut i128, later: i128) {
        *acc += later;
    }
}

/// x, labels; sums of integers (kind 0) or counts of anything (kind 1).
pub fn whole(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let places = places(t, s, None)?;
    t[2].expect("y", places.len)?;
    let y = t[2].slice_mut::<i64>()?;
    // a count looks at no number: bytes of any kind stand for them
    let found = if s[2].int() == 1 {
        let nothing = try_vec(t[0].len(), 0u8)?;
        run::<u8, Whole<true>>(&places, &nothing)?
    } else {
        match t[0].dtype() {
            Dtype::I64 => run::<i64, Whole<false>>(&places, t[0].slice()?)?,
            Dtype::I32 => run::<i32, Whole<false>>(&places, t[0].slice()?)?,
            Dtype::I16 => run::<i16, Whole<false>>(&places, t[0].slice()?)?,
            Dtype::I8 => run::<i8, Whole<false>>(&places, t[0].slice()?)?,
            Dtype::U8 => run::<u8, Whole<false>>(&places, t[0].slice()?)?,
            Dtype::Bool => run::<u8, Whole<false>>(&places, bools(&t[0])?)?,
            other => return Err(Error::Type(format!("x must be of an integer type or bool, got {}", other.name()))),
        }
    };
    for (i, v) in found.iter().enumerate() {
        if i64::try_from(*v).is_err() {
            return Err(Error::Value(format!("the sum of segment {i} is {v}, which no int64 holds")));
        }
    }
    y.iter_mut().zip(found).for_each(|(y, v)| *y = v as i64);
    Ok(())
}
