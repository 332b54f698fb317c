"""Learning rates over the steps of training: a warm-up, then steps or a polynomial."""

import math
from collections.abc import Sequence

import keras
from keras import ops

from kerasdet.errors import InputError


@keras.saving.register_keras_serializable(package="kerasdet")
class WarmUpSteps(keras.optimizers.schedules.LearningRateSchedule):
    """A warm-up, then a constant rate that is multiplied at every milestone.

    Args:
        learning_rate: between warm-up and the first milestone.
        milestones: optimizer steps at which the rate changes.
        scales: what it is multiplied by at each, 0.1 at all of them if not said. YOLO v1's
            rise first: 2.5, 2, 2 (yolov1.cfg).
        warmup_steps: optimizer steps of warm-up.
        warmup_power: the share of the warm-up that is over counts to this power; 1 is a line,
            4 darknet's burn_in (src/network.c, get_current_rate).
        warmup_start: the rate that the warm-up starts from.

    Raises:
        InputError: if there are not as many scales as milestones.
    """

    def __init__(
        self,
        learning_rate,
        milestones: Sequence[float] = (),
        *,
        scales: Sequence[float] | None = None,
        warmup_steps=0,
        warmup_power=1.0,
        warmup_start=0.0,
    ):
        scales = [0.1] * len(milestones) if scales is None else list(scales)
        if len(scales) != len(milestones):
            raise InputError(f"{len(milestones)} milestones want as many scales, not {scales}.")
        self.learning_rate = learning_rate
        self.milestones = [int(step) for step in milestones]
        self.scales = scales
        self.warmup_steps = int(warmup_steps)
        self.warmup_power = warmup_power
        self.warmup_start = warmup_start

    def __call__(self, step):
        """The rate of one optimizer step."""
        step = ops.cast(step, "float32")
        rate = _warmed(step, self)
        for milestone, scale in zip(self.milestones, self.scales, strict=True):
            rate = rate * ops.where(step >= milestone, scale, 1.0)
        return rate

    def get_config(self):
        """Constructor arguments."""
        return {
            "learning_rate": self.learning_rate,
            "milestones": self.milestones,
            "scales": self.scales,
            "warmup_steps": self.warmup_steps,
            "warmup_power": self.warmup_power,
            "warmup_start": self.warmup_start,
        }


@keras.saving.register_keras_serializable(package="kerasdet")
class WarmUpPolynomial(keras.optimizers.schedules.LearningRateSchedule):
    """learning_rate * (1 - step / steps) ** power, after a warm-up.

    Args:
        learning_rate: at step 0, were there no warm-up.
        steps: optimizer steps until the rate is 0.
        power: 4 for darknet's classifiers (darknet19.cfg).
        warmup_steps: as in `WarmUpSteps`.
        warmup_power: as in `WarmUpSteps`.
        warmup_start: as in `WarmUpSteps`.

    Source: darknet src/network.c, get_current_rate (POLY).
    """

    def __init__(
        self,
        learning_rate,
        steps,
        *,
        power=4.0,
        warmup_steps=0,
        warmup_power=1.0,
        warmup_start=0.0,
    ):
        self.learning_rate = learning_rate
        self.steps = int(steps)
        self.power = power
        self.warmup_steps = int(warmup_steps)
        self.warmup_power = warmup_power
        self.warmup_start = warmup_start

    def __call__(self, step):
        """The rate of one optimizer step."""
        step = ops.cast(step, "float32")
        left = ops.maximum(1.0 - step / self.steps, 0.0)
        falling = self.learning_rate * ops.power(left, self.power)
        return ops.where(step < self.warmup_steps, _warmed(step, self), falling)

    def get_config(self):
        """Constructor arguments."""
        return {
            "learning_rate": self.learning_rate,
            "steps": self.steps,
            "power": self.power,
            "warmup_steps": self.warmup_steps,
            "warmup_power": self.warmup_power,
            "warmup_start": self.warmup_start,
        }


def _warmed(step, schedule):
    """The schedule's rate while it warms up, and its full rate from then on."""
    over = ops.minimum((step + 1) / max(schedule.warmup_steps, 1), 1.0)
    rise = ops.power(over, float(schedule.warmup_power))
    return schedule.warmup_start + (schedule.learning_rate - schedule.warmup_start) * rise


def check_finite(name: str, numbers: Sequence[float], *, least: float = 0.0) -> None:
    """Raises an `InputError` if one of the numbers of a setting is not finite or below `least`."""
    if not all(math.isfinite(number) and number >= least for number in numbers):
        raise InputError(f"{name} wants numbers from {least:g}, not {list(numbers)}.")
