"""The files that darknet's own program runs a network from."""

from pathlib import Path

from kerasdet.errors import InputError
from kerasdet.export.inputs import Options
from kerasdet.export.placing import new_files
from kerasdet.export.report import Report
from kerasdet.weights import darknet_cfg, save_darknet, save_darknet_cfg


def write_darknet(model, path, options: Options) -> Report:
    """See `kerasdet.export.export`."""
    path = Path(path)
    if path.suffix != ".weights":
        raise InputError(f"Wanted a file name that ends in .weights, not {path}.")
    if len(path.stem.split()) != 1 or path.stem.split()[0] != path.stem:
        raise InputError(
            f"darknet takes blanks out of its files' lines: wanted a name without them, not {path}."
        )
    if any(value is not None for value in options.thresholds.values()):
        raise InputError(
            "darknet's files have no thresholds; give them to darknet itself, as -thresh 0.3."
        )
    darknet_cfg(model)  # refuses what darknet has not before anything is written
    texts = _texts(model, path)
    written = [path, path.with_suffix(".cfg"), *map(path.with_name, texts)]
    if hasattr(model, "tree"):
        written.append(path.with_suffix(".tree"))
    for file in written:
        if file.is_dir() or (file.exists() and not options.overwrite):
            raise InputError(f"{file} exists; pass overwrite=True or another name.")
    with new_files(path.parent) as folder:
        save_darknet(model, folder / path.name)
        save_darknet_cfg(model, (folder / path.name).with_suffix(".cfg"))
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    sizes = {file.name: file.stat().st_size for file in written}
    return Report(path, sizes, None, _command(model, path.stem))


def _texts(model, path):
    """{name: text} of the class names and of the data file that says where they are."""
    names = [str(name) for name in model.class_names]
    broken = [name for name in names if len(name.splitlines()) > 1]
    if broken:
        raise InputError(f"A .names file has a class a line, and {broken[0]!r} is several.")
    data = f"classes={len(names)}\nnames={path.stem}.names\n"
    if hasattr(model, "network"):
        # Of a classifier: how many classes are printed; of more than it has darknet crashes.
        data += f"top={min(5, len(names))}\n"
    return {
        f"{path.stem}.names": "".join(f"{name}\n" for name in names),
        f"{path.stem}.data": data,
    }


def _command(model, stem):
    """How darknet runs it, and what it does otherwise than the model here.

    The files name each other without a folder, and drawing wants darknet's data/labels.
    """
    there = "Copied into darknet's own folder: ./darknet"
    if hasattr(model, "grid"):
        return (
            f"{there} yolo test {stem}.cfg {stem}.weights PHOTO, which prints VOC's names whatever "
            "the classes are."
        )
    if hasattr(model, "network"):
        return (
            f"{there} classifier predict {stem}.data {stem}.cfg {stem}.weights PHOTO, which sees the "
            "photo letterboxed."
        )
    command = f"{there} detector test {stem}.data {stem}.cfg {stem}.weights PHOTO"
    if hasattr(model, "tree"):  # forward_region_layer on a CPU takes a group's nodes for cells
        return f"{command}, on a GPU: on a CPU darknet's tree softmax is wrong."
    return f"{command}, which sees the photo as with resize='letterbox'."
