//! Ways from a point of the Poincaré ball: exponential and logarithmic maps, and geodesics. The rule and the notation are
//! those of the maps beside it.

mod geodesic;
mod log;
mod step;

use base::Op;
use drivers::{row_ops, rows::Margin};
use geodesic::*;
use log::*;
use step::*;

/// The tables of this part of the family.
pub static TABLES: &[&[Op]] = &[OPS];

pub static OPS: &[Op] = row_ops! {
    logmap(x[.., d], y[.., d], c[.., 1]) -> (v[.., d]) = |t, _s| LogMap;
    logmap_bwd(g[.., d], x[.., d], y[.., d], c[.., 1]) -> (dx[x], dy[y], dc[c]) = |t, _s| LogMapBwd;
    expmap(x[.., d], v[.., d], c[.., 1]; eps) -> (y[.., d]) = |t, s| ExpMap(Margin::of(s[0].float())?);
    expmap_bwd(g[.., d], x[.., d], v[.., d], c[.., 1]) -> (dx[x], dv[v], dc[c]) = |t, _s| ExpMapBwd;
    geodesic(x[.., d], y[.., d], t[.., 1], c[.., 1]; eps) -> (z[.., d]) = |t, s| Geodesic(Margin::of(s[0].float())?);
    geodesic_bwd(g[.., d], x[.., d], y[.., d], t[.., 1], c[.., 1]) -> (dx[x], dy[y], dt[t], dc[c])
        = |t, _s| GeodesicBwd;
    geodesic_unit(x[.., d], v[.., d], t[.., 1], c[.., 1]; eps) -> (z[.., d])
        = |t, s| GeodesicUnit(Margin::of(s[0].float())?);
    geodesic_unit_bwd(g[.., d], x[.., d], v[.., d], t[.., 1], c[.., 1]) -> (dx[x], dv[v], dt[t], dc[c])
        = |t, _s| GeodesicUnitBwd;
};
