//! Hadamard matrices of order 12, 20 and 28. The one rule: they are symmetric, so that the transform is an involution.
//!
//! Paley's second construction (1933): for a prime power q ≡ 1 (mod 4) and χ the quadratic character of GF(q),
//! C = [0 1ᵀ; 1 (χ(a − b))] is a symmetric conference matrix and H = C ⊗ [1 1; 1 −1] + I ⊗ [1 −1; −1 −1] a symmetric Hadamard
//! matrix of order 2(q + 1). Here q = 5, 9 = 3² (GF(9) = GF(3)[i], i² = −1; a + bi at index a + 3b) and 13.

use base::lane::{Lane, load};
use base::simd::*;

/// The largest order.
const MOST: usize = 28;

static H12: [i8; 144] = table(5);
static H20: [i8; 400] = table(9);
static H28: [i8; 784] = table(13);

/// The rows of H_K, one after the other.
pub fn signs(k: usize) -> &'static [i8] {
    match k {
        12 => &H12,
        20 => &H20,
        28 => &H28,
        _ => &[1],
    }
}

const fn table<const N: usize>(q: usize) -> [i8; N] {
    let order = 2 * (q + 1);
    let mut h = [0; N];
    let mut at = 0;
    while at < N {
        let (r, c) = (at / order, at % order);
        let low = r % 2 == 1 && c % 2 == 1;
        h[at] = if r / 2 == c / 2 {
            // I ⊗ [1 −1; −1 −1]
            if r % 2 == 0 && c % 2 == 0 { 1 } else { -1 }
        } else {
            // C ⊗ [1 1; 1 −1]
            let entry = if r < 2 || c < 2 { 1 } else { character(q, r / 2 - 1, c / 2 - 1) };
            if low { -entry } else { entry }
        };
        at += 1;
    }
    h
}

/// χ(a − b): whether the difference of two different elements is a square.
const fn character(q: usize, a: usize, b: usize) -> i8 {
    let mut x = 1;
    while x < q {
        let square = if q == 9 {
            let (re, im) = (x % 3, x / 3);
            // (re + im·i)² = re² − im² + 2·re·im·i; −im² is 2·im²
            (re * re + 2 * im * im) % 3 + 3 * (2 * re * im % 3)
        } else {
            x * x % q
        };
        let difference = if q == 9 { (a % 3 + 3 - b % 3) % 3 + 3 * ((a / 3 + 3 - b / 3) % 3) } else { (a + q - b) % q };
        if square == difference {
            return 1;
        }
        x += 1;
    }
    -1
}

/// H_K across K rows `stride` apart, on `width` elements of each.
///
/// # Safety
/// `width` elements at every `row + i·stride`, i < k, are ours alone.
#[inline(always)]
pub unsafe fn mix<S: Simd, L: Lane>(s: S, row: *mut L, k: usize, stride: usize, width: usize, scale: L) {
    let table = signs(k);
    let mut v = [L::V::<S>::splat(s, L::of(0.0)); MOST];
    let mut at = 0;
    while at < width {
        let lanes = L::LANES.min(width - at);
        for (c, v) in v[..k].iter_mut().enumerate() {
            // SAFETY: promised by the caller.
            let x = unsafe { std::slice::from_raw_parts(row.add(c * stride + at), lanes) };
            *v = if lanes == L::LANES {
                load::<S, L>(s, x)
            } else {
                let mut whole = [L::of(0.0); 16];
                whole[..lanes].copy_from_slice(x);
                load::<S, L>(s, &whole)
            };
        }
        for (r, signs) in table.chunks_exact(k).enumerate() {
            let mut sum = v[0] * L::of(signs[0].into());
            for c in 1..k {
                // a product with ±1 is exact: fused or not, the same bits
                sum = v[c].mul_add(L::V::<S>::splat(s, L::of(signs[c].into())), sum);
            }
            let sum = sum * scale;
            // SAFETY: promised by the caller.
            let y = unsafe { std::slice::from_raw_parts_mut(row.add(r * stride + at), lanes) };
            y.copy_from_slice(&sum.as_slice()[..lanes]);
        }
        at += lanes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symmetric_and_orthogonal() {
        for k in [12, 20, 28] {
            let h = signs(k);
            assert_eq!(h.len(), k * k);
            for r in 0..k {
                for c in 0..k {
                    assert!(h[r * k + c].abs() == 1 && h[r * k + c] == h[c * k + r]);
                    let dot: i32 = (0..k).map(|j| i32::from(h[r * k + j] * h[c * k + j])).sum();
                    assert_eq!(dot, if r == c { k as i32 } else { 0 });
                }
            }
        }
    }
}
