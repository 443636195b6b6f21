"""Build the documentation site: `python scripts/site_pages.py FOLDER`; without a folder it is only checked.

Pages are written for readers of the repository. For the site they are laid into one folder, with the notebooks and the
reference, and their links are turned: to pages that the site has; those to source files become plain text.
"""

import ast
import inspect
import logging
import posixpath
import re
import shutil
import sys
import tempfile
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from griffe import Extension, Function, Module, get_expression
from mkdocs.commands.build import build
from mkdocs.config import load_config

import rs_embed

ROOT = Path(__file__).parents[1]
ELSEWHERE = {
    "README.md": "readme.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "GOVERNANCE.md": "governance.md",
    "SECURITY.md": "security.md",
    "THIRD_PARTY.md": "third_party.md",
    "benchmarks/RESULTS.md": "results.md",
}
"""File of the repository -> page."""
BESIDE = (
    *("docs/**/*.md", "docs/**/*.png", "docs/assets/*", "docs/models/zoo.*"),
    *("benchmarks/*.png", "notebooks/**/[0-9]*.ipynb"),
)
"""What keeps its name, but for the folder `docs`."""
REFERENCE = {
    "Embeddings": (
        *("get_embedding", "get_embeddings", "Embedding", "Meta", "plan_embedding", "Plan", "EmbeddingRequest"),
        *("inspect_chip", "ChipReport"),
    ),
    "Places, times, outputs": (
        *("PointBuffer", "BBox", "GridBlock", "Region", "TemporalSpec", "OutputSpec", "read_places", "geobox_for"),
    ),
    "Models": (
        *(
            "list_models",
            "describe_model",
            "recommend_model",
            "ModelCard",
            "register_model",
            "release_models",
            "save_statistics",
        ),
        *("fit_mosaiks", "load_mosaiks"),
    ),
    "Imagery": (
        *("SensorSpec", "EarthEngine", "PublishedEmbeddings", "Stac", "StacCatalog", "StacCollection", "Access"),
        *("OpenAccess", "S3Access"),
        *("Opened", "LocalRasters", "RasterFolder", "Raster", "Chip", "Collection", "Band", "Unit", "Limit"),
        *("register_collection", "register_unit"),
    ),
    "Exports": (
        *("export_embeddings", "retry_export", "run_status", "open_run", "download_run", "verify_run", "compact_run"),
        *("raster_places", "FileFormat", "register_format"),
    ),
    "Regions": ("embed_region", "open_region", "EmbeddingMap"),
    "Learning": (
        *("evaluate", "Evaluation", "read_labels", "Labels"),
        *("fit", "Head", "load_head", "ClassMap", "suggest_labels"),
        *("detect_change", "Change", "Embedder", "RunDataset", "RegionDataset"),
    ),
    "Generation": ("generate", "Generated", "GeneratedRaster", "tokenize", "detokenize", "Tokenized"),
}
"""Page -> the public names on it. `references` checks that each is on one."""
BESIDES = {
    "Embeddings": (
        *("embedding.batch.Embeddings", "errors.Failure", "errors.BatchError", "explore.widget.PageWidget"),
    ),
    "Places, times, outputs": ("places.columns.Places", "places.columns.Place"),
    "Models": ("embedders.describe.ModelDescription", "recommend.Recommendations", "recommend.ModelAdvice"),
    "Imagery": ("providers.base.Provider", "providers.base.Query"),
    "Exports": (
        *("exports.call.ExportReport", "exports.results.run.Run", "exports.status.RunStatus"),
        *("exports.results.verify.VerifyReport", "exports.results.compact.CompactReport"),
    ),
    "Learning": (
        *("learning.evaluation.Scored", "learning.scores.Interval", "learning.folds.Folds"),
        *("learning.change.Threshold", "xarray.EmbeddingArray"),
    ),
    "Types of arguments": (
        *("places.single.Single", "places.reading.Given", "embedding.points.Points", "pipeline.request.Backend"),
        *("pipeline.request.Sensors", "pipeline.request.Modalities", "pipeline.request.Bands", "plan.InputArrays"),
        *("plan.Dates", "plan.Units", "pipeline.request.KnobValue", "core.specs.InputPrep", "core.specs.Precision"),
        *("core.specs.Composite", "core.specs.CloudMask", "places.days.Temporal", "places.naming.Column"),
        *("exports.request.Models", "formats.base.Dtype", "exports.work.OnError", "exports.engines.EngineName"),
    ),
}
"""Page -> what the calls on it take and return, by module."""
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")

_LOADED = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=[\"']?(https?:[^\"'\s>]+)")

_MARKED_FENCE = re.compile(r"^(```\w+) \S+$", re.MULTILINE)
"""What our tests read after the language of a block."""


class Signatures(Extension):
    """What a reader of the source cannot see."""

    def on_package(self, *, pkg: Module, **_: object) -> None:
        """`get_embedding` takes what `plan_embedding` takes; types of arguments in quotes are types."""
        call, plan = pkg["api.get_embedding"], pkg["api.plan_embedding"]
        if isinstance(call, Function) and isinstance(plan, Function):
            call.parameters = plan.parameters
        for path in BESIDES["Types of arguments"]:
            alias = pkg[path]
            with suppress(AttributeError, ValueError):
                text = ast.literal_eval(str(alias.value))
                alias.value = get_expression(ast.parse(f"({text})", mode="eval").body, parent=alias.parent)


def main(folder: str | None = None) -> int:
    """Build it, strictly: no link may be dead, no page left out of the navigation, nothing loaded from elsewhere."""
    with tempfile.TemporaryDirectory() as staged, tempfile.TemporaryDirectory() as checked:
        lay_out(Path(staged))
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        config = load_config(str(ROOT / "mkdocs.yml"), docs_dir=staged, site_dir=folder or checked, strict=True)
        build(config)
        elsewhere = loaded_from_elsewhere(Path(folder or checked))
    if elsewhere:
        print(
            "Expected a site that works without a network, got pages that load", *elsewhere, sep="\n  ", file=sys.stderr
        )
    return 1 if elsewhere else 0


def loaded_from_elsewhere(site: Path) -> list[str]:
    """What pages load that is not in the folder."""
    return sorted({url for page in site.rglob("*.html") for url in _LOADED.findall(page.read_text("utf-8"))})


def lay_out(folder: Path) -> None:
    """All pages of the site, as mkdocs wants them."""
    pages = dict(ELSEWHERE)
    found = [str(path.relative_to(ROOT)) for pattern in BESIDE for path in sorted(ROOT.glob(pattern))]
    pages |= {source: source.removeprefix("docs/") for source in found}
    for source, uri in pages.items():
        page = folder / uri
        page.parent.mkdir(parents=True, exist_ok=True)
        if page.suffix == ".md":
            page.write_text(turned((ROOT / source).read_text("utf-8"), source, pages), "utf-8")
        elif page.suffix == ".ipynb":
            page.write_text((ROOT / source).read_text("utf-8"), "utf-8")
        else:
            shutil.copyfile(ROOT / source, page)
    for uri, text in references().items():
        (folder / uri).parent.mkdir(exist_ok=True)
        (folder / uri).write_text(text, "utf-8")


def turned(text: str, source: str, pages: dict[str, str]) -> str:
    """A page of the repository with its links as the site has them."""
    here = posixpath.dirname(pages[source]) or "."

    def link(found: re.Match[str]) -> str:
        picture, words, target = found.groups()
        path, mark, heading = target.partition("#")
        if not path or ":" in path:
            return found[0]
        uri = pages.get(posixpath.normpath(posixpath.join(posixpath.dirname(source), path)))
        return words if uri is None else f"{picture}[{words}]({posixpath.relpath(uri, here)}{mark}{heading})"

    return _LINK.sub(link, _MARKED_FENCE.sub(r"\1", text))


def references() -> dict[str, str]:
    """Pages of the reference, and an overview of them.

    Raises:
        ValueError: A public name stands on none, or on two, or what stands there is not public.
    """
    named = [name for names in REFERENCE.values() for name in names]
    odd = set(named) ^ (set(rs_embed.__all__) - {"__version__"})
    if odd or len(set(named)) != len(named):
        raise ValueError(f"Expected each public name once in the reference, got {sorted(odd) or 'some twice'}.")
    homes = {name: f"{getattr(rs_embed, name).__module__}.{name}" for name in named}
    homes |= {name: f"rs_embed.{name}" for names in BESIDES.values() for name in names}
    overview = ["# Reference", "Every public name of `rs_embed`, with shapes, units and errors."]
    pages = {}
    for title in dict.fromkeys((*REFERENCE, *BESIDES)):
        page = f"{re.sub(r'[^a-z]+', '_', title.lower())}.md"
        paths = [homes[name] for name in (*REFERENCE.get(title, ()), *BESIDES.get(title, ()))]
        table = "\n".join(["| Name | What it is |", "| --- | --- |", *map(_row, paths)])
        overview += [f"## [{title}]({page})", table]
        pages[f"reference/{page}"] = "\n\n".join(
            [f"# {title}", table if title in REFERENCE else "", *(f"::: {path}" for path in paths)]
        )
    return {**pages, "reference/index.md": "\n\n".join(overview)}


def _row(path: str) -> str:
    """A name and what it is, for a table."""
    module, _, name = path.rpartition(".")
    value = getattr(import_module(module), name)
    described = isinstance(value, type) or callable(value)
    line = next(iter((inspect.getdoc(value) or "").splitlines()), "") if described else ""
    return f"| [`{name}`][{path}] | {line.replace('|', chr(92) + '|')} |"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
