"""Writes caffemodels through protobuf's own library, from caffe.proto's field numbers.

Independent of the reader: the message classes are made here and now by `google.protobuf`.
"""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_TYPES = {
    kind: getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{kind.upper()}")
    for kind in ("string", "int32", "int64", "uint32", "float", "double", "bool", "enum")
}
_TYPES["enum"] = _TYPES["int32"]  # the same bytes

# message: name, number, type, repeated, packed; of weiliu89/caffe, branch ssd.
_SCHEMA = {
    "BlobShape": [("dim", 1, "int64", True, True)],
    "BlobProto": [
        ("num", 1, "int32", False, False),
        ("channels", 2, "int32", False, False),
        ("height", 3, "int32", False, False),
        ("width", 4, "int32", False, False),
        ("data", 5, "float", True, True),
        ("diff", 6, "float", True, True),
        ("shape", 7, "BlobShape", False, False),
        ("double_data", 8, "double", True, True),
    ],
    "PriorBoxParameter": [
        ("min_size", 1, "float", True, False),
        ("max_size", 2, "float", True, False),
        ("aspect_ratio", 3, "float", True, False),
        ("flip", 4, "bool", False, False),
        ("clip", 5, "bool", False, False),
        ("variance", 6, "float", True, False),
        ("step", 10, "float", False, False),
        ("offset", 13, "float", False, False),
    ],
    "LayerParameter": [
        ("name", 1, "string", False, False),
        ("type", 2, "string", False, False),
        ("bottom", 3, "string", True, False),
        ("top", 4, "string", True, False),
        ("loss_weight", 5, "float", True, False),
        ("blobs", 7, "BlobProto", True, False),
        ("phase", 10, "enum", False, False),
        ("prior_box_param", 203, "PriorBoxParameter", False, False),
    ],
    "V1LayerParameter": [
        ("bottom", 2, "string", True, False),
        ("top", 3, "string", True, False),
        ("name", 4, "string", False, False),
        ("type", 5, "enum", False, False),
        ("blobs", 6, "BlobProto", True, False),
        ("blobs_lr", 7, "float", True, False),
    ],
    "NetParameter": [
        ("name", 1, "string", False, False),
        ("layers", 2, "V1LayerParameter", True, False),
        ("input", 3, "string", True, False),
        ("input_dim", 4, "int32", True, False),
        ("layer", 100, "LayerParameter", True, False),
    ],
}
# The same message with its floats one by one, which protobuf readers must take as well.
_SCHEMA["UnpackedBlob"] = [
    (name, number, kind, repeated, False)
    for name, number, kind, repeated, _ in _SCHEMA["BlobProto"]
]


def _classes():
    file = descriptor_pb2.FileDescriptorProto(name="caffe_test.proto", package="caffe_test")
    for message, fields in _SCHEMA.items():
        described = file.message_type.add(name=message)
        for name, number, kind, repeated, packed in fields:
            field = described.field.add(name=name, number=number)
            field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            if kind in _SCHEMA:
                field.type, field.type_name = field.TYPE_MESSAGE, f".caffe_test.{kind}"
            else:
                field.type = _TYPES[kind]
            if repeated and kind not in _SCHEMA and kind != "string":
                field.options.packed = packed
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe_test.{name}"))
        for name in _SCHEMA
    }


MESSAGES = _classes()


def blob(array, *, legacy=False, double=False):
    message = MESSAGES["BlobProto"]()
    (message.double_data if double else message.data).extend(array.ravel().tolist())
    if legacy:
        sides = (1,) * (4 - array.ndim) + array.shape
        message.num, message.channels, message.height, message.width = sides
    else:
        message.shape.dim.extend(array.shape)
    return message


def net(layers, *, name="net", priors=None):
    """`layers`: name to (type, arrays); `priors`: name to PriorBoxParameter's fields."""
    message = MESSAGES["NetParameter"](name=name)
    for layer, (kind, arrays) in layers.items():
        message.layer.add(name=layer, type=kind, blobs=[blob(array) for array in arrays])
    for layer, fields in (priors or {}).items():
        added = message.layer.add(name=layer, type="PriorBox")
        added.prior_box_param.CopyFrom(MESSAGES["PriorBoxParameter"](**fields))
    return message
