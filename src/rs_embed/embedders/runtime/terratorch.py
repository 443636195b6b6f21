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
"""Packages of the base install that set up loggers for good; imported before the state of the process is noted."""
REINSTALL = "uv pip install --reinstall --torch-backend=auto torch torchvision"
_LOCK = threading.RLock()


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
        MissingDependency: It, or a package that it needs, is not installed; or torchvision is for another device.
    """
    require("terratorch", EXTRA)
    with _LOCK:
        if "terratorch" not in sys.modules:
            with leaving_no_trace():
                announce(LOG, "Loading TerraTorch and some 140 packages: 10 to 40 s, once.")
                _require_torchvision()
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


def _require_torchvision() -> None:
    """Import torchvision, which TerraTorch needs, by itself: what it says of a torch for another device helps nobody.

    Raises:
        MissingDependency: It does not load beside this torch.
    """
    import torch

    if find_spec("torchvision") is None:  # then importing TerraTorch says so
        return
    try:
        importlib.import_module("torchvision")
    except (RuntimeError, ImportError, AttributeError, OSError) as error:  # "operator torchvision::nms does not exist"
        raise MissingDependency(
            f"Expected a torchvision that loads beside torch {torch.__version__}, got {version('torchvision')}.",
            found=f"{type(error).__name__}: {error}",
            fix=REINSTALL,
        ) from error
