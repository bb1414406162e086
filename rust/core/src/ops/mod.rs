//! The table of operators, family by family. Adding one adds a row in its family's file and nothing here.

pub mod hyperbolic;
pub mod lorentz;
pub mod project;
pub mod prune;
pub mod quant;
pub mod sparse;

use crate::Op;

/// Every operator there is.
pub fn all() -> impl Iterator<Item = &'static Op> {
    [
        hyperbolic::OPS,
        hyperbolic::pairwise::OPS,
        hyperbolic::midpoint::OPS,
        hyperbolic::linear::OPS,
        hyperbolic::normal::OPS,
        lorentz::OPS,
        quant::OPS,
        prune::OPS,
        sparse::OPS,
        project::OPS,
    ]
    .into_iter()
    .flatten()
}
