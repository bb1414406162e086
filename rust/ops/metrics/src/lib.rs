//! What is measured by bins and by ranks. The one rule: counts are whole numbers, and what is refused is found where it is read.

mod bins;
mod judged;
mod quantile;
mod ranks;
mod tiles;

use base::{Op, ops};

/// The tables of the family.
pub static TABLES: &[&[Op]] = &[OPS];

pub static OPS: &[Op] = ops! {
    calibration_bins(probs[n, k], target[n], sizes[s]; kind: int, total: int)
        -> (count[kind == 2 ? k : 1, total]: int64, hits[kind == 2 ? k : 1, total]: int64,
            gap[kind == 2 ? k : 1, total]: float64)
        = bins::tables;
    calibration_judged(probs[n, k], target[n]; kind: int)
        -> (confidence[kind == 2 ? k : 1, n]: probs, hit[kind == 2 ? k : 1, n]: bool)
        = judged::write;
    calibration_quantile(confidence[r, n], hit[r, n], sizes[s]; total: int)
        -> (count[r, total]: int64, hits[r, total]: int64, gap[r, total]: float64, edges[r, total + s]: float64)
        = quantile::tables;
    kendall(preds[n, m], target[n, m]; variant: int) -> (tau[m]: float64) = ranks::kendall;
    spearman(preds[n, m], target[n, m]) -> (rho[m]: float64) = ranks::spearman;
};
