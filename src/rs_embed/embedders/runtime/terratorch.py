"""Import TerraTorch: on first use, with a log line, and without side effects on the process.

The import takes 10 to 40 s and loads some 140 packages. On the way, one backbone lowers the precision of matrix
products for the whole process (terratorch/models/backbones/clay_v15/model.py), Lightning replaces the format of
warnings, and ten environment variables, a dozen warning filters and handlers of other packages' loggers are added. All
of this is undone. What remains: modules stay loaded, and their `atexit` calls and import hooks stay registered.
"""

import importlib
import logging
import os
import random
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

from rs_embed import redact
from rs_embed.core.optional import require
from rs_embed.core.progress import announce
from rs_embed.errors import MissingDependency

if TYPE_CHECKING:
    from torch import nn

LOG = redact.logger(__name__)
EXTRA = "terratorch"
OWN_PACKAGES = ("rasterio", "huggingface_hub", "requests")
"""Packages of the base install that set up loggers permanently; imported before the state of the process is saved."""
REINSTALL = "uv pip install --reinstall --torch-backend=auto torch torchvision"
_LOCK = threading.RLock()


class Registry(Protocol):
    """The part of TerraTorch's registries that is used here."""

    def build(self, name: str, *arguments: object, **options: object) -> "nn.Module":
        """Build the model with a name."""
        ...

    def __contains__(self, name: object) -> bool:
        """Return whether a model has this name."""
        ...


class BackboneSource(Registry, Protocol):
    """TerraTorch's own part of the backbone registry, to which models can be added."""

    def register(self, constructor: "Callable[..., nn.Module]") -> "Callable[..., nn.Module]":
        """Add a model under the name of its constructor function."""
        ...


@dataclass(frozen=True)
class TerraTorch:
    """The result of `load_terratorch`; import everything else from `terratorch` after calling it."""

    version: str
    backbones: Registry
    """`BACKBONE_REGISTRY`."""
    own_backbones: BackboneSource
    """`TERRATORCH_BACKBONE_REGISTRY`, with names without a prefix."""
    full_models: Registry
    """`FULL_MODEL_REGISTRY`: generation and tokenizers."""


def load_terratorch() -> TerraTorch:
    """Import TerraTorch if necessary, and return its registries.

    Raises:
        MissingDependency: TerraTorch or one of its dependencies is not installed, or torchvision does not fit torch.
    """
    require("terratorch", EXTRA)
    with _LOCK:
        if "terratorch" not in sys.modules:
            with leaving_no_trace():
                announce(LOG, "Loading TerraTorch and some 140 packages; this takes 10 to 40 s, once.")
                _require_torchvision()
                _import("terratorch")
        from terratorch.registry import BACKBONE_REGISTRY, FULL_MODEL_REGISTRY, TERRATORCH_BACKBONE_REGISTRY

    return TerraTorch(version("terratorch"), BACKBONE_REGISTRY, TERRATORCH_BACKBONE_REGISTRY, FULL_MODEL_REGISTRY)


@contextmanager
def leaving_no_trace() -> Iterator[None]:
    """Undo what the block changes in the process, and silence its warnings.

    This covers the environment, warnings, existing loggers, the precision of matrix products, and the random number
    generators of Python, numpy and torch. Use it to import TerraTorch and to build its models. Only one thread at a
    time can be inside.
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
    logging.getLogger("urllib3")  # one package adds a handler to this shared logger
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
    """Import an installed package.

    Raises:
        MissingDependency: One of its dependencies is not installed.
    """
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"Expected the module {error.name!r}, which {name} needs, but it is not installed.",
            fix=f"run `pip install 'eo-rs-embed[{EXTRA}]'`",
        ) from error


def _require_torchvision() -> None:
    """Import torchvision before TerraTorch, to give a clear error if it was built for another torch.

    Raises:
        MissingDependency: torchvision does not load with the installed torch.
    """
    import torch

    if find_spec("torchvision") is None:  # importing TerraTorch then raises the error
        return
    try:
        importlib.import_module("torchvision")
    except (RuntimeError, ImportError, AttributeError, OSError) as error:  # "operator torchvision::nms does not exist"
        raise MissingDependency(
            f"Expected a torchvision that works with torch {torch.__version__}, got {version('torchvision')}.",
            found=f"{type(error).__name__}: {error}",
            fix=REINSTALL,
        ) from error
