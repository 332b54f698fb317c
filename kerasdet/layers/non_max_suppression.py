"""Per-class non-maximum suppression as a layer, for functional graphs and exports."""

import keras

from kerasdet.suppression import Detections, non_max_suppression


@keras.saving.register_keras_serializable(package="kerasdet")
class NonMaxSuppression(keras.layers.Layer):
    """Keeps, class by class, the boxes that no better box of the class covers.

    Args:
        score_threshold: a box needs more than this.
        iou_threshold: a box that overlaps a better one of its class by more goes.
        max_per_class: candidates of each class that are looked at.
        max_detections: D, rows of the result over all classes.
        **kwargs: what every Keras layer takes.

    Call:
        boxes: (B, A, 4) xyxy.
        scores: (B, A, K), without background.
        returns: `Detections`: boxes (B, D, 4), scores (B, D), labels (B, D), count (B,).

    Source: see `kerasdet.suppression.non_max_suppression`.
    """

    def __init__(
        self,
        score_threshold=0.01,
        iou_threshold=0.45,
        *,
        max_per_class=400,
        max_detections=200,
        **kwargs,
    ):
        kwargs.setdefault("dtype", "float32")  # half precision would move boxes by pixels
        super().__init__(**kwargs)
        self.score_threshold = score_threshold
        self.iou_threshold = iou_threshold
        self.max_per_class = max_per_class
        self.max_detections = max_detections

    def call(self, boxes, scores):
        """(B, A, 4) and (B, A, K) to `Detections`."""
        return non_max_suppression(
            boxes,
            scores,
            score_threshold=self.score_threshold,
            iou_threshold=self.iou_threshold,
            max_per_class=self.max_per_class,
            max_detections=self.max_detections,
        )

    def compute_output_spec(self, boxes, scores):
        """Fixed-size rows, whatever comes in."""
        batch, rows = boxes.shape[0], self.max_detections
        return Detections(
            keras.KerasTensor((batch, rows, 4), "float32"),
            keras.KerasTensor((batch, rows), "float32"),
            keras.KerasTensor((batch, rows), "int32"),
            keras.KerasTensor((batch,), "int32"),
        )

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "score_threshold": self.score_threshold,
            "iou_threshold": self.iou_threshold,
            "max_per_class": self.max_per_class,
            "max_detections": self.max_detections,
        }
