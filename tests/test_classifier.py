import math

import keras
import numpy as np
import pytest
from keras import layers, ops
from PIL import Image

from kerasdet import classifier
from kerasdet.classifier import Classifier
from kerasdet.errors import InputError
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "wants num_classes or class_names"),
        ({"num_classes": 0}, "at least one class, not 0"),
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
