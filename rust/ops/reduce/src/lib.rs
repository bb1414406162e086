//! Reductions over what belongs together. The one rule: a segment that is empty says so, and what is not finite stays in its own.

mod fold;
mod moments;
mod rows;

use base::{Op, ops};

/// The tables of the family.
pub static TABLES: &[&[Op]] = &[OPS];

pub static OPS: &[Op] = ops! {
    row_groups(rows[n, w]) -> (ids[n]: int64, first[n]: int64, counts[n]: int64, different[1]: int64) = rows::groups;
    segment_moments(x[*], labels[*]?, weight[*]?; kept: int, groups: int)
        -> (count[grain(x, kept, groups)]: float64, mean[grain(x, kept, groups)]: float64,
            var[grain(x, kept, groups)]: float64)
        = moments::forward;
    segment_moments_bwd(gcount[*], gmean[*], gvar[*], x[*], labels[*]?, weight[*]?, count[*], mean[*], var[*];
            kept: int, groups: int, needs: needs)
        -> (dx[x]?, dweight[weight]?)
        = moments::backward;
    segment_sum(x[*], labels[*]?, weight[*]?; kept: int, groups: int) -> (y[grain(x, kept, groups)]) = fold::sum;
    segment_sum_bwd(g[*], x[*], labels[*]?, weight[*]?; kept: int, groups: int, needs: needs)
        -> (dx[x]?, dweight[weight]?)
        = moments::sum_backward;
    segment_extreme(x[*], labels[*]?; kept: int, groups: int, largest: bool)
        -> (y[grain(x, kept, groups)], (at[grain(x, kept, groups)]: int64))
        = fold::extreme;
    segment_extreme_bwd(g[*], x[*], at[*]) -> (dx[x]) = fold::extreme_backward;
    segment_logsumexp(x[*], labels[*]?; kept: int, groups: int)
        -> (y[grain(x, kept, groups)], (total[grain(x, kept, groups)]: float64))
        = fold::logsumexp;
    segment_logsumexp_bwd(g[*], x[*], labels[*]?, total[*]; kept: int, groups: int) -> (dx[x])
        = fold::logsumexp_backward;
    segment_whole(x[*], labels[*]?; kept: int, groups: int, kind: int) -> (y[grain(x, kept, groups)]: int64)
        = fold::whole;
};
