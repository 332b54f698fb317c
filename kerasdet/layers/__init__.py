"""Keras layers the detectors are made of; one layer a file."""

from kerasdet.layers.caffe_max_pooling import CaffeMaxPooling2D
from kerasdet.layers.default_boxes import DefaultBoxes
from kerasdet.layers.l2_normalization import L2Normalization
from kerasdet.layers.local_response_normalization import LocalResponseNormalization
from kerasdet.layers.locally_connected import LocallyConnected2D
from kerasdet.layers.non_max_suppression import NonMaxSuppression
from kerasdet.layers.offset_pooling import Interleave, OffsetMaxPooling
from kerasdet.layers.passthrough import Passthrough
from kerasdet.layers.roi_align import ROIAlign
from kerasdet.layers.roi_pooling import ROIPooling
from kerasdet.layers.word_tree_softmax import WordTreeSoftmax

__all__ = [
    "CaffeMaxPooling2D",
    "DefaultBoxes",
    "Interleave",
    "L2Normalization",
    "LocalResponseNormalization",
    "LocallyConnected2D",
    "NonMaxSuppression",
    "OffsetMaxPooling",
    "Passthrough",
    "ROIAlign",
    "ROIPooling",
    "WordTreeSoftmax",
]
