"""Writes zoo/README.md from the recipes and results beside it; --check fails where it is out of date.

python tools/render_zoo.py
"""

import argparse
import ast
import json
import sys
from pathlib import Path

ZOO = Path(__file__).resolve().parents[1] / "zoo"
HEAD = """\
# What was trained

One folder a training: `recipe.py` (the whole of it), `card.md` (use, limits, differences from the paper) and
`result.json` (numbers, commands, commit and machine, written by the evaluation). An empty cell was not
measured. This page is written by `tools/render_zoo.py`.

| training | what | result here | on | training time | machine |
| --- | --- | --- | --- | --- | --- |
"""


def row(folder: Path) -> str:
    """One line of the table."""
    purpose = ast.get_docstring(ast.parse((folder / "recipe.py").read_text())).splitlines()[0]
    cells = [f"[{folder.name}]({folder.name}/card.md)", purpose.rstrip("."), "", "", "", ""]
    if (folder / "result.json").is_file():
        result = json.loads((folder / "result.json").read_text())
        evaluation, training = result["evaluation"], result.get("training", {})
        metrics = evaluation["metrics"]
        cells[2] = ", ".join(
            f"{name} {metrics[name]:.3f}" for name in ("AP", "AP50", "top1") if name in metrics
        )
        cells[3] = f"`{evaluation['data']}`"
        if "training_seconds" in training:
            cells[4] = f"{training['training_seconds'] / 60:.0f} min"
        cells[5] = training.get("machine", "")
    return "| " + " | ".join(cells) + " |\n"


def page() -> str:
    """The whole page."""
    return HEAD + "".join(row(path.parent) for path in sorted(ZOO.glob("*/recipe.py")))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    wanted, path = page(), ZOO / "README.md"
    if parser.parse_args().check:
        if not path.is_file() or path.read_text() != wanted:
            sys.exit(f"{path} is out of date: run python tools/render_zoo.py")
    else:
        path.write_text(wanted)
        print(f"Wrote {path}")


if __name__ == "__main__":
    main()
