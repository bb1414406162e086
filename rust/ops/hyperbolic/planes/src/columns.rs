//! What belongs to the columns of t. The one rule: it is made once per call, in f64, before any row is read.

use super::Call;
use super::lanes::Real;
use super::rows::{sinh_cosh, sinh_root_d};
use base::simd::*;
use base::{Result, try_vec};
use drivers::rows::numbers;

/// What belongs to a column: A, B, 2n, 4n, and 4 where n = 0 (the slope of y in t there, along v).
pub struct Columns<L> {
    pub a: Vec<L>,
    pub b: Vec<L>,
    pub n2: Vec<L>,
    pub n4: Vec<L>,
    pub bare: Vec<L>,
    /// n, r, A, B, cosh β, d(sinh β/2√c)/dc
    pub wide: [Vec<f64>; 6],
}

impl<L: Real> Columns<L> {
    /// Padded with zeros to `pad`, whole vectors.
    pub fn of(call: &Call, pad: usize) -> Result<Self> {
        let zeros = || try_vec(pad, L::of(0.0));
        let mut columns = Columns {
            a: zeros()?,
            b: zeros()?,
            n2: zeros()?,
            n4: zeros()?,
            bare: zeros()?,
            wide: [0; 6].map(|_| Vec::new()),
        };
        for v in &mut columns.wide {
            *v = try_vec(call.columns, 0.0)?;
        }
        dispatch(Prepare(call, &mut columns));
        Ok(columns)
    }
}

/// The column numbers, eight at a time.
struct Prepare<'a, L>(&'a Call<'a>, &'a mut Columns<L>);
impl<L: Real> Kernel for Prepare<'_, L> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Prepare(call, columns) = self;
        for i in (0..call.columns).step_by(8) {
            let m = 8.min(call.columns - i);
            let (mut n, mut r) = ([0.0; 8], [0.0; 8]);
            numbers(&call.n, i, &mut n[..m]);
            numbers(&call.r, i, &mut r[..m]);
            let beta = f64x8::from_slice(s, &r).abs() * (2.0 * call.c.sqrt());
            let [ratio, cosh, _] = sinh_cosh(s, beta, 700.0);
            let slope = sinh_root_d(beta * beta, ratio, cosh);
            for j in 0..m {
                let a = if n[j] > 0.0 { cosh[j] / n[j] } else { 0.0 };
                let b = r[j] * ratio[j];
                for (k, v) in [n[j], r[j], a, b, cosh[j], 4.0 * r[j] * r[j] * r[j] * slope[j]].into_iter().enumerate() {
                    columns.wide[k][i + j] = v;
                }
                columns.a[i + j] = L::of(a);
                columns.b[i + j] = L::of(b);
                columns.n2[i + j] = L::of(2.0 * n[j]);
                columns.n4[i + j] = L::of(4.0 * n[j]);
                columns.bare[i + j] = L::of(if n[j] == 0.0 { 4.0 } else { 0.0 });
            }
        }
    }
}
