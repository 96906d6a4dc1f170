"""Files that are there whole or not at all, and folders with one writer."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from toy import files

from nmt import disk
from nmt.errors import CallError, CheckpointError


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
def test_any_exception_leaves_the_old_file(kind: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    path.write_text("old")

    def fail() -> None:
        with disk.replacing(path) as temporary:
            temporary.write_text("half of the ne")
            raise kind

    with pytest.raises(kind):
        fail()
    assert files(tmp_path) == {"note.txt": b"old"}


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    path.write_text("old")
    with disk.replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == tmp_path, "on the same disk"
    assert files(tmp_path) == {"note.txt": b"new"}


def test_who_may_read_a_file_stays_so(tmp_path: Path) -> None:
    disk.write_text(tmp_path / "note.txt", "old")
    (tmp_path / "note.txt").chmod(0o640)
    disk.write_text(tmp_path / "note.txt", "new")
    assert (tmp_path / "note.txt").stat().st_mode & 0o777 == 0o640


def test_a_new_folder_is_there_when_it_is_whole(tmp_path: Path) -> None:
    def stop() -> None:
        with disk.new(tmp_path / "a" / "b") as part:
            disk.write_text(part / "note.txt", "half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert not list((tmp_path / "a").iterdir())
    with disk.new(tmp_path / "a" / "b") as part:
        disk.write_text(part / "note.txt", "whole")
        assert not (tmp_path / "a" / "b").exists()
    assert (tmp_path / "a" / "b" / "note.txt").read_text() == "whole"
    with pytest.raises(CheckpointError, match=r"b: cannot be made"), disk.new(tmp_path / "a" / "b") as part:
        disk.write_text(part / "note.txt", "of another, meanwhile")
    assert [file.name for file in (tmp_path / "a").rglob("*")] == ["b", "note.txt"]
    assert (tmp_path / "a" / "b" / "note.txt").read_text() == "whole"


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_in_which_nothing_was_written_goes_if_it_was_not_there_before(there: bool, tmp_path: Path) -> None:
    if there:
        (tmp_path / "run").mkdir()
    with disk.locked(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()
    assert (tmp_path / "run").exists() == there


def test_a_folder_has_one_writer(tmp_path: Path) -> None:
    with disk.locked(tmp_path), pytest.raises(CallError, match="another process writes to it"), disk.locked(tmp_path):
        pass
    with disk.locked(tmp_path):
        pass


def left(folder: Path) -> None:
    """What processes leave that are killed."""
    (folder / ".model.json.0a1b2c3d.part").write_text("half")
    (folder / ".small.0a1b2c3d.part").mkdir()
    (folder / ".small.0a1b2c3d.part" / "half.onnx").write_text("half")


def test_what_was_left_half_written_goes_and_what_is_under_way_stays(tmp_path: Path) -> None:
    (tmp_path / ".film.part").write_text("another program's")
    with disk.replacing(tmp_path / "out.txt") as file, disk.new(tmp_path / "export") as folder:
        file.write_text("half")
        left(tmp_path)
        disk.clean(tmp_path)
        assert set(tmp_path.iterdir()) == {tmp_path / ".film.part", file, folder}
    assert {path.name for path in tmp_path.iterdir()} == {".film.part", "out.txt", "export"}
    assert (tmp_path / "out.txt").read_text() == "half"


def test_a_new_folder_takes_with_it_what_was_left_of_an_old_one(tmp_path: Path) -> None:
    left(tmp_path)
    with disk.new(tmp_path / "small"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_where_there_are_no_locks_what_is_young_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr("fcntl.flock", none)
    left(tmp_path)
    old = tmp_path / ".model.json.0a1b2c3d.part"
    os.utime(old, (time.time() - 2 * disk.DAY,) * 2)
    with disk.locked(tmp_path):
        disk.clean(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".small.0a1b2c3d.part"]
    disk.write_text(tmp_path / "note.txt", "written all the same")
