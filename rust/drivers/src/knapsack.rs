//! One of several levels for each of many layers, within a budget: min Σ_l loss[l, k_l] subject to Σ_l cost[l, k_l] ≤ budget.
//! The one rule: nothing is cut off that could still be the best, whatever its sums were rounded to.
//!
//! The multiple-choice knapsack (Kellerer, Pferschy, Pisinger, "Knapsack Problems", 2004, ch. 11). What is left of a choice is
//! bounded by its relaxation: on the lower convex hull of each layer's levels, steps are taken in the order of what they gain
//! for their cost, the last one in part. That is the best bound that a multiplier gives, and the steps taken whole are a choice.
//! The exact method adds layer after layer to partial choices of which none is as cheap and as good as another, and leaves
//! out those whose bound is beyond the best choice known. Sums are kept in twice the digits, so equal ones are equal.
//! The binned one counts what a level costs beyond the cheapest of its layer in bins of the room that is left, rounded up, and
//! is exact in those: what it chooses is within the budget, and the bound of the relaxation says how far from the best it can be.

use base::{Error, Result, Tensor, by_float, try_vec};
use std::cmp::Ordering;

/// Partial choices that are remembered at most, in all layers.
const MOST: usize = 1 << 23;
/// Bins of the room beyond the cheapest levels.
const BINS: usize = 1 << 14;

/// How to choose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// By a multiplier: every layer on its lower hull.
    Multiplier,
    Exact,
    Binned,
}

impl Method {
    /// The order of the Python side: 0 by a multiplier, 1 exact, 2 binned.
    pub fn from_code(code: i64) -> Result<Method> {
        match code {
            0 => Ok(Method::Multiplier),
            1 => Ok(Method::Exact),
            2 => Ok(Method::Binned),
            c => Err(Error::Value(format!("method is 0, 1 or 2, got {c}"))),
        }
    }
}

/// hi + lo, hi being the sum rounded once.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug, Default)]
struct Sum {
    hi: f64,
    lo: f64,
}

impl Sum {
    fn of(hi: f64) -> Self {
        Sum { hi, lo: 0.0 }
    }

    /// AccurateDWPlusDW of Joldes, Muller, Popescu (2017).
    fn plus(self, other: Self) -> Self {
        let two = |a: f64, b: f64| {
            let hi = a + b;
            let part = hi - a;
            Sum { hi, lo: (a - (hi - part)) + (b - part) }
        };
        let fast = |a: f64, b: f64| {
            let hi = a + b;
            Sum { hi, lo: b - (hi - a) }
        };
        let (s, t) = (two(self.hi, other.hi), two(self.lo, other.lo));
        let v = fast(s.hi, s.lo + t.hi);
        fast(v.hi, t.lo + v.lo)
    }

    fn minus(self, other: Self) -> Self {
        self.plus(Sum { hi: -other.hi, lo: -other.lo })
    }

    fn order(&self, other: &Self) -> Ordering {
        self.hi.total_cmp(&other.hi).then(self.lo.total_cmp(&other.lo))
    }
}

/// A level of a layer.
#[derive(Clone, Copy)]
struct Level {
    cost: f64,
    loss: f64,
    index: usize,
}

/// The levels that no other one of the layer is as cheap and as good as, the cheapest first; of equal ones the lowest index.
fn front(loss: &[f64], cost: &[f64]) -> Vec<Level> {
    // + 0.0: one zero, not two
    let mut all: Vec<Level> = loss
        .iter()
        .zip(cost)
        .enumerate()
        .map(|(index, (&loss, &cost))| Level { cost: cost + 0.0, loss: loss + 0.0, index })
        .collect();
    all.sort_by(|a, b| a.cost.total_cmp(&b.cost).then(a.loss.total_cmp(&b.loss)));
    let mut least = f64::INFINITY;
    all.retain(|level| {
        level.loss < least && {
            least = level.loss;
            true
        }
    });
    all
}

/// A step from a level of a layer to the next one of its lower hull.
struct Step {
    layer: usize,
    level: Level,
    cost: Sum,
    loss: Sum,
    /// What is gained for its cost.
    rate: f64,
}

/// The steps of the lower hull of a front, whose rates fall.
fn hull(layer: usize, front: &[Level]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut at = vec![front[0]];
    for &level in &front[1..] {
        loop {
            let from = at[at.len() - 1];
            let (cost, loss) = (level.cost - from.cost, level.loss - from.loss);
            let rate = -loss / cost;
            if steps.last().is_some_and(|last| last.rate <= rate) {
                steps.pop();
                at.pop();
                continue;
            }
            let apart = |a: f64, b: f64| Sum::of(a).minus(Sum::of(b));
            steps.push(Step {
                layer,
                level,
                cost: apart(level.cost, from.cost),
                loss: apart(level.loss, from.loss),
                rate,
            });
            at.push(level);
            break;
        }
    }
    steps
}

/// The relaxation of the layers before one of them: sums of the cheapest levels, then of more and more steps.
struct Relaxed {
    cost: Vec<Sum>,
    loss: Vec<Sum>,
    rate: Vec<f64>,
}

impl Relaxed {
    fn of<'a>(base: (Sum, Sum), steps: impl Iterator<Item = &'a Step>) -> Result<Self> {
        let (mut cost, mut loss, mut rate) = (vec![base.0], vec![base.1], Vec::new());
        let mut sums = base;
        for step in steps {
            sums = (sums.0.plus(step.cost), sums.1.plus(step.loss));
            for (list, sum) in [(&mut cost, sums.0), (&mut loss, sums.1)] {
                list.try_reserve(1).map_err(|_| Error::Memory(list.len() * size_of::<Sum>()))?;
                list.push(sum);
            }
            rate.push(step.rate);
        }
        Ok(Relaxed { cost, loss, rate })
    }

    /// How many whole steps fit beside `cost`, counted down from `from`; None where not even the cheapest levels do.
    fn fits(&self, cost: Sum, budget: f64, from: usize) -> Option<usize> {
        let mut at = from;
        while self.cost[at].plus(cost).hi > budget {
            at = at.checked_sub(1)?;
        }
        Some(at)
    }

    /// A loss that nothing with `cost` and `loss` before it, and `at` whole steps in it, can be below; rounded down.
    fn bound(&self, cost: Sum, loss: Sum, budget: f64, at: usize) -> f64 {
        let whole = loss.plus(self.loss[at]).hi;
        let Some(&rate) = self.rate.get(at) else { return whole };
        // a sum that is rounded to the budget may be half an ulp beyond it
        let left = Sum::of(budget.next_up()).minus(cost).minus(self.cost[at]).hi;
        let part = rate * left;
        let rounded = 8.0 * f64::EPSILON * (whole.abs() + part.abs() + loss.hi.abs() + self.loss[at].hi.abs());
        whole - part - rounded
    }
}

/// A choice for the layers from some one on.
#[derive(Clone, Copy)]
struct Partial {
    cost: Sum,
    loss: Sum,
}

/// How a partial choice was made: the level of its layer, and the place of what came before among those of the next layer.
#[derive(Clone, Copy)]
struct Made {
    level: u32,
    rest: u32,
}

/// The best choice, into `choice`, and its sums. Layers are added from the last to the first, so that of equal choices the one
/// with the lower level in the earlier layer is met first.
fn exact(
    fronts: &[Vec<Level>],
    steps: &[Step],
    bases: &[(Sum, Sum)],
    budget: f64,
    instead: &str,
    choice: &mut [i32],
) -> Result<[Sum; 2]> {
    let mut partial = vec![Partial { cost: Sum::default(), loss: Sum::default() }];
    let mut made: Vec<Vec<Made>> = Vec::new();
    let (mut best, mut kept) = (f64::INFINITY, 0usize);
    // the multiplier of all of it: what a level costs beyond the best of its layer no choice with it can make good
    let whole = Relaxed::of(bases[fronts.len()], steps.iter())?;
    let taken = whole.fits(Sum::default(), budget, steps.len()).unwrap_or(0);
    let (least, rate) =
        (whole.bound(Sum::default(), Sum::default(), budget, taken), whole.rate.get(taken).copied().unwrap_or(0.0));
    for (layer, front) in fronts.iter().enumerate().rev() {
        let relaxed = Relaxed::of(bases[layer], steps.iter().filter(|step| step.layer < layer))?;
        let mut fit = relaxed.rate.len();
        let (mut next, mut how): (Vec<Partial>, Vec<Made>) = (Vec::new(), Vec::new());
        // of each level, the partial choice that is to be met with it, and their sum
        let sum = |level: &Level, at: usize| {
            partial
                .get(at)
                .map(|p| Partial { cost: p.cost.plus(Sum::of(level.cost)), loss: p.loss.plus(Sum::of(level.loss)) })
        };
        let priced = |level: &Level| level.loss + rate * level.cost;
        let cheapest = front.iter().map(priced).fold(f64::INFINITY, f64::min);
        let mut heads: Vec<(usize, Option<Partial>)> = front
            .iter()
            .map(|level| {
                let rounded = 8.0 * f64::EPSILON * (level.loss.abs() + (rate * level.cost).abs() + cheapest.abs());
                let beyond = least + (priced(level) - cheapest - rounded) > best;
                (0, if beyond { None } else { sum(level, 0) })
            })
            .collect();
        let mut lowest: Option<Sum> = None;
        loop {
            let mut first: Option<(usize, Partial)> = None;
            for (i, (_, head)) in heads.iter().enumerate() {
                let Some(p) = head else { continue };
                let before = first.is_none_or(|(j, q)| {
                    let order = p.cost.order(&q.cost).then(p.loss.order(&q.loss));
                    order.then(front[i].index.cmp(&front[j].index)).is_lt()
                });
                if before {
                    first = Some((i, *p));
                }
            }
            let Some((i, p)) = first else { break };
            let rest = heads[i].0;
            heads[i] = (rest + 1, sum(&front[i], rest + 1));
            if lowest.is_some_and(|lowest| p.loss.order(&lowest).is_ge()) {
                continue;
            }
            lowest = Some(p.loss);
            // costs rise, and fewer and fewer steps fit beside them
            let Some(fits) = relaxed.fits(p.cost, budget, fit) else { break };
            fit = fits;
            best = best.min(p.loss.plus(relaxed.loss[fit]).hi);
            if relaxed.bound(p.cost, p.loss, budget, fit) > best {
                continue;
            }
            if kept + next.len() >= MOST {
                return Err(Error::Value(format!(
                    "more than {MOST} partial choices are open at layer {layer} of {}: {instead} has none",
                    fronts.len()
                )));
            }
            next.try_reserve(1).map_err(|_| Error::Memory(next.len() * size_of::<Partial>()))?;
            how.try_reserve(1).map_err(|_| Error::Memory(how.len() * size_of::<Made>()))?;
            next.push(p);
            how.push(Made { level: i as u32, rest: rest as u32 });
        }
        kept += how.len();
        (partial, made) = (next, {
            made.push(how);
            made
        });
    }
    // the dearest that fits is the best: losses fall
    let Some(last) = partial.last() else { return Err(Error::Value("no choice is left".into())) };
    let mut at = partial.len() - 1;
    for (layer, how) in made.iter().rev().enumerate() {
        let Made { level, rest } = how[at];
        choice[layer] = fronts[layer][level as usize].index as i32;
        at = rest as usize;
    }
    Ok([last.loss, last.cost])
}

/// The best choice in bins of the room that the cheapest levels leave. A level takes whole bins, rounded up, so no choice that
/// fits them is beyond the budget; of equal losses the cheaper level is taken, in the last layers first.
fn binned(fronts: &[Vec<Level>], room: f64, choice: &mut [i32]) -> Result<()> {
    let bins = |level: &Level, first: &Level| {
        let beyond = level.cost - first.cost;
        // rounded up, and past what rounding may have taken off
        let bins = (beyond / room * BINS as f64 * (1.0 + 8.0 * f64::EPSILON)).ceil();
        if beyond <= 0.0 { 0 } else { bins.clamp(1.0, (BINS + 1) as f64) as usize }
    };
    // of the layers so far, the least loss within so many bins, and the level of the last layer that has it
    let mut least = try_vec(BINS + 1, 0.0_f64)?;
    let mut next = try_vec(BINS + 1, 0.0_f64)?;
    let mut levels = try_vec(fronts.len() * (BINS + 1), 0_u32)?;
    for (front, levels) in fronts.iter().zip(levels.chunks_exact_mut(BINS + 1)) {
        next.fill(f64::INFINITY);
        for (i, level) in front.iter().enumerate() {
            let taken = bins(level, &front[0]);
            let to = next.iter_mut().zip(&mut *levels).skip(taken);
            for ((loss, which), before) in to.zip(&least) {
                let made = before + level.loss;
                if made < *loss {
                    (*loss, *which) = (made, i as u32);
                }
            }
        }
        std::mem::swap(&mut least, &mut next);
    }
    let mut at = BINS;
    for (layer, front) in fronts.iter().enumerate().rev() {
        let level = &front[levels[layer * (BINS + 1) + at] as usize];
        choice[layer] = level.index as i32;
        at -= bins(level, &front[0]);
    }
    Ok(())
}

/// The sums of a choice: its loss and its cost.
fn sums_of(losses: &[f64], costs: &[f64], levels: usize, choice: &[i32]) -> [Sum; 2] {
    [losses, costs].map(|table| {
        let rows = table.chunks(levels).zip(choice);
        rows.fold(Sum::default(), |sum, (row, &k)| sum.plus(Sum::of(row[k as usize])))
    })
}

fn numbers(t: &Tensor, name: &str) -> Result<Vec<f64>> {
    let mut out = try_vec(t.len(), 0.0)?;
    by_float!(t, A => {
        for (o, v) in out.iter_mut().zip(t.slice::<A>()?) {
            *o = base::store::Store::to_f64(*v);
        }
        Ok::<(), Error>(())
    })?;
    match out.iter().find(|v| !v.is_finite()) {
        Some(v) => Err(Error::Value(format!("{name} holds non-finite values, {v} among them"))),
        None => Ok(out),
    }
}

/// allocate(loss, cost) -> choice, sums. The sums are the choice's loss, its cost and the bound. `instead` names the method that
/// an exact one without an end is told to make way for.
pub fn allocate(t: &[Tensor], budget: f64, method: Method, instead: &str) -> Result<()> {
    let [loss, cost, choice, sums] = t else {
        return Err(Error::Type(format!("expected 4 arrays, got {}", t.len())));
    };
    cost.expect_shape("cost", loss.shape())?;
    let (layers, levels) = loss.rows();
    if levels == 0 {
        return Err(Error::Value(format!("{layers} layers have no level to choose")));
    }
    let (losses, costs) = (numbers(loss, "loss")?, numbers(cost, "cost")?);
    for (name, values) in [("loss", &losses), ("cost", &costs)] {
        if !values.iter().map(|v| v.abs()).sum::<f64>().is_finite() {
            return Err(Error::Value(format!("sums of {name} are beyond float64")));
        }
    }
    let fronts: Vec<Vec<Level>> = losses.chunks(levels).zip(costs.chunks(levels)).map(|(v, c)| front(v, c)).collect();
    // of the layers before each, and of all
    let mut bases = vec![(Sum::default(), Sum::default())];
    for (i, front) in fronts.iter().enumerate() {
        let (c, v) = bases[i];
        bases.push((c.plus(Sum::of(front[0].cost)), v.plus(Sum::of(front[0].loss))));
    }
    let least = bases[layers].0.hi;
    if budget.is_nan() || least > budget {
        return Err(Error::Value(format!("budget {budget} is below the least cost, {least}")));
    }
    // what is beyond all of them may be infinite
    let dearest = fronts.iter().fold(Sum::default(), |sum, front| sum.plus(Sum::of(front[front.len() - 1].cost)));
    let budget = budget.min(dearest.hi.next_up());
    let mut steps: Vec<Step> = fronts.iter().enumerate().flat_map(|(layer, front)| hull(layer, front)).collect();
    steps.sort_by(|a, b| b.rate.total_cmp(&a.rate).then(a.layer.cmp(&b.layer)));
    let choice = choice.slice_mut::<i32>()?;
    let sums = sums.slice_mut::<f64>()?;
    let relaxed = Relaxed::of(bases[layers], steps.iter())?;
    // the cheapest levels fit
    let taken = relaxed.fits(Sum::default(), budget, steps.len()).unwrap_or(0);
    let bound = relaxed.bound(Sum::default(), Sum::default(), budget, taken);
    if method == Method::Exact {
        let [loss, cost] = exact(&fronts, &steps, &bases, budget, instead, choice)?;
        sums.copy_from_slice(&[loss.hi, cost.hi, loss.hi]);
        return Ok(());
    }
    let made = [relaxed.loss[taken], relaxed.cost[taken]];
    if method == Method::Binned {
        binned(&fronts, Sum::of(budget).minus(bases[layers].0).hi, choice)?;
        let found = sums_of(&losses, &costs, levels, choice);
        if found[1].hi <= budget && found[0].order(&made[0]).then(found[1].order(&made[1])).is_le() {
            sums.copy_from_slice(&[found[0].hi, found[1].hi, bound.min(found[0].hi)]);
            return Ok(());
        }
        // bins are coarse where few steps fit: what the multiplier finds may be better
    }
    for (c, front) in choice.iter_mut().zip(&fronts) {
        *c = front[0].index as i32;
    }
    for step in &steps[..taken] {
        choice[step.layer] = step.level.index as i32;
    }
    sums.copy_from_slice(&[made[0].hi, made[1].hi, bound]);
    Ok(())
}
