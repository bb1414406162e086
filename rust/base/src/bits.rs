//! Codes of 1 to 8 bits in bytes. The one rule: code i lies at bits i·b … i·b + b − 1 counted from the lowest bit of the
//! first byte, codes straddle bytes, and the bits after the last code are zero.
//!
//! On a little-endian machine the same bytes are 32-bit words filled from their lowest bit, the layout of compressed-tensors,
//! once a row is padded to whole words. A mask is a row of codes of one bit.

use crate::simd::{Kernel, Simd, dispatch};
use std::array::from_fn;

const _: () = assert!(cfg!(target_endian = "little"));

/// Bytes that `n` codes of `bits` bits take.
pub const fn bytes(n: usize, bits: usize) -> usize {
    // eight codes are `bits` bytes; n · bits could overflow
    n / 8 * bits + (n % 8 * bits).div_ceil(8)
}

/// `body` with `B` the constant that `bits` is.
macro_rules! by_bits {
    ($bits:expr, $b:ident => $body:expr) => {
        match $bits {
            1 => {
                const $b: usize = 1;
                $body
            }
            2 => {
                const $b: usize = 2;
                $body
            }
            3 => {
                const $b: usize = 3;
                $body
            }
            5 => {
                const $b: usize = 5;
                $body
            }
            6 => {
                const $b: usize = 6;
                $body
            }
            7 => {
                const $b: usize = 7;
                $body
            }
            other => panic!("codes of {other} bits"),
        }
    };
}

/// Packs codes below 2^bits (higher bits are dropped) into exactly [`bytes`] bytes. A call, not a piece of the caller's loop:
/// the eight widths are compiled once.
pub fn pack(codes: &[u8], bits: usize, out: &mut [u8]) {
    dispatch(Pack(codes, bits, out));
}

/// Reads back what [`pack`] wrote.
pub fn unpack(packed: &[u8], bits: usize, out: &mut [u8]) {
    dispatch(Unpack(packed, bits, out));
}

struct Pack<'a>(&'a [u8], usize, &'a mut [u8]);
impl Kernel for Pack<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        pack_here(self.0, self.1, self.2);
    }
}
struct Unpack<'a>(&'a [u8], usize, &'a mut [u8]);
impl Kernel for Unpack<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        unpack_here(self.0, self.1, self.2);
    }
}

#[inline(always)]
fn pack_here(codes: &[u8], bits: usize, out: &mut [u8]) {
    assert_eq!(out.len(), bytes(codes.len(), bits));
    match bits {
        8 => out.copy_from_slice(codes),
        4 => {
            let (pairs, last) = codes.as_chunks::<2>();
            for (o, &c) in out.iter_mut().zip(pairs) {
                // as one number of 16 bits, which becomes a vector without a shuffle
                let c = u16::from_le_bytes(c) & 0x0f0f;
                *o = (c | c >> 4) as u8;
            }
            if let ([c], Some(o)) = (last, out.last_mut()) {
                *o = c & 15;
            }
        }
        _ => by_bits!(bits, B => {
            let (eights, last) = codes.as_chunks::<8>();
            let (whole, rest) = out.split_at_mut(eights.len() * B);
            let (groups, _) = whole.as_chunks_mut::<B>();
            for (g, &c) in groups.iter_mut().zip(eights) {
                let w = squeeze::<B>(c).to_le_bytes();
                *g = from_fn(#[inline(always)] |i| w[i]);
            }
            if !last.is_empty() {
                let c = from_fn(#[inline(always)] |i| last.get(i).copied().unwrap_or(0));
                let w = squeeze::<B>(c).to_le_bytes();
                rest.copy_from_slice(&w[..rest.len()]);
            }
        }),
    }
}

#[inline(always)]
fn unpack_here(packed: &[u8], bits: usize, out: &mut [u8]) {
    assert_eq!(packed.len(), bytes(out.len(), bits));
    match bits {
        8 => out.copy_from_slice(packed),
        4 => {
            let (pairs, last) = out.as_chunks_mut::<2>();
            for (o, &p) in pairs.iter_mut().zip(packed) {
                let p = u16::from(p);
                *o = ((p | p << 4) & 0x0f0f).to_le_bytes();
            }
            if let ([o], Some(p)) = (last, packed.last()) {
                *o = p & 15;
            }
        }
        _ => by_bits!(bits, B => {
            let (eights, last) = out.as_chunks_mut::<8>();
            let (whole, rest) = packed.split_at(eights.len() * B);
            let (groups, _) = whole.as_chunks::<B>();
            for (o, g) in eights.iter_mut().zip(groups) {
                *o = spread::<B>(from_fn(#[inline(always)] |i| if i < B { g[i] } else { 0 }));
            }
            if !last.is_empty() {
                let o = spread::<B>(from_fn(#[inline(always)] |i| rest.get(i).copied().unwrap_or(0)));
                last.copy_from_slice(&o[..last.len()]);
            }
        }),
    }
}

/// The number of bits that are set.
#[inline(always)]
pub fn popcount(x: &[u8]) -> usize {
    let (eights, last) = x.as_chunks::<8>();
    let whole: u64 = eights
        .iter()
        .map(
            #[inline(always)]
            |&e| u64::from(u64::from_le_bytes(e).count_ones()),
        )
        .sum();
    whole as usize + last.iter().map(|b| b.count_ones() as usize).sum::<usize>()
}

/// `low` bits out of every `lane` bits.
const fn mask(lane: u32, low: u32) -> u64 {
    let (mut m, mut at) = (0, 0);
    while at < 64 {
        m |= ((1u128 << low) - 1) << at;
        at += lane;
    }
    m as u64
}

/// Eight codes, one a byte, side by side in the lowest 8·B bits: neighbours are joined three times.
#[inline(always)]
fn squeeze<const B: usize>(codes: [u8; 8]) -> u64 {
    let b = B as u32;
    let mut c = u64::from_le_bytes(codes) & mask(8, b);
    c = c & mask(16, 8) | (c & !mask(16, 8)) >> (8 - b);
    c = c & mask(32, 16) | (c & !mask(32, 16)) >> (16 - 2 * b);
    c & mask(64, 32) | (c & !mask(64, 32)) >> (32 - 4 * b)
}

/// The inverse of [`squeeze`].
#[inline(always)]
fn spread<const B: usize>(packed: [u8; 8]) -> [u8; 8] {
    let b = B as u32;
    let mut c = u64::from_le_bytes(packed);
    c = c & mask(64, 4 * b) | (c & !mask(64, 4 * b)) << (32 - 4 * b);
    c = c & mask(32, 2 * b) | (c & (mask(32, 4 * b) & !mask(32, 2 * b))) << (16 - 2 * b);
    c = c & mask(16, b) | (c & (mask(16, 2 * b) & !mask(16, b))) << (8 - b);
    c.to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{available, force};

    fn slow(codes: &[u8], bits: usize) -> Vec<u8> {
        let mut out = vec![0; bytes(codes.len(), bits)];
        for (i, c) in codes.iter().enumerate() {
            for k in 0..bits {
                let at = i * bits + k;
                out[at / 8] |= (c >> k & 1) << (at % 8);
            }
        }
        out
    }

    #[test]
    fn every_width_and_remainder() {
        for level in available() {
            force(Some(level));
            for bits in 1..=8 {
                for n in (0..=131).chain([255, 1023, 4097]) {
                    let codes: Vec<u8> = (0..n).map(|i| ((i * 89 + 13) % (1 << bits)) as u8).collect();
                    let mut packed = vec![0xff; bytes(n, bits)];
                    let mut back = vec![0xff; n];
                    pack(&codes, bits, &mut packed);
                    unpack(&packed, bits, &mut back);
                    assert_eq!(packed, slow(&codes, bits), "{bits} bits, {n} codes");
                    assert_eq!(back, codes, "{bits} bits, {n} codes");
                }
            }
        }
        force(None);
    }

    #[test]
    fn high_bits_do_not_spill() {
        for bits in 1..8 {
            for n in [1, 7, 8, 9, 64] {
                let (mut a, mut b) = (vec![0; bytes(n, bits)], vec![0; bytes(n, bits)]);
                pack(&vec![0xff; n], bits, &mut a);
                pack(&vec![0xff >> (8 - bits); n], bits, &mut b);
                assert_eq!(a, b);
            }
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes(usize::MAX / 8, 8), usize::MAX / 8);
        assert_eq!((bytes(0, 3), bytes(3, 3), bytes(8, 3), bytes(9, 3)), (0, 2, 3, 4));
        for n in 0..200 {
            assert_eq!(popcount(&vec![0xa7; n]), 5 * n);
        }
    }
}
