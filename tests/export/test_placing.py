"""Files and folders appear whole or not at all."""

import pytest

from kerasdet.errors import InputError
from kerasdet.export.placing import new_file, new_files, new_folder


def tree(path):
    return sorted(p.relative_to(path).as_posix() for p in path.rglob("*"))


def test_a_folder_is_replaced_in_one_step(tmp_path):
    (tmp_path / "base" / "4").mkdir(parents=True)
    (tmp_path / "base" / "4" / "old").touch()
    with new_folder(tmp_path / "base", "4") as folder:
        (folder / "new").touch()
        assert (tmp_path / "base" / "4" / "old").exists()
        # A server looks for numbers.
        assert [p.name for p in (tmp_path / "base").iterdir() if p.name.isdecimal()] == ["4"]
    assert tree(tmp_path) == ["base", "base/4", "base/4/new"]


def test_a_failure_leaves_what_was_there_and_nothing_more(tmp_path):
    (tmp_path / "kept").touch()

    def write_half(file):
        file.write_text("half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "a" / "b", "1") as folder:
        write_half(folder / "half")
    with pytest.raises(ZeroDivisionError), new_file(tmp_path / "kept") as file:
        write_half(file)
    assert tree(tmp_path) == ["kept"]
    assert (tmp_path / "kept").read_text() == ""


def test_a_file_takes_its_place_when_it_is_whole(tmp_path):
    with new_file(tmp_path / "new" / "model.onnx") as file:
        file.write_text("whole")
        assert file.name == "model.onnx"
        assert not (tmp_path / "new" / "model.onnx").exists()
    assert tree(tmp_path) == ["new", "new/model.onnx"]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match=r"Cannot write in .*file/below: Not a directory"),
        new_folder(tmp_path / "file" / "below", "1"),
    ):
        pass


def test_files_take_their_places_together(tmp_path):
    with new_files(tmp_path / "new") as folder:
        for name in ("b", "a"):
            (folder / name).write_text("whole")
        assert not (tmp_path / "new" / "a").exists()
    assert tree(tmp_path) == ["new", "new/a", "new/b"]

    def write_one(folder):
        (folder / "c").touch()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), new_files(tmp_path / "new") as folder:
        write_one(folder)
    assert tree(tmp_path) == ["new", "new/a", "new/b"]
