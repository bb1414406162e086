//! The sums of a tile: some rows times some panels. The one rule: an output is one chain, over the inputs of a group in order
//! (f32: over runs of `RUN` of them) and then over groups, whatever else is computed beside it.

use super::lanes::{LANES, Lanes};
use super::layout::{Layout, STEP};
use super::numbers::{Numbers, Small};

/// Inputs whose products are summed before the scale is applied: short chains keep their digits, and so many weights of two
/// panels, decoded, stay in the nearest cache.
pub const RUN: usize = 128;
/// Rows up to which weights are decoded into registers, anew for every tile.
pub const FEW: usize = 4;
/// Bytes ahead of what is read.
const AHEAD: usize = 2048;

/// How a code becomes a number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Decode {
    /// Minus the zero point, 8 and 4 bits.
    Eight,
    Four,
    /// The number of that place in a table.
    Table,
    /// The bits of a small float.
    Small,
}

/// What all tiles of a product read.
#[derive(Clone, Copy)]
pub struct Weights<'a> {
    pub layout: Layout,
    pub panels: &'a [u8],
    pub numbers: Numbers<'a>,
}

/// What codes become numbers by, beside their zero point.
#[derive(Clone, Copy)]
pub struct Known<L: Lanes> {
    table: L::Table,
    factor: L,
    fraction: u32,
}

/// Z panels from one on, at a group.
struct Group<'a, const Z: usize> {
    layout: &'a Layout,
    at: [*const u8; Z],
}

impl<const Z: usize> Group<'_, Z> {
    #[inline(always)]
    unsafe fn scales<L: Lanes>(&self) -> [L; Z] {
        // SAFETY: a group begins with sixteen scales.
        unsafe {
            let mut v = [L::splat(0.0); Z];
            for z in 0..Z {
                v[z] = L::load(self.at[z].cast());
            }
            v
        }
    }
    /// Zero points, as words.
    #[inline(always)]
    unsafe fn zeros<L: Lanes>(&self) -> [L::Words; Z] {
        // SAFETY: sixteen zero points follow the scales.
        unsafe {
            let mut v = [L::same(i32::from(self.layout.middle())); Z];
            if self.layout.affine {
                for z in 0..Z {
                    v[z] = L::words(self.at[z].add(4 * LANES));
                }
            }
            v
        }
    }
    /// What [`decoded`] takes away.
    #[inline(always)]
    unsafe fn less<L: Lanes>(&self) -> [L; Z] {
        // SAFETY: as above.
        unsafe {
            let (zeros, mut v) = (self.zeros::<L>(), [L::splat(0.0); Z]);
            for z in 0..Z {
                v[z] = L::less(zeros[z]);
            }
            v
        }
    }
    #[inline(always)]
    unsafe fn codes(&self) -> [*const u8; Z] {
        // SAFETY: within the group.
        unsafe {
            let mut at = self.at;
            for at in &mut at {
                *at = at.add(self.layout.head());
            }
            at
        }
    }
}

impl Weights<'_> {
    pub fn decode(&self) -> Decode {
        match (self.numbers, self.layout.bits) {
            (Numbers::Table(_), _) => Decode::Table,
            (Numbers::Small(_), _) => Decode::Small,
            (Numbers::Integers, 8) => Decode::Eight,
            _ => Decode::Four,
        }
    }

    /// # Safety
    /// The machine has the instructions of L.
    #[inline(always)]
    pub unsafe fn known<L: Lanes>(&self) -> Known<L> {
        let table = if let Numbers::Table(table) = self.numbers { table } else { &[0.0; LANES] };
        let small = if let Numbers::Small(small) = self.numbers { small } else { Small { fraction: 3 } };
        // SAFETY: the caller's promise.
        unsafe { Known { table: L::table(table), factor: L::splat(small.factor()), fraction: small.fraction } }
    }

    pub fn panel(&self, i: usize) -> &[u8] {
        &self.panels[i * self.layout.panel_bytes()..][..self.layout.panel_bytes()]
    }

    #[inline(always)]
    unsafe fn group<const Z: usize>(&self, panel: usize, g: usize) -> Group<'_, Z> {
        let (bytes, group) = (self.layout.panel_bytes(), self.layout.group_bytes());
        let mut at = [self.panels.as_ptr(); Z];
        for z in 0..Z {
            // SAFETY: the caller names panels and a group that are there.
            at[z] = unsafe { at[z].add((panel + z) * bytes + g * group) };
        }
        Group { layout: &self.layout, at }
    }
}

/// Eight inputs of one panel, decoded.
#[inline(always)]
pub unsafe fn decoded<L: Lanes, const D: u8>(codes: *const u8, less: L, known: Known<L>) -> [L; STEP] {
    // SAFETY: the caller has eight inputs there: one vector of words at 4 bits, two at 8.
    unsafe {
        let zero = L::splat(0.0);
        let mut v = [zero; STEP];
        if D == Decode::Small as u8 {
            let w = [L::words(codes), L::words(codes.add(4 * LANES))];
            for i in 0..STEP {
                v[i] = L::small(w[i / 4], 8 * (i as u32 % 4), known.fraction).fused(known.factor, zero);
            }
        } else if D == Decode::Eight as u8 {
            let w = [L::words(codes), L::words(codes.add(4 * LANES))];
            for i in 0..STEP {
                v[i] = L::number(w[i / 4], 8 * (i as u32 % 4), 255, less);
            }
        } else {
            let w = L::words(codes);
            for i in 0..STEP {
                let at = 8 * (i as u32 % 4) + 4 * (i as u32 / 4);
                v[i] = if D == Decode::Table as u8 { L::look(w, at, known.table) } else { L::number(w, at, 15, less) };
            }
        }
        v
    }
}

pub const fn step_bytes<const D: u8>() -> usize {
    if D == Decode::Eight as u8 || D == Decode::Small as u8 { 2 * 4 * LANES } else { 4 * LANES }
}

/// R rows `x[input][row]` times Z panels, decoded as they are met: `y[row][z · 16 + lane]`.
#[inline(always)]
pub unsafe fn few<L: Lanes, const D: u8, const R: usize, const Z: usize>(
    w: &Weights,
    panel: usize,
    x: *const f32,
    y: *mut f32,
) {
    // SAFETY: the caller has R rows of the layout's width, Z panels from `panel` on, and R · Z · 16 places in y.
    unsafe {
        let (filled, known) = (w.layout.filled(), w.known());
        let mut sums = [[L::splat(0.0); Z]; R];
        let mut x = x;
        for g in 0..w.layout.groups() {
            let group = w.group::<Z>(panel, g);
            let (scale, less, mut codes) = (group.scales::<L>(), group.less::<L>(), group.codes());
            for from in (0..filled).step_by(RUN) {
                let mut run = [[L::splat(0.0); Z]; R];
                for _ in (from..filled.min(from + RUN)).step_by(STEP) {
                    let mut v = [[L::splat(0.0); STEP]; Z];
                    for z in 0..Z {
                        for line in 0..step_bytes::<D>() / 64 {
                            base::fetch(codes[z].wrapping_add(AHEAD + 64 * line));
                        }
                        v[z] = decoded::<L, D>(codes[z], less[z], known);
                        codes[z] = codes[z].add(step_bytes::<D>());
                    }
                    for i in 0..STEP {
                        for r in 0..R {
                            let x = L::splat(*x.add(i * R + r));
                            for z in 0..Z {
                                run[r][z] = v[z][i].fused(x, run[r][z]);
                            }
                        }
                    }
                    x = x.add(STEP * R);
                }
                for r in 0..R {
                    for z in 0..Z {
                        sums[r][z] = run[r][z].fused(scale[z], sums[r][z]);
                    }
                }
            }
        }
        for r in 0..R {
            for z in 0..Z {
                sums[r][z].store(y.add((r * Z + z) * LANES));
            }
        }
    }
}

/// A run of inputs of Z panels as numbers `[input][z · 16 + lane]`, and their scales.
#[inline(always)]
pub unsafe fn decode<L: Lanes, const D: u8, const Z: usize>(
    w: &Weights,
    panel: usize,
    g: usize,
    from: usize,
    len: usize,
    out: *mut f32,
) -> [L; Z] {
    // SAFETY: the caller names panels, a group and inputs of it, and has len · Z · 16 places.
    unsafe {
        let (group, known) = (w.group::<Z>(panel, g), w.known());
        let (less, codes) = (group.less::<L>(), group.codes());
        for step in 0..len / STEP {
            for z in 0..Z {
                let at = (from / STEP + step) * step_bytes::<D>();
                // the next run, which is read after all tiles have met this one
                for line in 0..step_bytes::<D>() / 64 {
                    base::fetch(codes[z].wrapping_add(at + len / STEP * step_bytes::<D>() + 64 * line));
                }
                let v = decoded::<L, D>(codes[z].add(at), less[z], known);
                for (i, v) in v.into_iter().enumerate() {
                    v.store(out.add(((step * STEP + i) * Z + z) * LANES));
                }
            }
        }
        group.scales::<L>()
    }
}

/// Adds to `y[row][z · 16 + lane]` what R rows `x[input][row]` and `len` decoded inputs give, times the scales.
#[inline(always)]
pub unsafe fn tile<L: Lanes, const R: usize, const Z: usize>(
    weights: *const f32,
    len: usize,
    x: *const f32,
    scale: [L; Z],
    y: *mut f32,
) {
    // SAFETY: the caller has what the names say.
    unsafe {
        let mut run = [[L::splat(0.0); Z]; R];
        let (mut w, mut x) = (weights, x);
        for _ in 0..len {
            let mut v = [L::splat(0.0); Z];
            for z in 0..Z {
                v[z] = L::load(w.add(z * LANES));
            }
            for r in 0..R {
                let x = L::splat(*x.add(r));
                for z in 0..Z {
                    run[r][z] = v[z].fused(x, run[r][z]);
                }
            }
            w = w.add(Z * LANES);
            x = x.add(R);
        }
        for r in 0..R {
            for z in 0..Z {
                let y = y.add((r * Z + z) * LANES);
                run[r][z].fused(scale[z], L::load(y)).store(y);
            }
        }
    }
}

/// `y[row · stride + z · 16 + lane]` of R rows of codes `x[input / 4][row]`, four bytes a word, times Z panels: integer sums of
/// groups, scaled. `totals[group][row]` are the sums of a row's codes in a group. With `whole` the sums stay integers, as y is.
#[inline(always)]
pub unsafe fn integers<L: Lanes, const EIGHT: bool, const R: usize, const Z: usize>(
    w: &Weights,
    panel: usize,
    x: *const i32,
    totals: *const i32,
    whole: bool,
    y: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller has what the names say.
    unsafe {
        let steps = w.layout.filled() / STEP;
        let middle = i32::from(w.layout.middle());
        let mut x = x;
        for g in 0..w.layout.groups() {
            let group = w.group::<Z>(panel, g);
            let mut codes = group.codes();
            let mut run = [[L::same(0); Z]; R];
            if w.layout.affine {
                let zeros = group.zeros::<L>();
                for r in 0..R {
                    for z in 0..Z {
                        run[r][z] = L::negated_product(zeros[z], *totals.add(g * R + r));
                    }
                }
            } else {
                for r in 0..R {
                    run[r] = [L::same((*totals.add(g * R + r)).wrapping_mul(-middle)); Z];
                }
            }
            for _ in 0..steps {
                let mut v = [[L::same(0); 2]; Z];
                for z in 0..Z {
                    base::fetch(codes[z].wrapping_add(AHEAD));
                    if EIGHT {
                        base::fetch(codes[z].wrapping_add(AHEAD + 64));
                        v[z] = [L::words(codes[z]), L::words(codes[z].add(4 * LANES))];
                        codes[z] = codes[z].add(8 * LANES);
                    } else {
                        v[z] = L::halves(L::words(codes[z]));
                        codes[z] = codes[z].add(4 * LANES);
                    }
                }
                for half in 0..2 {
                    for r in 0..R {
                        let x = *x.add(half * R + r);
                        for z in 0..Z {
                            run[r][z] = L::dot(run[r][z], v[z][half], x);
                        }
                    }
                }
                x = x.add(2 * R);
            }
            let scale = group.scales::<L>();
            for r in 0..R {
                for z in 0..Z {
                    let y = y.add(r * stride + z * LANES);
                    if whole {
                        let before = if g == 0 { L::same(0) } else { L::words(y.cast()) };
                        L::store_words(L::add(before, run[r][z]), y.cast());
                    } else {
                        let before = if g == 0 { L::splat(0.0) } else { L::load(y) };
                        L::floats(run[r][z]).fused(scale[z], before).store(y);
                    }
                }
            }
        }
    }
}
