"""`rs-embed fit-mosaiks`: a file that the other commands take as a model."""

from command_line import SCENE, invoke, misused, refused

from rs_embed import Embedding

S2 = ("--collection", "COPERNICUS/S2_SR_HARMONIZED", "--scale", "10")


def test_help_says_how():
    result = invoke("fit-mosaiks", "--help")
    assert result.exit_code == 0 and "rs-embed fit-mosaiks" in result.stdout


def test_a_bank_of_a_file_is_a_model_for_the_other_commands(tmp_path):
    bank = tmp_path / "rgb.safetensors"
    fitted = invoke("fit-mosaiks", SCENE, bank, *S2, "--only-bands", "B4,B3,B2", "--unit", "dn", "--filters", "8")
    assert fitted.exit_code == 0, fitted.stderr
    assert "rgb.safetensors" in fitted.stdout and "16" in fitted.stdout
    out = tmp_path / "rgb.npz"
    assert invoke("embed", bank, "--backend", "sample", "--out", out).exit_code == 0
    assert Embedding.load(out).meta.model_id == "rgb"
    assert "B4, B3, B2" in invoke("describe", bank).stdout


def test_a_collection_that_nobody_knows_is_made_known_by_its_unit(tmp_path):
    names = ",".join(f"b{i}" for i in range(1, 13))
    asked = ("fit-mosaiks", SCENE, tmp_path / "mine.safetensors", "--collection", "CLI/MINE", "--scale", "10")
    misused(invoke(*asked, "--bands", names), "give --unit")
    done = invoke(*asked, "--bands", names, "--only-bands", "b8,b4", "--unit", "dn", "--filters", "8")
    assert done.exit_code == 0, done.stderr
    assert "b8,b4" in done.stdout


def test_what_cannot_be_meant_is_said(tmp_path):
    misused(invoke("fit-mosaiks", "sample", tmp_path / "a.safetensors", *S2), "give --bands")
    few = ("--bands", "B4", "--filters", "65000")
    refused(invoke("fit-mosaiks", "sample", tmp_path / "a.npz", *S2, *few), "SpecError", ".safetensors")


def test_too_little_imagery_is_said(tmp_path):
    place = tmp_path / "places.csv"
    place.write_text("lon,lat\n12.94,47.77\n")
    asked = ("--bands", "B4,B3", "--filters", "512", "--places", place, "--buffer", "50")
    refused(invoke("fit-mosaiks", "sample", tmp_path / "a.safetensors", *S2, *asked), "InputError", "fewer filters")
