//! What is added to a residual stream, and the norm of the sum: s = r + u, y = c(γ n(s) + β), where u = x or γᵢ n(x) + βᵢ. The one
//! rule: what is normalised is the sum as it is kept, so that it gives the same y again.
//!
//! n(v) = (v − μ)ρ with ρ = (var v + ε)^-½, or ρ = (mean v² + ε)^-½ and μ = 0. With h = γg and z = n(v), what g sends through a
//! norm is N(g, v) = ρ(h − mean h − z mean hz), without mean h of the second. Of g_y and g_s: dr = g_s + N(c g_y, s), and
//! dx = dr, or N(dr, x) of γᵢ. Kim et al., "Peri-LN" (2025).

mod steps;

use crate::narrow::Row;
use base::simd::*;
use base::store::Store;
use base::{Result, Scalar, Tensor, by_float, fetch, try_vec};
use drivers::blocks::{self, BLOCK};
use drivers::segments::places::{self, Out};
use drivers::segments::walk::Piece;
use std::ops::Range;
use steps::{Far, Kind, Weights, added, joined, sent, sum, within};

/// The bits of `needs`: of dx, of dr, and of the first of dγ, dβ, dγᵢ and dβᵢ.
const DX: i64 = 1;
const DRESIDUAL: i64 = 2;
const DWEIGHT: i64 = 4;
/// Blocks that have sums of their own, at most.
const SUMS: usize = 64;

/// cγ and cβ in float64, `absent` where there are none.
fn affine(t: &Tensor, d: usize, scale: f64, absent: f64) -> Result<Vec<f64>> {
    if t.shape() == [0] {
        return try_vec(d, absent * scale);
    }
    t.expect("weight", d)?;
    let mut all = places::numbers(t)?;
    for v in &mut all {
        *v *= scale;
    }
    Ok(all)
}

/// What both directions are told.
struct Norms {
    kind: Kind,
    inner: bool,
    /// cγ, cβ, γᵢ, βᵢ
    affine: [Vec<f64>; 4],
    /// Whether β and βᵢ are given.
    shifted: [bool; 2],
}

impl Norms {
    fn new(given: &[Tensor], d: usize, s: &[Scalar]) -> Result<Self> {
        let (kind, inner, scale) = (Kind { layer: s[0].bool(), eps: s[2].float() }, s[1].bool(), s[3].float());
        let [w, b, iw, ib] = [0, 1, 2, 3].map(|i| &given[i]);
        let affine =
            [affine(w, d, scale, 1.0)?, affine(b, d, scale, 0.0)?, affine(iw, d, 1.0, 1.0)?, affine(ib, d, 1.0, 0.0)?];
        let shifted = [b, ib].map(|t| t.shape() != [0]);
        Ok(Norms { kind, inner, affine, shifted })
    }
    /// γ and β of the norm of the sum (0) or of the one within (1), of rows of `T`.
    fn of<T: Store>(&self, which: usize) -> Result<Weights<'_>> {
        let [gamma, beta] = [0, 1].map(|i| &self.affine[2 * which + i][..]);
        Ok(Weights { row: Row::new::<T>(gamma, beta)?, plain: !self.kind.layer && !self.shifted[which] })
    }
}

struct Forward<'a, T> {
    kind: Kind,
    /// The norm of the sum, and the one within.
    norm: &'a Weights<'a>,
    inner: Option<&'a Weights<'a>>,
    d: usize,
    x: &'a [T],
    residual: &'a [T],
    y: &'a mut [T],
    s: &'a mut [T],
}

impl<T: Store> Kernel for Forward<'_, T> {
    type Output = Result<()>;
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Result<()> {
        let Forward { kind, norm, inner, d, x, residual, y, s } = self;
        let mut far = Far::default();
        let rows = x.chunks_exact(d).zip(residual.chunks_exact(d));
        for ((x, residual), (y, s)) in rows.zip(y.chunks_exact_mut(d).zip(s.chunks_exact_mut(d))) {
            if let Some(inner) = inner {
                let unit = kind.unit(simd, x, &mut far)?;
                match &far.0 {
                    None => within(simd, unit, x, inner, residual, s),
                    Some((row, _)) => added(simd, unit, row, inner, residual, s),
                }
            } else {
                sum(simd, x, residual, s);
            }
            kind.norm(simd, s, norm, y, &mut far)?;
        }
        Ok(())
    }
}

/// x, r, γ, β, γᵢ, βᵢ; y, s.
pub fn forward(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let (n, d) = t[0].rows();
    t[1].expect("residual", n * d)?;
    if n * d == 0 {
        return Ok(());
    }
    let norms = Norms::new(&t[2..6], d, s)?;
    by_float!(t[0], T => {
        let (x, residual) = (t[0].slice::<T>()?, t[1].slice::<T>()?);
        let (y, sums) = (t[6].slice_mut::<T>()?, t[7].slice_mut::<T>()?);
        t[6].expect("y", x.len())?;
        t[7].expect("s", x.len())?;
        let (y, sums) = (Out::new(y), Out::new(sums));
        let (kind, norm) = (norms.kind, norms.of::<T>(0)?);
        let inner = if norms.inner { Some(norms.of::<T>(1)?) } else { None };
        blocks::map(n, BLOCK / d, n * d, |rows| {
            let Range { start, end } = rows;
            let at = start * d..end * d;
            let piece = Piece { at: at.start, len: at.len(), of: [] };
            let (y, s) = (y.part(&piece), sums.part(&piece));
            let (norm, inner) = (&norm, inner.as_ref());
            dispatch(Forward { kind, norm, inner, d, x: &x[at.clone()], residual: &residual[at], y, s })
        })
        .map(drop)
    })
}

/// Bytes of rows that are asked for one ahead: of four arrays in turn, none is foreseen.
const SHORT: usize = 4 << 10;

/// Asks for the row after the first of `x`.
#[inline(always)]
fn ahead<T>(x: &[T], d: usize) {
    for line in x[..d].chunks((64 / size_of::<T>()).max(1)) {
        fetch(line.as_ptr().wrapping_add(d));
    }
}

struct Backward<'a, T> {
    norms: &'a Norms,
    d: usize,
    /// g_y, g_s, x and s
    given: [&'a [T]; 4],
    dx: &'a mut [T],
    dr: &'a mut [T],
    /// dγ/c, dβ/c, dγᵢ and dβᵢ, empty where they are not wanted
    sums: &'a mut [Vec<f64>; 4],
    room: Vec<f64>,
}

impl<T: Store> Kernel for Backward<'_, T> {
    type Output = Result<()>;
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Result<()> {
        let Backward { norms, d, given, dx, dr, sums: [dw, db, dwi, dbi], room: mut all } = self;
        let (kind, [mut far, mut within]) = (norms.kind, [const { Far(None) }; 2]);
        let inside = norms.inner && !(dx.is_empty() && dwi.is_empty() && dbi.is_empty());
        for (i, x) in given[2].chunks_exact(d).enumerate() {
            let at = i * d..(i + 1) * d;
            let [gy, gs, s] = [0, 1, 3].map(|k| &given[k][at.clone()]);
            if d * size_of::<T>() <= SHORT {
                for v in given {
                    ahead(&v[at.start..], d);
                }
            }
            // both roots are waited for together
            let unit = kind.unit(simd, s, &mut far)?;
            let own = if inside { kind.unit(simd, x, &mut within)? } else { [0.0; 2] };
            // without a norm within, what goes on is dx too
            let [dx, dr] = [&mut *dx, &mut *dr].map(|v| if v.is_empty() { v } else { &mut v[at.clone()] });
            let (first, second) = if norms.inner || !dr.is_empty() { (dr, dx) } else { (dx, dr) };
            let (gamma, into) = (&norms.affine[0], [&mut dw[..], &mut db[..]]);
            match &far.0 {
                None => {
                    let of = kind.pull(simd, unit, (gy, s, 0), gamma, into);
                    joined(simd, of, gamma, (gy, s, gs), &mut all, first);
                }
                Some((s, by)) => {
                    let of = kind.pull(simd, unit, (gy, s, *by), gamma, into);
                    joined(simd, of, gamma, (gy, s, gs), &mut all, first);
                }
            }
            if !norms.inner && !second.is_empty() {
                second.copy_from_slice(first);
            }
            if !inside {
                continue;
            }
            let (gamma, into) = (&norms.affine[2], [&mut dwi[..], &mut dbi[..]]);
            match &within.0 {
                None => {
                    let of = kind.pull(simd, own, (&all[..], x, 0), gamma, into);
                    if !second.is_empty() {
                        sent(simd, of, gamma, &all, x, second);
                    }
                }
                Some((x, by)) => {
                    let of = kind.pull(simd, own, (&all[..], x, *by), gamma, into);
                    if !second.is_empty() {
                        sent(simd, of, gamma, &all, x, second);
                    }
                }
            }
        }
        Ok(())
    }
}

fn whole<'a, T: Store>(t: &Tensor<'a>) -> Result<Out<'a, T>> {
    Ok(Out::new(t.slice_mut::<T>()?))
}

/// g_y, g_s, x, γ, β, γᵢ, βᵢ, s; dx, dr, dγ, dβ, dγᵢ, dβᵢ.
pub fn backward(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let (n, d) = t[2].rows();
    let needs = s[4].int();
    for (name, at) in [("gy", 0), ("gs", 1), ("s", 7)] {
        t[at].expect(name, n * d)?;
    }
    let norms = Norms::new(&t[3..7], d, s)?;
    let wanted = [0, 1, 2, 3].map(|i| needs & DWEIGHT << i != 0 && t[3 + i].shape() != [0]);
    let any = wanted.contains(&true);
    by_float!(t[2], T => {
        let given = [t[0].slice::<T>()?, t[1].slice::<T>()?, t[2].slice::<T>()?, t[7].slice::<T>()?];
        let [dx, dr] = [(DX, &t[8]), (DRESIDUAL, &t[9])].map(|(bit, t)| (needs & bit != 0).then_some(t));
        for t in [dx, dr].into_iter().flatten() {
            t.expect("the gradient", n * d)?;
        }
        let (dx, dr) = (dx.map(whole::<T>).transpose()?, dr.map(whole::<T>).transpose()?);
        let each = (BLOCK / d.max(1)).max(if any { n.div_ceil(SUMS) } else { 1 });
        let tables = blocks::map(if d == 0 { 0 } else { n }, each, n * d, |rows| {
            let at = rows.start * d..rows.end * d;
            let piece = Piece { at: at.start, len: at.len(), of: [] };
            let [dx, dr] = [&dx, &dr].map(|t| t.as_ref().map_or(&mut [][..], |t| t.part(&piece)));
            let mut sums = [const { Vec::new() }; 4];
            for (sum, wanted) in sums.iter_mut().zip(wanted) {
                *sum = try_vec(if wanted { d } else { 0 }, 0.0)?;
            }
            let room = try_vec(d, 0.0)?;
            let given = given.map(|v| &v[at.clone()]);
            dispatch(Backward { norms: &norms, d, given, dx, dr, sums: &mut sums, room })?;
            Ok(sums)
        })?;
        let scale = s[3].float();
        for i in (0..4).filter(|&i| wanted[i]) {
            let mut all = try_vec(d, 0.0)?;
            for table in &tables {
                all.iter_mut().zip(&table[i]).for_each(|(a, b)| *a += b);
            }
            if i < 2 {
                for v in &mut all {
                    *v *= scale;
                }
            }
            places::write(&t[10 + i], &all)?;
        }
        Ok(())
    })
}
