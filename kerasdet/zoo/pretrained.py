"""The published weight files: where they are, what they are for, what they measured.

A metric is its publisher's figure with the protocol that it was measured by, never ours;
a size or hash is here only where its publisher, or two independent users, print it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasdet.errors import InputError
from kerasdet.weights import fetch as downloads
from kerasdet.weights.fetch import Source

_CAFFE_PAGE = "https://github.com/weiliu89/caffe/tree/ssd#models"
_CAFFE_LICENCE = "BSD-2-Clause (the repository's)"
_DRIVE = "https://drive.google.com/open?id=0BzKzrI_SkD1_"
_ZENODO = "https://zenodo.org/record/3463718/files/"
_MMDET = "https://download.openmmlab.com/mmdetection/v2.0/ssd/"
_MMDET_PAGE = "https://github.com/open-mmlab/mmdetection/tree/main/configs/ssd"
_MMDET_LICENCE = "Apache-2.0 (the repository's)"
_AMDEGROOT_PAGE = "https://github.com/amdegroot/ssd.pytorch"
_AMDEGROOT = "https://s3.amazonaws.com/amdegroot-models/"
_DARKNET = "https://pjreddie.com/media/files/"
_DARKNET_RAW = "https://raw.githubusercontent.com/pjreddie/darknet/master/data/"
_DARKNET_PAGE = "https://pjreddie.com/darknet/"
_DARKNET_LICENCE = "public domain (the repository's)"
_FAST_RCNN_PAGE = "https://github.com/rbgirshick/fast-rcnn"
_FAST_RCNN_LICENCE = "MIT (the repository's)"
_OVERFEAT_PAGE = "https://github.com/sermanet/OverFeat"
_OVERFEAT_LICENCE = (
    "New York University 2013, for internal research and evaluation alone; neither redistribution "
    "nor modification"
)
_DROPBOX = "https://dl.dropboxusercontent.com/s/"
_VOC07 = "VOC07 test, AP50, 11 points"
_COCO_DEV = "COCO test-dev2015, AP 0.5:0.95"
_COCO_VAL = "COCO val2017, AP 0.5:0.95"


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """One published set of weights.

    Attributes:
        model: name of the function in `kerasdet.zoo`.
        name: name of the set, as `pretrained=` takes it.
        source: the file and where it is.
        trained_on: the data.
        classes: "voc", "coco", "coco91" (COCO's 90 ids as labels), "imagenet", "overfeat" (the same
            1000 in its own order), "wordtree", or "" for a trunk alone.
        metric: its publisher's figure, in percent; None where none is given.
        protocol: how that was measured.
        default: whether `pretrained=True` means this set.
        notes: what else to know.
    """

    model: str
    name: str
    source: Source
    trained_on: str
    classes: str
    metric: float | None = None
    protocol: str = ""
    default: bool = False
    notes: str = ""

    def summary(self) -> dict[str, Any]:
        """The row as plain values, for a table or JSON."""
        return {
            "model": self.model,
            "set": self.name,
            "default": self.default,
            "trained_on": self.trained_on,
            "classes": self.classes,
            "metric": self.metric,
            "protocol": self.protocol,
            "licence": self.source.licence,
            "file": self.source.file,
            "size": self.source.size,
            "sha256": self.source.sha256,
            "sha1": self.source.sha1,
            "md5": self.source.md5,
            "from": self.source.url or self.source.page,
            "notes": self.notes,
        }


def _caffe(drive_id, model, iteration):
    """A file that the authors publish on Google Drive only, inside an archive."""
    return Source(
        file=f"VGG_{model}_iter_{iteration}.caffemodel",
        url=None,
        page=_DRIVE + drive_id,
        licence=_CAFFE_LICENCE,
    )


def _darknet(name, page, **published):
    """A file of darknet's, under the address of all of them."""
    return Source(
        file=name.rpartition("/")[2],
        url=_DARKNET + name,
        page=_DARKNET_PAGE + page,
        licence=_DARKNET_LICENCE,
        **published,
    )


def _list(file, sha1, argument):
    """A file of darknet's data/."""
    return Source(
        file=file,
        url=_DARKNET_RAW + file,
        page="https://github.com/pjreddie/darknet",
        licence=_DARKNET_LICENCE,
        sha1=sha1,
        argument=argument,
    )


TREE: tuple[Source, ...] = (
    _list("9k.tree", "b160e78e7f588bd3dfcf137fd064f30e48feab8a", "tree"),
    _list("9k.names", "801cef7f9d8ff1dba308319ef48908f60db8af75", "tree"),
)
"""YOLO9000's WordTree, and the names of its nodes."""

NODES: dict[str, Source] = {
    "coco": _list("coco9k.map", "f4e2a7261f476751d5e6d2f1788bbdb7f070238b", "nodes"),
    "imagenet_det": _list("inet9k.map", "7ada83cb729325a8e94adb7ed13c758c39aa44b1", "nodes"),
}
"""Which nodes of that tree the classes of a data set are, for `WordTree.read_map`."""


def _trunk(model):
    return Pretrained(
        model=model,
        name="imagenet",
        source=Source(
            file="VGG_ILSVRC_16_layers_fc_reduced.caffemodel",
            url=_ZENODO + "VGG_ILSVRC_16_layers_fc_reduced.caffemodel",
            page="https://gist.github.com/weiliu89/2ed6e13bfd5b57cf81d6",
            licence="not stated; the original VGG-16's is Creative Commons Attribution",
        ),
        trained_on="ImageNet ILSVRC 2012",
        classes="",
        notes="The trunk that the authors start training from; heads and extra maps start fresh.",
    )


def _fast_rcnn(model, member, metric):
    """A network of the paper, trained on VOC07: a file in the one archive of all."""
    return Pretrained(
        model=model,
        name="voc",
        source=Source(
            file="fast_rcnn_models.tgz",
            url=_DROPBOX + "e3ugqq3lca4z8q6/fast_rcnn_models.tgz",
            page=_FAST_RCNN_PAGE,
            licence=_FAST_RCNN_LICENCE,
            md5="5f7dde9f5376e18c8e065338cc5df3f7",
            member=member,
        ),
        trained_on="VOC07 trainval",
        classes="voc",
        metric=metric,
        protocol=_VOC07,
        default=True,
        notes="The authors'; an archive of 0.96 GB with their three networks.",
    )


def _fast_rcnn_start(model, member):
    """An ImageNet network that the authors start from: a file in the one archive of all."""
    return Pretrained(
        model=model,
        name="imagenet",
        source=Source(
            file="imagenet_models.tgz",
            url=_DROPBOX + "riazjuizq0w7dqm/imagenet_models.tgz",
            page=_FAST_RCNN_PAGE,
            licence=_FAST_RCNN_LICENCE,
            md5="8b1d4b9da0593fc70ef403284f810adc",
            member=member,
        ),
        trained_on="ImageNet ILSVRC 2012",
        classes="",
        notes="Convolutions, fc6 and fc7; the two outputs start fresh. An archive of 1 GB.",
    )


def _tiny_trunk(model):
    """The classifier's convolutions that darknet starts its tiny detectors from."""
    return Pretrained(
        model=model,
        name="imagenet",
        source=_darknet("darknet.conv.weights", "yolov1/"),
        trained_on="ImageNet ILSVRC 2012",
        classes="",
        notes="The first seven convolutions, darknet_reference's; the others start fresh.",
    )


def _overfeat(model, member, metric):
    """A network of the release: a file in the one archive of both."""
    return Pretrained(
        model=model,
        name="imagenet",
        source=Source(
            file="overfeat-weights.tgz",
            url="http://cilvr.cs.nyu.edu/lib/exe/fetch.php?media=overfeat:overfeat-weights.tgz",
            page=_OVERFEAT_PAGE,
            licence=_OVERFEAT_LICENCE,
            member=member,
        ),
        trained_on="ImageNet ILSVRC 2012",
        classes="overfeat",
        metric=metric,
        protocol="ILSVRC 2012 val, top-5 error, 4 scales, fine stride",
        default=True,
        notes="The classifier alone; the regression was never released. Labels are in OverFeat's own "
        "order, whose names are in the release (src/classes.h, not here): neither by synset nor by "
        "alphabet. "
        "An archive of 1.2 GB.",
    )


SETS: tuple[Pretrained, ...] = (
    Pretrained(
        model="ssd300",
        name="coco",
        source=Source(
            file="ssd300_vgg16_coco-b556d3b4.pth",
            url="https://download.pytorch.org/models/ssd300_vgg16_coco-b556d3b4.pth",
            page="https://github.com/pytorch/vision",
            licence="BSD-3-Clause (the repository's)",
            size=142_594_222,
            sha256="b556d3b43ab6c3f63d81bfb8835fe8756ac22da664357da100dccf96b6a6b42d",
        ),
        trained_on="COCO train2017",
        classes="coco91",
        metric=25.1,
        protocol=_COCO_VAL,
        default=True,
        notes="torchvision's training; labels are COCO's ids less one, ten of them unused.",
    ),
    Pretrained(
        model="ssd300",
        name="coco_mmdetection",
        source=Source(
            file="ssd300_coco_20210803_015428-d231a06e.pth",
            url=_MMDET + "ssd300_coco/ssd300_coco_20210803_015428-d231a06e.pth",
            page=_MMDET_PAGE,
            licence=_MMDET_LICENCE,
            sha256="d231a06e",
        ),
        trained_on="COCO train2017",
        classes="coco",
        metric=25.5,
        protocol=_COCO_VAL,
    ),
    Pretrained(
        model="ssd300",
        name="voc",
        source=Source(
            file="VGG_VOC0712_SSD_300x300_iter_120000.caffemodel",
            url=_ZENODO + "VGG_VOC0712_SSD_300x300_iter_120000.caffemodel",
            page=_CAFFE_PAGE,
            licence=_CAFFE_LICENCE,
        ),
        trained_on="VOC07+12 trainval",
        classes="voc",
        metric=77.2,
        protocol=_VOC07,
        notes="The authors' SSD300*, from a mirror on Zenodo.",
    ),
    Pretrained(
        model="ssd300",
        name="voc_amdegroot",
        source=Source(
            file="ssd300_mAP_77.43_v2.pth",
            url=_AMDEGROOT + "ssd300_mAP_77.43_v2.pth",
            page=_AMDEGROOT_PAGE,
            licence="MIT (the repository's)",
        ),
        trained_on="VOC07+12 trainval",
        classes="voc",
        metric=77.43,
        protocol=_VOC07,
    ),
    Pretrained(
        model="ssd300",
        name="voc_plus",
        source=Source(
            file="models_VGGNet_VOC0712Plus_SSD_300x300_ft.tar.gz",
            url="https://storage.openvinotoolkit.org/repositories/open_model_zoo/public/2021.4/"
            "ssd300/models_VGGNet_VOC0712Plus_SSD_300x300_ft.tar.gz",
            page="https://docs.openvino.ai/2021.4/omz_models_model_ssd300.html",
            licence=_CAFFE_LICENCE,
            size=97_789_219,
            sha256="e3eb9794a33eb77e6798f396df453123c249a1df554e42a3302eb4aa20a8f2ee",
            member="VGG_VOC0712Plus_SSD_300x300_ft_iter_160000.caffemodel",
        ),
        trained_on="VOC07 trainval and test, VOC12 trainval, after COCO",
        classes="voc",
        notes="Trained on VOC07 test: a figure measured there says nothing.",
    ),
    Pretrained(
        model="ssd300",
        name="coco_caffe",
        source=_caffe("dUY1Ml9GRTFpUWc", "coco_SSD_300x300", 400000),
        trained_on="COCO trainval35k",
        classes="coco",
        metric=25.1,
        protocol=_COCO_DEV,
        notes="The authors' SSD300*.",
    ),
    _trunk("ssd300"),
    Pretrained(
        model="ssd512",
        name="coco",
        source=Source(
            file="ssd512_coco_20210803_022849-0a47a1ca.pth",
            url=_MMDET + "ssd512_coco/ssd512_coco_20210803_022849-0a47a1ca.pth",
            page=_MMDET_PAGE,
            licence=_MMDET_LICENCE,
            sha256="0a47a1ca",
        ),
        trained_on="COCO train2017",
        classes="coco",
        metric=29.5,
        protocol=_COCO_VAL,
        default=True,
        notes="mmdetection's training.",
    ),
    Pretrained(
        model="ssd512",
        name="coco_caffe",
        source=_caffe("dlJpZHJzOXd3MTg", "coco_SSD_512x512", 360000),
        trained_on="COCO trainval35k",
        classes="coco",
        metric=28.8,
        protocol=_COCO_DEV,
        notes="The authors' SSD512*.",
    ),
    Pretrained(
        model="ssd512",
        name="voc",
        source=_caffe("ZDIxVHBEcUNBb2s", "VOC0712_SSD_512x512", 120000),
        trained_on="VOC07+12 trainval",
        classes="voc",
        metric=79.8,
        protocol=_VOC07,
        notes="The authors' SSD512*.",
    ),
    Pretrained(
        model="ssd512",
        name="voc_plus",
        source=Source(
            file="models_VGGNet_VOC0712Plus_SSD_512x512.tar.gz",
            url="https://storage.openvinotoolkit.org/repositories/open_model_zoo/public/2021.4/"
            "ssd512/models_VGGNet_VOC0712Plus_SSD_512x512.tar.gz",
            page="https://docs.openvino.ai/2021.4/omz_models_model_ssd512.html",
            licence=_CAFFE_LICENCE,
            size=100_991_061,
            sha256="2d98a6ddd5b4cb0ba59a37fe5d50020457cfe104d45873c3ea43d1e6dcddd12d",
            member="VGG_VOC0712Plus_SSD_512x512_iter_240000.caffemodel",
        ),
        trained_on="VOC07 trainval and test, VOC12 trainval",
        classes="voc",
        notes="Trained on VOC07 test: a figure measured there says nothing.",
    ),
    _trunk("ssd512"),
    Pretrained(
        model="yolo_v1",
        name="voc",
        source=_darknet("yolov1/yolov1.weights", "yolov1/"),
        trained_on="VOC07+12 trainval",
        classes="voc",
        default=True,
        notes="darknet's network of 2016-09: batch normalisation, a locally connected layer, 3 boxes.",
    ),
    Pretrained(
        model="yolo_v1",
        name="voc_2016",
        source=Source(
            file="yolov1_2016.weights",
            url="https://web.archive.org/web/20170124044651id_/http://pjreddie.com/media/files/"
            "yolov1.weights",
            page="https://huggingface.co/LibreYOLO/LibreYOLO1b",
            licence=_DARKNET_LICENCE,
            size=777_018_888,
            sha256="624895936c71a41b967fd851a8fbc0fd5c88bcb9f8346b9834ad2cf605826319",
        ),
        trained_on="VOC07+12 trainval",
        classes="voc",
        notes="An archived file: as the default one, with 2 boxes a cell.",
    ),
    Pretrained(
        model="yolo_v1",
        name="imagenet",
        source=_darknet("extraction.conv.weights", "yolov1/"),
        trained_on="ImageNet ILSVRC 2012",
        classes="",
        notes="The first 20 convolutions; the others start fresh.",
    ),
    Pretrained(
        model="yolo_v1_tiny",
        name="voc",
        source=_darknet("yolov1/tiny-yolov1.weights", "yolov1/"),
        trained_on="VOC07+12 trainval",
        classes="voc",
        default=True,
    ),
    _tiny_trunk("yolo_v1_tiny"),
    Pretrained(
        model="yolo_v2",
        name="coco",
        source=_darknet(
            "yolov2.weights",
            "yolov2/",
            size=203_934_260,
            sha1="a2248b25c50307b4e2ba298473e05396e79df9d1",
        ),
        trained_on="COCO trainval",
        classes="coco",
        metric=48.1,
        protocol="COCO test-dev, AP50, 608 pixels",
        default=True,
    ),
    Pretrained(
        model="yolo_v2",
        name="voc",
        source=_darknet(
            "yolov2-voc.weights",
            "yolov2/",
            size=202_704_260,
            sha1="1cc1a7f8ad12d563d85b76e9de025dc28ac397bb",
        ),
        trained_on="VOC07+12 trainval",
        classes="voc",
        metric=76.8,
        protocol=f"{_VOC07}, 416 pixels",
    ),
    Pretrained(
        model="yolo_v2",
        name="imagenet",
        source=_darknet("darknet19_448.conv.23", "yolov2/"),
        trained_on="ImageNet ILSVRC 2012",
        classes="",
        notes="The first 18 convolutions, after fine-tuning at 448 pixels; the others start fresh.",
    ),
    Pretrained(
        model="yolo_v2_tiny",
        name="coco",
        source=_darknet("yolov2-tiny.weights", "yolov2/"),
        trained_on="COCO trainval",
        classes="coco",
        default=True,
    ),
    Pretrained(
        model="yolo_v2_tiny",
        name="voc",
        source=_darknet(
            "yolov2-tiny-voc.weights",
            "yolov2/",
            size=63_471_556,
            sha1="24b4bd049fc4fa5f5e95f684a8967e65c625dff9",
        ),
        trained_on="VOC07+12 trainval",
        classes="voc",
        metric=57.1,
        protocol=f"{_VOC07}, 416 pixels",
    ),
    _tiny_trunk("yolo_v2_tiny"),
    Pretrained(
        model="yolo9000",
        name="coco_imagenet",
        source=_darknet("yolo9000.weights", "yolo/", md5="d74ee8d5909f3b7446e9b350b4dd0f44"),
        trained_on="COCO and ImageNet, jointly",
        classes="wordtree",
        metric=19.7,
        protocol="ImageNet DET val, mAP, 544 pixels",
        default=True,
    ),
    Pretrained(
        model="yolo9000",
        name="imagenet",
        source=_darknet("darknet19_448.conv.23", "yolov2/"),
        trained_on="ImageNet ILSVRC 2012",
        classes="",
        notes="The first 18 convolutions, after fine-tuning at 448 pixels; the output starts fresh.",
    ),
    Pretrained(
        model="darknet19",
        name="imagenet",
        source=_darknet("darknet19_448.weights", "imagenet/"),
        trained_on="ImageNet ILSVRC 2012",
        classes="imagenet",
        metric=76.4,
        protocol="ILSVRC 2012 val, top-1, 448 pixels",
        default=True,
    ),
    Pretrained(
        model="darknet19",
        name="imagenet_224",
        source=_darknet("darknet19.weights", "imagenet/"),
        trained_on="ImageNet ILSVRC 2012",
        classes="imagenet",
        metric=72.9,
        protocol="ILSVRC 2012 val, top-1, 224 pixels",
    ),
    Pretrained(
        model="extraction",
        name="imagenet",
        source=_darknet("extraction.weights", "imagenet/"),
        trained_on="ImageNet ILSVRC 2012",
        classes="imagenet",
        metric=72.5,
        protocol="ILSVRC 2012 val, top-1, 224 pixels",
        default=True,
    ),
    Pretrained(
        model="darknet_reference",
        name="imagenet",
        source=_darknet("darknet.weights", "imagenet/"),
        trained_on="ImageNet ILSVRC 2012",
        classes="imagenet",
        metric=61.1,
        protocol="ILSVRC 2012 val, top-1",
        default=True,
    ),
    Pretrained(
        model="tiny_darknet",
        name="imagenet",
        source=_darknet("tiny.weights", "tiny-darknet/"),
        trained_on="ImageNet ILSVRC 2012",
        classes="imagenet",
        metric=58.7,
        protocol="ILSVRC 2012 val, top-1",
        default=True,
    ),
    _fast_rcnn("fast_rcnn_vgg16", "vgg16_fast_rcnn_iter_40000.caffemodel", 66.9),
    _fast_rcnn_start("fast_rcnn_vgg16", "VGG16.v2.caffemodel"),
    Pretrained(
        model="fast_rcnn_vgg16",
        name="imagenet_keras",
        source=Source(
            file="vgg16_weights_tf_dim_ordering_tf_kernels.h5",
            url="https://storage.googleapis.com/tensorflow/keras-applications/vgg16/"
            "vgg16_weights_tf_dim_ordering_tf_kernels.h5",
            page="https://keras.io/api/applications/vgg/",
            licence="not stated; the original VGG-16's is Creative Commons Attribution",
            md5="64373286793e3c8b2b4e3219cbf3544b",
        ),
        trained_on="ImageNet ILSVRC 2012",
        classes="",
        notes="The same VGG-16, as keras.applications has it.",
    ),
    _fast_rcnn("fast_rcnn_vgg_m_1024", "vgg_cnn_m_1024_fast_rcnn_iter_40000.caffemodel", 59.2),
    _fast_rcnn_start("fast_rcnn_vgg_m_1024", "VGG_CNN_M_1024.v2.caffemodel"),
    _fast_rcnn("fast_rcnn_caffenet", "caffenet_fast_rcnn_iter_40000.caffemodel", 57.1),
    _fast_rcnn_start("fast_rcnn_caffenet", "CaffeNet.v2.caffemodel"),
    Pretrained(
        model="fast_rcnn_caffenet",
        name="imagenet_caffe",
        source=Source(
            file="bvlc_reference_caffenet.caffemodel",
            url="http://dl.caffe.berkeleyvision.org/bvlc_reference_caffenet.caffemodel",
            page="https://github.com/BVLC/caffe/tree/master/models/bvlc_reference_caffenet",
            licence="unrestricted use (its page's words)",
            sha1="4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46",
        ),
        trained_on="ImageNet ILSVRC 2012",
        classes="",
        notes="The same CaffeNet, from Caffe's model zoo.",
    ),
    _overfeat("overfeat_fast", "net_weight_0", 16.39),
    _overfeat("overfeat_accurate", "net_weight_1", 14.18),
    _overfeat("overfeat_fast_classifier", "net_weight_0", 16.39),
    _overfeat("overfeat_accurate_classifier", "net_weight_1", 14.18),
)


def find(model: str, name: str | bool = True) -> Pretrained:
    """The set of that name.

    Args:
        model: name of the function in `kerasdet.zoo`.
        name: the set's, or True for the model's default.

    Raises:
        InputError: if the model has no such set; the sentence lists those it has.
    """
    rows = [row for row in SETS if row.model == model]
    for row in rows:
        if (name is True and row.default) or name == row.name:
            return row
    known = ", ".join(repr(row.name) for row in rows) or "none"
    raise InputError(
        f"{model} has no pretrained set {name!r}; it has {known}, or give a file's path."
    )


def fetch(model: str, name: str | bool = True) -> Path:
    """The set's weight file on this machine, downloaded and checked if it is not there yet.

    Raises:
        InputError: if there is no such set, or the file cannot be had; the sentence says
            which file to get, from where, and where to put it.
    """
    return downloads.fetch(find(model, name).source)


def fetch_nodes(name: str) -> Path:
    """The list of the nodes in YOLO9000's tree that a data set's classes are, as `fetch`.

        model.for_classes(COCO_NAMES, model.tree.read_map(fetch_nodes("coco")))

    Args:
        name: "coco" (80 classes), or "imagenet_det" (the 200 of ILSVRC's detection task).

    Raises:
        InputError: if there is no such list, or the file cannot be had.
    """
    if name not in NODES:
        raise InputError(f"There are nodes of the classes of {', '.join(NODES)}, not of {name!r}.")
    return downloads.fetch(NODES[name])
