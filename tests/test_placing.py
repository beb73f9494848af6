"""Files and folders that are there whole or not at all, whatever a process that was killed has left."""

import os

import pytest

from edged.errors import KeyRefused
from edged.placing import SHARED, Placing, new_folder, replace_file


def left_by(pid, *paths):
    """What a process of this number was writing as it was killed."""
    for path in paths:
        (path.parent / "{}.new-{}".format(path.name, pid)).write_bytes(b"half")
        (path.parent / ".{}.new-{}".format(path.name, pid)).write_bytes(b"half")


def test_what_a_killed_process_of_the_same_number_left_hinders_nobody(tmp_path):
    """In a container a daemon has the same number at every start."""
    path = tmp_path / "state"
    left_by(os.getpid(), path)
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    other = tmp_path / "other"
    left_by(os.getpid(), other)
    placing = Placing()
    placing.add(other, b"placed")
    assert placing.commit() == [str(other)] and other.read_bytes() == b"placed"


def test_a_file_is_never_written_over(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(b"old")
    placing = Placing()
    placing.add(tmp_path / "first", b"1")
    placing.add(path, b"new", SHARED)
    with pytest.raises(KeyRefused, match="is there already, with other content"):
        placing.commit()
    assert path.read_bytes() == b"old" and os.listdir(str(tmp_path)) == ["key"]


def test_a_folder_comes_with_all_that_is_in_it(tmp_path):
    target = tmp_path / "deep" / "folder"
    with new_folder(target) as part:
        (tmp_path / "deep" / os.path.basename(part) / "file").write_bytes(b"1")
        assert not target.exists()
    assert os.listdir(str(target)) == ["file"] and os.listdir(str(tmp_path / "deep")) == ["folder"]


def test_a_folder_that_fails_or_is_not_empty_stays_as_it_was(tmp_path):
    with pytest.raises(ZeroDivisionError):
        with new_folder(tmp_path / "deep" / "folder"):
            raise ZeroDivisionError
    assert os.listdir(str(tmp_path)) == []
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_bytes(b"1")
    with pytest.raises(OSError):
        with new_folder(tmp_path / "full"):
            pass
    assert os.listdir(str(tmp_path)) == ["full"] and os.listdir(str(tmp_path / "full")) == ["file"]


def test_a_link_to_an_empty_folder_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with new_folder(tmp_path / "link") as part:
        (tmp_path / os.path.basename(part) / "file").write_bytes(b"1")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "file").read_bytes() == b"1"
