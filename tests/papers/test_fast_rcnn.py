"""Fast R-CNN's numbers: the paper's, and those of the release's three networks."""

import keras
import pytest

from kerasdet.detectors.fast_rcnn import SHORT_SIDES, FastRCNN

pytestmark = pytest.mark.slow

# Numbers of each network at 20 classes, of its prototxt; bbox_pred is told apart, of which the
# release has rows for background too. VGG_CNN_M_1024: 96 7x7, 256 5x5, 3 x 512 3x3; CaffeNet's
# conv2, conv4 and conv5 are in two groups. fc6 is 4096 over 6x6 bins in both.
M_CONVOLUTIONS = (
    (3 * 49 + 1) * 96 + (96 * 25 + 1) * 256 + (256 * 9 + 1) * 512 + 2 * (512 * 9 + 1) * 512
)
S_CONVOLUTIONS = (
    (3 * 121 + 1) * 96
    + (48 * 25 + 1) * 256
    + (256 * 9 + 1) * 384
    + (192 * 9 + 1) * 384
    + (192 * 9 + 1) * 256
)
RELEASED = {
    "vgg16": 134_690_729,
    "vgg_m_1024": M_CONVOLUTIONS
    + (36 * 512 + 1) * 4096
    + (4096 + 1) * 1024
    + (1024 + 1) * (21 + 84),
    "caffenet": S_CONVOLUTIONS + (36 * 256 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * (21 + 84),
}


@pytest.fixture(autouse=True)
def unmade():
    """Weights have shapes but no memory: VGG16's are half a gigabyte."""
    with keras.StatelessScope(initialize_variables=False):
        yield
    keras.utils.clear_session()


def released_count(network):
    """As the release counts: with background's four rows of bbox_pred, without the statistics."""
    rows = 4 * (network.get_layer("bbox_pred").kernel.shape[0] + 1)
    statistics = network.get_layer("boxes").count_params()
    assert statistics == 2 * 20 * 4
    return network.count_params() + rows - statistics


@pytest.mark.parametrize(("backbone", "count"), RELEASED.items())
def test_networks_have_as_many_numbers_as_their_files(backbone, count):
    assert released_count(FastRCNN(20, backbone=backbone)) == count


def test_vgg16_with_ranks_1024_and_256_has_47_million_numbers():
    """models/VGG16/compressed: 102.8 million of fc6 become 29.9, 16.8 of fc7 become 2.1 (sec. 3.1)."""
    network = FastRCNN(20, ranks={"fc6": 1024, "fc7": 256})
    assert released_count(network) == 47_134_633
    assert network.get_layer("fc6_L").count_params() == 25088 * 1024
    assert network.get_layer("fc6_U").count_params() == (1024 + 1) * 4096
    assert network.get_layer("fc7_L").count_params() == 4096 * 256
    assert network.get_layer("fc7_U").count_params() == (256 + 1) * 4096


def test_vgg16_pools_7x7_bins_at_a_sixteenth_and_predicts_21_and_80_numbers():
    """models/VGG16/test.prototxt: pooled 7x7, scale 0.0625, cls_score 21; bbox_pred 84 less 4."""
    network = FastRCNN(20)
    pool = network.get_layer("roi_pool5")
    assert (pool.pool_size, pool.spatial_scale) == (7, 0.0625)
    assert network.get_layer("flatten").output.shape == (None, None, 25088)
    assert network.get_layer("cls_score").units == 21
    assert network.get_layer("bbox_pred").units == 84 - 4
    assert [network.get_layer(name).rate for name in ("drop6", "drop7")] == [0.5, 0.5]
    assert {name: v.shape for name, v in network.output.items()} == {
        "classes": (None, None, 21),
        "boxes": (None, None, 20, 4),
    }


def test_the_other_two_pool_6x6_bins():
    for backbone, channels in (("vgg_m_1024", 512), ("caffenet", 256)):
        network = FastRCNN(20, backbone=backbone)
        assert network.get_layer("flatten").output.shape == (None, None, 36 * channels)
        assert network.get_layer("roi_pool5").spatial_scale == 0.0625


def test_the_paper_fine_tunes_9_of_vgg16s_13_convolutions():
    """Sec. 4.5: conv3_1 and up; of the smaller networks all but conv1."""
    network = FastRCNN(20, train_from="paper")
    trained = [layer.name for layer in network.layers if layer.trainable_weights]
    convolutions = [name for name in trained if name.startswith("conv")]
    assert len(convolutions) == 9
    assert convolutions[0] == "conv3_1"
    assert set(trained[9:]) == {"fc6", "fc7", "cls_score", "bbox_pred"}
    for backbone in ("vgg_m_1024", "caffenet"):
        network = FastRCNN(20, backbone=backbone, train_from="paper")
        frozen = [layer.name for layer in network.layers if layer.weights and not layer.trainable]
        assert frozen == ["conv1"]


def test_photos_are_600_pixels_high_or_wide_and_1000_at_the_most():
    """Sec. 5.2; lib/fast_rcnn/config.py: SCALES 600, MAX_SIZE 1000; five sizes in multi-scale."""
    network = FastRCNN(20)
    assert (network.short_side, network.image_size) == (600, (1000, 1000))
    assert SHORT_SIDES == (480, 576, 688, 864, 1200)


def test_a_step_draws_64_regions_of_an_image():
    """Sec. 2.3: R = 128 of N = 2 images, 25% with an overlap from 0.5 on, the rest in [0.1, 0.5)."""
    assert FastRCNN(20).sampling == {
        "samples": 64,
        "foreground_share": 0.25,
        "foreground_iou": 0.5,
        "background_iou": (0.1, 0.5),
    }
