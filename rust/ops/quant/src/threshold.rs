//! Where to cut a row off so that its distribution, in codes, stays nearest to itself. The one rule: counts are whole numbers, the
//! same for any order of blocks, and of thresholds that are equally good to nine digits the largest is taken.
//!
//! Migacz, "8-bit Inference with TensorRT" (GTC 2017): a histogram h of |x| in B bins up to max|x|; for each i from L to B, P is
//! h₁ … hᵢ with all that lies beyond added to Pᵢ, Q is h₁ … hᵢ in L groups, each spread evenly over the bins of it that are not
//! empty, and the threshold is the i of the least KL(P ‖ Q). One slip of its listing is mended: where bin i is empty, Q has no share
//! of what P has there, and the divergence is infinite; what lies beyond is added to the last bin that is not empty.
//!
//! With sums of h, of h ln h and of bins that are not empty up to each bin, a threshold takes L logarithms.

use base::store::Store;
use base::{Result, Scalar, Tensor, by_float, try_vec};
use drivers::blocks;

/// B: what the listing has.
const BINS: usize = 2048;
/// Elements of a row from which it is counted by all threads.
const LONG: usize = 1 << 17;
/// Divergences that differ by less are equal.
const EQUAL: f64 = 1e-9;

/// ln of what is counted, 0 of nothing.
fn product(n: f64) -> f64 {
    if n > 0.0 { n * n.ln() } else { 0.0 }
}

/// The number of bins that are kept, of `BINS`.
fn cut(counts: &[u64], levels: usize) -> usize {
    let mut sums = vec![(0.0, 0.0, 0.0); BINS + 1];
    for (i, &n) in counts.iter().enumerate() {
        let (n, (all, log, some)) = (n as f64, sums[i]);
        sums[i + 1] = (all + n, log + product(n), some + f64::from(u8::from(n > 0.0)));
    }
    let total = sums[BINS].0;
    let divergence = |i: usize| {
        let beyond = total - sums[i].0;
        let Some(last) = counts[..i].iter().rposition(|&n| n > 0) else { return f64::INFINITY };
        let (mut kl, mut share) = (sums[last].1 + product(counts[last] as f64 + beyond), 0.0);
        for j in 0..levels {
            let (a, b) = (sums[j * i / levels], sums[(j + 1) * i / levels]);
            let n = b.0 - a.0;
            if n > 0.0 {
                share = (n / (b.2 - a.2)).ln();
                kl -= n * share;
            }
        }
        (kl - beyond * share) / total - (total / sums[i].0).ln()
    };
    let tried: Vec<f64> = (levels.min(BINS)..=BINS).map(divergence).collect();
    let least = tried.iter().copied().fold(f64::INFINITY, f64::min);
    BINS + 1 - tried.len() + tried.iter().rposition(|&kl| kl <= least + EQUAL).unwrap_or(tried.len() - 1)
}

/// The threshold of a row; `work` tells whether its blocks are worth more threads.
fn row<A: Store>(x: &[A], codes: usize, symmetric: bool, saturate: bool, work: usize) -> Result<f64> {
    let ends = blocks::map(x.len(), blocks::BLOCK, work, |part| {
        let mut ends = (0.0f64, 0.0f64);
        for v in x[part].iter().map(|v| v.to_f64()) {
            if v.is_finite() {
                ends = (ends.0.max(-v), ends.1.max(v));
            } else if !saturate {
                return Err(super::non_finite());
            }
        }
        Ok(ends)
    })?;
    let (low, high) = ends.into_iter().fold((0.0f64, 0.0f64), |a, b| (a.0.max(b.0), a.1.max(b.1)));
    let most = low.max(high);
    if most == 0.0 {
        return Ok(0.0);
    }
    let parts = blocks::map(x.len(), LONG, work, |part| {
        let mut counts = try_vec(BINS, 0u64)?;
        for v in x[part].iter().map(|v| v.to_f64().abs()).filter(|v| v.is_finite()) {
            counts[((v / most * BINS as f64) as usize).min(BINS - 1)] += 1;
        }
        Ok(counts)
    })?;
    let mut counts = [0; BINS];
    for part in parts {
        counts.iter_mut().zip(part).for_each(|(to, n)| *to += n);
    }
    // the codes that the larger side has; a range of one side has all
    let share = if symmetric { 0.5 } else { 1.0 / (1.0 + low.min(high) / most) };
    let levels = (codes as f64 * share).round_ties_even().max(1.0) as usize;
    Ok(most * (cut(&counts, levels) as f64 / BINS as f64))
}

/// row_threshold(x) -> threshold; how many codes there are, and whether they are as many on both sides
pub fn row_threshold(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [x, threshold] = t else { return Err(super::arrays(2, t)) };
    let (codes, symmetric, saturate) = (k[0].int().clamp(2, 256) as usize, k[1].bool(), k[2].bool());
    let (n, d) = x.rows();
    threshold.expect("threshold", n)?;
    let found: Vec<f64> = by_float!(x, A => {
        let all = x.slice::<A>()?;
        let of = |i: usize, work| row(&all[i * d..(i + 1) * d], codes, symmetric, saturate, work);
        if d >= LONG {
            (0..n).map(|i| of(i, d)).collect()
        } else {
            // a row is worth its search too
            blocks::map(n, 1, n.saturating_mul(d + LONG), |part| of(part.start, 0))
        }
    })?;
    by_float!(threshold, A => {
        threshold.slice_mut::<A>()?.iter_mut().zip(&found).for_each(|(t, &v)| *t = A::from_f64(v));
        Ok(())
    })
}
