"""A file or folder that is written is there whole, or not at all."""

import itertools
import threading
from contextlib import suppress

import pytest

from rs_embed.core.atomic import replacing


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_when_it_is_whole(tmp_path, durable):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with replacing(path, durable=durable) as part:
        part.write_text("after")
        assert path.read_text() == "before" and part.suffix == ".txt"
    assert path.read_text() == "after" and list(tmp_path.iterdir()) == [path]


def broken_off(path):
    with replacing(path) as part:
        part.mkdir()
        (part / "half").write_text("half")
        raise KeyboardInterrupt


def test_an_error_on_the_way_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "a"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt):
        broken_off(path)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def over(path, *, folder):
    with replacing(path) as part:
        if folder:
            part.mkdir()
        (part / "new" if folder else part).write_text("x")


@pytest.mark.parametrize("folder", [True, False])
def test_a_folder_that_is_there_is_nobodys_to_remove(tmp_path, folder):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").write_text("all of it")
    with pytest.raises(OSError, match="mine"):
        over(tmp_path / "mine", folder=folder)
    assert [one.name for one in tmp_path.rglob("*")] == ["mine", "thesis"]


def interrupted_while_written(path, enough):
    """As Zarr's threads do: they write on after Ctrl-C."""
    written = threading.Event()

    def keep_writing(folder):
        for number in itertools.count():
            if enough.is_set():
                return
            with suppress(OSError):
                folder.mkdir(exist_ok=True)
                (folder / str(number)).touch()
            written.set()

    with replacing(path) as part:
        threading.Thread(target=keep_writing, args=(part,)).start()
        written.wait()
        threading.Timer(0.2, enough.set).start()
        raise KeyboardInterrupt


def test_what_stopped_the_writing_comes_out_though_another_thread_still_writes(tmp_path):
    enough = threading.Event()
    with pytest.raises(KeyboardInterrupt):
        interrupted_while_written(tmp_path / "grid", enough)
    enough.wait()
    assert not (tmp_path / "grid").exists()
