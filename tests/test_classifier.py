import math

import keras
import numpy as np
import pytest
from keras import layers, ops
from PIL import Image

from kerasdet import classifier, voting
from kerasdet.backbones import overfeat
from kerasdet.classifier import Classifier
from kerasdet.errors import InputError, TrainingError
from kerasdet.images import warp
from kerasdet.weights.maps import darknet

NAMES = ["red", "green", "blue"]


def small(**changes):
    return classifier.darknet_reference(**{"class_names": NAMES, "image_size": (48, 32), **changes})


def painted(count=6, size=(48, 32)):
    """Noise with a patch of the class's colour, and the labels."""
    rng = np.random.default_rng(0)
    images = rng.uniform(60, 120, (count, *size, 3)).astype("float32")
    labels = np.arange(count) % 3
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        image[4 + i : 30, 3 + 2 * i : 25] = np.eye(3)[label] * 255
    return images, labels.astype("int32")


def with_known_logits(model, logits):
    """The same logits for every image: a last kernel of zeros, and these biases."""
    last = model.get_layer("conv8")
    last.set_weights([np.zeros(last.kernel.shape), np.array(logits)])
    return model


@pytest.fixture(scope="module")
def trained():
    """A few steps on six images."""
    keras.utils.set_random_seed(1)
    model = small()
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.5  # so few steps would not move the running statistics otherwise
    model.compile(keras.optimizers.Adam(0.001), weight_decay=1e-6)
    before = [ops.convert_to_numpy(v) for v in model.trainable_variables]
    history = model.fit(*painted(), batch_size=6, epochs=10, verbose=0).history
    return model, history, before


# ---------------------------------------------------------------------- the networks


@pytest.mark.parametrize(
    ("build", "count", "convolutions"),
    [
        (classifier.darknet19, 20_856_776, 19),
        (classifier.extraction, 23_455_400, 21),
        (classifier.darknet_reference, 7_323_480, 8),
        (classifier.tiny_darknet, 1_046_488, 16),
    ],
)
def test_each_network_has_its_releases_numbers_and_convolutions(build, count, convolutions):
    with keras.StatelessScope(initialize_variables=False):  # no time for numbers
        model = build()
    keras.utils.clear_session()
    names = [layer.name for layer in model.layers if isinstance(layer, layers.Conv2D)]
    assert names == [f"conv{n}" for n in range(1, convolutions + 1)]
    assert model.count_params() == count
    assert model.output_shape == (None, 1000)
    assert model.image_size == (224, 224)
    assert model.class_names[999] == "class 999"
    assert model.get_layer(names[-1]).use_bias
    order = [layer.name for layer in model.layers]
    pooled_before = order.index("average") < order.index(names[-1])
    assert pooled_before == (model.name == "darknet_reference")
    leaky = f"{names[-1]}_leaky" in order  # of cfg/extraction.cfg alone
    assert leaky == (model.name == "extraction")


def test_logits_are_the_last_convolution_averaged_over_the_map(rng):
    model = classifier.tiny_darknet(3)
    image = rng.uniform(0, 255, (1, 75, 50, 3)).astype("f4")
    inner = keras.Model(model.input, model.get_layer("conv16").output)
    expected = ops.convert_to_numpy(inner(image))[0].reshape(-1, 3)
    assert len(expected) == math.ceil(75 / 16) * math.ceil(50 / 16) == 20
    found = ops.convert_to_numpy(model(image))[0]
    np.testing.assert_allclose(found, expected.mean(axis=0), rtol=1e-4, atol=1e-6)


def test_a_white_image_comes_to_the_first_convolution_as_ones():
    model = small()
    seen = keras.Model(model.input, model.get_layer("normalize").output)
    np.testing.assert_allclose(ops.convert_to_numpy(seen(np.full((1, 4, 4, 3), 255.0))), 1.0)


# ---------------------------------------------------------------------- training


def test_loss_and_metrics_by_hand():
    model = with_known_logits(small(), [1.0, 2.0, 4.0])
    model.compile("sgd")
    logs = model.evaluate(
        np.zeros((4, 32, 32, 3)), np.array([2, 2, 1, 0]), verbose=0, return_dict=True
    )
    total = math.log(math.e + math.e**2 + math.e**4)
    assert logs["loss"] == pytest.approx(
        (2 * (total - 4) + (total - 2) + (total - 1)) / 4, rel=1e-5
    )
    assert logs["top1"] == 2 / 4
    assert logs["top5"] == 1.0
    assert set(logs) == {"loss", "top1", "top5"}


def test_top5_counts_the_first_five_of_seven():
    model = classifier.darknet_reference(7)
    with_known_logits(model, [7.0, 6, 5, 4, 3, 2, 1])
    model.compile("sgd")
    logs = model.evaluate(
        np.zeros((8, 32, 32, 3)),
        np.array([0, 4, 4, 5, 6, 5, 1, 6]),
        verbose=0,
        batch_size=8,
        return_dict=True,
    )
    assert logs["top5"] == 4 / 8
    assert logs["top1"] == 1 / 8


def test_weight_decay_adds_half_lambda_times_the_squares_of_kernels_alone():
    model = with_known_logits(small(), [1000.0, 0.0, 0.0])
    kernels = [v for v in model.trainable_variables if v.path.endswith("kernel")]
    assert len(kernels) == 8
    squares = sum(float(np.sum(np.square(ops.convert_to_numpy(v), dtype="f8"))) for v in kernels)
    model.compile("sgd", weight_decay=0.01)
    loss = model.evaluate(np.zeros((2, 32, 32, 3)), np.zeros(2, int), verbose=0)[0]
    assert loss == pytest.approx(0.01 / 2 * squares, rel=1e-5)


def test_a_step_of_decay_shrinks_kernels_and_leaves_biases_and_normalisation():
    """A last kernel of zeros lets no gradient through to the layers below."""
    model = with_known_logits(small(), [0.0, 0.0, 0.0])
    before = {v.path: ops.convert_to_numpy(v) for v in model.trainable_variables}
    model.compile(keras.optimizers.SGD(0.5), weight_decay=0.2)
    model.fit(np.zeros((3, 32, 32, 3)), np.arange(3), epochs=1, verbose=0)
    for variable in model.trainable_variables:
        if "conv8" in variable.path:
            continue
        factor = 1 - 0.5 * 0.2 if variable.path.endswith("kernel") else 1.0
        found = ops.convert_to_numpy(variable)
        np.testing.assert_allclose(found, factor * before[variable.path], rtol=1e-5)


def test_it_learns_six_images_and_every_weight_takes_part(trained):
    model, history, before = trained
    assert history["loss"][0] > 0.9
    assert history["loss"][-1] < 0.1 * history["loss"][0]
    assert history["top1"][-1] == 1.0
    for variable, was in zip(model.trainable_variables, before, strict=True):
        assert np.abs(ops.convert_to_numpy(variable) - was).max() > 0, variable.path


# ---------------------------------------------------------------------- OverFeat

TINY = overfeat.Layout(
    (overfeat.Convolution(16, 5, stride=2, pool=2), overfeat.Convolution(24, 3)),
    last_pool=2,
    kernel=3,
    hidden=(32, 16),
    window=27,  # convolved 12, pooled 6, pooled 3, connected 1
)


def tiny_overfeat(**changes):
    arguments = {"class_names": NAMES, "network": TINY, "stddev": None, "dropout": 0.2}
    return Classifier(**{**arguments, **changes})


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


def test_overfeats_logits_are_the_mean_over_the_windows(rng):
    """Each window run by itself, where no convolution is padded; coarse steps of 2 * 2 * 2 pixels."""
    layout = overfeat.Layout(
        (overfeat.Convolution(16, 5, stride=2, pool=2), overfeat.Convolution(24, 4)),
        last_pool=2,
        kernel=2,
        hidden=(32, 16),
        window=31,  # convolved 14, pooled 7, convolved 4, pooled 2, connected 1
    )
    model = tiny_overfeat(network=layout)
    image = rng.uniform(0, 255, (31 + 2 * 8, 31 + 8 + 3, 3)).astype("f4")
    places = [(top, left) for top in (0, 8, 16) for left in (0, 8)]
    windows = [image[top : top + 31, left : left + 31] for top, left in places]
    alone = ops.convert_to_numpy(model(np.stack(windows)))
    np.testing.assert_allclose(model(image[None])[0], alone.mean(axis=0), atol=1e-5)
    dense = model.probabilities(image[None])
    assert dense.shape == (1, 3, 2, 3)
    np.testing.assert_allclose(dense.reshape(6, 3), softmax(alone), atol=1e-5)
    assert np.ptp(alone, axis=0).min() > 1e-3


@pytest.mark.parametrize(
    ("network", "window", "last", "step", "cells"),
    [("fast", 231, "conv5", 32, 12), ("accurate", 221, "conv6", 36, 15)],
)
def test_the_released_networks_see_windows_of_the_trunks_map(
    network, window, last, step, cells, rng
):
    """A padded 3x3 convolution sees a window's neighbours in a larger image, and zeros in the window alone:
    so of the map each window is cut, not of the image."""
    model = Classifier(3, network=f"overfeat_{network}", width=1 / 64, stddev=None)
    assert model.image_size == (window, window)
    image = rng.uniform(0, 255, (1, window + 2 * step, window + step, 3)).astype("f4")
    names = [layer.name for layer in model.layers]
    behind = model.layers[names.index(f"{last}_relu") + 1 : names.index("classes") + 1]
    trunk = keras.Model(model.input, model.get_layer(f"{last}_relu").output)
    maps = ops.convert_to_numpy(trunk(image))[0]
    pool = cells // (6 if network == "fast" else 5)
    assert maps.shape[:2] == (cells + 2 * pool, cells + pool)
    alone = []
    for row, column in [(i, j) for i in range(3) for j in range(2)]:
        top, left = row * pool, column * pool
        x = maps[None, top : top + cells, left : left + cells]
        for layer in behind:
            x = layer(x)
        alone.append(ops.convert_to_numpy(x).reshape(3))
    found = model.probabilities(image)
    assert found.shape == (1, 3, 2, 3)
    np.testing.assert_allclose(found.reshape(6, 3), softmax(np.array(alone)), atol=1e-5)
    np.testing.assert_allclose(model(image)[0], np.mean(alone, axis=0), atol=1e-4)


def test_overfeats_input_is_normalised_and_width_multiplies_its_channels():
    model = classifier.overfeat_accurate(3, width=1 / 32)
    assert model.name == "overfeat_accurate"
    assert model.get_layer("conv6").filters == 1024 / 32
    assert model.get_layer("fc8").filters == 4096 / 32
    seen = keras.Model(model.input, model.get_layer("normalize").output)
    pixel = float(seen(np.full((1, 1, 1, 3), 200.0))[0, 0, 0, 1])
    assert pixel == pytest.approx((200 - 118.380948) / 61.896913, rel=1e-5)


def test_overfeat_learns_six_images():
    model = tiny_overfeat(image_size=(48, 32))
    assert model.augmentation == "overfeat"
    model.compile(keras.optimizers.Adam(0.003))
    history = model.fit(*painted(), batch_size=6, epochs=25, verbose=0).history
    assert history["loss"][-1] < 0.3 * history["loss"][0]
    assert history["top1"][-1] == 1.0


def test_each_kind_of_views_is_its_vote(rng):
    model = tiny_overfeat(scales=[(30, 41), (27, 35)])
    image = rng.integers(0, 256, (60, 80, 3)).astype("uint8")
    votes = {
        "ten": voting.vote_views(model.probabilities, image, 27),
        "scales": voting.vote_scales(model.probabilities, image, [(30, 41), (27, 35)]),
        "centre": model.probabilities(voting.ten_views(image, 27)[:1] * 0 + _centre(image))[
            0, 0, 0
        ],
    }
    for views, expected in votes.items():
        np.testing.assert_allclose(model.vote(image, views), expected, atol=1e-5)
        (found,) = model.classify(image, views=views)
        np.testing.assert_allclose(found.probabilities, np.sort(expected)[::-1], atol=1e-5)
        assert found.names == [NAMES[k] for k in np.argsort(-expected, kind="stable")]
    assert len({tuple(np.round(vote, 5)) for vote in votes.values()}) == 3
    with pytest.raises(InputError, match="views wants one of centre, ten, scales, not 'five'"):
        model.classify(image, views="five")


def _centre(image):
    return warp(image[:, 10:70], (27, 27))


def test_an_image_smaller_than_the_window_is_one_clear_error():
    model = tiny_overfeat(name="mine")
    said = r"mine looks at windows of 27x27 pixels, and an image of 26x40 has no room for one"
    with pytest.raises(InputError, match=said):
        model(np.zeros((1, 26, 40, 3), "f4"))
    with pytest.raises(InputError, match=said):
        model.probabilities(np.zeros((1, 26, 40, 3), "uint8"))
    with pytest.raises(InputError, match=said):
        model.scales = [(27, 27), (26, 40)]
    assert model.classify(np.zeros((5, 9, 3), "uint8"))[0].names  # a photo is brought to the window


def test_sizes_there_is_no_memory_for_are_refused_before_they_are_made():
    """A vote takes an image and its mirror image, or ten views; the middle and a training step one."""
    model, image = tiny_overfeat(), np.zeros((30, 30, 3), "uint8")
    model.scales = [(40, 40), (600_000, 600_000)]
    sentence = "classifier.* on {} of 600000x600000 pixels wants about .* GiB .* are free"
    for vote in (model.vote, lambda image: model.classify(image, views="scales")):
        with pytest.raises(InputError, match=sentence.format("2 images")):
            vote(image)
    assert len(model.classify(image, views="ten")) == 1
    model.image_size = 600_000
    with pytest.raises(InputError, match=sentence.format("10 images")):
        model.vote(image, "ten")
    model.compile()
    for use in (model.classify, lambda image: model.fit(image[None], np.zeros(1))):
        with pytest.raises(InputError, match=sentence.format("an image")):
            use(image)


def test_darknets_networks_vote_as_well(rng):
    """Their map before the mean; of darknet_reference, whose mean comes first, one place."""
    image = rng.uniform(0, 255, (1, 75, 50, 3)).astype("f4")
    model = classifier.tiny_darknet(3)
    assert model.probabilities(image).shape == (1, 5, 4, 3)
    assert small().probabilities(image).shape == (1, 1, 1, 3)
    assert model.vote(image[0].astype("uint8"), "ten").shape == (3,)


def test_the_scales_of_a_vote_are_the_papers_or_in_proportion():
    for network in ("overfeat_fast", "overfeat_accurate"):
        assert Classifier(3, network=network, width=1 / 96).scales == overfeat.SCALES
    tiny = tiny_overfeat()
    assert tiny.scales[0] == (round(245 * 27 / 231),) * 2
    assert tiny.scales[5] == (round(461 * 27 / 231), round(569 * 27 / 231))
    assert min(map(min, tiny.scales)) >= 27


# ---------------------------------------------------------------------- classify


def test_results_are_the_softmax_most_probable_first():
    model = with_known_logits(small(), [1.0, 3.0, 2.0])
    (found,) = model.classify(np.zeros((20, 30, 3), "uint8"))
    total = math.e + math.e**2 + math.e**3
    assert found.names == ["green", "blue", "red"]
    assert found.labels.tolist() == [1, 2, 0]
    expected = [math.e**3 / total, math.e**2 / total, math.e / total]
    np.testing.assert_allclose(found.probabilities, expected, rtol=1e-5)
    assert model.classify(np.zeros((20, 30, 3), "uint8"), top=1)[0].names == ["green"]
    assert len(model.classify(np.zeros((20, 30, 3), "uint8"), top=99)[0].names) == 3


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.names == other.names
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)


def test_the_middle_of_a_photo_is_seen(trained):
    model, *_ = trained
    images, labels = painted()
    for image, label in zip(images.astype("uint8"), labels, strict=True):
        framed = np.zeros((48, 32 + 38, 3), "uint8")
        framed[:, 19 : 19 + 32] = image
        assert_same(model.classify(framed), model.classify(image))
        framed = np.zeros((48 + 21, 32, 3), "uint8")
        framed[10 : 10 + 48] = image
        assert_same(model.classify(framed), model.classify(image))
        assert model.classify(image)[0].labels[0] == label


def test_arrays_paths_and_lists_give_the_same(trained, tmp_path):
    model, *_ = trained
    images = painted(11)[0].astype("uint8")
    batch = model.classify(images)
    assert_same(batch, [model.classify(image)[0] for image in images])
    assert len({found.names[0] for found in batch}) > 1
    Image.fromarray(images[0]).save(tmp_path / "a.png")
    mixed = [tmp_path / "a.png", images[1].astype("f4"), Image.fromarray(images[2]), images[3]]
    assert_same(model.classify(mixed), batch[:4])
    assert model.classify([]) == []


def test_what_is_no_image_is_an_input_error(trained):
    model, *_ = trained
    with pytest.raises(InputError, match="image 1 of the list"):
        model.classify([np.zeros((5, 5, 3), "uint8"), np.zeros((5, 5, 2), "uint8")])


def test_the_same_weights_serve_another_size(trained):
    model, *_ = trained
    image = painted(1, size=(96, 64))[0][0].astype("uint8")
    before = model.classify(image)[0]
    model.image_size = (96, 64)
    after = model.classify(image)[0]
    direct = ops.convert_to_numpy(ops.softmax(model(image[None].astype("f4"))))[0]
    model.image_size = (48, 32)
    np.testing.assert_allclose(after.probabilities, np.sort(direct)[::-1], atol=1e-5)
    assert np.abs(np.sort(before.probabilities) - np.sort(after.probabilities)).max() > 1e-6


# ---------------------------------------------------------------------- saving


def test_saved_whole_it_loads_back_equal_and_trains_on_as_it_did(trained, tmp_path):
    model, history, _ = trained
    model.save(tmp_path / "a.keras")
    revived = keras.saving.load_model(tmp_path / "a.keras")
    assert type(revived) is Classifier
    assert revived.get_config() == model.get_config()
    assert revived.weight_decay == 1e-6
    images, labels = painted()
    assert_same(revived.classify(images), model.classify(images))
    logs = revived.evaluate(images, labels, verbose=0, return_dict=True)
    assert logs == pytest.approx(model.evaluate(images, labels, verbose=0, return_dict=True))
    again = revived.fit(images, labels, batch_size=6, verbose=0).history
    assert again["loss"][0] < 2 * history["loss"][-1] + 0.05


def test_config_keeps_every_argument():
    model = Classifier(
        class_names=["a", "b"], network="extraction_plain", image_size=(32, 64), name="mine"
    )
    model.trainable = False
    revived = Classifier.from_config(model.get_config())
    assert revived.get_config() == model.get_config()
    assert revived.class_names == ["a", "b"]
    assert (revived.network, revived.image_size) == ("extraction_plain", (32, 64))
    assert revived.name == "mine"
    assert not revived.trainable_variables
    shapes = [[(v.path, v.shape) for v in each.variables] for each in (model, revived)]
    assert shapes[0] == shapes[1]


def test_config_keeps_overfeats_arguments(tmp_path):
    model = tiny_overfeat(
        width=0.75, dropout=0.25, image_size=(35, 31), scales=[(27, 29), (33, 31)], name="mine"
    )
    model.save(tmp_path / "a.keras")
    revived = keras.saving.load_model(tmp_path / "a.keras")
    assert (revived.width, revived.dropout, revived.stddev) == (0.75, 0.25, None)
    assert revived.image_size == (35, 31)
    assert revived.scales == ((27, 29), (33, 31))
    assert overfeat.layout_of(revived.network) == TINY
    images = painted(size=(60, 60))[0]
    np.testing.assert_allclose(revived(images), model(images), atol=1e-6)
    assert_same(revived.classify(images, views="scales"), model.classify(images, views="scales"))


@pytest.mark.parametrize("make", [small, tiny_overfeat])
def test_precision_and_frozen_layers_come_back(make, tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = make()
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.precision == "mixed_bfloat16"
    model.get_layer("conv2").trainable = False
    model.save(tmp_path / "a.keras")
    revived = keras.saving.load_model(tmp_path / "a.keras")
    assert keras.config.dtype_policy().name == "float32"
    for each in (model, revived):
        frozen = [la.name for la in each.layers if la.weights and not la.trainable]
        assert frozen == ["conv2"]
        assert each.get_layer("conv1").compute_dtype == "bfloat16"
        assert each.output.dtype == "float32"
    images = painted()[0]
    np.testing.assert_array_equal(revived(images), model(images))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"num_classes": 2, "network": "overfeat_small"},
            "overfeat_fast, overfeat_accurate, not 'overfeat_small'",
        ),
        (
            {"num_classes": 2, "network": "overfeat_fast", "width": 1 / 96, "image_size": 230},
            "windows of 231x231 pixels, and an image of 230x230 has no room",
        ),
        (
            {"num_classes": 2, "network": TINY, "width": "a"},
            "width wants a positive number, not 'a'",
        ),
        ({"num_classes": 2, "network": TINY, "dropout": 1.0}, "dropout wants .* below 1, not 1.0"),
        ({"num_classes": 2, "width": 0.5}, "width, dropout and stddev are OverFeat's; darknet19"),
        (
            {"num_classes": 2, "network": TINY, "scales": (40, 60)},
            r"scales wants pairs of height and width, not \(40, 60\)",
        ),
        ({}, "wants num_classes or class_names"),
        ({"num_classes": 0}, "at least one class, not num_classes=0"),
        ({"num_classes": 2, "class_names": NAMES}, "num_classes=2 does not fit the 3 class_names"),
        ({"class_names": []}, "does not fit the 0 class_names"),
        ({"num_classes": 2, "network": "vgg"}, "network wants one of darknet19, .* not 'vgg'"),
        (
            {"num_classes": 2, "network": "tiny_darknet", "image_size": 0},
            "image_size wants .*not 0",
        ),
        (
            {"num_classes": 2, "network": "tiny_darknet", "image_size": (8, 8, 3)},
            "image_size wants",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_one_clear_error(arguments, message):
    with pytest.raises(InputError, match=message):
        Classifier(**arguments)


# ---------------------------------------------------------------------- real weights


def test_real_weights_recognise_real_photos(shared_data):
    names = (shared_data / "darknet/data/imagenet.shortnames.list").read_text().splitlines()
    model = classifier.tiny_darknet(class_names=names[:1000])
    path = shared_data / "weights/tiny-darknet/tiny.weights"
    assert not darknet.load(model, path).left
    eagle, dog, giraffe = model.classify(
        [shared_data / "photos" / f"{name}.jpg" for name in ("eagle", "dog", "giraffe")]
    )
    assert eagle.names[0] == "bald eagle"
    assert "malamute" in dog.names
    assert giraffe.names[0] == "zebra"  # it stands beside the giraffe, which ImageNet has not
    assert len(eagle.names) == 5
    assert (np.diff(eagle.probabilities) <= 0).all()


def test_a_clone_of_a_compiled_one_says_the_same(rng):
    model = Classifier(3, network=TINY, stddev=None)
    model.compile("sgd", weight_decay=0.01)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    images = rng.uniform(0, 255, (2, *model.image_size, 3)).astype("float32")
    np.testing.assert_array_equal(*map(ops.convert_to_numpy, (model(images), clone(images))))


@pytest.mark.parametrize("label", [3, -1])
def test_unknown_labels_are_refused_in_memory_and_end_training_in_batches(label, rng):
    model = Classifier(3, network=TINY)
    model.compile("sgd")
    images = rng.uniform(0, 255, (4, *model.image_size, 3)).astype("float32")
    labels = np.array([0, 1, label, 2])
    with pytest.raises(InputError, match=f"Labels are 0..2, and image 2 has {label}"):
        model.fit(images, labels, verbose=0)
    with pytest.raises(TrainingError, match=r"loss is not finite.*labels are 0\.\.2"):
        model.fit((batch for batch in [(images, labels)]), shuffle=False, verbose=0)


def test_training_stops_where_the_loss_is_no_number_any_more(rng):
    model = Classifier(3, network="overfeat_fast", width=0.03)
    model.compile(keras.optimizers.SGD(1e30))
    images = rng.uniform(0, 255, (8, *model.image_size, 3)).astype("float32")
    with pytest.raises(TrainingError, match="Training stopped at epoch 1, batch"):
        model.fit(images, np.arange(8) % 3, batch_size=2, verbose=0)
