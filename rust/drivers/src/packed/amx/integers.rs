//! Sums of integers in tiles, 64 inputs at a time. The one rule: the same integers, and the same sums of them, as
//! `kernel::integers` makes.
//!
//! The codes of a panel lie as the unit reads them: for every four inputs sixteen outputs of four bytes. Those of 4 bits are
//! spread to bytes first, a group at a time, for all rows that follow.

use super::walk::{Run, Unit};
use super::{FEW, LINE, zeros};
use crate::packed::kernel::Weights;
use crate::packed::lanes::{LANES, Lanes};
use crate::packed::layout::Layout;
use std::arch::x86_64::*;

/// Inputs of a tile.
const DEEP: usize = LINE;
/// Bytes ahead of what is read.
const AHEAD: usize = 4096;

/// Whether a product is one for tiles.
pub fn fits(w: &Weights, rows: usize) -> bool {
    rows >= FEW && w.layout.groups() > 0 && w.layout.filled().is_multiple_of(DEEP)
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

/// Rows, and whether their sums stay integers.
#[derive(Clone, Copy)]
pub struct Product<'a> {
    pub rows: Rows<'a>,
    pub whole: bool,
}

impl Unit for Product<'_> {
    type Sum = i32;
    #[inline(always)]
    fn rows(&self) -> usize {
        self.rows.rows
    }
    /// All of them: the sums of a group are integers.
    #[inline(always)]
    fn run(&self, filled: usize) -> usize {
        filled
    }
    fn room(l: &Layout, run: usize) -> usize {
        if l.bits == 4 { 2 * run * LANES } else { 0 }
    }
    #[inline(always)]
    unsafe fn weights(self, l: &Layout, heads: [*const u8; 2], run: Run, room: *mut u8) -> [*const u8; 2] {
        // SAFETY: the codes follow the head of a group; the room is of two panels.
        unsafe {
            let codes = heads.map(|head| head.add(l.head()));
            if l.bits == 8 {
                return codes;
            }
            let rooms = [room, room.add(run.inputs * LANES)];
            for i in 0..2 {
                spread(codes[i], run.inputs, rooms[i]);
            }
            rooms.map(<*mut u8>::cast_const)
        }
    }
    #[inline(always)]
    unsafe fn multiply(self, l: &Layout, rows: [usize; 2], run: Run, weights: [*const u8; 2], out: *mut i32) {
        let x = self.rows;
        let row = |r: usize| x.codes[r * x.stride + run.group * l.filled()..].as_ptr();
        // SAFETY: as the caller promises.
        unsafe { multiply(rows.map(row), x.stride, weights, run.inputs / DEEP, out) }
    }
    #[inline(always)]
    unsafe fn add(self, l: &Layout, sums: *const i32, row: usize, run: Run, head: *const u8, y: __m512) -> __m512 {
        type L = __m512;
        let total = self.rows.totals[row * l.groups() + run.group];
        // SAFETY: sixteen sums; a group begins with its scales.
        unsafe {
            let sums = L::add(L::words(sums.cast()), L::negated_product(zeros(l, head), total));
            if self.whole {
                _mm512_castsi512_ps(L::add(_mm512_castps_si512(y), sums))
            } else {
                L::floats(sums).fused(<L as Lanes>::load(head.cast()), y)
            }
        }
    }
}
