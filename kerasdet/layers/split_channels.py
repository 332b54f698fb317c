"""The channels of a map taken apart into groups of equal size."""

import keras
from keras import ops

from kerasdet.errors import InputError


@keras.saving.register_keras_serializable(package="kerasdet")
class SplitChannels(keras.layers.Layer):
    """Gives every pixel's channels a second axis: one row of numbers for each box of a cell.

    Keras' `Reshape` does the same only where height or width is known.

    Args:
        groups: A, rows that the channels make up; the first row's channels stand first.
        **kwargs: what every Keras layer takes.

    Call:
        x: (B, H, W, A * N); H and W need not be known.
        returns: (B, H, W, A, N), in the layer's dtype.

    Raises:
        InputError: if the channels do not divide.
    """

    def __init__(self, groups, **kwargs):
        super().__init__(**kwargs)
        self.groups = groups

    def call(self, x):
        """Splits the last axis."""
        shape = self.compute_output_shape(x.shape)
        _, height, width, _ = ops.shape(x)
        return ops.reshape(x, (-1, height, width, *shape[3:]))

    def compute_output_shape(self, input_shape):
        """(B, H, W, A, N)."""
        *outer, channels = input_shape
        if channels % self.groups:
            raise InputError(
                f"SplitChannels cannot make {self.groups} groups of {channels} channels."
            )
        return (*outer, self.groups, channels // self.groups)

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "groups": self.groups}
