//! Codes of 8 bits as bytes. The one rule: whichever way codes have their sign, they are written the same.

use base::{Dtype, Result, Tensor};

/// The bytes of an array of int8 or uint8, for writing.
#[allow(clippy::mut_from_ref)]
pub fn octets<'a>(q: &Tensor<'a>) -> Result<&'a mut [u8]> {
    if q.dtype() != Dtype::I8 {
        return q.slice_mut();
    }
    let codes = q.slice_mut::<i8>()?;
    // SAFETY: the same memory, handed out once, as bytes without sign: of one size, and all of their values are valid.
    Ok(unsafe { std::slice::from_raw_parts_mut(codes.as_mut_ptr().cast(), codes.len()) })
}
