"""FFN-SkipLLM (row 23): a token that a block hardly turns skips the next ones. The rule: what is skipped is not multiplied, and
the blocks at both ends are never skipped.
"""

from __future__ import annotations

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import prune
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy

SYSTEM = {
    "row": 23,
    "title": "FFN-SkipLLM: A Hidden Gem for Autoregressive Decoding with Adaptive Feed Forward Skipping",
    "mechanism": "cosine of a token before and after a feed-forward block; above a threshold it goes past the next, cold "
    "blocks first and last and the first tokens excepted; who stays is gathered, multiplied and put back (rows of an image "
    "are the tokens, their mean is read; the threshold is that of a share of the training rows' tokens)",
    "evidence": "A",
    "functions": ["tersor.prune.global_threshold"],
    "data": "sklearn.datasets.load_digits",
    "claims": [["skipped", ">=", 0.2], ["cost", "<=", 0.045], ["over_reversed", ">=", 0.02], ["apart", "<=", 1e-5]],
    "figure": "accuracy",
    "seconds": 60,
}
WIDTH, INNER, BLOCKS, COLD, WARM, JUMP, SHARE = 24, 48, 10, 1, 1, 3, 0.6


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.place = nn.Linear(8, WIDTH), nn.Parameter(torch.zeros(8, WIDTH))
        self.mixes = nn.ModuleList(nn.Linear(8, 8) for _ in range(BLOCKS))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, INNER), nn.ReLU(), nn.Linear(INNER, WIDTH))
            for _ in range(BLOCKS)
        )
        self.last = nn.Linear(WIDTH, 10)

    def run(self, x: Tensor, skips, seen: list[Tensor] | None = None) -> tuple[Tensor, float]:  # type: ignore[no-untyped-def]
        """Logits, and the share of the tokens' blocks that were skipped; `skips` is asked of cosines."""
        h = self.first(x.reshape(-1, 8, 8)) + self.place
        wait, gone = torch.zeros(h.shape[:2], dtype=torch.long), 0
        for at, (mix, block) in enumerate(zip(self.mixes, self.blocks, strict=True)):
            h = h + mix(h.transpose(1, 2)).transpose(1, 2)  # between tokens, as attention does: never skipped
            stay = wait == 0
            gone += int((~stay).sum())
            kept = h[stay]
            moved = kept + block(kept)
            middle = COLD <= at < BLOCKS - COLD
            cosine = cosine_similarity(kept, moved, dim=-1)
            if seen is not None and middle:
                seen.append(cosine)
            wait = (wait - 1).clamp(min=0)
            if middle:
                turns = torch.zeros_like(wait)
                turns[stay] = skips(cosine).long() * min(JUMP, BLOCKS - COLD - 1 - at)
                turns[:, :WARM] = 0
                wait = torch.maximum(wait, turns)
            h = h.masked_scatter(stay[..., None], moved)
        return self.last(h.mean(1)), gone / (wait.numel() * BLOCKS)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x, lambda cosine: torch.zeros_like(cosine, dtype=torch.bool))[0]


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    net = seeded(Net(), seed)
    train(net, lambda i: cross_entropy(net(x[i]), y[i]), len(x), steps=300, rate=4e-3, seed=seed)
    with torch.no_grad():
        seen: list[Tensor] = []
        net.run(x, lambda cosine: torch.zeros_like(cosine, dtype=torch.bool), seen)
        # the largest so many cosines are 1 - SHARE's smallest: the threshold of what is pruned
        above = prune.global_threshold(seen, 1 - SHARE, scores=seen).value
        logits, skipped = net.run(tx, lambda cosine: cosine > above)
        # at most as many, of those that are turned most
        for least in prune.global_threshold(seen, [SHARE * n / 10 for n in range(10, 0, -1)], scores=seen):
            other, turned = net.run(tx, lambda cosine, below=least.value: cosine <= below)
            if turned <= skipped:
                break
        same, none = net.run(tx, lambda cosine: cosine > 2)
        result = {
            "dense": accuracy(net, tx, ty),
            "accuracy": float((logits.argmax(-1) == ty).double().mean()),
            "reversed": float((other.argmax(-1) == ty).double().mean()),
            "skipped": skipped,
            "skipped_reversed": turned,
            "apart": float((same - net(tx)).abs().max()) + none,
        }
    result["cost"] = result["dense"] - result["accuracy"]
    result["over_reversed"] = result["accuracy"] - result["reversed"]
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
