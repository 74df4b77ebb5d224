"""Splits in memory: pixels as stored, orders that never change, errors that say what to do."""

import errno
import os
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_digits

from allcnn.datasets import BUILDERS, Builder, Digits, prepare, splits
from allcnn.errors import ConfigError, DatasetError

GOLDEN_ORDER = [6, 3, 1, 4, 5, 2, 7, 0]
GOLDEN_DIGEST = "513e8e208e527a8a1318a6cd61b9584ca1b07502058403dc01a53ff2c34e6e27"

COLOUR = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
COLOUR_LABELS = np.array([2, 0, 1, 1, 2])
FEATURES = {
    "image": tfds.features.Image(shape=(16, 16, 3)),
    "label": tfds.features.ClassLabel(names=["a", "b", "c"]),
}


def sized(height, width, channels):
    """Return the features of images of another shape."""
    return FEATURES | {"image": tfds.features.Image(shape=(height, width, channels))}


def prepare_foreign(data_dir, images=COLOUR, labels=COLOUR_LABELS, features=FEATURES):
    """Prepare a data set that the package does not know, as another project would."""

    class Foreign(Builder):
        VERSION = tfds.core.Version("2.1.0")

        def _info(self):
            return self.describe("", "", "", **features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for index, (image, label) in enumerate(zip(images, labels, strict=True)):
                picture = Image.fromarray(image.squeeze())
                yield (
                    index,
                    {
                        name: picture if isinstance(feature, tfds.features.Image) else label
                        for name, feature in features.items()
                    },
                )

    Foreign(data_dir=data_dir, file_format="array_record").download_and_prepare()
    return data_dir / "foreign" / "2.1.0"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Fail at once where a test would leave the machine."""
    tfds.disable_progress_bar()
    monkeypatch.setattr(prepare, "is_reachable", lambda url: False)
    monkeypatch.setattr(tfds.download.DownloadManager, "_download", _refuse_download)


def _refuse_download(self, resource):
    raise AssertionError(f"downloads {resource.url}")


def load_from(dataset, split, image_size, folder):
    with mock.patch.dict(os.environ, TFDS_DATA_DIR=str(folder)):
        return splits.load(dataset, split, image_size)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture
def digits(data_dir):
    return load_from("digits", "test", 16, data_dir)


def make_split(n, shape=(4, 4, 3), seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, *shape), np.uint8)
    labels = rng.integers(0, 3, n).astype(np.int32)
    return splits.Split("made", "train", images, labels, ("a", "b", "c"))


# Loading


@pytest.mark.parametrize(("split", "n"), [("train", 1198), ("test", 599)])
def test_digits_need_nothing_but_a_home(tmp_path, monkeypatch, capfd, split, n):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    loaded = splits.load("digits", split)
    assert loaded.images.shape == (n, 32, 32, 1)
    assert loaded.images.dtype == np.uint8
    assert loaded.labels.shape == (n,)
    assert loaded.labels.dtype == np.int32
    assert len(loaded) == n
    assert loaded.class_names == tuple("0123456789")
    assert (tmp_path / "home" / "tensorflow_datasets" / "digits" / "1.0.0").is_dir()
    assert capfd.readouterr() == ("", "")


def test_digits_keep_their_labels_and_their_contrast(digits):
    bundled = load_digits()
    kept = np.arange(len(bundled.target)) % 3 == 2
    np.testing.assert_array_equal(np.bincount(digits.labels), np.bincount(bundled.target[kept]))
    assert digits.images.max() == 255
    # A triangle filter's weights add up to 1 but for pixels at the border: class by class, means
    # move by less than one level of the original's sixteen.
    for label in range(10):
        wanted = bundled.images[kept][bundled.target[kept] == label].mean() * 255 / 16
        assert digits.images[digits.labels == label].mean() == pytest.approx(wanted, abs=255 / 16)


def test_variable_names_the_folder_at_each_call(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "late"))
    splits.load("digits", "test", 12)
    assert (tmp_path / "late" / "digits").is_dir()


def test_prepared_data_set_works_by_name_with_its_pixels(tmp_path):
    prepare_foreign(tmp_path)
    loaded = load_from("foreign", "train", 16, tmp_path)
    assert loaded.class_names == ("a", "b", "c")
    # TFDS shuffles when it prepares: examples are paired by their pixels.
    order = [int(np.argmax((COLOUR == image).all((1, 2, 3)))) for image in loaded.images]
    assert sorted(order) == list(range(5))
    np.testing.assert_array_equal(loaded.images, COLOUR[order])
    np.testing.assert_array_equal(loaded.labels, COLOUR_LABELS[order])


def test_same_examples_in_the_same_order_from_another_preparation(digits, tmp_path):
    again = load_from("digits", "test", 16, tmp_path)
    np.testing.assert_array_equal(again.images, digits.images)
    np.testing.assert_array_equal(again.labels, digits.labels)


@pytest.mark.parametrize(("channels", "size"), [(1, 12), (1, 40), (3, 12), (3, 40)])
def test_resized_images_are_square_and_keep_their_channels(tmp_path, channels, size):
    ramp = np.linspace(0, 255, 30).astype(np.uint8)
    image = np.broadcast_to(ramp[None, :, None], (20, 30, channels)).copy()
    prepare_foreign(tmp_path, [image], [0], sized(20, 30, channels))
    resized = load_from("foreign", "train", size, tmp_path).images
    assert resized.shape == (1, size, size, channels)
    # Columns stay columns, still rising; a straight ramp is kept by linear interpolation, to
    # within a step of the ramp and the rounding, but for the border's half a kernel.
    assert (resized == resized[:, :1]).all()
    row = resized[0, 0, :, 0].astype(float)
    assert (np.diff(row) > 0).all()
    inner = slice(size // 6, -(size // 6))
    centres = (np.arange(size) + 0.5) * 30 / size - 0.5
    np.testing.assert_allclose(row[inner], (centres * 255 / 29)[inner], atol=2)


@pytest.mark.parametrize(("stored", "declared"), [(1, 3), (3, 1)])
def test_features_decide_on_colour_not_files(tmp_path, stored, declared):
    grey = COLOUR[:1, :, :, :1]
    prepare_foreign(tmp_path, grey.repeat(stored, axis=3), [0], sized(16, 16, declared))
    loaded = load_from("foreign", "train", 16, tmp_path).images
    np.testing.assert_array_equal(loaded, grey.repeat(declared, axis=3))


def test_resizing_treats_rows_and_columns_alike(tmp_path):
    images = [COLOUR[0], COLOUR[0].transpose(1, 0, 2)]
    prepare_foreign(tmp_path, images, [0, 1])
    loaded = load_from("foreign", "train", 24, tmp_path)
    first, second = loaded.images[np.argsort(loaded.labels)]
    # Pillow filters rows first and rounds between the two passes.
    difference = first.astype(int) - second.transpose(1, 0, 2).astype(int)
    assert np.abs(difference).max() <= 1


def test_arrays_are_read_only(digits):
    with pytest.raises(ValueError, match="read-only"):
        digits.images[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        digits.labels[0] = 0


def test_reads_more_rows_than_one_chunk(tmp_path, monkeypatch):
    prepare_foreign(tmp_path)
    whole = load_from("foreign", "train", 16, tmp_path)
    monkeypatch.setattr(splits, "_CHUNK_ROWS", 2)
    np.testing.assert_array_equal(load_from("foreign", "train", 16, tmp_path).images, whole.images)


# Refusals


def test_small_images_are_refused_before_any_work(tmp_path):
    with pytest.raises(ConfigError, match="image-size is 11; use 12 or more"):
        load_from("digits", "test", 11, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["nonesuch", "../digits", "a b", "", "digits/1.0.0"])
def test_unknown_data_set_names_the_known(tmp_path, name):
    with pytest.raises(DatasetError, match=f"^data set {name!r} is not prepared in") as raised:
        load_from(name, "test", 16, tmp_path)
    for wanted in (*BUILDERS, str(tmp_path), "TFDS_DATA_DIR"):
        assert wanted in str(raised.value)


@pytest.mark.parametrize("split", ["validation", "train[:10]", ""])
def test_unknown_split_names_the_known(data_dir, split):
    with pytest.raises(DatasetError, match=r"^data set digits has no split .*; use one of"):
        load_from("digits", split, 16, data_dir)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion_mnist"])
def test_offline_says_how_to_get_it_and_never_downloads(tmp_path, name):
    with pytest.raises(DatasetError, match=f"^{name} is not prepared in .* cannot be reached"):
        load_from(name, "test", 32, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": tfds.features.Scalar(np.int64)}, "has the features image, label; wanted are"),
        ({"label": tfds.features.Scalar(np.int64)}, "has the features image, label; wanted are"),
        ({"image": tfds.features.Image(shape=(16, 16, 4))}, "are uint8 of 4 channels"),
        (
            {"image": tfds.features.Image(shape=(16, 16, 3), dtype=np.uint16)},
            "are uint16 of 3 channels; wanted is uint8 of 1 or 3",
        ),
    ],
)
def test_unsuitable_features_are_refused(tmp_path, changes, message):
    prepare_foreign(tmp_path, features=FEATURES | changes)
    with pytest.raises(DatasetError, match=message):
        load_from("foreign", "train", 16, tmp_path)


def test_missing_features_are_named(tmp_path):
    features = {"picture": FEATURES["image"], "label": FEATURES["label"]}
    prepare_foreign(tmp_path, features=features)
    with pytest.raises(DatasetError, match="has the features label, picture; wanted are"):
        load_from("foreign", "train", 16, tmp_path)


def test_unlabelled_examples_are_refused(tmp_path):
    prepare_foreign(tmp_path, labels=np.full(5, -1))
    with pytest.raises(DatasetError, match=r"^split 'train' of data set foreign has no labels"):
        load_from("foreign", "train", 16, tmp_path)


def test_damaged_records_are_refused(tmp_path):
    (shard,) = prepare_foreign(tmp_path).glob("*array_record*")
    content = bytearray(shard.read_bytes())
    content[100:2000] = bytes(1900)
    shard.write_bytes(content)
    with pytest.raises(DatasetError, match=r"^split 'train' of data set foreign cannot be read"):
        load_from("foreign", "train", 16, tmp_path)


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
def test_damaged_description_is_refused(tmp_path, file):
    load_from("digits", "test", 16, tmp_path)
    (tmp_path / "digits" / "1.0.0" / file).write_text("{")
    with pytest.raises(DatasetError, match="holds no readable digits"):
        load_from("digits", "test", 16, tmp_path)


def test_folder_without_a_description_is_refused(tmp_path):
    (tmp_path / "digits" / "1.0.0").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"digits/1\.0\.0 holds no prepared data set; remove it"):
        load_from("digits", "test", 16, tmp_path)


def test_file_in_place_of_the_data_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match=r"^digits cannot be prepared in .*Not a directory"):
        load_from("digits", "test", 16, tmp_path / "file")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_digits_are_prepared_elsewhere_where_the_folder_is_read_only(
    digits, tmp_path, monkeypatch, code
):
    write = Digits.download_and_prepare
    scratch = []

    def refuse(self, **kwargs):
        if Path(self.data_dir).is_relative_to(tmp_path):
            raise OSError(code, os.strerror(code), str(tmp_path))
        scratch.append(Path(self.data_dir))
        return write(self, **kwargs)

    monkeypatch.setattr(Digits, "download_and_prepare", refuse)
    loaded = load_from("digits", "test", 16, tmp_path)
    np.testing.assert_array_equal(loaded.images, digits.images)
    assert len(scratch) == 1
    assert not scratch[0].exists()
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_not_taken_for_a_read_only_folder(tmp_path, monkeypatch):
    def refuse(self, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Digits, "download_and_prepare", refuse)
    with pytest.raises(DatasetError, match=r"digits cannot be prepared in .*No space left"):
        load_from("digits", "test", 16, tmp_path)


# Orders


def test_epoch_order_is_a_permutation_that_never_changes():
    assert splits.epoch_order(8, seed=0, epoch=0).tolist() == GOLDEN_ORDER
    order = splits.epoch_order(1000, seed=3, epoch=7)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(1000))
    np.testing.assert_array_equal(order, splits.epoch_order(1000, seed=3, epoch=7))
    assert splits.epoch_order(0, 0, 0).tolist() == []


def test_epoch_order_differs_by_seed_and_epoch():
    orders = {tuple(splits.epoch_order(50, seed, epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_every_example_is_equally_likely_at_every_place():
    n, n_epochs = 6, 3000
    places = np.array([splits.epoch_order(n, 1, epoch) for epoch in range(n_epochs)])
    counts = np.stack([np.bincount(column, minlength=n) for column in places.T])
    # Binomial counts; beyond 5 standard deviations once in a hundred thousand for all 36.
    spread = np.sqrt(n_epochs * (1 / n) * (1 - 1 / n))
    assert np.abs(counts - n_epochs / n).max() < 5 * spread


@pytest.mark.parametrize(
    ("n", "size", "ranges"),
    [
        (10, 4, [(0, 4), (4, 8), (8, 10)]),
        (8, 4, [(0, 4), (4, 8)]),
        (3, 4, [(0, 3)]),
        (0, 4, []),
    ],
)
def test_batches_keep_the_short_last_one(n, size, ranges):
    assert splits.batch_ranges(n, size) == ranges


def test_samples_begin_one_fixed_shuffle():
    split = make_split(10)
    # The legacy generator's published shuffle of ten with seed 0.
    assert splits.draw_samples(split, 10).tolist() == [2, 8, 4, 9, 1, 6, 7, 3, 0, 5]
    assert splits.draw_samples(split, 4).tolist() == [2, 8, 4, 9]
    assert splits.draw_samples(split, 4).dtype == np.int64


@pytest.mark.parametrize("n", [-1, 0, 3, 11])
def test_too_few_or_too_many_samples_are_refused(n):
    with pytest.raises(ConfigError, match=f"^{n} samples .* made/train, .* 10 examples; use 4 to"):
        splits.draw_samples(make_split(10), n)


# Digests and statistics


def changed(split, **fields):
    values = {name: getattr(split, name) for name in ("dataset", "split", "images", "labels")}
    return splits.Split(**(values | fields), class_names=split.class_names)


def test_digest_changes_with_any_pixel_label_order_or_shape():
    split, indices = make_split(6), np.arange(5)
    pixels, labels = split.images.copy(), split.labels.copy()
    pixels[4, 3, 3, 2] ^= 1
    labels[0] += 1
    digests = {
        splits.digest(split, indices),
        splits.digest(changed(split, images=pixels), indices),
        splits.digest(changed(split, labels=labels), indices),
        splits.digest(split, indices[::-1]),
        splits.digest(split, indices[:4]),
        splits.digest(changed(split, images=split.images.reshape(6, 2, 8, 3)), indices),
    }
    assert len(digests) == 6
    assert all(len(digest) == 64 for digest in digests)


def test_digest_sees_only_the_examples_drawn():
    split, indices = make_split(6), np.array([3, 0])
    pixels = split.images.copy()
    pixels[[1, 2, 4, 5]] = 0
    assert splits.digest(changed(split, images=pixels), indices) == splits.digest(split, indices)
    assert splits.digest(changed(split, dataset="other"), indices) == splits.digest(split, indices)


def test_digest_never_changes():
    images = np.arange(2 * 2 * 2 * 1, dtype=np.uint8).reshape(2, 2, 2, 1)
    split = splits.Split("made", "test", images, np.array([1, 0], np.int32), ("a", "b"))
    assert splits.digest(split, np.array([1, 0])) == GOLDEN_DIGEST


@pytest.mark.parametrize("n", [1, 7, 2500])
def test_statistics_are_those_of_all_pixels_of_a_channel(n):
    split = make_split(n, (3, 5, 2))
    mean, std = splits.image_statistics(split)
    scaled = split.images.astype(np.float64) / 255
    assert mean.dtype == std.dtype == np.float32
    # Rounding to float32 is all the difference there may be.
    np.testing.assert_allclose(mean, scaled.mean((0, 1, 2)), rtol=2e-7)
    np.testing.assert_allclose(std, scaled.std((0, 1, 2)), rtol=2e-7)


def test_statistics_do_not_depend_on_the_order():
    split = make_split(1500)
    shuffled = changed(split, images=split.images[splits.epoch_order(1500, 0, 0)])
    for ours, theirs in zip(
        splits.image_statistics(split), splits.image_statistics(shuffled), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_written_characters_are_not_augmented():
    assert not splits.supports_augmentation("digits")
    assert not splits.supports_augmentation("mnist")
    assert splits.supports_augmentation("cifar10")
    assert splits.supports_augmentation("fashion_mnist")


def test_reads_cifar10_as_prepared_by_others():
    folder = prepare.resolve_data_dir()
    if not (folder / "cifar10" / "3.0.2").is_dir():
        pytest.skip("TFDS_DATA_DIR has no cifar10")
    loaded = splits.load("cifar10", "test")
    assert loaded.images.shape == (10_000, 32, 32, 3)
    assert np.bincount(loaded.labels).tolist() == [1000] * 10
    assert loaded.class_names[0] == "airplane"
    first = tfds.data_source("cifar10", split="test", download=False, data_dir=folder)[0]
    np.testing.assert_array_equal(loaded.images[0], first["image"])
