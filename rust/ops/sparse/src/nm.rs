//! Rows of which n of every m neighbours are stored: the values, and in a few bits where in its group each stands. The one rule: a
//! position is checked as it is read, and those of a group ascend.
//!
//! A position takes 1 bit for m ≤ 2, 2 for m ≤ 4, else 4; positions of a row follow one another from the lowest bit of its first
//! byte on. For 2:4 two neighbouring groups are a byte, the metadata of 8-bit words that GPUs have.

use base::store::Store;
use base::{Error, Result, Scalar, Tensor, by_float};
use drivers::blocks;

/// The most elements of a group.
const MOST: usize = 16;

/// n of m, and what follows from it for rows of `cols`.
struct Shape {
    n: usize,
    m: usize,
    bits: usize,
    cols: usize,
    kept: usize,
    bytes: usize,
}

impl Shape {
    fn new(s: &[Scalar], cols: usize) -> Result<Self> {
        let (n, m) = (s[0].int() as usize, s[1].int() as usize);
        if !(1..=MOST).contains(&m) || n > m || !cols.is_multiple_of(m) {
            return Err(Error::Value(format!(
                "n of m must be 0 ≤ n ≤ m and 1 ≤ m ≤ {MOST}, m a divisor of the last axis, got {n} of {m} of {cols}"
            )));
        }
        let bits = if m < 3 {
            1
        } else if m < 5 {
            2
        } else {
            4
        };
        let kept = cols / m * n;
        Ok(Shape { n, m, bits, cols, kept, bytes: (kept * bits).div_ceil(8) })
    }

    /// Where value `j` of a row stands.
    fn column(&self, meta: &[u8], j: usize) -> Result<usize> {
        let at = j * self.bits;
        let position = usize::from(meta[at / 8] >> (at % 8)) & ((1 << self.bits) - 1);
        if position >= self.m {
            return Err(Error::Value(format!("position {position} of value {j} is outside a group of {}", self.m)));
        }
        Ok(j / self.n * self.m + position)
    }

    /// Calls `f(value, column)` for each stored value of a row.
    fn walk(&self, meta: &[u8], mut f: impl FnMut(usize, usize)) -> Result<()> {
        let mut last = 0;
        for j in 0..self.kept {
            let column = self.column(meta, j)?;
            if j % self.n > 0 && column <= last {
                return Err(Error::Value(format!("the positions of group {} do not ascend", j / self.n)));
            }
            last = column;
            f(j, column);
        }
        Ok(())
    }
}

/// nm_meta(w; n, m) -> meta: where the nonzeros stand, and as many of the first zeros as are missing.
pub fn meta(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let [w, meta] = t else { return Err(Error::Type("expected two arrays".into())) };
    let shape = Shape::new(s, w.rows().1)?;
    meta.expect("meta", w.rows().0 * shape.bytes)?;
    by_float!(w, T => {
        let w = w.slice::<T>()?;
        blocks::fill(meta.slice_mut::<u8>()?, shape.bytes, 16, |first, part| {
            part.fill(0);
            for (i, meta) in part.chunks_exact_mut(shape.bytes).enumerate() {
                let row = &w[(first + i) * shape.cols..][..shape.cols];
                for (g, group) in row.chunks_exact(shape.m).enumerate() {
                    let count = group.iter().filter(|v| v.to_f64() != 0.0).count();
                    let Some(mut zeros) = shape.n.checked_sub(count) else {
                        return Err(Error::Value(format!(
                            "group {g} of row {} holds {count} nonzeros, {} of {} are stored; prune it first",
                            first + i, shape.n, shape.m
                        )));
                    };
                    let mut j = g * shape.n;
                    for (position, v) in group.iter().enumerate() {
                        if v.to_f64() == 0.0 {
                            if zeros == 0 {
                                continue;
                            }
                            zeros -= 1;
                        }
                        meta[j * shape.bits / 8] |= (position as u8) << (j * shape.bits % 8);
                        j += 1;
                    }
                }
            }
            Ok(())
        })
    })
}

/// values[j] = w[column of j]
fn taken(w: &Tensor, meta: &Tensor, values: &Tensor, shape: &Shape) -> Result<()> {
    let rows = w.rows().0;
    meta.expect("meta", rows * shape.bytes)?;
    values.expect("values", rows * shape.kept)?;
    let meta = meta.slice::<u8>()?;
    by_float!(w, T => {
        let w = w.slice::<T>()?;
        blocks::fill(values.slice_mut::<T>()?, shape.kept, 2, |first, part| {
            for (i, values) in part.chunks_exact_mut(shape.kept).enumerate() {
                let row = &w[(first + i) * shape.cols..][..shape.cols];
                shape.walk(&meta[(first + i) * shape.bytes..][..shape.bytes], |j, column| values[j] = row[column])?;
            }
            Ok(())
        })
    })
}

/// w[column of j] = values[j], +0 elsewhere
fn spread(values: &Tensor, meta: &Tensor, w: &Tensor, shape: &Shape) -> Result<()> {
    let rows = w.rows().0;
    meta.expect("meta", rows * shape.bytes)?;
    values.expect("values", rows * shape.kept)?;
    let meta = meta.slice::<u8>()?;
    by_float!(w, T => {
        let values = values.slice::<T>()?;
        blocks::fill(w.slice_mut::<T>()?, shape.cols, 2, |first, part| {
            part.fill(T::default());
            for (i, row) in part.chunks_exact_mut(shape.cols).enumerate() {
                let values = &values[(first + i) * shape.kept..][..shape.kept];
                shape.walk(&meta[(first + i) * shape.bytes..][..shape.bytes], |j, column| row[column] = values[j])?;
            }
            Ok(())
        })
    })
}

/// nm_take(w, meta) -> values
pub fn take(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    taken(&t[0], &t[1], &t[2], &Shape::new(s, t[0].rows().1)?)
}

/// nm_take_bwd(g, w, meta) -> dw
pub fn take_bwd(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    spread(&t[0], &t[2], &t[3], &Shape::new(s, t[1].rows().1)?)
}

/// nm_put(values, meta; n, m, cols) -> w
pub fn put(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    spread(&t[0], &t[1], &t[2], &Shape::new(s, t[2].rows().1)?)
}

/// nm_put_bwd(g, values, meta; n, m, cols) -> dvalues
pub fn put_bwd(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    taken(&t[0], &t[2], &t[3], &Shape::new(s, t[0].rows().1)?)
}
