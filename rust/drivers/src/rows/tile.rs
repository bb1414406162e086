//! One tile of rows: products, numbers, combinations. The one rule: what is the same for all operators is a function of its
//! own, and so is each step of an operator, which tiles take in turn.

use super::block::Block;
use super::closer::closer;
use super::functor::{Count, N, Of, RowOp};
use super::kind::Wide;
use super::peak;
use super::place::{Outs, Rows, eight};
use super::sums::{Acc, Dot2, Sums, totals};
use super::walk::{combine, lay_frame, products, strip};
use super::{ONCE, Solved, TILE};
use base::dd::{Dd, Num};
use base::mix;
use base::simd::*;
use base::store::STEP;

/// A block, and what to do with its rows.
pub struct Tiles<'a, OP, K>(pub &'a OP, pub Block<'a, K>);

impl<OP: RowOp, K: Wide> Kernel for Tiles<'_, OP, K> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Tiles(op, mut block) = self;
        let (range, most) = (block.range.clone(), block.plan.tile);
        let mut room = Room::<OP, K::Acc<S>, S>::new();
        block.given(true, 0, TILE, OP::Given::of_mut(&mut room.known.given));
        for at in range.clone().step_by(most) {
            tile::<OP, S, K, K::Acc<S>>(s, op, &mut block, at, most.min(range.end - at), &mut room);
        }
    }
}

/// The numbers of a tile's rows, between the two walks. What a short tile leaves over from the one before belongs to no
/// row, and nothing reads it.
#[repr(align(64))]
struct Room<OP: RowOp, A: Acc<S>, S: Simd> {
    lanes: Of<OP::Products, A::Lanes>,
    sums: Of<OP::Products, Sums>,
    known: Known<OP>,
    found: Found<OP>,
}

/// What is known of each row besides its sums.
#[repr(align(64))]
struct Known<OP: RowOp> {
    given: Of<OP::Given, [f64; TILE]>,
    tops: Of<OP::Peaks, [f64; TILE]>,
    marks: Of<OP::Marks, [f64; TILE]>,
}

/// What [`RowOp::solve`] found for each row.
#[repr(align(64))]
struct Found<OP: RowOp> {
    weights: Of<OP::Weights, [f64; TILE]>,
    numbers: Of<OP::Numbers, [f64; TILE]>,
    marks: Of<OP::Marks, [f64; TILE]>,
    gap: [f64; TILE],
    /// 1 where the combination may be made in f32
    single: [f64; TILE],
}

impl<OP: RowOp, A: Acc<S>, S: Simd> Room<OP, A, S> {
    #[inline(always)]
    fn new() -> Self {
        Room {
            lanes: OP::Products::fill(A::EMPTY),
            sums: OP::Products::fill([[0.0; TILE]; 2]),
            known: Known {
                given: OP::Given::fill([0.0; TILE]),
                tops: OP::Peaks::fill([0.0; TILE]),
                marks: OP::Marks::fill([0.0; TILE]),
            },
            found: Found::new(),
        }
    }
}

impl<OP: RowOp> Found<OP> {
    #[inline(always)]
    fn new() -> Self {
        Found {
            weights: OP::Weights::fill([0.0; TILE]),
            numbers: OP::Numbers::fill([0.0; TILE]),
            marks: OP::Marks::fill([0.0; TILE]),
            gap: [0.0; TILE],
            single: [0.0; TILE],
        }
    }
}

#[inline(always)]
fn tile<OP: RowOp, S: Simd, K: Wide, A: Acc<S>>(
    s: S,
    op: &OP,
    block: &mut Block<K>,
    start: usize,
    n: usize,
    room: &mut Room<OP, A, S>,
) {
    let plan = block.plan;
    let mut x = OP::Vectors::fill((std::ptr::null(), 0));
    for (v, place) in OP::Vectors::of_mut(&mut x).iter_mut().enumerate() {
        *place = block.input(v, start, n);
    }
    // rows with a peak are walked twice, one after the other: what comes next is the next one where they are long
    let long = OP::Peaks::N > 0 && plan.d * size_of::<K>() > ONCE;
    let rows = Rows::<OP, K> { x, d: plan.d, next: if long { plan.d } else { plan.tile * plan.d } };
    if OP::Products::N > 0 {
        // SAFETY: `input` gave places with n rows of d elements (or one row with stride 0), and n <= plan.tile <= TILE.
        unsafe { products::<OP, S, K, A>(s, &rows, n, &mut room.known.tops, &mut room.lanes) };
    }
    let at = if OP::Marks::N > 0 { &block.call.at[start..start + n] } else { &[] };
    if OP::Marks::N > 0 {
        // SAFETY: as above.
        unsafe { peak::read(&rows, at, &mut room.known.marks) };
    }
    block.given(false, start, n, OP::Given::of_mut(&mut room.known.given));
    // apart from what follows, which is one long chain: the fewer instructions wait in it, the more of the next rows'
    // are begun meanwhile
    let sums = OP::Products::N - usize::from(OP::CLOSER);
    totals::<S, A>(s, &OP::Products::of(&room.lanes)[..sums], n, OP::Products::of_mut(&mut room.sums));
    if OP::CLOSER && size_of::<K>() == size_of::<f64>() {
        // SAFETY: as above, and K is f64.
        unsafe { closer::<OP, S, K>(s, &rows, n, &mut room.sums, &room.known.given) };
    }
    let mut near = solve::<OP, S, A::Num>(s, op, n, &room.sums, &room.known, plan.edge, &mut room.found);
    if OP::WIDE && !A::TWICE {
        // SAFETY: as above.
        near |= unsafe { again::<OP, S, K>(s, op, &rows, n, &room.sums, &room.known, plan.edge, &mut room.found) };
    }
    if OP::SINGLE && !A::TWICE && !const { portable::<S>() } {
        singly::<OP, S>(s, n, &mut room.found);
    }
    if OP::Marks::N > 0 {
        peak::left_out::<OP>(plan.d, at, &mut room.found.numbers);
    }
    // SAFETY: rows start..start + n belong to this block.
    unsafe { block.found(s, start, n, OP::Numbers::of(&room.found.numbers)) };
    if OP::Outputs::N == 0 {
        return;
    }

    let mut y = OP::Outputs::fill(std::ptr::null_mut());
    for (o, place) in OP::Outputs::of_mut(&mut y).iter_mut().enumerate() {
        *place = block.output(o, start);
    }
    let outs = Outs::<OP, K> {
        weights: &room.found.weights,
        single: &room.found.single,
        past: plan.past,
        at,
        marks: &room.found.marks,
        y,
    };
    let mut written = OP::Outputs::fill(0);
    let written = OP::Outputs::of_mut(&mut written);
    // the rows that steps are made of: all where outputs are sums over them; what is set aside leaves the buffer while the
    // next rows are computed
    let summed = plan.summed_rows.contains(&true);
    let some = plan.aside.filter(|_| !summed).map_or(n, |aside| aside.chunk.div_ceil(plan.d.max(1)));
    let mut done = 0;
    while done < n {
        let range = done..n.min(done + some);
        done = range.end;
        if summed || const { portable::<S>() } {
            for i in (0..plan.d).step_by(STEP) {
                // SAFETY: as above; rows start..start + n of the outputs belong to this block.
                unsafe { strip::<OP, S, K>(s, &rows, range.clone(), i, &outs, &plan.summed_rows, block.sum_rows) };
            }
        } else {
            // SAFETY: as above.
            unsafe { combine::<OP, S, K>(s, &rows, range, &outs) };
        }
        if done < n {
            for (o, written) in written.iter_mut().enumerate() {
                block.part(o, start, done, written);
            }
        }
    }
    for (o, written) in written.iter().enumerate().filter(|(o, _)| !plan.summed_rows[*o]) {
        let near = (near && o == 0).then_some(&room.found.gap);
        block.rest(o, start, n, *written, near.zip(OP::Given::of(&room.known.given).last()));
    }
}

/// Solves rows `0..n` from their sums. Whether one lies over the edge.
#[inline(never)]
fn solve<OP: RowOp, S: Simd, M: Num<S>>(
    s: S,
    op: &OP,
    n: usize,
    sums: &Of<OP::Products, Sums>,
    known: &Known<OP>,
    edge: f64,
    found: &mut Found<OP>,
) -> bool {
    s.vectorize(
        #[inline(always)]
        move || {
            lay_frame();
            let mut near = false;
            for g in (0..n).step_by(8) {
                let mut p = OP::Products::fill(M::of(f64x8::splat(s, 0.0)));
                for (p, [hi, lo]) in OP::Products::of_mut(&mut p).iter_mut().zip(OP::Products::of(sums)) {
                    *p = M::pair(f64x8::from_slice(s, &hi[g..g + 8]), f64x8::from_slice(s, &lo[g..g + 8]));
                }
                let Solved { weights, numbers, marks, gap } = op.solve(
                    s,
                    p,
                    eight::<OP::Given, S>(s, &known.given, g),
                    eight::<OP::Peaks, S>(s, &known.tops, g),
                    eight::<OP::Marks, S>(s, &known.marks, g),
                );
                keep::<OP::Weights, S>(&weights, &mut found.weights, g);
                keep::<OP::Numbers, S>(&numbers, &mut found.numbers, g);
                keep::<OP::Marks, S>(&marks, &mut found.marks, g);
                gap.store_slice(&mut found.gap[g..g + 8]);
                near |= gap.simd_lt(edge).any_true();
            }
            near
        },
    )
}

/// Says which of rows `0..n` may be combined in f32: those whose weights such pairs serve.
#[inline(always)]
fn singly<OP: RowOp, S: Simd>(s: S, n: usize, found: &mut Found<OP>) {
    for g in (0..n).step_by(8) {
        let zero = f64x8::splat(s, 0.0);
        let mut fits = zero.simd_eq(zero);
        for w in OP::Weights::of(&found.weights) {
            fits &= mix::fits(f64x8::from_slice(s, &w[g..g + 8]));
        }
        fits.select(f64x8::splat(s, 1.0), zero).store_slice(&mut found.single[g..g + 8]);
    }
}

/// Solves again, from sums in twice the precision, those of rows `0..n` whose plain sums are in doubt. Whether one lies
/// over the edge.
///
/// # Safety
/// As for [`products`].
#[inline(never)]
unsafe fn again<OP: RowOp, S: Simd, K: Wide>(
    s: S,
    op: &OP,
    rows: &Rows<OP, K>,
    n: usize,
    sums: &Of<OP::Products, Sums>,
    known: &Known<OP>,
    edge: f64,
    found: &mut Found<OP>,
) -> bool {
    s.vectorize(
        #[inline(always)]
        move || {
            let mut near = false;
            for g in (0..n).step_by(8) {
                let mut p = OP::Products::fill(f64x8::splat(s, 0.0));
                for (p, [hi, _]) in OP::Products::of_mut(&mut p).iter_mut().zip(OP::Products::of(sums)) {
                    *p = f64x8::from_slice(s, &hi[g..g + 8]);
                }
                let weights = eight::<OP::Weights, S>(s, &found.weights, g);
                let doubt = OP::doubt(s, p, eight::<OP::Given, S>(s, &known.given, g), weights);
                if !doubt.any_true() {
                    continue;
                }
                let few = (n - g).min(8);
                let mut room = Room::<OP, Dot2<S>, S>::new();
                few_of::<OP::Given>(&mut room.known.given, &known.given, g);
                few_of::<OP::Marks>(&mut room.known.marks, &known.marks, g);
                // SAFETY: promised by the caller, of the rows from g on.
                unsafe { products::<OP, S, K, Dot2<S>>(s, &rows.skip(g), few, &mut room.known.tops, &mut room.lanes) };
                totals::<S, Dot2<S>>(s, OP::Products::of(&room.lanes), few, OP::Products::of_mut(&mut room.sums));
                near |= solve::<OP, S, Dd<S>>(s, op, few, &room.sums, &room.known, edge, &mut room.found);
                mix::<OP::Weights, S>(s, doubt, &room.found.weights, &mut found.weights, g);
                mix::<OP::Numbers, S>(s, doubt, &room.found.numbers, &mut found.numbers, g);
                mix::<OP::Marks, S>(s, doubt, &room.found.marks, &mut found.marks, g);
                mix::<N<1>, S>(s, doubt, &[room.found.gap], std::array::from_mut(&mut found.gap), g);
            }
            near
        },
    )
}

/// Leaves numbers of rows `g..g + 8` in the first eight places.
#[inline(always)]
fn few_of<C: Count>(some: &mut Of<C, [f64; TILE]>, all: &Of<C, [f64; TILE]>, g: usize) {
    for (some, all) in C::of_mut(some).iter_mut().zip(C::of(all)) {
        some[..8].copy_from_slice(&all[g..g + 8]);
    }
}

#[inline(always)]
fn keep<C: Count, S: Simd>(v: &Of<C, f64x8<S>>, to: &mut Of<C, [f64; TILE]>, g: usize) {
    for (v, to) in C::of(v).iter().zip(C::of_mut(to)) {
        v.store_slice(&mut to[g..g + 8]);
    }
}

/// Takes numbers in doubt from those of eight rows.
#[inline(always)]
fn mix<C: Count, S: Simd>(s: S, doubt: mask64x8<S>, exact: &Of<C, [f64; TILE]>, to: &mut Of<C, [f64; TILE]>, g: usize) {
    for (exact, to) in C::of(exact).iter().zip(C::of_mut(to)) {
        let to = &mut to[g..g + 8];
        doubt.select(f64x8::from_slice(s, &exact[..8]), f64x8::from_slice(s, to)).store_slice(to);
    }
}
