//! Rows so large that a sum on the way overflows where its result does not. The one rule: only what is not finite although all
//! numbers of its row are is made anew, from the row divided by a power of two, so that nothing else changes a bit.

use super::form::Projection;
use super::sum::Sum;
use super::transform::pieces::put;
use base::lane::{Lane, Stored};
use base::{Result, try_vec};
use drivers::{blocks, butterfly};
use std::ops::Range;

/// Rows that are made anew at a time.
const ROWS: usize = 1024;
/// Numbers that are looked at at a time.
const CHUNK: usize = 1024;

/// max |x|, and something that is not finite where a number is not.
fn peak<T: Stored>(x: &[T]) -> Result<f64> {
    let mut some = [T::Lane::of(0.0); CHUNK];
    x.chunks(CHUNK).try_fold(0.0, |most: f64, x| {
        let a = &mut some[..x.len()];
        put(x, 0, a)?;
        let here = butterfly::peak(a);
        // what is not finite stays
        Ok(if !most.is_finite() || here <= most { most } else { here })
    })
}

/// Makes anew what overflowed on the way to y = P x.
pub fn anew<T: Stored<Lane: Sum>>(p: &Projection, x: &[T], y: &mut [T]) -> Result<()> {
    let (outputs, terms) = (p.matrix().outputs(), p.matrix().terms());
    // an entry is below 2^3, and sums are rounded
    let bits = (terms as f64).log2().ceil() as i32 + 4;
    let (down, up) = butterfly::quiet::<T::Lane>(f64::INFINITY, bits);
    let finite = |rows: Range<usize>| Ok(peak(&y[rows.start * outputs..rows.end * outputs])?.is_finite());
    let small = |rows: Range<usize>| {
        let peak = peak(&x[rows.start * terms..rows.end * terms])?;
        Ok((peak.is_finite() && butterfly::quiet::<T::Lane>(peak, bits).1 == 1.0, peak.is_finite()))
    };
    let (n, shorter) = (y.len() / outputs, outputs.min(terms));
    let rows = blocks::map(n, blocks::BLOCK / shorter, n * shorter, |rows| {
        let mut some = Vec::new();
        // what is shorter tells of most blocks that nothing is to be done
        if if outputs <= terms { finite(rows.clone())? } else { small(rows.clone())?.0 } {
            return Ok(some);
        }
        for row in rows {
            if !finite(row..row + 1)? && small(row..row + 1)? == (false, true) {
                some.push(row);
            }
        }
        Ok(some)
    })?
    .concat();
    if rows.is_empty() {
        return Ok(());
    }
    let mut quiet = *p;
    quiet.matrix_mut().scale *= up;
    for rows in rows.chunks(ROWS) {
        let mut some = try_vec(rows.len() * terms, T::default())?;
        let mut made = try_vec(rows.len() * outputs, T::default())?;
        for (some, &row) in some.chunks_exact_mut(terms).zip(rows) {
            for (some, x) in some.iter_mut().zip(&x[row * terms..]) {
                *some = T::from_f64(x.to_f64() * down);
            }
        }
        quiet.entries(&some, &mut made)?;
        for (made, &row) in made.chunks_exact(outputs).zip(rows) {
            for (y, made) in y[row * outputs..].iter_mut().zip(made) {
                if !y.to_f64().is_finite() {
                    *y = *made;
                }
            }
        }
    }
    Ok(())
}
