"""The engines that run the units of an export: this process ("local") or a Ray cluster ("ray")."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, get_args

from rs_embed.core.checks import require_choice
from rs_embed.core.optional import require
from rs_embed.errors import SpecError

if TYPE_CHECKING:
    from rs_embed.exports.engines.base import Executor, Order

EngineName = Literal["local", "ray"]


def check_engine(engine: EngineName, address: str | None) -> None:
    """Refuse an invalid choice of engine.

    Raises:
        SpecError: There is no such engine, or it takes no address.
        MissingDependency: The extra `ray` is not installed.
    """
    require_choice("engine", engine, get_args(EngineName))
    if engine == "ray":
        require("ray", "ray")
    elif address is not None:
        raise SpecError(f"Expected no address for the local engine, got {address!r}.", fix='add engine="ray"')


@contextmanager
def open_executor(engine: EngineName, address: str | None, order: "Order") -> "Iterator[Executor]":
    """Open the executor of an engine; whatever it started is stopped afterwards.

    Args:
        engine: "local" or "ray".
        address: Address of a Ray cluster; see `rs_embed.exports.engines.ray.cluster.connected`.
        order: What to do.

    Raises:
        EngineError: The cluster cannot be reached, or has too few resources.
    """
    check_engine(engine, address)
    if engine == "local":
        from rs_embed.exports.engines.local import LocalExecutor

        yield LocalExecutor(order)
        return
    from rs_embed.exports.engines.ray.engine import ray_executor  # here, because Ray is slow to import

    with ray_executor(address, order) as executor:
        yield executor
