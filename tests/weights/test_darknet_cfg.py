"""The cfg beside saved weights has darknet's own sections, key by key."""

import pytest

from kerasdet import zoo
from kerasdet.errors import InputError
from kerasdet.weights import darknet_cfg, save_darknet_cfg

# What training alone reads, and what says how darknet was last run.
_OF_TRAINING = {
    *("angle", "batch", "burn_in", "decay", "exposure", "hue", "jitter", "learning_rate"),
    *("max_batches", "momentum", "policy", "random", "saturation", "scales", "steps"),
    "subdivisions",
}


def sections(text):
    """(name, {key: value}) of each, numbers as such; a route's layers counted from the first."""
    found = []
    for line in text.splitlines():
        line = line.partition("#")[0].replace(" ", "")
        if line.startswith("["):
            found.append((line, {}))
        elif line:
            key, value = line.split("=")
            if key not in _OF_TRAINING:
                found[-1][1][key] = tuple(
                    float(v) if v[-1].isdigit() else v for v in value.split(",")
                )
    for place, (_, keys) in enumerate(found[1:]):  # [net] is not counted
        if "layers" in keys:
            keys["layers"] = tuple(n if n >= 0 else place + n for n in keys["layers"])
    return found


@pytest.mark.parametrize(
    ("cfg", "build"),
    [
        ("yolov2.cfg", lambda: zoo.yolo_v2(80, anchors="coco", image_size=608)),
        ("yolov2-voc.cfg", lambda: zoo.yolo_v2(20)),
        ("yolov2-tiny-voc.cfg", lambda: zoo.yolo_v2_tiny(20)),
        (
            "yolov2-tiny.cfg",
            lambda: zoo.yolo_v2_tiny(
                80, anchors="coco", head_filters=(512,), loss={"rescore": False}
            ),
        ),
    ],
)
def test_the_releases_cfg_is_written_again(cfg, build, shared_data):
    wanted = sections((shared_data / "darknet" / "cfg" / cfg).read_text())
    assert sections(darknet_cfg(build())) == wanted


def test_a_cfg_has_the_models_own_size_classes_and_priors(tmp_path):
    model = zoo.yolo_v2_tiny(3, anchors=[(1.5, 2), (4, 0.25)], image_size=(320, 416))
    save_darknet_cfg(model, tmp_path / "mine.cfg")
    found = sections((tmp_path / "mine.cfg").read_text())
    net, last, region = found[0][1], found[-2][1], found[-1][1]
    assert (net["width"], net["height"]) == ((416,), (320,))
    assert last["filters"] == (2 * (5 + 3),)
    assert (region["classes"], region["num"]) == ((3,), (2,))
    assert region["anchors"] == (1.5, 2, 4, 0.25)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: zoo.yolo_v2_tiny(3, location="offset"), "'yolo_v2_tiny' is none"),
        (lambda: zoo.tiny_darknet(3), "'tiny_darknet' is none"),
        (lambda: zoo.yolo_v2(3, passthrough="space_to_depth"), "has the order 'space_to_depth'"),
        (lambda: zoo.yolo_v2_small(3, width=2), "no place for the model 'backbone'"),
    ],
)
def test_a_network_that_darknet_has_not_gets_no_cfg(build, message, tmp_path):
    with pytest.raises(InputError, match=message):
        save_darknet_cfg(build(), tmp_path / "a.cfg")
    assert not list(tmp_path.iterdir())
