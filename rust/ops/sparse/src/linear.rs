//! Activations [rows, features] times a sparse weight, and what that sends back. The one rule: whichever way a sum is made, in
//! lanes for a few rows or in panels for many, it is one chain, and the activation is of the sum as it would be stored.
//!
//! With Z = X Aᵀ + b, Y = f(Z) and H = G f'(Z): dX = H A by the transpose of A, db = sums of the columns of H, and dA on the
//! pattern, (Hᵀ X)_ik for every stored (i, k). Where f' cannot be told from Y, Z is made again.

use super::product::{inside, transposed};
use super::{FIRST, SECOND, THIRD, by_index};
use base::lane::Lane;
use base::math;
use base::simd::*;
use base::store::{STEP, Store};
use base::wide::wide;
use base::{Dtype, Error, Result, Scalar, Tensor, by_float, try_vec};
use drivers::csr::spmm::Real;
use drivers::csr::{self, Dot, Finish, Index, Lanes, Lined, Pattern, Place};

/// What is done to sums.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    None,
    Relu,
    Relu6,
    Gelu,
    Silu,
}

impl Act {
    fn of(s: &Scalar) -> Result<Act> {
        const ALL: [Act; 5] = [Act::None, Act::Relu, Act::Relu6, Act::Gelu, Act::Silu];
        let n = s.int();
        let found = usize::try_from(n).ok().and_then(|n| ALL.get(n).copied());
        found.ok_or_else(|| Error::Value(format!("act must be in 0..5, got {n}")))
    }

    /// The bounds of those that are bounds.
    fn clamp<T: Real>(self) -> Option<[T; 2]> {
        let hi = match self {
            Act::Relu => f64::INFINITY,
            Act::Relu6 => 6.0,
            _ => return None,
        };
        Some([T::default(), T::from_f64(hi)])
    }

    /// Whether it is not made of bounds.
    fn curved(self) -> bool {
        matches!(self, Act::Gelu | Act::Silu)
    }
}

/// Sixteen at a time: values, or gradients times slopes.
struct Walk<'a, T> {
    act: Act,
    z: &'a mut [T],
    /// Absent for values.
    g: Option<&'a [T]>,
}

impl<T: Store> Kernel for Walk<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (at, z) in self.z.chunks_mut(STEP).enumerate() {
            let mut v = T::load_tail(s, z);
            let mut g = [f64x8::splat(s, 1.0); 2];
            if let Some(all) = self.g {
                g = T::load_tail(s, &all[at * STEP..][..z.len()]);
            }
            for (v, g) in v.iter_mut().zip(g) {
                *v = if self.g.is_some() { g * slope(s, self.act, *v) } else { value(s, self.act, *v) };
            }
            T::store_tail(s, v, z);
        }
    }
}

/// x Φ(x), Φ the normal distribution; or x σ(x).
#[inline(always)]
fn value<S: Simd>(s: S, act: Act, x: f64x8<S>) -> f64x8<S> {
    if act == Act::Gelu { x * normal(s, x) } else { x * sigmoid(s, x) }
}

/// Φ(x) + x φ(x); or σ(x) (1 + x (1 - σ(x))).
#[inline(always)]
fn slope<S: Simd>(s: S, act: Act, x: f64x8<S>) -> f64x8<S> {
    if act == Act::Gelu {
        let density =
            math::exp(s, x * x * -0.5) * (std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2 * 0.5);
        x.mul_add(density, normal(s, x))
    } else {
        let p = sigmoid(s, x);
        p * x.mul_add(1.0 - p, f64x8::splat(s, 1.0))
    }
}

#[inline(always)]
fn normal<S: Simd>(s: S, x: f64x8<S>) -> f64x8<S> {
    math::erf(s, x * std::f64::consts::FRAC_1_SQRT_2).mul_add(0.5, f64x8::splat(s, 0.5))
}

#[inline(always)]
fn sigmoid<S: Simd>(s: S, x: f64x8<S>) -> f64x8<S> {
    f64x8::splat(s, 1.0) / (math::exp(s, -x) + 1.0)
}

/// Columns beyond which a panel of them is no cache's.
const WIDE: usize = 1 << 17;

/// `y[r] = act(A x[r] + bias)` for n rows. A matrix wider than a panel should be takes x turned as a whole.
pub(super) fn product<T: Real + Lane, I: Index>(
    a: &Pattern<I>,
    data: &[T],
    (x, n): (&[T], usize),
    bias: Option<&[T]>,
    act: Act,
    y: &mut [T],
) -> Result<()> {
    let one = |z: &mut [T]| dispatch(Walk { act, z, g: None });
    let finish: Finish<T> = if act.curved() { Some(&one) } else { None };
    if a.cols() <= WIDE {
        return csr::linear(a, data, x, n, bias, act.clamp(), finish, y);
    }
    let mut z = try_vec(y.len(), T::default())?;
    csr::spmm(a, data, &csr::turned(x, [n, a.cols()])?, [1, n], bias, act.clamp(), &mut z)?;
    y.copy_from_slice(&csr::turned(&z, [a.rows(), n])?);
    if let Some(finish) = finish {
        finish(y);
    }
    Ok(())
}

/// linear(data, indices, indptr, x, bias, ...) -> y; act
pub fn linear(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    fn run<T: Real + Lane, I: Index>(t: &[Tensor], s: &[Scalar]) -> Result<()> {
        let (n, cols) = t[3].rows();
        let a = Pattern::bare(t[1].slice::<I>()?, t[2].slice::<I>()?, cols)?;
        t[0].expect_shape("data", &[a.entries()])?;
        t[8].expect_shape("y", &like(&t[3], a.rows()))?;
        let bias = (!t[4].is_empty()).then(|| t[4].slice::<T>()).transpose()?;
        product(&a, t[0].slice()?, (t[3].slice()?, n), bias, Act::of(&s[0])?, t[8].slice_mut()?)
    }
    wide(t, 8, |t| by_index!(t[1], I => by_float!(wide t[0], T => run::<T, I>(t, s))))
}

/// The shape of what rows of x become, each of `m` elements.
pub(super) fn like(x: &Tensor, m: usize) -> Vec<usize> {
    let mut shape = x.shape().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = m;
    }
    shape
}

/// spmv(data, places, rows, indptr, x, bias) -> y; act: a few rows, in lanes
pub fn spmv(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    fn run<T: Real + Lanes, P: Place>(t: &[Tensor], s: &[Scalar]) -> Result<()> {
        let (cols, act) = (t[4].rows().1, Act::of(&s[0])?);
        by_index!(t[2], I => {
            let a = Lined::<T, P>::new(t[0].slice()?, t[1].slice()?, t[2].slice::<I>()?, t[3].slice::<I>()?, cols)?;
            let bias = (!t[5].is_empty()).then(|| t[5].slice::<T>()).transpose()?;
            a.product(t[4].slice()?, bias, t[6].slice_mut()?)
        })?;
        let y = t[6].slice_mut::<T>()?;
        if let Some([lo, hi]) = act.clamp() {
            for y in &mut *y {
                *y = base::vector::clamped(*y, lo, hi);
            }
        }
        if act.curved() {
            dispatch(Walk { act, z: y, g: None });
        }
        Ok(())
    }
    wide(t, 6, |t| match t[1].dtype() {
        Dtype::I16 => by_float!(wide t[0], T => run::<T, i16>(t, s)),
        _ => by_float!(wide t[0], T => run::<T, i32>(t, s)),
    })
}

/// linear_bwd(g, data, indices, indptr, x, bias, y, perm, t_indices, t_indptr) -> ddata, dx, dbias; act, needs
pub fn linear_bwd(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    fn run<T: Dot + Real + Lane, I: Index>(t: &[Tensor], s: &[Scalar]) -> Result<()> {
        let ((n, cols), needs) = (t[4].rows(), s[1].int());
        let a = Pattern::new(t[2].slice::<I>()?, t[3].slice::<I>()?, cols)?;
        let (data, x, m) = (t[1].slice::<T>()?, t[4].slice::<T>()?, a.rows());
        t[1].expect_shape("data", &[a.entries()])?;
        t[0].expect_shape("g", &like(&t[4], m))?;
        let outputs = [
            (FIRST, &t[10], t[1].shape(), "ddata"),
            (SECOND, &t[11], t[4].shape(), "dx"),
            (THIRD, &t[12], &[m], "dbias"),
        ];
        for (bit, out, shape, name) in outputs {
            if needs & bit != 0 {
                out.expect_shape(name, shape)?;
            }
        }
        let sent = sent(&a, t, Act::of(&s[0])?)?;
        let g = sent.as_deref().map_or_else(|| t[0].slice::<T>(), Ok)?;
        if needs & SECOND != 0 {
            transposed(&a, &t[7..10], data, |a, data| product(a, data, (g, n), None, Act::None, t[11].slice_mut()?))?;
        }
        if needs & FIRST != 0 {
            let (g, x) = (csr::turned(g, [n, m])?, csr::turned(x, [n, cols])?);
            csr::sddmm(&a, &g, &x, [1, n], t[10].slice_mut()?)?;
        }
        if needs & THIRD != 0 {
            csr::column_sums(g, [n, m], t[12].slice_mut()?)?;
        }
        Ok(())
    }
    wide(t, 10, |t| by_index!(t[2], I => by_float!(wide t[0], T => run::<T, I>(t, s))))
}

/// H, where it is not G.
fn sent<T: Real + Lane, I: Index>(a: &Pattern<I>, t: &[Tensor], act: Act) -> Result<Option<Vec<T>>> {
    if act == Act::None {
        return Ok(None);
    }
    let g = t[0].slice::<T>()?;
    if let Some(bounds) = act.clamp::<T>() {
        t[6].expect_shape("y", t[0].shape())?;
        return inside(g, t[6].slice()?, bounds).map(Some);
    }
    let mut held = try_vec(g.len(), T::default())?;
    let bias = (!t[5].is_empty()).then(|| t[5].slice::<T>()).transpose()?;
    product(a, t[1].slice()?, (t[4].slice()?, t[4].rows().0), bias, Act::None, &mut held)?;
    dispatch(Walk { act, z: &mut held, g: Some(g) });
    Ok(Some(held))
}
