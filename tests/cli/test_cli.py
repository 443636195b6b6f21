"""The command line: every command with the bundled scene, and what it says when something is wrong."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import warm
from command_line import SCENE, invoke, misused, refused

import rs_embed
from rs_embed import Embedding
from rs_embed.errors import SpecError, UnknownModelError

COMMAND = Path(sys.executable).with_name("rs-embed")
MAIN = "from rs_embed.cli.main import main; main()"
POINT = ("--lon", "12.94", "--lat", "47.77", "--buffer", "320")
TINY = ("thor_1_0_tiny", "--set", "pretrained=0", "--input-prep", "tile")


@pytest.mark.parametrize("command", [[], ["models"], ["describe"], ["embed"], ["inspect"], ["demo"]])
def test_help_says_how_and_gives_examples(command):
    result = invoke(*command, "--help")
    assert result.exit_code == 0
    assert "rs-embed demo" in result.stdout if not command else f"rs-embed {command[0]} " in result.stdout
    assert "Examples" in result.stdout or not command


def test_it_tells_its_version():
    result = invoke("--version")
    assert (result.exit_code, result.stdout) == (0, f"rs_embed {rs_embed.__version__}\n")


@pytest.mark.slow
def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom rs_embed.cli.main import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'rasterio', 'xarray', 'ee', 'matplotlib', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_models_lists_every_model_with_its_aliases():
    text = invoke("models").stdout
    assert all(model_id in text for model_id in rs_embed.list_models())
    assert "thor = thor_1_0_base" in text
    assert "Baseline: mosaiks_rcf" in text
    assert all(size in text for size in (" 94.1 M", " 1.0 M", " 55 k"))


def test_models_as_json_can_be_filtered():
    models = json.loads(invoke("models", "thor*", "--json").stdout)
    assert [model["id"] for model in models] == [f"thor_1_0_{size}" for size in ("tiny", "small", "base", "large")]


def test_a_pattern_without_a_match_says_so():
    result = invoke("models", "nothing*")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing*" in result.stderr
    assert json.loads(invoke("models", "nothing*", "--json").stdout) == []


def test_describe_shows_bands_units_knobs_licence_and_citation():
    text = invoke("describe", "thor").stdout
    for expected in ("thor_1_0_base", "B8A", "dn", "RS_EMBED_THOR_PATCH_SIZE", "Apache-2.0", "arXiv:2601.16011"):
        assert expected in text


def test_describe_as_json_has_the_modalities():
    facts = json.loads(invoke("describe", "mosaiks", "--json").stdout)
    assert facts["id"] == "mosaiks_rcf"
    assert facts["modalities"][0]["bands"][0] == "B1"


@pytest.mark.slow
def test_embed_without_a_place_takes_the_whole_sample():
    result = invoke("embed", "mosaiks_rcf", "--backend", "sample", "--output", "grid")
    assert result.exit_code == 0
    assert "1024 x 45 x 30" in result.stdout
    assert "2017-06-13" in result.stdout


def test_embed_prints_json_alone_and_writes_what_it_says(tmp_path):
    out, picture = tmp_path / "grid.tif", tmp_path / "grid.png"
    result = invoke(
        "embed",
        "mosaiks",
        *POINT,
        "--backend",
        "sample",
        "--output",
        "grid",
        "--json",
        "--out",
        out,
        "--picture",
        picture,
    )
    assert result.exit_code == 0
    assert json.loads(result.stdout)["output"] == "grid"
    assert result.stderr.splitlines() == [f"wrote {out}", f"wrote {picture}"]
    assert Embedding.load(out).data.shape == (1024, 8, 8)
    assert picture.stat().st_size > 1000


def test_embed_takes_knobs_modality_and_window():
    words = ("--backend", "sample", "--year", "2017", "--modality", "s2+s1", "--set", "patch_size=8", "--json")
    meta = json.loads(invoke("embed", *TINY, *POINT, *words).stdout)
    assert meta["modality"] == ["s2", "s1"]
    assert meta["knobs"]["patch_size"] == 8
    assert meta["temporal"] == 'TemporalSpec.range("2017-01-01", "2018-01-01")'
    assert meta["weights_note"] == "random weights: shapes only"


def test_embed_takes_a_raster_and_what_is_known_of_it():
    words = ("--unit", "dn", "--offset", "0", "--bands", "B1,B2,B3,B4,B5,B6,B7,B8,B8A,B9,B11,B12", "--pooling", "max")
    result = invoke("embed", "mosaiks", "--raster", SCENE, *words, "--json")
    meta = json.loads(result.stdout)
    assert meta["inputs"][0]["provider"] == "local"
    assert meta["pooling"] == "patch_max"


def test_embed_takes_a_box_in_any_crs():
    box = ("--bbox", "344400", "5293600", "345200", "5294400", "--crs", "EPSG:32633")
    meta = json.loads(invoke("embed", "mosaiks", *box, "--backend", "sample", "--json").stdout)
    assert meta["inputs"][0]["shape_px"] == [80, 80]


def test_pooling_means_nothing_to_a_grid():
    words = ("embed", "mosaiks", *POINT, "--backend", "sample", "--output", "grid", "--json")
    plain, pooled = (json.loads(invoke(*words, *more).stdout) for more in ((), ("--pooling", "max")))
    assert plain["fingerprint"] == pooled["fingerprint"]


def test_debias_is_of_a_map_and_changes_its_fingerprint():
    words = ("embed", "mosaiks", *POINT, "--backend", "sample", "--output", "grid", "--json")
    plain, found = (json.loads(invoke(*words, *more).stdout) for more in ((), ("--debias", "position")))
    assert plain["debias"] is None and found["debias"] == {"by": "position", "estimated_on": "nothing", "windows": 0}
    assert plain["fingerprint"] != found["fingerprint"]


def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path):
    out = tmp_path / "never.npz"
    result = invoke("embed", "mosaiks", *POINT, "--backend", "sample", "--dry-run", "--out", out)
    assert result.exit_code == 0
    assert "64 x 64 px" in result.stdout
    assert not out.exists()


def test_inspect_prints_statistics_and_draws_the_chip(tmp_path):
    picture = tmp_path / "chip.png"
    result = invoke("inspect", "thor", *POINT, "--backend", "sample", "--picture", picture)
    assert result.exit_code == 0
    assert "s2 B8A" in result.stdout
    assert picture.stat().st_size > 1000


def test_a_misspelt_model_is_refused_with_the_nearest_name():
    refused(invoke("embed", "mosaikz", "--backend", "sample"), "UnknownModelError", "fix:", "'mosaiks'")


def test_debug_shows_where_an_error_arose():
    result = invoke("describe", "mosaikz", "--debug")
    assert isinstance(result.exception, UnknownModelError)


def test_an_unknown_knob_is_refused():
    refused(invoke("embed", *TINY, "--set", "patchsize=8", "--backend", "sample"), "KnobError", "patch_size")


def test_a_bad_longitude_is_refused_by_the_library():
    bad = ("--lon", "999", "--lat", "47", "--buffer", "100")
    refused(invoke("embed", "mosaiks", *bad, "--backend", "sample"), "SpecError", "lon", "999")


def test_a_place_outside_of_the_sample_is_refused():
    west = ("--lon", "-10", "--lat", "47", "--buffer", "100")
    refused(invoke("inspect", "mosaiks", *west, "--backend", "sample"), "OutsideCoverage", "12.92")


def test_a_missing_raster_is_refused_with_its_path(tmp_path):
    missing = tmp_path / "a folder with [brackets]" / "missing.tif"
    refused(invoke("embed", "mosaiks", "--raster", missing), "ReadError", str(missing))


def test_no_backend_is_one_that_covers_the_earth_and_wants_days(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    refused(invoke("embed", "mosaiks", *POINT), "SpecError", "Expected a window of days", "--start 20", "--end 20")


def test_a_folder_that_cannot_be_written_is_refused_after_the_table(tmp_path):
    result = invoke("embed", "mosaiks", *POINT, "--backend", "sample", "--out", tmp_path / "no" / "x.npz")
    assert result.exit_code == 1
    assert result.stderr.startswith("StorageError: ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--lon", "12"), "--lon, --lat and --buffer go together"),
        ((*POINT, "--bbox", "12", "47", "13", "48"), "give either --bbox or"),
        (("--start", "2022-06-01"), "--start and --end go together"),
        (("--start", "2022-06-01", "--end", "2022-09-01", "--year", "2022"), "give either --year or"),
        (("--raster", "x.tif"), "give either --backend or --raster"),
        (("--bands", "B2"), "describe a --raster"),
        (("--set", "patch_size"), "KNOB=VALUE"),
        (("--output", "cube"), "cube"),
        (("--precision", "fp8"), "fp8"),
        (("--lat", "north"), "--lat"),
    ],
)
def test_options_that_make_no_sense_are_usage_errors(words, said):
    misused(invoke("embed", "mosaiks", "--backend", "sample", *words), said)


def test_an_unknown_command_is_a_usage_error():
    misused(invoke("embedd"), "No such command")


@pytest.mark.slow
def test_the_installed_command_warns_in_one_line_and_keeps_stdout_for_json():
    command = [COMMAND, "embed", "thor_1_0_tiny", "--set", "pretrained=0", *POINT, "--backend", "sample", "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0
    assert json.loads(done.stdout)["model_id"] == "thor_1_0_tiny"
    (line,) = done.stderr.splitlines()
    assert line.startswith("warning: thor_1_0_tiny expects pixels of 10 m")


@pytest.mark.slow
def test_a_process_shows_a_traceback_only_with_debug():
    plain, debug = (warm.run(MAIN, "describe", "x", *more) for more in ((), ("--debug",)))
    assert (plain.returncode, debug.returncode) == (1, 1)
    assert "Traceback" not in plain.stderr
    assert "Traceback" in debug.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_and_is_told_by_the_exit_code(number, code):
    words = ("embed", "thor_1_0_large", "--set", "pretrained=0", "--backend", "sample")
    with warm.start(MAIN, *words) as running:
        assert running.stderr.readline().startswith("warning: ")  # given just before the network runs
        running.send_signal(number)
        assert running.finish().returncode == code


HANGS = """
import ctypes, os, sys
from rs_embed import providers
from rs_embed.cli import main as cli
from rs_embed.testing import FieldProvider

class Hung(FieldProvider):
    def fetch(self, query):
        os.write(1, b"hanging\\n")  # at once: several threads do
        ctypes.CDLL(None).sleep(3600)  # as GDAL would: out of Python's hands
        return super().fetch(query)

providers._BACKENDS["sample"] = lambda: Hung()
cli.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("command", ["embed", "inspect", "export"])
def test_one_signal_ends_a_command_whose_backend_hangs_in_c(tmp_path, command, number, code):
    words = [command, "mosaiks_rcf", "--backend=sample"]
    if command == "export":
        (tmp_path / "plots.csv").write_text("id,lon,lat\n" + "".join(f"{i},12.9{i},47.77\n" for i in range(9)))
        words += [str(tmp_path / "plots.csv"), str(tmp_path / "run"), "--buffer=320"]
    else:
        words += POINT
    with warm.start(HANGS, *words) as running:
        assert running.stdout.readline() == "hanging\n"
        running.send_signal(number)
        done = running.finish()
    assert done.returncode == code
    assert "Traceback" not in done.stderr and "Fatal" not in done.stderr
    assert ("stopped" in done.stderr) == (command == "export")


def test_bad_dates_reach_the_user_as_the_library_words_them():
    result = invoke(
        "embed", "mosaiks", "--start", "2022-09-01", "--end", "2022-06-01", "--backend", "sample", "--debug"
    )
    assert isinstance(result.exception, SpecError)
    refused(
        invoke("embed", "mosaiks", "--start", "2022-06-31", "--end", "2022-09-01"), "SpecError", "start", "2022-06-31"
    )
