"""A recipe that trains in seconds, as a user's recipe file; the tests run it from here."""

import keras
from keras import layers

import kerasdet


def tiny(class_names):
    x = image = keras.Input((64, 64, 3))
    for name, filters in (("a", 8), ("b", 16), ("fine", 16), ("coarse", 24)):
        x = layers.Conv2D(filters, 3, 2, "same", activation="relu", name=name)(x)
    return kerasdet.SSD(
        class_names=class_names,
        backbone=keras.Model(image, x),
        feature_layers=["fine", "coarse"],
        image_size=64,
        box_sizes=(12, 24, 44),
        name="tiny",
    )


def recipe():
    return kerasdet.Recipe(
        model=tiny,
        train="shapes:train?count=22&size=64&objects=2",
        val="shapes:val?count=6&size=64&objects=2",
        epochs=3,
        batch_size=8,
        augment="ssd",
        learning_rate=1e-3,
        milestones=(1.5,),
        warmup_epochs=1,
    )
