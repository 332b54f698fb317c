"""What every builder's arguments mean, and what it says of those that mean nothing."""

import pytest

from kerasdet import zoo
from kerasdet.errors import InputError

BUILDERS = [name for name in zoo.__all__ if name not in ("CLASSIFIERS", "build", "models")]


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("class_names", [5, 2.5, "dog", {"cat", "dog"}])
def test_class_names_that_are_no_list_are_refused_before_a_file_is_looked_at(name, class_names):
    said = r"wants a list of names as class_names|class_names must be a list"
    with pytest.raises(InputError, match=said):
        zoo.build(name, class_names=class_names, pretrained="nowhere.weights")


@pytest.mark.parametrize("name", BUILDERS)
def test_a_number_of_classes_that_does_not_fit_the_names_is_refused_likewise(name):
    with pytest.raises(InputError, match="num_classes=3 does not fit the 2 class_names"):
        zoo.build(name, num_classes=3, class_names=["a", "b"], pretrained="nowhere.weights")
