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
use once::Once;
use pieces::{Take, parts, put, take};

mod draw;
mod fastfood;
mod once;
pub mod pieces;

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

    /// By how many bits numbers may grow on the way to a result.
    fn growth(&self) -> i32 {
        let adjoint = self.matrix.adjoint;
        let bits = match self.form {
            Form::Srht => self.m,
            // all turns but one are divided by √N, after their sums; the adjoint adds up blocks
            Form::Spinner(turns) => {
                let blocks = if adjoint { (self.matrix.rows >> self.m) + 2 } else { 1 };
                (self.m * (turns as u32 + 1)).div_ceil(2) + blocks.next_power_of_two().trailing_zeros() + 1
            }
            // a normal is below 2^3
            Form::Fastfood(inner, _) => self.m + 3 + if adjoint { self.m } else { inner },
        };
        bits as i32
    }

    /// Divides a row of numbers so large that sums of them could overflow by a power of two, which it returns.
    fn quiet<L: Lane>(&self, a: &mut [L]) -> Result<f64> {
        let (down, up) = butterfly::quiet::<L>(butterfly::peak(a), self.growth());
        if up > 1.0 {
            parts(a, |_, a| a.iter_mut().for_each(|a| *a *= L::of(down)))?;
        }
        Ok(up)
    }

    /// y = P x, or Pᵀ x for the adjoint, row by row.
    pub fn apply<T: Stored>(&self, x: &[T], y: &mut [T]) -> Result<()> {
        let (outputs, terms, once) = (self.matrix.outputs(), self.matrix.terms(), self.once()?);
        if self.len() <= SHORT {
            return blocks::fill(y, outputs, (self.len() / outputs).max(1), |first, y| {
                let mut room = self.room()?;
                let x = x[first * terms..].chunks_exact(terms);
                x.zip(y.chunks_exact_mut(outputs)).try_for_each(|(x, y)| self.row(&once, x, y, &mut room))
            });
        }
        let mut room = self.room()?;
        let mut rows = x.chunks_exact(terms).zip(y.chunks_exact_mut(outputs));
        rows.try_for_each(|(x, y)| self.row(&once, x, y, &mut room))
    }

    fn row<T: Stored>(&self, once: &Once, x: &[T], y: &mut [T], room: &mut Room<T::Lane>) -> Result<()> {
        match (self.form, self.matrix.adjoint) {
            (Form::Srht, false) => self.sample(once, x, y, &mut room.whole),
            (Form::Srht, true) => self.spread(once, x, y, &mut room.whole),
            (Form::Spinner(turns), false) => self.spin(once, turns, x, y, &mut room.whole),
            (Form::Spinner(turns), true) => self.unspin(once, turns, x, y, room),
            (Form::Fastfood(_, kind), false) => self.expand(once, kind, x, y, room),
            (Form::Fastfood(_, kind), true) => self.contract(once, kind, x, y, room),
        }
    }

    /// R H D x.
    fn sample<T: Stored>(&self, once: &Once, x: &[T], y: &mut [T], a: &mut [T::Lane]) -> Result<()> {
        put(x, self.matrix.col as usize, a)?;
        let scale = self.quiet(a)? * self.matrix.scale;
        self.signs(once, 0, a)?;
        butterfly::row(a, 1.0)?;
        let a = &*a;
        parts(y, |first, y| {
            let mut some = [T::Lane::of(0.0); 256];
            for (y, places) in y.chunks_mut(some.len()).zip(once.places[first..].chunks(some.len())) {
                for (v, &at) in some.iter_mut().zip(places) {
                    *v = a[at as usize];
                }
                dispatch(Take { a: &some, scale, y });
            }
        })
    }

    /// D H Rᵀ x.
    fn spread<T: Stored>(&self, once: &Once, x: &[T], y: &mut [T], a: &mut [T::Lane]) -> Result<()> {
        a.fill(T::Lane::of(0.0));
        for (v, &at) in x.iter().zip(&once.places) {
            a[at as usize] = T::Lane::of(v.to_f64());
        }
        let scale = self.quiet(a)? * self.matrix.scale;
        butterfly::row(a, 1.0)?;
        self.signs(once, 0, a)?;
        take(&a[self.matrix.col as usize..], scale, y)
    }

    /// For every block H Dₜ … H D₀ x, all but the last transform divided by √N.
    fn spin<T: Stored>(&self, once: &Once, turns: u64, x: &[T], y: &mut [T], a: &mut [T::Lane]) -> Result<()> {
        let (row, root) = (self.matrix.row as usize, 1.0 / (self.len() as f64).sqrt());
        let mut done = 0;
        while done < y.len() {
            let (block, from) = ((row + done) / self.len(), (row + done) % self.len());
            let y = &mut y[done..];
            let many = y.len().min(self.len() - from);
            put(x, self.matrix.col as usize, a)?;
            let scale = self.quiet(a)? * self.matrix.scale;
            for t in 0..turns {
                self.signs(once, 3 * block as u64 + t, a)?;
                butterfly::row(a, if t + 1 == turns { 1.0 } else { root })?;
            }
            take(&a[from..], scale, &mut y[..many])?;
            done += many;
        }
        Ok(())
    }

    /// The sum over the blocks of D₀ H … Dₜ H x.
    fn unspin<T: Stored>(&self, once: &Once, turns: u64, x: &[T], y: &mut [T], room: &mut Room<T::Lane>) -> Result<()> {
        let (row, root) = (self.matrix.row as usize, 1.0 / (self.len() as f64).sqrt());
        let (a, sum) = (&mut room.whole, &mut room.other);
        sum.fill(T::Lane::of(0.0));
        // one power of two for all blocks, which are added up
        let (mut peak, mut done) = (0f64, 0);
        for part in x.chunks(a.len()) {
            put(part, 0, a)?;
            let most = butterfly::peak(a);
            peak = if most <= peak { peak } else { most };
        }
        let (down, up) = butterfly::quiet::<T::Lane>(peak, self.growth());
        while done < x.len() {
            let (block, from) = ((row + done) / self.len(), (row + done) % self.len());
            let many = (x.len() - done).min(self.len() - from);
            put(&x[done..done + many], from, a)?;
            if up > 1.0 {
                parts(a, |_, a| a.iter_mut().for_each(|a| *a *= T::Lane::of(down)))?;
            }
            for t in (0..turns).rev() {
                butterfly::row(a, if t + 1 == turns { 1.0 } else { root })?;
                self.signs(once, 3 * block as u64 + t, a)?;
            }
            let a = &*a;
            parts(sum, |first, sum| {
                for (sum, a) in sum.iter_mut().zip(&a[first..]) {
                    *sum = T::Lane::of(sum.to_f64() + a.to_f64());
                }
            })?;
            done += many;
        }
        take(&sum[self.matrix.col as usize..], self.matrix.scale * up, y)
    }
}
