//! What an operator on rows says of itself. The one rule: it names its vectors, numbers, products, weights and outputs
//! once, in [`row!`](crate::row), and how many there are of each is written nowhere.

use super::sums::Acc;
use base::dd::Num;
use base::mix::Pair;
use base::simd::*;
use base::{Dtype, Result, Tensor};

/// How many there are of something.
pub trait Count {
    const N: usize;
    type Of<T: Copy>: Copy;
    fn fill<T: Copy>(v: T) -> Self::Of<T>;
    fn of<T: Copy>(all: &Self::Of<T>) -> &[T];
    fn of_mut<T: Copy>(all: &mut Self::Of<T>) -> &mut [T];
}
pub struct N<const K: usize>;
impl<const K: usize> Count for N<K> {
    const N: usize = K;
    type Of<T: Copy> = [T; K];
    #[inline(always)]
    fn fill<T: Copy>(v: T) -> [T; K] {
        [v; K]
    }
    #[inline(always)]
    fn of<T: Copy>(all: &[T; K]) -> &[T] {
        all
    }
    #[inline(always)]
    fn of_mut<T: Copy>(all: &mut [T; K]) -> &mut [T] {
        all
    }
}

/// As many T as C counts.
pub type Of<C, T> = <C as Count>::Of<T>;

/// What the scalar functions of a row give: weights of the combination, numbers to write, what its mark becomes, and, where
/// rows have a [`Ground`], how far inside it the row lies.
pub struct Solved<OP: RowOp + ?Sized, S: Simd> {
    pub weights: Of<OP::Weights, f64x8<S>>,
    pub numbers: Of<OP::Numbers, f64x8<S>>,
    pub marks: Of<OP::Marks, f64x8<S>>,
    pub gap: f64x8<S>,
}

/// An operator on rows: vectors and row numbers in; inner products; weights; vectors and row numbers out.
pub trait RowOp: Sync {
    type Vectors: Count;
    type Given: Count;
    /// Largest values of a row, which its products are functions of.
    type Peaks: Count;
    /// One where each row has an element that [`solve`](RowOp::solve) reads, in the first vector, and writes, in the first
    /// output; a row without one ([`NONE`](super::NONE)) is left out: zeros.
    type Marks: Count;
    type Products: Count;
    type Weights: Count;
    type Outputs: Count;
    type Numbers: Count;
    /// Plain sums of f32 data may cancel too far: rows in [`doubt`](RowOp::doubt) are summed again in twice f64's precision.
    const WIDE: bool = false;
    /// Where the rows of output 0 have to stay.
    fn ground(&self) -> impl Ground {
        Anywhere
    }
    /// What is largest where a peak is. Where there are peaks, the first vector is -inf past its end, the others are 0.
    fn peaks<S: Simd>(x: Of<Self::Vectors, f64x8<S>>) -> Of<Self::Peaks, f64x8<S>>;
    fn dots<S: Simd, A: Acc<S>>(
        x: Of<Self::Vectors, f64x8<S>>,
        tops: Of<Self::Peaks, f64x8<S>>,
        sums: &mut Of<Self::Products, A>,
    );
    fn solve<S: Simd, N: Num<S>>(
        &self,
        s: S,
        p: Of<Self::Products, N>,
        given: Of<Self::Given, f64x8<S>>,
        tops: Of<Self::Peaks, f64x8<S>>,
        marks: Of<Self::Marks, f64x8<S>>,
    ) -> Solved<Self, S>;
    /// Of an operator that is `WIDE`: the rows whose plain sums cancelled more than f32 results bear.
    #[inline(always)]
    fn doubt<S: Simd>(
        s: S,
        _: Of<Self::Products, f64x8<S>>,
        _: Of<Self::Given, f64x8<S>>,
        _: Of<Self::Weights, f64x8<S>>,
    ) -> mask64x8<S> {
        let zero = f64x8::splat(s, 0.0);
        zero.simd_lt(zero)
    }
    /// The last product is no sum but what [`closer`](RowOp::closer) makes of rows of f64 data that are [`near`](RowOp::near),
    /// and 0 of all others: for what twice f64's precision does not tell.
    const CLOSER: bool = false;
    #[inline(always)]
    fn near<S: Simd>(s: S, _: Of<Self::Products, f64x8<S>>, _: Of<Self::Given, f64x8<S>>) -> mask64x8<S> {
        let zero = f64x8::splat(s, 0.0);
        zero.simd_lt(zero)
    }
    #[inline(always)]
    fn closer<S: Simd>(_: S, _: Of<Self::Vectors, &[f64]>, _: Of<Self::Given, f64>) -> f64 {
        0.0
    }
    /// `narrow`: functions to f32's accuracy serve these rows.
    fn combine<S: Simd>(
        narrow: bool,
        x: Of<Self::Vectors, f64x8<S>>,
        w: Of<Self::Weights, f64x8<S>>,
    ) -> Of<Self::Outputs, f64x8<S>>;
    /// There is a [`single`](RowOp::single): for a combination of which no part is much longer than the result.
    const SINGLE: bool = false;
    /// The combination in f32.
    #[inline(always)]
    fn single<S: Simd>(x: Of<Self::Vectors, f32x16<S>>, _: Of<Self::Weights, Pair<S>>) -> Of<Self::Outputs, f32x16<S>> {
        Self::Outputs::fill(Self::Vectors::of(&x)[0])
    }
}

/// A part of space that rows must not be rounded out of.
pub trait Ground: Sync {
    /// Refuses row numbers that say no such part.
    fn check(&self, given: &[Tensor]) -> Result<()>;
    /// Rows whose gap is below this may have been rounded out of it.
    fn edge(&self, dtype: Dtype) -> f64;
    /// Brings the row of `d` elements at `at` back, where `last` is the last of its row numbers.
    ///
    /// # Safety
    /// The row exists and belongs to the caller.
    unsafe fn mend(&self, y: &Tensor, at: usize, d: usize, last: f64);
}

/// All of space.
pub struct Anywhere;
impl Ground for Anywhere {
    fn check(&self, _: &[Tensor]) -> Result<()> {
        Ok(())
    }
    fn edge(&self, _: Dtype) -> f64 {
        f64::NEG_INFINITY
    }
    unsafe fn mend(&self, _: &Tensor, _: usize, _: usize, _: f64) {}
}

/// The [`Count`] of a list of names.
#[doc(hidden)]
#[macro_export]
macro_rules! count {
    ($($name:ident)*) => { $crate::rows::N<{ <[&str]>::len(&[$(stringify!($name)),*]) }> };
}

/// Implements [`RowOp`] for a type, in its formulas:
///
/// ```ignore
/// /// y = r w x, r = 1/√(mean x² + ε)
/// pub struct RmsNorm(Mean);
/// row! { RmsNorm(x, w;) -> (y;)                 // vectors; row numbers -> vectors; row numbers
///     dots(xx) { xx.dot(x, x); }                // inner products, of eight elements of each vector
///     solve(self) { ([self.0.scale(xx)], []) }  // weights and row numbers, of eight rows
///     combine(r) { [w * x * r] }                // vectors, from vectors and weights
/// }
/// ```
///
/// `peak(top) { [x] }` before `dots` finds the largest value in each row of what it says, which `dots` and `solve` then know:
/// e^(x − top) is at most 1. `mark(at)` before it reads an element of each row of the first vector for `solve`, which says in
/// a third list what it becomes in the first output (see [`marked`](crate::rows::marked)). `combine[narrow](…)` asks whether
/// functions to f32's accuracy serve.
///
/// `solve(self, s)` asks for the level too; its type is S, that of the products N, and A, in `dots`, that of sums. Without vectors out there is no
/// `combine`, and `single` is the same in f32. `doubt`, of products, row numbers and weights, says where plain sums of f32 data cancelled too far;
/// `near`, of products and row numbers, which rows of f64 data are told the last product by `closer(s)`, of whole vectors.
#[macro_export]
macro_rules! row {
    (@ground { $($ground:tt)* } $kind:ident [$($op:tt)+] [$($generic:tt)*]
        ($($x:ident),+; $($c:ident),*) ($($y:ident),*; $($n:ident),*)
        $(mark($at:ident))?
        $(peak($($top:ident),+) $peak:block)?
        dots($($p:ident),*) $dots:block
        solve($self:ident $(, $s:ident)?) $solve:block
        $(combine $([$narrow:ident])? ($($w:ident),*) $combine:block)?
        $(single |$($v:ident),*| $single:block)?
        $(doubt $doubt:block)?
        $(near $near:block closer($level:ident) $closer:block)?
    ) => {
        #[allow(unused_variables)]
        impl<$($generic)*> $crate::rows::RowOp for $($op)+ {
            type Vectors = $crate::count!($($x)+);
            type Given = $crate::count!($($c)*);
            type Peaks = $crate::count!($($($top)+)?);
            type Marks = $crate::count!($($at)?);
            type Products = $crate::count!($($p)*);
            type Weights = $crate::count!($($($w)*)?);
            type Outputs = $crate::count!($($y)*);
            type Numbers = $crate::count!($($n)*);
            $($ground)*
            #[inline(always)]
            fn peaks<S: $crate::base::simd::Simd>(
                [$($x),+]: $crate::rows::Of<Self::Vectors, $crate::base::simd::f64x8<S>>,
            ) -> $crate::rows::Of<Self::Peaks, $crate::base::simd::f64x8<S>> {
                $crate::row!(@combine $($peak)?)
            }
            #[inline(always)]
            fn dots<S: $crate::base::simd::Simd, A: $crate::rows::Acc<S>>(
                [$($x),+]: $crate::rows::Of<Self::Vectors, $crate::base::simd::f64x8<S>>,
                [$($($top),+)?]: $crate::rows::Of<Self::Peaks, $crate::base::simd::f64x8<S>>,
                [$($p),*]: &mut $crate::rows::Of<Self::Products, A>,
            ) $dots
            #[inline(always)]
            fn solve<S: $crate::base::simd::Simd, N: $crate::base::dd::Num<S>>(
                &$self,
                level: S,
                [$($p),*]: $crate::rows::Of<Self::Products, N>,
                [$($c),*]: $crate::rows::Of<Self::Given, $crate::base::simd::f64x8<S>>,
                [$($($top),+)?]: $crate::rows::Of<Self::Peaks, $crate::base::simd::f64x8<S>>,
                [$($at)?]: $crate::rows::Of<Self::Marks, $crate::base::simd::f64x8<S>>,
            ) -> $crate::rows::Solved<Self, S> {
                $(let $s = level;)?
                $crate::row!(@solved $kind [$($at)?] level $solve)
            }
            #[inline(always)]
            fn combine<S: $crate::base::simd::Simd>(
                narrow: bool,
                [$($x),+]: $crate::rows::Of<Self::Vectors, $crate::base::simd::f64x8<S>>,
                [$($($w),*)?]: $crate::rows::Of<Self::Weights, $crate::base::simd::f64x8<S>>,
            ) -> $crate::rows::Of<Self::Outputs, $crate::base::simd::f64x8<S>> {
                $($(let $narrow = narrow;)?)?
                $crate::row!(@combine $($combine)?)
            }
            $crate::row! { @doubt [$($p)*] [$($c)*] [$($($w)*)?] $($doubt)? }
            $crate::row! { @closer [$($x)*] [$($p)*] [$($c)*] $($near $level $closer)? }
            $crate::row! { @single [$($x)*] [$($($v)*)?] $($single)? }
        }
    };
    (@doubt $p:tt $c:tt $w:tt) => {};
    (@doubt [$($p:ident)*] [$($c:ident)*] [$($w:ident)*] $doubt:block) => {
        const WIDE: bool = true;
        #[inline(always)]
        fn doubt<S: $crate::base::simd::Simd>(
            _: S,
            [$($p),*]: $crate::rows::Of<Self::Products, $crate::base::simd::f64x8<S>>,
            [$($c),*]: $crate::rows::Of<Self::Given, $crate::base::simd::f64x8<S>>,
            [$($w),*]: $crate::rows::Of<Self::Weights, $crate::base::simd::f64x8<S>>,
        ) -> $crate::base::simd::mask64x8<S> $doubt
    };
    (@closer $x:tt $p:tt $c:tt) => {};
    (@closer [$($x:ident)*] [$($p:ident)*] [$($c:ident)*] $near:block $level:ident $closer:block) => {
        const CLOSER: bool = true;
        #[inline(always)]
        fn near<S: $crate::base::simd::Simd>(
            _: S,
            [$($p),*]: $crate::rows::Of<Self::Products, $crate::base::simd::f64x8<S>>,
            [$($c),*]: $crate::rows::Of<Self::Given, $crate::base::simd::f64x8<S>>,
        ) -> $crate::base::simd::mask64x8<S> $near
        #[inline(always)]
        fn closer<S: $crate::base::simd::Simd>(
            $level: S,
            [$($x),*]: $crate::rows::Of<Self::Vectors, &[f64]>,
            [$($c),*]: $crate::rows::Of<Self::Given, f64>,
        ) -> f64 $closer
    };
    (@single $x:tt $v:tt) => {};
    (@single [$($x:ident)*] [$($v:ident)*] $single:block) => {
        const SINGLE: bool = true;
        #[inline(always)]
        fn single<S: $crate::base::simd::Simd>(
            [$($x),*]: $crate::rows::Of<Self::Vectors, $crate::base::simd::f32x16<S>>,
            [$($v),*]: $crate::rows::Of<Self::Weights, $crate::base::mix::Pair<S>>,
        ) -> $crate::rows::Of<Self::Outputs, $crate::base::simd::f32x16<S>> $single
    };
    (@solved bound [] $level:ident $solve:block) => {{
        let (weights, numbers, gap) = $solve;
        $crate::rows::Solved { weights, numbers, marks: [], gap }
    }};
    (@solved free [] $level:ident $solve:block) => {{
        let (weights, numbers) = $solve;
        $crate::rows::Solved { weights, numbers, marks: [], gap: $crate::base::simd::f64x8::splat($level, 1.0) }
    }};
    (@solved free [$at:ident] $level:ident $solve:block) => {{
        let (weights, numbers, marks) = $solve;
        $crate::rows::Solved { weights, numbers, marks, gap: $crate::base::simd::f64x8::splat($level, 1.0) }
    }};
    (@combine) => { [] };
    (@combine $combine:block) => { $combine };
    ($op:ident $(<$F:ident: $bound:path>)? ($($in:tt)*) -> ($($out:tt)*) $($rest:tt)*) => {
        $crate::row! { @ground {} free [$op $(<$F>)?] [$($F: $bound)?] ($($in)*) ($($out)*) $($rest)* }
    };
}
