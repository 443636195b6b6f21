"""Encoders against plain torch, and against the products of matrices that they cannot do without.

`make bench`, or alone: `python benchmarks/kernels.py [--quick]`.

"Plain" is the same encoder on torch's own kernels: `nn.Linear` and `scaled_dot_product_attention`. "Products" are all
the matrix products of a forward pass at their true shapes and nothing else, each by the quickest of torch (MKL) and
oneDNN with packed weights, which is the best that this machine has.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from harness import CASES, QUICK_TURNS, Case, Figures, Row, child, in_turns, ratio, ready, run_script, shown

GOALS = {"thor": "1.8; 80 %", "thor_p8": "1.5", "terramind": "1.8; 80 %", "anysat": "1.8"}
TOKENS, HEADS, HEAD_DIM = 1620, 12, 64
Shape = tuple[int, int, int, int]
"""Matrices that share a call, rows, inner width, columns."""


def encoder(case: str, precision: str, turns: str) -> Figures:
    """Packed against plain, and the products alone."""
    import torch

    from rs_embed.encoders.kernels.linear import using

    _, batch, embedder = ready(CASES[case], precision, pretrained=False)
    with _noting_products() as (shapes, watch):
        watch(embedder.network.module)
        embedder.run(batch)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    products = [(_quickest(shape, dtype), count) for shape, count in shapes.items()]

    _, _, other = ready(CASES[case], precision, pretrained=False)
    # Weights of its own: a map keeps them prepared in one way only.
    other.network = replace(embedder.network, module=copy.deepcopy(embedder.network.module))

    def plain() -> None:
        with using("torch"):
            other.run(batch)

    def alone() -> None:
        with torch.inference_mode():
            for product, count in products:
                for _ in range(count):
                    product()

    times = in_turns({"packed": lambda: embedder.run(batch), "plain": plain, "products": alone}, int(turns))
    share = ratio(times["products"], times["packed"])
    gflop = sum(2e-9 * count * n * rows * inner * cols for (n, rows, inner, cols), count in shapes.items())
    rates = {"share": share["ratio"], "best": gflop / share["over_s"], "reached": gflop / share["under_s"]}
    return ratio(times["plain"], times["packed"]) | rates


@contextmanager
def _noting_products() -> Iterator[tuple[Counter[Shape], Callable[[object], None]]]:
    """Note the shapes of all linear maps of a module, and of the products of attention."""
    from rs_embed.encoders.anysat import attention as anysat_attention
    from rs_embed.encoders.kernels import attention
    from rs_embed.encoders.kernels.linear import Linear

    shapes: Counter[Shape] = Counter()
    plain, hooks = attention.attend, []

    def note(module: Linear, inputs: tuple, _: object) -> None:
        shapes[1, inputs[0].numel() // module.in_features, module.in_features, module.out_features] += 1

    def watch(module: object) -> None:
        hooks.extend(part.register_forward_hook(note) for part in module.modules() if isinstance(part, Linear))

    def noted(q, k, v, bias=None):
        matrices = q.shape[0] * q.shape[1]
        many = min(q.shape[2], k.shape[2]) >= attention.MANY_TOKENS
        size, count = (1, matrices) if many else (matrices, 1)
        shapes[size, q.shape[2], q.shape[3], k.shape[2]] += count
        shapes[size, q.shape[2], k.shape[2], v.shape[3]] += count
        return plain(q, k, v, bias)

    attention.attend = anysat_attention.attend = noted
    try:
        yield shapes, watch
    finally:
        attention.attend = anysat_attention.attend = plain
        for hook in hooks:
            hook.remove()


def _quickest(shape: Shape, dtype: object) -> Callable[[], object]:
    import torch

    from rs_embed.encoders.kernels.linear import multiply

    many, rows, inner, cols = shape
    if many > 1:
        return partial(torch.bmm, torch.randn(many, rows, inner, dtype=dtype), torch.randn(many, inner, cols).to(dtype))
    x, weight = torch.randn(rows, inner).to(dtype), torch.randn(cols, inner).to(dtype)
    with torch.inference_mode():
        packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        ways = {
            "torch": partial(torch.nn.functional.linear, x, weight),
            "oneDNN": partial(multiply, x, weight),
            "packed": partial(multiply, x, packed),
        }
        times = in_turns(ways, 5)
    return ways[min(times, key=lambda way: sorted(times[way])[2])]


def attention(precision: str, turns: str) -> Figures:
    """Torch's kernel against ours: 1620 tokens whose distances weaken attention."""
    import torch

    from rs_embed.encoders.kernels.attention import Distances, attend
    from rs_embed.encoders.kernels.linear import keep_freed_memory, using

    keep_freed_memory()  # as `prepared` does
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    q, k, v = torch.randn(1, TOKENS, 3, HEADS, HEAD_DIM, dtype=dtype).permute(2, 0, 3, 1, 4).unbind()
    distances = Distances(torch.rand(TOKENS, TOKENS), -torch.rand(HEADS))

    def stock() -> None:
        with torch.inference_mode(), using("torch"):
            attend(q, k, v, distances)

    def own() -> None:
        with torch.inference_mode(), using("packed"):
            attend(q, k, v, distances)

    times = in_turns({"own": own, "stock": stock}, int(turns))
    return ratio(times["stock"], times["own"])


def rows(folder: Path, quick: bool) -> list[Row]:
    table = [
        _row(name, case, precision, threads, quick=quick)
        for name, case in CASES.items()
        for precision in ("fp32", "bf16")
        for threads in (1, 2)
    ]
    for precision, goal in (("fp32", "1.5"), ("bf16", "more than fp32")):
        for threads in (1, 2):
            run = child(__file__, "attention", threads, precision, QUICK_TURNS if quick else 15)
            figure = f"{shown(run)}; {run['over_s'] * 1000:.0f} ms against {run['under_s'] * 1000:.0f} ms"
            what = f"attention over {TOKENS} tokens with distances, {precision}, {threads} thread(s): torch / rs_embed"
            table.append((what, figure, goal))
    return table


def _row(name: str, case: Case, precision: str, threads: int, *, quick: bool) -> Row:
    run = child(__file__, "encoder", threads, name, precision, QUICK_TURNS if quick else case.turns)
    figure = (
        f"{shown(run)}; {run['over_s'] * 1000:.0f} ms against {run['under_s'] * 1000:.0f} ms; "
        f"products alone take {run['share']:.0%}, at {run['best']:.0f} GFLOP/s"
    )
    goal = GOALS[name] if precision == "fp32" else ""
    return f"{case.label}, {precision}, {threads} thread(s): plain / rs_embed", figure, goal


if __name__ == "__main__":
    run_script(
        "Encoders compared with plain torch and matrix products",
        '"Plain": the same encoder on torch\'s own kernels. "Products": its matrix products alone. Random weights.',
        rows,
        {"encoder": encoder, "attention": attention},
    )
