"""Keras layers the detectors are made of; one layer a file."""

from kerasdet.layers.default_boxes import DefaultBoxes
from kerasdet.layers.l2_normalization import L2Normalization
from kerasdet.layers.locally_connected import LocallyConnected2D
from kerasdet.layers.non_max_suppression import NonMaxSuppression
from kerasdet.layers.passthrough import Passthrough
from kerasdet.layers.roi_pooling import ROIPooling
from kerasdet.layers.word_tree_softmax import WordTreeSoftmax

__all__ = [
    "DefaultBoxes",
    "L2Normalization",
    "LocallyConnected2D",
    "NonMaxSuppression",
    "Passthrough",
    "ROIPooling",
    "WordTreeSoftmax",
]
