"""The one place that imports TerraTorch: late, with a line that says so, and without a trace in the process.

Importing it takes 10 to 40 s and some 140 packages. On the way, one of its backbones turns matrix products of the
whole process to lower precision (terratorch/models/backbones/clay_v15/model.py), Lightning replaces the format of
warnings, and ten environment variables, a dozen warning filters and handlers of other packages' loggers appear. All
of that is put back. What cannot be: modules stay loaded, and their `atexit` calls and import hooks stay registered.
"""

import importlib
import logging
import os
import random
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rs_embed import redact
from rs_embed.core.optional import require
from rs_embed.core.progress import announce
from rs_embed.errors import MissingDependency, RSEmbedWarning, warn

if TYPE_CHECKING:
    from torch import nn
    from torch.library import Library

LOG = redact.logger(__name__)
EXTRA = "terratorch"
OWN_PACKAGES = ("rasterio", "huggingface_hub", "requests")
"""Packages of the base install that set up loggers for good; imported before the state of the process is noted."""
REINSTALL = "uv pip install --reinstall --torch-backend=auto torch torchvision"
_LOCK = threading.RLock()
_KEPT: "list[Library]" = []
"""Operators defined here live as long as the object that defined them."""


class Registry(Protocol):
    """What we use of TerraTorch's registries."""

    def build(self, name: str, *arguments: object, **options: object) -> "nn.Module":
        """Make the model of that name."""
        ...

    def __contains__(self, name: object) -> bool:
        """Whether there is one of that name."""
        ...


class BackboneSource(Registry, Protocol):
    """The part of the backbone registry that is TerraTorch's own, where models can be added."""

    def register(self, constructor: "Callable[..., nn.Module]") -> "Callable[..., nn.Module]":
        """Add a model under the name of the function that makes it."""
        ...


@dataclass(frozen=True)
class TerraTorch:
    """What `load_terratorch` gives; everything else is imported from `terratorch` after it."""

    version: str
    backbones: Registry
    """`BACKBONE_REGISTRY`."""
    own_backbones: BackboneSource
    """`TERRATORCH_BACKBONE_REGISTRY`: the names without a prefix."""
    full_models: Registry
    """`FULL_MODEL_REGISTRY`: generation and tokenizers."""


def load_terratorch() -> TerraTorch:
    """TerraTorch, imported now if it was not yet.

    Raises:
        MissingDependency: It, or a package that it needs, is not installed.

    Warns:
        RSEmbedWarning: torch and torchvision were built for different devices; worked around.
    """
    require("terratorch", EXTRA)
    with _LOCK:
        if "terratorch" not in sys.modules:
            _mend_torchvision()
            with leaving_no_trace():
                announce(LOG, "Loading TerraTorch and some 140 packages: 10 to 40 s, once.")
                _import("terratorch")
        from terratorch.registry import BACKBONE_REGISTRY, FULL_MODEL_REGISTRY, TERRATORCH_BACKBONE_REGISTRY

    return TerraTorch(version("terratorch"), BACKBONE_REGISTRY, TERRATORCH_BACKBONE_REGISTRY, FULL_MODEL_REGISTRY)


@contextmanager
def leaving_no_trace() -> Iterator[None]:
    """Put back what the block changes of the process, and keep its warnings quiet.

    That is: environment, warnings, loggers that there were, precision of matrix products, and the random numbers of
    Python, numpy and torch. For the import, and for building its models: one thread at a time, others wait.
    """
    with _LOCK:
        for name in OWN_PACKAGES:
            if find_spec(name) is not None:
                importlib.import_module(name)
        undo = [_environment(), _loggers(), _numbers()]
        formatwarning = warnings.formatwarning
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            warnings.formatwarning = formatwarning
            for put_back in undo:
                put_back()


def _environment() -> Callable[[], None]:
    before = dict(os.environ)

    def put_back() -> None:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        for name, value in before.items():
            if os.environ.get(name) != value:
                os.environ[name] = value

    return put_back


def _loggers() -> Callable[[], None]:
    logging.getLogger("urllib3")  # the client of one package adds a handler to it, whoever else uses it
    there = [logger for logger in logging.root.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
    states = [
        (logger, logger.level, logger.handlers[:], logger.filters[:], logger.propagate, logger.disabled)
        for logger in (logging.root, *there)
    ]
    limit = logging.root.manager.disable

    def put_back() -> None:
        for logger, level, handlers, filters, propagate, disabled in states:
            if logger.level != level:
                logger.setLevel(level)
            logger.handlers[:], logger.filters[:] = handlers, filters
            logger.propagate, logger.disabled = propagate, disabled
        logging.disable(limit)

    return put_back


def _numbers() -> Callable[[], None]:
    import numpy as np
    import torch

    precision = torch.get_float32_matmul_precision()
    python, numpy, torch_cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()

    def put_back() -> None:
        torch.set_float32_matmul_precision(precision)
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(torch_cpu)

    return put_back


def _import(name: str) -> None:
    """Import a package that is installed.

    Raises:
        MissingDependency: Another package, which it needs, is not.
    """
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"Expected to import {name}, got no module {error.name!r}, which it needs.",
            fix=f"pip install 'eo-rs-embed[{EXTRA}]'",
        ) from error


def _mend_torchvision() -> None:
    """Let torchvision import where its compiled part does not load, as of a CUDA build beside a CPU torch.

    It would fail with "operator torchvision::nms does not exist". Models need none of its compiled operators, but
    the names that it describes without asking must exist. A failed import spoils the next, so this comes first.

    Source: torchvision/_meta_registrations.py (pytorch/vision#9085).
    """
    spec = find_spec("torchvision")
    if "torchvision" in sys.modules or spec is None or spec.origin is None:
        return
    import torch

    folder = Path(spec.origin).parent
    if any(_loads(library) for library in sorted((*folder.glob("_C*.so"), *folder.glob("_C*.pyd")))):
        return
    described = (folder / "_meta_registrations.py").read_text(encoding="utf-8")
    library = torch.library.Library("torchvision", "DEF")
    for name in re.findall(r'register_fake\("torchvision::(\w+)"\)', described):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _KEPT.append(library)
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU alone"
    warn(
        f"torchvision {_build_of(folder)} does not load beside torch {torch.__version__}, built for {build}; models "
        f"work without its operators, but to mend it run: {REINSTALL}",
        RSEmbedWarning,
    )


def _build_of(torchvision: Path) -> str:
    """With the device that it was built for, which the package's metadata lacks."""
    told = re.search(r"__version__ = '([^']+)'", (torchvision / "version.py").read_text(encoding="utf-8"))
    return told[1] if told else version("torchvision")


def _loads(library: Path) -> bool:
    import torch

    try:
        torch.ops.load_library(library)
    except (OSError, ImportError):
        return False
    return True
