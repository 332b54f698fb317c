"""The run folder: what training leaves, and how it is opened again.

runs/<model>-<n>/
    config.json     the recipe's settings        recipe.py    its file, if it came from one
    model.json      the network                  env.json     versions, machine, commit
    metrics.csv     a row an epoch               result.json  the evaluation of the best weights
    weights/best.weights.h5, last.weights.h5     plots/  tb/  backup/
"""

import csv
import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kerasdet.errors import InputError


def create(output: Path, name: str, model, recipe_file=None) -> Path:
    """Makes the next free folder `<output>/<name>-<n>` with the network and the environment in it."""
    import keras

    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"Wanted a folder for runs, but {output} cannot be made: {error.strerror or error}."
        ) from error
    taken = [
        int(m[1])
        for p in output.iterdir()
        if (m := re.fullmatch(rf"{re.escape(name)}-(\d+)", p.name))
    ]
    number = max(taken, default=0) + 1
    while True:  # two runs may start at the same moment
        run = output / f"{name}-{number}"
        try:
            run.mkdir()
            break
        except FileExistsError:
            number += 1
    for folder in ("weights", "plots", "tb", "backup"):
        (run / folder).mkdir()
    if recipe_file is not None:
        shutil.copyfile(recipe_file, run / "recipe.py")
    write_json(run / "model.json", keras.saving.serialize_keras_object(model))
    write_json(run / "env.json", environment())
    return run


def environment() -> dict[str, Any]:
    """Versions, back end, machine and commit, as results must name them."""
    import keras

    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([_program(), *sys.argv[1:]]),
        "commit": _commit(),
        "kerasdet": version("kerasdet"),
        "keras": keras.__version__,
        "backend": f"{keras.backend.backend()} {version(keras.backend.backend())}",
        "python": platform.python_version(),
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "devices": [str(device) for device in keras.distribution.list_devices()],
    }


def _program() -> str:
    """What was called: kerasdet, or a script's name."""
    name = Path(sys.argv[0]).name
    return "kerasdet" if name in ("kerasdet", "__main__.py") else name


def _commit() -> str | None:
    """The checkout's commit, with a + where files differ from it; None outside a checkout."""
    root = Path(__file__).resolve().parents[1]

    def git(*words):
        done = subprocess.run(
            ["git", *words], cwd=root, capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else None

    if not (root / ".git").exists() or shutil.which("git") is None:
        return None
    commit = git("rev-parse", "--short=12", "HEAD")
    return commit and commit + ("+" if git("status", "--porcelain", "-uno") else "")


def read_recipe(path):
    """Runs a recipe file and returns the `Recipe` its `recipe()` makes.

    Raises:
        InputError: if there is no such file, or no function `recipe` in it.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"Wanted a recipe file, but there is none at {path}.")
    spec = importlib.util.spec_from_file_location("kerasdet_recipe", path)
    if spec is None or spec.loader is None:
        raise InputError(f"Wanted a recipe file ending in .py, not {path}.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(getattr(module, "recipe", None)):
        raise InputError(f"{path} has no function recipe() that returns a kerasdet.Recipe.")
    return module.recipe()


def open_run(run):
    """The detector of a run, with the weights of `load_best`.

    Raises:
        InputError: if the folder is no run or holds no weights yet.
    """
    import keras

    from kerasdet import zoo  # noqa: F401  (registers the detectors' classes)

    run = Path(run)
    config = read_json(run / "model.json", "a run folder's network")
    config.pop("compile_config", None)  # how it was trained is no part of what it finds
    try:
        model = keras.saving.deserialize_keras_object(config)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{run / 'model.json'} is no network that a run writes.") from error
    if not isinstance(model, keras.Model):
        raise InputError(f"{run / 'model.json'} is no network that a run writes.")
    load_best(model, run)
    return model


def load_best(model, run: Path):
    """Gives a model the best weights of its run; its last, where none were chosen.

    If the best cannot be read, as where the run was killed while Keras wrote them, the last take
    their place, and a sentence says so.

    Raises:
        InputError: if there are no weights yet, or those that count cannot be read.
    """
    from rich.console import Console

    from kerasdet.weights import keras_file

    best, last = (run / "weights" / f"{name}.weights.h5" for name in ("best", "last"))
    if not best.is_file() and not last.is_file():
        raise InputError(f"{run} holds no weights yet: its first epoch has not ended.")
    if best.is_file():
        try:
            return keras_file.load(model, best)
        except InputError as error:
            if not last.is_file():
                raise
            Console(stderr=True).print(
                f"{error} {last} is used in its place.", soft_wrap=True, markup=False
            )
    return keras_file.load(model, last)


_BACKUP = ("latest.weights.h5", "training_metadata.json")  # in the order Keras writes them


def epochs_done(run: Path) -> int:
    """Epochs whose end the backup holds.

    If the run was killed while Keras wrote the backup, the one before is put back in its place.

    Raises:
        InputError: if there is no backup to go on from.
    """
    weights, progress = (run / "backup" / name for name in _BACKUP)
    if not weights.exists() and not progress.exists():
        raise InputError(
            f"Wanted a run's backup, made by its first epoch, but there is no {weights}."
        )
    latest, before = _backup(run), _backup(run, ".bkp")
    # New weights beside the old count: killed between the two files.
    torn = latest and before and latest[0] == before[0] and latest[1] != before[1]
    if latest is None or torn:
        if before is None:
            raise InputError(
                f"The backup in {run / 'backup'} is not whole, so the run cannot be resumed."
            )
        for name in _BACKUP:
            shutil.copyfile(run / "backup" / f"{name}.bkp", run / "backup" / name)
        latest = before
    return latest[0]


def _backup(run: Path, suffix="") -> tuple[int, int] | None:
    """Epochs by the one file of a backup, and optimizer's steps by the other; None if one is cut short."""
    import h5py

    weights, progress = (run / "backup" / f"{name}{suffix}" for name in _BACKUP)
    try:
        epoch = json.loads(progress.read_text("utf-8"))["epoch"]
        with h5py.File(weights) as file:
            steps = int(file["optimizer/vars/0"][()])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (epoch, steps) if isinstance(epoch, int) else None


def read_json(path: Path, what: str) -> dict:
    """A JSON object from a file, or one sentence about what is missing."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"Wanted {what}, but there is no {path}.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"Wanted {what}, but {path} cannot be read: {error}.") from error
    if not isinstance(content, dict):
        raise InputError(f"Wanted {what}, but {path} holds a {type(content).__name__}.")
    return content


def write_json(path: Path, content: dict):
    """Writes a JSON object whole or not at all.

    Raises:
        InputError: if the file cannot be written.
    """
    unfinished = path.with_name(path.name + ".part")
    text = json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(text, "utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise InputError(f"Cannot write {path}: {error.strerror or error}.") from error


def check_writable(path: Path):
    """Refuses a file that could not be written, before the work is done whose result it is to hold.

    Raises:
        InputError: if it is a folder, or its folder is a file or may not be written to.
    """
    if path.is_dir():
        raise InputError(f"Cannot write {path}: it is a folder.")
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    if not folder.is_dir():
        raise InputError(f"Cannot write {path}: {folder} is a file.")
    if not os.access(folder, os.W_OK):
        raise InputError(f"Cannot write {path}: {folder} may not be written to.")


# ---------------------------------------------------------------------- metrics.csv


def _rows(run: Path) -> list[dict[str, str]]:
    path = run / "metrics.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if rows and not (rows[0].get("epoch") or "").isdecimal():
        raise InputError(f"{path} wants a column 'epoch' of whole numbers, as training writes it.")
    return rows


def cut_metrics(run: Path, first_epoch: int):
    """Drops the rows of epochs that will be trained again."""
    rows = _rows(run)
    kept = [row for row in rows if int(row["epoch"]) < first_epoch]
    if len(kept) == len(rows):
        return
    unfinished = run / "metrics.csv.part"
    with unfinished.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(kept)
    unfinished.replace(run / "metrics.csv")


def best_so_far(run: Path, monitor: str) -> float | None:
    """The highest value of a column until now; None without one."""
    values = [_number(row.get(monitor)) for row in _rows(run)]
    return max((value for value in values if value == value), default=None)


def _number(text: str | None) -> float:
    """A cell of metrics.csv; NaN where Keras wrote that it has none ("NA" or nothing)."""
    return float(text) if text and text != "NA" else float("nan")


def plot_metrics(run: Path):
    """Draws losses and average precision or accuracy over the epochs to plots/metrics.png."""
    import matplotlib

    matplotlib.use("agg", force=False)
    from matplotlib.figure import Figure

    rows = _rows(run)
    if not rows:
        return
    epochs = [int(row["epoch"]) + 1 for row in rows]
    columns = [c for c in rows[0] if c not in ("epoch", "learning_rate")]
    precision = [c for c in columns if "AP" in c]
    accuracy = [c for c in columns if "top1" in c or "top5" in c]
    groups = {
        "loss": [c for c in columns if c not in (*precision, *accuracy)],
        "average precision": precision,
        "accuracy": accuracy,
    }
    groups = {title: names for title, names in groups.items() if names}
    figure = Figure(figsize=(6 * len(groups), 4), layout="constrained")
    for axes, (title, names) in zip(
        figure.subplots(1, len(groups), squeeze=False)[0], groups.items(), strict=True
    ):
        for name in names:
            style = "--" if name.startswith("val_") else "-"
            values = [_number(row[name]) for row in rows]
            marker = "." if title != "loss" else None
            shown = [(e, v) for e, v in zip(epochs, values, strict=True) if v == v]
            axes.plot(
                *zip(*shown, strict=True) if shown else ([], []), style, marker=marker, label=name
            )
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(run / "plots" / "metrics.png", dpi=110)


# ---------------------------------------------------------------------- result.json


def add_seconds(run: Path, seconds: float):
    """Adds to the run's training time, which a resumed run goes on counting."""
    env = read_json(run / "env.json", "a run's environment")
    write_json(
        run / "env.json",
        env | {"training_seconds": round(env.get("training_seconds", 0) + seconds, 1)},
    )


def write_result(run: Path, evaluation: dict, **more) -> dict:
    """Writes result.json: the measured numbers, and the commands and machine that made them."""
    env = read_json(run / "env.json", "a run's environment")
    result = {"evaluation": evaluation, "training": env | more}
    write_json(run / "result.json", result)
    return result
