"""A network and what reads its outputs, compiled together by the back end."""

import keras


def compiled(model, read, shapes):
    """A function from NumPy inputs to `read(model(inputs))`, compiled by the back end.

    Args:
        model: a Keras model.
        read: of its outputs.
        shapes: of the input, or a dict of them; None where a side is not known.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if isinstance(shapes, dict):
            spec = {name: tf.TensorSpec(shape, tf.float32) for name, shape in shapes.items()}
        else:
            spec = tf.TensorSpec(shapes, tf.float32)
        graph = tf.function(
            lambda inputs: read(model(inputs, training=False)), [spec], autograph=False
        )
        return graph.get_concrete_function()  # called by itself, TensorFlow warns of many like it
    if keras.backend.backend() == "jax":
        import jax

        @jax.jit
        def forward(trainable, rest, inputs):
            return read(model.stateless_call(trainable, rest, inputs, training=False)[0])

        return lambda inputs: forward(
            [v.value for v in model.trainable_variables],
            [v.value for v in model.non_trainable_variables],
            inputs,
        )
    return lambda inputs: read(model(inputs, training=False))


def compiled_alone(read, *arrays):
    """A function of NumPy arrays without a network, compiled by the back end.

    Args:
        read: the function.
        arrays: of each (shape, dtype); None where a side is not known.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        graph = tf.function(read, [tf.TensorSpec(*array) for array in arrays], autograph=False)
        return graph.get_concrete_function()
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(read)
    return read
