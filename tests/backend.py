"""Calls and gradients on either back end.

JAX compiles every single operation of an eager call by itself, which takes far longer than
compiling the function once; TensorFlow runs it eagerly.
"""

import functools

import keras
import numpy as np


@functools.cache
def _ready(function, options):
    bound = functools.partial(function, **dict(options))
    if keras.backend.backend() != "jax":
        return bound
    import jax

    return jax.jit(bound)


def call(function, *arrays, **options):
    """`function(*arrays, **options)`; the options are constants."""
    return _ready(function, tuple(sorted(options.items())))(*arrays)


def gradients(function, *arrays) -> list[np.ndarray]:
    """Of the scalar `function(*arrays)`, for each array."""
    if keras.backend.backend() == "jax":
        import jax

        places = tuple(range(len(arrays)))
        return [np.asarray(g) for g in jax.jit(jax.grad(function, places))(*arrays)]
    import tensorflow as tf

    tensors = [tf.constant(array) for array in arrays]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = function(*tensors)
    return [tf.convert_to_tensor(g).numpy() for g in tape.gradient(value, tensors)]
