//! What a projection is made of. The one rule: its first number says which kind it is, and each kind reads its own number.

use super::matrix::{Kind, Matrix};
use super::sketch::Sketch;
use super::sum::Sum;
use super::transform::Transform;
use super::{dense, loud, sparse};
use base::lane::Stored;
use base::random::tag;
use base::{Result, Scalar};

#[derive(Clone, Copy)]
pub enum Projection {
    /// Every entry is a function of its row and column.
    Entries(Matrix),
    Sketch(Sketch),
    Transform(Transform),
}

impl Projection {
    /// From the scalars that every operator on a matrix takes.
    pub fn new(c: &[Scalar]) -> Result<Self> {
        match u8::try_from(c[0].int()) {
            Ok(tag::COUNTSKETCH) => Sketch::new(c).map(Self::Sketch),
            Ok(tag::SRHT | tag::SPINNER | tag::FASTFOOD) => Transform::new(c).map(Self::Transform),
            _ => Matrix::new(c).map(Self::Entries),
        }
    }

    pub fn matrix(&self) -> &Matrix {
        match self {
            Self::Entries(m)
            | Self::Sketch(Sketch { matrix: m, .. })
            | Self::Transform(Transform { matrix: m, .. }) => m,
        }
    }
    pub fn matrix_mut(&mut self) -> &mut Matrix {
        match self {
            Self::Entries(m)
            | Self::Sketch(Sketch { matrix: m, .. })
            | Self::Transform(Transform { matrix: m, .. }) => m,
        }
    }

    /// y = P x, or Pᵀ x for the adjoint, row by row.
    pub fn apply<T: Stored<Lane: Sum>>(&self, x: &[T], y: &mut [T]) -> Result<()> {
        if y.is_empty() {
            return Ok(());
        }
        if x.is_empty() {
            y.fill(T::default());
            return Ok(());
        }
        if let Self::Transform(transform) = self {
            return transform.apply(x, y);
        }
        self.entries(x, y)?;
        loud::anew(self, x, y)
    }

    /// The same where sums may overflow on the way; a transform looks at its rows itself.
    pub fn entries<T: Stored<Lane: Sum>>(&self, x: &[T], y: &mut [T]) -> Result<()> {
        let n = y.len() / self.matrix().outputs();
        match self {
            Self::Entries(matrix) if matches!(matrix.kind, Kind::Sparse(_)) => sparse::apply(matrix, x, y, n),
            Self::Entries(matrix) => dense::apply(matrix, x, y, n),
            Self::Sketch(sketch) => sketch.apply(x, y),
            Self::Transform(transform) => transform.apply(x, y),
        }
    }
}
