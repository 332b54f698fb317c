"""What each ingredient of OverFeat brings on shapes it has not seen, as the paper's table 2 shows it.

    python zoo/overfeat_shapes/table.py runs          # on `test`
    python zoo/overfeat_shapes/table.py runs val      # on what settings are chosen by

`runs` holds overfeat_shapes_classifier-1, overfeat_shapes_localiser-1 and overfeat_shapes-1.
"""

import sys
from pathlib import Path

import kerasdet
from kerasdet import data, evaluation, runs, voting

# One shape an image, of three to nine tenths of its side.
LARGE = "size=160&sides=0.3,0.9"
SCALES = ((247, 247), (279, 279), (343, 343))
ONE = SCALES[:1]
# Shapes are a tenth to six tenths of a whole image.
WIDE = ((263, 263), (423, 423), (679, 679))


def main(folder, split="test"):
    """Prints one line a setting."""
    print("| task | setting | figure |\n| --- | --- | --- |")
    for name, measure in (
        ("overfeat_shapes_classifier-1", classification),
        ("overfeat_shapes_localiser-1", localisation),
        ("overfeat_shapes-1", detection),
    ):
        measure(runs.open_run(Path(folder) / name), split)
    if split == "val":
        overlaps(runs.open_run(Path(folder) / "overfeat_shapes-1"))


def classification(classifier, split):
    """Top-1 error on images of one shape."""
    examples = data.load_images(f"shapes:{split}?count=2000&{LARGE}")
    model = kerasdet.OverFeat(
        class_names=classifier.class_names,
        network="fast",
        width=0.125,
        task="localisation",
        background=False,
    )
    model.start_from(classifier)

    def line(setting, vote):
        error = 1 - voting.accuracy(vote, examples.as_numpy_iterator(), top=(1,))["top1"]
        print(f"| classification | {setting} | top-1 error {100 * error:.1f} % |", flush=True)

    line("one view, the centre", lambda image: classifier.vote(image, "centre"))
    line("ten views: corners, centre, mirror images", lambda image: classifier.vote(image, "ten"))
    for fine, stride in ((False, "coarse"), (True, "fine")):
        model.fine = fine
        for name, scales in (("one scale", ONE), ("three scales", SCALES)):
            line(f"{name}, {stride} stride", lambda image, s=scales: votes(model, image, s))


def votes(model, image, scales):
    """(K,) of `OverFeat.classify`."""
    (found,) = model.classify(image, scales=scales, top=model.num_classes)
    return [
        found.probabilities[list(found.labels).index(label)] for label in range(model.num_classes)
    ]


def localisation(model, split):
    """ILSVRC's localisation error with one guess: the class wrong, or IoU below 0.5."""
    examples = data.load(f"shapes:{split}?count=400&objects=1&{LARGE}")
    for fine, stride in ((False, "coarse"), (True, "fine")):
        model.fine = fine
        for name, scales in (("one scale", ONE), ("three scales", SCALES)):
            model.scales = scales
            error = evaluation.evaluate_localization(model, examples, top=1).error
            print(f"| localisation | {name}, {stride} stride | error {100 * error:.1f} % |")


def detection(model, split):
    """AP50 on images of up to five shapes."""
    examples = data.load(f"shapes:{split}?count=200&size=160")
    merging = with_overlaps(model, 0.5, None)
    for scales, fine, sizes in (
        (WIDE, True, "three scales, fine stride"),
        (WIDE, False, "three scales, coarse stride"),
        (WIDE[1:2], True, "one scale, fine stride"),
    ):
        for one, merge, setting in (
            (model, "greedy", "greedy merge and suppression"),
            (merging, "greedy", "greedy merge alone"),
            (model, "nms", "NMS alone"),
        ):
            one.scales, one.fine, one.merge = scales, fine, merge
            score = evaluation.evaluate(one, examples).metrics["AP50"]
            print(f"| detection | {sizes}, {setting} | AP50 {score:.3f} |", flush=True)


def overlaps(model):
    """AP50 on `val` by what the recipe's overlaps were chosen from."""
    examples = data.load("shapes:val?count=200&size=160")
    for merge in (0.5, 0.6, 0.7, 0.8):
        for suppress in (None, 0.3, 0.2):
            result = evaluation.evaluate(with_overlaps(model, merge, suppress), examples)
            setting = f"merge_overlap={merge}, suppress_overlap={suppress}"
            print(f"| detection | {setting} | AP50 {result.metrics['AP50']:.3f} |", flush=True)


def with_overlaps(model, merge, suppress):
    """The same detector with other overlaps."""
    config = model.get_config() | {"merge_overlap": merge, "suppress_overlap": suppress}
    other = type(model).from_config(config)
    other.set_weights(model.get_weights())
    return other


if __name__ == "__main__":
    main(*sys.argv[1:])
