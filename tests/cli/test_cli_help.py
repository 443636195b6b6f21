"""Help, completion and exit codes: what somebody sees who meets the command line for the first time."""

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from command_line import SCENE, invoke, misused, refused
from rich.console import Console
from typer.testing import CliRunner

import rs_embed
from rs_embed.cli.completion import FILE, collect_names
from rs_embed.cli.doctor import Check, run_doctor
from rs_embed.cli.main import app
from rs_embed.cli.options import EXAMPLES, ORDER, in_shell
from rs_embed.providers.earthengine.provider import EarthEngine

COMMAND = Path(sys.executable).with_name("rs-embed")
PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
NARROW = {"COLUMNS": "80", "TERMINAL_WIDTH": "80"}


def help_of(*words: str) -> str:
    answer = CliRunner().invoke(app, [*words, "--help"], env=NARROW)
    assert answer.exit_code == 0
    return answer.stdout


@pytest.mark.parametrize("command", ["", *ORDER])
def test_at_80_columns_no_help_is_cut(command):
    text = help_of(*command.split())
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    flat = re.sub(r"[│\s]+", " ", text)
    for word in ("rs-embed", *EXAMPLES.get(command, ())):
        assert re.sub(r"\s+", " ", word) in flat


def test_every_command_has_its_place_and_an_example_that_fits_a_line():
    assert {str(one.name) for one in app.registered_commands} == set(ORDER) == set(EXAMPLES)
    for command, examples in EXAMPLES.items():
        assert examples[0].startswith(f"rs-embed {command}")
        assert max(len(line) for one in examples for line in one.splitlines()) <= 78


def test_the_page_of_the_command_line_has_every_command_with_its_first_example():
    page = PAGE.read_text("utf-8")
    for command, examples in EXAMPLES.items():
        assert f"## {command}\n" in page
        assert examples[0] in page


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::rs_embed.errors.RSEmbedWarning")  # to somebody at a terminal they are words
def test_the_first_example_of_every_help_runs(tmp_path, monkeypatch):
    shutil.copy(SCENE, tmp_path / "scene.tif")
    table = pd.DataFrame({"id": ["north", "south"], "lon": [12.94, 12.945], "lat": [47.775, 47.77]})
    table.to_csv(tmp_path / "plots.csv", index=False)
    corners = [(12.93 + 0.004 * col, 47.76 + 0.004 * row) for row in range(5) for col in range(4)]
    labels = pd.DataFrame(corners, columns=["lon", "lat"]).assign(cover=["meadow", "forest"] * 10)
    labels.to_csv(tmp_path / "labels.csv", index=False)
    for name, value in {"THOR_PRETRAINED": "0", "OFFLINE": "1"}.items():
        monkeypatch.setenv(f"RS_EMBED_{name}", value)
    monkeypatch.chdir(tmp_path)
    for command in ORDER:
        if command in ("doctor", "generate", "change"):  # ask a network, need an extra, need two times
            continue
        program, *words = shlex.split(EXAMPLES[command][0].replace("\\\n", " "))
        done = invoke(*words)
        assert (program, done.exit_code) == ("rs-embed", 0), (command, done.stderr)


def test_what_a_newcomer_mistypes_gets_a_suggestion():
    misused(invoke("modles"), "Did you mean 'models'")
    misused(invoke("embed", "mosaiks", "--bakend", "sample"), "--backend")
    refused(invoke("describe", "galileo_nano_1"), "UnknownModelError", "did you mean 'galileo_1_0_nano'")
    refused(invoke("embed", "mosaiks", "--backend", "sampel"), "SpecError", "did you mean 'sample'")


def test_a_fix_names_options_and_not_keywords_of_python():
    refused(invoke("embed", "mosaiks"), "SpecError", "Expected a place", "--lon 12.94 --lat 47.77 --buffer 1000")
    assert in_shell('use input_prep="tile" or backend="gee"') == "use --input-prep tile or --backend gee"
    assert in_shell("temporal=TemporalSpec.year(2020)") == "--year 2020"
    assert in_shell("label=<one of them>") == "--label <one of them>"
    assert in_shell("accept a larger share: false_alarms=0.05") == "accept a larger share: --false-alarms 0.05"
    assert in_shell("pass buffer_m=<half the side of the square, metres>, or") == (
        "pass --buffer <half the side of the square, metres>, or"
    )
    assert in_shell("accept the licence on the page") == "accept the licence on the page"


@pytest.mark.slow
def test_the_list_of_models_fits_80_columns():
    code = "from rs_embed.cli.main import app; app(['models'])"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=os.environ | {"COLUMNS": "80"}
    )
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    listed = [line for line in lines if line.startswith(" ") and line.strip()]  # aliases follow, not indented
    rows = [line for line in listed if line.split()[0] in rs_embed.list_models()]
    assert len(rows) == len(rs_embed.list_models())
    assert any(row.split()[-1] == "Apache-2.0" and " 1024 " in row for row in rows)


def test_models_are_filtered_by_a_part_of_a_name_and_sorted():
    galileo = json.loads(invoke("models", "galileo", "--json").stdout)
    assert [one["id"] for one in galileo] == [f"galileo_1_0_{size}" for size in ("nano", "tiny", "base")]
    sizes = [one["parameters_m"] for one in json.loads(invoke("models", "--sort", "params", "--json").stdout)]
    assert sizes == sorted(sizes) and len(sizes) == len(rs_embed.list_models())
    misused(invoke("models", "--sort", "beauty"), "beauty")


def test_every_result_can_be_had_as_one_json_document(tmp_path):
    place = ("--lon", "12.94", "--lat", "47.77", "--buffer", "320", "--backend", "sample")
    plan = json.loads(invoke("embed", "mosaiks", *place, "--dry-run", "--json").stdout)
    assert plan["items"][0]["imagery"][0]["shape_px"] == [64, 64]
    chip = json.loads(invoke("inspect", "mosaiks", *place, "--json").stdout)
    assert chip["bands"][0]["unit"] == "dn" and set(chip["chips"]) == {"s2_12"}
    bank = tmp_path / "mine.safetensors"
    words = ("--collection", "COPERNICUS/S2_SR_HARMONIZED", "--scale", "10", "--unit", "dn", "--filters", "8")
    fitted = json.loads(invoke("fit-mosaiks", SCENE, bank, *words, "--only-bands", "B4,B3", "--json").stdout)
    assert fitted["dim"] == 16


# Completion ---------------------------------------------------------------------------------------------------------


def offered(line: str) -> list[str]:
    """What bash would offer at the end of the line."""
    words = line.split(" ")
    asked = {"_RS_EMBED_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    answer = CliRunner().invoke(app, [], prog_name="rs-embed", env=asked)
    return answer.stdout.split()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("rs-embed embed galileo_1", ["galileo_1_0_nano", "galileo_1_0_tiny", "galileo_1_0_base"]),
        ("rs-embed describe tho", ["thor_1_0_tiny", "thor_1_0_small", "thor_1_0_base", "thor_1_0_large", "thor"]),
        ("rs-embed export thor,mosaiks_", ["thor,mosaiks_rcf"]),
        ("rs-embed embed thor --set patch", ["patch_size="]),
        ("rs-embed embed thor --modality s2+s1_e", ["s2+s1_ew", "s2+s1_ew_60"]),
        ("rs-embed embed thor --backend s", ["sample", "stac"]),
        ("rs-embed fit-mosaiks a b --collection LANDSAT/LC09/C02/T1_", ["LANDSAT/LC09/C02/T1_L2"]),
        ("rs-embed embed thor --backend gee --inp", ["--input-prep"]),
        ("rs-embed stat", ["status"]),
    ],
)
def test_the_tab_key_offers(line, words):
    assert offered(line) == words


def test_knobs_of_other_models_are_not_offered():
    assert "img=" in offered("rs-embed embed thor --set ")
    assert "tim_modalities=" not in offered("rs-embed embed thor --set ")
    assert "tim_modalities=" in offered("rs-embed embed terramind --set ")


def test_the_names_that_are_offered_are_those_of_the_catalogue():
    file = Path(rs_embed.__file__).parent / "data" / FILE
    assert json.loads(file.read_text("utf-8")) == collect_names(), "run scripts/completion_names.py"


@pytest.mark.slow
def test_completion_answers_at_once_and_imports_nothing_heavy():
    asked = {"_RS_EMBED_COMPLETE": "complete_bash", "COMP_WORDS": "rs-embed embed gali", "COMP_CWORD": "2"}
    installed = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | asked
    times = []
    for _ in range(3):  # the first one may compile
        before = os.times()
        done = subprocess.run([COMMAND], check=False, capture_output=True, text=True, env=installed)
        after = os.times()
        times.append(after.children_user - before.children_user + after.children_system - before.children_system)
        assert "galileo_1_0_nano" in done.stdout.split()
    assert min(times) < 0.5  # seconds of a core, so that a busy machine does not count
    code = (
        "import sys\nfrom rs_embed.cli.main import app\n"
        "try: app(prog_name='rs-embed')\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'rasterio', 'pandas', 'rs_embed.embedders.catalog'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True,
                          env=os.environ | asked)  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_shown_and_installed_for_a_shell(shell, tmp_path):
    mine = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    for option in ("--show-completion", "--install-completion"):
        done = subprocess.run([COMMAND, option, shell], check=True, capture_output=True, text=True,
                              env=os.environ | mine)  # fmt: skip
        assert "_RS_EMBED_COMPLETE" in done.stdout or "completion installed" in done.stdout
    written = [path for path in tmp_path.rglob("*") if path.is_file() and "_RS_EMBED_COMPLETE" in path.read_text()]
    assert written


# The doctor ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    """A machine on which nothing was set up, and which asks nobody."""
    for name in ("HOME", "CLOUDSDK_CONFIG", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "HF_TOKEN", "AWS_ACCESS_KEY_ID", "PC_SDK_SUBSCRIPTION_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("RS_EMBED_CACHE_DIR", str(tmp_path / "weights"))
    return monkeypatch


def doctor(**options) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=80, markup=False)
    code = run_doctor(console, stac=None, published=None, earth_engine=EarthEngine, **options)
    return code, console.file.getvalue()


def test_on_a_fresh_machine_the_doctor_finds_no_fault_and_says_what_to_try(nobody):
    code, text = doctor()
    assert code == 0
    assert "--  Earth Engine account: not set up." in text
    assert re.search(r"\b0 of \d+ downloaded", text) and "GB free" in text and "hub token: none" in text
    assert "embed the bundled sample with mosaiks_rcf, without a download" in text
    assert text.rstrip().endswith("Try next: rs-embed embed mosaiks_rcf --backend sample --output grid --out grid.tif")
    found = json.loads(doctor(as_json=True)[1])
    assert found["ok"] and found["next"].startswith("rs-embed embed") and len(found["can"]) >= 3


@pytest.mark.slow
def test_what_the_doctor_says_to_try_works(nobody, tmp_path):
    _, text = doctor()
    words = text.split("Try next: rs-embed ")[1].split()
    assert invoke(*words[:-1], tmp_path / "grid.tif").exit_code == 0


def test_the_doctor_says_that_secrets_are_there_and_never_what_they_are(nobody):
    secrets = {
        "HF_TOKEN": "hf_abcdefghijklmnopqrstuvwxyz",
        "PC_SDK_SUBSCRIPTION_KEY": "subscription123456",
        "AWS_ACCESS_KEY_ID": "AKIAABCDEFGHIJKLMNOP",
        "AWS_SECRET_ACCESS_KEY": "wholesecret987",
        "RS_EMBED_GEE_HOST": "https://user:passphrase1@example.org",
    }
    for name, value in secrets.items():
        nobody.setenv(name, value)
    console = Console(file=io.StringIO(), width=200, markup=False)
    run_doctor(console, earth_engine=EarthEngine)
    run_doctor(console, earth_engine=EarthEngine, as_json=True)
    text = console.file.getvalue()
    assert "hub token: present" in text and "S3 keys: present" in text and "Planetary Computer key: present" in text
    for value in ("abcdefghijklm", "subscription123456", "AKIAABCD", "wholesecret", "passphrase1"):
        assert value not in text


def test_a_misspelt_setting_is_a_fault(nobody):
    nobody.setenv("RS_EMBED_OFLINE", "1")
    code, text = doctor()
    assert code == 1 and "NO  settings" in text and "RS_EMBED_OFFLINE" in text and "Does not work: settings" in text


def test_only_what_is_set_up_and_fails_is_a_fault():
    assert Check("a", True, "").works and not Check("a", True, "", set_up=False).works and not Check("a", False, "").ok


# Exit codes ---------------------------------------------------------------------------------------------------------


def test_exit_codes_are_those_of_the_page():
    """130 and 143, after a signal, are held by test_cli.py; 1 of an export and of verify by theirs."""
    table = dict(re.findall(r"^\| `(\d+)` \| (.+?) \|", PAGE.read_text("utf-8"), re.MULTILINE))
    assert set(table) == {"0", "1", "2", "130", "143"}
    assert invoke("models").exit_code == 0
    assert invoke("models", "nothing_like_it").exit_code == 0
    assert invoke("describe", "nothing_like_it").exit_code == 1
    assert invoke("describe", "mosaiks", "--nothing").exit_code == 2
    assert invoke("embed", "mosaiks", "--lon", "12").exit_code == 2
    assert invoke().exit_code == 2  # the help
