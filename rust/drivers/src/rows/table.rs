//! Row operators in a table. The one rule: what the walk needs to know is said there, and once.

/// As [`base::ops!`], with a functor in place of a kernel: made of the arrays `t` and the scalars `s`, and run in place.
#[macro_export]
macro_rules! row_ops {
    ($($name:ident($($inputs:tt)*) -> ($($outputs:tt)*) = |$t:ident, $s:ident| $op:expr;)*) => {
        $crate::base::ops! { $(
            $name($($inputs)*) -> ($($outputs)*) in place = |$t, $s| $crate::rows::run(&$op, $t);
        )* }
    };
}
