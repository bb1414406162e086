//! Sums of floats in tiles, 32 inputs at a time. The one rule: a number is the sum of its parts of 8 bits, so that products of
//! parts and codes are exact and what is rounded is a sum of float32, as everywhere.
//!
//! x = h + m + l with parts of bf16, as many as the type of x has bits for, or of long rows two (see [`parts`]); codes less
//! their zero point are integers below 256, which bf16 holds, as it holds small floats. The unit takes denormals for 0, so a row is brought to a largest number between 1 and 2 first; where
//! rows hold numbers that are not finite, or 2^100 times smaller than their largest, it is not used.
//!
//! Tiles of sixteen rows lie whole, one after the other: the unit waits for memory more than for anything else, and parts are
//! three times what the numbers were.

use super::walk::{Run, Unit};
use super::{FEW, HIGH, LINE, TILE, zeros};
use crate::packed::kernel::{Decode, Known, Weights, decoded, step_bytes};
use crate::packed::lanes::{LANES, Lanes};
use crate::packed::layout::{Layout, STEP};
use base::Dtype;
use std::arch::x86_64::*;

/// Inputs of a tile.
const DEEP: usize = LINE / 2;
/// Inputs that are decoded together: two tiles of rows stay in the nearest cache, and those of the weights near it.
const RUN: usize = 256;
/// Numbers of a tile.
const NUMBERS: usize = TILE / 2;
/// Inputs from which a float32 goes in two parts.
const LONG: usize = 384;
/// How much smaller than the largest number of a row one may be.
const SPREAD: f32 = 1.0 / (1u128 << 100) as f32;

/// Parts of the numbers of such rows: 8 bits each, and as many as there are bits; but two where what they leave of a number,
/// at most 2^−17 of it, is less than five sixths of the 4 ε √in that a sum may be off, ε = 2^−23: the sums take the rest.
pub fn parts(kind: Dtype, inputs: usize) -> usize {
    match kind {
        Dtype::Bf16 => 1,
        Dtype::F32 if inputs < LONG => 3,
        _ => 2,
    }
}

/// Whether a product is one for tiles: tables hold numbers of more bits.
pub fn fits(w: &Weights, rows: usize) -> bool {
    rows >= FEW && w.layout.groups() > 0 && w.layout.filled().is_multiple_of(DEEP) && w.decode() != Decode::Table
}

/// Rows as parts, in tiles of sixteen: `[tile of rows][block of 32 inputs][part][row][32]`.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    pub rows: usize,
    pub parts: usize,
    pub numbers: &'a [u16],
    pub w: &'a Weights<'a>,
}

/// Numbers of a tile of rows, of which the last may be filled in part.
pub fn high(width: usize, parts: usize) -> usize {
    HIGH * width * parts
}

/// Makes a row of a tile of rows, and says what it has to be multiplied with again; None where it has to be summed in another
/// way.
#[target_feature(enable = "avx512f,avx2,fma")]
pub fn split(x: &[f32], parts: usize, row: usize, tile: &mut [u16]) -> Option<f32> {
    // the bits of a number without its sign order as the numbers do, NaN above all; those of 0, less one, are above all too
    let (mut most, mut least) = (0u32, u32::MAX);
    for &v in x {
        let bits = v.to_bits() & 0x7FFF_FFFF;
        most = most.max(bits);
        least = least.min(bits.wrapping_sub(1));
    }
    if most == 0 {
        for part in tile.as_chunks_mut::<NUMBERS>().0 {
            part[row * DEEP..][..DEEP].fill(0);
        }
        return Some(1.0);
    }
    let (most, least) = (f32::from_bits(most), f32::from_bits(least + 1));
    // powers of two whose inverse is a number too
    let back = f32::from_bits((most.to_bits() & 0x7F80_0000).clamp(0x0100_0000, 0x7E00_0000));
    let scale = 1.0 / back;
    if !most.is_finite() || least * scale < SPREAD {
        return None;
    }
    for (x, block) in x.as_chunks::<DEEP>().0.iter().zip(tile.chunks_exact_mut(NUMBERS * parts)) {
        let mut rest = [0f32; DEEP];
        for i in 0..DEEP {
            rest[i] = x[i] * scale;
        }
        for part in block.as_chunks_mut::<NUMBERS>().0 {
            let part = &mut part[row * DEEP..][..DEEP];
            for i in 0..DEEP {
                // to the nearest, ties to even: finite, and far from the largest
                let bits = rest[i].to_bits();
                let high = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF_0000;
                part[i] = (high >> 16) as u16;
                rest[i] -= f32::from_bits(high);
            }
        }
    }
    Some(back)
}

/// Asks for the tile of rows that follows by `deep` bytes.
macro_rules! fetch {
    ($rows:literal, $at:literal; $($line:literal)*) => {
        concat!($("prefetcht0 [{", $rows, "} + {deep} + ", $at, " + ", $line, "]\n",)*)
    };
    ($rows:literal, $at:literal) => {
        fetch!($rows, $at; 0 64 128 192 256 320 384 448 512 576 640 704 768 832 896 960)
    };
}

/// A part of two tiles of rows, the outputs of two panels.
macro_rules! part {
    ($at:literal) => {
        concat!(
            "tileloadd tmm4, [{a0} + {line} + ",
            $at,
            "]\n",
            fetch!("a0", $at),
            "tdpbf16ps tmm0, tmm4, tmm6\n",
            "tdpbf16ps tmm1, tmm4, tmm7\n",
            "tileloadd tmm5, [{a1} + {line} + ",
            $at,
            "]\n",
            fetch!("a1", $at),
            "tdpbf16ps tmm2, tmm5, tmm6\n",
            "tdpbf16ps tmm3, tmm5, tmm7\n",
        )
    };
}

macro_rules! multiply {
    ($rows:ident, $codes:ident, $steps:ident, $out:ident, $parts:literal: $($part:expr),*) => {
        std::arch::asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm6, [{b} + {line}]",
            "tileloadd tmm7, [{b} + {line} + 1024]",
            $($part,)*
            "add {a0}, {deep}",
            "add {a1}, {deep}",
            "add {b}, 2048",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{out} + {line}], tmm0",
            "tilestored [{out} + {line} + 1024], tmm1",
            "tilestored [{out} + {line} + 2048], tmm2",
            "tilestored [{out} + {line} + 3072], tmm3",
            a0 = inout(reg) $rows[0] => _,
            a1 = inout(reg) $rows[1] => _,
            b = inout(reg) $codes => _,
            line = in(reg) LINE,
            deep = const TILE * $parts,
            steps = inout(reg) $steps => _,
            out = in(reg) $out,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

/// Sums of the rows of two tiles and the outputs of two panels over `steps` · 32 inputs, as four tiles one after the other.
///
/// # Safety
/// Tiles are in force (see [`Force`]); so many tiles of rows, and so many pairs of tiles of weights, are there; `out` has room
/// for four tiles.
unsafe fn multiply(rows: [*const u16; 2], parts: usize, codes: *const u32, steps: usize, out: *mut f32) {
    // SAFETY: reads and writes what the caller promises; what is asked for beyond is not read.
    unsafe {
        match parts {
            1 => multiply!(rows, codes, steps, out, 1: part!("0")),
            2 => multiply!(rows, codes, steps, out, 2: part!("0"), part!("1024")),
            _ => multiply!(rows, codes, steps, out, 3: part!("0"), part!("1024"), part!("2048")),
        }
    }
}

/// Pairs of tiles `[block of 32 inputs][panel][pair of inputs][output]` of some inputs of a group, two inputs a word.
#[inline(always)]
unsafe fn weights<const D: u8>(
    codes: [*const u8; 2],
    less: [__m512; 2],
    known: Known<__m512>,
    inputs: usize,
    out: *mut u32,
) {
    // SAFETY: the codes of so many inputs are there, and room for so many words of sixteen outputs each.
    unsafe {
        for step in 0..inputs / STEP {
            let (block, at) = (step * STEP / DEEP, step * STEP % DEEP / 2);
            for i in 0..2 {
                let p = codes[i].add(step * step_bytes::<D>());
                base::fetch(p.wrapping_add(2048));
                let v = decoded::<__m512, D>(p, less[i], known);
                for pair in 0..STEP / 2 {
                    let low = _mm512_srli_epi32::<16>(_mm512_castps_si512(v[2 * pair]));
                    let high = _mm512_and_si512(_mm512_castps_si512(v[2 * pair + 1]), _mm512_set1_epi32(-65536));
                    let to = out.add((block * 2 + i) * TILE / 4 + (at + pair) * LANES);
                    _mm512_storeu_si512(to.cast(), _mm512_or_si512(low, high));
                }
            }
        }
    }
}

impl Unit for Rows<'_> {
    type Sum = f32;
    #[inline(always)]
    fn rows(&self) -> usize {
        self.rows
    }
    #[inline(always)]
    fn run(&self, _: usize) -> usize {
        RUN
    }
    fn room(_: &Layout, run: usize) -> usize {
        run / DEEP * 2 * TILE
    }
    #[inline(always)]
    unsafe fn weights(self, l: &Layout, heads: [*const u8; 2], run: Run, room: *mut u8) -> [*const u8; 2] {
        // SAFETY: zero points and codes of a group; the room is of a run of two panels.
        unsafe {
            let less = heads.map(|head| <__m512 as Lanes>::less(zeros(l, head)));
            let codes = heads.map(|head| head.add(l.head() + run.from * l.bits * LANES / 8));
            let (known, to) = (self.w.known(), room.cast());
            match self.w.decode() {
                Decode::Small => weights::<{ Decode::Small as u8 }>(codes, less, known, run.inputs, to),
                Decode::Eight => weights::<{ Decode::Eight as u8 }>(codes, less, known, run.inputs, to),
                _ => weights::<{ Decode::Four as u8 }>(codes, less, known, run.inputs, to),
            }
            [room, room.add(TILE)]
        }
    }
    #[inline(always)]
    unsafe fn multiply(self, l: &Layout, rows: [usize; 2], run: Run, weights: [*const u8; 2], out: *mut f32) {
        let row = |r: usize| {
            let input = run.group * l.filled() + run.from;
            self.numbers[r / HIGH * high(l.width(), self.parts) + input * self.parts * HIGH..].as_ptr()
        };
        // SAFETY: as the caller promises.
        unsafe { multiply(rows.map(row), self.parts, weights[0].cast(), run.inputs / DEEP, out) }
    }
    #[inline(always)]
    unsafe fn add(self, _: &Layout, sums: *const f32, _: usize, _: Run, head: *const u8, y: __m512) -> __m512 {
        // SAFETY: sixteen sums; a group begins with its scales.
        unsafe { <__m512 as Lanes>::load(sums).fused(<__m512 as Lanes>::load(head.cast()), y) }
    }
}
