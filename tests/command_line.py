"""The command line as tests call it, and what it says of mistakes."""

from pathlib import Path

from typer.testing import CliRunner, Result

from rs_embed.cli.main import app

SCENE = Path(__file__).parents[1] / "src/rs_embed/data/sample/s2_l2a_12band_10m.tif"


def invoke(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(result: Result, name: str, *said: str, code: int = 1) -> None:
    assert result.exit_code == code
    assert result.stderr.startswith(f"{name}: ")
    assert all(text in result.stderr for text in said), result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def misused(result: Result, said: str) -> None:
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.replace("│", " ").split())
