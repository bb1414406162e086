//! Numbers of codes that are places in a table, x̂ = table[q]·s. The one rule: a code is looked up, whatever it stands for: a
//! number of NF4, a small float. At 4 bits two codes are looked up at once, as the byte that they share.

use super::affine::{clamp, end};
use super::grain::Piece;
use super::layout::width;
use super::micro::one;
use super::scales::{Form, Scales};
use base::simd::{Kernel, Simd, dispatch};
use base::{Dtype, Error, Result, Scalar, Tensor, bits, by_float};
use drivers::flat::{self, CHUNK, Compute, Real};

struct Lookup<'a, T: Real> {
    scales: &'a Scales<'a, T>,
    /// The largest finite number of the type that numbers are stored in.
    most: T,
    bits: usize,
    numbers: [T; 256],
    /// Of each byte, the numbers of its low and its high half.
    pairs: [[T; 2]; 256],
}

impl<'a, T: Real> Lookup<'a, T> {
    fn new(scales: &'a Scales<'a, T>, most: T, bits: usize, table: &[f32]) -> Self {
        let mut numbers = [T::ZERO; 256];
        for (n, &v) in numbers.iter_mut().zip(table) {
            *n = T::from_f32(v);
        }
        let mut pairs = [[T::ZERO; 2]; 256];
        for (b, pair) in pairs.iter_mut().enumerate() {
            *pair = [numbers[b & 15], numbers[b >> 4]];
        }
        Lookup { scales, most, bits, numbers, pairs }
    }
}

/// The numbers of the elements from `at` on.
struct Write<'a, T: Real> {
    p: &'a Lookup<'a, T>,
    at: usize,
    packed: &'a [u8],
    y: &'a mut [T],
}

impl<T: Real> Kernel for Write<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Write { p, at, packed, y } = self;
        if p.bits == 4 {
            let (pairs, last) = y.as_chunks_mut::<2>();
            for (y, &b) in pairs.iter_mut().zip(packed) {
                *y = p.pairs[usize::from(b)];
            }
            if let ([y], Some(&b)) = (last, packed.last()) {
                *y = p.numbers[usize::from(b & 15)];
            }
        } else {
            let mut codes = [0u8; CHUNK];
            let codes = if p.bits == 8 {
                packed
            } else {
                bits::unpack(packed, p.bits, &mut codes[..y.len()]);
                &codes[..y.len()]
            };
            for (y, &c) in y.iter_mut().zip(codes) {
                *y = p.numbers[usize::from(c)];
            }
        }
        p.scales.grain.walk(
            at,
            y.len(),
            #[inline(always)]
            |piece| match piece {
                Piece::One(from, to, i) => {
                    let s = p.scales.scale(i);
                    let end = end(s, p.most);
                    y[from..to].iter_mut().for_each(|y| *y = clamp(*y * s, -end, end));
                }
                Piece::Each(from, to, i) => {
                    for (j, y) in y[from..to].iter_mut().enumerate() {
                        let s = p.scales.scale(i + j);
                        let end = end(s, p.most);
                        *y = clamp(*y * s, -end, end);
                    }
                }
            },
        );
    }
}

/// decode_table(data, scale, table, outer) -> x; bits, last (the size of x's last axis, in its shape), dtype (in its dtype)
pub fn decode_table(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [data, scale, table, outer, x] = t else { return Err(super::arrays(5, t)) };
    let bits = width(k[0].int())?;
    if data.dtype() != Dtype::U8 {
        return Err(Error::Type(format!("packed codes are uint8, got {}", data.dtype().name())));
    }
    let table = table.slice::<f32>()?;
    if table.len() != 1 << bits {
        return Err(Error::Value(format!(
            "codes of {bits} bits are places in {} numbers, got {}",
            1 << bits,
            table.len()
        )));
    }
    by_float!(x, A => {
        let scales = &if scale.dtype() == Dtype::U8 {
            let outer = if outer.is_empty() { None } else { Some(one(outer)?) };
            Scales::<<A as Compute>::Real>::of_bytes(x, scale, outer)?
        } else if outer.is_empty() {
            Scales::new(x, scale, outer, Form::Divide)?
        } else {
            return Err(Error::Value("an outer scale lies over scales of one byte".into()));
        };
        let p = &Lookup::new(scales, A::MOST, bits, table);
        flat::from_bytes::<A>(data, x, |n| bits::bytes(n, bits), |at, packed, y| dispatch(Write { p, at, packed, y }))
    })
}
