"""MNIST, in grey as the paper has it, and binarised: the first 50,000 training images, and the 10,000 for testing.

The other 10,000 training images are the authors' validation set: they follow the 50,000 where `n_train` asks for more.
"""

import math
import struct
from pathlib import Path

import numpy as np

from comparisons.data.base import GREY, SEED, DataCard
from comparisons.data.files import File, read, unpack, whole
from comparisons.errors import DataError

MIRRORS = (  # the original home is reported to answer 403 at times
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://yann.lecun.com/exdb/mnist/",
)
ALSO = ("MNIST/raw",)  # torchvision's folder
TRAIN = File(
    "mnist/train-images-idx3-ubyte.gz",
    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    MIRRORS,
    16 + 60_000 * 28 * 28,
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ALSO,
)
TEST = File(
    "mnist/t10k-images-idx3-ubyte.gz",
    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    MIRRORS,
    16 + 10_000 * 28 * 28,
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ALSO,
)
TRAIN_LABELS = File(
    "mnist/train-labels-idx1-ubyte.gz",
    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    MIRRORS,
    8 + 60_000,
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ALSO,
)
TEST_LABELS = File(
    "mnist/t10k-labels-idx1-ubyte.gz",
    "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    MIRRORS,
    8 + 10_000,
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ALSO,
)


def mnist(data_dir: str | Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Return train and test in grey, not binarised.

    Values are pixels / 256: the pickle that the authors read has 255 / 256 as its largest value. It matters: the least
    attainable cross-entropy, the pixels' own entropy, is 47.0 nats an image with 256 and 45.7 with the customary 255.
    """
    train, test = _pixels(data_dir)
    return train / np.float32(256), test / np.float32(256)


def mnist_255(data_dir: str | Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Return train and test in grey as most libraries have them: pixels / 255."""
    train, test = _pixels(data_dir)
    return train / np.float32(255), test / np.float32(255)


def mnist_binary(data_dir: str | Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the probabilities pixel / 255 that train is drawn from at each visit, and test, drawn once and for all.

    Here 255 is right: a white pixel is always on, as in the binarised MNIST of the literature.
    """
    train, grey = (pixels / np.float32(255) for pixels in _pixels(data_dir))
    test = np.random.default_rng(SEED).random(grey.shape, np.float32) < grey
    return train, test.astype(np.float32)


def labels(data_dir: str | Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Return which digit each image of train [60000] and test [10000] is, uint8. Raises DataError."""
    files = (TRAIN_LABELS, TEST_LABELS)
    train, test = (np.frombuffer(unpack(read(file, data_dir)[1], file.size), np.uint8, offset=8) for file in files)
    return train, test


LARGEST = 16 + 60_000 * 28 * 28  # bytes of MNIST's larger file


def read_idx(path: str | Path, limit: int = LARGEST) -> np.ndarray:
    """Read images [n, rows, columns] uint8 from an IDX file, gzipped or not (format: yann.lecun.com/exdb/mnist).

    Memory follows what the file holds, never what its header announces. Raises DataError for a file that is unreadable,
    cut short, too long or of another kind.
    """
    try:
        return _parsed(path, whole(path, limit), limit)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error


def _parsed(path: str | Path, packed: bytes, limit: int = LARGEST) -> np.ndarray:
    """Return the images of an IDX file's content. Raises DataError.

    Four big-endian integers lead: the magic number, whose last bytes are the type (8: unsigned byte) and the number of
    dimensions, then the dimensions.
    """
    try:
        if packed[:2] not in (b"\0\0", b"\x1f\x8b"):
            raise ValueError(f"it begins with {packed[:2]!r}")
        content = unpack(packed, limit)
    except ValueError as error:
        raise DataError(f"{path}: not a whole gzip file ({error})") from error
    if not 16 <= len(content) <= limit:
        bound = "fewer than 16" if len(content) < 16 else f"more than {limit}"
        raise DataError(f"{path}: unpacks to {bound} bytes")
    magic, *shape = struct.unpack_from(">4I", content)
    if magic != 0x00000803:
        raise DataError(f"{path}: magic number 0x{magic:08x}, not 0x00000803 (IDX, unsigned bytes, 3 dimensions)")
    size, announced = len(content) - 16, math.prod(shape)
    if announced != size or size == 0:
        raise DataError(f"{path}: header announces {shape} images, {announced} bytes, but {size} bytes follow")
    return np.frombuffer(content, np.uint8, offset=16).reshape(shape)


def _pixels(data_dir: str | Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Train [60000, 784] and test [10000, 784], float32, 0 to 255."""
    train, test = (_parsed(*read(file, data_dir)) for file in (TRAIN, TEST))
    return train.reshape(len(train), -1).astype(np.float32), test.reshape(len(test), -1).astype(np.float32)


DRAWN = "log probability of binary images, train drawn anew at each visit; not comparable with grey mnist"
MNIST = DataCard("MNIST", 50_000, (28, 28), "unit", GREY, "vae_bernoulli", mnist, labels=labels)
MNIST_255 = DataCard("MNIST, pixels / 255", 50_000, (28, 28), "unit", GREY, "vae_bernoulli", mnist_255, labels=labels)
MNIST_BINARY = DataCard(
    "binary MNIST", 50_000, (28, 28), "binary", DRAWN, "vae_bernoulli", mnist_binary, fresh=True, labels=labels
)
