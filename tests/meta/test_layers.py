"""Imports run strictly downward, as CONTRIBUTING says; and no text is left unfinished."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "kerasdet"

LEVELS = {
    "errors": 0,
    "orientation": 0,
    "arguments": 1,
    "classes": 1,
    "boxes": 1,
    "labels": 1,
    "images": 1,
    "word_tree": 1,
    "weight_decay": 1,
    "schedules": 1,
    "low_rank": 1,
    "saving": 1,
    "stopping": 1,
    "compiling": 1,
    "matching": 2,
    "suppression": 2,
    "losses": 2,
    "region": 2,
    "region_proposals": 2,
    "voting": 2,
    "windows": 2,
    "layers": 2,
    "memory": 3,
    "visualize": 3,
    "backbones": 3,
    "data": 3,
    "evaluation": 3,
    "weights": 3,
    "detectors": 4,
    "classifier": 4,
    "zoo": 5,
    "recipe": 5,
    "runs": 5,
    "export": 5,
    "training": 5,
    "opening": 6,
    "cli": 6,
    "cli_data": 6,
    "cli_options": 6,
    "cli_train": 6,
    "__main__": 6,
}
# Inside one level, who may see whom; everything else there is strangers.
BESIDE = {
    ("losses", "matching"),
    ("detectors", "classifier"),
    ("layers", "suppression"),
    ("data", "visualize"),
    ("evaluation", "visualize"),
    ("training", "runs"),
    ("runs", "zoo"),
    ("recipe", "zoo"),
    ("training", "recipe"),
    ("cli", "opening"),
    ("cli", "cli_data"),
    ("cli", "cli_options"),
    ("cli", "cli_train"),
    ("cli_options", "cli_data"),
    ("cli_train", "cli_data"),
    ("cli_train", "cli_options"),
    ("cli_train", "opening"),
    ("cli_data", "opening"),
    ("__main__", "cli"),
}


def imports(path):
    """Modules of this package that a file imports anywhere, with the line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "kerasdet":
            parts = node.module.split(".")
            for alias in node.names if len(parts) == 1 else [None]:
                yield (parts[1] if alias is None else alias.name), node.lineno
        if isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                if parts[0] == "kerasdet" and len(parts) > 1:
                    yield parts[1], node.lineno


def test_imports_run_downward():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for seen, line in imports(path):
            if seen == own or seen.startswith("__"):
                continue
            if LEVELS[seen] < LEVELS[own] or (own, seen) in BESIDE:
                continue
            wrong.append(f"{path.relative_to(ROOT)}:{line} imports {seen}")
    assert wrong == []


def test_no_detector_imports_another():
    files = [
        p for p in (PACKAGE / "detectors").glob("*.py") if p.stem not in ("__init__", "detector")
    ]
    for path in files:
        source = path.read_text()
        for other in files:
            assert other == path or f"detectors.{other.stem}" not in source


def test_the_level_table_has_every_module_and_no_other():
    found = {p.stem for p in PACKAGE.glob("*.py")} | {
        p.parent.name for p in PACKAGE.glob("*/__init__.py")
    }
    assert found - {"__init__", "kerasdet"} == set(LEVELS)


def test_nothing_is_left_for_later():
    marks = re.compile(r"\b(TODO|FIXME|XXX)\b|raise NotImplementedError")
    for path in [
        *PACKAGE.rglob("*.py"),
        *(ROOT / "tools").rglob("*.py"),
        *(ROOT / "zoo").rglob("*.py"),
    ]:
        assert not marks.search(path.read_text()), path
