import contextlib
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch_writer as t

from kerasdet.errors import InputError
from kerasdet.weights.torch_file import read_torch, read_torch_file
from kerasdet.weights.torch_records import Inert

KINDS = ("zip", "legacy")


@contextlib.contextmanager
def at_most(mebibytes):
    """Fails when more memory than that was held at once inside the block."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < mebibytes * 2**20
    finally:
        tracemalloc.stop()


def write_raw(path, kind, value, storages):
    """A file whose object is `value`, already in pickle operations."""
    return (t.write_legacy if kind == "legacy" else t.write_zip)(path, t.pickled(value), storages)


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_dict_comes_back_with_its_shapes_types_and_numbers(tmp_path, kind, rng):
    arrays = {
        "conv.weight": rng.normal(size=(4, 3, 2, 5)).astype("f4"),
        "conv.bias": rng.normal(size=4).astype("f4"),
        "steps": np.array(7, "i8"),
        "mask": np.array([True, False, True]),
        "wide": rng.normal(size=(2, 3)),
    }
    read = read_torch(t.write(tmp_path / "w.pth", arrays, kind))
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tensor_may_be_a_strided_window_of_a_shared_storage(tmp_path, kind):
    base = np.arange(24, dtype="f4").reshape(4, 6)
    stored = t.storage("0", "FloatStorage", 24, legacy=kind == "legacy")
    value = t.ordered(
        {
            "rows 1 and 2, even columns": t.tensor(stored, 6, (2, 3), (6, 2)),
            "transposed": t.tensor(stored, 0, (6, 4), (1, 6)),
            "one": t.tensor(stored, 23, (), ()),
        }
    )
    read = read_torch(write_raw(tmp_path / "w.pth", kind, value, {"0": base}))
    np.testing.assert_array_equal(read["rows 1 and 2, even columns"], base[1:3, ::2])
    np.testing.assert_array_equal(read["transposed"], base.T)
    assert read["one"] == 23


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_becomes_float32(tmp_path, kind):
    half = np.array([1.5, -2.25], "f2")
    # bfloat16 is a float32 without its lower half: 1 is 3f80, -3.140625 is c049.
    brain = np.array([0x3F80, 0xC049], "u2")
    legacy = kind == "legacy"
    value = t.ordered(
        {
            "half": t.whole("h", half, legacy=legacy),
            "brain": t.tensor(t.storage("b", "BFloat16Storage", 2, legacy=legacy), 0, (2,), (1,)),
        }
    )
    read = read_torch(write_raw(tmp_path / "w.pth", kind, value, {"h": half, "b": brain}))
    assert read["half"].dtype == read["brain"].dtype == np.float32
    np.testing.assert_array_equal(read["half"], [1.5, -2.25])
    np.testing.assert_array_equal(read["brain"], [1.0, -3.140625])


def test_files_of_big_endian_machines_are_read(tmp_path):
    array = np.array([1.0, -2.5, 3e8], "f4")
    zipped, legacy = (t.pickled(t.ordered({"a": t.whole("0", array, legacy=x)})) for x in (0, 1))
    t.write_zip(tmp_path / "z", zipped, {"0": array.astype(">f4")}, byte_order="big")
    t.write_legacy(tmp_path / "l", legacy, {"0": array}, little=False)
    for name in ("z", "l"):
        np.testing.assert_array_equal(read_torch(tmp_path / name)["a"], array)


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_gives_its_state_dict_and_notes_and_nothing_else(tmp_path, kind):
    weight, momentum = np.ones((2, 3), "f4"), np.zeros(6, "f4")
    legacy = kind == "legacy"
    history = t.name("mmengine.logging.history_buffer", "HistoryBuffer") + b")R"
    names = t.tuple_of(t.text("cat"), t.text("dog"))
    value = t.dict_of(
        {
            "meta": t.dict_of({"CLASSES": names, "epoch": t.number(24), "log": history}),
            "state_dict": t.ordered({"w": t.whole("0", weight, legacy=legacy)}),
            "optimizer": t.dict_of({"m": t.whole("1", momentum, legacy=legacy)}),
        }
    )
    storages = {"0": weight, "1": momentum}
    read = read_torch_file(write_raw(tmp_path / "w.pth", kind, value, storages))
    assert list(read.arrays) == ["w"]
    assert read.meta["CLASSES"] == ("cat", "dog")
    assert read.meta["epoch"] == 24


def test_the_prefix_of_a_parallel_model_is_dropped(tmp_path):
    arrays = {"module.a": np.ones(2, "f4"), "module.b.c": np.zeros(3, "f4")}
    assert list(read_torch(t.write(tmp_path / "w.pth", arrays, "zip"))) == ["a", "b.c"]


def test_a_parameter_is_read_as_its_tensor(tmp_path):
    array = np.arange(3, dtype="f4")
    rebuilt = t.call(
        t.name("torch._utils", "_rebuild_parameter"), t.whole("0", array), b"\x88", b"}"
    )
    path = write_raw(tmp_path / "w.pth", "zip", t.ordered({"p": rebuilt}), {"0": array})
    np.testing.assert_array_equal(read_torch(path)["p"], array)


def test_a_legacy_storage_may_be_a_window_of_another(tmp_path):
    base = np.arange(10, dtype="f4")
    window = t.storage("0", "FloatStorage", 10, view=("v", 4, 5), legacy=True)
    value = t.ordered({"a": t.tensor(window, 1, (3,), (1,))})
    path = write_raw(tmp_path / "w.pth", "legacy", value, {"0": base})
    np.testing.assert_array_equal(read_torch(path)["a"], [5, 6, 7])  # 4 + 1, three of them


def test_files_written_under_python_2_are_read(tmp_path):
    array = np.arange(2, dtype="f4")
    # Python 2 wrote byte strings, and an OrderedDict's items as the call's argument.
    old = t.call(
        t.name("torch._utils", "_rebuild_tensor"),
        t.storage("0", "FloatStorage", 2, legacy=True),
        t.number(0),
        t.numbers((2,)),
        t.numbers((1,)),
    )
    pair = b"](U\x03w.1" + old + b"e"
    value = t.call(t.name("collections", "OrderedDict"), b"](" + pair + b"e")
    path = write_raw(tmp_path / "w.pth", "legacy", value, {"0": array})
    np.testing.assert_array_equal(read_torch(path)["w.1"], array)


# ------------------------------------------------------------------------ hostile files


def exploits(marker):
    """Pickles that would make `marker` if anything unpickled them, by name."""
    shell = t.text(f"touch {marker}")
    python = t.text(f"open({str(marker)!r}, 'w').close()")
    return {
        "os.system": t.call(t.name("os", "system"), shell),
        "posix.system": t.call(t.name("posix", "system"), shell),
        "subprocess": t.call(t.name("subprocess", "call"), shell),
        "eval": t.call(t.name("builtins", "eval"), python),
        "exec under Python 2's name": t.call(t.name("__builtin__", "exec"), python),
        "stack global": t.text("os") + t.text("system") + b"\x93" + t.tuple_of(shell) + b"R",
        "new object": t.name("os", "system") + t.tuple_of(shell) + b"\x81",
        "inst": b"(" + shell + b"ios\nsystem\n",
        "obj": b"(" + t.name("os", "system") + shell + b"o",
        "through getattr": t.call(
            t.call(t.name("builtins", "getattr"), t.name("os", "path"), t.text("os")), shell
        ),
        "attribute of torch": t.call(t.name("torch.serialization", "os.system"), shell),
        "nested torch.load": t.call(t.name("torch.storage", "_load_from_bytes"), shell),
        "numpy.load": t.call(t.name("numpy", "load"), shell),
        "in a storage's id": t.tuple_of(
            t.text("storage"), t.call(t.name("os", "system"), shell), t.text("0"), b"NN"
        )
        + b"Q",
        "extension code": b"\x82\x01",
        "text persistent id": b"Pstorage\n",
        "build": t.name("collections", "OrderedDict")
        + b")R"
        + t.dict_of({"__setstate__": t.name("os", "system")})
        + b"b"
        + shell
        + b"b",
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("exploit", list(exploits("x")))
def test_a_pickle_exploit_is_refused_and_never_runs(tmp_path, kind, exploit):
    marker = tmp_path / "ran"
    array = np.ones(2, "f4")
    hostile = t.ordered(
        {
            "w": t.whole("0", array, legacy=kind == "legacy"),
            "x": exploits(marker)[exploit],
        }
    )
    path = write_raw(tmp_path / "w.pth", kind, hostile, {"0": array})
    with pytest.raises(InputError):
        read_torch(path)
    assert not marker.exists()


def test_the_message_names_what_the_file_wanted_to_run(tmp_path):
    hostile = t.call(t.name("os", "system"), t.text("true"))
    with pytest.raises(InputError, match=r"'os\.system'.*nothing was run"):
        read_torch(write_raw(tmp_path / "w.pth", "zip", hostile, {}))


def test_names_of_bookkeeping_import_nothing_and_call_nothing(tmp_path):
    array = np.ones(2, "f4")
    log = t.call(t.name("builtins", "getattr"), t.text("a"), t.text("upper"))
    history = t.name("mmengine.logging.history_buffer", "HistoryBuffer")
    value = t.dict_of(
        {
            "meta": t.dict_of({"log": log, "history": history + b")R" + b"}b"}),
            "state_dict": t.ordered({"w": t.whole("0", array)}),
        }
    )
    path = write_raw(tmp_path / "w.pth", "zip", value, {"0": array})
    read = read_torch_file(path)
    assert read.meta["log"] == Inert("builtins.getattr")  # not the method "a".upper
    assert "mmengine" not in sys.modules


@pytest.mark.parametrize(
    ("offset", "shape", "strides", "message"),
    [
        (0, (5,), (1,), "does not lie inside"),
        (1, (4,), (1,), "does not lie inside"),
        (-1, (2,), (1,), "does not lie inside"),
        (3, (2,), (-1,), "does not lie inside"),
        (0, (2, 2), (3, 1), "does not lie inside"),
        (0, (2**40,), (1,), "more than its"),
        (0, (-1,), (1,), "impossible shape"),
        (0, (2**62, 2**62), (0, 0), "more than its"),
        (0, (100,), (0,), "has 100 numbers, its storage 4"),
        (0, (0, 2**62), (1, 1), "impossible shape"),
        (0, (1,) * 33, (1,) * 33, "impossible shape"),
        (0, (4,), (), "damaged"),
        (2**70, (1,), (1,), "does not lie inside"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_tensor_outside_its_storage_is_refused(tmp_path, kind, offset, shape, strides, message):
    stored = t.storage("0", "FloatStorage", 4, legacy=kind == "legacy")
    value = t.ordered({"w": t.tensor(stored, offset, shape, strides)})
    path = write_raw(tmp_path / "w.pth", kind, value, {"0": np.zeros(4, "f4")})
    with pytest.raises(InputError, match=message):
        read_torch(path)


def test_a_storage_of_another_length_than_said_is_refused(tmp_path):
    value = t.ordered({"w": t.tensor(t.storage("0", "FloatStorage", 4), 0, (4,), (1,))})
    path = write_raw(tmp_path / "w.pth", "zip", value, {"0": np.zeros(3, "f4")})
    with pytest.raises(InputError, match="should have 4 numbers of 4 bytes and has 12 bytes"):
        read_torch(path)


def test_a_view_outside_its_storage_is_refused(tmp_path):
    window = t.storage("0", "FloatStorage", 10, view=("v", 8, 5), legacy=True)
    value = t.ordered({"a": t.tensor(window, 0, (3,), (1,))})
    path = write_raw(tmp_path / "w.pth", "legacy", value, {"0": np.zeros(10, "f4")})
    with pytest.raises(InputError, match="wants numbers 8 to 13 of a storage of 10"):
        read_torch(path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_file_cannot_ask_for_much_memory_by_sharing(tmp_path, kind):
    base = np.zeros(100_000, "u1")
    record = t.whole("0", base, legacy=kind == "legacy")
    value = t.ordered({f"w{i}": record for i in range(2000)})
    path = write_raw(tmp_path / "w.pth", kind, value, {"0": base})
    with pytest.raises(InputError, match="more than its"):
        read_torch(path)


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path):
    zeros = np.zeros(50_000_000, "u1")
    value = t.pickled(t.ordered({"w": t.whole("0", zeros)}))
    path = t.write_zip(tmp_path / "w.pth", value, {"0": zeros}, compression=zipfile.ZIP_DEFLATED)
    del zeros
    with at_most(1), pytest.raises(InputError, match="compressed archive"):
        read_torch(path)


@pytest.mark.parametrize(
    "value",
    [
        b"\x8e" + (2**60).to_bytes(8, "little"),  # BINBYTES8 of an exabyte
        b"\x96" + (2**60).to_bytes(8, "little"),  # BYTEARRAY8
        b"X\xff\xff\xff\x7f",  # two gigabytes of text
        b"Nr\xff\xff\xff\x7f",  # memo number 2**31 - 1
        b"(" * 100_000,
        b"]" * 100_000 + b"a" * 99_999,  # lists in lists
        b"N" + b"\x85" * 100_000,  # tuples in tuples
        b"}" + b"N" + b"2\x86" * 60 + b"Ns",  # a key that takes 2**60 steps to hash
        b"j\x07\x00\x00\x00",  # a memo that nothing was put in
        b"0" * 10,  # more off the stack than on it
        b"t",
        b"",
    ],
    ids=lambda value: repr(value[:6]),
)
def test_a_nonsense_pickle_is_refused_in_little_memory(tmp_path, value):
    path = write_raw(tmp_path / "w.pth", "zip", value, {})
    with at_most(32), pytest.raises(InputError):
        read_torch(path)


def test_a_pickle_without_end_is_refused(tmp_path):
    endless = t.pickled(b"}0" * 1_100_000)
    path = t.write_zip(tmp_path / "w.pth", endless, {})
    with pytest.raises(InputError, match="more than 2,000,000 pickle operations"):
        read_torch(path)


def test_a_zip_cut_short_says_how_many_bytes_its_tensors_take(tmp_path):
    path = t.write(tmp_path / "w.pth", {"w": np.zeros((100, 100), "f4")}, "zip")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"tensors take 40,000 bytes.* file has 5,000"):
        read_torch(path)


def test_a_legacy_file_cut_short_says_how_many_bytes_it_should_have(tmp_path):
    path = t.write(tmp_path / "w.pth", {"w": np.zeros((100, 100), "f4")}, "legacy")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1000])
    expected, found = f"{len(whole):,}", f"{len(whole) - 1000:,}"
    with pytest.raises(InputError, match=f"should have {expected} bytes and has {found}"):
        read_torch(path)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_raise_input_errors_only_and_take_little_memory(tmp_path, kind, rng):
    arrays = {"a.weight": rng.normal(size=(3, 4)).astype("f4"), "a.bias": np.ones(3, "f4")}
    good = t.write(tmp_path / "good.pth", arrays, kind).read_bytes()
    path = tmp_path / "bad.pth"
    damaged = [good[:length] for length in range(0, len(good), 3)]
    for _ in range(600):
        flipped = bytearray(good)
        for position in rng.integers(0, len(good), size=rng.integers(1, 4)):
            flipped[position] = rng.integers(256)
        damaged.append(bytes(flipped))
    refused = 0
    with at_most(32):
        for data in damaged:
            path.write_bytes(data)
            try:
                read_torch(path)
            except InputError:
                refused += 1
    assert refused >= len(good) // 3  # every cut file, at least


def test_other_archives_and_objects_are_refused_by_name(tmp_path):
    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    with pytest.raises(InputError, match=r"without torch's data\.pkl"):
        read_torch(tmp_path / "arrays.npz")
    with pytest.raises(InputError, match="holds no state dict"):
        read_torch(write_raw(tmp_path / "n.pth", "zip", t.number(5), {}))
    model = t.name("torch.nn.modules.container", "Sequential") + b")\x81"
    with pytest.raises(InputError, match="whole pickled model"):
        read_torch(write_raw(tmp_path / "m.pth", "legacy", model, {}))
    with zipfile.ZipFile(tmp_path / "s.pt", "w") as archive:
        archive.writestr("s/data.pkl", t.pickled(b"N"))
        archive.writestr("s/code/__torch__.py", "")
    with pytest.raises(InputError, match="TorchScript"):
        read_torch(tmp_path / "s.pt")
    (tmp_path / "text.pth").write_text("hello, this is no weight file")
    with pytest.raises(InputError, match="not a torch file"):
        read_torch(tmp_path / "text.pth")
    with pytest.raises(InputError, match="Cannot read"):
        read_torch(tmp_path / "absent.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_itself_writes_is_read(tmp_path, zipped):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    base = torch.arange(24.0).reshape(4, 6)
    state = {
        "a": torch.randn(3, 4),
        "half": torch.randn(5).half(),
        "brain": torch.randn(7).bfloat16(),
        "window": base[1:3, ::2],
        "transposed": base.t(),
        "parameter": torch.nn.Parameter(torch.randn(2, 3)),
        "empty": torch.zeros(0, 3),
    }
    torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    read = read_torch(tmp_path / "w.pth")
    assert list(read) == list(state)
    for name, value in state.items():
        np.testing.assert_array_equal(read[name], value.detach().float().numpy())
