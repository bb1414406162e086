"""tersor as a guest in a process: imports, threads, forks, signals, memory. The one rule: whatever may hang or kill runs
in a child with a deadline."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
import tersor

pytestmark = [pytest.mark.serial, pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX processes")]

DEADLINE = 60


def run(code: str, **env: str) -> str:
    """What a fresh interpreter prints that runs ``code``."""
    clean = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=clean | env,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def large() -> np.ndarray:
    """Enough rows that the pool is used."""
    return np.random.default_rng(0).normal(size=(20000, 16)).astype(np.float32)


def forked(body, seconds: float = 20) -> int:
    """The exit status of a forked child that runs ``body``; killed, and -9, if it hangs."""
    pid = os.fork()
    if pid == 0:
        try:
            body()
        except BaseException:
            os._exit(1)
        os._exit(0)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -signal.SIGKILL


def test_import_brings_nothing_and_starts_nothing():
    out = run(
        """
        import os, sys, numpy
        before = len(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else 0
        import tersor
        after = len(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else 0
        heavy = {"torch", "triton", "scipy", "sklearn", "safetensors", "click", "rich", "hypothesis", "ml_dtypes"}
        print(after - before, sorted(heavy & set(sys.modules)))
        """
    )
    assert out == "0 []"


CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"TERSOR_NUM_THREADS": "3", "RAYON_NUM_THREADS": "5", "OMP_NUM_THREADS": "7"}, 3),
        ({"RAYON_NUM_THREADS": "5", "OMP_NUM_THREADS": "7"}, 5),
        ({"OMP_NUM_THREADS": "7"}, 7),
        ({"TERSOR_NUM_THREADS": "many", "OMP_NUM_THREADS": "0", "RAYON_NUM_THREADS": "-1"}, CORES),
        ({}, CORES),
    ],
)
def test_thread_count_from_the_environment(env, expected):
    assert int(run("import tersor; print(tersor.get_num_threads())", **env)) == expected


def test_thread_count_set_and_given_back():
    out = run(
        """
        import tersor
        tersor.set_num_threads(4); a = tersor.get_num_threads()
        tersor.set_num_threads(None); b = tersor.get_num_threads()
        print(a, b)
        """,
        TERSOR_NUM_THREADS="2",
    )
    assert out == "4 2"


@pytest.mark.parametrize(
    ("n", "error"), [(0, ValueError), (-1, ValueError), (True, TypeError), (1.0, TypeError), ("2", TypeError)]
)
def test_no_number_of_threads(n, error):
    before = tersor.get_num_threads()
    with pytest.raises(error, match="set_num_threads"):
        tersor.set_num_threads(n)
    assert tersor.get_num_threads() == before


def test_fork_after_use():
    x = large()
    expected = tersor.hyperbolic.expmap0(x, 1.0).tobytes()

    def child():
        assert tersor.hyperbolic.expmap0(x, 1.0).tobytes() == expected

    assert [forked(child) for _ in range(20)] == [0] * 20


def test_fork_while_another_thread_computes():
    x = large()
    expected = tersor.hyperbolic.expmap0(x, 1.0).tobytes()
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            tersor.hyperbolic.expmap0(x, 1.0)

    def child():
        assert tersor.hyperbolic.expmap0(x, 1.0).tobytes() == expected

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        assert [forked(child) for _ in range(20)] == [0] * 20
    finally:
        stop.set()
        thread.join()


def test_fork_after_torch_used_its_pool():
    out = run(
        """
        import os, signal, torch, tersor
        torch.set_num_threads(2)
        x = torch.randn(20000, 16)
        (torch.randn(512, 512) @ torch.randn(512, 512)).sum()
        expected = tersor.hyperbolic.expmap0(x, 1.0)
        codes = []
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                signal.alarm(10)
                os._exit(0 if tersor.hyperbolic.expmap0(x, 1.0).numpy().tobytes() == expected.numpy().tobytes() else 1)
            codes.append(os.waitpid(pid, 0)[1])
        print(codes == [0] * 20, codes)
        """
    )
    assert out.startswith("True"), out


def test_loader_workers_may_call_it():
    out = run(
        """
        import torch, tersor
        class Data(torch.utils.data.Dataset):
            def __len__(self): return 8
            def __getitem__(self, i): return tersor.hyperbolic.expmap0(torch.full((4096, 16), 0.1 * i), 1.0)
        first = Data()[7]
        batch = list(torch.utils.data.DataLoader(Data(), batch_size=4, num_workers=2, multiprocessing_context="fork"))
        print(torch.equal(batch[1][3], first))
        """
    )
    assert out == "True"


def test_many_python_threads_get_the_same_bits():
    x = large()
    expected = tersor.hyperbolic.expmap0(x, 1.0).tobytes()
    wrong = []

    def work():
        for _ in range(20):
            if tersor.hyperbolic.expmap0(x, 1.0).tobytes() != expected:
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_denormals_are_numbers_whatever_torch_has_set():
    out = run(
        """
        import numpy as np, torch, tersor
        x = np.full((20000, 8), 1e-41, np.float32)
        torch.set_flush_denormal(True)
        print(tersor.hyperbolic.expmap0(x, 0.0).tobytes() == x.tobytes())
        """
    )
    assert out == "True"


def test_ctrl_c_stops_a_long_kernel_and_the_pool_lives_on():
    out = run(
        """
        import os, signal, threading, time
        import numpy as np, tersor
        from tersor import sparse
        rng = np.random.default_rng(0)
        w = rng.normal(size=(4096, 4096)) * (rng.random((4096, 4096)) < 0.5)
        a, x, out = sparse.from_dense(w), np.ones((4096, 8192)), np.empty((4096, 8192))
        small = sparse.spmm(a, np.ones((4096, 64)))
        for attempt in range(3):
            sent = []
            def interrupt():
                sent.append(time.monotonic())
                os.kill(os.getpid(), signal.SIGINT)
            timer = threading.Timer(0.3, interrupt)
            timer.start()
            try:
                sparse.spmm(a, x, out=out)
                print("ran to its end")
            except KeyboardInterrupt:
                assert time.monotonic() - sent[0] < 2, time.monotonic() - sent[0]
                print("stopped")
            timer.join()
            assert (sparse.spmm(a, np.ones((4096, 64))) == small).all()
        """
    )
    assert out.split("\n") == ["stopped"] * 3


def test_no_integer_takes_all_memory():
    """Every integer that a raw operator takes, as large as it goes: a result or an error, at once and within bounds."""
    code = """
    import resource, time
    import numpy as np, torch, tersor
    from tersor import _func
    from tersor._lists import each
    from tersor._op import OPS
    from tersor._sample import Draw
    from tersor._values import tensor_of
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    took = 0
    for op in OPS.values():
        at = [i for i, kind in enumerate(op.signature.kinds) if kind == "int"]
        if not at or op.sample is None:
            continue
        inputs, scalars = op.sample(Draw(3, "float32", (4,), 8))
        given = [torch.empty(0) if x is None else x for x in inputs]
        xs = [each(lambda v: tensor_of(v) if isinstance(v, np.ndarray) else torch.as_tensor(v), x) for x in given]
        rest = [scalars.get(k, op.defaults.get(k)) for k in op.scalars]
        for i in at:
            for huge in (2**31, 2**34, 2**40, 2**62, 2**63 - 1, -(2**63), -1):
                given = [*rest[:i], huge, *rest[i + 1:]]
                start = time.monotonic()
                for call in (lambda: _func.raw(op)(*xs, *given), lambda: op.numpy((*inputs, *given), {})):
                    try:
                        call()
                    except (ValueError, TypeError, MemoryError, RuntimeError) as e:
                        assert "internal]" not in str(e) and not isinstance(e, tersor.InternalError), (op.key, huge, e)
                took = max(took, time.monotonic() - start)
                assert took < 20, (op.key, op.signature.scalars[i], huge)
    print("done")
    """
    assert run(code, OMP_NUM_THREADS="1").endswith("done")
