"""What `pip install eo-rs-embed` brings."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, metadata, requires

import pytest
import yaml
from packaging.requirements import Requirement
from pages import ROOT

pytestmark = pytest.mark.slow

CUDA = re.compile(r"nvidia|cuda|triton")


def closure(name: str, seen: set[str], extras: tuple[str, ...] = ("",)) -> set[str]:
    """Every package that installing `name` installs here, CUDA wheels left out."""
    for text in requires(name) or []:
        requirement = Requirement(text)
        wanted = requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in extras)
        key = requirement.name.lower().replace("_", "-")
        if not wanted or key in seen or CUDA.match(key):
            continue
        try:
            seen.add(key)
            closure(requirement.name, seen, tuple(requirement.extras) or ("",))
        except PackageNotFoundError:  # for another platform
            seen.discard(key)
    return seen


def test_the_base_install_stays_small_and_free_of_what_only_some_need():
    packages = closure("eo-rs-embed", set())
    assert len(packages) + 1 <= 80, sorted(packages)
    assert not packages & {"torchvision", "timm", "terratorch", "geopandas", "matplotlib", "dask"}


def test_the_description_of_the_package_has_no_link_to_a_file_which_an_index_does_not_have():
    text = metadata("eo-rs-embed").get_payload()
    assert "galileo" in text
    assert not [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if ":" not in target and target[0] != "#"]


def test_without_matplotlib_everything_but_pictures_works():
    code = """
import sys
import tomllib
sys.modules["matplotlib"] = None
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "matplotlib" else find(name, *rest)
from rs_embed import get_embedding
from rs_embed.errors import MissingDependency
embedding = get_embedding("mosaiks_rcf", backend="sample")
try:
    embedding.plot()
except MissingDependency as error:
    print(error.fix)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "pip install 'eo-rs-embed[plot]'"


def test_where_the_system_neither_forks_nor_locks_files_embeddings_are_made_and_exports_refused(tmp_path):
    code = """
import os
import sys
import torch  # knows systems by their names
sys.modules["fcntl"] = None
del os.fork, os.register_at_fork, os.sysconf, os.pread, os.O_NOFOLLOW, os.O_NONBLOCK
from rs_embed import Embedding, export_embeddings, get_embedding
from rs_embed.errors import StorageError
get_embedding("mosaiks_rcf", backend="sample").save("vector.npz")
print(Embedding.load("vector.npz").data.shape)
try:
    export_embeddings("mosaiks_rcf", [(12.94, 47.77)], "run", buffer_m=320, backend="sample", progress=False)
except StorageError as error:
    print(error.fix)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert result.stdout.splitlines() == ["(1024,)", "on Windows, export within the Windows Subsystem for Linux"]


def test_the_conda_recipe_asks_for_what_the_package_asks_for():
    recipe = yaml.safe_load((ROOT / "packaging/conda/recipe.yaml").read_text("utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = {"pytorch": "torch", "python-xxhash": "xxhash"}
    asked = [re.fullmatch(r"(\S+) (\S+)", line).groups() for line in recipe["requirements"]["run"]]
    assert {f"{names.get(name, name)}{version}" for name, version in asked} == {
        f"python{project['requires-python']}",
        *project["dependencies"],
    }
    assert recipe["context"]["version"] == project["version"]
