//! The signature of an operator: its arrays by the letters of their axes, and what follows for its results. The one rule:
//! whoever needs a shape, a type or a name reads it here; a kernel checks only what it must not trust.
//!
//! `name(inputs; scalars) -> (outputs)`, as NumPy's generalised ufuncs write theirs, with types:
//!
//! * `x[.., d]`: rows, whose leading axes broadcast, and one row may stand for all; `c[.., 1]`: a number, or one a row;
//! * `x[b.., n, d]`: leading axes that are alike wherever they are called b; as a size, b is their product;
//! * `x[*]`: any shape; `bias[m]?`: may be absent, which is an array of shape [0]; `indptr[m + 1]`: one more than m;
//! * `xs*[*]`: a list of arrays of any shape; `ys*[xs]`: a list like it, entry by entry; kernels find the entries one after
//!   another among the arrays, and behind the scalars the length of every list, in the order of the signature;
//! * `y[x]`: shape and type of input x; `y[.., 2 * d]`: sizes made of letters and scalars with + - * / & == < ? : ,
//!   a division rounds down;
//! * `w[.., d]: x | float32`: of the type of x, as all rows are, or float32 beside 16-bit ones;
//! * `: int64`, `: x` (as input x), `: compute` (float64 of float64, else float32), `: float(k)` (one of four by number),
//!   `: k ? int64 : int32`: another type than the first input's;
//! * `dx[x]?`: empty where the scalar of kind `needs` has no bit for it;
//! * `(lse[n]: float64)`, last: kept for the backward and not given to who called;
//! * scalars are floats unless `: int`, `: bool` or `: needs` is said.

mod parse;
#[cfg(test)]
mod tests;

use base::{Dtype, Error, Kind, MAX_DIMS, Result, Scalar, Tensor};

/// The most letters of a signature.
const LETTERS: usize = 8;

/// See the head of this file.
#[derive(Debug)]
pub struct Signature {
    pub name: &'static str,
    pub inputs: Vec<Input>,
    pub outputs: Vec<Output>,
    pub scalars: Vec<(&'static str, Kind)>,
    pub letters: Vec<&'static str>,
    /// What the leading axes that are alike are called.
    pub pack: Option<&'static str>,
}

/// What comes before the axes that are named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lead {
    None,
    /// `..`: they broadcast.
    Rows,
    /// `b..`: they are alike.
    Same,
}

#[derive(Debug)]
pub struct Input {
    pub name: &'static str,
    pub lead: Lead,
    /// The last axes: a letter or none, and what is added to it. Nothing is said of an array of any shape.
    pub core: Option<Vec<(Option<usize>, usize)>>,
    pub optional: bool,
    /// A list.
    pub many: bool,
    /// May be f32 beside 16-bit data.
    pub wider: bool,
}

#[derive(Debug)]
pub struct Output {
    pub name: &'static str,
    pub shape: Shape,
    pub dtype: Type,
    /// A list, as the input is that it is like.
    pub many: bool,
    /// Left empty unless `needs` has its bit.
    pub needed: bool,
    /// Kept for the backward, and not shown.
    pub saved: bool,
}

#[derive(Debug)]
pub enum Shape {
    Like(usize),
    Of(Lead, Vec<Size>),
    /// `grain(x, axes, group)`: the shape of a scale of x. Groups of its last axis; or the axes whose bit is set, the others
    /// being 1; or nothing. Below 0, so many groups come before these axes.
    Grain([usize; 3]),
}

/// A size, or what decides between two.
#[derive(Debug)]
pub enum Size {
    Int(i64),
    Letter(usize),
    Scalar(usize),
    /// The product of the leading axes that are alike.
    Lead,
    Of(Sign, Box<[Size; 2]>),
    If(Box<[Size; 3]>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sign {
    Plus,
    Minus,
    Times,
    Over,
    And,
    Equal,
    Less,
}

impl Sign {
    pub const ALL: [(Sign, &'static str); 7] = [
        (Sign::Plus, "+"),
        (Sign::Minus, "-"),
        (Sign::Times, "*"),
        (Sign::Over, "/"),
        (Sign::And, "&"),
        (Sign::Equal, "=="),
        (Sign::Less, "<"),
    ];
    pub fn text(self) -> &'static str {
        Sign::ALL.iter().find(|s| s.0 == self).map_or("", |s| s.1)
    }
}

#[derive(Debug)]
pub enum Type {
    Like(usize),
    Is(Dtype),
    Compute,
    Float(usize),
    If(Size, Box<[Type; 2]>),
}

/// The types that `float(k)` counts through.
const FLOATS: [Dtype; 4] = [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::Bf16];

/// What the letters stand for in one call.
pub struct Sizes<'a> {
    lead: &'a [usize],
    letters: [Option<usize>; LETTERS],
}

/// The shape and type of a result.
pub struct Wanted {
    dims: [usize; MAX_DIMS],
    ndim: usize,
    pub dtype: Dtype,
}

impl Wanted {
    pub fn shape(&self) -> &[usize] {
        &self.dims[..self.ndim]
    }
    fn new(shape: impl IntoIterator<Item = usize>, dtype: Dtype) -> Result<Wanted> {
        let mut wanted = Wanted { dims: [0; MAX_DIMS], ndim: 0, dtype };
        for n in shape {
            let Some(slot) = wanted.dims.get_mut(wanted.ndim) else {
                return Err(Error::Value(format!("a result would have more than {MAX_DIMS} axes")));
            };
            *slot = n;
            wanted.ndim += 1;
        }
        Ok(wanted)
    }
}

impl Input {
    /// A row [..., d].
    pub fn is_row(&self) -> bool {
        self.lead == Lead::Rows && matches!(self.core.as_deref(), Some([(Some(_), 0)]))
    }
    /// Whether it may be of type `own` where the first array is of type `first`.
    pub fn fits(&self, own: Dtype, first: Dtype) -> bool {
        own == first || (self.wider && own == Dtype::F32 && first.size() == 2 && first.is_float())
    }
    /// A number, or one for each row, in an axis of its own.
    pub fn is_number(&self) -> bool {
        self.lead == Lead::Rows && matches!(self.core.as_deref(), Some([(None, 1)]))
    }
}

impl Signature {
    /// The first inputs that are rows [..., d].
    pub fn rows(&self) -> usize {
        self.inputs.iter().take_while(|p| p.is_row()).count()
    }

    /// Whether lists are among its arrays.
    pub fn lists(&self) -> bool {
        self.inputs.iter().any(|p| p.many)
    }

    /// How many results who calls is given: those that are saved follow.
    pub fn shown(&self) -> usize {
        self.outputs.iter().take_while(|o| !o.saved).count()
    }

    /// The letters, from the inputs; an error names the array that does not fit.
    pub fn bind<'a>(&self, inputs: &'a [Tensor]) -> Result<Sizes<'a>> {
        let mut sizes = Sizes { lead: &[], letters: [None; LETTERS] };
        let (mut led, mut widest) = (false, None);
        for (p, t) in self.inputs.iter().zip(inputs) {
            let Some(core) = &p.core else { continue };
            let shape = t.shape();
            if (p.optional && shape == [0]) || (p.is_number() && shape.is_empty()) {
                continue;
            }
            let Some(at) = shape.len().checked_sub(core.len()).filter(|&at| at == 0 || p.lead != Lead::None) else {
                return Err(self.misfit(p, shape));
            };
            if p.is_row() && !p.fits(t.dtype(), inputs[0].dtype()) {
                let [own, first] = [t.dtype(), inputs[0].dtype()].map(Dtype::name);
                return Err(Error::Type(format!("{} is {own}, {} is {first}", p.name, self.inputs[0].name)));
            }
            let (lead, last) = shape.split_at(at);
            if p.lead == Lead::Same && led && lead != sizes.lead {
                return Err(self.misfit(p, shape));
            }
            // of rows, the shape is that of those which are not one for all
            let extent = (lead.iter().product::<usize>() != 1, lead.len());
            if p.lead == Lead::Same || (p.is_row() && widest.is_none_or(|w| extent > w)) {
                (sizes.lead, led, widest) = (lead, true, Some(extent));
            }
            for (&(letter, more), &n) in core.iter().zip(last) {
                let own = n.checked_sub(more).ok_or_else(|| self.misfit(p, shape))?;
                let known = letter.map_or(0, |l| *sizes.letters[l].get_or_insert(own));
                if known != own {
                    return Err(self.misfit(p, shape));
                }
            }
        }
        Ok(sizes)
    }

    fn misfit(&self, p: &Input, shape: &[usize]) -> Error {
        let axes = self.describe(p);
        Error::Value(format!("{} must be [{axes}] as the other arrays are, got shape {shape:?}", p.name))
    }

    fn describe(&self, p: &Input) -> String {
        let lead = match p.lead {
            Lead::None => None,
            Lead::Rows | Lead::Same => Some("...".to_owned()),
        };
        let axis = |&(letter, more): &(Option<usize>, usize)| match (letter, more) {
            (Some(l), 0) => self.letters[l].to_owned(),
            (Some(l), more) => format!("{} + {more}", self.letters[l]),
            (None, more) => more.to_string(),
        };
        lead.into_iter().chain(p.core.iter().flatten().map(axis)).collect::<Vec<_>>().join(", ")
    }

    /// Shape and type of result `i`.
    pub fn output(&self, i: usize, sizes: &Sizes, inputs: &[Tensor], scalars: &[Scalar]) -> Result<Wanted> {
        let out = &self.outputs[i];
        let dtype = type_of(&out.dtype, sizes, inputs, scalars);
        if out.needed && !self.needs(scalars, i) {
            return Wanted::new([0], dtype);
        }
        match &out.shape {
            Shape::Like(k) => Wanted::new(inputs[*k].shape().iter().copied(), dtype),
            &Shape::Grain([x, axes, group]) => {
                let (shape, axes, group) = (inputs[x].shape(), scalars[axes].int(), scalars[group].int());
                Wanted::new(grain(shape, axes, group), dtype)
            }
            Shape::Of(lead, core) => {
                let mut core = core.iter().map(|s| {
                    let n = value(s, sizes, scalars);
                    usize::try_from(n).map_err(|_| Error::Value(format!("{} would have an axis of {n}", out.name)))
                });
                let mut made = [0; MAX_DIMS];
                let n = core.len().min(MAX_DIMS);
                for slot in made.iter_mut().take(n) {
                    *slot = core.next().unwrap_or(Ok(0))?;
                }
                let lead = if *lead == Lead::None { &[] } else { sizes.lead };
                Wanted::new(lead.iter().chain(&made[..n]).copied(), dtype)
            }
        }
    }

    /// Whether result `i` is wanted, by the scalar that says so.
    pub fn needs(&self, scalars: &[Scalar], i: usize) -> bool {
        let at = self.scalars.iter().position(|s| s.1 == Kind::Needs);
        at.is_none_or(|k| scalars[k].int() >> i & 1 != 0)
    }
}

fn grain(shape: &[usize], axes: i64, group: i64) -> impl Iterator<Item = usize> + '_ {
    let kept = if group != 0 || axes != 0 { shape } else { &[] };
    let last = shape.len().wrapping_sub(1);
    let groups = (group < 0).then_some(group.unsigned_abs() as usize);
    let own = kept.iter().enumerate().map(move |(i, &n)| match group {
        ..=0 => {
            if axes >> i & 1 == 1 {
                n
            } else {
                1
            }
        }
        g if i == last => n / usize::try_from(g).unwrap_or(usize::MAX),
        _ => n,
    });
    groups.into_iter().chain(own)
}

fn value(s: &Size, sizes: &Sizes, scalars: &[Scalar]) -> i64 {
    match s {
        Size::Int(n) => *n,
        Size::Letter(l) => sizes.letters[*l].unwrap_or(0) as i64,
        Size::Scalar(k) => scalars[*k].int(),
        Size::Lead => sizes.lead.iter().product::<usize>() as i64,
        Size::Of(sign, ab) => {
            let [a, b] = [&ab[0], &ab[1]].map(|s| value(s, sizes, scalars));
            match sign {
                Sign::Plus => a.saturating_add(b),
                Sign::Minus => a.saturating_sub(b),
                Sign::Times => a.saturating_mul(b),
                Sign::Over => a.checked_div_euclid(b).unwrap_or(0), // a kernel says that b may not be 0
                Sign::And => a & b,
                Sign::Equal => i64::from(a == b),
                Sign::Less => i64::from(a < b),
            }
        }
        Size::If(abc) => {
            let [test, a, b] = &**abc;
            value(if value(test, sizes, scalars) != 0 { a } else { b }, sizes, scalars)
        }
    }
}

fn type_of(t: &Type, sizes: &Sizes, inputs: &[Tensor], scalars: &[Scalar]) -> Dtype {
    match t {
        Type::Like(k) => inputs[*k].dtype(),
        Type::Is(d) => *d,
        Type::Compute if inputs[0].dtype() == Dtype::F64 => Dtype::F64,
        Type::Compute => Dtype::F32,
        Type::Float(k) => {
            usize::try_from(scalars[*k].int()).ok().and_then(|k| FLOATS.get(k)).copied().unwrap_or(Dtype::F32)
        }
        Type::If(test, ab) => type_of(&ab[usize::from(value(test, sizes, scalars) == 0)], sizes, inputs, scalars),
    }
}
