//! Sums of integers in tiles, 64 inputs at a time. The one rule: the same integers, and the same sums of them, as
//! `kernel::integers` makes.
//!
//! The codes of a panel lie as the unit reads them: for every four inputs sixteen outputs of four bytes. Those of 4 bits are
//! spread to bytes first, a group at a time, for all rows that follow.

use super::{Aligned, BLOCK, FEW, Force, HIGH, LINE, PAIR, TILE, allowed};
use crate::packed::kernel::Weights;
use crate::packed::lanes::{LANES, Lanes};
use crate::packed::lines::Lines;
use crate::packed::take::{Block, Take};
use base::Result;
use std::arch::x86_64::*;
use std::ops::Range;

/// Inputs of a tile.
const DEEP: usize = LINE;
/// Bytes ahead of what is read.
const AHEAD: usize = 4096;

/// Whether a product is one for tiles.
pub fn fits(w: &Weights, rows: usize) -> bool {
    rows >= FEW && w.layout.groups() > 0 && w.layout.filled().is_multiple_of(DEEP) && allowed()
}

/// Rows of codes, a whole number of cache lines from each other, and the sums of their groups.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    pub rows: usize,
    pub codes: &'a [u8],
    pub stride: usize,
    /// `[row][group]`.
    pub totals: &'a [i32],
}

/// Sums of the rows of two tiles and the outputs of two panels over `steps` · 64 inputs, as four tiles one after the other.
///
/// # Safety
/// Tiles are in force (see [`Force`]); so many rows, and so many tiles of codes, are there; `out` has room for four tiles.
unsafe fn multiply(rows: [*const u8; 2], stride: usize, codes: [*const u8; 2], steps: usize, out: *mut i32) {
    // SAFETY: reads and writes what the caller promises; all of the unit's state is this block's own.
    unsafe {
        std::arch::asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm6, [{b0} + {line}]",
            "prefetcht0 [{b0} + {ahead} + 0]",
            "prefetcht0 [{b0} + {ahead} + 64]",
            "prefetcht0 [{b0} + {ahead} + 128]",
            "prefetcht0 [{b0} + {ahead} + 192]",
            "prefetcht0 [{b0} + {ahead} + 256]",
            "prefetcht0 [{b0} + {ahead} + 320]",
            "prefetcht0 [{b0} + {ahead} + 384]",
            "prefetcht0 [{b0} + {ahead} + 448]",
            "prefetcht0 [{b0} + {ahead} + 512]",
            "prefetcht0 [{b0} + {ahead} + 576]",
            "prefetcht0 [{b0} + {ahead} + 640]",
            "prefetcht0 [{b0} + {ahead} + 704]",
            "prefetcht0 [{b0} + {ahead} + 768]",
            "prefetcht0 [{b0} + {ahead} + 832]",
            "prefetcht0 [{b0} + {ahead} + 896]",
            "prefetcht0 [{b0} + {ahead} + 960]",
            "tileloadd tmm4, [{a0} + {stride}]",
            "tdpbsud tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b1} + {line}]",
            "prefetcht0 [{b1} + {ahead} + 0]",
            "prefetcht0 [{b1} + {ahead} + 64]",
            "prefetcht0 [{b1} + {ahead} + 128]",
            "prefetcht0 [{b1} + {ahead} + 192]",
            "prefetcht0 [{b1} + {ahead} + 256]",
            "prefetcht0 [{b1} + {ahead} + 320]",
            "prefetcht0 [{b1} + {ahead} + 384]",
            "prefetcht0 [{b1} + {ahead} + 448]",
            "prefetcht0 [{b1} + {ahead} + 512]",
            "prefetcht0 [{b1} + {ahead} + 576]",
            "prefetcht0 [{b1} + {ahead} + 640]",
            "prefetcht0 [{b1} + {ahead} + 704]",
            "prefetcht0 [{b1} + {ahead} + 768]",
            "prefetcht0 [{b1} + {ahead} + 832]",
            "prefetcht0 [{b1} + {ahead} + 896]",
            "prefetcht0 [{b1} + {ahead} + 960]",
            "tdpbsud tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a1} + {stride}]",
            "tdpbsud tmm2, tmm5, tmm6",
            "tdpbsud tmm3, tmm5, tmm7",
            "add {a0}, 64",
            "add {a1}, 64",
            "add {b0}, 1024",
            "add {b1}, 1024",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{out} + {line}], tmm0",
            "tilestored [{out} + {line} + 1024], tmm1",
            "tilestored [{out} + {line} + 2048], tmm2",
            "tilestored [{out} + {line} + 3072], tmm3",
            a0 = inout(reg) rows[0] => _,
            a1 = inout(reg) rows[1] => _,
            b0 = inout(reg) codes[0] => _,
            b1 = inout(reg) codes[1] => _,
            stride = in(reg) stride,
            line = in(reg) LINE,
            ahead = in(reg) AHEAD,
            steps = inout(reg) steps => _,
            out = in(reg) out,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// A group of codes of 4 bits, a byte each.
#[target_feature(enable = "avx512f")]
unsafe fn spread(codes: *const u8, inputs: usize, out: *mut u8) {
    // SAFETY: half of `inputs` · 16 bytes are read, so many are written.
    unsafe {
        for i in 0..inputs / 8 {
            let [low, high] = <__m512 as Lanes>::halves(<__m512 as Lanes>::words(codes.add(64 * i)));
            _mm512_storeu_si512(out.add(128 * i).cast(), low);
            _mm512_storeu_si512(out.add(128 * i + 64).cast(), high);
        }
    }
}

/// Adds sixteen sums of a row, less those of its zero points, scaled or as integers.
#[inline(always)]
unsafe fn add(sums: *const i32, zeros: __m512i, total: i32, scale: __m512, whole: bool, y: *mut f32) {
    type L = __m512;
    // SAFETY: sixteen numbers lie in both.
    unsafe {
        let sums = L::add(L::words(sums.cast()), L::negated_product(zeros, total));
        if whole {
            L::store_words(L::add(L::words(y.cast()), sums), y.cast());
        } else {
            L::floats(sums).fused(scale, <L as Lanes>::load(y)).store(y);
        }
    }
}

/// As `product::integers`, of some panels.
///
/// # Safety
/// [`fits`] said so; the panels are there.
#[target_feature(enable = "avx512f,avx512vnni,avx2,fma")]
pub unsafe fn integers(w: &Weights, panels: Range<usize>, x: &Rows, whole: bool, take: &Take) -> Result<()> {
    let l = &w.layout;
    let mut bytes = Lines::zeros(if l.bits == 4 { 2 * l.filled() * LANES } else { 0 })?;
    let mut y = Lines::zeros(x.rows.min(BLOCK) * 2 * LANES)?;
    let mut force = Force::new();
    for panel in panels.clone().step_by(2) {
        let z = (panels.end - panel).min(2);
        for first in (0..x.rows).step_by(BLOCK) {
            let block = first..x.rows.min(first + BLOCK);
            let y = &mut y[..block.len() * z * LANES];
            y.fill(0.0);
            // SAFETY: the caller's promise.
            unsafe { rows(w, panel, z, x, block.clone(), whole, &mut force, &mut bytes, y) };
            take(Block::new(w, block, panel, z, y));
        }
    }
    Ok(())
}

/// The same for some of the rows.
#[target_feature(enable = "avx512f,avx512vnni,avx2,fma")]
unsafe fn rows(
    w: &Weights,
    panel: usize,
    z: usize,
    x: &Rows,
    block: Range<usize>,
    whole: bool,
    force: &mut Force,
    bytes: &mut [u8],
    y: &mut [f32],
) {
    let (l, both) = (&w.layout, z == 2);
    let width = l.filled();
    let mut sums = Aligned([0i32; 4 * TILE / 4]);
    let sums = &mut sums.0;
    for g in 0..l.groups() {
        let at = |i: usize| w.panel(panel + if both { i } else { 0 })[g * l.group_bytes()..].as_ptr();
        let heads = [at(0), at(1)];
        // SAFETY: the codes follow the head of a group, the zero points its scales.
        let (codes, zeros) = unsafe {
            let mut codes = [heads[0].add(l.head()), heads[1].add(l.head())];
            if l.bits == 4 {
                for (i, codes) in codes.iter_mut().enumerate().take(z) {
                    let out = bytes.as_mut_ptr().add(i * width * LANES);
                    spread(*codes, width, out);
                    *codes = out;
                }
                if !both {
                    codes[1] = codes[0];
                }
            }
            let middle = <__m512 as Lanes>::same(i32::from(l.middle()));
            let zeros = |i: usize| if l.affine { <__m512 as Lanes>::words(heads[i].add(4 * LANES)) } else { middle };
            (codes, [zeros(0), zeros(1)])
        };
        for from in block.clone().step_by(PAIR) {
            let left = (block.end - from).min(PAIR);
            let row = |r: usize| x.codes[r * x.stride + g * width..].as_ptr();
            // SAFETY: rows of x, tiles of codes; `sums` are four tiles.
            unsafe {
                let second = force.rows(from, left);
                multiply([row(from), row(second)], x.stride, codes, width / DEEP, sums.as_mut_ptr());
                let scales = [<__m512 as Lanes>::load(heads[0].cast()), <__m512 as Lanes>::load(heads[1].cast())];
                for r in 0..left {
                    let total = x.totals[(from + r) * l.groups() + g];
                    for i in 0..z {
                        let tile = r / HIGH * 2 + i;
                        let part = sums.as_ptr().add(tile * TILE / 4 + r % HIGH * LANES);
                        let y = y.as_mut_ptr().add(((from - block.start + r) * z + i) * LANES);
                        add(part, zeros[i], total, scales[i], whole, y);
                    }
                }
            }
        }
    }
}
