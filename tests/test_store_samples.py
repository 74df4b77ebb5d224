"""Which examples rows are of: the same digest for the same examples from all who describe them."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from allcnn import extract
from allcnn.datasets import splits
from store import ArrayError, Examples, SchemaError

N = 40


@pytest.fixture(scope="module")
def ours():
    """Return the first examples of the fixed shuffle, as our own networks see them."""
    return extract.load_samples("digits", 12, "test", N)


def test_images_and_labels_are_recognised_as_those_of_our_networks(ours):
    found = Examples.of("digits", "test", N, labels=ours.labels, images=ours.images)
    assert found.sample_set == ours.sample_set


def test_images_may_be_tensors(ours):
    torch = pytest.importorskip("torch", reason="PyTorch comes with the extra 'bench'")
    images, labels = torch.tensor(ours.images), torch.tensor(ours.labels)
    found = Examples.of("digits", "test", N, labels=labels, images=images)
    assert found.sample_set == ours.sample_set


@pytest.mark.parametrize("n", [1, 1023, 1024, 1025, 2049])
def test_the_digest_of_images_does_not_depend_on_how_they_are_read(n):
    images = np.arange(n * 4, dtype=np.uint8).reshape(n, 2, 2, 1)
    labels = np.arange(n, dtype=np.int32)
    found = Examples.of("x", "test", n, labels=labels, images=images).sample_set
    split = splits.Split("x", "test", images, labels, ())
    assert found.digest == splits.digest(split, np.arange(n))
    assert found.image_shape == (2, 2, 1)


def test_other_images_labels_or_types_have_another_digest(ours):
    def name(labels=ours.labels, images=ours.images):
        return Examples.of("digits", "test", N, labels=labels, images=images).sample_set.name

    names = {name(), name(labels=ours.labels[::-1]), name(images=ours.images[::-1])}
    names |= {name(images=ours.images.astype(np.int8)), name(images=ours.images[:, :, :6])}
    assert len(names) == 5


def test_without_images_the_digest_is_of_indices_and_labels():
    def digest(n=5, **what):
        return Examples.of("x", "test", n, **what).sample_set.digest

    assert digest() == digest(indices=range(5)) == digest(labels=[-1] * 5)
    others = {digest(), digest(6), digest(indices=[0, 1, 2, 4, 3]), digest(labels=[0] * 5)}
    assert len(others) == 4


def test_what_is_not_told_is_counted_and_unknown():
    found = Examples.of("x", "test", 3)
    assert (found.indices.dtype, found.labels.dtype) == (np.int64, np.int32)
    np.testing.assert_array_equal(found.indices, [0, 1, 2])
    np.testing.assert_array_equal(found.labels, [-1, -1, -1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": [1, 2]}, "there are 2 labels for 3 rows; want one a row"),
        ({"indices": [1, 2, 3, 4]}, "there are 4 indices for 3 rows; want one a row"),
        ({"images": np.zeros((2, 4))}, "there are 2 images for 3 rows; want one a row"),
        ({"labels": [1.0, 2.0, 3.0]}, "labels are float64 of shape (3,); want one axis of integ"),
        ({"labels": [[1], [2], [3]]}, "labels are int64 of shape (3, 1); want one axis of integ"),
        ({"labels": [0, 1, 2**31]}, "labels reach 2147483648; want integers that fit int32"),
        ({"images": np.zeros((3, 2), object)}, "the array of images is of type object; wanted"),
        ({"n_samples": 0}, "n_samples is 0; want an integer of at least 1"),
        ({"n_samples": 3.0}, "n_samples is 3.0; want an integer of at least 1"),
    ],
)
def test_examples_that_do_not_fit_are_refused(changes, message):
    with pytest.raises((ArrayError, SchemaError), match=f"^{re.escape(message)}"):
        Examples.of(**{"dataset": "x", "split": "test", "n_samples": 3} | changes)


@pytest.fixture
def stored(ours):
    """Return what reading a representation of our own gives."""
    meta = SimpleNamespace(sample_set=ours.sample_set)
    return SimpleNamespace(meta=meta, samples=ours.indices, labels=ours.labels)


def test_the_examples_of_what_is_stored_are_taken_over(stored, ours):
    found = Examples.like(
        stored, indices=ours.indices, labels=ours.labels.astype(np.int64), images=ours.images
    )
    assert found.sample_set == ours.sample_set
    np.testing.assert_array_equal(found.indices, ours.indices)
    np.testing.assert_array_equal(found.labels, ours.labels)


def test_another_order_than_the_stored_one_is_refused(stored, ours):
    labels = ours.labels.copy()
    row = int(np.flatnonzero(labels != labels[0])[0])
    labels[[0, row]] = labels[[row, 0]]
    message = (
        f"row 0 has {labels[0]} among the labels, and {labels[row]} in what is stored of digits"
    )
    with pytest.raises(ArrayError, match=f"^{message}"):
        Examples.like(stored, labels=labels)
    with pytest.raises(ArrayError, match=r"^row 0 has .* among the indices, and "):
        Examples.like(stored, indices=ours.indices[::-1])
    with pytest.raises(ArrayError, match=f"^the images have the digest .*{ours.sample_set.name}"):
        Examples.like(stored, images=ours.images[::-1])
    with pytest.raises(ArrayError, match=r"^there are 39 labels for 40 rows"):
        Examples.like(stored, labels=labels[1:])
