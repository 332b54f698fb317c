"""The whole way in minutes: train a small SSD, evaluate it, draw, export, detect from the export.

Every step is one call, and the shell command that does the same stands beside it.
"""

import time
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

FOLDER = Path("quickstart")
RECIPE = Path("zoo/ssd_shapes/recipe.py")
UNSEEN = "shapes:unseen?count=300&size=128"


def main():
    """Takes the five steps and says what they made."""
    from kerasdet import data, evaluation, export, runs, training, visualize

    console = Console(highlight=False)
    started = time.monotonic()

    def step(number, text, command):
        console.print(f"\n[bold]{number}. {text}[/bold]\n   {command}")

    step(1, "Train on built-in shapes", f"kerasdet train {RECIPE} --output {FOLDER}")
    run = training.train(runs.read_recipe(RECIPE), output=FOLDER, recipe_file=RECIPE)
    model = runs.open_run(run)

    step(2, "Evaluate on shapes it has not seen", f"kerasdet evaluate {run} --data '{UNSEEN}'")
    examples = data.load(UNSEEN)
    result = evaluation.evaluate(model, examples)
    console.print(result.table())
    evaluation.plot_precision_recall(result, run / "plots" / "precision_recall.png")
    evaluation.plot_mistakes(result, run / "plots" / "worst_mistakes.png", examples=examples)

    step(3, "Draw detections", f"kerasdet detect {run} PHOTO.jpg")
    images = [_enlarged(example["image"]) for example in examples.take(12).as_numpy_iterator()]
    drawn = [
        visualize.draw(image, found, class_names=model.class_names)
        for image, found in zip(images, model.detect(images, score_threshold=0.4), strict=True)
    ]
    picture = visualize.save_image(FOLDER / "detections.png", visualize.gallery(drawn, columns=4))

    step(4, "Export for TensorFlow Serving", f"kerasdet export {run} {FOLDER}/export")
    served = export.saved_model(model, FOLDER / "export" / "ssd_shapes")

    step(5, "Load the export back and detect", f"kerasdet detect {served} PHOTO.jpg")
    (found,) = export.load(served).detect(images[0], score_threshold=0.4)
    (same,) = model.detect(images[0], score_threshold=0.4)
    furthest = float(np.abs(found.boxes - same.boxes).max(initial=0))
    console.print(f"   {found.count} objects, boxes within {furthest:.4f} pixels of the model's")

    minutes = (time.monotonic() - started) / 60
    console.print(
        f"\n[bold]AP50 {result.metrics['AP50']:.3f} on {len(result.images)} images not seen in training, "
        f"after {minutes:.1f} minutes[/bold]\n"
        f"  run folder   {run}\n"
        f"  picture      {picture}\n"
        f"  SavedModel   {served}"
    )


def _enlarged(image, times=3):
    """A small image large enough for boxes and names to be read on it."""
    height, width = image.shape[:2]
    size = (width * times, height * times)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


if __name__ == "__main__":
    main()
