"""The tables of measured numbers agree with the results they are made from."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_zoos_page_is_what_its_results_say():
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "render_zoo.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_recipe_has_a_card_and_every_result_its_command_commit_and_machine():
    folders = [path.parent for path in (ROOT / "zoo").glob("*/recipe.py")]
    for folder in folders:
        assert (folder / "card.md").is_file(), folder
        if (folder / "result.json").is_file():
            result = json.loads((folder / "result.json").read_text())
            for part in (result["training"], result["evaluation"]["environment"]):
                assert all(part.get(key) for key in ("command", "commit", "machine", "date")), (
                    folder
                )


def test_the_readme_quotes_the_results():
    readme = (ROOT / "README.md").read_text()
    for folder in ("ssd_shapes", "ssd_small_bccd"):
        metrics = json.loads((ROOT / "zoo" / folder / "result.json").read_text())["evaluation"][
            "metrics"
        ]
        assert f"{metrics['AP50']:.3f} AP50, [recipe](zoo/{folder}/" in readme
