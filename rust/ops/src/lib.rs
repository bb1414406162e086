//! The table of operators, family by family.

use base::Op;

/// Every operator there is.
pub fn all() -> impl Iterator<Item = &'static Op> {
    [
        hyperbolic_maps::TABLES,
        hyperbolic_means::TABLES,
        hyperbolic_pairwise::TABLES,
        hyperbolic_planes::TABLES,
        hyperbolic_transport::TABLES,
        lorentz::TABLES,
        loss::TABLES,
        project::TABLES,
        prune::TABLES,
        quant::TABLES,
        sparse::TABLES,
    ]
    .into_iter()
    .flatten()
    .copied()
    .flatten()
}
