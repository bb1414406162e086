//! Groups of points: segments of rows, with weights and a curvature. The one rule: how exact a sum is kept follows from the type
//! of the data and from what a row is.

use base::store::Store;
use drivers::segments::Lists;

pub struct Groups<'a, T> {
    pub x: &'a [T],
    pub d: usize,
    pub c: f64,
    pub weights: Option<&'a [T]>,
    pub lists: Lists,
    pub tangent: bool,
}

impl<T: Store> Groups<'_, T> {
    /// Whether sums are kept in twice f64's precision.
    #[inline(always)]
    pub fn exact(&self) -> bool {
        size_of::<T>() == 8 && !self.tangent
    }
    /// Whether rows and midpoints are taken apart before anything else: what is then small would not be, to the last digit.
    #[inline(always)]
    pub fn apart(&self) -> bool {
        size_of::<T>() == 8 || self.tangent
    }
}
