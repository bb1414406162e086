"""The examples of projections: blocks of Dask, and the intrinsic dimension of digits."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from tersor.project import Projection


@pytest.mark.parametrize("kind", ["gaussian", "sparse", "countsketch", "srht"])
def test_blocks_of_dask_are_the_bits_of_one_process(kind):
    da = pytest.importorskip("dask.array")
    from dask_projection import project_columns, project_rows

    x = np.random.default_rng(0).standard_normal((150, 200)).astype(np.float32)
    p = Projection(200, 16, kind, seed=3)
    for chunks in ((37, 200), (150, 200), (1, 200)):
        y = project_rows(da.from_array(x, chunks=chunks), p)
        assert y.shape == (150, 16) and y.dtype == np.float32
        for scheduler in ("threads", "synchronous"):
            assert y.compute(scheduler=scheduler).tobytes() == p(x).tobytes()
    y = project_columns(da.from_array(x, chunks=(50, 60)), p).compute()
    np.testing.assert_allclose(y, p(x), rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="whole rows"):
        project_rows(da.from_array(x, chunks=(50, 60)), p)


def test_a_projection_goes_to_other_processes():
    da, dask = pytest.importorskip("dask.array"), pytest.importorskip("dask")
    from dask_projection import project_rows

    x = np.random.default_rng(0).standard_normal((40, 30))
    p = Projection(30, 8, "osnap", seed=3)
    with dask.config.set({"multiprocessing.context": "spawn"}):
        y = project_rows(da.from_array(x, chunks=(20, 30)), p).compute(scheduler="processes", num_workers=1)
    assert y.tobytes() == p(x).tobytes()


def test_the_intrinsic_dimension_of_digits():
    pytest.importorskip("sklearn"), pytest.importorskip("torch")
    from intrinsic_dimension import DIMENSIONS, measure, net

    full, found, least = measure(steps=60)
    assert full > 0.9 and least in DIMENSIONS and least < 0.1 * sum(p.numel() for p in net(0).parameters())
    # fewer dimensions reach less, clearly
    assert found[DIMENSIONS[0]] < 0.6 * full < found[least]
