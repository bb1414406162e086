"""A projection over the blocks of a Dask array: the same bits as in one process, whatever the chunks and the workers.

python examples/dask_projection.py
"""

from itertools import pairwise

import dask.array as da
import numpy as np
from tersor.project import Projection


def project_rows(x: da.Array, p: Projection) -> da.Array:
    """Px for every row of an array whose chunks hold whole rows."""
    if x.ndim != 2 or x.numblocks[1] != 1:
        raise ValueError(f"chunks must hold whole rows, got {x.chunks}; x.rechunk({{1: -1}}) makes such")
    return x.map_blocks(p, dtype=x.dtype, chunks=(x.chunks[0], (p.shape[0],)))


def project_columns(x: da.Array, p: Projection) -> da.Array:
    """The same of chunks along the columns: each goes through its own columns of P, and the sums agree up to rounding."""
    ends = np.cumsum((0, *x.chunks[1]))
    return sum(project_rows(x[:, a:b], p.cols(int(a), int(b))) for a, b in pairwise(ends))


def main() -> None:
    p = Projection(2000, 128, "sparse", seed=1)
    x = da.random.default_rng(0).standard_normal((5000, 2000), chunks=(700, 2000), dtype=np.float32)
    y, whole = project_rows(x, p).compute(), p(x.compute())
    print(f"{x.npartitions} blocks: {'the bits of one process' if y.tobytes() == whole.tobytes() else 'other bits'}")


if __name__ == "__main__":
    main()
