"""Where vectors come from: what must be equal for a head to understand them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Literal, Self

from pydantic import JsonValue

from rs_embed.core.geo import pixel_size_m
from rs_embed.embedding.embedding import Embedding
from rs_embed.embedding.meta import Meta
from rs_embed.errors import SpecError

if TYPE_CHECKING:
    from rs_embed.exports.results.embedding_map import EmbeddingMap

NOT_NUMBERS = frozenset({"fetch_workers", "ckpt", "min_valid_fraction", "min_token_valid"})
"""Knobs that change no vector, or that the hash of the weights covers."""
_RELATIVE = 0.01
"""Largest relative difference of lengths that are equal: grids of other CRSs are a little larger or smaller."""
_SAID: Mapping[str, str] = {
    "model_id": "model",
    "card_revision": "revision of the model",
    "dim": "length of the vectors",
    "bands": "bands",
    "pixel_m": "pixel size that the model sees, metres",
    "token_m": "side of a token, metres",
    "debiased": "position offsets subtracted",
}
"""Field -> what a message calls it, if that is not its name."""
_FIXES: Mapping[str, str] = {
    "output": "use output=OutputSpec.grid() for a head of tokens, OutputSpec.pooled() for one of pooled vectors",
    "pixel_m": 'compute the embedding with input_prep="tile", which keeps the pixel size',
    "debiased": 'compute grids with OutputSpec.grid(debias="position"), as maps of regions are by default',
    "weights": "use the same weights, or fit the head again",
}


@dataclass(frozen=True)
class VectorOrigin:
    """What made some vectors. `None` means that it is not recorded; it then agrees with anything."""

    model_id: str
    card_revision: int
    weights: str | None
    """Identity of the weights, as in `Meta.weights`."""
    dim: int
    output: Literal["pooled", "grid"]
    """Pooled vectors of places, or tokens of grids."""
    knobs: Mapping[str, JsonValue]
    """The knobs that change vectors."""
    pooling: str | None = None
    """How tokens were pooled; `None` for tokens of grids."""
    collections: tuple[str, ...] | None = None
    """Collections of the imagery."""
    bands: tuple[str, ...] | None = None
    """Bands of the imagery, in the order of the model's input."""
    pixel_m: float | None = None
    """Size of a pixel as the model sees it, metres; `None` if places differ."""
    token_m: float | None = None
    """Side of a token, metres; `None` for pooled vectors."""
    debiased: bool | None = None
    """Whether the part of tokens that depends on their position in the window was subtracted; `None` if there is none.
    """
    weights_note: str | None = None
    """The remark on the weights that the run recorded."""
    licence: str | None = None
    """Licence of the weights."""

    @classmethod
    def of_meta(cls, meta: Meta, dim: int, token_m: float | None = None) -> Self:
        """Return the origin of an embedding that has these metadata."""
        return cls(
            model_id=meta.model_id,
            card_revision=meta.card_revision,
            weights=meta.weights,
            dim=dim,
            output=meta.output,
            knobs=_knobs(meta.knobs),
            pooling=meta.pooling,
            collections=tuple(dict.fromkeys(one.collection for one in meta.inputs)),
            bands=tuple(f"{one.modality}:{band}" for one in meta.inputs for band in one.bands),
            pixel_m=meta.gsd_m,
            token_m=token_m,
            debiased=_debiased(meta),
            weights_note=meta.weights_note,
            licence=meta.licence,
        )

    @classmethod
    def of(cls, embedding: Embedding) -> Self:
        """Return the origin of an embedding."""
        box = embedding.geobox if embedding.is_grid else None
        return cls.of_meta(embedding.meta, embedding.data.shape[0], None if box is None else pixel_size_m(box))

    @classmethod
    def of_map(cls, region: "EmbeddingMap") -> Self:
        """Return the origin of the tokens of a region; maps do not record all of it."""
        header = region.header
        knobs, debiased, bands = (header.extra.get(name) for name in ("knobs", "debiased", "bands"))
        return cls(
            model_id=header.model_id,
            card_revision=header.card_revision,
            weights=header.weights,
            dim=region.dim,
            output="grid",
            knobs=_knobs(knobs if isinstance(knobs, dict) else {}),
            collections=header.source_data,
            bands=tuple(map(str, bands)) if isinstance(bands, list) else None,
            pixel_m=header.gsd_m,
            token_m=region.cell_m,
            debiased=debiased if isinstance(debiased, bool) else None,
            weights_note=header.weights_note,
            licence=header.licence,
        )

    def joined(self, other: "VectorOrigin") -> "VectorOrigin":
        """Return the origin of vectors of one call together with another's: pooled vectors may differ in pixel size.

        Raises:
            SpecError: They differ in anything else.
        """
        differ = self.output == "pooled" and not _same(self.pixel_m, other.pixel_m)
        found = replace(self, pixel_m=None) if differ else self
        found.require(other)
        return found

    @property
    def warning(self) -> str | None:
        """The note to display wherever results are shown: that the weights are random, else `None`."""
        random = (self.weights or "").startswith("random:")
        return (self.weights_note or "random weights") if random else None

    def require(self, other: "VectorOrigin") -> None:
        """Check that other vectors have the same origin.

        Raises:
            SpecError: They have not; the error names every fact that differs, of another model only its name.
        """
        wrong = self.differences(other)
        if not wrong:
            return
        first, mine, theirs = wrong[0]
        rest = [] if first == "model_id" else wrong[1:]  # another model differs in everything
        facts = {name: f"{theirs}, not {mine}" for name, mine, theirs in rest}
        said = _SAID.get(first, first)
        raise SpecError(
            f"Expected vectors of the same origin as the head's, got another {said}: {theirs}, not {mine}.",
            **{_SAID.get(name, name): text for name, text in facts.items()},
            fix=_FIXES.get(first, "compute them as those that the head was trained on, or fit another head"),
        )

    def differences(self, other: "VectorOrigin") -> list[tuple[str, object, object]]:
        """Return the facts that differ: name, this value, the other value."""
        names = [one.name for one in fields(self) if one.name not in ("knobs", "weights_note", "licence")]
        facts = [(name, vars(self)[name], vars(other)[name]) for name in names]
        knobs = [
            (f"knob {name}", self.knobs.get(name), other.knobs.get(name)) for name in {**self.knobs, **other.knobs}
        ]
        return [fact for fact in facts if not _same(*fact[1:])] + [fact for fact in knobs if fact[1] != fact[2]]


def _same(mine: object, theirs: object) -> bool:
    if isinstance(mine, float) and isinstance(theirs, float):
        return abs(mine - theirs) <= _RELATIVE * max(abs(mine), abs(theirs))
    return mine is None or theirs is None or mine == theirs


def _knobs(given: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the knobs that change vectors; one that is not set is as one that did not exist yet."""
    plain: dict[str, JsonValue] = json.loads(json.dumps(given))
    return {name: value for name, value in plain.items() if name not in NOT_NUMBERS and value is not None}


def _debiased(meta: Meta) -> bool | None:
    if not meta.placed or (meta.debias is not None and meta.debias.windows == 0):
        return None
    return meta.debias is not None
