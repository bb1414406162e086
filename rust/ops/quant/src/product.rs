//! Products with packed weights, y = x Ŵᵀ + b, ŵ = (q − z)·s or a number of a table times s. The one rule: the codes of the
//! weights are multiplied as they are and no scale is applied before a group is summed.
//!
//! Activations are f32 (f64 of f64 data), or, where `integers` is said, q_x = rne(x/s_x) with s_x = max|x|/127 of the row, as
//! `encode(x, "int8-row")` has them: then a group is an integer sum and y = s_x Σ_g s_g Σ q_x (q − z) + b. A row with a number
//! that is not finite gives NaN. The gradient is that of the product with the weights, dx = g Ŵ: rounding of activations is
//! passed straight through.

use super::affine::{Affine, Range};
use super::encode::least;
use super::scales::Form;
use base::simd::{Kernel, Simd, dispatch};
use base::store::Store;
use base::{Error, Result, Scalar, Tensor, by_float, try_vec};
use drivers::flat::{Compute, Real};
use drivers::packed::{self, Activations, After, LANES, Layout, Numbers, Results, Small, Weights};

/// Inputs of a group up to which no sum of products of codes leaves an i32: 127 · 255 · 2^16 < 2^31.
const GROUP: usize = 1 << 16;
/// The same where both are int8 and −128 may meet −128.
const INT8: usize = (1 << 17) - 1;

fn size(k: Scalar) -> Result<usize> {
    usize::try_from(k.int()).map_err(|_| Error::Value(format!("a size must not be negative, got {}", k.int())))
}

fn layout(outs: usize, inputs: usize, groups: usize, bits: usize, affine: bool) -> Result<Layout> {
    if groups == 0 || !inputs.is_multiple_of(groups) {
        return Err(Error::Value(format!("{groups} groups do not divide {inputs} inputs")));
    }
    Layout::new(outs, inputs, inputs / groups, bits, affine)
}

/// Panels of codes and scales.
pub fn panels(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [q, scale, zero, out] = t else { return Err(super::arrays(4, t)) };
    let &[outs, inputs] = q.shape() else {
        return Err(Error::Value(format!("q must be [out, in], got shape {:?}", q.shape())));
    };
    let (bits, affine) = (size(k[0])?, k[1].bool());
    let groups = scale.rows().1;
    let l = layout(outs, inputs, groups, bits, affine)?;
    scale.expect_shape("scale", &[outs, groups])?;
    out.expect_shape("w", &[l.panels(), l.panel_bytes()])?;
    let scale = scale.slice::<f32>()?;
    let zero = if affine {
        zero.expect_shape("zero_point", &[outs, groups])?;
        Some(zero.slice::<f32>()?)
    } else {
        None
    };
    if q.dtype() == base::Dtype::I8 {
        let middle = l.middle();
        // the codes with 2^(b − 1) added: a code that then is none of b bits is found by `pack`
        let mut own = try_vec(q.len(), 0u8)?;
        own.iter_mut().zip(q.slice::<i8>()?).for_each(|(own, &q)| *own = (q as u8).wrapping_add(middle));
        return l.pack(&own, scale, zero, out.slice_mut()?);
    }
    l.pack(q.slice::<u8>()?, scale, zero, out.slice_mut()?)
}

/// The panels of a call, and the table that their codes are places in: any of 16 numbers, or that of a small float.
struct Given<'a> {
    layout: Layout,
    panels: &'a [u8],
    table: Table,
}

enum Table {
    None,
    Any([f32; LANES]),
    Small(Small),
}

/// Which small float of 8 bits has these numbers; the codes that are none of a number may say what they like.
fn small(t: &[f32]) -> Option<Small> {
    [3, 2].map(|fraction| Small { fraction }).into_iter().find(|small| {
        let same = |(code, v): (usize, &f32)| v.to_bits() == small.number(code as u8).to_bits() || !v.is_finite();
        t.iter().enumerate().all(same)
    })
}

impl<'a> Given<'a> {
    /// `k`: outs, inputs, bits, groups, affine.
    fn new(w: &Tensor<'a>, table: Option<&Tensor>, k: &[Scalar]) -> Result<Given<'a>> {
        let l = layout(size(k[0])?, size(k[1])?, size(k[3])?, size(k[2])?, k[4].bool())?;
        w.expect_shape("w", &[l.panels(), l.panel_bytes()])?;
        let table = match table {
            Some(t) if !t.is_empty() => {
                t.expect_shape("table", &[1 << l.bits])?;
                if l.affine {
                    return Err(Error::Value("a table goes with codes without zero points".into()));
                }
                if l.bits == 8 {
                    let found = small(t.slice::<f32>()?).map(Table::Small);
                    let refused = || Error::Value("a table of 256 numbers must be that of e4m3 or e5m2".into());
                    return Ok(Given { layout: l, panels: w.slice()?, table: found.ok_or_else(refused)? });
                }
                let mut numbers = [0.0; LANES];
                numbers.copy_from_slice(t.slice::<f32>()?);
                if let Some(v) = numbers.iter().find(|v| !v.is_finite()) {
                    return Err(Error::Value(format!("table holds {v}")));
                }
                Table::Any(numbers)
            }
            _ => Table::None,
        };
        Ok(Given { layout: l, panels: w.slice()?, table })
    }

    fn weights(&self) -> Weights<'_> {
        let numbers = match &self.table {
            Table::None => Numbers::Integers,
            Table::Any(table) => Numbers::Table(table),
            Table::Small(small) => Numbers::Small(*small),
        };
        Weights { layout: self.layout, panels: self.panels, numbers }
    }
}

/// Codes of a row, −127 to 127, and their scale; NaN where a number is not finite.
struct Row<'a, T> {
    x: &'a [T],
    codes: &'a mut [u8],
}
impl<T: Real> Kernel for Row<'_, T> {
    type Output = T;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> T {
        let Row { x, codes } = self;
        let amax = T::amax::<false>(x);
        if !amax.is_finite() {
            codes.fill(0);
            return T::of(f64::NAN);
        }
        let most = T::int(127);
        let s = least(amax / most, amax, most);
        let a = Affine::new(s, T::ZERO, Range { lo: -127, hi: 127 }, Form::Divide);
        for (c, &x) in codes.iter_mut().zip(x) {
            *c = a.code(a.divided(x));
        }
        s
    }
}

/// Codes of results: q = clamp(rne(v/s) + z, lo, hi).
struct Coded<'a, T> {
    step: T,
    zero: T,
    range: Range,
    v: &'a [T],
    codes: &'a mut [u8],
}
impl<T: Real> Kernel for Coded<'_, T> {
    type Output = bool;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> bool {
        let a = Affine::new(self.step, self.zero, self.range, Form::Divide);
        let mut finite = true;
        for (c, &v) in self.codes.iter_mut().zip(self.v) {
            finite &= v.is_finite();
            *c = a.code(a.divided(if v == v { v } else { T::ZERO }));
        }
        finite
    }
}

/// What makes codes of results; false where one is not finite.
fn coder<A: Compute>(step: f64, zero: i32, range: Range) -> impl Fn(&[A::Real], &mut [u8]) -> bool + Sync {
    let (step, zero) = (A::Real::of(step), A::Real::int(zero));
    move |v, codes| dispatch(Coded { step, zero, range, v, codes })
}

/// y = x Ŵᵀ + b.
pub fn linear(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    product(t, k, After::Nothing, None)
}

/// y = f(x Ŵᵀ + b).
pub fn activated(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    product(t, k, After::from_code(k[6].int())?, None)
}

/// The same as codes: after the activation scale, zero point, lo and hi.
pub fn codes(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let (step, zero, range) = (k[7].float(), k[8].int(), Range::new(k[9].int(), k[10].int())?);
    if !(step > 0.0 && step.is_finite()) {
        return Err(Error::Value(format!("a scale must be positive and finite, got {step}")));
    }
    if !(i64::from(range.lo)..=i64::from(range.hi)).contains(&zero) {
        let (lo, hi) = (range.lo, range.hi);
        return Err(Error::Value(format!("zero_point must lie within {lo} and {hi}, got {zero}")));
    }
    product(t, k, After::from_code(k[6].int())?, Some((step, zero as i32, range)))
}

/// `coded`: the scale, the zero point and the range of the codes that results become.
fn product(t: &[Tensor], k: &[Scalar], after: After, coded: Option<(f64, i32, Range)>) -> Result<()> {
    let [x, w, bias, table, y] = t else { return Err(super::arrays(5, t)) };
    let g = Given::new(w, Some(table), k)?;
    let (outs, integers) = (g.layout.outs, k[5].bool());
    if integers && !matches!(g.table, Table::None) {
        return Err(Error::Value("int8 activations go with integer weights, not with a table".into()));
    }
    let rows = rows_of("x", x, g.layout.inputs)?;
    if y.len() != rows * outs {
        return Err(Error::Value(format!("y must have {rows} rows of {outs}, got shape {:?}", y.shape())));
    }
    if !bias.is_empty() {
        bias.expect_shape("bias", &[outs])?;
    }
    if integers && g.layout.group > GROUP {
        return Err(Error::Value(format!(
            "groups of {} inputs are too long for sums of 32 bits: at most {GROUP} with int8 activations",
            g.layout.group
        )));
    }
    by_float!(x, A => {
        let bias = if bias.is_empty() { None } else { Some(bias.slice::<A>()?) };
        let code = |x: &[_], codes: &mut [u8]| dispatch(Row { x, codes });
        let activations = if integers { Activations::Codes(&code) } else { Activations::Float };
        let w = g.weights();
        let Some((step, zero, range)) = coded else {
            return packed::linear::<A>(&w, activations, x.slice()?, bias, after, Results::Floats(y.slice_mut()?)).map(drop);
        };
        if y.dtype().size() != 1 || (range.lo < 0) != (y.dtype() == base::Dtype::I8) {
            return Err(Error::Type(format!("codes from {} to {} in {}", range.lo, range.hi, y.dtype().name())));
        }
        let code = coder::<A>(step, zero, range);
        if packed::linear::<A>(&w, activations, x.slice()?, bias, after, Results::Codes(packed::octets(y)?, &code))? {
            return Ok(());
        }
        Err(Error::Value("the results hold non-finite values, which have no codes".into()))
    })
}

fn rows_of(name: &str, x: &Tensor, last: usize) -> Result<usize> {
    let (rows, n) = x.rows();
    if x.shape().is_empty() || n != last {
        return Err(Error::Value(format!(
            "the last axis of {name} must have {last} elements, got shape {:?}",
            x.shape()
        )));
    }
    Ok(rows)
}

/// dx = g Ŵ, db = Σ g.
pub fn linear_bwd(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [g, w, bias, table, dx, dbias] = t else { return Err(super::arrays(6, t)) };
    let given = Given::new(w, Some(table), k)?;
    let needs = k[6].int();
    let (outs, inputs) = (given.layout.outs, given.layout.inputs);
    let rows = rows_of("g", g, outs)?;
    if needs & 2 != 0 && !bias.is_empty() {
        dbias.expect_shape("dbias", &[outs])?;
        by_float!(g, A => totals(g.slice::<A>()?, outs, dbias.slice_mut::<A>()?))?;
    }
    if needs & 1 == 0 || rows * inputs == 0 {
        return Ok(());
    }
    if dx.len() != rows * inputs {
        return Err(Error::Value(format!("dx must have {rows} rows of {inputs}, got shape {:?}", dx.shape())));
    }
    by_float!(g, A => packed::gradient::<A>(&given.weights(), g.slice()?, dx.slice_mut()?))
}

/// Integers Σ (a − z_a) b, exactly.
pub fn int8(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [a, w, y] = t else { return Err(super::arrays(3, t)) };
    let g = Given::new(w, None, &[k[0], k[1], Scalar::Int(8), Scalar::Int(1), Scalar::Bool(false)])?;
    let (outs, inputs) = (g.layout.outs, g.layout.inputs);
    if inputs > INT8 {
        return Err(Error::Value(format!("{inputs} products may not fit 32 bits: at most {INT8}")));
    }
    let rows = rows_of("a", a, inputs)?;
    if y.len() != rows * outs {
        return Err(Error::Value(format!("y must have {rows} rows of {outs}, got shape {:?}", y.shape())));
    }
    packed::matmul(&g.weights(), a.slice()?, y.slice_mut()?)
}

/// Sums over the rows, in f64.
fn totals<A: Store>(g: &[A], outs: usize, out: &mut [A]) -> Result<()> {
    let mut sums = try_vec(outs, 0f64)?;
    for row in g.chunks_exact(outs.max(1)) {
        sums.iter_mut().zip(row).for_each(|(s, g)| *s += g.to_f64());
    }
    out.iter_mut().zip(&sums).for_each(|(o, &s)| *o = A::from_f64(s));
    Ok(())
}
