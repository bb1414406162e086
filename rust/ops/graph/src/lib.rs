//! Graphs: attention along edges, what neighbourhoods have in common, nearest rows. The one rule: the places of a graph are copied
//! and checked before anything is computed, so that whoever writes to them meanwhile changes nothing.

mod attention;
mod meet;
mod nearest;
mod sets;
mod walk;

use base::{Op, Result, Tensor, ops};
use drivers::index::{self, Index};

use drivers::by_index;

/// The tables of the family.
pub static TABLES: &[&[Op]] = &[OPS];

pub static OPS: &[Op] = ops! {
    edge_attention(q[n, h, d], k[m, h, d], v[m, h, e], indices[s], indptr[n + 1], t_indices[*]?, t_indptr[*]?; clamp, eps)
        -> (y[n, h, e]) = attention::forward;
    edge_attention_bwd(g[n, h, e], q[n, h, d], k[m, h, d], v[m, h, e], indices[s], indptr[n + 1], t_indices[*]?, t_indptr[*]?;
        clamp, eps, needs: needs)
        -> (dq[q]?, dk[k]?, dv[v]?) = attention::backward;
    meet_count(u[p], v[p], indices[s], indptr[n + 1]; kind: int) -> (offsets[p + 1]: int64) = meet::count;
    meet_fill(u[p], v[p], indices[s], indptr[n + 1]; kind: int, total: int) -> (ids[total]: int64) = meet::fill;
    row_dots(data[s], indices[s], indptr[n + 1], u[p], v[p]) -> (dot[p]) = meet::dots;
    nearest(x[n, d], y[m, d], c[], x_labels[n]?, y_labels[m]?; metric: int, k: int, others: bool)
        -> (distances[n, k], indices[n, k]: int64) = nearest::rows;
    hamming(x[n, w], y[m, w]; k: int, others: bool) -> (distances[n, k]: int64, indices[n, k]: int64) = nearest::codes;
};

/// The places of a graph: where the rows begin, and their columns, each below `cols`.
struct Places {
    ptr: Vec<usize>,
    columns: Vec<usize>,
}

impl Places {
    fn new<I: Index>(indices: &Tensor, indptr: &Tensor, cols: usize) -> Result<Places> {
        let indices = indices.slice::<I>()?;
        let ptr = index::offsets(indptr.slice::<I>()?, indices.len())?;
        Ok(Places { ptr, columns: below::<I>("indices", indices, cols)? })
    }
    fn rows(&self) -> usize {
        self.ptr.len() - 1
    }
    fn row(&self, i: usize) -> &[usize] {
        &self.columns[self.ptr[i]..self.ptr[i + 1]]
    }
}

/// A copy of a list of numbers below a limit.
fn below<I: Index>(name: &str, list: &[I], limit: usize) -> Result<Vec<usize>> {
    index::copied(list, |at, v| if v < limit { Ok(()) } else { Err(index::outside(name, at, v, 0, limit)) })
}
