//! Which scale belongs to which element. The one rule: the shape of the scale says it, with x's rank and every size a
//! divisor of x's: () or ones for a tensor, (N, 1) a row, (1, K) a column, (N, K/G) groups, (N/a, K/b) tiles.
//!
//! Neighbouring axes fold into one wherever the position of a scale stays (position of the element) / (elements per
//! scale): rows, groups and tensors all become one axis of equal runs, columns two axes.

use base::{Error, Result, Tensor};

/// The folded axes of an array and of its scales.
#[derive(Debug, PartialEq, Eq)]
pub struct Grain {
    /// All axes but the last: (elements, scales).
    lead: Vec<(usize, usize)>,
    /// The last axis: elements, scales, elements per scale.
    len: usize,
    scales: usize,
    run: usize,
    /// All scales.
    pub total: usize,
}

/// A piece of a part that one call can treat: positions within the part, and the scale or scales that belong to them.
pub enum Piece {
    /// `from..to` share the scale at this position.
    One(usize, usize, usize),
    /// Each of `from..to` has its own, beginning at this position.
    Each(usize, usize, usize),
}

impl Grain {
    pub fn new(x: &Tensor, scale: &Tensor) -> Result<Grain> {
        Grain::of(x.shape(), scale.shape())
    }

    pub fn of(shape: &[usize], scales: &[usize]) -> Result<Grain> {
        let wrong = || {
            Error::Value(format!(
                "a scale of shape {scales:?} does not divide an array of shape {shape:?}: one size per axis, each a divisor of the array's"
            ))
        };
        let one = scales.iter().all(|&m| m == 1);
        if !one && scales.len() != shape.len() {
            return Err(wrong());
        }
        let mut axes: Vec<(usize, usize)> = Vec::new();
        axes.try_reserve_exact(shape.len() + 1).map_err(|_| Error::Memory(shape.len() * 16))?;
        axes.push((1, 1));
        for (i, &n) in shape.iter().enumerate() {
            let m = if one { 1 } else { scales[i] };
            if n % m.max(1) != 0 || (m == 0 && n != 0) {
                return Err(wrong());
            }
            let m = m.max(1);
            match axes.last_mut() {
                // x's position is i·n + j, the scale's i·m + j/(n/m): the same division if i has a scale of its own
                // or j has no say
                Some(last) if last.0 == last.1 || m == 1 => *last = (last.0.wrapping_mul(n), last.1 * m),
                _ => axes.push((n, m)),
            }
        }
        let total = axes.iter().map(|a| a.1).product();
        let (len, scales) = axes.pop().unwrap_or((1, 1));
        Ok(Grain { lead: axes, len, scales, run: (len / scales).max(1), total })
    }

    /// Whether the scales are in the order of the elements, each for one run.
    pub fn flat(&self) -> bool {
        self.lead.is_empty()
    }

    /// The positions of the scales that elements `at..at + len` use, as a range that holds them.
    pub fn used(&self, at: usize, len: usize) -> (usize, usize) {
        match len {
            0 => (0, 0),
            _ if self.flat() => (at / self.run, (at + len - 1) / self.run + 1),
            _ => (0, self.total),
        }
    }

    /// The first scale of row `row`, a row being a last axis.
    fn row(&self, mut row: usize) -> usize {
        let (mut base, mut stride) = (0, self.scales);
        for &(n, m) in self.lead.iter().rev() {
            base += row % n / (n / m) * stride;
            row /= n;
            stride *= m;
        }
        base
    }

    /// Calls `f` with the pieces of elements `at..at + len`, in order.
    #[inline(always)]
    pub fn walk(&self, at: usize, len: usize, mut f: impl FnMut(Piece)) {
        let mut done = 0;
        while done < len {
            let (row, column) = ((at + done) / self.len, (at + done) % self.len);
            let base = if self.flat() { 0 } else { self.row(row) };
            let end = done + (self.len - column).min(len - done);
            if self.run == 1 {
                f(Piece::Each(done, end, base + column));
                done = end;
                continue;
            }
            let (mut index, mut left) = (base + column / self.run, self.run - column % self.run);
            while done < end {
                let to = done + left.min(end - done);
                f(Piece::One(done, to, index));
                (done, index, left) = (to, index + 1, self.run);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The position of the scale by the definition.
    fn slow(shape: &[usize], scales: &[usize], mut i: usize) -> usize {
        let (mut at, mut stride) = (0, 1);
        for (&n, &m) in shape.iter().zip(scales).rev() {
            at += i % n / (n / m) * stride;
            i /= n;
            stride *= m;
        }
        at
    }

    #[test]
    fn every_granularity() {
        let cases: &[(&[usize], &[usize])] = &[
            (&[], &[]),
            (&[7], &[1]),
            (&[7], &[7]),
            (&[12], &[3]),
            (&[5, 6], &[1, 1]),
            (&[5, 6], &[5, 1]),
            (&[5, 6], &[1, 6]),
            (&[5, 6], &[5, 6]),
            (&[5, 6], &[5, 2]),
            (&[4, 6], &[2, 3]),
            (&[4, 6], &[2, 1]),
            (&[4, 6], &[1, 3]),
            (&[3, 4, 6], &[1, 4, 1]),
            (&[3, 4, 6], &[3, 1, 6]),
            (&[4, 4, 6], &[2, 4, 3]),
            (&[2, 3, 4, 5], &[2, 1, 4, 1]),
            (&[2, 3, 4, 5], &[1, 3, 1, 5]),
            (&[8, 1, 6], &[2, 1, 2]),
            (&[1, 1, 6], &[1, 1, 6]),
        ];
        for &(shape, scales) in cases {
            let g = Grain::of(shape, scales).unwrap();
            let n: usize = shape.iter().product();
            assert_eq!(g.total, scales.iter().product());
            for at in 0..n {
                for len in 0..=n - at {
                    let mut seen = Vec::new();
                    g.walk(at, len, |p| match p {
                        Piece::One(from, to, index) => (from..to).for_each(|i| seen.push((i, index))),
                        Piece::Each(from, to, index) => (from..to).for_each(|i| seen.push((i, index + i - from))),
                    });
                    let want: Vec<_> = (0..len).map(|i| (i, slow(shape, scales, at + i))).collect();
                    assert_eq!(seen, want, "{shape:?} {scales:?} {at} {len}");
                    let (lo, hi) = g.used(at, len);
                    assert!(want.iter().all(|w| (lo..hi).contains(&w.1)));
                }
            }
        }
    }

    #[test]
    fn what_folds_and_what_is_refused() {
        assert!(Grain::of(&[5, 6], &[5, 2]).unwrap().flat());
        assert!(Grain::of(&[5, 6, 2], &[5, 1, 1]).unwrap().flat());
        assert!(Grain::of(&[5, 6], &[]).unwrap().flat());
        assert!(!Grain::of(&[5, 6], &[1, 6]).unwrap().flat());
        assert!(Grain::of(&[0, 6], &[0, 1]).is_ok() && Grain::of(&[0, 6], &[1, 6]).is_ok());
        for (shape, scales) in
            [(&[5, 6][..], &[5][..]), (&[5, 6], &[2, 6]), (&[5, 6], &[5, 4]), (&[5, 6], &[5, 12]), (&[5], &[0])]
        {
            assert!(Grain::of(shape, scales).is_err(), "{shape:?} {scales:?}");
        }
    }
}
