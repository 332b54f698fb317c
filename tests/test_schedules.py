"""Learning rates: warm-up, steps up and down, polynomial, cosine; and what a recipe makes of them."""

import math

import pytest

from kerasdet.errors import InputError
from kerasdet.recipe import Recipe, replaced
from kerasdet.schedules import WarmUpPolynomial, WarmUpSteps


def rates(schedule, steps):
    return [float(schedule(step)) for step in steps]


def test_the_rate_warms_up_linearly_and_falls_to_a_tenth_at_each_milestone():
    rate = WarmUpSteps(0.5, (10, 20), warmup_steps=4)
    expected = {0: 0.125, 1: 0.25, 3: 0.5, 9: 0.5, 10: 0.05, 19: 0.05, 20: 0.005, 99: 0.005}
    for step, value in expected.items():
        assert float(rate(step)) == pytest.approx(value, rel=1e-5)
    assert WarmUpSteps.from_config(rate.get_config()).get_config() == rate.get_config()


def test_without_warmup_or_milestones_the_rate_is_constant():
    rate = WarmUpSteps(0.3)
    assert [float(rate(step)) for step in (0, 1, 1000)] == pytest.approx([0.3] * 3)


def test_scales_raise_the_rate_too():
    """yolov1.cfg: 0.0005, times 2.5, 2, 2 at 200, 400, 600, and 0.1 twice."""
    rate = WarmUpSteps(
        0.0005, (200, 400, 600, 20000, 30000), scales=(2.5, 2, 2, 0.1, 0.1), warmup_steps=0
    )
    expected = [0.0005, 0.0005, 0.00125, 0.0025, 0.005, 0.005, 0.0005, 0.00005]
    found = rates(rate, (0, 199, 200, 400, 600, 19999, 20000, 30000))
    assert found == pytest.approx(expected, rel=1e-5)
    with pytest.raises(InputError, match="2 milestones want as many scales"):
        WarmUpSteps(1.0, (1, 2), scales=(0.5,))


def test_darknets_burn_in_grows_with_the_fourth_power():
    """rate * (batch / burn_in) ** 4, batches counted from 1 (network.c, get_current_rate)."""
    rate = WarmUpSteps(0.001, (8,), warmup_steps=4, warmup_power=4)
    expected = [0.001 * (batch / 4) ** 4 for batch in (1, 2, 3, 4)] + [0.001, 0.0001]
    assert rates(rate, (0, 1, 2, 3, 4, 8)) == pytest.approx(expected, rel=1e-5)


def test_a_warm_up_can_start_above_zero():
    """YOLO v1, sec. 2.2: slowly from 1e-3 to 1e-2."""
    rate = WarmUpSteps(1e-2, warmup_steps=9, warmup_start=1e-3)
    assert rates(rate, (0, 4, 8, 20)) == pytest.approx([2e-3, 6e-3, 1e-2, 1e-2], rel=1e-5)


def test_the_polynomial_reaches_zero_at_its_last_step():
    rate = WarmUpPolynomial(0.1, 10, power=4)
    expected = [0.1, 0.1 * 0.9**4, 0.1 * 0.5**4, 0.1 * 0.1**4, 0, 0]
    assert rates(rate, (0, 1, 5, 9, 10, 11)) == pytest.approx(expected, rel=1e-4, abs=1e-9)
    warmed = WarmUpPolynomial(0.1, 10, power=2, warmup_steps=2)
    expected = [0.05, 0.1, 0.1 * 0.8**2]  # after it, as if there had been none
    assert rates(warmed, (0, 1, 2)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "schedule",
    [
        WarmUpSteps(0.3, (5, 7), scales=(2, 0.5), warmup_steps=3, warmup_power=2, warmup_start=0.1),
        WarmUpPolynomial(0.3, 20, power=3, warmup_steps=3, warmup_power=2, warmup_start=0.1),
    ],
)
def test_config_keeps_every_argument(schedule):
    revived = type(schedule).from_config(schedule.get_config())
    assert revived.get_config() == schedule.get_config()
    assert rates(revived, range(12)) == rates(schedule, range(12))
    assert all(math.isfinite(rate) for rate in rates(schedule, range(30)))


# ---------------------------------------------------------------------- of a recipe


def test_cosine_starts_at_the_rate_without_warmup_and_at_zero_with_it():
    recipe = Recipe(model="ssd300", train="shapes", schedule="cosine", epochs=4, learning_rate=0.2)
    straight = recipe.optimizer_settings(10)["optimizer"]._learning_rate
    assert float(straight(0)) == pytest.approx(0.2)
    assert float(straight(20)) == pytest.approx(0.1, rel=1e-5)  # half way down a cosine
    assert float(straight(40)) == pytest.approx(0.0, abs=1e-7)
    warmed = replaced(recipe, {"warmup_epochs": 1}).optimizer_settings(10)
    assert float(warmed["optimizer"]._learning_rate(0)) == 0.0
    assert float(warmed["optimizer"]._learning_rate(10)) == pytest.approx(0.2, rel=1e-5)


def test_epochs_become_steps():
    """Ten steps an epoch, four epochs: warm-up of 5, milestones at 15 and 30; or 40 in all."""
    given = {"model": "ssd300", "train": "shapes", "epochs": 4, "learning_rate": 0.2}
    given |= {"warmup_epochs": 0.5, "warmup_power": 4, "warmup_start": 0.02}
    recipe = Recipe(milestones=(1.5, 3), scales=(2, 0.25), **given)
    rate = recipe.optimizer_settings(10)["optimizer"]._learning_rate
    warmed = 0.02 + 0.18 * (1 / 5) ** 4
    assert rates(rate, (0, 4, 14, 15, 30)) == pytest.approx([warmed, 0.2, 0.2, 0.4, 0.1], rel=1e-5)
    falling = Recipe(schedule="poly", power=2, **given).optimizer_settings(10)["optimizer"]
    expected = [warmed, 0.2 * 0.75**2, 0]
    assert rates(falling._learning_rate, (0, 10, 40)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"scales": (0.5,)}, "scales wants one for each"),
        ({"scales": (0.5, float("nan")), "milestones": (1, 2)}, "scales wants numbers from 0"),
        ({"warmup_start": -1}, "warmup_start wants"),
        ({"power": float("inf")}, "power wants"),
        ({"schedule": "cosine", "warmup_power": 4}, "steps and poly"),
        ({"detection_share": 1}, "detection_share wants"),
        ({"images_per_epoch": 64}, "images_per_epoch goes with classification_train"),
        (
            {"images_per_epoch": 0, "classification_train": "shapes"},
            "images_per_epoch wants at least 1, not 0",
        ),
    ],
)
def test_a_setting_that_cannot_be_is_named(setting, said):
    with pytest.raises(InputError, match=said):
        Recipe(model="ssd300", train="shapes", **setting)
