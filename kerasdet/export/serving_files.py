"""What TensorFlow Serving and its users want beside the graph: warm-up, batching, a README."""

from pathlib import Path

import tensorflow as tf

from kerasdet.export.check import Difference, sample_images

# model_servers/main.cc: read with --enable_per_model_batching_parameters, from the version folder.
_BATCHING = """\
# Hints; measure on your machine. A wait of 5 ms fills batches under load and costs 5 ms alone.
max_batch_size { value: 8 }
batch_timeout_micros { value: 5000 }
max_enqueued_batches { value: 64 }
num_batch_threads { value: 2 }
"""

_README = """\
# {name}

A detector of {num_classes} classes, written by kerasdet {version} (TensorFlow {tensorflow}).
Everything is in the graph: decoding, resizing to {sizes} ({resize}), the network,
suppression.{about_regions}

## Serve it

    docker run -p 8501:8501 -v {base}:/models/{served} -e MODEL_NAME={served} tensorflow/serving

    (echo '{{"signature_name": "serving_bytes", "instances": [{{"image_bytes": {{"b64": "'; \\
     base64 -w 0 photo.jpg; echo '"}}}}]}}') | \\
        curl -d @- http://localhost:8501/v1/models/{served}:predict

The answer has one entry an image: `detection_boxes`, `detection_scores`, ...

## Signatures

| signature | input | shape | type |
| --- | --- | --- | --- |
{of_images}
| `serving_bytes` | `image_bytes`, JPEG or PNG files, of any sizes | (B,) | string |

| output | shape | type | meaning |
| --- | --- | --- | --- |
| `detection_boxes` | (B, {rows}, 4) | float32 | ymin, xmin, ymax, xmax, shares of the image |
| `detection_scores` | (B, {rows}) | float32 | best first |
| `detection_classes` | (B, {rows}) | float32 | class c is line c of `assets/class_names.txt` |
| `num_detections` | (B,) | float32 | rows in use; the others are box 0, score 0, class 0 |
| `image_size` | (B, 2) | int32 | `serving_bytes` only: height and width of the photo, upright |

- Boxes in pixels: multiply by height, width, height, width of the photo.
- A file that cannot be decoded gives `image_size` 0, 0 and no detections; the rest of its batch
  is answered.
- `serving_bytes` turns a photo upright first, as its EXIF says: boxes are shares of the upright photo.
- Least score {score}, overlap {iou}: "model's own" means the default of its `decode`.
- With the server's batching (`--enable_batching --enable_per_model_batching_parameters` reads
  `batching_params.pbtxt`), requests to `serving_default` must all have one image size;
  `serving_bytes` takes any.
- Send files, not pixels: as JSON numbers a photo is ten times its size.

## In Python

```python
import kerasdet

model = kerasdet.export.load("{base}")
found = model.detect([image])[0]
```

or without kerasdet:

```python
import tensorflow as tf

loaded = tf.saved_model.load("{base}/{number}")
names = tf.io.read_file(loaded.class_names.asset_path).numpy().decode().splitlines()
photo = tf.io.read_file("photo.jpg")
found = loaded.signatures["serving_bytes"](image_bytes=tf.stack([photo]))
count = int(found["num_detections"][0])
print([names[int(c) - 1] for c in found["detection_classes"][0, :count]])
```

## Checked

Loaded back and compared with the Keras model: {difference}.
"""


_OF_IMAGES = """\
| `serving_default` | `images`, RGB 0..255, any size, one size a batch | (B, H, W, 3) | uint8 |"""

_OF_REGIONS = """\
| `serving_default` | `images`, RGB 0..255, any size, one size a batch, | (B, H, W, 3) | uint8 |
| | and `regions` in their pixels, x1, y1, x2, y2 | (B, R, 4) | float32 |
| `serving_windows` | `images` as above, without regions | (B, H, W, 3) | uint8 |"""

_ABOUT_REGIONS = """

It looks at regions. `serving_default` takes them with the images, as many for each image, padded
with -1; what lies outside is cut at the edges, and a region reversed, empty or wholly outside is left
out. They are in pixels: an image with no coordinate above 1 counts as one without regions, and gets
no detections. The other signatures look at sliding windows: simpler to call, slower and less exact than good
proposals. `serving_bytes` goes through its files one by one."""


def write_serving_files(
    folder: Path, target: Path, settings: dict, rows: int, measured: Difference
) -> None:
    """Adds warm-up requests, batching hints and a README to a version's folder.

    Args:
        folder: where the SavedModel is now.
        target: where it will be: a server is pointed at the parent, the name is the version.
        settings: what `detector.json` holds.
        rows: D.
        measured: for the README.
    """
    base = target.parent.resolve()
    (folder / "batching_params.pbtxt").write_text(_BATCHING, "utf-8")
    thresholds = settings["thresholds"]
    height, width = settings["image_size"]
    text = _README.format(
        name=settings["name"],
        num_classes=len(settings["class_names"]),
        version=settings["kerasdet"],
        tensorflow=tf.__version__,
        sizes=", ".join(f"{h}x{w}" for h, w in settings.get("scales") or [(height, width)]),
        resize=settings["resize"],
        rows=rows,
        base=base,
        served=base.name,
        number=target.name,
        about_regions=_ABOUT_REGIONS if settings["takes_regions"] else "",
        of_images=_OF_REGIONS if settings["takes_regions"] else _OF_IMAGES,
        score=_own(thresholds["score_threshold"]),
        iou=_own(thresholds["iou_threshold"]),
        difference=measured,
    )
    (folder / "README.md").write_text(text, "utf-8")
    _write_warm_up(folder, base.name, (height, width), settings["takes_regions"])


def _own(value):
    return "model's own" if value is None else f"{value:g}"


# ---------------------------------------------------------------------- warm-up


def _write_warm_up(folder, name, image_size, takes_regions):
    """One request for each signature, replayed by the server before it says it is ready."""
    (image,) = sample_images(image_size, 1)
    images = {"images": tf.constant(image[None])}
    jpeg = tf.constant([tf.io.encode_jpeg(image).numpy()])
    requests = [("serving_bytes", {"image_bytes": jpeg}), ("serving_default", images)]
    if takes_regions:
        height, width = image.shape[:2]
        regions = tf.constant([[[0.0, 0.0, width, height]]])
        requests[1:] = [
            ("serving_default", {**images, "regions": regions}),
            ("serving_windows", images),
        ]
    extra = folder / "assets.extra"
    extra.mkdir()
    with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as writer:
        for signature, tensors in requests:
            writer.write(_prediction_log(name, signature, tensors))


def _prediction_log(name, signature, tensors) -> bytes:
    """A serialised `tensorflow.serving.PredictionLog` of one request.

    Four nested messages in protobuf's wire format, so that `tensorflow-serving-api` is not
    needed. Numbers of the fields: tensorflow_serving/apis, prediction_log.proto, predict.proto and
    model.proto.
    """
    model_spec = _field(1, name.encode()) + _field(3, signature.encode())
    request = _field(1, model_spec)  # PredictRequest
    for key, tensor in tensors.items():  # of map<string, TensorProto> inputs
        proto = tf.make_tensor_proto(tensor).SerializeToString()
        request += _field(2, _field(1, key.encode()) + _field(2, proto))
    return _field(6, _field(1, request))  # PredictionLog.predict_log.request


def _field(number, payload) -> bytes:
    """A length-delimited field: tag, length as base-128 digits, bytes."""
    length, digits = len(payload), bytearray()
    while length >= 128:
        digits.append(length % 128 + 128)
        length //= 128
    return bytes([number << 3 | 2, *digits, length]) + payload
