//! Tables of bins of one width, all of them from one read. The one rule: a bin is decided by its edges, counts are whole numbers,
//! and right minus confidence is one sum, of blocks in their order.

use super::judged::{Bad, Source};
use super::tiles::{HIT, TILE, Term};
use base::simd::*;
use base::{Dtype, Error, Result, Scalar, Tensor, try_vec};
use drivers::blocks;

/// Numbers that are worth a block of their own.
const BLOCK: usize = 1 << 16;
/// Rows whose count and hits one float64 holds.
const SPAN: usize = 1 << 24;
/// Copies of a small table that neighbours are added to in turn, which are mostly in one bin: a sum waits for the one before.
const COPIES: usize = 8;
/// Bins of a small table, which a byte tells apart: no bound is asked of it.
const SMALL: usize = 1 << 8;
type Small = [[Term; COPIES]; SMALL];

/// Numbers of bins: of each, how many come before, and edges where a product does not tell bins.
pub struct Sizes {
    pub each: Vec<(usize, usize)>,
    edges: Vec<Vec<f64>>,
}

/// The most bins.
const MOST: i64 = 1 << 24;

impl Sizes {
    pub fn new(t: &Tensor, total: i64) -> Result<Self> {
        let (mut each, mut before) = (Vec::new(), 0);
        for &n in t.slice::<i64>()? {
            if !(1..=MOST).contains(&n) {
                return Err(Error::Value(format!("n_bins must lie within 1 and {MOST}, got {n}")));
            }
            each.push((n as usize, before));
            before += n as usize;
        }
        if before as i64 != total {
            return Err(Error::Value(format!("there are {before} bins, total is {total}")));
        }
        Ok(Sizes { each, edges: Vec::new() })
    }
    /// With edges k/n, if numbers have so many digits that a product may be rounded to a whole number.
    fn edged(mut self, wide: bool) -> Result<Self> {
        for &(n, _) in self.each.iter().filter(|_| wide) {
            let mut edges = try_vec(n + 1, 0.0)?;
            edges.iter_mut().enumerate().for_each(|(k, e)| *e = k as f64 / n as f64);
            self.edges.push(edges);
        }
        Ok(self)
    }
}

/// The bins of numbers: how many edges k/n, 0 < k < n, are strictly below.
///
/// Of at most 24 digits, p n is exact with n ≤ 2²⁴, and no p lies between k/n and what it is rounded to: the bin is ⌈p n⌉ − 1. Of
/// more, that may be wrong by one where the product is within 2⁻⁵⁰ n of a whole number.
struct Find<'a> {
    p: &'a [f64],
    class: Option<&'a [u32]>,
    n: usize,
    edges: Option<&'a Vec<f64>>,
    at: &'a mut [u32],
}

impl Kernel for Find<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Find { p, class, n, edges, at } = self;
        let size = n as f64;
        // the last bits of a float64 of this size are a whole number
        let whole = (1u64 << 52) as f64;
        for (at, p) in at.iter_mut().zip(p) {
            let bin = (p * size).ceil() - 1.0;
            *at = (if bin < 0.0 { 0.0 } else { bin } + whole).to_bits() as u32;
        }
        if let Some(edges) = edges {
            let bound = size * f64::from_bits((1023 - 50) << 52);
            let mut near = 0u64;
            for p in p {
                let product = p * size;
                let k = (product + whole) - whole;
                near |= u64::from((product - k).abs() <= bound && k >= 1.0 && k < size);
            }
            if near != 0 {
                for (at, p) in at.iter_mut().zip(p) {
                    let k = *at as usize;
                    if k > 0 && *p <= edges[k] {
                        *at -= 1;
                    } else if k < n - 1 && *p > edges[k + 1] {
                        *at += 1;
                    }
                }
            }
        }
        if let Some(class) = class {
            for (at, class) in at.iter_mut().zip(class) {
                *at += class * n as u32;
            }
        }
    }
}

/// What one bin has added up to.
#[derive(Clone, Copy, Default)]
struct Bin {
    count: i64,
    hits: i64,
    gap: f64,
}

/// probs, target, numbers of bins; counts, hits and sums of right minus confidence.
pub fn tables(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let source = Source::new(&t[0], &t[1], s[0].int())?;
    let sizes = Sizes::new(&t[2], s[1].int())?.edged(t[0].dtype() == Dtype::F64)?;
    let (n, k, rows, total) = (source.n, source.k, source.rows(), s[1].int() as usize);
    let width = rows.checked_mul(total).filter(|&w| w <= u32::MAX as usize / COPIES);
    let width = width.ok_or_else(|| Error::Value(format!("{rows} tables of {total} bins are too many")))?;
    for (name, t) in ["count", "hits", "gap"].iter().zip(&t[3..]) {
        t.expect(name, width)?;
    }
    // each by itself, so that a table is the same whatever is asked beside it
    let copies = |bins: usize| if rows * bins <= SMALL { COPIES } else { 1 };
    let widest = sizes.each.iter().map(|e| e.0 * copies(e.0)).max().unwrap_or(1);
    let all = n.saturating_mul(k);
    let parts = (all / BLOCK).min(all / (16 * rows * widest).max(1)).clamp(1, 64);
    let found = blocks::map(n, n.div_ceil(parts), all, |part| {
        let (mut each, mut own) = (Vec::new(), try_vec(width, Bin::default())?);
        for &(bins, _) in &sizes.each {
            each.push(try_vec(if copies(bins) > 1 { SMALL * COPIES } else { rows * bins }, [0.0; 2])?);
        }
        let (mut at, mut bad) = ([0u32; TILE], Bad::default());
        for first in part.clone().step_by(SPAN) {
            let seen = source.each(first..part.end.min(first + SPAN), |tile| {
                for (i, (&(bins, _), table)) in sizes.each.iter().zip(&mut each).enumerate() {
                    let (at, class) = (&mut at[..tile.len], (rows > 1).then_some(&tile.class[..tile.len]));
                    dispatch(Find { p: &tile.p[..tile.len], class, n: bins, edges: sizes.edges.get(i), at });
                    let terms = &tile.terms[..tile.len];
                    let few = if copies(bins) > 1 { table.as_chunks_mut().0.first_chunk_mut() } else { None };
                    match few {
                        Some(few) => spread(few, at, terms),
                        None => add(table, at, terms),
                    }
                }
            })?;
            bad.or(seen);
            for (&(bins, before), table) in sizes.each.iter().zip(&mut each) {
                let own = &mut own[before * rows..][..bins * rows];
                for (bin, copies) in own.iter_mut().zip(table.chunks_exact_mut(copies(bins))) {
                    for [gap, count] in copies {
                        let (hits, both) = ((*count / HIT) as i64, *count as i64);
                        bin.count += both - hits * HIT as i64;
                        bin.hits += hits;
                        bin.gap += *gap;
                        (*gap, *count) = (0.0, 0.0);
                    }
                }
            }
        }
        Ok((bad, own))
    })?;
    source.refuse(found.iter().map(|f| f.0))?;
    let (count, hits, gap) = (t[3].slice_mut::<i64>()?, t[4].slice_mut::<i64>()?, t[5].slice_mut::<f64>()?);
    count.fill(0);
    hits.fill(0);
    gap.fill(0.0);
    for (_, own) in found {
        for &(bins, before) in &sizes.each {
            for row in 0..rows {
                for bin in 0..bins {
                    let (from, to) = (own[before * rows + row * bins + bin], row * total + before + bin);
                    count[to] += from.count;
                    hits[to] += from.hits;
                    gap[to] += from.gap;
                }
            }
        }
    }
    Ok(())
}

/// Adds terms to their bins.
fn add(table: &mut [Term], at: &[u32], terms: &[Term]) {
    for (at, term) in at.iter().zip(terms) {
        let bin = &mut table[*at as usize];
        *bin = [bin[0] + term[0], bin[1] + term[1]];
    }
}

/// The same, neighbours to different copies.
fn spread(table: &mut Small, at: &[u32], terms: &[Term]) {
    let mut each = |(copy, (at, term)): (usize, (&u32, &Term))| {
        let bin = &mut table[usize::from(*at as u8)][copy];
        *bin = [bin[0] + term[0], bin[1] + term[1]];
    };
    let ((at, end), (terms, last)) = (at.as_chunks::<COPIES>(), terms.as_chunks::<COPIES>());
    for (at, terms) in at.iter().zip(terms) {
        at.iter().zip(terms).enumerate().for_each(&mut each);
    }
    end.iter().zip(last).enumerate().for_each(each);
}
