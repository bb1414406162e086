//! Products of rows with packed weights. The one rule: how rows and panels are cut shows in no bit of a result.
//!
//! Rows are dealt evenly to tiles of as many as the registers hold, and lie in a tile input by input, so that what a panel is
//! multiplied with is read in order. A task is a few panels and all rows.

use super::kernel::{self, Decode, FEW, RUN, Weights};
use super::lanes::{LANES, Lanes, Plain};
use super::numbers::Numbers;
use super::take::{Block, Take};
use base::pool::{self, Shared};
use base::vector::{Isa, Set};
use base::{Result, try_vec};
use std::mem::MaybeUninit;
use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use super::lanes::Pair;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__m512;

/// Panels in a task.
pub const PANELS: usize = 4;
/// Tiles of rows that decoded weights are used for before the next are decoded, and the most panels and rows these are.
const TILES: usize = 8;
const BESIDE: usize = 2;
const ROWS: usize = 12;

/// Which kernels run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Path {
    Plain,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Path {
    /// The best one here for sums of floats, or of integers.
    pub fn current(integers: bool) -> Path {
        match Isa::current().0 {
            Set::Generic => Path::Plain,
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => Path::Avx2,
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 if integers && !is_x86_feature_detected!("avx512vnni") => Path::Avx2,
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => Path::Avx512,
        }
    }

    fn rows(self) -> usize {
        match self {
            Path::Plain => Plain::ROWS,
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 => Pair::ROWS,
            #[cfg(target_arch = "x86_64")]
            Path::Avx512 => <__m512 as Lanes>::ROWS,
        }
    }

    fn looks(self) -> bool {
        match self {
            Path::Plain => Plain::LOOKS,
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 => Pair::LOOKS,
            #[cfg(target_arch = "x86_64")]
            Path::Avx512 => <__m512 as Lanes>::LOOKS,
        }
    }
}

/// What is compiled for each path.
trait Job {
    unsafe fn run<L: Lanes>(&self);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<J: Job>(job: &J) {
    // SAFETY: the instruction set is this function's.
    unsafe { job.run::<Pair>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni,avx2,fma")]
unsafe fn avx512<J: Job>(job: &J) {
    // SAFETY: as above.
    unsafe { job.run::<__m512>() }
}

fn run<J: Job>(path: Path, job: &J) {
    // SAFETY: a `Path` was made after the machine was asked; a float job uses nothing of VNNI.
    unsafe {
        match path {
            Path::Plain => job.run::<Plain>(),
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 => avx2(job),
            #[cfg(target_arch = "x86_64")]
            Path::Avx512 => avx512(job),
        }
    }
}

/// Rows dealt to tiles.
#[derive(Clone, Copy)]
pub struct Tiles {
    pub rows: usize,
    tiles: usize,
    path: Path,
}

impl Tiles {
    pub fn new(path: Path, rows: usize) -> Tiles {
        Tiles { rows, tiles: rows.div_ceil(path.rows()), path }
    }

    fn bound(&self, tile: usize) -> usize {
        // the longer ones first, none more than one longer than another
        let (each, more) = (self.rows / self.tiles, self.rows % self.tiles);
        tile * each + tile.min(more)
    }

    /// Numbers of `width` per row, put together by tiles: `[tile][place][row]`. `fill(row, out)` tells those of a row.
    pub fn lay<T: Copy + Default + Send>(
        &self,
        width: usize,
        fill: impl Fn(usize, &mut [T]) -> Result<()> + Sync,
    ) -> Result<Vec<T>> {
        let mut out = try_vec(self.rows * width, T::default())?;
        if width == 0 {
            return Ok(out);
        }
        let shared = Shared(out.as_mut_ptr());
        let done = pool::map(self.tiles, self.rows * width, |tile| {
            let (from, to) = (self.bound(tile), self.bound(tile + 1));
            let n = to - from;
            // SAFETY: tiles are disjoint parts of `out`.
            let out = unsafe { shared.part(from * width, n * width) };
            if n == 1 {
                return fill(from, out);
            }
            let mut row = try_vec(width, T::default())?;
            for r in 0..n {
                fill(from + r, &mut row)?;
                for (out, v) in out[r..].iter_mut().step_by(n).zip(&row) {
                    *out = *v;
                }
            }
            Ok(())
        })?;
        done.into_iter().collect::<Result<()>>()?;
        Ok(out)
    }
}

struct Task<'a> {
    w: &'a Weights<'a>,
    tiles: &'a Tiles,
    panels: Range<usize>,
    take: &'a Take<'a>,
}

impl Task<'_> {
    fn give(&self, rows: Range<usize>, panel: usize, z: usize, y: &[f32]) {
        (self.take)(Block::new(self.w, rows, panel, z, y));
    }
}

/// Calls with the number of rows as a constant, of those that L holds.
macro_rules! by_rows {
    ($L:ident, $n:expr, $R:ident => $call:expr; $($r:literal)*) => {
        match $n {
            $( $r if $r <= $L::ROWS => { const $R: usize = $r; $call } )*
            n => unreachable!("{n} rows in a tile"),
        }
    };
}

struct Floats<'a> {
    task: Task<'a>,
    decode: Decode,
    x: &'a [f32],
}

impl Floats<'_> {
    #[inline(always)]
    unsafe fn few<L: Lanes, const R: usize, const Z: usize>(&self, panel: usize) {
        let mut y = [0.0; FEW * PANELS * LANES];
        // SAFETY: all rows are in this tile; the panels are there.
        unsafe {
            let (w, x, y) = (self.task.w, self.x.as_ptr(), y.as_mut_ptr());
            match self.decode {
                Decode::Eight => kernel::few::<L, { Decode::Eight as u8 }, R, Z>(w, panel, x, y),
                Decode::Four => kernel::few::<L, { Decode::Four as u8 }, R, Z>(w, panel, x, y),
                Decode::Table => kernel::few::<L, { Decode::Table as u8 }, R, Z>(w, panel, x, y),
                Decode::Small => kernel::few::<L, { Decode::Small as u8 }, R, Z>(w, panel, x, y),
            }
        }
        self.task.give(0..R, panel, Z, &y[..R * Z * LANES]);
    }

    #[inline(always)]
    unsafe fn many<L: Lanes, const Z: usize>(&self, panel: usize) {
        let (w, tiles) = (self.task.w, self.task.tiles);
        let (filled, width) = (w.layout.filled(), w.layout.width());
        // not zeros first: that would take as long as short products do
        let mut weights = [const { MaybeUninit::<f32>::uninit() }; RUN * BESIDE * LANES];
        let weights = weights.as_mut_ptr().cast::<f32>();
        let mut y = [0.0; TILES * ROWS * BESIDE * LANES];
        for first in (0..tiles.tiles).step_by(TILES) {
            let block = first..(first + TILES).min(tiles.tiles);
            let rows = tiles.bound(block.start)..tiles.bound(block.end);
            let y = &mut y[..rows.len() * Z * LANES];
            y.fill(0.0);
            for g in 0..w.layout.groups() {
                for from in (0..filled).step_by(RUN) {
                    let len = RUN.min(filled - from);
                    // SAFETY: a run of a group; `weights` holds a run of Z panels.
                    let scale = unsafe {
                        match self.decode {
                            Decode::Eight => {
                                kernel::decode::<L, { Decode::Eight as u8 }, Z>(w, panel, g, from, len, weights)
                            }
                            Decode::Four => {
                                kernel::decode::<L, { Decode::Four as u8 }, Z>(w, panel, g, from, len, weights)
                            }
                            Decode::Table => {
                                kernel::decode::<L, { Decode::Table as u8 }, Z>(w, panel, g, from, len, weights)
                            }
                            Decode::Small => {
                                kernel::decode::<L, { Decode::Small as u8 }, Z>(w, panel, g, from, len, weights)
                            }
                        }
                    };
                    for tile in block.clone() {
                        let (at, n) = (tiles.bound(tile), tiles.bound(tile + 1) - tiles.bound(tile));
                        let x = self.x[at * width + (g * filled + from) * n..].as_ptr();
                        let y = y[(at - rows.start) * Z * LANES..].as_mut_ptr();
                        // SAFETY: n rows of x, and of y, lie there.
                        unsafe {
                            by_rows!(L, n, R => kernel::tile::<L, R, Z>(weights, len, x, scale, y);
                                1 2 3 4 5 6 7 8 9 10 11 12);
                        }
                    }
                }
            }
            self.task.give(rows, panel, Z, y);
        }
    }
}

impl Job for Floats<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(&self) {
        let Range { start: mut panel, end } = self.task.panels;
        let rows = self.task.tiles.rows;
        // SAFETY: the caller has the instruction set of L; panels below `end` are there, and no more rows than L holds if few.
        unsafe {
            while panel < end {
                let left = end - panel;
                if rows > FEW.min(L::ROWS) {
                    if L::PANELS == 2 && left >= 2 {
                        self.many::<L, 2>(panel);
                        panel += 2;
                    } else {
                        self.many::<L, 1>(panel);
                        panel += 1;
                    }
                    continue;
                }
                if L::PANELS == 2 && rows <= 2 && left >= 4 {
                    by_rows!(L, rows, R => self.few::<L, R, 4>(panel); 1 2);
                    panel += 4;
                } else if (L::PANELS == 2 || rows == 1) && left >= 2 {
                    by_rows!(L, rows, R => self.few::<L, R, 2>(panel); 1 2 3 4);
                    panel += 2;
                } else {
                    by_rows!(L, rows, R => self.few::<L, R, 1>(panel); 1 2 3 4);
                    panel += 1;
                }
            }
        }
    }
}

struct Integers<'a, const EIGHT: bool> {
    task: Task<'a>,
    x: &'a [i32],
    totals: &'a [i32],
    whole: bool,
}

impl<const EIGHT: bool> Integers<'_, EIGHT> {
    #[inline(always)]
    unsafe fn tiles<L: Lanes, const Z: usize>(&self, panel: usize) {
        let (w, tiles) = (self.task.w, self.task.tiles);
        let (words, groups) = (w.layout.width() / 4, w.layout.groups());
        for tile in 0..tiles.tiles {
            let rows = tiles.bound(tile)..tiles.bound(tile + 1);
            let mut y = [0.0; ROWS * PANELS * LANES];
            let (x, totals) = (self.x[rows.start * words..].as_ptr(), self.totals[rows.start * groups..].as_ptr());
            // SAFETY: so many rows lie in this tile; the panels are there.
            unsafe {
                by_rows!(L, rows.len(), R =>
                    kernel::integers::<L, EIGHT, R, Z>(w, panel, x, totals, self.whole, y.as_mut_ptr());
                    1 2 3 4 5 6 7 8 9 10 11 12);
            }
            self.task.give(rows, panel, Z, &y);
        }
    }

    #[inline(always)]
    unsafe fn one<L: Lanes>(&self, panel: usize) {
        let mut y = [0.0; PANELS * LANES];
        // SAFETY: one row, four panels.
        unsafe {
            kernel::integers::<L, EIGHT, 1, 4>(
                self.task.w,
                panel,
                self.x.as_ptr(),
                self.totals.as_ptr(),
                self.whole,
                y.as_mut_ptr(),
            );
        }
        self.task.give(0..1, panel, 4, &y);
    }
}

impl<const EIGHT: bool> Job for Integers<'_, EIGHT> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(&self) {
        let Range { start: mut panel, end } = self.task.panels;
        // SAFETY: the caller has the instruction set of L; panels below `end` are there.
        unsafe {
            while panel < end {
                let left = end - panel;
                if L::PANELS == 2 && self.task.tiles.rows == 1 && left >= 4 {
                    self.one::<L>(panel);
                    panel += 4;
                } else if L::PANELS == 2 && left >= 2 {
                    self.tiles::<L, 2>(panel);
                    panel += 2;
                } else {
                    self.tiles::<L, 1>(panel);
                    panel += 1;
                }
            }
        }
    }
}

fn each(w: &Weights, tiles: &Tiles, task: impl Fn(Range<usize>) + Sync) -> Result<()> {
    let panels = w.layout.panels();
    let work = tiles.rows.saturating_mul(w.layout.outs).saturating_mul(w.layout.inputs);
    // a multiply-add takes a small part of what work is counted in
    pool::run(panels.div_ceil(PANELS), work / 8, |i| task(i * PANELS..((i + 1) * PANELS).min(panels)))
}

/// `Σ x w` of every row and output; `x` as [`Tiles::lay`] put it together, [`Layout::width`](super::Layout::width) a row.
pub fn floats(w: &Weights, tiles: &Tiles, x: &[f32], take: &Take) -> Result<()> {
    assert_eq!(x.len(), tiles.rows * w.layout.width());
    assert!(w.panels.len() == w.layout.panels() * w.layout.panel_bytes());
    // codes of 4 bits minus a zero point that is always the same are a table too
    let mut table = [0.0; LANES];
    for (code, v) in table.iter_mut().enumerate() {
        *v = code as f32 - f32::from(w.layout.middle());
    }
    let constant = w.decode() == Decode::Four && !w.layout.affine && tiles.path.looks();
    let w = &if constant { Weights { numbers: Numbers::Table(&table), ..*w } } else { *w };
    each(w, tiles, |panels| {
        run(tiles.path, &Floats { task: Task { w, tiles, panels, take }, decode: w.decode(), x });
    })
}

/// `Σ_g s_g Σ q (w − z)` of every row and output, or with `whole` the integers without scales, as the bits of an i32; `x` are
/// words of four codes, and `totals` the sums of codes per group, both as [`Tiles::lay`] put them together.
pub fn integers(w: &Weights, tiles: &Tiles, x: &[i32], totals: &[i32], whole: bool, take: &Take) -> Result<()> {
    assert_eq!(x.len(), tiles.rows * w.layout.width() / 4);
    assert_eq!(totals.len(), tiles.rows * w.layout.groups());
    assert!(w.panels.len() == w.layout.panels() * w.layout.panel_bytes());
    each(w, tiles, |panels| {
        let task = Task { w, tiles, panels, take };
        if w.layout.bits == 8 {
            run(tiles.path, &Integers::<true> { task, x, totals, whole });
        } else {
            run(tiles.path, &Integers::<false> { task, x, totals, whole });
        }
    })
}
