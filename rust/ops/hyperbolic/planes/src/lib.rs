//! What follows the dense product in a hyperbolic fully connected layer: t = v·z is torch's or NumPy's, the rest is here.
//! The one rule: all that depends on a row or on a column is a number made once in f64, and an element costs one
//! logarithm and one exponential in lanes of its own type, because t is a product of that type.
//!
//! Shimizu, Mukuta and Harada, "Hyperbolic neural networks++" (2021), sections 3.1 and 3.2. With n = |z_k|, β = 2√c r_k and,
//! of a row, σ = 2√c|v| (tangent form) or λ = 2/(1 - c|x|²) (ball form):
//!
//! * p = 2√c π, π = a A t - b B, A = cosh β / n, B = sinh β / 2√c, and (a, b) = (sinh σ / σ, cosh σ) or (λ/2, λ - 1);
//! * the logit is y = (2n/√c) arsinh p, the signed distance to hyperplane k times 2n;
//! * the layer is w = sinh(√c y)/√c and then w arsinh(√c|w|)/(2√c|w|) (tangent) or w/(1 + √(1 + c|w|²)) (ball).
//!
//! Backward, recomputed from t, with H and N the weights of the last step (see [`head`]): G_w = H g + N⟨g,w⟩w,
//! G_y = G_w cosh √c y, G_π = 4n G_y/√(1 + p²), dt = a A G_π, U = Σ_b G_π a t, V = Σ_b G_π b, dr = 4cBU/n - V cosh β,
//! dn = (Σ_b G_y y - AU)/n, and of a row D = a'Σ_k G_π A t - b'Σ_k G_π B. Nothing is divided by c where it may be 0.

mod columns;
mod lanes;
mod rows;
mod tile;
mod walk;

use base::{Dtype, Error, Op, Result, Scalar, Tensor, ops};
use drivers::rows::{Margin, numbers};
use rows::Form;

/// The arrays of one call: [rows, columns] of `t`, and everything checked against them.
pub struct Call<'a> {
    pub rows: usize,
    pub columns: usize,
    pub g: Option<Tensor<'a>>,
    pub t: Tensor<'a>,
    pub s: Tensor<'a>,
    pub n: Tensor<'a>,
    pub r: Tensor<'a>,
    pub c: f64,
    pub form: Form,
    pub out: Vec<Tensor<'a>>,
    /// whether the gradient of the curvature is wanted: an output of no numbers says no
    pub curved: bool,
    /// whether results of float64 data are rounded to a smaller type, whose digits they need then and no more
    pub single: bool,
}

impl<'a> Call<'a> {
    fn new(arrays: &[Tensor<'a>], backward: bool, form: Form) -> Result<Self> {
        let first = usize::from(backward);
        if arrays.len() != if backward { 11 } else { 6 } {
            return Err(Error::Type("wrong number of arrays".into()));
        }
        let [t, s, n, r, c] = [0, 1, 2, 3, 4].map(|i| arrays[first + i]);
        let dtype = t.dtype();
        if !dtype.is_float() {
            return Err(Error::Type(format!("a float type is needed, got {}", dtype.name())));
        }
        for (i, x) in arrays.iter().enumerate() {
            // the curvature, and its gradient, may have a float type of their own, and so may the results of float64 data
            let own = i == first + 4 || (backward && i == 10) || (!backward && i == 5 && dtype == Dtype::F64);
            if x.dtype() != dtype && !(own && x.dtype().is_float()) {
                return Err(Error::Type(format!("arrays of {} and {} in one call", dtype.name(), x.dtype().name())));
            }
        }
        let (rows, columns) = t.rows();
        if t.shape().is_empty() {
            return Err(Error::Value("a last axis is needed, got a 0-d array".into()));
        }
        if s.len() != rows {
            return Err(Error::Value(format!("one number per row ({rows}) is needed, got shape {:?}", s.shape())));
        }
        for (name, x) in [("n", n), ("r", r)] {
            if x.len() != columns {
                return Err(Error::Value(format!("{name} must have {columns} numbers, got shape {:?}", x.shape())));
            }
        }
        if c.len() != 1 {
            return Err(Error::Value(format!("one curvature for all rows is needed, got shape {:?}", c.shape())));
        }
        let mut curvature = [0.0];
        numbers(&c, 0, &mut curvature);
        let [c] = curvature;
        if !(c >= 0.0 && c.is_finite()) {
            return Err(Error::Value(format!("curvature must be finite and not negative, got {c}")));
        }
        let out = arrays[first + 5..].to_vec();
        let sizes = if backward { vec![t.len(), rows, columns, columns, 1] } else { vec![t.len()] };
        let curved = backward && !out[4].is_empty();
        for (i, (y, len)) in out.iter().zip(sizes).enumerate() {
            if !(y.len() == len || (i == 4 && !curved)) || !y.writable() {
                return Err(Error::Value(format!("output of shape {:?} for {rows} rows of {columns}", y.shape())));
            }
        }
        let g = backward.then(|| arrays[0]);
        if g.is_some_and(|g| g.len() != t.len()) {
            return Err(Error::Value(format!("a gradient for {rows} rows of {columns} is needed")));
        }
        // so small a curvature changes no digit, and lets c = 0 be no case of its own
        let c = c.max(if dtype == Dtype::F64 { 2f64.powi(-700) } else { 2f64.powi(-100) });
        let single = out[0].dtype() != dtype;
        Ok(Call { rows, columns, g, t, s, n, r, c, form, out, curved, single })
    }
    fn run(&self) -> Result<()> {
        if self.t.dtype() == Dtype::F64 { walk::run::<f64>(self) } else { walk::run::<f32>(self) }
    }
}

fn form(fc: bool, k: &[Scalar]) -> Result<Form> {
    let ball = k[0].bool();
    let margin = if k.len() > 1 { Margin::of(k[1].float())? } else { Margin::Tight };
    Ok(Form { fc, ball, margin })
}

/// The tables of this part of the family.
pub static TABLES: &[&[Op]] = &[OPS];

pub static OPS: &[Op] = ops! {
    fc_rows(t[b.., k], s[b..], n[k], r[k], c[]; ball: bool, eps) -> (y[t]) = |t, k| Call::new(t, false, form(true, k)?)?.run();
    fc_rows_bwd(g[b.., k], t[b.., k], s[b..], n[k], r[k], c[]; ball: bool)
        -> (dt[t], ds[s], dn[n], dr[r], dc[c]) = |t, k| Call::new(t, true, form(true, k)?)?.run();
    mlr_rows(t[b.., k], s[b..], n[k], r[k], c[]; ball: bool) -> (y[t]) = |t, k| Call::new(t, false, form(false, k)?)?.run();
    mlr_rows_bwd(g[b.., k], t[b.., k], s[b..], n[k], r[k], c[]; ball: bool)
        -> (dt[t], ds[s], dn[n], dr[r], dc[c]) = |t, k| Call::new(t, true, form(false, k)?)?.run();
};
