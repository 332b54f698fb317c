import hashlib
import io
import tarfile

import pytest

from kerasdet.errors import InputError
from kerasdet.weights.fetch import Source, cache_folder, fetch

DATA = b"weights " * 100


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))


def source(tmp_path, data=DATA, **changes):
    """A file that is really downloaded, from this machine."""
    served = tmp_path / "served.bin"
    served.write_bytes(data)
    facts = {
        "file": "net.caffemodel",
        "url": served.as_uri(),
        "page": "https://example.org/net",
        "licence": "BSD-2-Clause",
        "size": len(DATA),
        "sha256": hashlib.sha256(DATA).hexdigest(),
    }
    return Source(**(facts | changes))


def test_a_file_is_downloaded_once_and_its_licence_said(tmp_path):
    said = []
    path = fetch(source(tmp_path), echo=said.append)
    assert path == cache_folder() / "net.caffemodel"
    assert path.read_bytes() == DATA
    (tmp_path / "served.bin").unlink()
    assert fetch(source(tmp_path, b"other"), echo=said.append) == path  # from the cache
    assert len(said) == 1
    assert "BSD-2-Clause" in said[0]


def test_the_first_digits_of_a_hash_are_enough(tmp_path):
    digits = hashlib.sha256(DATA).hexdigest()[:8]
    assert fetch(source(tmp_path, sha256=digits, size=None), echo=str).read_bytes() == DATA


@pytest.mark.parametrize("changes", [{"size": 5}, {"size": None, "sha256": "00" * 32}])
def test_a_file_of_other_bytes_is_removed_and_refused(tmp_path, changes):
    with pytest.raises(InputError, match="was removed"):
        fetch(source(tmp_path, **changes), echo=str)
    assert not (cache_folder() / "net.caffemodel").exists()


def test_without_a_network_the_message_says_which_file_from_where_and_where_to(tmp_path):
    offline = source(tmp_path, url="https://nowhere.invalid/net.caffemodel")
    with pytest.raises(InputError) as raised:
        fetch(offline, echo=str)
    message = str(raised.value)
    assert message.startswith("Cannot download net.caffemodel")
    for part in (
        "get it from https://nowhere.invalid/net.caffemodel",
        "800 bytes",
        f"SHA-256 {hashlib.sha256(DATA).hexdigest()}",
        f"put it at {cache_folder() / 'net.caffemodel'}",
        "pretrained=",
    ):
        assert part in message
    assert not (cache_folder() / "net.caffemodel").exists()


def test_a_file_without_an_address_is_asked_for_by_its_page(tmp_path):
    with pytest.raises(InputError, match=r"no direct address; get it from https://example\.org"):
        fetch(source(tmp_path, url=None), echo=str)


def test_a_file_put_in_place_by_hand_is_used(tmp_path):
    cache_folder().mkdir(parents=True)
    (cache_folder() / "net.caffemodel").write_bytes(DATA)
    assert fetch(source(tmp_path, url=None), echo=str).read_bytes() == DATA


def archive(members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            if data is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            else:
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data or b""))
    return out.getvalue()


def in_archive(tmp_path, data):
    return source(
        tmp_path, data, file="net.tar.gz", size=None, sha256=None, member="net.caffemodel"
    )


def test_the_weights_are_taken_out_of_an_archive_and_nothing_else(tmp_path):
    data = archive(
        {"models/readme": b"x", "../../escaped": b"x", "models/VGG/net.caffemodel": DATA}
    )
    path = fetch(in_archive(tmp_path, data), echo=str)
    assert path == cache_folder() / "net.caffemodel"
    assert path.read_bytes() == DATA
    assert sorted(p.name for p in cache_folder().iterdir()) == ["net.caffemodel", "net.tar.gz"]
    assert fetch(in_archive(tmp_path, b"gone"), echo=str) == path  # unpacked before


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (archive({"models/other": b"x"}), "has no member"),
        (archive({"models/net.caffemodel": None}), "has no member"),  # a link, not a file
        (archive({"models/net.caffemodel": DATA})[:-20], "damaged archive"),
        (b"no archive", "damaged archive"),
        (archive({f"{i}": b"" for i in range(1001)}), "unpacks to more"),
    ],
    ids=["absent", "link", "cut", "text", "many"],
)
def test_bad_archives_are_refused_and_leave_nothing_half_written(tmp_path, data, message):
    with pytest.raises(InputError, match=message):
        fetch(in_archive(tmp_path, data), echo=str)
    assert [p.name for p in cache_folder().iterdir()] == ["net.tar.gz"]
