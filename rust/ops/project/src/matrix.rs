//! A random matrix that is never stored. The one rule: an entry is a function of its absolute row and column, so that a
//! slice of the matrix is the matrix of the slice, bit for bit.
//!
//! P is k×d, its entry (i, j) made from word i of column j (`random`), times a scale that goes on results:
//! gaussian gᵢⱼ/√k; rademacher ±1/√k; sparse ±√(2^31/(T·k)), nonzero with probability T/2^31 (Achlioptas 2003; Li, Hastie
//! and Church 2006). In every kind E‖Px‖² = ‖x‖² exactly.

use base::lane::Lane;
use base::random::{LANES, Source, Words, normals, sparse, tag};
use base::simd::*;
use base::{Error, Result, Scalar};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Gaussian,
    Rademacher,
    /// With the threshold T.
    Sparse(u32),
}

/// Rows `row..row + rows` and columns `col..col + cols` of one random matrix.
#[derive(Clone, Copy, Debug)]
pub struct Matrix {
    pub kind: Kind,
    pub source: Source,
    pub row: u64,
    pub rows: usize,
    pub col: u64,
    pub cols: usize,
    pub scale: f64,
    /// Applied as its transpose: from rows to columns.
    pub adjoint: bool,
}

/// Rows that there may be: b < 2^34 in the contract of the bits.
const MOST_ROWS: i64 = 1 << 34;

impl Matrix {
    /// From the scalars that every operator on a matrix takes, in the order of the table; what is missing is false.
    pub fn new(c: &[Scalar]) -> Result<Matrix> {
        let bad = |what: &str, v: i64| Err(Error::Value(format!("{what}, got {v}")));
        let (kind, threshold) = (c[0].int(), c[3].int());
        match u8::try_from(kind) {
            Ok(tag::GAUSSIAN) => Self::of(Kind::Gaussian, tag::GAUSSIAN, c),
            Ok(tag::RADEMACHER) => Self::of(Kind::Rademacher, tag::RADEMACHER, c),
            Ok(tag::SPARSE) if (1..=1 << 31).contains(&threshold) => {
                Self::of(Kind::Sparse(threshold as u32), tag::SPARSE, c)
            }
            Ok(tag::SPARSE) => bad("threshold must be in 1..=2^31", threshold),
            _ => bad("kind must be 1 (gaussian) to 7 (fastfood)", kind),
        }
    }

    /// The same of whatever kind and tag: a window of a matrix and where its words come from.
    pub fn of(kind: Kind, tag: u8, c: &[Scalar]) -> Result<Matrix> {
        let bad = |what: &str, v: &dyn std::fmt::Display| Err(Error::Value(format!("{what}, got {v}")));
        let int = |i: usize| c[i].int();
        let stream = int(2);
        if !(0..1 << 24).contains(&stream) {
            return bad("stream must be in 0..2^24", &stream);
        }
        let (row, rows, col, cols) = (int(4), int(5), int(6), int(7));
        if row < 0 || rows < 0 || row.checked_add(rows).is_none_or(|end| end > MOST_ROWS) {
            return bad("row and rows must stay in 0..=2^34", &format_args!("{row} and {rows}"));
        }
        if col < 0 || cols < 0 || col.checked_add(cols).is_none() {
            return bad("col and cols must stay in 0..2^63", &format_args!("{col} and {cols}"));
        }
        let scale = c[8].float();
        if !scale.is_finite() {
            return bad("scale must be finite", &scale);
        }
        Ok(Matrix {
            kind,
            source: Source::new(int(1) as u64, tag, stream as u32),
            row: row as u64,
            rows: rows as usize,
            col: col as u64,
            cols: cols as usize,
            scale,
            adjoint: c.get(9).is_some_and(|v| v.bool()),
        })
    }

    /// What a whole column of words becomes, from its first on: signs or normals.
    pub fn column(self, kind: Kind) -> Matrix {
        Matrix { kind, row: 0, col: 0, adjoint: false, ..self }
    }

    /// How many numbers a result has, and how many it adds up.
    pub fn outputs(&self) -> usize {
        if self.adjoint { self.cols } else { self.rows }
    }
    pub fn terms(&self) -> usize {
        if self.adjoint { self.rows } else { self.cols }
    }

    /// The share of entries that are not zero.
    pub fn density(&self) -> f64 {
        match self.kind {
            Kind::Sparse(t) => f64::from(t) / f64::from(1u32 << 31),
            _ => 1.0,
        }
    }

    /// Entry (i, j) without the scale, word by word: what the tests hold everything else against.
    #[cfg(test)]
    pub fn entry(&self, i: usize, j: usize) -> f32 {
        let (a, b) = (self.col + j as u64, self.row + i as u64);
        match self.kind {
            Kind::Gaussian => self.source.normal(a, b),
            Kind::Rademacher => self.source.sign(a, b).into(),
            Kind::Sparse(t) => self.source.sparse(a, b, t).into(),
        }
    }

    /// Entries of the rows i, i + 1, … and the columns j … j + 15, without the scale: a row for each of `out`.
    pub fn block<L: Lane>(&self, i: usize, j: usize, out: &mut [[L; LANES]]) {
        dispatch(Block { matrix: self, i, j, out });
    }

    /// The entries that one term meets in the results `first..first + line.len()`, without the scale.
    pub fn line(&self, term: usize, first: usize, line: &mut [f32]) {
        if self.adjoint {
            let mut row = [[0.0; LANES]];
            for (n, line) in line.chunks_mut(LANES).enumerate() {
                self.block(term, first + n * LANES, &mut row);
                line.copy_from_slice(&row[0][..line.len()]);
            }
        } else {
            dispatch(Line { matrix: self, term, first, out: line });
        }
    }

    /// Numbers of one column, inside a kernel.
    #[inline(always)]
    pub fn along<S: Simd>(&self, s: S, term: usize, first: usize, out: &mut [f32]) {
        Line { matrix: self, term, first, out }.run(s);
    }
}

struct Block<'a, L> {
    matrix: &'a Matrix,
    i: usize,
    j: usize,
    out: &'a mut [[L; LANES]],
}

impl<L: Lane> Kernel for Block<'_, L> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let m = self.matrix;
        let a = m.col + self.j as u64;
        // rows that share a block of words
        let shared = if m.kind == Kind::Rademacher { 128 } else { 4 };
        let mut b = m.row + self.i as u64;
        let mut out = self.out;
        while !out.is_empty() {
            let words = m.source.across(s, a, (b / shared) as u32);
            let skip = (b % shared) as usize;
            let (now, later) = out.split_at_mut(out.len().min(shared as usize - skip));
            match m.kind {
                Kind::Gaussian => {
                    let normals = gauss(&words);
                    for (out, normals) in now.iter_mut().zip(&normals[skip..]) {
                        for l in 0..LANES {
                            out[l] = L::of(normals[l].into());
                        }
                    }
                }
                Kind::Rademacher => {
                    for (r, out) in now.iter_mut().enumerate() {
                        let (word, bit) = (&words[(skip + r) >> 5], (skip + r) as u32 & 31);
                        for l in 0..LANES {
                            out[l] = sign(word[l] >> bit);
                        }
                    }
                }
                Kind::Sparse(t) => {
                    for (out, words) in now.iter_mut().zip(&words[skip..]) {
                        for l in 0..LANES {
                            out[l] = L::of(sparse(words[l], t).into());
                        }
                    }
                }
            }
            b += now.len() as u64;
            out = later;
        }
    }
}

/// Entries of one column: sixteen blocks of words at a time.
struct Line<'a> {
    matrix: &'a Matrix,
    term: usize,
    first: usize,
    out: &'a mut [f32],
}

impl Kernel for Line<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let m = self.matrix;
        let a = m.col + self.term as u64;
        // rows that a block of words, and sixteen of them, hold
        let shared = if m.kind == Kind::Rademacher { 128 } else { 4 };
        let all = shared * LANES as u64;
        let mut b = m.row + self.first as u64;
        let mut out = self.out;
        while !out.is_empty() {
            let words = m.source.along(s, a, (b / all * all / shared) as u32);
            let skip = (b % all) as usize;
            let (now, later) = out.split_at_mut(out.len().min(all as usize - skip));
            match m.kind {
                Kind::Gaussian => {
                    let normals = gauss(&words);
                    if now.len() == all as usize {
                        in_order(s, &normals, now);
                    } else {
                        for (i, e) in (skip..).zip(&mut *now) {
                            *e = normals[i & 3][i >> 2];
                        }
                    }
                }
                Kind::Rademacher if now.len() == all as usize => {
                    for (i, e) in now.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                        let word = words[i & 3][i >> 2];
                        for (bit, e) in e.iter_mut().enumerate() {
                            *e = f32::from_bits(1f32.to_bits() | (word >> bit) << 31);
                        }
                    }
                }
                Kind::Rademacher => {
                    for (i, e) in (skip..).zip(&mut *now) {
                        *e = sign(words[i >> 5 & 3][i >> 7] >> (i & 31));
                    }
                }
                Kind::Sparse(t) => {
                    for (i, e) in (skip..).zip(&mut *now) {
                        *e = sparse(words[i & 3][i >> 2], t).into();
                    }
                }
            }
            b += now.len() as u64;
            out = later;
        }
    }
}

/// 1 − 2·(the lowest bit).
#[inline(always)]
fn sign<L: Lane>(word: u32) -> L {
    // the bit becomes the sign of 1
    L::of(f64::from_bits(1f64.to_bits() | u64::from(word) << 63))
}

/// Four words of sixteen columns as four normals each.
#[inline(always)]
fn gauss(words: &[Words; 4]) -> [[f32; LANES]; 4] {
    let mut out = [[0.0; LANES]; 4];
    for h in [0, 2] {
        for l in 0..LANES {
            (out[h][l], out[h + 1][l]) = normals(words[h][l], words[h + 1][l]);
        }
    }
    out
}

/// Sixteen blocks of four normals one after the other.
#[inline(always)]
fn in_order<S: Simd>(s: S, of: &[[f32; LANES]; 4], out: &mut [f32]) {
    let [a, b, c, d] = std::array::from_fn(|r| f32x16::from_slice(s, &of[r]));
    let ((ac, ac1), (bd, bd1)) = (a.interleave(c), b.interleave(d));
    let ((o0, o1), (o2, o3)) = (ac.interleave(bd), ac1.interleave(bd1));
    for (out, o) in out.chunks_exact_mut(LANES).zip([o0, o1, o2, o3]) {
        o.store_slice(out);
    }
}
