"""Weight decay as Caffe's and darknet's SGD have it: on kernels, never on biases or normalisation."""

import keras
from keras import ops

# Biases, normalisation's scales and gains are left alone.
_DECAYED = ("kernel", "depthwise_kernel", "pointwise_kernel")


def decays(variable) -> bool:
    """Whether weight decay moves a variable."""
    return variable.path.rsplit("/", 1)[-1] in _DECAYED


def penalty(variables, strength):
    """The L2 term strength / 2 * sum(w**2) over the kernels among the variables, float32."""
    squares = [ops.sum(ops.square(ops.cast(v, "float32"))) for v in variables if decays(v)]
    return strength / 2 * sum(squares)


def spare_others(optimizer, variables) -> None:
    """Keeps a decay of the optimizer's own, as AdamW has, from all variables but the kernels.

    Args:
        optimizer: a Keras optimizer that has not been built.
        variables: the trainable variables of the model.
    """
    decaying = getattr(optimizer, "inner_optimizer", optimizer)  # within a LossScaleOptimizer
    if getattr(decaying, "weight_decay", None) and not decaying.built:
        decaying.exclude_from_weight_decay(var_list=[v for v in variables if not decays(v)])


def replica_count() -> int:
    """How many replicas' gradients are added up; Keras divides its own losses by it, not ours."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync
