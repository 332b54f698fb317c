"""`import kerasdet` does no work; each public name is imported when it is first used."""

import subprocess
import sys
from pathlib import Path

import pytest

import kerasdet

ROOT = Path(__file__).resolve().parents[1]

HEAVY = ("keras", "tensorflow", "jax", "numpy", "PIL", "matplotlib", "rich", "typer", "pycocotools")


def modules_after(statement) -> set[str]:
    """Top-level modules of a fresh Python after one statement."""
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return set(done.stdout.split())


def test_importing_the_package_imports_nothing_heavy():
    loaded = modules_after("import kerasdet")
    assert "kerasdet" in loaded
    assert not loaded.intersection(HEAVY)


def test_the_readers_can_be_named_without_importing_tensorflow():
    assert not modules_after("import kerasdet.data, kerasdet.evaluation").intersection(HEAVY)


def test_models_can_be_built_without_what_only_pictures_and_files_need():
    """Beyond Keras itself, importing the detector costs nothing heavy."""
    more = modules_after("from kerasdet import SSD") - modules_after("import keras")
    assert not more.intersection({"PIL", "matplotlib", "rich", "typer", "pycocotools", "jax"})


@pytest.mark.parametrize("name", kerasdet.__all__)
def test_every_public_name_is_there(name):
    assert getattr(kerasdet, name) is not None
    assert name in dir(kerasdet)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'detect_everything'"):
        kerasdet.detect_everything  # noqa: B018
