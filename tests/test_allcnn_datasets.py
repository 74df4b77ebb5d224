"""Builders: what they write is what the archives hold, and TFDS's own classes read it."""

import gzip
import http.server
import io
import struct
import tarfile
import tempfile
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits
from tensorflow_datasets.core.download import checksums, resource

from allcnn.datasets import BUILDERS, Cifar10, Cifar100, Digits, FashionMnist, cifar, prepare
from allcnn.datasets.fashion_mnist import read_idx
from allcnn.errors import DatasetError

N_CLASSES = {"cifar10": 10, "cifar100": 100, "fashion_mnist": 10}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Fail at once where a test would leave the machine."""
    monkeypatch.setattr(prepare, "is_reachable", lambda url: False)
    monkeypatch.setattr(tfds.download.DownloadManager, "_download", _refuse_download)


def _refuse_download(self, resource):
    raise AssertionError(f"downloads {resource.url}")


def random_images(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def write_tar(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def cifar_rows(images, *labels):
    """Labels first, then the red, the green and the blue plane, as the authors describe it."""
    rows = []
    for index, image in enumerate(images):
        head = bytes(int(column[index]) for column in labels)
        rows.append(head + b"".join(image[:, :, c].tobytes() for c in range(3)))
    return b"".join(rows)


def write_cifar10(path):
    """Write an archive of 15 + 4 images, its members out of order and with others between."""
    train, test = random_images(1, 15, 32, 32, 3), random_images(2, 4, 32, 32, 3)
    labels = {"train": np.arange(15) % 10, "test": np.array([9, 0, 3, 3])}
    members = {
        f"cifar-10-batches-bin/data_batch_{b + 1}.bin": cifar_rows(
            train[3 * b : 3 * b + 3], labels["train"][3 * b : 3 * b + 3]
        )
        for b in (4, 0, 2, 1, 3)
    }
    members["../data_batch_1.bin"] = b"outside"
    members["cifar-10-batches-bin/test_batch.bin"] = cifar_rows(test, labels["test"])
    members["cifar-10-batches-bin/batches.meta.txt"] = b"".join(b"class%d\n" % i for i in range(10))
    write_tar(path, members)
    return {"train": train, "test": test}, labels


def write_cifar100(path):
    images = {"train": random_images(3, 6, 32, 32, 3), "test": random_images(4, 5, 32, 32, 3)}
    labels = {"train": np.arange(6) * 19, "test": np.arange(5) * 20 + 1}
    members = {
        f"cifar-100-binary/{split}.bin": cifar_rows(
            images[split], labels[split] // 5, labels[split]
        )
        for split in ("test", "train")
    }
    for name, n in (("fine", 100), ("coarse", 20)):
        text = "".join(f"{name}{i}\n" for i in range(n)) + "\n"
        members[f"cifar-100-binary/{name}_label_names.txt"] = text.encode()
    write_tar(path, members)
    return images, labels


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">I", n) for n in array.shape)
    return gzip.compress(head + array.tobytes(), mtime=0)


def write_fashion(folder):
    images = {"train": random_images(5, 7, 28, 28), "test": random_images(6, 3, 28, 28)}
    labels = {"train": np.arange(7, dtype=np.uint8), "test": np.array([9, 9, 0], np.uint8)}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(idx(images[split]))
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(idx(labels[split]))
    return {split: array[..., None] for split, array in images.items()}, labels


def expect(monkeypatch, builder_cls, folder):
    """Make the files in the folder the ones whose checksums the builder knows."""
    known = {
        url: checksums.compute_url_info(folder / Path(url).name) for url in builder_cls.archives
    }
    monkeypatch.setattr(builder_cls, "url_infos", known)


@pytest.fixture
def manual(tmp_path):
    folder = tmp_path / "downloads" / "manual"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def cifar10(manual, monkeypatch):
    """Put a small CIFAR-10 where a user would; return its images and labels."""
    written = write_cifar10(manual / "cifar-10-binary.tar.gz")
    expect(monkeypatch, Cifar10, manual)
    return written


def read_back(name, data_dir, split):
    """Read by the official class, in the order of the original."""
    source = tfds.data_source(name, split=split, download=False, data_dir=data_dir)
    return sorted(source, key=lambda example: example.get("id", b""))


def assert_same(examples, images, labels):
    np.testing.assert_array_equal([example["image"] for example in examples], images)
    np.testing.assert_array_equal([example["label"] for example in examples], labels)


@pytest.mark.parametrize("split", ["train", "test"])
def test_official_cifar10_reads_what_was_prepared(cifar10, tmp_path, split):
    images, labels = cifar10
    prepare.ensure_prepared(Cifar10, tmp_path)
    examples = read_back("cifar10", tmp_path, split)
    assert_same(examples, images[split], labels[split])
    ids = [example["id"].decode() for example in examples]
    assert ids == [f"{split}_{index:05d}" for index in range(len(ids))]
    official = tfds.builder("cifar10", data_dir=tmp_path)
    assert official.info.features["label"].names == [f"class{i}" for i in range(10)]
    assert official.is_prepared()


@pytest.mark.parametrize("split", ["train", "test"])
def test_official_cifar100_reads_what_was_prepared(manual, monkeypatch, tmp_path, split):
    images, labels = write_cifar100(manual / "cifar-100-binary.tar.gz")
    expect(monkeypatch, Cifar100, manual)
    prepare.ensure_prepared(Cifar100, tmp_path)
    examples = read_back("cifar100", tmp_path, split)
    assert_same(examples, images[split], labels[split])
    coarse = [example["coarse_label"] for example in examples]
    np.testing.assert_array_equal(coarse, labels[split] // 5)
    features = tfds.builder("cifar100", data_dir=tmp_path).info.features
    assert features["label"].names[99] == "fine99"
    assert features["coarse_label"].names[19] == "coarse19"


@pytest.mark.parametrize("split", ["train", "test"])
def test_official_fashion_mnist_reads_what_was_prepared(manual, monkeypatch, tmp_path, split):
    images, labels = write_fashion(manual)
    expect(monkeypatch, FashionMnist, manual)
    prepare.ensure_prepared(FashionMnist, tmp_path)
    # Without ids, the order is TFDS's shuffle: examples are compared as a multiset.
    found = read_back("fashion_mnist", tmp_path, split)
    pairs = Counter((example["image"].tobytes(), int(example["label"])) for example in found)
    assert pairs == Counter(
        (image.tobytes(), int(label))
        for image, label in zip(images[split], labels[split], strict=True)
    )
    assert found[0]["image"].shape == (28, 28, 1)


@pytest.mark.parametrize("name", sorted(N_CLASSES))
def test_agrees_with_the_official_class(name, tmp_path, monkeypatch):
    # Official classes look into TFDS's bucket, by way of a temporary folder that stays.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ours, official = BUILDERS[name], tfds.builder_cls(name)
    assert official.__module__.startswith("tensorflow_datasets.")
    assert ours.VERSION == official.VERSION
    for url in ours.archives:
        assert ours.url_infos[url] == official.url_infos[url]
    features = [cls(data_dir=tmp_path).info.features for cls in (ours, official)]
    assert features[0].to_json() == features[1].to_json()
    assert features[0]["label"].num_classes == N_CLASSES[name]
    assert features[0]["label"].names == features[1]["label"].names


def test_every_archive_has_a_checksum_and_a_file_name():
    for builder_cls in BUILDERS.values():
        for url in builder_cls.archives:
            assert builder_cls.url_infos[url].filename == Path(url).name


def test_digits_are_those_of_scikit_learn(tmp_path):
    bundled = load_digits()
    folder = prepare.ensure_prepared(Digits, tmp_path)
    builder = tfds.builder_from_directory(folder)
    found = {split: builder.as_data_source(split) for split in ("train", "test")}
    assert {split: len(source) for split, source in found.items()} == {"train": 1198, "test": 599}
    wanted = {"train": Counter(), "test": Counter()}
    for index, (image, label) in enumerate(zip(bundled.images, bundled.target, strict=True)):
        pixels = bytes(int(value * 255 / 16 + 0.5) for value in image.ravel())
        wanted["test" if index % 3 == 2 else "train"][pixels, int(label)] += 1
    for split, source in found.items():
        assert source[0]["image"].shape == (8, 8, 1)
        assert Counter((e["image"].tobytes(), int(e["label"])) for e in source) == wanted[split]


def test_preparing_prints_nothing(cifar10, tmp_path, capfd):
    tfds.display_progress_bar(enable=True)
    for builder_cls in (Digits, Cifar10):
        prepare.ensure_prepared(builder_cls, tmp_path)
    assert capfd.readouterr() == ("", "")


def test_what_is_prepared_is_not_prepared_again(tmp_path, monkeypatch):
    folder = prepare.ensure_prepared(Digits, tmp_path)
    monkeypatch.delattr(Digits, "_split_generators")
    assert prepare.ensure_prepared(Digits, tmp_path) == folder


def test_second_of_two_processes_uses_what_the_first_prepared(tmp_path, monkeypatch):
    inner = Digits._split_generators
    runs = []

    def overtaken(self, dl_manager):
        runs.append(self)
        if len(runs) == 1:
            prepare.ensure_prepared(Digits, tmp_path)
        return inner(self, dl_manager)

    monkeypatch.setattr(Digits, "_split_generators", overtaken)
    folder = prepare.ensure_prepared(Digits, tmp_path)
    assert len(runs) == 2
    assert len(tfds.builder_from_directory(folder).as_data_source("test")) == 599
    assert [path.name for path in folder.parent.iterdir()] == ["1.0.0"]


@pytest.mark.parametrize("legacy", [False, True])
def test_uses_an_archive_that_tfds_downloaded_earlier(
    manual, monkeypatch, tmp_path, cifar10, legacy
):
    info = Cifar10.url_infos[Cifar10.archives[0]]
    folder = manual.parent if legacy else manual.parent / "cifar10"
    cached = folder / resource.get_dl_fname(Cifar10.archives[0], info.checksum)
    folder.mkdir(exist_ok=True)
    (manual / "cifar-10-binary.tar.gz").rename(cached)
    with pytest.raises(DatasetError, match="cannot be reached"):
        prepare.ensure_prepared(Cifar10, tmp_path)  # TFDS wants its note beside the file
    cached.with_suffix(cached.suffix + ".INFO").write_text("{}")
    prepare.ensure_prepared(Cifar10, tmp_path)
    assert_same(read_back("cifar10", tmp_path, "test"), cifar10[0]["test"], cifar10[1]["test"])


@pytest.mark.parametrize("name", sorted(N_CLASSES))
def test_without_a_network_says_which_files_to_put_where(name, tmp_path):
    builder_cls = BUILDERS[name]
    with pytest.raises(DatasetError, match="cannot be reached") as raised:
        prepare.ensure_prepared(builder_cls, tmp_path)
    message = str(raised.value)
    for wanted in (*builder_cls.archives, str(tmp_path / "downloads" / "manual"), "TFDS_DATA_DIR"):
        assert wanted in message


def test_names_only_the_files_that_are_missing(manual, tmp_path, monkeypatch):
    write_fashion(manual)
    expect(monkeypatch, FashionMnist, manual)
    (manual / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DatasetError, match="t10k-labels") as raised:
        prepare.ensure_prepared(FashionMnist, tmp_path)
    assert "train-images" not in str(raised.value)


def test_downloads_where_the_server_answers(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "is_reachable", lambda url: True)
    with pytest.raises(AssertionError, match=r"downloads https://www\.cs\.toronto\.edu"):
        prepare.ensure_prepared(Cifar10, tmp_path)


def failing(error):
    def fail(self, resource):
        raise error

    return fail


@pytest.mark.parametrize(
    "error", [tfds.download.DownloadError("HTTP 503"), ConnectionResetError("HTTP 503")]
)
def test_failed_download_is_a_sentence(tmp_path, monkeypatch, error):
    monkeypatch.setattr(prepare, "is_reachable", lambda url: True)
    monkeypatch.setattr(tfds.download.DownloadManager, "_download", failing(error))
    with pytest.raises(DatasetError, match=r"^cifar10 cannot be .*HTTP 503"):
        prepare.ensure_prepared(Cifar10, tmp_path)


def test_wrong_checksum_is_refused(cifar10, manual, tmp_path):
    archive = manual / "cifar-10-binary.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-1] + b"!")
    with pytest.raises(DatasetError, match=r"^cifar10: Artifact .* has wrong checksum; remove"):
        prepare.ensure_prepared(Cifar10, tmp_path)
    assert not (tmp_path / "cifar10" / "3.0.2").exists()


def test_damaged_archive_leaves_nothing_and_a_whole_one_then_works(
    cifar10, manual, tmp_path, monkeypatch
):
    archive = manual / "cifar-10-binary.tar.gz"
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    expect(monkeypatch, Cifar10, manual)
    with pytest.raises(DatasetError, match=r"cannot be read as a tar\.gz|has no member"):
        prepare.ensure_prepared(Cifar10, tmp_path)
    assert list((tmp_path / "cifar10").iterdir()) == []
    archive.write_bytes(whole)
    expect(monkeypatch, Cifar10, manual)
    prepare.ensure_prepared(Cifar10, tmp_path)
    assert_same(read_back("cifar10", tmp_path, "test"), cifar10[0]["test"], cifar10[1]["test"])


def test_label_without_a_name_is_refused(manual, monkeypatch, tmp_path):
    members = {
        f"cifar-10-batches-bin/{name}": cifar_rows(random_images(0, 1, 32, 32, 3), [10])
        for names in Cifar10.splits.values()
        for name in names
    }
    members["cifar-10-batches-bin/batches.meta.txt"] = b"".join(b"c%d\n" % i for i in range(10))
    write_tar(manual / "cifar-10-binary.tar.gz", members)
    expect(monkeypatch, Cifar10, manual)
    with pytest.raises(DatasetError, match="has a label 10, where 10 classes are named"):
        prepare.ensure_prepared(Cifar10, tmp_path)


@pytest.mark.parametrize("n_kept", [0, 1, 20, -9, -1])
def test_truncated_tar_is_refused(tmp_path, n_kept):
    archive = tmp_path / "a.tar.gz"
    write_tar(archive, {"one": random_images(0, 30_000).tobytes()})
    archive.write_bytes(archive.read_bytes()[:n_kept])
    with pytest.raises(DatasetError, match=r"a\.tar\.gz (cannot be read as a tar|has no member)"):
        cifar.read_members(archive, ["one"])


def test_member_is_found_by_its_exact_name(tmp_path):
    write_tar(tmp_path / "a.tar.gz", {"x/one": b"1", "./one": b"2"})
    with pytest.raises(DatasetError, match="has no member one; remove it"):
        cifar.read_members(tmp_path / "a.tar.gz", ["one"])


def test_link_in_place_of_a_member_is_not_followed_outside(tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        entry = tarfile.TarInfo("one")
        entry.type, entry.linkname = tarfile.SYMTYPE, str(tmp_path / "secret")
        tar.addfile(entry)
    with pytest.raises(DatasetError, match=r"cannot be read|has no member one"):
        cifar.read_members(tmp_path / "a.tar.gz", ["one"])


@pytest.mark.parametrize("content", [b"", bytes(3072), bytes(3074)])
def test_member_of_a_wrong_length_is_refused(tmp_path, content):
    write_tar(tmp_path / "a.tar.gz", {"one": content})
    with pytest.raises(DatasetError, match=f"has {len(content)} bytes, which is no multiple"):
        cifar.read_cifar(tmp_path / "a.tar.gz", ["one"], 1)


IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def test_idx_keeps_shape_and_values(tmp_path):
    (tmp_path / "a.gz").write_bytes(idx(IMAGES))
    np.testing.assert_array_equal(read_idx(tmp_path / "a.gz", 3), IMAGES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not gzip", "cannot be read as a gzip file"),
        (idx(IMAGES)[:-9], "cannot be read as a gzip file"),
        (idx(IMAGES[0]), "begins with 00000802, which is not the header"),
        (gzip.compress(b"\0\0\x0d\3" + bytes(40)), "begins with 00000d03"),
        (gzip.compress(b"\0\0\x08\3" + bytes(4)), "begins with 00000803"),
        (gzip.compress(gzip.decompress(idx(IMAGES))[:-1]), "holds 23 bytes for an array of shape"),
    ],
    # A compressed file holds the second it was made in: workers would collect tests of other names.
    ids=["text", "cut", "two-axes", "floats", "no-lengths", "a-byte-short"],
)
def test_damaged_idx_is_refused(tmp_path, content, message):
    (tmp_path / "a.gz").write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        read_idx(tmp_path / "a.gz", 3)


def test_fashion_label_without_a_name_is_refused(manual, monkeypatch, tmp_path):
    write_fashion(manual)
    (manual / "t10k-labels-idx1-ubyte.gz").write_bytes(idx(np.array([1, 10, 2], np.uint8)))
    expect(monkeypatch, FashionMnist, manual)
    with pytest.raises(DatasetError, match="has a label 10, where 10 classes are named"):
        prepare.ensure_prepared(FashionMnist, tmp_path)


def test_images_and_labels_must_be_equally_many(manual, monkeypatch, tmp_path):
    write_fashion(manual)
    (manual / "train-labels-idx1-ubyte.gz").write_bytes(idx(np.zeros(6, np.uint8)))
    expect(monkeypatch, FashionMnist, manual)
    with pytest.raises(DatasetError, match=r"has 7 images, but .* has 6 labels"):
        prepare.ensure_prepared(FashionMnist, tmp_path)


class TestReachable:
    """The probe itself, against a server on this machine."""

    @pytest.fixture
    def reach(self, monkeypatch):
        monkeypatch.undo()  # the module's own probe, not the refusing one
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        return prepare.is_reachable

    @pytest.fixture
    def server(self):
        class Answer(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.send_response(int(self.path[1:]))
                self.end_headers()

            def log_message(self, *args):
                """Stay quiet."""

        with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()
            thread.join()

    @pytest.mark.parametrize(
        ("status", "answer"), [(200, True), (405, True), (404, False), (503, False)]
    )
    def test_by_status(self, reach, server, status, answer):
        assert reach(f"{server}/{status}", 60) is answer

    def test_closed_port(self, reach, server):
        address = server.rsplit(":", 1)[0] + ":1"
        assert reach(f"{address}/200", 60) is False

    def test_does_not_wait_for_what_hangs(self, reach, monkeypatch):
        hang = threading.Event()
        monkeypatch.setattr(prepare, "_ask", lambda url, timeout_s: hang.wait(20) or True)
        assert reach("http://nowhere.invalid/", 0.01) is False
        hang.set()
