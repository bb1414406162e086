//! Weighted midpoints of groups of points: of runs of rows, or of the rows that a list names. The one rule: a midpoint is
//! made of sums over its points alone, and its gradient of the differences between points and midpoint.
//!
//! N = Σ wλx, T = Σ w(λ − 1), R = √(T² − c|N|²), P = T + R with the sign of T: m = N/P, and 1 − c|m|² = 2R/P. f64 data
//! is summed in twice its precision, since R is what T² and c|N|² leave. With A = ⟨g, x − m⟩ − c|x − m|²/α_m ⟨g, m⟩:
//! dx = wλ/P [g + cλA x − cλ_m⟨g, m⟩(x − m)], dw = λA/P, dc = Σ w/P [λ²|x|²A/2 − λ⟨x, x − m⟩⟨g, m⟩/α_m]. Tangent vectors
//! at 0 have a form of their own ([`polar`]), which knows of no edge.

mod gather;
mod polar;
mod pull;

use super::place::{FLAT, bent, places};
use super::roots::wide_gap;
use crate::dd::Num;
use crate::rows::{self, Acc, Margin, RowOp, Solved};
use crate::simd::*;
use crate::store::Store;
use crate::wide::wide;
use crate::{Dtype, Error, Kind, Op, Result, Rule, Scalar, Tensor, try_vec};
use gather::{Groups, Lifted};

pub static OPS: &[Op] = &[
    Op {
        name: "midpoint",
        inputs: &["x", "weights", "c", "indices", "indptr"],
        vectors: 0,
        outputs: &[("m", Rule::Custom)],
        scalars: &[("members", Kind::Int), ("eps", Kind::Float), ("tangent", Kind::Bool)],
        alias: false,
        run: |t, s| wide(t, 5, |t| by_type(t, s, &t[0], forward::<f64>, forward::<f32>)),
    },
    Op {
        name: "midpoint_bwd",
        inputs: &["g", "x", "weights", "c", "indices", "indptr"],
        vectors: 0,
        outputs: &[("dx", Rule::Custom), ("dweights", Rule::Custom), ("dc", Rule::Custom)],
        scalars: &[("members", Kind::Int), ("tangent", Kind::Bool)],
        alias: false,
        run: |t, s| wide(t, 6, |t| by_type(t, s, &t[1], backward::<f64>, backward::<f32>)),
    },
];

type Run = fn(&[Tensor], &[Scalar]) -> Result<()>;

fn by_type(t: &[Tensor], s: &[Scalar], x: &Tensor, double: Run, single: Run) -> Result<()> {
    match x.dtype() {
        Dtype::F64 => double(t, s),
        Dtype::F32 => single(t, s),
        other => Err(Error::Type(format!("a float type is needed, got {}", other.name()))),
    }
}

/// The spatial factor f of a row on the hyperboloid and its time τ, with what f64 leaves of both, |x|², and how f changes
/// with c over |x|²: λ, λ − 1 of points, those of `carry` of tangent vectors
struct Lift(bool);
impl RowOp<1, 1, 1, 0, 0, 6> for Lift {
    const CURVED: bool = true;
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [x]: &[f64x8<S>; 1], [xx]: &mut [A; 1]) {
        xx.dot(*x, *x);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, [xx]: [N; 1], [c]: [f64x8<S>; 1]) -> Solved<S, 0, 6> {
        let one = f64x8::splat(s, 1.0);
        let numbers = if self.0 {
            let [p] = places(false, bent(c), [xx]);
            [p.f, one * 0.0, p.tau, one * 0.0, xx.get(), p.r]
        } else {
            let lambda = N::of(f64x8::splat(s, 2.0)) / wide_gap(c, xx);
            let time = lambda - N::of(one);
            [lambda.get(), lambda.rest(), time.get(), time.rest(), xx.get(), one]
        };
        Solved { weights: [], numbers, gap: one }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, _: &[f64x8<S>; 1], _: &[f64x8<S>; 0]) -> [f64x8<S>; 0] {
        []
    }
}

fn lift(x: &Tensor, c: &Tensor, rows: usize, d: usize, tangent: bool) -> Result<Lifted> {
    let empty = || try_vec(rows, 0.0);
    let mut out =
        Lifted { f: empty()?, f_lo: empty()?, tau: empty()?, tau_lo: empty()?, squares: empty()?, bend: empty()? };
    // SAFETY: views of arrays that outlive the call; the vectors have a number for each row.
    let (x, n) = unsafe {
        let number = |v: &mut Vec<f64>| Tensor::new(v.as_mut_ptr().cast(), &[rows], Dtype::F64, true);
        let Lifted { f, f_lo, tau, tau_lo, squares, bend } = &mut out;
        (
            Tensor::new(x.as_ptr(), &[rows, d], x.dtype(), false)?,
            [number(f)?, number(f_lo)?, number(tau)?, number(tau_lo)?, number(squares)?, number(bend)?],
        )
    };
    // one row has one number, and that is no sum over rows
    rows::run(&Lift(tangent), &[x, *c, n[0], n[1], n[2], n[3], n[4], n[5]])?;
    Ok(out)
}

/// The groups that the arguments name: x, weights, c, indices, indptr, and how many members where there are no lists.
fn groups<'a, T: Store>(t: &[Tensor<'a>], members: i64, tangent: bool) -> Result<(Groups<'a, T>, Lifted)> {
    let (rows, d) = t[0].rows();
    if t[0].shape().is_empty() {
        return Err(Error::Value("x needs a last axis, got a 0-d array".into()));
    }
    let c = t[2].number()?;
    let members = usize::try_from(members).map_err(|_| Error::Value(format!("{members} members in a group")))?;
    let (indices, indptr) = if t[4].is_empty() {
        if members == 0 || rows % members != 0 {
            return Err(Error::Value(format!("{rows} rows are not groups of {members}")));
        }
        (None, gather::runs(rows / members, members)?)
    } else {
        let (indices, indptr) = (gather::integers(&t[3])?, gather::integers(&t[4])?);
        gather::check(&indices, &indptr, rows)?;
        (Some(indices), indptr)
    };
    let entries = indptr.last().copied().unwrap_or(0);
    let weights = if t[1].is_empty() { None } else { Some(t[1].slice::<T>()?) };
    if let Some(w) = weights
        && w.len() != entries
    {
        return Err(Error::Value(format!("{} weights for {entries} entries", w.len())));
    }
    let lifted = lift(&t[0], &t[2], rows, d, tangent)?;
    // with tangent vectors, c = 0 is no case of its own
    let c = if tangent { c.max(FLAT) } else { c };
    Ok((Groups { x: t[0].slice()?, rows, d, c, weights, indices, indptr, members, tangent }, lifted))
}

fn expect(name: &str, t: &Tensor, len: usize) -> Result<()> {
    if t.len() == len {
        return Ok(());
    }
    Err(Error::Value(format!("{name} must have {len} elements, got shape {:?}", t.shape())))
}

fn forward<T: Store>(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let margin = Margin::of(s[1].float())?;
    let (groups, lifted) = groups::<T>(t, s[0].int(), s[2].bool())?;
    expect("m", &t[5], groups.len() * groups.d)?;
    let out = t[5].slice_mut::<T>()?;
    if groups.tangent {
        polar::midpoints(&groups, &lifted, out)
    } else {
        gather::midpoints(&groups, &lifted, out, margin)
    }
}

fn backward<T: Store>(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let (groups, lifted) = groups::<T>(&t[1..], s[0].int(), s[1].bool())?;
    expect("g", &t[0], groups.len() * groups.d)?;
    expect("dx", &t[6], t[1].len())?;
    expect("dweights", &t[7], groups.weights.map_or(0, <[T]>::len))?;
    let (g, dx, dw) = (t[0].slice()?, t[6].slice_mut::<T>()?, t[7].slice_mut::<T>()?);
    let dc = if groups.tangent {
        let (centres, explicit) = polar::centres(&groups, &lifted, g)?;
        let sum = pull::gradients(&groups, &lifted, &centres, dx, dw, false)?;
        explicit.dc(sum)
    } else {
        pull::gradients(&groups, &lifted, &pull::centres(&groups, &lifted, g)?, dx, dw, false)?
    };
    t[8].set_number(dc)
}

/// All rows as one group.
fn whole<'a, T: Store>(x: &Tensor<'a>, c: &Tensor, tangent: bool) -> Result<(Groups<'a, T>, Lifted)> {
    let (rows, d) = x.rows();
    let lifted = lift(x, c, rows, d, tangent)?;
    let c = if tangent { c.number()?.max(FLAT) } else { c.number()? };
    let (x, indptr) = (x.slice()?, gather::runs(1, rows)?);
    Ok((Groups { x, rows, d, c, weights: None, indices: None, indptr, members: rows, tangent }, lifted))
}

/// The midpoint of all rows of x.
pub(super) fn middle<T: Store>(x: &Tensor, c: &Tensor, tangent: bool, out: &mut [T], margin: Margin) -> Result<()> {
    let (group, lifted) = whole::<T>(x, c, tangent)?;
    if tangent { polar::midpoints(&group, &lifted, out) } else { gather::midpoints(&group, &lifted, out, margin) }
}

/// Adds its gradient to dx; dc.
pub(super) fn middle_bwd<T: Store>(x: &Tensor, c: &Tensor, tangent: bool, g: &[T], dx: &mut [T]) -> Result<f64> {
    let (group, lifted) = whole::<T>(x, c, tangent)?;
    if !tangent {
        return pull::gradients(&group, &lifted, &pull::centres(&group, &lifted, g)?, dx, &mut [], true);
    }
    let (centres, curve) = polar::centres(&group, &lifted, g)?;
    Ok(curve.dc(pull::gradients(&group, &lifted, &centres, dx, &mut [], true)?))
}
