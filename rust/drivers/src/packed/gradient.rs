//! Gradients of rows through packed weights, dx = g Ŵ. The one rule: a gradient is one chain over the outputs in order,
//! however the inputs are cut.

use super::kernel::Weights;
use super::lanes::LANES;
use crate::flat::{Compute, Real};
use base::pool::{self, Shared};
use base::simd::{Kernel, Simd, dispatch};
use base::store::Store;
use base::{Result, try_vec};

/// Inputs whose gradients are summed together over all outputs.
const COLUMNS: usize = 128;
/// Rows whose gradients are.
const ROWS: usize = 64;

/// `dx[rows, inputs] = g[rows, outs] Ŵ`.
pub fn gradient<A: Compute>(w: &Weights, g: &[A], dx: &mut [A]) -> Result<()> {
    let (l, outs, inputs) = (&w.layout, w.layout.outs, w.layout.inputs);
    if dx.is_empty() {
        return Ok(());
    }
    let rows = dx.len() / inputs;
    assert!(dx.len() == rows * inputs && g.len() == rows * outs);
    let dx = Shared(dx.as_mut_ptr());
    let (parts, blocks) = (l.group.div_ceil(COLUMNS), rows.div_ceil(ROWS));
    let work = rows.saturating_mul(outs).saturating_mul(inputs) / 8;
    pool::map(l.groups() * parts * blocks, work, |task| {
        let (group, part, block) = (task / blocks / parts, task / blocks % parts, task % blocks);
        let columns = part * COLUMNS..l.group.min((part + 1) * COLUMNS);
        let rows = block * ROWS..rows.min((block + 1) * ROWS);
        let mut numbers = try_vec(l.group * LANES, 0f32)?;
        let mut turned = try_vec(LANES * COLUMNS, A::Real::ZERO)?;
        let mut sums = try_vec(rows.len() * COLUMNS, A::Real::ZERO)?;
        for panel in 0..l.panels() {
            let scale = l.numbers(w.panel(panel), group, w.numbers, &mut numbers);
            for (i, w) in numbers.chunks_exact(LANES).skip(columns.start).take(columns.len()).enumerate() {
                for (lane, &w) in w.iter().enumerate() {
                    turned[lane * COLUMNS + i] = A::Real::from_f32(w);
                }
            }
            let lanes = LANES.min(outs - panel * LANES);
            for (row, sums) in rows.clone().zip(sums.chunks_exact_mut(COLUMNS)) {
                let mut up = [A::Real::ZERO; LANES];
                A::widen(&g[row * outs + panel * LANES..][..lanes], &mut up[..lanes]);
                for lane in 0..lanes {
                    up[lane] = up[lane] * A::Real::from_f32(scale[lane]);
                }
                dispatch(Up { up: &up, turned: &turned, sums });
            }
        }
        for (row, sums) in rows.zip(sums.chunks_exact(COLUMNS)) {
            // SAFETY: a task has its own rows and columns of dx.
            let out = unsafe { dx.part(row * inputs + group * l.group + columns.start, columns.len()) };
            A::narrow(&sums[..columns.len()], out);
        }
        Ok(())
    })?
    .into_iter()
    .collect()
}

/// Adds to the gradients of some inputs what sixteen outputs of a row send.
struct Up<'a, T> {
    up: &'a [T; LANES],
    turned: &'a [T],
    sums: &'a mut [T],
}
impl<T: Real> Kernel for Up<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        const WIDE: usize = 32;
        for (i, sums) in self.sums.as_chunks_mut::<WIDE>().0.iter_mut().enumerate() {
            let mut own = *sums;
            for lane in 0..LANES {
                let (up, w) = (self.up[lane], &self.turned[lane * COLUMNS + i * WIDE..][..WIDE]);
                for j in 0..WIDE {
                    own[j] = own[j] + up * w[j];
                }
            }
            *sums = own;
        }
    }
}
