import keras
import numpy as np
import pytest
from rich.console import Console

from kerasdet.errors import InputError
from kerasdet.weights.assign import assign, assign_matching, share


@pytest.fixture
def model():
    """Two convolutions of the same shape, which a wrong order would swap unseen, and a head."""
    inputs = keras.Input((7, 5, 2))
    x = keras.layers.Conv2D(2, 1, name="first")(inputs)
    x = keras.layers.Conv2D(2, 1, name="second")(x)
    return keras.Model(inputs, keras.layers.Conv2D(3, 1, name="head")(x), name="small")


def arrays():
    shapes = {"first": (1, 1, 2, 2), "second": (1, 1, 2, 2), "head": (1, 1, 2, 3)}
    found = {}
    for i, (layer, shape) in enumerate(shapes.items(), start=1):
        found[f"{layer}/kernel"] = np.full(shape, i, "f4")
        found[f"{layer}/bias"] = np.full(shape[-1:], -i, "f4")
    return found


def values(model):
    return [np.asarray(v) for v in model.weights]


def test_every_array_goes_to_the_variable_of_its_name_in_any_order(model):
    given = arrays()
    report = assign(model, dict(reversed(given.items())))
    assert sorted(report.loaded) == sorted(given)
    assert report.left == []
    for i, layer in enumerate(("first", "second", "head"), start=1):
        assert (np.asarray(model.get_layer(layer).kernel) == i).all()
        assert (np.asarray(model.get_layer(layer).bias) == -i).all()


def test_all_faults_come_in_one_message_and_nothing_is_assigned(model):
    given = arrays()
    del given["first/bias"]
    given["second/kernel"] = np.zeros((1, 1, 2, 5), "f4")
    given["second/bias"][1] = np.nan
    given["third/gain"] = np.zeros((), "f4")
    before = values(model)
    with pytest.raises(InputError) as raised:
        assign(model, given, source="file.pth")
    assert str(raised.value) == (
        "file.pth and model 'small' do not fit, nothing was loaded: first/bias 2 is missing; "
        "second/kernel wants 1x1x2x2, the file has 1x1x2x5; second/bias has 1 numbers that are "
        "not finite; third/gain one number is not used."
    )
    for now, then in zip(values(model), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_a_message_of_many_faults_ends(model):
    given = arrays() | {f"more/{i}": np.zeros(1) for i in range(30)}
    with pytest.raises(InputError, match=r"more/11 1 is not used; and 18 more\.$"):
        assign(model, given)


def test_skipped_variables_keep_their_values_whatever_the_file_has(model):
    given = arrays()
    given["head/kernel"] = np.zeros((1, 1, 2, 9), "f4")
    del given["head/bias"]
    kept = np.asarray(model.get_layer("head").kernel)
    report = assign_matching(model, given, skip=lambda name: name.startswith("head/"))
    assert [tuple(item) for item in report.left] == [
        ("head/kernel", (1, 1, 2, 3), (1, 1, 2, 9)),
        ("head/bias", (3,), None),
    ]
    np.testing.assert_array_equal(model.get_layer("head").kernel, kept)
    assert (np.asarray(model.get_layer("second").kernel) == 2).all()


def test_what_is_not_skipped_must_still_fit(model):
    given = arrays()
    del given["first/kernel"]
    with pytest.raises(InputError, match="first/kernel 1x1x2x2 is missing"):
        assign_matching(model, given, skip=lambda name: name.startswith("head/"))


def test_the_table_says_what_was_left_and_why(model):
    given = arrays() | {"head/kernel": np.zeros((1, 1, 2, 9), "f4")}
    del given["head/bias"]
    report = assign_matching(model, given, skip=lambda name: name.startswith("head/"))
    console = Console(width=100)
    with console.capture() as capture:
        console.print(report.table())
    text = capture.get()
    assert "4 variables loaded, 2 left as they were" in text
    for cell in ("head/kernel", "1x1x2x3", "1x1x2x9", "head/bias", "nothing"):
        assert cell in text


def test_two_variables_of_one_name_are_refused():
    inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="a")], name="inner")
    outer = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="a"), inner])
    with pytest.raises(InputError, match="two variables named 'a/kernel'"):
        assign(outer, {})


# ---------------------------------------------------------------------- from another model


def network(classes, *, filters=2, trunk="conv1", counts=False):
    """A convolution, inside a second model one of the same name, and a head for `classes`."""
    inside = keras.Input((7, 5, 2))
    inner = keras.Model(inside, keras.layers.Conv2D(2, 1, name="conv1")(inside), name="backbone")
    inputs = keras.Input((7, 5, 2))
    x = keras.layers.Conv2D(filters, 1, name=trunk)(inputs)
    x = keras.layers.Conv2D(2, 1, name="narrow")(x)
    x = keras.layers.Conv2D(classes, 1, name="head")(inner(x))
    model = keras.Model(inputs, x, name=f"for_{classes}")
    if counts:
        model.add_weight(name="images_seen", shape=(), initializer="zeros", trainable=False)
    for number, variable in enumerate(model.weights):
        variable.assign(np.full(variable.shape, 10 * classes + number, "f4"))
    return model


def test_layers_of_one_name_and_shape_are_shared_wherever_they_are():
    mine, theirs = network(3, counts=True), network(4)
    before = mine.get_layer("head").get_weights()
    assert share(mine, theirs) == ["head"]
    for layer in ("conv1", "narrow", "backbone"):
        for now, given in zip(
            mine.get_layer(layer).get_weights(), theirs.get_layer(layer).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(now, given)
    assert (np.asarray(mine.get_layer("backbone").layers[1].bias) != mine.layers[1].bias).all()
    for now, then in zip(mine.get_layer("head").get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert [float(v) for v in mine.weights if v.name == "images_seen"] == [30]  # its own still


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"filters": 5}, "that of for_4 kernel 1x1x2x5, bias 5."),
        ({"trunk": "stem"}, "that of for_4 nothing."),
    ],
)
def test_a_model_whose_first_layer_differs_is_another_network(other, said):
    model = network(3)
    before = values(model)
    with pytest.raises(InputError) as raised:
        share(model, network(4, **other))
    assert "its first layer, conv1, has kernel 1x1x2x2, bias 2" in str(raised.value)
    assert str(raised.value).endswith(said)
    for now, then in zip(values(model), before, strict=True):
        np.testing.assert_array_equal(now, then)
