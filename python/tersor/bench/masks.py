"""What masks cost a step of training. The one rule: every contender makes the whole step, gradients at hand, and ends with
the same weights.
"""

from typing import Any

from tersor.bench import Call, Case, Target

LAYERS, WIDTH, SPARSITY = 8, 1024, 0.9


def _case(kind: str, fields: int) -> Case:
    """A step of an optimizer that reads and writes so many numbers a weight."""
    import torch

    from tersor.nn import Masks

    torch.set_num_threads(1)
    rules: dict[str, Any] = {"momentum": 0.9} if kind == "SGD" else {}

    def made() -> tuple[Any, Any, list[Any]]:
        torch.manual_seed(0)
        net = torch.nn.Sequential(*(torch.nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS)))
        for p in net.parameters():
            p.grad = 1e-3 * torch.randn_like(p)
        return net, getattr(torch.optim, kind)(net.parameters(), lr=1e-6, **rules), list(net.parameters())

    net, optimizer, _ = made()
    masks = Masks(net).prune(SPARSITY).attach(optimizer)
    floats = [m.float() for m in masks.values()]

    def products() -> Call:
        _, own, weights = made()

        def step() -> None:
            for p, m in zip(weights, floats, strict=True):
                p.grad.mul_(m)
            own.step()
            with torch.no_grad():
                for p, m in zip(weights, floats, strict=True):
                    p.mul_(m)

        return step

    def hooks() -> Call:
        """What torch.nn.utils.prune's hook makes in a forward pass, and its gradient in a backward one."""
        _, own, weights = made()

        def step() -> None:
            for p, m in zip(weights, floats, strict=True):
                made = p.detach() * m
                p.grad = made.copy_(p.grad) * m
            own.step()

        return step

    _, plain, _ = made()
    items = LAYERS * WIDTH * WIDTH
    return Case(
        f"{kind} step of {items / 1e6:.0f} M weights under masks of {SPARSITY:.0%}",
        {"tersor": optimizer.step, "no masks": plain.step, "products": products(), "torch prune": hooks()},
        traffic=4 * fields * items,
        targets=[Target("tersor", ("products", "torch prune"), 1.1)],
        items=items,
    )


def step_sgd() -> Case:
    return _case("SGD", 5)


def step_adam() -> Case:
    return _case("Adam", 7)


CASES = [step_sgd, step_adam]

HEADLINE = step_sgd
