"""Data sets by name: `load("mnist")` gives train [n, d] and test [m, d], float32, as the model sees them.

One name means one array: other values, another order or another split would be another name. The authors' choices are
read off their code (github.com/dpkingma/anglepy, April 2014); where they are unknown, ours are stated beside the data.

Files are looked for in --data-dir, else in $AEVB_DATA, else in the user's cache, laid out as `mnist/*.gz` and
`frey/frey_rawface.mat`. A missing file is downloaded there; no file is used whose SHA-256 is not the one below.
"""

import gzip
import hashlib
import math
import os
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np

from comparisons.errors import DataError, FlagError

DATA = ("digits", "mnist", "mnist_binary", "frey", "synthetic")

SEED = 13126114  # the paper's arXiv number; every shuffle and draw below starts from it

SHA256 = {
    "mnist/train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "mnist/t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "frey/frey_rawface.mat": "265a83a23adb081755cd3de375509828e690324d1d60f076b8ecebc840d59c64",
}

MIRRORS = {  # tried in this order; both original homes, lecun.com and nyu.edu, are reported to answer 403 at times
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://yann.lecun.com/exdb/mnist/",
    ),
    "frey": (
        "https://cs.nyu.edu/~roweis/data/",
        "https://raw.githubusercontent.com/cvybhu/VAE/master/data/",
    ),
}

TIMEOUT = 30.0  # seconds a mirror may stay silent before the next one is tried

# What each support allows, in words and as a test; NaN fails all three.
SUPPORTS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "unit": ("a number in [0, 1]", lambda x: (x >= 0) & (x <= 1)),
    "binary": ("0 or 1", lambda x: (x == 0) | (x == 1)),
    "real": ("a finite number", np.isfinite),
}

GREY = "cross-entropy of grey values, not a normalised log density"


class Data(NamedTuple):
    """A data set, split and scaled; one row is one datapoint."""

    name: str
    train: np.ndarray  # [n, d] float32, C-contiguous
    test: np.ndarray  # [m, d] float32, C-contiguous
    shape: tuple[int, int]  # of one image, rows x columns; (1, d) where a row is no image
    support: str  # "unit": [0, 1]; "binary": 0 or 1; "real"
    note: str  # what a number on this data means; "" if there is nothing to say
    fresh: bool  # True: train holds probabilities, binarised anew at each visit; test is binarised already


def load(name: str, data_dir: str | Path | None = None) -> Data:
    """Return the data set called `name`, one of `DATA`, reading its files from `data_folder(data_dir)`.

    Raises FlagError for an unknown name, DataError for a file that is missing, damaged or holds unusable values.
    """
    match name:
        case "digits":
            data = _digits()
        case "mnist":
            data = _mnist(data_dir)
        case "mnist_binary":
            data = _mnist_binary(data_dir)
        case "frey":
            data = _frey(data_dir)
        case "synthetic":
            data = _synthetic()
        case _:
            raise FlagError(f"unknown data {name!r}; choose from {', '.join(DATA)}")
    check(f"{name} train", data.train, "unit" if data.fresh else data.support)
    check(f"{name} test", data.test, data.support)
    return data


def take(data: Data, n_train: int | None) -> Data:
    """Keep the first `n_train` rows of train, all of them for None; test stays whole.

    Raises FlagError unless 1 <= n_train <= the rows there are.
    """
    if n_train is None:
        return data
    n, rows = len(data.train), "images" if data.shape[0] > 1 else "rows"
    if n_train < 1:
        raise FlagError(f"n_train {n_train} is less than 1; choose 1 to {n} for {data.name}")
    if n_train > n:
        raise FlagError(f"n_train {n_train} exceeds the {n} training {rows} of {data.name}; choose 1 to {n}")
    return data._replace(train=data.train[:n_train])


def check(name: str, array: np.ndarray, support: str) -> None:
    """Refuse an array [n, d] that no model here accepts; `name` is what the message calls it.

    Raises DataError for fewer than 2 rows, no columns, or a value outside `support`, naming the first such value.
    """
    if support not in SUPPORTS:
        raise FlagError(f"unknown support {support!r}; choose from {', '.join(SUPPORTS)}")
    if array.ndim != 2 or len(array) < 2 or array.size == 0:
        raise DataError(f"{name}: shape is {array.shape}, not [n, d] with at least 2 rows and 1 column")
    allowed, test = SUPPORTS[support]
    valid = test(array)
    if not valid.all():
        row, column = np.unravel_index(np.argmin(valid), valid.shape)
        raise DataError(f"{name}: row {row}, column {column} is {array[row, column]!s}, not {allowed}")


def digest(data: Data) -> str:
    """Return the SHA-256, in hex, of the name, the shapes and the bytes of train and test: the arrays' identity."""
    sha256 = hashlib.sha256(f"{data.name} {data.train.shape} {data.test.shape}".encode())
    for array in (data.train, data.test):
        sha256.update(np.ascontiguousarray(array).data)
    return sha256.hexdigest()


def synthetic_theta() -> dict[str, np.ndarray]:
    """Return the theta that `synthetic` is drawn from, for k = 3 latents and d = 10 observed values.

    x = z w + b + exp(log_scale) e, with z ~ N(0, I_k) and e ~ N(0, I_d); so x ~ N(b, w' w + exp(2 log_scale) I).
    Here w [k, d] ~ N(0, 1), b [d] = 0 and log_scale [] = log 0.5, the natural logarithm of the noise's standard
    deviation.
    """
    w = np.random.default_rng(SEED).standard_normal((3, 10))
    theta = {"w": w, "b": np.zeros(10), "log_scale": np.array(math.log(0.5))}
    return {name: value.astype(np.float32) for name, value in theta.items()}


def data_folder(data_dir: str | Path | None = None) -> Path:
    """Return the folder of the data files: `data_dir`, else $AEVB_DATA, else the user's cache."""
    from pooch import os_cache  # not at the top: importing pooch takes as long as importing NumPy

    return Path(_given(data_dir) or os_cache("aevb-comparison")).expanduser()


def fetch(file: str, data_dir: str | Path | None = None) -> Path:
    """Return the path of `file`, a key of `SHA256`, in `data_folder(data_dir)`, after downloading it if it is missing.

    A damaged file is replaced in the cache, but left as it is in a folder that the user named. Raises DataError where
    no file with the right SHA-256 is to be had.
    """
    import pooch

    path, expected = data_folder(data_dir) / file, SHA256[file]
    found = _sha256(path)
    if found == expected:
        return path
    if found and _given(data_dir):
        raise DataError(
            f"{path}: SHA-256 is {found}, expected {expected}; it is left as it is: move it away to download it anew"
        )
    state = f"damaged (SHA-256 {found})" if found else "missing"
    remedy = f"put {path.name} there, or set --data-dir or AEVB_DATA to a folder with {file}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise DataError(f"{path} is {state} and its folder cannot be written ({error.strerror}); {remedy}") from error

    failures = []
    for mirror in MIRRORS[path.parent.name]:
        try:
            downloader = pooch.HTTPDownloader(timeout=TIMEOUT, chunk_size=2**16)
            # pooch downloads to a temporary file beside `path` and renames it once its hash is right
            pooch.retrieve(mirror + path.name, f"sha256:{expected}", path.name, path.parent, downloader=downloader)
            return path
        except (OSError, ValueError) as error:  # requests' errors are OSErrors; a ValueError is pooch's wrong hash
            reason = "wrong SHA-256" if type(error) is ValueError else getattr(error, "strerror", None)
            failures.append(f"{urlsplit(mirror).netloc}: {reason or type(error).__name__}")
    raise DataError(f"{path} is {state} and could not be downloaded ({', '.join(failures)}); {remedy}")


def read_idx(path: str | Path) -> np.ndarray:
    """Read images [n, rows, columns] uint8 from a gzipped IDX file (format: yann.lecun.com/exdb/mnist).

    Four big-endian integers lead: the magic number, whose last bytes are the type (8: unsigned byte) and the number of
    dimensions, then the dimensions. Memory follows what the file holds, never what its header announces. Raises
    DataError for a file that is unreadable, cut short, too long or of another kind.
    """
    limit = 16 + 60_000 * 28 * 28  # the largest file of MNIST
    content = bytearray()
    try:
        with gzip.open(path) as file:
            while (chunk := file.read(2**20)) and len(content) <= limit:
                content += chunk
    except (OSError, EOFError, zlib.error) as error:
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


def read_frey(path: str | Path) -> np.ndarray:
    """Read the 1965 frames [1965, 560] uint8 of Frey Face, 28 x 20 pixels row by row, from its MATLAB 5 file.

    The file is one array, `ff` [560, 1965] in column-major order, after a header of 184 bytes. scipy.io.loadmat reads
    the same, but some damaged files make it crash the process, so the header is compared here. Raises DataError for a
    file that is unreadable, cut short, too long or of another kind.
    """
    size = 560 * 1965
    # MAT-file format 5: version, then (type, bytes, content) of the matrix, its flags, dimensions, name and pixels
    parts = 0x4D490100, 14, 48 + size, 6, 8, 9, 0, 5, 8, 560, 1965, 1, 2, b"ff", 2, size
    header = struct.pack("<11I2H4s2I", *parts)
    try:
        with open(path, "rb") as file:
            content = file.read(184 + size + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if len(content) != 184 + size or content[124:184] != header:
        raise DataError(f"{path}: not {184 + size} bytes of MATLAB 5 with one array 'ff', 560 x 1965 unsigned bytes")
    return np.frombuffer(content, np.uint8, offset=184).reshape(1965, 560)


def _digits() -> Data:
    """Scikit-learn's 1797 digits, 8 x 8, 17 grey levels: 1297 for training, 500 for testing; needs no file."""
    from sklearn.datasets import load_digits

    train, test = _split(load_digits().data.astype(np.float32) / 16, 1297)  # shuffled: the file runs writer by writer
    return Data("digits", train, test, (8, 8), "unit", GREY, fresh=False)


def _mnist(data_dir: str | Path | None) -> Data:
    """MNIST in grey, not binarised: the first 50,000 training images, as in the paper, and the 10,000 for testing.

    The other 10,000 training images are the authors' validation set, unused here. Values are pixels / 256: the pickle
    that the authors read has 255 / 256 as its largest value. It matters: the least attainable cross-entropy, the
    pixels' own entropy, is 47.0 nats an image with 256 and 45.7 with the customary 255.
    """
    train, test = (pixels / np.float32(256) for pixels in _mnist_pixels(data_dir))
    return Data("mnist", train, test, (28, 28), "unit", GREY, fresh=False)


def _mnist_binary(data_dir: str | Path | None) -> Data:
    """MNIST with every pixel drawn from Bernoulli(pixel / 255): train at each visit, test once and for all.

    Here 255 is right: a white pixel is always on, as in the binarised MNIST of the literature.
    """
    train, grey = (pixels / np.float32(255) for pixels in _mnist_pixels(data_dir))
    test = np.random.default_rng(SEED).random(grey.shape, np.float32) < grey
    note = "log probability of binary images, train drawn anew at each visit; not comparable with grey mnist"
    return Data("mnist_binary", train, test.astype(np.float32), (28, 28), "binary", note, fresh=True)


def _mnist_pixels(data_dir: str | Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Train [50000, 784] and test [10000, 784], float32, 0 to 255."""
    train = read_idx(fetch("mnist/train-images-idx3-ubyte.gz", data_dir))[:50_000]
    test = read_idx(fetch("mnist/t10k-images-idx3-ubyte.gz", data_dir))
    return tuple(images.reshape(len(images), -1).astype(np.float32) for images in (train, test))  # type: ignore[return-value]


def _frey(data_dir: str | Path | None) -> Data:
    """Frey Face, pixels / 256 as in the authors' code; 1600 frames for training and 365 for testing."""
    frames = read_frey(fetch("frey/frey_rawface.mat", data_dir))
    train, test = _split(frames.astype(np.float32) / 256, 1600)  # shuffled: neighbouring frames of a film are alike
    note = "log density of pixels / 256; the split is ours, as the paper's is unknown"
    return Data("frey", train, test, (28, 20), "unit", note, fresh=False)


def _synthetic() -> Data:
    """2000 rows for training and 1000 for testing from linear_gaussian at `synthetic_theta()`."""
    w, b, log_scale = (value.astype(np.float64) for value in synthetic_theta().values())
    rng = np.random.default_rng([SEED, 1])  # not the stream that theta came from
    z, noise = rng.standard_normal((3000, len(w))), rng.standard_normal((3000, len(b)))
    x = (z @ w + b + np.exp(log_scale) * noise).astype(np.float32)
    note = "drawn from linear_gaussian with known theta"
    return Data("synthetic", x[:2000], x[2000:], (1, len(b)), "real", note, fresh=False)


def _split(rows: np.ndarray, n_train: int) -> tuple[np.ndarray, np.ndarray]:
    """Shuffle with SEED; the first `n_train` rows are for training, the others for testing."""
    order = np.random.default_rng(SEED).permutation(len(rows))
    return rows[order[:n_train]], rows[order[n_train:]]


def _given(data_dir: str | Path | None) -> str | Path | None:
    """Return the folder that the user named, if any: what lies there is theirs and never overwritten."""
    return data_dir or os.environ.get("AEVB_DATA")


def _sha256(path: Path) -> str:
    """Return the file's SHA-256 in hex, "" if there is no file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
