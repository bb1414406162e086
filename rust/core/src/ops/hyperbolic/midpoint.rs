//! Weighted midpoints of groups of points: of runs of rows, or of the rows that a list names. The one rule: a midpoint is
//! made of sums over its points alone, and its gradient of the differences between points and midpoint.
//!
//! N = Σ wλx, T = Σ w(λ − 1), R = √(T² − c|N|²), P = T + R with the sign of T: m = N/P, and 1 − c|m|² = 2R/P. f64 data
//! is summed in twice its precision, since R is what T² and c|N|² leave. With A = ⟨g, x − m⟩ − c|x − m|²/α_m ⟨g, m⟩:
//! dx = wλ/P [g + cλA x − cλ_m⟨g, m⟩(x − m)], dw = λA/P, dc = Σ w/P [λ²|x|²A/2 − λ⟨x, x − m⟩⟨g, m⟩/α_m].

mod gather;
mod pull;

use super::roots::wide_gap;
use crate::dd::Num;
use crate::rows::{self, Acc, Margin, RowOp, Solved};
use crate::simd::*;
use crate::store::Store;
use crate::wide::wide;
use crate::{Dtype, Error, Kind, Op, Result, Rule, Scalar, Tensor, try_vec};
use gather::{Groups, Lambda};

pub static OPS: &[Op] = &[
    Op {
        name: "midpoint",
        inputs: &["x", "weights", "c", "indices", "indptr"],
        vectors: 0,
        outputs: &[("m", Rule::Custom)],
        scalars: &[("members", Kind::Int), ("eps", Kind::Float)],
        alias: false,
        run: |t, s| wide(t, 5, |t| by_type(t, s, &t[0], forward::<f64>, forward::<f32>)),
    },
    Op {
        name: "midpoint_bwd",
        inputs: &["g", "x", "weights", "c", "indices", "indptr"],
        vectors: 0,
        outputs: &[("dx", Rule::Custom), ("dweights", Rule::Custom), ("dc", Rule::Custom)],
        scalars: &[("members", Kind::Int)],
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

/// λ, what f64 leaves of it, and |x|²
struct Lambdas;
impl RowOp<1, 1, 1, 0, 0, 3> for Lambdas {
    const CURVED: bool = true;
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [x]: &[f64x8<S>; 1], [xx]: &mut [A; 1]) {
        xx.dot(*x, *x);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, [xx]: [N; 1], [c]: [f64x8<S>; 1]) -> Solved<S, 0, 3> {
        let lambda = N::of(f64x8::splat(s, 2.0)) / wide_gap(c, xx);
        Solved { weights: [], numbers: [lambda.get(), lambda.rest(), xx.get()], gap: f64x8::splat(s, 1.0) }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, _: &[f64x8<S>; 1], _: &[f64x8<S>; 0]) -> [f64x8<S>; 0] {
        []
    }
}

fn lambdas(x: &Tensor, c: &Tensor, rows: usize, d: usize) -> Result<Lambda> {
    let mut out = Lambda { hi: try_vec(rows, 0.0)?, lo: try_vec(rows, 0.0)?, squares: try_vec(rows, 0.0)? };
    // SAFETY: views of arrays that outlive the call; the three vectors have a number for each row.
    let (x, numbers) = unsafe {
        let number = |v: &mut Vec<f64>| Tensor::new(v.as_mut_ptr().cast(), &[rows], Dtype::F64, true);
        (
            Tensor::new(x.as_ptr(), &[rows, d], x.dtype(), false)?,
            [number(&mut out.hi)?, number(&mut out.lo)?, number(&mut out.squares)?],
        )
    };
    // one row has one number, and that is no sum over rows
    rows::run(&Lambdas, &[x, *c, numbers[0], numbers[1], numbers[2]])?;
    Ok(out)
}

/// The groups that the arguments name: x, weights, c, indices, indptr, and how many members where there are no lists.
fn groups<'a, T: Store>(t: &[Tensor<'a>], members: i64) -> Result<(Groups<'a, T>, Lambda)> {
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
    let lambda = lambdas(&t[0], &t[2], rows, d)?;
    Ok((Groups { x: t[0].slice()?, rows, d, c, weights, indices, indptr, members }, lambda))
}

fn expect(name: &str, t: &Tensor, len: usize) -> Result<()> {
    if t.len() == len {
        return Ok(());
    }
    Err(Error::Value(format!("{name} must have {len} elements, got shape {:?}", t.shape())))
}

fn forward<T: Store>(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let margin = Margin::of(s[1].float())?;
    let (groups, lambda) = groups::<T>(t, s[0].int())?;
    expect("m", &t[5], groups.len() * groups.d)?;
    gather::midpoints(&groups, &lambda, t[5].slice_mut::<T>()?, margin)
}

fn backward<T: Store>(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let (groups, lambda) = groups::<T>(&t[1..], s[0].int())?;
    expect("g", &t[0], groups.len() * groups.d)?;
    expect("dx", &t[6], t[1].len())?;
    expect("dweights", &t[7], groups.weights.map_or(0, <[T]>::len))?;
    let dc = pull::gradients(&groups, &lambda, t[0].slice()?, t[6].slice_mut::<T>()?, t[7].slice_mut::<T>()?)?;
    t[8].set_number(dc)
}
