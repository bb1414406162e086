//! A row of the table of operators in one line. The one rule: what the walk needs to know is said there, and once.

/// The kind of a scalar: a float unless said.
#[doc(hidden)]
#[macro_export]
macro_rules! kind {
    () => {
        $crate::base::Kind::Float
    };
    ($kind:ident) => {
        $crate::base::Kind::$kind
    };
}

/// `name(vectors; row numbers; scalars) -> outputs => functor`, the functor made from the arrays `t` and the scalars `s`.
#[macro_export]
macro_rules! row_ops {
    ($($name:ident($($v:ident),+; $($c:ident),*; $($k:ident $($kind:ident)?),*) -> $($out:ident: $rule:expr),+
        => |$t:ident, $s:ident| $op:expr;)*) => {
        &[$($crate::base::Op {
            name: stringify!($name),
            inputs: &[$(stringify!($v),)+ $(stringify!($c)),*],
            vectors: [$(stringify!($v)),+].len(),
            outputs: &[$((stringify!($out), $rule)),+],
            scalars: &[$((stringify!($k), $crate::kind!($($kind)?))),*],
            alias: true,
            run: |$t, $s| $crate::rows::run(&$op, $t),
        }),*]
    };
}
