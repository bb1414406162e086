//! What all rows of a call share: signs, places, normals. The one rule: it is drawn once, as far as it is not much beside a row.

use super::draw::Draw;
use super::pieces::{Flip, Places, Words, parts};
use super::{Form, SHORT, Transform};
use base::lane::Lane;
use base::simd::*;
use base::{Result, try_vec};
use std::borrow::Cow;

/// Words of signs that are kept: of spinners with more blocks they are drawn where they are needed.
const KEPT: usize = 1 << 20;

#[derive(Default)]
pub struct Once {
    /// Signs of one column of words after the other.
    signs: Vec<u32>,
    /// The column of the first, and how many words each has.
    first: u64,
    each: usize,
    /// Where srht finds the numbers of its result; of a short Fastfood, where each of its numbers comes from.
    pub places: Vec<u32>,
    /// G and √ΣG² of a short Fastfood.
    pub g: Vec<f32>,
    pub norm: f64,
}

impl Transform {
    pub(super) fn once(&self) -> Result<Once> {
        let matrix = &self.matrix;
        let short = self.len() <= SHORT;
        let (mut wide, mut columns) = (self.len(), 0..1);
        let mut once = Once::default();
        match self.form {
            Form::Srht => {
                once.places = try_vec(matrix.rows, 0)?;
                let (of, row) = (self.places(), matrix.row as usize);
                parts(&mut once.places, |first, out| {
                    dispatch(Places { of: &of, back: false, first: row + first, out });
                })?;
            }
            Form::Spinner(_) => {
                let block = |row: usize| (row / self.len()) as u64;
                let row = matrix.row as usize;
                columns = 3 * block(row)..3 * block((row + matrix.rows).saturating_sub(1)) + 3;
            }
            Form::Fastfood(inner, kind) => {
                wide = 1 << inner;
                if short && !matrix.adjoint {
                    (once.places, once.g) = (try_vec(self.len(), 0)?, try_vec(self.len(), 0.0)?);
                    dispatch(Places { of: &self.places(), back: false, first: 0, out: &mut once.places });
                    let draw = Draw::<f32>::new(matrix.column(kind), &[], self.places(), self.len())?;
                    for (n, g) in once.g.chunks_mut(super::CHUNK).enumerate() {
                        draw.numbers(n * super::CHUNK, g);
                    }
                    once.norm = draw.norm();
                }
            }
        }
        (once.first, once.each) = (columns.start, wide.div_ceil(32));
        let many = (columns.end - columns.start) as usize;
        if many.saturating_mul(once.each) <= KEPT.max(once.each) {
            once.signs = try_vec(many * once.each, 0)?;
            for (column, words) in columns.zip(once.signs.chunks_mut(once.each)) {
                self.words(column, words)?;
            }
        }
        Ok(once)
    }

    fn words(&self, column: u64, words: &mut [u32]) -> Result<()> {
        parts(words, |first, out| dispatch(Words { source: self.source(), column, first, out }))
    }

    /// The row times the signs of a column of words.
    pub(super) fn signs<L: Lane>(&self, once: &Once, column: u64, x: &mut [L]) -> Result<()> {
        let words = if once.signs.is_empty() {
            let mut words = try_vec(once.each, 0)?;
            self.words(column, &mut words)?;
            Cow::Owned(words)
        } else {
            Cow::Borrowed(&once.signs[(column - once.first) as usize * once.each..][..once.each])
        };
        parts(x, |first, x| dispatch(Flip { x, words: &words[first / 32..] }))
    }
}
