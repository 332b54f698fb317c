"""What a small SSD computes on the back end it runs under; run by `test_backends.py` under each.

    KERAS_BACKEND=jax python -m tests.backend_probe in.weights.h5 out.npz

As a program it lets nobody import TensorFlow.
"""

import sys

import keras
import numpy as np
from keras import ops

from tests import backend, small


class Blocker:
    """Makes `import tensorflow` fail as where it is not installed."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tensorflow":
            raise ModuleNotFoundError(f"blocked: {name}", name=name)


def measure(weights) -> dict[str, np.ndarray]:
    """Raw outputs, detections, targets, and the loss terms and gradients of one training step.

    Args:
        weights: a `.weights.h5` of `small.ssd()`.
    """
    ssd = small.ssd()
    ssd.load_weights(weights)
    images, targets = small.four_images()
    results = {f"output/{name}": v for name, v in ssd.predict(images, verbose=0).items()}
    for name, value in backend.call(ssd.assign, targets).items():
        results[f"assigned/{name}"] = ops.convert_to_numpy(value)
    photos = [images[0], images[1].astype("uint8")[:40, :70]]
    for i, found in enumerate(ssd.detect(photos, score_threshold=0.27, max_detections=50)):
        for name, value in found._asdict().items():
            results[f"found/{i}/{name}"] = np.array(value)
    before = [ops.convert_to_numpy(variable) for variable in ssd.variables]
    ssd.compile(keras.optimizers.SGD(1.0), weight_decay=1e-3)
    history = ssd.fit(images, targets, batch_size=4, epochs=1, verbose=0).history
    for name, value in history.items():
        results[f"term/{name}"] = np.array(value)
    for variable, was in zip(ssd.variables, before, strict=True):
        # At a learning rate of 1 a weight moves by its gradient; a moving average by its update.
        results[f"gradient/{variable.path}"] = was - ops.convert_to_numpy(variable)
    return results


if __name__ == "__main__":
    sys.meta_path.insert(0, Blocker())
    np.savez(sys.argv[2], **measure(sys.argv[1]))
    import kerasdet

    assert kerasdet.zoo.models()
    assert not [name for name in sys.modules if name.split(".")[0] == "tensorflow"]
    print(f"{keras.backend.backend()}, no TensorFlow")
