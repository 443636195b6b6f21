"""Places to vectors as a step of a scikit-learn pipeline."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from rs_embed.api import get_embeddings
from rs_embed.core.checks import require_choice
from rs_embed.core.optional import require
from rs_embed.core.specs import InputPrep, OutputSpec, Pooling, Precision
from rs_embed.embedders.card import ModelCard
from rs_embed.pipeline.request import AcceptLicence, Backend, Bands, EmbeddingRequest, KnobValue, Modalities, Sensors
from rs_embed.plan import Plan

require("sklearn", "ml")

from sklearn.base import BaseEstimator, TransformerMixin  # noqa: E402
from sklearn.utils.validation import check_is_fitted  # noqa: E402

if TYPE_CHECKING:
    from sklearn.utils import Tags

    from rs_embed.places import Given, Temporal

OnFailure = Literal["raise", "nan"]


class Embedder(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A scikit-learn transformer from places to vectors `[N, D]`, for the first step of a `Pipeline`.

    Its input is a table of places, not a matrix of numbers: a DataFrame, a GeoDataFrame, a list or an array of (lon,
    lat), a list of specs. Columns that describe no place are ignored. Nothing is learnt from the places or from `y`:
    the vector of a place does not depend on the other rows, so embedding all rows before a cross-validation leaks
    nothing, and costs one pass instead of one per fold.

    Arguments are kept as they are, and checked in `fit`.

    Args:
        model_id: Id or alias from the catalogue, or a card.
        temporal: One window for all places, if the table has no dates.
        pooling: How tokens become a vector: "mean" or "max".
        backend: Source of the imagery, as for `get_embeddings`.
        buffer_m: Half the side of the square around points, metres, or the name of the column that holds it.
        on_error: What to do about places that fail: "raise", or "nan" for a row of NaN.
        knobs: Settings of the model by name: `{"patch_size": 4}`.
        progress: Show a progress bar on a terminal or in a notebook.

    The other arguments are those of `get_embedding`.

    Attributes:
        n_features_out_: Length of a vector, D.
        model_id_: Id of the model in the catalogue.
    """

    def __init__(
        self,
        model_id: str | ModelCard = "mosaiks_rcf",
        *,
        temporal: "Temporal" = None,
        pooling: Pooling = "mean",
        backend: Backend = "auto",
        buffer_m: float | str | None = None,
        on_error: OnFailure = "raise",
        sensor: Sensors = None,
        modality: Modalities = None,
        bands: Bands = None,
        input_prep: InputPrep = "auto",
        device: str = "auto",
        precision: Precision = "fp32",
        accept_licence: AcceptLicence = None,
        knobs: Mapping[str, KnobValue] | None = None,
        progress: bool = True,
    ) -> None:
        self.model_id = model_id
        self.temporal = temporal
        self.pooling = pooling
        self.backend = backend
        self.buffer_m = buffer_m
        self.on_error = on_error
        self.sensor = sensor
        self.modality = modality
        self.bands = bands
        self.input_prep = input_prep
        self.device = device
        self.precision = precision
        self.accept_licence = accept_licence
        self.knobs = knobs
        self.progress = progress

    def fit(self, X: "Given", y: object = None) -> Self:  # noqa: N803  (the names of scikit-learn)
        """Check the arguments and the backend. Loads no weights, fetches nothing, and ignores places and `y`.

        Raises:
            RSEmbedError: The model, an argument or the backend is invalid.
        """
        require_choice("on_error", self.on_error, get_args(OnFailure))
        options = self.get_params(deep=False)
        of_request = {name: options[name] for name in options if name in EmbeddingRequest.model_fields}
        of_request |= {"output": OutputSpec.pooled(self.pooling), "knobs": self.knobs or {}}
        plan = Plan.laid(EmbeddingRequest(**of_request), [], [])
        self.n_features_out_: int = plan.job.embedder.readout.width(plan.request.output)
        self.model_id_: str = plan.model.card.id
        return self

    def transform(self, X: "Given") -> NDArray[np.float32]:  # noqa: N803
        """Embed the places, in their order.

        Returns:
            float32 `[N, D]`; a DataFrame with the index of the table after `set_output(transform="pandas")`.

        Raises:
            BatchError: Some places failed, and `on_error` is "raise".
            SpecError: It is not a table of places.
        """
        check_is_fitted(self)
        options = self.get_params(deep=False)
        pooling, knobs = options.pop("pooling"), options.pop("knobs") or {}
        options["on_error"] = "keep" if self.on_error == "nan" else "raise"
        found = get_embeddings(places=X, output=OutputSpec.pooled(pooling), **options, **knobs)
        if len(found.failures) == len(found):
            return np.full((len(found), self.n_features_out_), np.nan, np.float32)
        vectors: NDArray[np.float32] = found.stack()
        return vectors

    def get_feature_names_out(self, input_features: object = None) -> NDArray[np.object_]:
        """Return the names of the columns: the id of the model and the number of the dimension."""
        check_is_fitted(self)
        return np.array([f"{self.model_id_}_{number}" for number in range(self.n_features_out_)], object)

    def __sklearn_tags__(self) -> "Tags":
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False  # places, not a matrix of numbers
        tags.no_validation = True
        return tags
