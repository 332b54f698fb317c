"""The words for data, as help texts and errors show them; apart, since help must not wait for TensorFlow."""

FORMS = """\
voc:DIR[:SPLIT]                 Pascal VOC; SPLIT: a file in ImageSets/Main
coco:ANNOTATIONS.json,IMAGES/   COCO's JSON and its folder of images
yolo:data.yaml[:SPLIT]          YOLO text labels; SPLIT: train, val or test
yolo:IMAGES/,LABELS/            YOLO text labels in two folders
tfds:NAME[:SPLIT]               TensorFlow Datasets, as tfds:voc/2007:train
shapes[:SPLIT]                  rendered shapes, no files needed
Options follow a ?, joined by &: ?names=coco (or voc, or a text file of names)
of every kind of file, tfds:voc/2007?data_dir=DIR, and of shapes
?count=500&size=160&objects=5&seed=1&classes=star,cross&sides=0.1,0.6.
A + joins data in files: voc:VOC2007:trainval+voc:VOC2012:trainval."""
"""The forms that `kerasdet.data.load` takes."""

IMAGE_FORMS = """\
folders:DIR[:SPLIT]             a folder a class, in DIR or its folder SPLIT
tfds:NAME[:SPLIT]               TensorFlow Datasets, as tfds:imagenet2012
shapes[:SPLIT]                  rendered shapes, one an image
crops:DATA                      all objects cut out, as crops:voc:DIR:train
Options follow a ?, as of data with boxes."""
"""The forms that `kerasdet.data.load_images` takes."""

SPECS = (
    "voc:DIR[:SPLIT], coco:ANN.json,IMAGES/, yolo:data.yaml[:SPLIT], yolo:IMAGES/,LABELS/, "
    "tfds:NAME[:SPLIT] or shapes[:SPLIT]"
)
"""The former in one line."""

IMAGE_SPECS = "folders:DIR[:SPLIT], tfds:NAME[:SPLIT], shapes[:SPLIT] or crops:DATA"
"""The latter in one line."""
