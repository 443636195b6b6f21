"""`terratorch fit`, then `terratorch test`, of several configs in one process: importing TerraTorch takes long.

A program of its own, not a test: TerraTorch's command line seeds the process and fills its environment.
"""

import json
import sys
import warnings
from pathlib import Path


def main(configs: list[str]) -> None:
    """Print a line of facts per config."""
    warnings.simplefilter("ignore")  # of a hundred packages
    import torch
    from terratorch.cli_tools import build_lightning_cli

    def touched(state: dict) -> bool:
        return "exp_avg" in state and bool(state["exp_avg"].abs().sum() > 0)

    for config in configs:
        fitted = build_lightning_cli(["fit", "--config", config])
        (optimizer,) = fitted.trainer.optimizers
        encoder = fitted.model.model.encoder
        wanting = {name: one for name, one in encoder.named_parameters() if one.requires_grad}
        (checkpoint,) = Path(fitted.trainer.default_root_dir).rglob("best.ckpt")
        tested = build_lightning_cli(["test", "--config", config, "--ckpt_path", str(checkpoint)])
        saved, loaded = torch.load(checkpoint, weights_only=True)["state_dict"], tested.model.state_dict()
        measured = {name: float(value) for name, value in tested.trainer.callback_metrics.items()}
        facts = {
            "steps": fitted.trainer.global_step,
            "measured": measured,
            "trained": len(wanting),
            "untouched": [name for name, one in wanting.items() if not touched(optimizer.state[one])],
            "loaded": saved.keys() == loaded.keys() and all(torch.equal(saved[name], loaded[name]) for name in saved),
        }
        print("FACTS " + json.dumps({Path(config).name: facts}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
