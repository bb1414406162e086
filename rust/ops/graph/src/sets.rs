//! Rows as sets. The one rule: the columns of a row ascend and each stands once, in as few bytes as all of them allow: what comes
//! twice was added up as the row was copied.

use base::store::Store;
use base::{Error, Result, try_vec};
use drivers::index::{self, Index};
use std::ops::Range;

/// A column as it is kept.
pub trait Column: Copy + Ord + Default + Send + Sync {
    /// The column, if it fits.
    fn new(column: i64) -> Option<Self>;
    fn at(self) -> usize;
}

macro_rules! column { ($($t:ty),*) => { $(
    impl Column for $t {
        #[inline(always)]
        fn new(column: i64) -> Option<Self> {
            Self::try_from(column).ok()
        }
        #[inline(always)]
        fn at(self) -> usize {
            self as usize
        }
    }
)* } }
column!(u32, u64);

pub struct Sets<C> {
    ptr: Vec<usize>,
    pub columns: Vec<C>,
    /// What stands in the columns, if that was asked for.
    pub values: Vec<f64>,
    /// One more than the largest column.
    pub extent: usize,
}

impl<C: Column> Sets<C> {
    /// A copy of the rows; nothing if a column does not fit.
    pub fn new<I: Index, T: Store>(indices: &[I], indptr: &[I], data: Option<&[T]>) -> Result<Option<Sets<C>>> {
        let mut ptr = index::offsets(indptr, indices.len())?;
        let mut columns = try_vec(indices.len(), C::default())?;
        let mut values = try_vec(data.map_or(0, <[T]>::len), 0f64)?;
        let (mut len, mut from, mut extent) = (0, 0, 0);
        for row in 1..ptr.len() {
            let to = std::mem::replace(&mut ptr[row], 0);
            let mut before = -1;
            for at in from..to {
                let v = index::entry(indices, at) as i64;
                if v < before.max(0) || v == i64::MAX {
                    return Err(if v < 0 || v == i64::MAX {
                        index::outside("indices", at, v as usize, 0, i64::MAX as usize)
                    } else {
                        Error::Value(format!("the column indices of row {} do not ascend", row - 1))
                    });
                }
                let Some(column) = C::new(v) else { return Ok(None) };
                // one that is there already is written once more, over itself
                len += usize::from(v != before);
                columns[len - 1] = column;
                if let Some(data) = data {
                    values[len - 1] += data[at].to_f64();
                }
                before = v;
            }
            extent = extent.max((before + 1) as usize);
            (ptr[row], from) = (len, to);
        }
        columns.truncate(len);
        values.truncate(len);
        Ok(Some(Sets { ptr, columns, values, extent }))
    }

    pub fn len(&self) -> usize {
        self.ptr.len() - 1
    }

    /// Where a row lies.
    #[inline(always)]
    pub fn place(&self, row: usize) -> Range<usize> {
        self.ptr[row]..self.ptr[row + 1]
    }
}

/// `by_column!(indices, indptr, data, sets => body)`: the body with the rows in the narrowest columns.
macro_rules! by_column {
    ($indices:expr, $indptr:expr, $data:expr, $sets:ident => $body:expr) => {
        if let Some($sets) = $crate::sets::Sets::<u32>::new($indices, $indptr, $data)? {
            $body
        } else if let Some($sets) = $crate::sets::Sets::<u64>::new($indices, $indptr, $data)? {
            $body
        } else {
            unreachable!("a column that is no number of 64 bits")
        }
    };
}
pub(crate) use by_column;
