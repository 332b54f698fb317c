"""Keras layers the detectors are made of; one layer a file."""

from kerasdet.layers.default_boxes import DefaultBoxes
from kerasdet.layers.l2_normalization import L2Normalization
from kerasdet.layers.non_max_suppression import NonMaxSuppression

__all__ = ["DefaultBoxes", "L2Normalization", "NonMaxSuppression"]
