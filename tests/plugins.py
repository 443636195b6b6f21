"""Packages of others, installed into a folder as pip would: their modules, and what their pyproject says of them."""

import shutil
import sys
import tomllib
from pathlib import Path

TINY_PATCHES = Path(__file__).parent / "data" / "plugin"


def install(package: Path, site: Path) -> Path:
    """Copy a package of pure Python to a folder of the search path, with its metadata beside it.

    What an earlier test has imported of the package, from where it was then, is forgotten.
    """
    own = {path.stem for path in package.iterdir()}
    for name in [name for name in sys.modules if name.partition(".")[0] in own]:
        del sys.modules[name]
    project = tomllib.loads((package / "pyproject.toml").read_text("utf-8"))["project"]
    shutil.copytree(package, site, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "pyproject.toml"))
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    lines = [line for group, names in groups for line in (f"[{group}]", *(f"{k} = {v}" for k, v in names.items()))]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return site


def make(folder: Path, name: str, module: str, *, models: str = "", providers: str = "") -> Path:
    """A package of one module, with entry points of one name."""
    folder.mkdir(parents=True)
    points = {"rs_embed.models": models, "rs_embed.providers": providers}
    tables = [f'[project.entry-points."{group}"]\n{point}\n' for group, point in points.items() if point]
    (folder / "pyproject.toml").write_text(f'[project]\nname = "{name}"\nversion = "1.0"\n' + "".join(tables))
    (folder / f"{name}.py").write_text(module)
    return folder
