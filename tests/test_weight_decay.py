import keras
import numpy as np
from keras import layers

from kerasdet import weight_decay


def network():
    images = keras.Input((3,))
    x = layers.Dense(2, name="dense")(images)
    model = keras.Model(images, layers.BatchNormalization(name="norm")(x))
    model.get_layer("dense").set_weights([np.arange(6.0).reshape(3, 2), np.full(2, 100.0)])
    return model


def test_the_penalty_is_half_the_sum_of_squares_of_kernels_alone():
    found = weight_decay.penalty(network().trainable_variables, 0.1)
    assert float(found) == np.float32(0.1 / 2 * (1 + 4 + 9 + 16 + 25))


def test_kernels_of_every_kind_decay_and_nothing_else():
    images = keras.Input((8, 8, 4))
    x = layers.Conv2D(2, 1)(images)
    x = layers.SeparableConv2D(2, 3)(x)
    x = layers.PReLU()(layers.BatchNormalization()(x))
    model = keras.Model(images, x)
    found = [v.path.split("/")[-1] for v in model.trainable_variables if weight_decay.decays(v)]
    assert found == ["kernel", "depthwise_kernel", "pointwise_kernel"]


def test_an_optimizers_own_decay_spares_biases_and_normalisation():
    model = network()
    plain = keras.optimizers.AdamW(0.01, weight_decay=0.5)
    for optimizer in (
        plain,
        keras.optimizers.LossScaleOptimizer(keras.optimizers.AdamW(0.01, 0.5)),
    ):
        weight_decay.spare_others(optimizer, model.trainable_variables)
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        kernel, *others = model.trainable_variables
        assert inner._use_weight_decay(kernel)
        assert not any(inner._use_weight_decay(v) for v in others)
        assert len(others) == 3


def test_one_process_without_a_strategy_is_one_replica():
    assert weight_decay.replica_count() == 1
