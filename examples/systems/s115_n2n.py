"""N2N (row 115): a policy makes a trained net smaller, paid by how small it is and how much it still knows. The rule: rewards
alone move the policy, and what it chose is cut out of the layers.
"""

from __future__ import annotations

import copy

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import nn as tnn
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

SYSTEM = {
    "row": 115,
    "title": "N2N Learning: Network to Network Compression via Policy Gradient Reinforcement Learning",
    "mechanism": "REINFORCE on how much of each layer goes, reward C (2 - C) A / A_teacher, C the share of parameters that are "
    "gone; students keep the teacher's rows and are taught by its logits (the removal of whole layers is left out)",
    "evidence": "A",
    "functions": ["tersor.nn.shrink"],
    "data": "sklearn.datasets.load_digits",
    "claims": [["learned", ">=", 0.09], ["over_random", ">=", 0.11], ["compression", ">=", 1.5]],
    "figure": "accuracy",
    "seconds": 60,
}
SHARES = (0.0, 0.25, 0.5, 0.75, 0.9)
EPISODES, LESSONS, RATE = 40, 15, 0.5


def student(
    teacher: nn.Sequential, shares: list[float], x: Tensor, known: Tensor, seed: int, steps: int
) -> nn.Sequential:
    """The teacher without these shares of its layers, after some lessons."""
    small = copy.deepcopy(teacher)
    if any(shares):
        tnn.shrink(small, x[:2], shares)
    train(small, lambda i: mse_loss(small(x[i]), known[i]), len(x), steps=steps, rate=5e-3, seed=seed)
    return small


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    x, y, vx, vy = x[:900], y[:900], x[900:], y[900:]  # rewards are given on rows that students do not learn from
    generator = torch.Generator().manual_seed(seed)
    teacher = seeded(nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64), nn.ReLU(), nn.Linear(64, 10)), seed)
    train(teacher, lambda i: cross_entropy(teacher(x[i]), y[i]), len(x), steps=250, rate=4e-3, seed=seed)
    with torch.no_grad():
        known = teacher(x)
    best, size = accuracy(teacher, vx, vy), sum(p.numel() for p in teacher.parameters())
    rewards: dict[str, list[float]] = {"policy": [], "random": []}
    chosen: tuple[float, list[float]] = (-1.0, [])
    policy = torch.zeros(2, len(SHARES))
    for kind in ("random", "policy"):
        for episode in range(EPISODES):
            odds = policy.softmax(-1) if kind == "policy" else torch.full_like(policy, 1 / len(SHARES))
            actions = torch.multinomial(odds, 1, generator=generator)[:, 0]
            shares = [SHARES[int(a)] for a in actions]
            small = student(teacher, shares, x, known, episode, LESSONS)
            gone = 1 - sum(p.numel() for p in small.parameters()) / size
            reward = gone * (2 - gone) * accuracy(small, vx, vy) / best
            rewards[kind].append(reward)
            if kind == "random":
                continue
            chosen = max(chosen, (reward, shares))
            base = sum(rewards[kind][-8:]) / len(rewards[kind][-8:])
            one = torch.zeros_like(policy).scatter(1, actions[:, None], 1.0)
            policy += 8 * RATE * (reward - base) * (one - odds)  # the gradient of log pi
    final = student(teacher, chosen[1], x, known, seed, 300)
    late = sum(rewards["policy"][-10:]) / 10
    return {
        "teacher": accuracy(teacher, tx, ty),
        "accuracy": accuracy(final, tx, ty),
        "compression": size / sum(p.numel() for p in final.parameters()),
        "learned": late - sum(rewards["policy"][:10]) / 10,
        "over_random": late - sum(rewards["random"]) / EPISODES,
    }


if __name__ == "__main__":
    main(SYSTEM, run)
