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
const TILES: usize = 16;
const BESIDE: usize = 2;
const ROWS: usize = 12;

/// Panels whose sums of a tile are given away together, and so many sums of a row: to be done with a row takes as long as some
/// of its sums do.
const GIVEN: usize = 3 * PANELS;
const STRIDE: usize = GIVEN * LANES;

/// Zeros in memory that held nothing.
#[inline(always)]
fn zeros(y: &mut [MaybeUninit<f32>]) -> &mut [f32] {
    for y in &mut *y {
        y.write(0.0);
    }
    // SAFETY: every number was written.
    unsafe { std::slice::from_raw_parts_mut(y.as_mut_ptr().cast(), y.len()) }
}

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
    fn give(&self, rows: Range<usize>, panels: Range<usize>, y: &[f32], stride: usize) {
        (self.take)(Block::new(self.w, rows, panels, y, stride));
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
        self.task.give(0..R, panel..panel + Z, &y[..R * Z * LANES], Z * LANES);
    }

    #[inline(always)]
    unsafe fn many<L: Lanes, const Z: usize>(&self, panel: usize) {
        let (w, tiles) = (self.task.w, self.task.tiles);
        let (filled, width) = (w.layout.filled(), w.layout.width());
        // not zeros first: that would take as long as short products do
        let mut weights = [const { MaybeUninit::<f32>::uninit() }; RUN * BESIDE * LANES];
        let weights = weights.as_mut_ptr().cast::<f32>();
        #[allow(clippy::large_stack_arrays, reason = "sums of some tiles, which stay in the second cache")]
        let mut y = [const { MaybeUninit::<f32>::uninit() }; TILES * ROWS * BESIDE * LANES];
        for first in (0..tiles.tiles).step_by(TILES) {
            let block = first..(first + TILES).min(tiles.tiles);
            let rows = tiles.bound(block.start)..tiles.bound(block.end);
            let y = zeros(&mut y[..rows.len() * Z * LANES]);
            if width == 0 {
                self.task.give(rows.clone(), panel..panel + Z, y, Z * LANES);
            }
            for g in 0..w.layout.groups() {
                for from in (0..filled).step_by(RUN) {
                    let len = RUN.min(filled - from);
                    let complete = g + 1 == w.layout.groups() && from + len == filled;
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
                        let y = &mut y[(at - rows.start) * Z * LANES..][..n * Z * LANES];
                        // SAFETY: n rows of x, and of y, lie there.
                        unsafe {
                            by_rows!(L, n, R => kernel::tile::<L, R, Z>(weights, len, x, scale, y.as_mut_ptr());
                                1 2 3 4 5 6 7 8 9 10 11 12);
                        }
                        if complete {
                            self.task.give(at..at + n, panel..panel + Z, y, Z * LANES);
                        }
                    }
                }
            }
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
    /// A tile of rows times Z panels: y as [`kernel::integers`] has it.
    #[inline(always)]
    unsafe fn tile<L: Lanes, const Z: usize>(&self, tile: usize, panel: usize, y: *mut f32, stride: usize) {
        let (w, tiles) = (self.task.w, self.task.tiles);
        let (from, rows) = (tiles.bound(tile), tiles.bound(tile + 1) - tiles.bound(tile));
        let x = self.x[from * (w.layout.width() / 4)..].as_ptr();
        let totals = self.totals[from * w.layout.groups()..].as_ptr();
        // SAFETY: so many rows lie in this tile; the caller has the panels and their places in y.
        unsafe {
            by_rows!(L, rows, R =>
                kernel::integers::<L, EIGHT, R, Z>(w, panel, x, totals, self.whole, y, stride);
                1 2 3 4 5 6 7 8 9 10 11 12);
        }
    }
}

impl<const EIGHT: bool> Job for Integers<'_, EIGHT> {
    /// A tile of rows is given all panels of the task before the next: what becomes of its sums lies beside each other.
    #[inline(always)]
    unsafe fn run<L: Lanes>(&self) {
        let Task { w, tiles, ref panels, .. } = self.task;
        let mut y = [const { MaybeUninit::<f32>::uninit() }; ROWS * STRIDE];
        // the longest tile is the first one
        let y = zeros(&mut y[..tiles.bound(1) * STRIDE]);
        for tile in 0..tiles.tiles {
            let rows = tiles.bound(tile)..tiles.bound(tile + 1);
            for first in panels.clone().step_by(GIVEN) {
                let (mut panel, end) = (first, panels.end.min(first + GIVEN));
                // SAFETY: the caller has the instruction set of L; panels below `end` are there, and y holds GIVEN of a tile.
                unsafe {
                    while panel < end {
                        let y = y.as_mut_ptr().add((panel - first) * LANES);
                        if L::PANELS == 2 && tiles.rows == 1 && end - panel >= PANELS {
                            let (x, totals) = (self.x.as_ptr(), self.totals.as_ptr());
                            kernel::integers::<L, EIGHT, 1, PANELS>(w, panel, x, totals, self.whole, y, STRIDE);
                            panel += PANELS;
                        } else if L::PANELS == 2 && end - panel >= 2 {
                            self.tile::<L, 2>(tile, panel, y, STRIDE);
                            panel += 2;
                        } else {
                            self.tile::<L, 1>(tile, panel, y, STRIDE);
                            panel += 1;
                        }
                    }
                }
                self.task.give(rows.clone(), first..end, y, STRIDE);
            }
        }
    }
}

/// Bytes of the weights of a task, which stay near while one tile of rows after the other meets them, and the fewest tasks.
const NEAR: usize = 1 << 18;
const TASKS: usize = 8;

fn each(w: &Weights, tiles: &Tiles, task: impl Fn(Range<usize>) + Sync) -> Result<()> {
    let panels = w.layout.panels();
    let work = tiles.rows.saturating_mul(w.layout.outs).saturating_mul(w.layout.inputs);
    let many = (NEAR / w.layout.panel_bytes().max(1)).min(panels / TASKS).next_multiple_of(PANELS).max(PANELS);
    // a multiply-add takes a small part of what work is counted in
    pool::run(panels.div_ceil(many), work / 8, |i| task(i * many..((i + 1) * many).min(panels)))
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
