//! Tiles of AMX: sixteen rows times sixteen outputs. The one rule: a unit's state is asked for once, put in force by who
//! multiplies, and given back.

pub mod floats;
pub mod integers;
mod walk;

use super::kernel::Weights;
use super::lanes::Lanes;
use super::layout::Layout;
use super::take::Take;
use base::Result;
use base::pool;
pub use base::tiles::{allowed, there};
use std::arch::x86_64::{__m512, __m512i};
use std::ops::Range;

/// Rows of a tile, and of two beside each other.
pub const HIGH: usize = 16;
const PAIR: usize = 2 * HIGH;
/// Bytes of a tile, and of a row of it.
const TILE: usize = 1024;
const LINE: usize = 64;
/// Rows whose sums with all panels of a task stay near, and which weights that were laid out anew meet.
const BLOCK: usize = 128;
/// Rows under which tiles are mostly empty.
const FEW: usize = 9;

/// Sums as tiles are stored.
#[repr(C, align(64))]
struct Aligned<T>(T);

/// How tiles are cut: the operand of `ldtilecfg`.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start: u8,
    rest: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

impl Shapes {
    /// Two tiles of rows, one below the other.
    fn new(first: usize, second: usize) -> Shapes {
        let (a, b) = (first as u8, second as u8);
        let mut shapes = Shapes { palette: 1, start: 0, rest: [0; 14], bytes: [0; 16], rows: [0; 16] };
        shapes.bytes[..8].fill(LINE as u16);
        shapes.rows[..8].copy_from_slice(&[a, a, b, b, a, b, 16, 16]);
        shapes
    }
}

/// The shapes in force; the state of the unit, which otherwise is saved at every switch of threads, is given back in the end.
struct Force(usize);

impl Force {
    fn new() -> Force {
        Force(0)
    }

    /// Puts tiles of `left` rows, at most two below each other, in force where others are: this takes as long as some products
    /// do. Returns where the second begins, which is the first again where there is none.
    ///
    /// # Safety
    /// Tiles are permitted.
    unsafe fn rows(&mut self, from: usize, left: usize) -> usize {
        let (first, second) = (left.min(HIGH), left.saturating_sub(HIGH));
        if self.0 != left {
            let shapes = Shapes::new(first, if second > 0 { second } else { first });
            // SAFETY: reads the 64 bytes of the shapes.
            unsafe { std::arch::asm!("ldtilecfg [{}]", in(reg) &raw const shapes, options(nostack, readonly)) };
            self.0 = left;
        }
        if second > 0 { from + HIGH } else { from }
    }
}

impl Drop for Force {
    fn drop(&mut self) {
        if self.0 > 0 {
            // SAFETY: tiles are in force.
            unsafe { std::arch::asm!("tilerelease", options(nomem, nostack)) };
        }
    }
}

/// Panels in a task of tiles: each reads the rows again, and putting shapes in force takes as long as some products.
const MANY: usize = 8;

fn in_tiles(w: &Weights, rows: usize, task: impl Fn(Range<usize>) -> Result<()> + Sync) -> Result<()> {
    assert!(w.panels.len() == w.layout.panels() * w.layout.panel_bytes());
    let panels = w.layout.panels();
    let work = rows.saturating_mul(w.layout.outs).saturating_mul(w.layout.inputs);
    pool::map(panels.div_ceil(MANY), work / 32, |i| task(i * MANY..panels.min((i + 1) * MANY)))?.into_iter().collect()
}

/// The zero points of a group that begins there.
///
/// # Safety
/// The group is there; the vectors are.
#[inline(always)]
unsafe fn zeros(l: &Layout, head: *const u8) -> __m512i {
    // SAFETY: they follow the scales.
    unsafe {
        if l.affine { <__m512 as Lanes>::words(head.add(LINE)) } else { <__m512 as Lanes>::same(i32::from(l.middle())) }
    }
}

/// As `product::integers`.
pub fn sums_of_integers(w: &Weights, x: integers::Rows, whole: bool, take: &Take) -> Result<()> {
    assert!(x.stride >= w.layout.width() && x.codes.len() >= x.rows * x.stride);
    assert!(x.totals.len() == x.rows * w.layout.groups() && integers::fits(w, x.rows) && there());
    // SAFETY: as asked above.
    in_tiles(w, x.rows, |panels| unsafe { walk::product(integers::Product { rows: x, whole }, w, panels, take) })
}

/// As `product::floats`.
pub fn sums_of_floats(w: &Weights, x: floats::Rows, take: &Take) -> Result<()> {
    assert!(x.numbers.len() >= x.rows.div_ceil(HIGH) * floats::high(w.layout.width(), x.parts));
    assert!((1..=3).contains(&x.parts) && floats::fits(w, x.rows) && there());
    // SAFETY: as asked above.
    in_tiles(w, x.rows, |panels| unsafe { walk::product(x, w, panels, take) })
}
