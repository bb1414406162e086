//! Projections made of Walsh–Hadamard transforms. The one rule: signs, normals and places are made where they meet the numbers,
//! and a row needs no more room than one transform.
//!
//! With H the transform of length N = 2^m, not normalised, and D diagonals of signs:
//!
//! * srht: R H D/√k, R the rows π(0), π(1), … (Ailon and Chazelle 2009; Tropp 2011);
//! * spinner: √(N/k)·(H Dₜ/√N) … (H D₀/√N), one such block for every N rows (Bojarski et al. 2017);
//! * fastfood: H G Π H B/√(k·ΣG²) of length N ≥ max(d, k) (Le, Sarlós and Smola 2013; Li et al. 2018). H of x with zeros up to N
//!   is H of x with zeros up to the next power of two, repeated: one transform is short, and Π reads from the caches.
//!
//! The scale 1/√k is the caller's.

use super::matrix::{Kind, Matrix};
use base::lane::{Lane, Stored};
use base::random::{Permutation, Source, tag};
use base::simd::*;
use base::store::Store;
use base::{Error, Result, Scalar, try_vec};
use drivers::{blocks, butterfly};
use pieces::{Places, Times, put, take};

mod draw;
mod fastfood;
mod pieces;

/// Numbers that are drawn at a time.
const CHUNK: usize = 2048;
/// Transforms up to this length go side by side; a longer one is cut among the threads.
const SHORT: usize = 1 << 14;

#[derive(Clone, Copy)]
enum Form {
    Srht,
    /// With the number of its turns.
    Spinner(u64),
    /// With the bits of the short transform, and what G is made of.
    Fastfood(u32, Kind),
}

#[derive(Clone, Copy)]
pub struct Transform {
    pub matrix: Matrix,
    form: Form,
    /// N = 2^m.
    m: u32,
}

/// What a row needs beside its numbers.
struct Room<L> {
    /// One transform.
    whole: Vec<L>,
    /// The short one of Fastfood, or the sum over the blocks of a spinner.
    other: Vec<L>,
}

impl Transform {
    /// Its own number is m, plus 2^8 times turns (spinner) or bits of the short transform (fastfood, plus 2^16 where G = ±1).
    pub fn new(c: &[Scalar]) -> Result<Self> {
        let (kind, own) = (c[0].int() as u8, c[3].int());
        let matrix = Matrix::of(Kind::Rademacher, kind, c)?;
        let (m, more) = ((own & 0xff) as u32, (own >> 8 & 0xff) as u32);
        let form = match kind {
            tag::SRHT => Form::Srht,
            tag::SPINNER => Form::Spinner(more.into()),
            _ => Form::Fastfood(more, if own >> 16 == 0 { Kind::Gaussian } else { Kind::Rademacher }),
        };
        let fits = match form {
            Form::Srht => more == 0,
            Form::Spinner(turns) => (1..=3).contains(&turns),
            Form::Fastfood(inner, _) => inner <= m,
        };
        if own < 0 || own >> 17 != 0 || m > 31 || !fits {
            return Err(Error::Value(format!("no transform of this kind has the number {own}")));
        }
        let (rows, columns) = (matrix.row as usize + matrix.rows, matrix.col as usize + matrix.cols);
        let wide = if let Form::Fastfood(inner, _) = form { inner } else { m };
        if columns > 1 << wide || (rows > 1 << m && !matches!(form, Form::Spinner(_))) {
            return Err(Error::Value(format!(
                "rows and columns must stay in 2^{m} and 2^{wide}, got {rows} and {columns}"
            )));
        }
        Ok(Transform { matrix, form, m })
    }

    fn len(&self) -> usize {
        1 << self.m
    }
    fn source(&self) -> Source {
        self.matrix.source
    }
    /// The permutation that the column of words 1 holds.
    fn places(&self) -> Permutation {
        self.source().permutation(1, self.m)
    }
    /// Numbers of one column of words, from `first` on.
    fn line(&self, a: u64, kind: Kind, first: usize, out: &mut [f32]) {
        self.matrix.column(kind).line(a as usize, first, out);
    }

    /// Whether the row is made where its transform needs it, and needs no room of its own.
    fn blockwise(&self) -> bool {
        matches!(self.form, Form::Fastfood(..)) && !self.matrix.adjoint && self.len() > SHORT
    }

    fn room<L: Lane>(&self) -> Result<Room<L>> {
        let other = match self.form {
            Form::Fastfood(inner, _) => 1 << inner,
            Form::Spinner(_) if self.matrix.adjoint => self.len(),
            _ => 0,
        };
        let whole = if self.blockwise() { 0 } else { self.len() };
        Ok(Room { whole: try_vec(whole, L::of(0.0))?, other: try_vec(other, L::of(0.0))? })
    }

    /// y = P x, or Pᵀ x for the adjoint, row by row.
    pub fn apply<T: Stored>(&self, x: &[T], y: &mut [T]) -> Result<()> {
        let (outputs, terms) = (self.matrix.outputs(), self.matrix.terms());
        if self.len() <= SHORT {
            return blocks::fill(y, outputs, (self.len() / outputs).max(1), |first, y| {
                let mut room = self.room()?;
                let x = x[first * terms..].chunks_exact(terms);
                x.zip(y.chunks_exact_mut(outputs)).try_for_each(|(x, y)| self.row(x, y, &mut room))
            });
        }
        let mut room = self.room()?;
        x.chunks_exact(terms).zip(y.chunks_exact_mut(outputs)).try_for_each(|(x, y)| self.row(x, y, &mut room))
    }

    fn row<T: Stored>(&self, x: &[T], y: &mut [T], room: &mut Room<T::Lane>) -> Result<()> {
        match (self.form, self.matrix.adjoint) {
            (Form::Srht, false) => self.sample(x, y, &mut room.whole),
            (Form::Srht, true) => self.spread(x, y, &mut room.whole),
            (Form::Spinner(turns), false) => self.spin(turns, x, y, &mut room.whole),
            (Form::Spinner(turns), true) => self.unspin(turns, x, y, room),
            (Form::Fastfood(_, kind), false) => self.expand(kind, x, y, room),
            (Form::Fastfood(_, kind), true) => self.contract(kind, x, y, room),
        }
    }

    /// R H D x.
    fn sample<T: Stored>(&self, x: &[T], y: &mut [T], a: &mut [T::Lane]) -> Result<()> {
        let (row, col, places) = (self.matrix.row as usize, self.matrix.col as usize, self.places());
        put(x, col, a)?;
        self.signs(0, a)?;
        butterfly::row(a, 1.0)?;
        blocks::fill(y, 1, 1, |first, y| {
            for (i, y) in y.iter_mut().enumerate() {
                let at = places.at((row + first + i) as u64) as usize;
                *y = T::from_f64(a[at].to_f64() * self.matrix.scale);
            }
            Ok(())
        })
    }

    /// D H Rᵀ x.
    fn spread<T: Stored>(&self, x: &[T], y: &mut [T], a: &mut [T::Lane]) -> Result<()> {
        let (row, col, places) = (self.matrix.row as usize, self.matrix.col as usize, self.places());
        blocks::fill(a, 1, 1, |first, a| {
            let mut back = [0; CHUNK];
            for (n, a) in a.chunks_mut(CHUNK).enumerate() {
                let back = &mut back[..a.len()];
                dispatch(Places { of: &places, back: true, first: first + n * CHUNK, out: back });
                for (a, &at) in a.iter_mut().zip(&*back) {
                    let v = x.get((at as usize).wrapping_sub(row));
                    *a = v.map_or(T::Lane::of(0.0), |v| T::Lane::of(v.to_f64()));
                }
            }
            Ok(())
        })?;
        butterfly::row(a, 1.0)?;
        self.signs(0, a)?;
        take(&a[col..], self.matrix.scale, y)
    }

    /// For every block H Dₜ … H D₀ x, all but the last transform divided by √N.
    fn spin<T: Stored>(&self, turns: u64, x: &[T], y: &mut [T], a: &mut [T::Lane]) -> Result<()> {
        let (row, root) = (self.matrix.row as usize, 1.0 / (self.len() as f64).sqrt());
        let mut done = 0;
        while done < y.len() {
            let (block, from) = ((row + done) / self.len(), (row + done) % self.len());
            let y = &mut y[done..];
            let many = y.len().min(self.len() - from);
            put(x, self.matrix.col as usize, a)?;
            for t in 0..turns {
                self.signs(3 * block as u64 + t, a)?;
                butterfly::row(a, if t + 1 == turns { 1.0 } else { root })?;
            }
            take(&a[from..], self.matrix.scale, &mut y[..many])?;
            done += many;
        }
        Ok(())
    }

    /// The sum over the blocks of D₀ H … Dₜ H x.
    fn unspin<T: Stored>(&self, turns: u64, x: &[T], y: &mut [T], room: &mut Room<T::Lane>) -> Result<()> {
        let (row, root) = (self.matrix.row as usize, 1.0 / (self.len() as f64).sqrt());
        let (a, sum) = (&mut room.whole, &mut room.other);
        sum.fill(T::Lane::of(0.0));
        let mut done = 0;
        while done < x.len() {
            let (block, from) = ((row + done) / self.len(), (row + done) % self.len());
            let many = (x.len() - done).min(self.len() - from);
            put(&x[done..done + many], from, a)?;
            for t in (0..turns).rev() {
                butterfly::row(a, if t + 1 == turns { 1.0 } else { root })?;
                self.signs(3 * block as u64 + t, a)?;
            }
            let a = &*a;
            blocks::fill(sum, 1, 1, |first, sum| {
                for (sum, a) in sum.iter_mut().zip(&a[first..]) {
                    *sum = T::Lane::of(sum.to_f64() + a.to_f64());
                }
                Ok(())
            })?;
            done += many;
        }
        take(&sum[self.matrix.col as usize..], self.matrix.scale, y)
    }

    /// The row times the signs of a column of words.
    fn signs<L: Lane>(&self, a: u64, x: &mut [L]) -> Result<()> {
        blocks::fill(x, 1, 1, |first, x| {
            let mut signs = [0.0; CHUNK];
            for (n, x) in x.chunks_mut(CHUNK).enumerate() {
                let signs = &mut signs[..x.len()];
                self.line(a, Kind::Rademacher, first + n * CHUNK, signs);
                dispatch(Times { x, signs });
            }
            Ok(())
        })
    }
}
