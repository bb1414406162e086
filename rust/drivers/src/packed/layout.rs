//! How weights lie for products. The one rule: what a product reads of sixteen outputs lies in the order it is read.
//!
//! A panel holds the weights of sixteen outputs, those past the last one 0. Group after group of inputs it has sixteen scales
//! (f32), with zero points of their own sixteen zero points (i32), then the codes, without sign: for every four inputs (eight,
//! at 4 bits) sixteen words of four bytes, one an output. At 8 bits byte j of a word is input j; at 4 bits the low half of
//! byte j is input j and the high half input 4 + j. A group is filled up to a multiple of eight inputs with its zero.

use super::lanes::LANES;
use super::numbers::Numbers;
use base::pool::{self, Shared};
use base::{Error, Result};

/// Inputs that are read together.
pub const STEP: usize = 8;
/// Bytes of sixteen scales, or zero points.
const HEAD: usize = 4 * LANES;

/// The shape of packed weights.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    pub outs: usize,
    pub inputs: usize,
    /// Inputs that share a scale: a divisor of `inputs`.
    pub group: usize,
    /// 4 or 8.
    pub bits: usize,
    /// Whether every group has its zero point, not all of them 2^(bits − 1).
    pub affine: bool,
}

impl Layout {
    pub fn new(outs: usize, inputs: usize, group: usize, bits: usize, affine: bool) -> Result<Layout> {
        if bits != 4 && bits != 8 {
            return Err(Error::Value(format!("panels hold codes of 4 or 8 bits, not {bits}")));
        }
        if inputs > 0 && (group == 0 || !inputs.is_multiple_of(group)) {
            return Err(Error::Value(format!("groups of {group} do not divide {inputs} inputs")));
        }
        let layout = Layout { outs, inputs, group, bits, affine };
        // sizes of no memory there is: no product of them below overflows
        let most = (outs as u128 + 16) * (inputs as u128 + 8) * 136;
        if most > isize::MAX as u128 {
            return Err(Error::Value(format!("{outs} outputs of {inputs} inputs are too many")));
        }
        Ok(layout)
    }

    pub fn panels(&self) -> usize {
        self.outs.div_ceil(LANES)
    }
    pub fn groups(&self) -> usize {
        if self.inputs == 0 { 0 } else { self.inputs / self.group }
    }
    /// Inputs of a group with what fills it up.
    pub fn filled(&self) -> usize {
        self.group.next_multiple_of(STEP)
    }
    /// Inputs of all groups so filled.
    pub fn width(&self) -> usize {
        self.groups() * self.filled()
    }
    /// Where the codes of a group begin.
    pub fn head(&self) -> usize {
        if self.affine { 2 * HEAD } else { HEAD }
    }
    pub fn group_bytes(&self) -> usize {
        self.head() + self.filled() * self.bits * LANES / 8
    }
    pub fn panel_bytes(&self) -> usize {
        self.groups() * self.group_bytes()
    }
    /// The zero point of all codes where groups have none of their own.
    pub fn middle(&self) -> u8 {
        1 << (self.bits - 1)
    }

    /// Where the code of an input of a group lies among its codes, and how far its bits are shifted there.
    fn place(&self, lane: usize, i: usize) -> (usize, u32) {
        if self.bits == 8 {
            ((i / 4 * LANES + lane) * 4 + i % 4, 0)
        } else {
            ((i / 8 * LANES + lane) * 4 + i % 4, if i % 8 < 4 { 0 } else { 4 })
        }
    }

    /// Panels of codes `q[outs, inputs]` without sign, scales and zero points `[outs, groups]`.
    pub fn pack(&self, q: &[u8], scale: &[f32], zero: Option<&[f32]>, out: &mut [u8]) -> Result<()> {
        let Layout { outs, inputs, group, .. } = *self;
        let (groups, bytes, mask) = (self.groups(), self.panel_bytes(), ((1u32 << self.bits) - 1) as u8);
        let most = f32::from(mask);
        if let Some(z) = zero.and_then(|z| z.iter().find(|&&z| !(z >= 0.0 && z <= most && z.fract() == 0.0))) {
            return Err(Error::Value(format!("zero_point holds {z}, which is no code of {} bits", self.bits)));
        }
        if let Some(c) = q.iter().find(|&&c| c > mask) {
            return Err(Error::Value(format!("q holds {c}, which is no code of {} bits", self.bits)));
        }
        let out = Shared(out.as_mut_ptr());
        pool::run(self.panels(), q.len(), |panel| {
            // SAFETY: panels are disjoint parts of `out`, whose size the caller has checked.
            let out = unsafe { out.part(panel * bytes, bytes) };
            for (g, out) in out.chunks_exact_mut(self.group_bytes()).enumerate() {
                let (head, codes) = out.split_at_mut(self.head());
                codes.fill(0);
                for lane in 0..LANES {
                    let row = panel * LANES + lane;
                    let at = |part: usize| part * HEAD + 4 * lane;
                    let there = row < outs;
                    let s = if there { scale[row * groups + g] } else { 0.0 };
                    head[at(0)..at(0) + 4].copy_from_slice(&s.to_le_bytes());
                    let mut z = self.middle();
                    if self.affine {
                        z = zero.filter(|_| there).map_or(0, |z| z[row * groups + g] as u8);
                        head[at(1)..at(1) + 4].copy_from_slice(&i32::from(z).to_le_bytes());
                    }
                    let own = if there { &q[row * inputs + g * group..][..group] } else { &[] };
                    for i in 0..self.filled() {
                        let (byte, shift) = self.place(lane, i);
                        codes[byte] |= own.get(i).copied().unwrap_or(z) << shift;
                    }
                }
            }
        })
    }

    /// The codes of group g of a panel as numbers `[group][16]`, and their scales.
    pub fn numbers(&self, panel: &[u8], g: usize, numbers: Numbers, out: &mut [f32]) -> [f32; LANES] {
        let part = &panel[g * self.group_bytes()..][..self.group_bytes()];
        let (head, codes) = part.split_at(self.head());
        let word = |at: usize| [head[at], head[at + 1], head[at + 2], head[at + 3]];
        let mut scale = [0.0; LANES];
        for (lane, scale) in scale.iter_mut().enumerate() {
            *scale = f32::from_le_bytes(word(4 * lane));
            let z = if self.affine { i32::from_le_bytes(word(HEAD + 4 * lane)) } else { i32::from(self.middle()) };
            for i in 0..self.group {
                let (byte, shift) = self.place(lane, i);
                let code = codes[byte] >> shift & ((1u32 << self.bits) - 1) as u8;
                out[i * LANES + lane] = numbers.of(code, z);
            }
        }
        scale
    }
}
