"""What the parity tests of this folder share."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from seeded import state_of

DATA = Path(__file__).parents[1] / "data"


def filled(module: torch.nn.Module, **options: object) -> torch.nn.Module:
    """A network of the reference, with seeded weights."""
    module.load_state_dict(state_of(module, **options))
    return module.eval().requires_grad_(False)


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    tolerance = 2e-5 + 5e-6 * theirs.abs().max().item()
    print(f"{(ours - theirs).abs().max().item() / tolerance:.3f} of the tolerance")  # shown by -rP
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


def report(name: str, theirs: Callable[[], object], ours: Callable[[], object], times: int = 2) -> None:
    """Print how many times as fast ours is (shown by -rP): the least of several alternating runs."""
    spent: tuple[list[float], list[float]] = ([], [])
    for _ in range(times):
        for found, call in zip(spent, (theirs, ours), strict=True):
            begun = time.process_time()
            call()
            found.append(time.process_time() - begun)
    first, second = min(spent[0]), min(spent[1])
    print(f"{name}: {first:.3f} s of CPU, here {second:.3f}: {first / second:.2f} times as fast")


def write_manifest(name: str, state: Mapping[str, torch.Tensor], source: str) -> None:
    tensors = {name: list(tensor.shape) for name, tensor in state.items()}
    path = DATA / f"golden/manifests/{name}.json"
    path.write_text(json.dumps({"source": source, "tensors": tensors}, separators=(",", ":")) + "\n")
