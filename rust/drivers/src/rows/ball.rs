//! Rows of the ball {c|x|² < 1}: their last row number is c. The one rule: a point stays strictly inside after rounding, by
//! the margin asked for and no more.

use super::call::numbers;
use super::functor::Ground;
use base::simd::*;
use base::store::{Bf16, F16, STEP, Store};
use base::{Dtype, Error, Result, Tensor};

/// The ball; output 0 is a point of it if there is a margin, and else anything.
pub struct Ball(pub Option<Margin>);

impl Ground for Ball {
    /// The curvature is finite and not negative.
    fn check(&self, given: &[Tensor]) -> Result<()> {
        let Some(c) = given.last() else { return Ok(()) };
        for i in 0..c.len() {
            let mut v = 0.0;
            numbers(c, i, std::slice::from_mut(&mut v));
            if !(v >= 0.0 && v.is_finite()) {
                return Err(Error::Value(format!("curvature must be finite and not negative, got {v}")));
            }
        }
        Ok(())
    }
    /// Of 1 - c|y|²: where rounding, or the margin, can matter.
    fn edge(&self, dtype: Dtype) -> f64 {
        self.0.map_or(f64::NEG_INFINITY, |margin| {
            let keep = 1.0 - margin.value(dtype);
            1.0 - keep * keep + 8.0 * eps(dtype)
        })
    }
    unsafe fn mend(&self, y: &Tensor, at: usize, d: usize, c: f64) {
        if let Some(margin) = self.0 {
            // SAFETY: promised by the caller.
            unsafe { pull(y, at, d, c, margin) };
        }
    }
}

/// As [`row!`](crate::row), for an operator on rows of the ball. Where output 0 is a point of it,
/// `name(…) -> (…) within(self) { margin }`, what is solved ends with the size of 1 - c|y|².
#[macro_export]
macro_rules! ball {
    ($op:ident $(<$F:ident: $bound:path>)? ($($in:tt)*) -> ($($out:tt)*) within($self:ident) $margin:block $($rest:tt)*) => {
        $crate::row! {
            @ground { fn ground(&$self) -> impl $crate::rows::Ground { $crate::rows::Ball($margin.into()) } }
            bound [$op $(<$F>)?] [$($F: $bound)?] ($($in)*) ($($out)*) $($rest)*
        }
    };
    ($op:ident $(<$F:ident: $bound:path>)? ($($in:tt)*) -> ($($out:tt)*) $($rest:tt)*) => {
        $crate::row! {
            @ground { fn ground(&self) -> impl $crate::rows::Ground { $crate::rows::Ball(None) } }
            free [$op $(<$F>)?] [$($F: $bound)?] ($($in)*) ($($out)*) $($rest)*
        }
    };
}

/// How far inside the ball results stay: |y| <= (1 - margin)/√c.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Margin {
    /// As far out as the type has numbers: at most 2 eps inside.
    Tight,
    /// The margin of geoopt and HypLL: 4e-3 in float32, 1e-5 in float64 (and their f32 value for 16-bit types).
    Compat,
    Given(f64),
}

impl Margin {
    /// From the scalar parameter `eps`: 0 is tight, negative is compat.
    pub fn of(eps: f64) -> Result<Margin> {
        match eps {
            0.0 => Ok(Margin::Tight),
            e if e < 0.0 => Ok(Margin::Compat),
            e if e < 1.0 => Ok(Margin::Given(e)),
            e => Err(Error::Value(format!("eps must be below 1, got {e}"))),
        }
    }
    pub fn value(self, dtype: Dtype) -> f64 {
        match self {
            Margin::Tight => 0.0,
            Margin::Compat if dtype == Dtype::F64 => 1e-5,
            Margin::Compat => 4e-3,
            Margin::Given(e) => e,
        }
    }
}

/// Distance from 1 to the next number.
pub fn eps(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F64 => 2f64.powi(-52),
        Dtype::F32 => 2f64.powi(-23),
        Dtype::F16 => 2f64.powi(-10),
        _ => 2f64.powi(-7),
    }
}

/// What 1 - c|y|² must exceed: the plain sums in which narrow data is read again are wrong by less than this.
fn guard(dtype: Dtype) -> f64 {
    if dtype == Dtype::F64 { 0.0 } else { 2f64.powi(-48) }
}

/// Pulls a row that was rounded onto the edge, or past the margin, back inside. What is infinite, or no number, has no
/// direction: all of its row is NaN.
#[cold]
pub fn inside<T: Store>(row: &mut [T], c: f64, margin: Margin) {
    if c == 0.0 {
        return;
    }
    if !row.iter().all(|v| v.to_f64().is_finite()) {
        return row.fill(T::from_f64(f64::NAN));
    }
    let m = margin.value(T::DTYPE);
    let mut square = dispatch(Square(row));
    if !(square.0.max(c * square.0) < 1e290) {
        // squares that overflow say nothing of the direction
        let top = row.iter().fold(0.0f64, |top, v| top.max(v.to_f64().abs()));
        for v in row.iter_mut() {
            *v = T::from_f64(v.to_f64() / top / c.sqrt());
        }
        square = dispatch(Square(row));
    }
    for k in 1..=8 {
        let (hi, lo) = square;
        // 1 - c|y|² to twice the precision
        let p = c * hi;
        let gap = (1.0 - p) - (c.mul_add(hi, -p) + c * lo);
        let norm = (c * (hi + lo)).sqrt();
        let limit = if m > 0.0 { 1.0 - m } else { 1.0 - 0.5 * f64::from(k) * eps(T::DTYPE) };
        let fine = if m > 0.0 { norm <= limit * (1.0 + eps(T::DTYPE)) } else { gap > guard(T::DTYPE) };
        if fine {
            return;
        }
        for v in row.iter_mut() {
            *v = T::from_f64(v.to_f64() * (limit / norm));
        }
        square = dispatch(Square(row));
    }
}

/// [`inside`] for the row of `d` elements at `at`.
///
/// # Safety
/// The row exists and belongs to the caller.
#[cold]
pub unsafe fn pull(t: &Tensor, at: usize, d: usize, c: f64, margin: Margin) {
    // SAFETY: promised by the caller; the dtype says the type.
    unsafe {
        let p = t.as_ptr();
        match t.dtype() {
            Dtype::F64 => inside(std::slice::from_raw_parts_mut(p.cast::<f64>().add(at), d), c, margin),
            Dtype::F32 => inside(std::slice::from_raw_parts_mut(p.cast::<f32>().add(at), d), c, margin),
            Dtype::F16 => inside(std::slice::from_raw_parts_mut(p.cast::<F16>().add(at), d), c, margin),
            _ => inside(std::slice::from_raw_parts_mut(p.cast::<Bf16>().add(at), d), c, margin),
        }
    }
}

/// |y|² to twice the precision (Dot2), as a sum of two.
struct Square<'a, T>(&'a [T]);
impl<T: Store> Kernel for Square<'_, T> {
    type Output = (f64, f64);
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> (f64, f64) {
        let zero = f64x8::splat(s, 0.0);
        let (mut hi, mut lo) = (zero, zero);
        for part in self.0.chunks(STEP) {
            let halves = if part.len() == STEP { T::load16(s, part) } else { T::load_tail(s, part) };
            for v in halves {
                let (p, e) = two_prod(s, v, v);
                let (sum, r) = two_sum(hi, p);
                hi = sum;
                lo += e + r;
            }
        }
        let (mut sum, mut rest) = (0.0, 0.0);
        for i in 0..8 {
            let t = sum + hi[i];
            let v = t - sum;
            rest += ((sum - (t - v)) + (hi[i] - v)) + lo[i];
            sum = t;
        }
        (sum, rest)
    }
}
