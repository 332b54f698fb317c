"""The yardstick sees what R-CNN saw, and runs the network that it is compared with."""

import importlib.util
from pathlib import Path

import numpy as np

from kerasdet.images import warp
from tests import small

_FILE = Path(__file__).resolve().parents[2] / "tools" / "rcnn.py"
_SPEC = importlib.util.spec_from_file_location("rcnn", _FILE)
rcnn = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(rcnn)


def test_a_region_is_warped_with_sixteen_pixels_around_it():
    """32 of 64 pixels are the region's: as much again of the image is seen around it."""
    image = np.random.default_rng(0).uniform(0, 255, (70, 90, 3))
    found = rcnn.crop(image, (30, 20, 50, 28), (1, 2, 3), side=64, context=16)
    np.testing.assert_allclose(found, warp(image[16:32, 20:60], (64, 64)), atol=1e-3)


def test_outside_the_image_the_mean_stands():
    image = np.full((40, 40, 3), 200.0)
    found = rcnn.crop(image, (0, 24, 16, 40), (1, 2, 3), side=64, context=16)
    # 32 pixels are seen each way: of columns -8 to 24, and rows 16 to 48, 8 are not in the image.
    np.testing.assert_allclose(found[:48, 16:], 200.0)
    np.testing.assert_array_equal(found[:, :16], np.broadcast_to([1, 2, 3], (64, 16, 3)))
    np.testing.assert_array_equal(found[48:], np.broadcast_to([1, 2, 3], (16, 64, 3)))


def test_a_region_of_less_than_a_pixel_is_seen():
    image = np.random.default_rng(0).uniform(0, 255, (8, 8, 3))
    found = rcnn.crop(image, (7.6, 0.1, 7.9, 0.3), (0, 0, 0), side=32, context=4)
    assert np.isfinite(found).all()
    assert found.any()


def test_each_region_goes_through_the_network_alone(rng):
    """As Fast R-CNN's one region of a picture of it."""
    detector = small.fast_rcnn()
    image = rng.uniform(0, 255, (50, 60, 3)).astype("float32")
    regions = np.array([[3, 4, 40, 30], [10, 20, 55, 50], [0, 0, 60, 50]], "float32")
    mean = (10.0, 20.0, 30.0)
    found = rcnn.rcnn(detector, image, regions, mean, side=64, batch=2)
    for row, region in enumerate(regions):
        square = rcnn.crop(image, region, mean, side=64).astype("float32")
        inputs = {"images": square[None], "regions": np.float32([[[0, 0, 48, 48]]])}
        outputs = detector(inputs)
        for name, values in found.items():
            np.testing.assert_allclose(values[row], outputs[name][0, 0], rtol=1e-4, atol=1e-5)


def test_vgg16s_last_pool_is_what_regions_are_pooled_by():
    """224 pixels are 14x14 cells; seven bins of the region have two each (test.prototxt, roi_pool5)."""
    from kerasdet.layers import ROIPooling

    cells = np.random.default_rng(0).uniform(size=(1, 14, 14, 3)).astype("float32")
    region = rcnn.inputs_of(np.zeros((1, rcnn.SIDE, rcnn.SIDE, 3), "float32"))["regions"]
    pooled = np.asarray(ROIPooling(7, 1 / 16)(cells, region))[0, 0]
    expected = cells[0].reshape(7, 2, 7, 2, 3).max(axis=(1, 3))
    np.testing.assert_array_equal(pooled, expected)
