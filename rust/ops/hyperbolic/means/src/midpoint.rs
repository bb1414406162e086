//! Weighted midpoints of groups of points: of runs of rows, or of the rows that a list names. The one rule: a midpoint is
//! made of sums over its points alone, and its gradient of the differences between points and midpoint.
//!
//! N = Σ wλx, T = Σ w(λ − 1), R = √(T² − c|N|²), P = T + R with the sign of T: m = N/P, and 1 − c|m|² = 2R/P. f64 data
//! is summed in twice its precision, since R is what T² and c|N|² leave. With A = ⟨g, x − m⟩ − c|x − m|²/α_m ⟨g, m⟩:
//! dx = wλ/P [g + cλA x − cλ_m⟨g, m⟩(x − m)], dw = λA/P, dc = Σ w/P [λ²|x|²A/2 − λ⟨x, x − m⟩⟨g, m⟩/α_m]. Tangent vectors
//! at 0 have a form of their own ([`polar`]), which knows of no edge.

mod centres;
mod gather;
mod groups;
mod lift;
mod polar;
mod pull;
mod sums;

use super::place::FLAT;
use base::pool::Shared;
use base::store::Store;
use base::wide::wide;
use base::{Error, Op, Result, Scalar, Tensor, by_float, ops};
use centres::Centres;
use drivers::rows::{Margin, Wide};
use drivers::segments::{self, Lists};
use gather::{Gather, Job};
use groups::Groups;
use pull::{Out, Pull};

pub static OPS: &[Op] = ops! {
    midpoint(x[l.., d], weights[*]?, c[], indices[*]?, indptr[g]?; members: int, eps, tangent: bool)
        -> (m[g ? g - 1 : l / members, d])
        = |t, s| wide(t, 5, |t| by_float!(wide t[0], T => forward::<T>(t, s)));
    midpoint_bwd(g[*], x[l.., d], weights[*]?, c[], indices[*]?, indptr[*]?; members: int, tangent: bool)
        -> (dx[x], dweights[weights]: x, dc[c])
        = |t, s| wide(t, 6, |t| by_float!(wide t[1], T => backward::<T>(t, s)));
};

/// A curvature; with tangent vectors, 0 is no case of its own.
fn curvature(c: &Tensor, tangent: bool) -> Result<f64> {
    let c = c.number()?;
    if !(c >= 0.0 && c.is_finite()) {
        return Err(Error::Value(format!("curvature must be finite and not negative, got {c}")));
    }
    Ok(if tangent { c.max(FLAT) } else { c })
}

/// The groups that the arguments name: x, weights, c, indices, indptr, and how many members where there are no lists.
fn named<'a, T: Store>(t: &[Tensor<'a>], members: i64, tangent: bool) -> Result<Groups<'a, T>> {
    let (rows, d) = t[0].rows();
    if t[0].shape().is_empty() {
        return Err(Error::Value("x needs a last axis, got a 0-d array".into()));
    }
    let members = usize::try_from(members).map_err(|_| Error::Value(format!("{members} members in a group")))?;
    let lists = if t[4].is_empty() {
        if members == 0 || rows % members != 0 {
            return Err(Error::Value(format!("{rows} rows are not groups of {members}")));
        }
        Lists::runs(rows / members, members, d)?
    } else {
        Lists::of_csr(&t[3], &t[4], rows, d)?
    };
    let weights = if t[1].is_empty() { None } else { Some(t[1].slice::<T>()?) };
    if let Some(w) = weights
        && w.len() != lists.entries()
    {
        return Err(Error::Value(format!("{} weights for {} entries", w.len(), lists.entries())));
    }
    Ok(Groups { x: t[0].slice()?, d, c: curvature(&t[2], tangent)?, weights, lists, tangent })
}

fn forward<T: Wide>(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let margin = Margin::of(s[1].float())?;
    let groups = named::<T>(t, s[0].int(), s[2].bool())?;
    t[5].expect("m", groups.lists.len() * groups.d)?;
    means(&groups, t[5].slice_mut()?, margin)
}

/// Runs a job for every group; what is left of dc beside what rows add to it later.
fn each<T: Wide>(groups: &Groups<T>, job: Job<T>) -> Result<f64> {
    Ok(segments::each(groups, &Gather { groups, job })?.iter().fold(0.0, |a, b| a + b))
}

fn means<T: Wide>(groups: &Groups<T>, out: &mut [T], margin: Margin) -> Result<()> {
    each(groups, Job::Means { out: Shared(out.as_mut_ptr()), margin }).map(drop)
}

fn backward<T: Wide>(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let groups = named::<T>(&t[1..], s[0].int(), s[1].bool())?;
    t[0].expect("g", groups.lists.len() * groups.d)?;
    t[6].expect("dx", t[1].len())?;
    t[7].expect("dweights", groups.weights.map_or(0, <[T]>::len))?;
    t[8].set_number(pull(&groups, t[0].slice()?, t[6].slice_mut()?, t[7].slice_mut()?, false)?)
}

/// dx (`onto` what is there, for runs of rows), dweights (empty where all weights are one), and dc.
fn pull<T: Wide>(groups: &Groups<T>, g: &[T], dx: &mut [T], dw: &mut [T], onto: bool) -> Result<f64> {
    let out = Out { dx: Shared(dx.as_mut_ptr()), dw: Shared(dw.as_mut_ptr()), onto };
    let lists = &groups.lists;
    if lists.plain() && !(0..lists.len()).any(|i| lists.large(i)) {
        return each(groups, Job::Gradients { g, out });
    }
    let mut centres = Centres::new(groups, lists.len())?;
    let own = each(groups, Job::Centres { g, into: &centres.places() })?;
    let sent = segments::spread(groups, lists.turned()?.as_ref(), &Pull { groups, centres: &centres, out })?;
    Ok(own + sent.iter().fold(0.0, |a, b| a + b))
}

/// All rows as one group.
fn whole<'a, T: Store>(x: &Tensor<'a>, c: &Tensor, tangent: bool) -> Result<Groups<'a, T>> {
    let ((rows, d), c) = (x.rows(), curvature(c, tangent)?);
    Ok(Groups { x: x.slice()?, d, c, weights: None, lists: Lists::runs(1, rows, d)?, tangent })
}

/// The midpoint of all rows of x.
pub(super) fn middle<T: Wide>(x: &Tensor, c: &Tensor, tangent: bool, out: &mut [T], margin: Margin) -> Result<()> {
    means(&whole(x, c, tangent)?, out, margin)
}

/// Adds its gradient to dx; dc.
pub(super) fn middle_bwd<T: Wide>(x: &Tensor, c: &Tensor, tangent: bool, g: &[T], dx: &mut [T]) -> Result<f64> {
    pull(&whole(x, c, tangent)?, g, dx, &mut [], true)
}
