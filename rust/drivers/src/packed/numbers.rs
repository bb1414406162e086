//! What codes stand for. The one rule: a code and its zero point say it, wherever they lie.

use super::lanes::LANES;

/// A float of 8 bits, so many of them its fraction: a sign, an exponent, no infinities.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Small {
    pub fraction: u32,
}

impl Small {
    /// What a float32 with the same fields is multiplied with to be this number.
    pub fn factor(self) -> f32 {
        let bias = (1 << (6 - self.fraction)) - 1;
        f32::from_bits((254 - bias) << 23)
    }

    pub fn number(self, code: u8) -> f32 {
        let code = u32::from(code);
        f32::from_bits((code & 0x80) << 24 | (code & 0x7F) << (23 - self.fraction)) * self.factor()
    }
}

/// What codes stand for.
#[derive(Clone, Copy)]
pub enum Numbers<'a> {
    /// Themselves, less their zero point.
    Integers,
    /// What a table has in that place, of codes of 4 bits.
    Table(&'a [f32; LANES]),
    /// Floats of 8 bits.
    Small(Small),
}

impl Numbers<'_> {
    /// The number of a code with this zero point.
    pub fn of(self, code: u8, zero: i32) -> f32 {
        match self {
            Numbers::Integers => i32::from(code).wrapping_sub(zero) as f32,
            Numbers::Table(table) => table[usize::from(code & 15)],
            Numbers::Small(small) => small.number(code),
        }
    }
}
