//! The table of operators, family by family.

use base::Op;

/// Every operator there is.
pub fn all() -> impl Iterator<Item = &'static Op> {
    [hyperbolic::TABLES, lorentz::TABLES, project::TABLES, prune::TABLES, quant::TABLES, sparse::TABLES]
        .into_iter()
        .flatten()
        .copied()
        .flatten()
}
