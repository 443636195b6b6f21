"""rs_embed: the embedding of any Earth observation foundation model, for any place and time, in one call.

>>> from rs_embed import OutputSpec, PointBuffer, get_embedding
>>> emb = get_embedding("mosaiks_rcf", spatial=PointBuffer(lon=12.94, lat=47.77, buffer_m=800), backend="sample")
>>> emb.data.shape
(1024,)

Names load on first use: importing the package imports neither torch, nor rasterio, nor Earth Engine.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rs_embed.api import (
        describe_model as describe_model,
    )
    from rs_embed.api import (
        get_embedding as get_embedding,
    )
    from rs_embed.api import (
        get_embeddings as get_embeddings,
    )
    from rs_embed.api import (
        inspect_chip as inspect_chip,
    )
    from rs_embed.api import (
        list_models as list_models,
    )
    from rs_embed.api import (
        plan_embedding as plan_embedding,
    )
    from rs_embed.core.bands import Band as Band
    from rs_embed.core.bands import Collection as Collection
    from rs_embed.core.bands import Limit as Limit
    from rs_embed.core.bands import Unit as Unit
    from rs_embed.core.bands import register_collection as register_collection
    from rs_embed.core.bands import register_unit as register_unit
    from rs_embed.core.chip import Chip as Chip
    from rs_embed.core.geo import geobox_for as geobox_for
    from rs_embed.core.specs import (
        BBox as BBox,
    )
    from rs_embed.core.specs import (
        GridBlock as GridBlock,
    )
    from rs_embed.core.specs import (
        OutputSpec as OutputSpec,
    )
    from rs_embed.core.specs import (
        PointBuffer as PointBuffer,
    )
    from rs_embed.core.specs import (
        Region as Region,
    )
    from rs_embed.core.specs import (
        SensorSpec as SensorSpec,
    )
    from rs_embed.core.specs import (
        TemporalSpec as TemporalSpec,
    )
    from rs_embed.embedders.banks import load_mosaiks as load_mosaiks
    from rs_embed.embedders.card import ModelCard as ModelCard
    from rs_embed.embedders.catalog import register_model as register_model
    from rs_embed.embedders.runtime.kept import release_models as release_models
    from rs_embed.embedders.statistics import save_statistics as save_statistics
    from rs_embed.embedding.embedding import Embedding as Embedding
    from rs_embed.embedding.meta import Meta as Meta
    from rs_embed.exports.call import export_embeddings as export_embeddings
    from rs_embed.exports.rasters import raster_places as raster_places
    from rs_embed.exports.region.call import embed_region as embed_region
    from rs_embed.exports.results.compact import compact_run as compact_run
    from rs_embed.exports.results.embedding_map import EmbeddingMap as EmbeddingMap
    from rs_embed.exports.results.open_region import open_region as open_region
    from rs_embed.exports.results.run import download_run as download_run
    from rs_embed.exports.results.run import open_run as open_run
    from rs_embed.exports.results.verify import verify_run as verify_run
    from rs_embed.exports.status import retry_export as retry_export
    from rs_embed.exports.status import run_status as run_status
    from rs_embed.fitting import fit_mosaiks as fit_mosaiks
    from rs_embed.formats.files import FileFormat as FileFormat
    from rs_embed.formats.files import register_format as register_format
    from rs_embed.generation import Generated as Generated
    from rs_embed.generation import GeneratedRaster as GeneratedRaster
    from rs_embed.generation import Tokenized as Tokenized
    from rs_embed.generation import detokenize as detokenize
    from rs_embed.generation import generate as generate
    from rs_embed.generation import tokenize as tokenize
    from rs_embed.learning.bridges.sklearn import Embedder as Embedder
    from rs_embed.learning.bridges.torch_dataset import RegionDataset as RegionDataset
    from rs_embed.learning.bridges.torch_dataset import RunDataset as RunDataset
    from rs_embed.learning.change import Change as Change
    from rs_embed.learning.change import detect_change as detect_change
    from rs_embed.learning.class_map import ClassMap as ClassMap
    from rs_embed.learning.evaluate import evaluate as evaluate
    from rs_embed.learning.evaluation import Evaluation as Evaluation
    from rs_embed.learning.fit import fit as fit
    from rs_embed.learning.head import Head as Head
    from rs_embed.learning.head import load_head as load_head
    from rs_embed.learning.labels import Labels as Labels
    from rs_embed.learning.labels import read_labels as read_labels
    from rs_embed.learning.suggest import suggest_labels as suggest_labels
    from rs_embed.pipeline.inspect import ChipReport as ChipReport
    from rs_embed.pipeline.request import EmbeddingRequest as EmbeddingRequest
    from rs_embed.places import read_places as read_places
    from rs_embed.plan import Plan as Plan
    from rs_embed.providers.earthengine.provider import EarthEngine as EarthEngine
    from rs_embed.providers.published.provider import PublishedEmbeddings as PublishedEmbeddings
    from rs_embed.providers.rasters.folder import RasterFolder as RasterFolder
    from rs_embed.providers.rasters.local import LocalRasters as LocalRasters
    from rs_embed.providers.rasters.local import Raster as Raster
    from rs_embed.providers.stac.provider import Access as Access
    from rs_embed.providers.stac.provider import OpenAccess as OpenAccess
    from rs_embed.providers.stac.provider import Opened as Opened
    from rs_embed.providers.stac.provider import S3Access as S3Access
    from rs_embed.providers.stac.provider import Stac as Stac
    from rs_embed.providers.stac.provider import StacCatalog as StacCatalog
    from rs_embed.providers.stac.provider import StacCollection as StacCollection
    from rs_embed.recommend import recommend_model as recommend_model

__version__ = "0.2.0"

_HOME = {
    "ChipReport": "pipeline.inspect",
    "describe_model": "api",
    "get_embedding": "api",
    "get_embeddings": "api",
    "inspect_chip": "api",
    "list_models": "api",
    "plan_embedding": "api",
    "Band": "core.bands",
    "Collection": "core.bands",
    "Limit": "core.bands",
    "Unit": "core.bands",
    "register_collection": "core.bands",
    "register_unit": "core.bands",
    "Chip": "core.chip",
    "compact_run": "exports.results.compact",
    "embed_region": "exports.region.call",
    "verify_run": "exports.results.verify",
    "fit_mosaiks": "fitting",
    "load_mosaiks": "embedders.banks",
    "ModelCard": "embedders.card",
    "register_model": "embedders.catalog",
    "release_models": "embedders.runtime.kept",
    "save_statistics": "embedders.statistics",
    "export_embeddings": "exports.call",
    "raster_places": "exports.rasters",
    "retry_export": "exports.status",
    "run_status": "exports.status",
    "EmbeddingMap": "exports.results.embedding_map",
    "open_region": "exports.results.open_region",
    "download_run": "exports.results.run",
    "open_run": "exports.results.run",
    "FileFormat": "formats.files",
    "register_format": "formats.files",
    "Embedding": "embedding.embedding",
    "Meta": "embedding.meta",
    "Generated": "generation",
    "GeneratedRaster": "generation",
    "Tokenized": "generation",
    "detokenize": "generation",
    "generate": "generation",
    "tokenize": "generation",
    "Change": "learning.change",
    "detect_change": "learning.change",
    "Embedder": "learning.bridges.sklearn",
    "RegionDataset": "learning.bridges.torch_dataset",
    "RunDataset": "learning.bridges.torch_dataset",
    "Evaluation": "learning.evaluation",
    "Labels": "learning.labels",
    "evaluate": "learning.evaluate",
    "read_labels": "learning.labels",
    "geobox_for": "core.geo",
    "ClassMap": "learning.class_map",
    "fit": "learning.fit",
    "Head": "learning.head",
    "load_head": "learning.head",
    "suggest_labels": "learning.suggest",
    "EmbeddingRequest": "pipeline.request",
    "Plan": "plan",
    "read_places": "places",
    "recommend_model": "recommend",
    "EarthEngine": "providers.earthengine.provider",
    "PublishedEmbeddings": "providers.published.provider",
    "RasterFolder": "providers.rasters.folder",
    "LocalRasters": "providers.rasters.local",
    "Raster": "providers.rasters.local",
    "Access": "providers.stac.provider",
    "OpenAccess": "providers.stac.provider",
    "Opened": "providers.stac.provider",
    "S3Access": "providers.stac.provider",
    "Stac": "providers.stac.provider",
    "StacCatalog": "providers.stac.provider",
    "StacCollection": "providers.stac.provider",
    "BBox": "core.specs",
    "GridBlock": "core.specs",
    "OutputSpec": "core.specs",
    "PointBuffer": "core.specs",
    "Region": "core.specs",
    "SensorSpec": "core.specs",
    "TemporalSpec": "core.specs",
}
__all__ = ["__version__", *_HOME]  # noqa: PLE0604


def __getattr__(name: str) -> object:
    """Load a public name from its module on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'rs_embed' has no attribute {name!r}")
    value: object = vars(import_module(f"rs_embed.{_HOME[name]}"))[name]
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names, loaded or not."""
    return sorted(__all__)
