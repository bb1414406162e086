//! Codes into packed rows and back. The one rule: a row of the last axis begins on a byte (or on a 32-bit word), signed codes
//! are stored plus 2^(b − 1), and the bits after a row's last code are zero.

use base::pool::{self, Shared};
use base::simd::{Kernel, Simd, dispatch};
use base::{Dtype, Error, Result, Scalar, Tensor, bits};
use drivers::flat::{CHUNK, Rows};

/// 1 to 8.
pub fn width(bits: i64) -> Result<usize> {
    match bits {
        1..=8 => Ok(bits as usize),
        other => Err(Error::Value(format!("bits lie within 1 and 8, got {other}"))),
    }
}

fn bytes_of(t: &Tensor) -> Result<()> {
    if matches!(t.dtype(), Dtype::I8 | Dtype::U8) {
        return Ok(());
    }
    Err(Error::Type(format!("codes are int8 or uint8, got {}", t.dtype().name())))
}

/// Bytes per packed row, after checking that `w` has one for each of `rows` and that it holds `rows.len` codes.
fn stride(w: &Tensor, rows: Rows, bits: usize) -> Result<usize> {
    if !matches!(w.dtype(), Dtype::U8 | Dtype::I32) {
        return Err(Error::Type(format!("packed codes are uint8 or int32, got {}", w.dtype().name())));
    }
    let (n, len) = w.rows();
    let stride = len * w.dtype().size();
    let need = bits::bytes(rows.len, bits).next_multiple_of(w.dtype().size());
    if n != rows.rows || stride != need {
        return Err(Error::Value(format!(
            "{} rows of {} codes of {bits} bits are {} rows of {need} bytes, got {n} of {stride}",
            rows.rows, rows.len, rows.rows
        )));
    }
    Ok(stride)
}

struct Shift<'a>(&'a [u8], u8, &'a mut [u8]);
impl Kernel for Shift<'_> {
    type Output = u8;
    /// y = x + offset; all bits that some y has.
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> u8 {
        let mut all = 0;
        for (y, &x) in self.2.iter_mut().zip(self.0) {
            *y = x.wrapping_add(self.1);
            all |= *y;
        }
        all
    }
}

/// pack(q) -> w; bits, words
pub fn pack(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [q, w] = t else { return Err(super::arrays(2, t)) };
    let bits = width(k[0].int())?;
    bytes_of(q)?;
    let rows = Rows::of(q);
    let stride = stride(w, rows, bits)?;
    if !w.writable() {
        return Err(Error::Value("w is read-only".into()));
    }
    let offset: u8 = if q.dtype() == Dtype::I8 { 1 << (bits - 1) } else { 0 };
    let out = Shared(w.as_ptr());
    let all = pool::map(rows.blocks(), q.len(), |block| {
        let (mut codes, mut all) = ([0u8; CHUNK], 0);
        rows.each(block, |row, from, to| {
            for at in (from..to).step_by(CHUNK) {
                let n = CHUNK.min(to - at);
                // SAFETY: codes of this block, within the array.
                let q = unsafe { std::slice::from_raw_parts(q.as_ptr().add(row * rows.len + at), n) };
                all |= dispatch(Shift(q, offset, &mut codes[..n]));
                // SAFETY: pieces begin at multiples of 8 codes, so no two of them share a byte.
                let w = unsafe { out.part(row * stride + bits::bytes(at, bits), bits::bytes(n, bits)) };
                bits::pack(&codes[..n], bits, w);
            }
            if to == rows.len {
                let end = bits::bytes(to, bits);
                // SAFETY: what is left of the row, which the block of its last piece owns.
                unsafe { out.part(row * stride + end, stride - end) }.fill(0);
            }
        });
        all
    })?;
    if all.iter().any(|&a| u32::from(a) >> bits != 0) {
        let (lo, hi) = if offset == 0 { (0, (1 << bits) - 1) } else { (-(1i32 << (bits - 1)), (1 << (bits - 1)) - 1) };
        return Err(Error::Value(format!("q holds codes that are not within {lo} and {hi}: more than {bits} bits")));
    }
    Ok(())
}

/// unpack(w) -> q; bits, last (the size of q's last axis, in its shape), signed
pub fn unpack(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [w, q] = t else { return Err(super::arrays(2, t)) };
    let bits = width(k[0].int())?;
    bytes_of(q)?;
    let rows = Rows::of(q);
    let stride = stride(w, rows, bits)?;
    if !q.writable() {
        return Err(Error::Value("q is read-only".into()));
    }
    let offset: u8 = if q.dtype() == Dtype::I8 { 1 << (bits - 1) } else { 0 };
    let out = Shared(q.as_ptr());
    pool::run(rows.blocks(), q.len(), |block| {
        let mut codes = [0u8; CHUNK];
        rows.each(block, |row, from, to| {
            for at in (from..to).step_by(CHUNK) {
                let n = CHUNK.min(to - at);
                let (first, len) = (row * stride + bits::bytes(at, bits), bits::bytes(n, bits));
                // SAFETY: the bytes of these codes, within the array; pieces begin at multiples of 8 codes.
                let w = unsafe { std::slice::from_raw_parts(w.as_ptr().add(first), len) };
                bits::unpack(w, bits, &mut codes[..n]);
                // SAFETY: the codes of this block.
                let q = unsafe { out.part(row * rows.len + at, n) };
                dispatch(Shift(&codes[..n], offset.wrapping_neg(), q));
            }
        });
    })
}
