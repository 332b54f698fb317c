"""The cfg beside saved weights has darknet's own sections, key by key."""

import re

import keras
import pytest

from kerasdet import zoo
from kerasdet.backbones.darknet_conv import darknet_conv
from kerasdet.detectors.yolo9000 import YOLO9000, YOLO9000ForClasses
from kerasdet.errors import InputError
from kerasdet.weights import darknet_cfg, read_darknet, save_darknet, save_darknet_cfg
from kerasdet.weights.maps import darknet
from kerasdet.word_tree import WordTree

# What training alone reads, what says how darknet was last run, and which nodes COCO's classes are.
_OF_TRAINING = {
    *("angle", "aspect", "batch", "burn_in", "decay", "exposure", "hue", "jitter"),
    *("learning_rate", "max_batches", "max_crop", "min_crop", "momentum", "policy", "power"),
    *("random", "saturation", "scales", "steps", "subdivisions", "map"),
}


@pytest.fixture
def unmade():
    """Weights have shapes but no memory: the largest network would take a gigabyte."""
    with keras.StatelessScope(initialize_variables=False):
        yield
    keras.utils.clear_session()


def nodes(count):
    return WordTree([f"node {n}" for n in range(count)], [-1] * count)


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
                    float(v) if re.fullmatch(r"[-.\d]+", v) else v for v in value.split(",")
                )
    for place, (_, keys) in enumerate(found[1:]):  # [net] is not counted
        if "layers" in keys:
            keys["layers"] = tuple(n if n >= 0 else place + n for n in keys["layers"])
    return found


def floats(text):
    """Numbers behind a cfg in a .weights file, by parser.c and the layers' make functions."""
    (_, net), *rest = sections(text)
    (h,), (w,), (c,) = net["height"], net["width"], net["channels"]
    made, count = [], 0  # (h, w, c) of each section

    for section, keys in rest:
        get = {key: value[0] for key, value in keys.items()}.get
        if section == "[convolutional]":
            pad = get("size") // 2 if get("pad") else 0
            count += get("filters") * (4 if get("batch_normalize") else 1)
            count += get("filters") * c * get("size") ** 2
            h = (h + 2 * pad - get("size")) // get("stride") + 1
            w = (w + 2 * pad - get("size")) // get("stride") + 1
            c = get("filters")
        elif section == "[maxpool]":
            h, w = ((side - 1) // get("stride") + 1 for side in (h, w))
        elif section == "[local]":
            assert get("pad") == 1
            h, w = ((side - 1) // get("stride") + 1 for side in (h, w))
            count += h * w * get("filters") * (get("size") ** 2 * c + 1)
            c = get("filters")
        elif section == "[connected]":
            count += get("output") * (h * w * c + 1)
            h, w, c = 1, 1, get("output")
        elif section == "[avgpool]":
            h, w = 1, 1
        elif section == "[reorg]":
            h, w, c = h // 2, w // 2, c * 4
        elif section == "[route]":
            from_ = [made[int(place)] for place in keys["layers"]]
            assert len({each[:2] for each in from_}) == 1
            h, w, c = *from_[0][:2], sum(each[2] for each in from_)
        elif section == "[detection]":
            assert h * w * c == get("side") ** 2 * (5 * get("num") + get("classes"))
        elif section == "[region]":
            assert c == get("num") * (5 + get("classes"))
            assert len(keys["anchors"]) == 2 * get("num")
        else:
            assert section in ("[crop]", "[dropout]", "[softmax]")
        made.append((h, w, c))
    return int(count)


RELEASED = {
    "yolov2.cfg": lambda: zoo.yolo_v2(80, anchors="coco", image_size=608),
    "yolov2-voc.cfg": lambda: zoo.yolo_v2(20),
    "yolov2-tiny-voc.cfg": lambda: zoo.yolo_v2_tiny(20),
    "yolov2-tiny.cfg": lambda: zoo.yolo_v2_tiny(
        80, anchors="coco", head_filters=(512,), loss={"rescore": False}
    ),
    "yolo9000.cfg": lambda: YOLO9000(nodes(9418), name="9k"),
    "yolov1.cfg": lambda: zoo.yolo_v1(20, head="local"),
    "yolov1-tiny.cfg": lambda: zoo.yolo_v1_tiny(20),
    "../cfg_history/yolov1/yolo.cfg": lambda: zoo.yolo_v1(20, head="local"),
    "../cfg_history/yolov1/yolo-small.cfg": lambda: zoo.yolo_v1(
        20, hidden=(512, 4096), input_range=(-1, 1)
    ),
    "../cfg_history/yolov1/yolo-coco.cfg": lambda: zoo.yolo_v1(80, head="local", dropout=0),
    "../cfg_history/yolov1/tiny-coco.cfg": lambda: zoo.yolo_v1_tiny(80, boxes_per_cell=3),
    "darknet19.cfg": lambda: zoo.darknet19(image_size=256),
    "darknet19_448.cfg": lambda: zoo.darknet19(image_size=448),
    "extraction.cfg": zoo.extraction,
    "darknet.cfg": lambda: zoo.darknet_reference(image_size=256),
    "tiny.cfg": zoo.tiny_darknet,
}
# Without a cfg that is here: the paper's YOLO and Fast YOLO, YOLO on extraction, ... .
OTHERS = {
    "yolo, 2015": lambda: zoo.yolo_v1(20, input_range=(-1, 1)),
    "yolo, fast": lambda: zoo.yolo_v1_tiny(3, backbone="fast", image_size=(320, 448)),
    "yolo, other grid": lambda: zoo.yolo_v1_tiny(3, grid=5, boxes_per_cell=4),
    "yolo_v2, 2016": lambda: zoo.yolo_v2(80, anchors="coco_2016", passthrough_filters=None),
    "yolo_v2, extraction": lambda: zoo.yolo_v2(
        3, backbone="extraction", anchors="hand_picked", batch_norm=False
    ),
    "extraction, plain": lambda: zoo.extraction(batch_norm=False),
}


@pytest.mark.parametrize("cfg", RELEASED)
def test_the_releases_cfg_is_written_again(cfg, shared_data, unmade):
    wanted = sections((shared_data / "darknet" / "cfg" / cfg).read_text())
    model = RELEASED[cfg]()
    assert sections(darknet_cfg(model, tree="data/9k.tree")) == wanted


@pytest.mark.parametrize("build", [*RELEASED.values(), *OTHERS.values()], ids=[*RELEASED, *OTHERS])
def test_the_cfg_has_as_many_numbers_as_the_weights(build, unmade):
    model = build()
    assert floats(darknet_cfg(model)) == darknet.expected_floats(model)


@pytest.mark.parametrize(
    "build",
    [
        lambda: zoo.tiny_darknet(3),
        lambda: zoo.yolo_v1_tiny(3, image_size=(70, 130), grid=2),
        lambda: zoo.yolo_v1_tiny(2, head="local", local_filters=5, image_size=128),
    ],
)
def test_a_weight_file_has_the_bytes_that_its_cfg_wants(build, tmp_path):
    model = build()
    save_darknet(model, tmp_path / "a.weights")
    wanted = floats(darknet_cfg(model))
    assert read_darknet(tmp_path / "a.weights").numbers.size == wanted
    assert (tmp_path / "a.weights").stat().st_size == 20 + 4 * wanted  # int32 * 3, uint64


def test_images_of_minus_one_to_one_come_out_of_a_crop_of_nothing(unmade):
    text = darknet_cfg(zoo.yolo_v1_tiny(3, backbone="fast", image_size=(320, 448)))
    assert sections(text)[1] == (
        "[crop]",
        {"crop_height": (320,), "crop_width": (448,), "flip": (0,)},
    )
    assert "crop" not in darknet_cfg(zoo.yolo_v1_tiny(3))


def test_a_trees_cfg_names_the_tree_that_is_written_beside_it(tmp_path):
    tree = WordTree.from_parents({"dog": "animal", "Norfolk terrier": "dog", "cat": "animal"})
    model = zoo.yolo9000(tree=tree, anchors=[(1, 2)])
    save_darknet_cfg(model, tmp_path / "mine.cfg")
    region = sections((tmp_path / "mine.cfg").read_text())[-1][1]
    assert region["tree"] == ("mine.tree",)
    text = (tmp_path / "mine.tree").read_text()
    assert text == "animal -1\ndog 0\ncat 0\nNorfolk_terrier 1\n"
    assert "tree=yolo9000.tree" in darknet_cfg(model)


def test_a_cfg_has_the_models_own_size_classes_and_priors(tmp_path):
    model = zoo.yolo_v2_tiny(3, anchors=[(1.5, 2), (4, 0.25)], image_size=(320, 416))
    save_darknet_cfg(model, tmp_path / "mine.cfg")
    found = sections((tmp_path / "mine.cfg").read_text())
    net, last, region = found[0][1], found[-2][1], found[-1][1]
    assert (net["width"], net["height"]) == ((416,), (320,))
    assert last["filters"] == (2 * (5 + 3),)
    assert (region["classes"], region["num"]) == ((3,), (2,))
    assert region["anchors"] == (1.5, 2, 4, 0.25)


def _flat():
    """A YOLO9000 that answers with a list of classes."""
    return YOLO9000ForClasses(zoo.yolo9000(2, anchors=[(1, 2)]), ["a"], [1], name="flat")


def _trunk():
    """What gives a map alone."""
    images = keras.Input((8, 8, 3))
    return keras.Model(images, darknet_conv(images, 4, 3, 1), name="trunk")


def _with_gelu():
    images = x = keras.Input((8, 8, 3))
    x = keras.layers.Activation("gelu", name="gelu")(darknet_conv(x, 4, 3, 1))
    return keras.Model(images, darknet_conv(x, 4, 3, 2))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: zoo.yolo_v2_tiny(3, location="offset"), "'yolo_v2_tiny' is none"),
        (lambda: zoo.yolo_v1_tiny(3, grid=(2, 3)), "as many rows .* 'yolo_v1_tiny' has 2x3"),
        (lambda: zoo.yolo_v1_tiny(3, input_range=(0, 255)), "'yolo_v1_tiny' sees 0..255"),
        (lambda: zoo.ssd_small(3), "'ssd_small' is no network of darknet's"),
        (_flat, "'flat' is none"),
        (_trunk, "'trunk' is none"),
        (_with_gelu, "has nothing like its Activation 'gelu'"),
        (lambda: zoo.yolo_v2(3, passthrough="space_to_depth"), "has the order 'space_to_depth'"),
        (lambda: zoo.yolo_v2_small(3, width=2), "no place for the model 'backbone'"),
    ],
)
def test_a_network_that_darknet_has_not_gets_no_cfg(build, message, tmp_path):
    with pytest.raises(InputError, match=message):
        save_darknet_cfg(build(), tmp_path / "a.cfg")
    assert not list(tmp_path.iterdir())
