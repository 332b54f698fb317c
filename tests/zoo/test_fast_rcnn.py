"""Fast R-CNN's builders: what a Caffe file says of its network, and what is loaded from it."""

import io
import tarfile
from dataclasses import replace

import numpy as np
import pytest

from kerasdet import zoo
from kerasdet.classes import VOC_NAMES
from kerasdet.errors import InputError
from kerasdet.weights import fetch as downloads
from kerasdet.weights.caffe_file import CaffeModel
from kerasdet.weights.maps import fast_rcnn as maps
from kerasdet.weights.maps import vgg16
from kerasdet.zoo import pretrained
from tests.weights import caffe_writer

pytestmark = pytest.mark.slow

# Kernels (out, in, height, width) of models/*/train.prototxt, the inputs those of one group.
FIVE = {
    "caffenet": {
        "conv1": (96, 3, 11, 11),
        "conv2": (256, 48, 5, 5),
        "conv3": (384, 256, 3, 3),
        "conv4": (384, 192, 3, 3),
        "conv5": (256, 192, 3, 3),
    },
    "vgg_m_1024": {
        "conv1": (96, 3, 7, 7),
        "conv2": (256, 96, 5, 5),
        "conv3": (512, 256, 3, 3),
        "conv4": (512, 512, 3, 3),
        "conv5": (512, 512, 3, 3),
    },
}
HIDDEN = (8, 6)  # the convolutions are the release's, what follows is narrow: files stay small


def shapes(network, *, bins=6, classes=20, outputs=True):
    """Layer to weight shape of a file."""
    if network == "vgg16":
        channels = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
        found = {
            name: (out, given, 3, 3)
            for name, out, given in zip(vgg16.LAYERS[:13], channels, [3, *channels], strict=False)
        }
    else:
        found = dict(FIVE[network])
    last = list(found.values())[-1][0]
    found |= {"fc6": (HIDDEN[0], last * bins * bins), "fc7": HIDDEN[::-1]}
    if not outputs:
        return found | {"fc8": (1000, HIDDEN[1])}
    return found | {
        "cls_score": (classes + 1, HIDDEN[1]),
        "bbox_pred": (4 * classes + 4, HIDDEN[1]),
    }


def blobs_of(network, **settings):
    """Every layer's weights are small whole numbers, its biases its place among the layers."""
    return {
        name: [
            (np.arange(np.prod(shape)) % 251).astype("f4").reshape(shape),
            np.full(shape[0], number, "f4"),
        ]
        for number, (name, shape) in enumerate(shapes(network, **settings).items())
    }


def content(network, **settings):
    blobs = blobs_of(network, **settings)
    layers = {name: ("", pair) for name, pair in blobs.items()}
    return caffe_writer.net(layers).SerializeToString()


@pytest.fixture(scope="module")
def caffenet(tmp_path_factory):
    """A trained CaffeNet's file."""
    path = tmp_path_factory.mktemp("weights") / "caffenet_fast_rcnn_iter_40000.caffemodel"
    path.write_bytes(content("caffenet"))
    return path


def test_a_released_file_gives_its_classes_and_weights(caffenet, capsys):
    model = zoo.fast_rcnn_caffenet(pretrained=caffenet, hidden=HIDDEN)
    assert model.class_names == list(VOC_NAMES)
    assert model.name == "fast_rcnn_caffenet"
    blobs = blobs_of("caffenet")
    np.testing.assert_array_equal(model.get_layer("cls_score").kernel, blobs["cls_score"][0].T)
    # What the layer "boxes" gives of it, with the deviations 0.1, 0.1, 0.2, 0.2, are raw offsets.
    np.testing.assert_allclose(
        np.array(model.get_layer("bbox_pred").kernel) * np.tile([0.1, 0.1, 0.2, 0.2], 20),
        blobs["bbox_pred"][0][4:].T,
        rtol=1e-6,
    )
    np.testing.assert_array_equal(
        model.get_layer("conv4").kernel, blobs["conv4"][0].transpose(2, 3, 1, 0)
    )
    assert capsys.readouterr().err == ""


def test_with_other_classes_a_table_says_what_was_left(caffenet, capsys):
    model = zoo.fast_rcnn_caffenet(class_names=["a", "b"], pretrained=caffenet, hidden=HIDDEN)
    assert model.num_classes == 2
    np.testing.assert_array_equal(model.get_layer("fc7").bias, [6] * 6)
    printed = capsys.readouterr().err
    assert "14 variables loaded, 4 left as they were" in printed
    for name in ("cls_score/kernel", "cls_score/bias", "bbox_pred/kernel", "bbox_pred/bias"):
        assert name in printed


def test_an_imagenet_file_starts_a_network_for_any_classes(tmp_path, capsys):
    path = tmp_path / "VGG_CNN_M_1024.v2.caffemodel"
    path.write_bytes(content("vgg_m_1024", outputs=False))
    model = zoo.fast_rcnn_vgg_m_1024(3, pretrained=path, hidden=HIDDEN)
    assert model.class_names == ["class 0", "class 1", "class 2"]
    assert "14 variables loaded, 4 left" in capsys.readouterr().err
    blobs = blobs_of("vgg_m_1024", outputs=False)
    np.testing.assert_array_equal(
        model.get_layer("conv5").kernel, blobs["conv5"][0].transpose(2, 3, 1, 0)
    )


def test_vgg16s_layers_have_the_releases_names_and_shapes():
    """Of 7x7 bins; zeros without memory of their own."""
    blobs = {
        name: [np.broadcast_to(np.float32(0), shape), np.zeros(shape[0], "f4")]
        for name, shape in shapes("vgg16", bins=7).items()
    }
    weights = maps.from_caffe(CaffeModel("", blobs, {}, {}))
    model = zoo.fast_rcnn_vgg16(hidden=HIDDEN)
    assert not maps.load(model, weights).left
    assert model.get_layer("fc6").kernel.shape == (512 * 7 * 7, 8)


def test_a_compressed_file_gives_a_compressed_model(tmp_path):
    blobs = blobs_of("caffenet")
    (fc6, bias) = blobs.pop("fc6")
    blobs["fc6_L"] = [fc6[:3]]
    blobs["fc6_U"] = [np.arange(24, dtype="f4").reshape(8, 3), bias]
    path = tmp_path / "compressed.caffemodel"
    layers = {name: ("InnerProduct", pair) for name, pair in blobs.items()}
    path.write_bytes(caffe_writer.net(layers).SerializeToString())
    model = zoo.fast_rcnn_caffenet(pretrained=path, hidden=HIDDEN)
    assert model.ranks == {"fc6": 3}
    np.testing.assert_array_equal(model.get_layer("fc6_U").kernel, blobs["fc6_U"][0].T)
    assert [w.shape for w in model.get_layer("fc6_L").weights] == [(9216, 3)]


def test_a_file_of_another_network_is_refused_by_both_names(caffenet):
    with pytest.raises(InputError, match="holds the network caffenet, not vgg_m_1024"):
        zoo.fast_rcnn_vgg_m_1024(pretrained=caffenet)


def test_a_files_other_widths_are_refused(caffenet):
    with pytest.raises(InputError, match=r"fc6/kernel wants 9216x9, the file has 9216x8"):
        zoo.fast_rcnn_caffenet(pretrained=caffenet, hidden=(9, 6))


def test_a_set_comes_out_of_its_archive(tmp_path, monkeypatch):
    """As the authors pack it: three networks in a folder, one of which is taken."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    archive = downloads.cache_folder() / "fast_rcnn_models.tgz"
    archive.parent.mkdir(parents=True)
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for name, data in (
            ("fast_rcnn_models/vgg16_fast_rcnn_iter_40000.caffemodel", b"not this one"),
            (
                "fast_rcnn_models/caffenet_fast_rcnn_iter_40000.caffemodel",
                content("caffenet", classes=2),
            ),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    row = pretrained.find("fast_rcnn_caffenet")
    here = replace(row, source=row.source._replace(md5=None))  # it is not the authors' file
    monkeypatch.setattr(pretrained, "SETS", (here,))
    model = zoo.fast_rcnn_caffenet(pretrained=True, hidden=HIDDEN)
    assert model.num_classes == 2


def test_a_keras_file_of_ones_own_is_loaded(tmp_path):
    model = zoo.fast_rcnn_small(3, width=4, hidden=(8,))
    model.save_weights(tmp_path / "own.weights.h5")
    again = zoo.fast_rcnn_small(3, width=4, hidden=(8,), pretrained=tmp_path / "own.weights.h5")
    for ours, theirs in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(InputError, match="no published weights"):
        zoo.fast_rcnn_small(pretrained=True)


def test_the_small_one_pools_at_eight_pixels_a_cell():
    model = zoo.fast_rcnn_small(width=4)
    assert (model.stride, model.image_size, model.short_side) == (8, (480, 480), 480)
    assert model.get_layer("fc6").kernel.shape == (5 * 5 * 4 * 4, 256)
    assert model.class_names == list(VOC_NAMES)
