"""Properties of data (row 53): how sharp the labels are, and how hard classes are to tell. The rule: the
steepest pair counts."""

import itertools

import numpy as np
from _common import digits, main
from tersor import metrics

SYSTEM = {
    "row": 53,
    "title": "The Effect of Intrinsic Dataset Properties on Generalization: Unraveling Learning Differences Between Natural "
    "and Medical Images",
    "mechanism": "K_F = max |y_i − y_j| / ‖x_i − x_j‖ over pairs of the data, for each two classes; "
    "the sharper the labels, the larger the error of a learner (nearest neighbour)",
    "evidence": "A",
    "functions": ["tersor.metrics.label_sharpness", "tersor.metrics.spearman_corrcoef"],
    "data": "sklearn.datasets.load_digits, all pairs of classes",
    "claims": [["hard_to_easy", ">=", 1.2], ["rank_with_error", ">=", 0.2], ["shuffled_rises", ">=", 2.0]],
    "figure": "hard_to_easy",
    "seconds": 20,
}


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = (v.numpy() for v in digits(split, 700))
    sharp, error = {}, {}
    for a, b in itertools.combinations(range(10), 2):
        some, test = (y == a) | (y == b), (ty == a) | (ty == b)
        sharp[a, b] = metrics.label_sharpness(x[some], (y[some] == b).astype(np.int64))
        few = x[some][:24]  # a learner that errs at all
        distance = (few * few).sum(1) - 2 * tx[test] @ few.T
        error[a, b] = float((y[some][distance.argmin(1)] != ty[test]).mean())
    some = (y == 0) | (y == 1)
    mixed = np.random.default_rng(seed).permutation((y[some] == 1).astype(np.int64))
    return {
        "three_eight": sharp[3, 8],
        "zero_one": sharp[0, 1],
        "hard_to_easy": sharp[3, 8] / sharp[0, 1],
        "rank_with_error": metrics.spearman_corrcoef(np.array(list(sharp.values())), np.array(list(error.values()))),
        # labels that the data does not bear are sharper than those that it does
        "shuffled_rises": metrics.label_sharpness(x[some], mixed) / sharp[0, 1],
    }


if __name__ == "__main__":
    main(SYSTEM, run)
