//! The table of operators, family by family. The one rule: a name stands once.

pub mod signature;

use base::{Result, Scalar, Tensor};
use signature::Signature;
use std::sync::LazyLock;

/// An operator, its signature read.
pub struct Operator {
    pub signature: Signature,
    /// Whether an output may be exactly the memory of an input.
    pub alias: bool,
    /// Inputs, then outputs; then the scalars.
    pub run: fn(&[Tensor], &[Scalar]) -> Result<()>,
}

impl Operator {
    pub fn name(&self) -> &'static str {
        self.signature.name
    }
}

static ALL: LazyLock<Vec<Operator>> = LazyLock::new(|| {
    let tables = [
        hyperbolic_maps::TABLES,
        hyperbolic_means::TABLES,
        hyperbolic_pairwise::TABLES,
        hyperbolic_planes::TABLES,
        hyperbolic_transport::TABLES,
        lorentz::TABLES,
        loss::TABLES,
        norm::TABLES,
        project::TABLES,
        prune::TABLES,
        quant::TABLES,
        sparse::TABLES,
    ];
    let read = |op: &base::Op| Operator {
        signature: Signature::parse(op.name, op.inputs, op.outputs).unwrap_or_else(|e| panic!("{e}")),
        alias: op.alias,
        run: op.run,
    };
    tables.into_iter().flatten().copied().flatten().map(read).collect()
});

/// Every operator there is.
pub fn all() -> &'static [Operator] {
    &ALL
}
