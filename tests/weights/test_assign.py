import keras
import numpy as np
import pytest
from rich.console import Console

from kerasdet.errors import InputError
from kerasdet.weights.assign import assign, assign_matching


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
