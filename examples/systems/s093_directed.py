"""Learning on directed graphs (row 93): which way an unseen edge goes is told by walks along and against the seen ones. The
rule: nothing is learned; all rules see the same edges, and one of them degrees alone.
"""

from __future__ import annotations

import re

import numpy as np
from _common import main
from scipy import sparse
from tersor import graph

SYSTEM = {
    "row": 93,
    "title": "Towards Data-centric Machine Learning on Directed Graphs: a Survey",
    "mechanism": "(Â Â^T Â)_uv against (v, u), Â = D_out^-1/2 A D_in^-1/2: who else goes where u goes, goes to v; the "
    "imaginary part of the cube of the magnetic matrix D^-1/2 (A_s exp(i 2 pi q (A - A^T))) D^-1/2, "
    "as two real ones; against in- and out-degrees",
    "evidence": "S",
    "functions": ["tersor.graph.propagate", "tersor.graph.normalized_adjacency", "tersor.graph.metapath"],
    "data": "Python's documentation (pydoc_data.topics): which of its 400 most used words follow each other",
    "claims": [
        ["accuracy", ">=", 0.6],
        ["over_degrees", ">=", 0.04],
        ["magnetic_gain", ">=", 0.03],
        ["no_phase_apart", "<=", 1e-12],
    ],
    "figure": "accuracy",
    "seconds": 30,
}
WORDS, PHASE = 400, 0.1


def text() -> tuple[np.ndarray, np.ndarray]:
    """Pairs of words of which the second follows the first, never the other way; each pair once."""
    from pydoc_data.topics import topics

    words = re.findall("[a-z]+", " ".join(topics[k] for k in sorted(topics)).lower())
    names, places, counts = np.unique(words, return_inverse=True, return_counts=True)
    rank = np.empty(len(names), int)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(names))
    ids = rank[places]
    pairs = np.stack([ids[:-1], ids[1:]])
    pairs = pairs[:, (pairs < WORDS).all(0) & (pairs[0] != pairs[1])]
    code, often = np.unique(pairs[0] * WORDS + pairs[1], return_counts=True)
    code = code[often >= 2]
    one_way = ~np.isin(code % WORDS * WORDS + code // WORDS, code)
    return code[one_way] // WORDS, code[one_way] % WORDS


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    first, second = text()
    rng = np.random.default_rng(1000 + split)
    order = rng.permutation(len(first))
    seen, exam = order[: 3 * len(order) // 4], order[3 * len(order) // 4 :]
    a = sparse.csr_array((np.ones(len(seen)), (first[seen], second[seen])), shape=(WORDS, WORDS))
    both = (a + a.T).tocsr()
    out, into = (np.asarray(a.sum(axis)).ravel() for axis in (1, 0))
    eye = np.eye(WORDS)

    def magnetic(q: float) -> tuple[np.ndarray, np.ndarray]:
        """Real and imaginary part of the cube: walks of three edges, each turned by its direction."""
        unit = graph.normalized_adjacency(both, "sym").to_scipy()
        flow = (a - a.T).tocsr()  # 1 along an edge, -1 against it
        real, imaginary = unit * np.cos(2 * np.pi * q), unit.multiply(flow).tocsr() * np.sin(2 * np.pi * q)
        whole = sparse.block_array([[real, -imaginary], [imaginary, real]]).tocsr()
        y = graph.propagate(whole, np.concatenate([eye, 0 * eye]), 3, "none")
        return y[:WORDS], y[WORDS:]

    one = graph.normalized_adjacency(a, (-0.5, -0.5))
    walks = graph.metapath([one, one.T, one], eye)
    scores = {
        "directed": walks - walks.T,
        "magnetic": magnetic(PHASE)[1],
        "degrees": (lambda w: w[:, None] - w[None])(np.log((1 + out) / (1 + into))),
    }
    u, v = first[exam], second[exam]
    noise = 1e-12 * np.random.default_rng(seed).standard_normal(len(exam))  # ties by a coin
    result = {name: float((s[u, v] + noise > 0).mean()) for name, s in scores.items()}
    real, imaginary = magnetic(0.0)
    return {
        **result,
        "accuracy": result["directed"],
        "over_degrees": result["directed"] - result["degrees"],
        "magnetic_gain": result["magnetic"] - result["degrees"],
        # without a phase it is the undirected graph, of which (u, v) and (v, u) are one
        "no_phase_apart": float(max(abs(imaginary).max(), abs(real - graph.propagate(both, eye, 3, "sym")).max())),
    }


if __name__ == "__main__":
    main(SYSTEM, run)
