//! Keys: floats as unsigned numbers in the same order. The one rule: a key depends on the value alone, never on the type
//! it was stored in, so arrays of different types are ranked together.
//!
//! |w|, B bits wide:   key = bits << 1                        (drops the sign; finite < inf < nan)
//! w itself:           key = bits | 2^(B−1)  if w ≥ 0,  ¬bits if w < 0,  and −0 as +0

use super::BLOCK;
use base::simd::{Kernel, Simd, dispatch};
use base::store::{Bf16, F16, Store};
use base::{Dtype, Error, Result, Tensor, pool};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The float type whose bits make the key: every type in one selection widens to it exactly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    F16,
    Bf16,
    F32,
    F64,
}

impl Format {
    /// The order of the Python side: 0 float16, 1 bfloat16, 2 float32, 3 float64.
    pub fn from_code(code: i64) -> Result<Format> {
        match code {
            0 => Ok(Format::F16),
            1 => Ok(Format::Bf16),
            2 => Ok(Format::F32),
            3 => Ok(Format::F64),
            c => Err(Error::Value(format!("format is 0, 1, 2 or 3, got {c}"))),
        }
    }
    /// Width of the key in bits.
    pub const fn bits(self) -> u32 {
        match self {
            Format::F16 | Format::Bf16 => 16,
            Format::F32 => 32,
            Format::F64 => 64,
        }
    }
    /// The bits of infinity.
    const fn inf(self) -> u64 {
        match self {
            Format::F16 => 0x7c00,
            Format::Bf16 => 0x7f80,
            Format::F32 => 0x7f80_0000,
            Format::F64 => 0x7ff0_0000_0000_0000,
        }
    }
}

/// Where NaN stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nan {
    /// Where its bits put it: for callers that refuse non-finite values.
    Bits,
    /// Above everything.
    Highest,
    /// With the smallest.
    Lowest,
}

/// What is ranked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Order {
    pub format: Format,
    /// The value itself instead of its magnitude.
    pub signed: bool,
    pub nan: Nan,
}

impl Order {
    pub fn new(format: i64, signed: bool, nan: i64) -> Result<Order> {
        let nan = match nan {
            0 => Nan::Bits,
            1 => Nan::Highest,
            2 => Nan::Lowest,
            n => return Err(Error::Value(format!("nan is 0, 1 or 2, got {n}"))),
        };
        Ok(Order { format: Format::from_code(format)?, signed, nan })
    }

    /// The key of infinity.
    pub fn infinity(self) -> u64 {
        let inf = self.format.inf();
        if self.signed { inf | 1 << (self.format.bits() - 1) } else { inf << 1 }
    }

    /// Whether arrays of this type can be ranked in this format.
    pub fn check(self, x: &Tensor) -> Result<()> {
        let exact = match x.dtype() {
            Dtype::F64 => self.format == Format::F64,
            Dtype::F32 => self.format.bits() >= 32,
            Dtype::F16 => self.format != Format::Bf16,
            Dtype::Bf16 => self.format != Format::F16,
            _ => false,
        };
        if exact {
            Ok(())
        } else {
            Err(Error::Type(format!("{} values cannot be ranked as {:?}", x.dtype().name(), self.format)))
        }
    }
}

/// An unsigned number that ranks.
pub trait Key: Copy + Ord + Send + Sync + 'static {
    const BITS: u32;
    const MAX: Self;
    const ZERO: Self;
    fn narrow(v: u64) -> Self;
    fn wide(self) -> u64;
    #[must_use]
    fn magnitude(self) -> Self;
    #[must_use]
    fn signed(self) -> Self;
    /// The key without its lowest `n < BITS` bits.
    #[must_use]
    fn prefix(self, n: u32) -> Self;
    /// One more where `yes`: a count in the lanes of the keys themselves, of at most a tile.
    #[must_use]
    fn count(self, yes: bool) -> Self;
}
macro_rules! keys { ($($t:ty),*) => { $(
    impl Key for $t {
        const BITS: u32 = <$t>::BITS;
        const MAX: Self = <$t>::MAX;
        const ZERO: Self = 0;
        #[inline(always)]
        fn narrow(v: u64) -> Self { v as $t }
        #[inline(always)]
        fn wide(self) -> u64 { self as u64 }
        #[inline(always)]
        fn magnitude(self) -> Self { self << 1 }
        #[inline(always)]
        fn signed(self) -> Self {
            let top = 1 << (<$t>::BITS - 1);
            if self > top { !self } else { self | top }
        }
        #[inline(always)]
        fn prefix(self, n: u32) -> Self { self >> n }
        #[inline(always)]
        fn count(self, yes: bool) -> Self { self.wrapping_add(yes as $t) }
    }
)* } }
keys!(u16, u32, u64);

/// The bits of a stored value widened, exactly, to the bits of the format.
trait Widen<K>: Copy + Send + Sync {
    fn widen(self) -> K;
}
macro_rules! widen { ($($from:ty => $to:ty: |$v:ident| $e:expr;)*) => { $(
    impl Widen<$to> for $from {
        #[inline(always)]
        fn widen(self) -> $to { let $v = self; $e }
    }
)* } }
widen! {
    u16 => u16: |v| v;
    u32 => u32: |v| v;
    u64 => u64: |v| v;
    F16 => u32: |v| v.to_f32().to_bits();
    F16 => u64: |v| v.to_f64().to_bits();
    Bf16 => u32: |v| u32::from(v.0) << 16;
    Bf16 => u64: |v| v.to_f64().to_bits();
    f32 => u64: |v| f64::from(v).to_bits();
}

struct Fill<'a, T, K, const SIGNED: bool, const NAN: bool> {
    from: &'a [T],
    to: &'a mut [K],
    inf: K,
    nan: K,
}

impl<T: Widen<K>, K: Key, const SIGNED: bool, const NAN: bool> Kernel for Fill<'_, T, K, SIGNED, NAN> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (to, from) in self.to.iter_mut().zip(self.from) {
            let bits = from.widen();
            let rank = if SIGNED { bits.signed() } else { bits.magnitude() };
            *to = if NAN && bits.magnitude() > self.inf { self.nan } else { rank };
        }
    }
}

fn fill<T: Widen<K>, K: Key>(from: &[T], to: &mut [K], order: Order) {
    let inf = K::narrow(order.format.inf() << 1);
    let nan = if order.nan == Nan::Highest { K::MAX } else { K::ZERO };
    match (order.signed, order.nan == Nan::Bits) {
        (false, true) => dispatch(Fill::<_, _, false, false> { from, to, inf, nan }),
        (false, false) => dispatch(Fill::<_, _, false, true> { from, to, inf, nan }),
        (true, true) => dispatch(Fill::<_, _, true, false> { from, to, inf, nan }),
        (true, false) => dispatch(Fill::<_, _, true, true> { from, to, inf, nan }),
    }
}

/// A key type with its way from every storage type it takes.
pub trait Load: Key {
    /// Keys of `x[start..start + to.len()]`. The caller has called [`Order::check`], and the range is inside `x`.
    fn load(x: &Tensor, start: usize, order: Order, to: &mut [Self]);
}

/// `n` elements from `start`, as a transparent wrapper of the storage type.
pub(super) fn part<'a, T>(x: &Tensor<'a>, start: usize, n: usize) -> &'a [T] {
    assert!(size_of::<T>() == x.dtype().size() && start + n <= x.len());
    if n == 0 {
        return &[];
    }
    // SAFETY: the range is inside the array, whose elements have this size and (a number of the same size) alignment;
    // every bit pattern is a number.
    unsafe { std::slice::from_raw_parts(x.as_ptr().cast::<T>().add(start), n) }
}

impl Load for u16 {
    fn load(x: &Tensor, start: usize, order: Order, to: &mut [u16]) {
        fill(part::<u16>(x, start, to.len()), to, order);
    }
}
impl Load for u32 {
    fn load(x: &Tensor, start: usize, order: Order, to: &mut [u32]) {
        match x.dtype() {
            Dtype::F16 => fill(part::<F16>(x, start, to.len()), to, order),
            Dtype::Bf16 => fill(part::<Bf16>(x, start, to.len()), to, order),
            _ => fill(part::<u32>(x, start, to.len()), to, order),
        }
    }
}
impl Load for u64 {
    fn load(x: &Tensor, start: usize, order: Order, to: &mut [u64]) {
        match x.dtype() {
            Dtype::F16 => fill(part::<F16>(x, start, to.len()), to, order),
            Dtype::Bf16 => fill(part::<Bf16>(x, start, to.len()), to, order),
            Dtype::F32 => fill(part::<f32>(x, start, to.len()), to, order),
            _ => fill(part::<u64>(x, start, to.len()), to, order),
        }
    }
}

struct Finite<'a, T> {
    from: &'a [T],
    inf: T,
}

impl<T: Key> Kernel for Finite<'_, T> {
    type Output = bool;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> bool {
        let mut bad = T::ZERO;
        for &bits in self.from {
            bad = bad.max(bits.magnitude());
        }
        bad < self.inf
    }
}

/// Whether no element is infinite or NaN.
pub fn finite(x: &Tensor) -> Result<bool> {
    fn of<T: Key>(x: &Tensor, format: Format) -> Result<bool> {
        let n = x.len();
        let inf = T::narrow(format.inf() << 1);
        let bad = AtomicBool::new(false);
        pool::run(n.div_ceil(BLOCK), n, |b| {
            let (start, end) = (b * BLOCK, n.min((b + 1) * BLOCK));
            if !bad.load(Relaxed) {
                let from = part::<T>(x, start, end - start);
                bad.fetch_or(!dispatch(Finite { from, inf }), Relaxed);
            }
        })?;
        Ok(!bad.into_inner())
    }
    match x.dtype() {
        Dtype::F64 => of::<u64>(x, Format::F64),
        Dtype::F32 => of::<u32>(x, Format::F32),
        Dtype::F16 => of::<u16>(x, Format::F16),
        Dtype::Bf16 => of::<u16>(x, Format::Bf16),
        d => Err(Error::Type(format!("expected floats, got {}", d.name()))),
    }
}

/// Calls the generic function with the key type of the order's format.
#[macro_export]
macro_rules! with_key {
    ($order:expr, $K:ident => $e:expr) => {
        match $order.format {
            $crate::select::Format::F16 | $crate::select::Format::Bf16 => {
                type $K = u16;
                $e
            }
            $crate::select::Format::F32 => {
                type $K = u32;
                $e
            }
            $crate::select::Format::F64 => {
                type $K = u64;
                $e
            }
        }
    };
}
pub use with_key;
