"""What every detector promises, whatever its paper; one row of the table for each."""

import copy
from types import SimpleNamespace
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
from keras import ops

from kerasdet.errors import InputError
from tests import oracles, small


class Contract(NamedTuple):
    """One detector, small, and what is to be expected of it.

    Attributes:
        build: makes it with fresh weights.
        outputs: name to shape of its raw outputs without the batch.
        learning_rate: of Adam, for learning four images by heart.
        steps: as many as that takes.
        regions: for a network that wants regions, a function from (height, width) to (R, 4).
    """

    build: Any
    outputs: dict
    learning_rate: float
    steps: int
    regions: Any = None

    def inputs(self, images):
        """What the network takes for a batch of images."""
        if self.regions is None:
            return images
        regions = np.stack([self.regions(image.shape[:2]) for image in images])
        return {"images": images, "regions": regions}

    def batch(self, batch):
        """What `fit` takes."""
        return self.inputs(batch.images), batch.targets

    def found(self, detector, images, **kwargs):
        """What the detector finds on one image or several."""
        if self.regions is not None:
            several = images if np.ndim(images) == 4 else [images]
            kwargs["regions"] = [self.regions(image.shape[:2]) for image in several]
        return detector.detect(images, **kwargs)


DETECTORS = {
    "ssd": Contract(small.ssd, {"boxes": (504, 4), "classes": (504, 4)}, 3e-3, 120),
    "yolo_v1": Contract(
        small.yolo_v1,
        {"classes": (4, 6, 3), "confidence": (4, 6, 2), "boxes": (4, 6, 2, 4)},
        5e-3,
        60,
    ),
    "yolo9000": Contract(small.yolo9000, {"region": (2, 3, 3, 8)}, 3e-3, 80),
    "yolo_v2": Contract(small.yolo_v2, {"region": (2, 3, 3, 8)}, 3e-3, 80),
    "fast_rcnn": Contract(
        small.fast_rcnn, {"classes": (80, 4), "boxes": (80, 3, 4)}, 3e-3, 100, small.proposals
    ),
    "overfeat": Contract(
        small.overfeat,
        {"classes": (5, 13, 3), "background": (5, 13, 1), "boxes": (5, 13, 4)},
        3e-3,
        80,
    ),
}


# Fast R-CNN's steps, with their sampling, take as long as the others' together.
_PARAMETERS = [
    pytest.param(contract, id=name, marks=[pytest.mark.slow] if name == "fast_rcnn" else [])
    for name, contract in DETECTORS.items()
]


@pytest.fixture(scope="module", params=_PARAMETERS)
def contract(request):
    return request.param


@pytest.fixture(scope="module")
def fresh(contract):
    """With its first weights; nobody trains this one."""
    keras.utils.set_random_seed(3)
    return contract.build()


@pytest.fixture(scope="module")
def overfitted(contract):
    """Trained on four images until it knows them."""
    keras.utils.set_random_seed(3)
    detector = contract.build()
    batch = small.four_images()
    detector.compile(keras.optimizers.Adam(contract.learning_rate))
    history = detector.fit(
        *contract.batch(batch), batch_size=4, epochs=contract.steps, verbose=0
    ).history
    return detector, history


def raw(detector, inputs):
    return {name: ops.convert_to_numpy(v) for name, v in detector(inputs, training=False).items()}


def assert_same_detections(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.count == b.count
        assert a.names == b.names
        np.testing.assert_allclose(a.boxes, b.boxes, atol=1e-2)
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-4)


def test_outputs_have_their_names_and_shapes_in_training_and_inference(contract, fresh):
    inputs = contract.inputs(small.four_images().images)
    for training in (False, True):
        outputs = fresh(inputs, training=training)
        assert {name: value.shape[1:] for name, value in outputs.items()} == contract.outputs
        assert {value.shape[0] for value in outputs.values()} == {4}
    for name, value in fresh.output.items():
        expected = contract.outputs[name]
        if contract.regions is not None:  # as many as regions
            expected = (None, *expected[1:])
        elif fresh.takes_any_size:  # rows and columns are the image's
            expected = (None, None, *expected[2:])
        assert value.shape[1:] == expected


def test_it_starts_from_another_of_its_kind(contract, fresh):
    """Names of layers are the same in every one of a kind; only then is everything taken."""
    keras.utils.set_random_seed(4)
    other = contract.build()
    inputs = contract.inputs(small.four_images().images)
    assert other.start_from(fresh) == []
    for name, expected in raw(fresh, inputs).items():
        np.testing.assert_array_equal(raw(other, inputs)[name], expected)


def test_every_trainable_weight_gets_a_gradient(contract):
    """SGD with rate 1 moves a weight by its gradient: in one step every weight must move."""
    detector = contract.build()
    detector.compile(keras.optimizers.SGD(1.0))
    before = [ops.convert_to_numpy(v) for v in detector.trainable_variables]
    detector.train_on_batch(*contract.batch(small.four_images()))
    still = [
        variable.path
        for variable, was in zip(detector.trainable_variables, before, strict=True)
        if np.array_equal(ops.convert_to_numpy(variable), was)
    ]
    assert not still
    assert all(np.isfinite(ops.convert_to_numpy(v)).all() for v in detector.trainable_variables)


def test_a_batch_without_objects_has_a_finite_loss_and_gradient(contract):
    detector = contract.build()
    detector.compile(keras.optimizers.SGD(0.01))
    logs = detector.train_on_batch(*contract.batch(small.no_objects()), return_dict=True)
    assert all(np.isfinite(value) for value in logs.values())
    assert all(np.isfinite(ops.convert_to_numpy(v)).all() for v in detector.variables)


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="JAX always compiles")
def test_it_trains_where_keras_compiles_it_with_xla(contract, monkeypatch):
    """As Keras does by itself where TensorFlow has a GPU."""
    machine = [SimpleNamespace(device_type="CPU"), SimpleNamespace(device_type="GPU")]
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda *kind: machine)
    detector = contract.build()
    detector.compile(keras.optimizers.SGD(1e-3))
    assert detector.jit_compile
    logs = detector.train_on_batch(*contract.batch(small.four_images()), return_dict=True)
    assert all(np.isfinite(value) for value in logs.values())


def test_it_learns_four_images_by_heart(contract, overfitted):
    """Average precision 1.0 at IoU 0.5 for each of the three classes."""
    detector, history = overfitted
    images, targets = small.four_images()
    truth = [
        (boxes[labels >= 0], labels[labels >= 0])
        for boxes, labels in zip(targets["boxes"], targets["labels"], strict=True)
    ]
    found = [(each.boxes, each.scores, each.labels) for each in contract.found(detector, images)]
    assert [oracles.average_precision(found, truth, label) for label in range(3)] == [
        pytest.approx(1.0)
    ] * 3
    assert history["loss"][-1] < 0.1 * history["loss"][0]


def test_the_loss_is_the_sum_of_its_named_terms(contract, overfitted):
    detector, history = overfitted
    terms = [history[name] for name in detector.loss_names]
    assert len(terms) > 1
    np.testing.assert_allclose(history["loss"], np.sum(terms, axis=0), rtol=1e-5)


def test_detections_are_sorted_valid_and_inside_the_image(contract, overfitted):
    detector, _ = overfitted
    rng = np.random.default_rng(5)
    photo = rng.uniform(0, 255, (130, 50, 3)).astype("uint8")
    found = contract.found(detector, photo, score_threshold=1e-6)[0]
    assert found.count == len(found.boxes) == len(found.scores) == len(found.labels) > 10
    assert (np.diff(found.scores) <= 0).all()
    assert found.scores.min() > 1e-6
    assert found.scores.max() <= 1
    assert (found.boxes[:, :2] <= found.boxes[:, 2:]).all()
    assert found.boxes.min() >= 0
    assert (found.boxes.max(axis=0) <= [50, 130, 50, 130]).all()
    assert found.boxes[:, 3].max() > 64, "in the photo's own pixels, not the network's"
    assert set(found.labels) <= {0, 1, 2}
    assert found.names == [small.CLASS_NAMES[label] for label in found.labels]


def test_regions_are_for_those_that_look_at_regions(contract, fresh):
    photo = small.four_images().images[0]
    given = None if contract.regions is None else contract.regions(photo.shape[:2])[None]
    assert len(fresh.detect(photo, regions=given)) == 1
    if contract.regions is None:
        with pytest.raises(InputError, match="leave regions out"):
            fresh.detect(photo, regions=np.zeros((1, 3, 4)))


def test_thresholds_and_limits_are_obeyed(contract, overfitted):
    detector, _ = overfitted
    image = small.four_images().images[2]
    everything = contract.found(detector, image, score_threshold=1e-9)[0]
    sure = contract.found(detector, image, score_threshold=0.5)[0]
    assert sure.count == (everything.scores > 0.5).sum() >= 3
    two = contract.found(detector, image, score_threshold=1e-9, max_detections=2)[0]
    assert two.count == 2
    apart, crowded = (
        contract.found(detector, image, score_threshold=1e-9, iou_threshold=overlap)[0]
        for overlap in (0.01, 0.9)
    )
    assert 0 < apart.count < crowded.count


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"score_threshold": "a"}, "score_threshold wants a number in 0..1, not 'a'"),
        ({"iou_threshold": float("nan")}, "iou_threshold wants a number in 0..1, not nan"),
        ({"max_detections": -1}, "max_detections wants a whole number from 1, not -1"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(given, sentence, contract, fresh):
    with pytest.raises(InputError, match=sentence):
        contract.found(fresh, small.four_images().images[0], **given)


@pytest.mark.parametrize("label", [3, 100, -2])
def test_unknown_labels_are_refused_in_memory_and_make_the_loss_of_a_batch_nan(label, contract):
    detector = contract.build()
    detector.compile("sgd")
    inputs, targets = contract.batch(small.four_images())
    targets["labels"][2, 1] = label
    with pytest.raises(InputError, match=f"0..2, or -1 for padding, and image 2 has {label}"):
        detector.fit(inputs, targets, verbose=0)
    assert np.isnan(detector.test_on_batch(inputs, targets, return_dict=True)["loss"])


def test_a_batch_gives_what_its_images_give_one_by_one(contract, overfitted):
    detector, _ = overfitted
    images = small.four_images().images
    one_by_one = [contract.found(detector, image)[0] for image in images]
    assert_same_detections(contract.found(detector, images), one_by_one)


def test_a_clone_of_a_compiled_one_is_its_network(contract):
    detector = contract.build()
    detector.compile(keras.optimizers.SGD(1e-3, momentum=0.9), weight_decay=0.01)
    network = keras.models.clone_model(detector)
    own = [w for w in detector.weights if w is not detector.images_seen]
    network.set_weights([ops.convert_to_numpy(weight) for weight in own])
    for one, other in zip(own, network.weights, strict=True):
        np.testing.assert_array_equal(*map(ops.convert_to_numpy, (one, other)))
    inputs = contract.inputs(small.four_images().images)
    expected = raw(detector, inputs)
    for name, output in raw(network, inputs).items():
        np.testing.assert_array_equal(output, expected[name])
    another = type(detector).from_config(detector.get_config())
    assert another.weight_decay == 0.01


def test_saved_whole_it_loads_back_equal(contract, overfitted, tmp_path):
    detector, _ = overfitted
    images = small.four_images().images
    contract.found(detector, images)  # what `detect` compiled must not be in the way of saving
    detector.save(tmp_path / "detector.keras")
    revived = keras.saving.load_model(tmp_path / "detector.keras")
    assert type(revived) is type(detector)
    assert revived.class_names == detector.class_names
    assert revived.image_size == detector.image_size
    inputs = contract.inputs(images)
    expected = raw(detector, inputs)
    for name, value in raw(revived, inputs).items():
        np.testing.assert_array_equal(value, expected[name])
    assert_same_detections(contract.found(revived, images), contract.found(detector, images))


def test_saved_weights_load_back_into_a_new_one(contract, overfitted, tmp_path):
    detector, _ = overfitted
    images = small.four_images().images
    detector.save_weights(tmp_path / "detector.weights.h5")
    revived = contract.build()
    contract.found(revived, images)  # compiled before the weights come: they must be seen
    revived.load_weights(tmp_path / "detector.weights.h5")
    inputs = contract.inputs(images)
    expected = raw(detector, inputs)
    for name, value in raw(revived, inputs).items():
        np.testing.assert_array_equal(value, expected[name])
    assert_same_detections(contract.found(revived, images), contract.found(detector, images))


def test_config_makes_the_same_network(fresh):
    config = fresh.get_config()
    before = copy.deepcopy(config)
    revived = type(fresh).from_config(config)
    assert config == before, "reading a config must not use it up"
    assert revived.get_config() == before
    shapes = [[(v.path, v.shape) for v in each.variables] for each in (fresh, revived)]
    assert shapes[0] == shapes[1]


def test_training_on_gives_finite_losses_after_saving_in_the_middle(contract, overfitted, tmp_path):
    detector, history = overfitted
    detector.save(tmp_path / "half.keras")
    revived = keras.saving.load_model(tmp_path / "half.keras")
    batch = contract.batch(small.four_images())
    again = revived.fit(*batch, batch_size=4, epochs=1, verbose=0).history
    assert again["loss"][0] < 1.5 * history["loss"][-1] + 0.05
    assert set(again) == set(history)
