"""What decides a training run: data, model, augmentation, optimizer and schedule."""

import dataclasses
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from kerasdet import zoo
from kerasdet.errors import InputError
from kerasdet.schedules import WarmUpPolynomial, WarmUpSteps, check_finite
from kerasdet.word_tree import WordTree

PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")
_OPTIMIZERS = ("sgd", "adam", "adamw")
_SCHEDULES = ("steps", "cosine", "poly")
_RULES = ("voc07", "voc10", "coco")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training run computes.

    Data sets are written as the shell writes them ("voc:DIR:train", see `kerasdet.data.load`),
    one or several; `{data_dir}` in them is filled in by `train(..., data_dir=)`.

    Attributes:
        model: a name in `kerasdet.zoo`, or a function from class names to a detector or a
            classifier; one with a parameter `pretrained` is given that too.
        train: data to learn from: with boxes for a detector, with one label an image for a
            classifier ("folders:DIR:train", see `kerasdet.data.source.IMAGE_FORMS`).
        task: "detection" or "classification", which a function as model has to say.
        val: data to measure on after every epoch; the best weights are chosen by it.
        classification_train: images with labels alone, for joint training of a detector with
            a WordTree (YOLO9000).
        tree: of "yolo9000" by its name, the file of its WordTree, `{data_dir}` filled in; see
            `kerasdet.zoo.yolo9000`. None: a tree of the data's classes, all of one level.
        nodes: file of the nodes that the classes of `train`, and without `match_names` those of
            `val`, are in the model's WordTree, a line each (`WordTree.read_map`); None: the nodes
            of their names.
        detection_share: of the images of a batch that have boxes then.
        images_per_epoch: of both kinds together then; None: as many as show every image of both.
        regions: for a detector that wants them, where region proposals of all images are: a folder
            that `kerasdet data proposals` filled, or whatever else `kerasdet.data.with_regions`
            takes as a path; or "selective_search", "edge_boxes" or "sliding_windows": they are
            computed as images come, once with `cache`.
        adapt_targets: normalise what boxes are learned as by its statistics in `train`, class by
            class (`FastRCNN.adapt_targets`), which looks at all images once before training.
        pretrained: as in `kerasdet.zoo`; with a name as model, or a function that takes it.
        start_from: run folder of an earlier training, from whose best weights every layer of the same
            name and shapes starts (`Detector.start_from`), in place of `pretrained`; `{data_dir}` is
            filled in.
        train_from: of Fast R-CNN, name of the first layer that is trained; those before it are frozen.
            "fc6": the heads alone; "paper": see `FastRCNN`. None: as the model is built.
        epochs: passes over `train`; of joint training, see `images_per_epoch`.
        batch_size: images a step.
        augment: "default" (the model's own), a name as "ssd", "yolo_v1", "yolo_v2" or "flip",
            a function as `kerasdet.data.pipeline` takes it, or None.
        crops: of a classifier with "overfeat" as augmentation: windows of an image that an epoch
            shows, each with its mirror image, as `kerasdet.data.classification_pipeline` has it;
            None: one, mirrored half of the time.
        image_size: side of the network's input, or (height, width), for one that takes several.
        multi_scale: sides of which another is drawn every ten batches, of Fast R-CNN photos' short
            sides; None: `image_size` alone.
        multi_scale_last: batches at the end of a detector's training that are all of the greatest side;
            darknet's YOLOv2 has 200.
        optimizer: "sgd" (with momentum), "adam" or "adamw".
        learning_rate: after warm-up.
        momentum: of SGD.
        schedule: "steps": times one of `scales` at each of `milestones`; "cosine": down to 0
            at the end; "poly": likewise, as (1 - share of training done) ** `power`.
        milestones: epochs at which "steps" steps; fractions of an epoch are fine.
        scales: what the rate is multiplied by at each; None: 0.1.
        power: of "poly".
        warmup_epochs: epochs over which the rate grows from `warmup_start`.
        warmup_power: 1: it grows along a line; 4: as darknet's burn_in.
        warmup_start: the rate it grows from.
        weight_decay: L2 on kernels, see `Detector.compile`; for "adamw" its own decay.
        clip_norm: gradients together are cut to this length; None: not.
        precision: "float32", "mixed_float16" or "mixed_bfloat16".
        rule: of a detector's evaluation: "voc07", "voc10" or "coco".
        match_names: evaluate by name on the classes that `val` and the model share.
        evaluate_every: epochs between two evaluations on `val`.
        cache: keep the decoded training data in memory.
        max_boxes: objects an image that training looks at; None: as many as there are.
        seed: of weights, order and augmentation.
    """

    model: str | Callable[[list[str]], Any]
    train: str | Sequence[str]
    val: str | Sequence[str] | None = None
    classification_train: str | Sequence[str] | None = None
    tree: str | None = None
    nodes: str | None = None
    detection_share: float = 0.2
    images_per_epoch: int | None = None
    regions: str | None = None
    adapt_targets: bool = False
    task: str | None = None
    pretrained: bool | str = False
    start_from: str | None = None
    train_from: str | None = None
    epochs: int = 100
    batch_size: int = 16
    augment: str | Callable[..., Any] | None = "default"
    crops: int | None = None
    image_size: int | Sequence[int] | None = None
    multi_scale: Sequence[int] | None = None
    multi_scale_last: int = 0
    optimizer: str = "sgd"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    schedule: str = "steps"
    milestones: Sequence[float] = ()
    scales: Sequence[float] | None = None
    power: float = 4.0
    warmup_epochs: float = 0.0
    warmup_power: float = 1.0
    warmup_start: float = 0.0
    weight_decay: float = 5e-4
    clip_norm: float | None = None
    precision: str = "float32"
    rule: str = "voc10"
    match_names: bool = False
    evaluate_every: int = 1
    cache: bool = False
    max_boxes: int | None = None
    seed: int = 0

    def __post_init__(self):
        for name, known in (
            ("optimizer", _OPTIMIZERS),
            ("schedule", _SCHEDULES),
            ("precision", PRECISIONS),
            ("rule", _RULES),
            ("task", (None, "detection", "classification")),
        ):
            if getattr(self, name) not in known:
                raise InputError(f"{name} wants one of {known}, not {getattr(self, name)!r}.")
        for name in ("epochs", "batch_size", "evaluate_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} wants at least 1, not {getattr(self, name)}.")
        if not self.learning_rate > 0 or not math.isfinite(self.learning_rate):
            raise InputError(f"learning_rate wants a positive number, not {self.learning_rate}.")
        for name in ("warmup_epochs", "warmup_power", "warmup_start", "power"):
            check_finite(name, [getattr(self, name)])
        check_finite("scales", self.scales or ())
        if self.scales is not None and len(self.scales) != len(self.milestones):
            raise InputError(
                f"scales wants one for each of the milestones {list(self.milestones)}, not "
                f"{list(self.scales)}."
            )
        if self.schedule == "cosine" and (self.warmup_power != 1 or self.warmup_start):
            raise InputError("warmup_power and warmup_start go with the steps and poly schedules.")
        if self.classifies and self.classification_train:
            raise InputError("classification_train is for a detector; a classifier has train.")
        if self.multi_scale_last and (self.classifies or self.multi_scale is None):
            raise InputError("multi_scale_last goes with the multi_scale of a detector.")
        if self.crops is not None and not self.classifies:
            raise InputError("crops is for a classifier; a detector learns from whole images.")
        if not 0 < self.detection_share < 1:
            raise InputError(
                f"detection_share wants a share between 0 and 1, not {self.detection_share}."
            )
        if self.images_per_epoch is not None:
            if self.classification_train is None:
                raise InputError("images_per_epoch goes with classification_train, joint training.")
            if self.images_per_epoch < 1:
                raise InputError(f"images_per_epoch wants at least 1, not {self.images_per_epoch}.")
        if self.pretrained and not self._takes_pretrained:
            raise InputError(
                "pretrained goes with a model's name, or with a function that has a parameter of that "
                f"name, which {self.model_name} has not."
            )
        if self.tree is not None and self.model != "yolo9000":
            raise InputError(f"tree goes with yolo9000 by its name, not with {self.model_name}.")

    @property
    def classifies(self) -> bool:
        """Whether a classifier is trained."""
        if self.task is None:
            return self.model in zoo.CLASSIFIERS
        return self.task == "classification"

    @property
    def model_name(self) -> str:
        """The model's name, for the run folder."""
        return self.model if isinstance(self.model, str) else self.model.__name__

    @property
    def _takes_pretrained(self):
        return isinstance(self.model, str) or (
            "pretrained" in inspect.signature(self.model).parameters
        )

    def build(self, class_names, image_names=None):
        """The detector or classifier for these classes.

        Args:
            class_names: of `train`.
            image_names: of `classification_train`; a model by name without a tree gets a WordTree of
                both.
        """
        pretrained = self.pretrained if self.start_from is None else False
        if not isinstance(self.model, str):
            given = {"pretrained": pretrained} if self._takes_pretrained else {}
            return self.model(list(class_names), **given)
        if self.tree is not None:
            return zoo.build(self.model, tree=self.tree, pretrained=pretrained)
        if image_names is None:
            return zoo.build(self.model, class_names=class_names, pretrained=pretrained)
        tree = WordTree.joined(class_names, image_names)
        return zoo.build(self.model, tree=tree, pretrained=pretrained)

    def optimizer_settings(self, steps: int) -> dict[str, Any]:
        """What the model's `compile` wants, the schedule counted in optimizer steps.

        Args:
            steps: of an epoch.
        """
        rate = self._rate(steps)
        if self.optimizer == "adamw":
            optimizer = keras.optimizers.AdamW(
                rate, weight_decay=self.weight_decay, global_clipnorm=self.clip_norm
            )
            return {"optimizer": optimizer}
        if self.optimizer == "adam":
            optimizer = keras.optimizers.Adam(rate, global_clipnorm=self.clip_norm)
        else:
            optimizer = keras.optimizers.SGD(
                rate, momentum=self.momentum, global_clipnorm=self.clip_norm
            )
        return {"optimizer": optimizer, "weight_decay": self.weight_decay}

    def _rate(self, steps):
        warmup = round(self.warmup_epochs * steps)
        if self.schedule == "cosine":
            return keras.optimizers.schedules.CosineDecay(
                0.0 if warmup else self.learning_rate,
                max(self.epochs * steps - warmup, 1),
                warmup_target=self.learning_rate if warmup else None,
                warmup_steps=warmup,
            )
        warming = {
            "warmup_steps": warmup,
            "warmup_power": self.warmup_power,
            "warmup_start": self.warmup_start,
        }
        if self.schedule == "poly":
            return WarmUpPolynomial(
                self.learning_rate, self.epochs * steps, power=self.power, **warming
            )
        milestones = [round(epoch * steps) for epoch in self.milestones]
        return WarmUpSteps(self.learning_rate, milestones, scales=self.scales, **warming)


def replaced(recipe: Recipe, given: dict[str, Any]) -> Recipe:
    """The recipe with some of its settings given anew."""
    return dataclasses.replace(recipe, **given)
