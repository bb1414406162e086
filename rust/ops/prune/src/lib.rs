//! Magnitude pruning and row-wise top-k: one row of the table per step of a selection. The one rule: a step works on one
//! array and adds to what the steps before it counted; which steps to take is decided in Python.

mod assign;
mod obs;
mod saliency;

use base::{Dtype, Error, Op, Result, Scalar, Tensor, ops};
use drivers::knapsack::{self, Method};
use drivers::select::{self, Cut, Order, Round};

/// The tables of the family.
pub static TABLES: &[&[Op]] = &[OPS];

pub static OPS: &[Op] = ops! {
    magnitude_count(x[*], prefixes[*], start[*]; format: int, shift: int, bits: int, signed: bool, nan: int)
        -> (counts[start]) in place = count;
    magnitude_tally(x[*], thresholds[n]; format: int, signed: bool, nan: int) -> (tally[n, 2]: int64) = tally;
    magnitude_mask(x[*]; threshold: int, keep: int, high: bool, format: int, signed: bool, nan: int)
        -> (mask[x]: bool, tally[2]: int64) = mask;
    magnitude_split(x[*]; low: int, high: int, room: int, format: int)
        -> (mask[x]: bool, places[room]: int64, keys[room]: int64, found[3]: int64) = split;
    apply_mask(x[b..], mask[b..]) -> (y[x]) in place = |t, _| apply(&t[0], &t[1], &t[2]);
    apply_mask_bwd(g[b..], mask[b..]) -> (dx[g]) in place = |t, _| apply(&t[0], &t[1], &t[2]);
    topk_indices(x[.., d]; k: int, magnitude: bool, nan: int) -> (indices[.., k]: int64) = topk;
    gather_rows(x[*], indices[*]) -> (values[indices]: x) = |t, _| {
        rows(&t[0], &t[1])?;
        select::gather_rows(&t[0], t[1].slice()?, &t[2])
    };
    gather_rows_bwd(g[*], x[*], indices[*]) -> (dx[x]) = |t, _| {
        rows(&t[1], &t[2])?;
        same(&t[0], &t[2], "g", "indices")?;
        select::scatter_rows(&t[0], t[2].slice()?, &t[3])
    };
    nm_mask(x[b.., d]; n: int, m: int, format: int, signed: bool, nan: int) -> (mask[x]: bool) = |t, s| {
        let order = Order::new(s[2].int(), s[3].bool(), s[4].int())?;
        let [n, m] = [s[0], s[1]].map(|v| usize::try_from(v.int()).unwrap_or(usize::MAX));
        let name = if s[3].bool() { "score" } else { "w" };
        select::nm_mask(&t[0], order, [n, m], select::bools_mut(&t[1])?).map_err(|e| match e {
            Error::Value(text) => Error::Value(text.replace("values in x", &format!("values in {name}"))),
            e => e,
        })
    };
    group_sums(x[a, n, b], g[a, n, b]) -> (sums[n, 3]: float64) = |t, _| saliency::group_sums(t);
    assignment(cost[b.., n, m]) -> (columns[b.., n]: int64) = assign::assignment;
    obs_strip(x[r, k], factor[k, k], mask[*]?; n: int, m: int) -> (y[x], kept[x]: bool) = obs::obs_strip;
    budget_allocate(costs[l, k], losses[l, k]; budget, method: int) -> (choice[l]: int32, sums[3]: float64) = |t, s| {
        knapsack::allocate(&[t[1], t[0], t[2], t[3]], s[0].float(), Method::from_code(s[1].int())?, "method='lagrange'")
    };
};

/// counts = start + the digits of the keys of x that begin with a prefix.
fn count(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let order = Order::new(s[0].int(), s[3].bool(), s[4].int())?;
    let small = |v: Scalar, name: &str| {
        u32::try_from(v.int()).map_err(|_| Error::Value(format!("{name} must not be negative, got {}", v.int())))
    };
    let round = Round { prefixes: t[1].slice()?, shift: small(s[1], "shift")?, bits: small(s[2], "bits")? };
    let start = t[2].slice::<i64>()?;
    if start.len() != t[3].len() {
        return Err(Error::Value(format!("start has {} elements, counts {}", start.len(), t[3].len())));
    }
    order.check(&t[0])?;
    round.check(order, start.len())?;
    let same = t[2].as_ptr() == t[3].as_ptr();
    let counts = t[3].slice_mut::<i64>()?;
    if !same {
        counts.copy_from_slice(start);
    }
    select::count(&t[0], order, &round, counts)
}

/// How many keys of x lie above and how many are equal to each threshold.
fn tally(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let order = Order::new(s[0].int(), s[1].bool(), s[2].int())?;
    let out = t[2].slice_mut::<i64>()?;
    let thresholds = t[1].slice()?;
    order.check(&t[0])?;
    if out.len() == 2 * thresholds.len() {
        out.fill(0);
    }
    select::tally(&t[0], order, thresholds, out)
}

/// The mask of what lies above a threshold and of as many of its equals as may stay, and both counts.
fn mask(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let order = Order::new(s[3].int(), s[4].bool(), s[5].int())?;
    let cut = Cut {
        threshold: s[0].int(),
        keep: u64::try_from(s[1].int())
            .map_err(|_| Error::Value(format!("keep must not be negative, got {}", s[1].int())))?,
        high: s[2].bool(),
    };
    let counts = t[2].slice_mut::<i64>()?;
    if counts.len() != 2 {
        return Err(Error::Value(format!("tally has 2 elements, got {}", counts.len())));
    }
    let (above, equal) = select::mask(&t[0], order, cut, select::bools_mut(&t[1])?)?;
    counts.copy_from_slice(&[above, equal]);
    Ok(())
}

/// The mask of what lies above a window of keys, and a list of what lies inside.
fn split(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let order = Order::new(s[3].int(), false, 0)?;
    let counts = t[4].slice_mut::<i64>()?;
    if counts.len() != 3 {
        return Err(Error::Value(format!("found has 3 elements, got {}", counts.len())));
    }
    let window = (s[0].int(), s[1].int());
    let mask = select::bools_mut(&t[1])?;
    let found = select::split(&t[0], order, window, mask, t[2].slice_mut()?, t[3].slice_mut()?)?;
    counts.copy_from_slice(&[found.below as i64, found.inside as i64, i64::from(found.nonfinite)]);
    Ok(())
}

fn same(a: &Tensor, b: &Tensor, a_name: &str, b_name: &str) -> Result<()> {
    if a.shape() == b.shape() {
        return Ok(());
    }
    Err(Error::Value(format!("{a_name} has shape {:?}, {b_name} {:?}", a.shape(), b.shape())))
}

/// Whether the rows of `indices` belong to the rows of `x`.
fn rows(x: &Tensor, indices: &Tensor) -> Result<()> {
    let lead = |t: &Tensor| t.shape().split_last().map(|(_, lead)| lead.to_vec());
    if lead(x).is_some() && lead(x) == lead(indices) {
        return Ok(());
    }
    Err(Error::Value(format!("indices of shape {:?} are not the rows of x, {:?}", indices.shape(), x.shape())))
}

fn apply(x: &Tensor, mask: &Tensor, y: &Tensor) -> Result<()> {
    same(x, mask, "x", "mask")?;
    if !x.dtype().is_float() {
        return Err(Error::Type(format!("expected floats, got {}", x.dtype().name())));
    }
    select::apply(x, mask, y)
}

/// The indices of the k largest of each row.
fn topk(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let (x, nan) = (&t[0], s[2].int());
    let format = match x.dtype() {
        Dtype::F64 => 3,
        Dtype::F32 => 2,
        Dtype::F16 => 0,
        _ => 1,
    };
    let order = Order::new(format, !s[1].bool(), nan)?;
    order.check(x)?;
    let k =
        usize::try_from(s[0].int()).map_err(|_| Error::Value(format!("k must not be negative, got {}", s[0].int())))?;
    if nan == 0 && !select::finite(x)? {
        return Err(Error::Value("non-finite values in x".into()));
    }
    select::topk_rows(x, order, k, t[1].slice_mut()?)
}
