//! The table of operators, family by family. The one rule: a name stands once in its family.

pub mod signature;

use base::{Result, Scalar, Tensor};
use signature::Signature;
use std::sync::LazyLock;

/// An operator, its signature read.
pub struct Operator {
    /// Whose name it is: another family may have an operator of the same name.
    pub family: &'static str,
    pub signature: Signature,
    /// Whether an output may be exactly the memory of an input.
    pub alias: bool,
    /// Inputs, then outputs; then the scalars.
    pub run: fn(&[Tensor], &[Scalar]) -> Result<()>,
}

impl Operator {
    /// What it is called in its family, and in errors.
    pub fn name(&self) -> &'static str {
        self.signature.name
    }
    /// What the registry calls it.
    pub fn key(&self) -> String {
        format!("{}.{}", self.family, self.name())
    }
    /// What torch calls it, in its namespace.
    pub fn symbol(&self) -> String {
        format!("{}_{}", self.family, self.name())
    }
}

static ALL: LazyLock<Vec<Operator>> = LazyLock::new(|| {
    // one line a crate: its family, which may have several
    let tables = [
        ("foreach", foreach::TABLES),
        ("graph", graph::TABLES),
        ("hyperbolic", hyperbolic_distances::TABLES),
        ("hyperbolic", hyperbolic_geodesics::TABLES),
        ("hyperbolic", hyperbolic_maps::TABLES),
        ("hyperbolic", hyperbolic_means::TABLES),
        ("hyperbolic", hyperbolic_pairwise::TABLES),
        ("hyperbolic", hyperbolic_planes::TABLES),
        ("hyperbolic", hyperbolic_transport::TABLES),
        ("lorentz", lorentz::TABLES),
        ("loss", loss::TABLES),
        ("metrics", metrics::TABLES),
        ("norm", norm::TABLES),
        ("project", project::TABLES),
        ("prune", prune::TABLES),
        ("quant", quant::TABLES),
        ("random", random::TABLES),
        ("reduce", reduce::TABLES),
        ("sparse", sparse::TABLES),
    ];
    let read = |family, op: &base::Op| Operator {
        family,
        signature: Signature::parse(op.name, op.inputs, op.outputs).unwrap_or_else(|e| panic!("{e}")),
        alias: op.alias,
        run: op.run,
    };
    tables
        .iter()
        .flat_map(|&(family, tables)| tables.iter().copied().flatten().map(move |op| read(family, op)))
        .collect()
});

/// Every operator there is.
pub fn all() -> &'static [Operator] {
    &ALL
}
