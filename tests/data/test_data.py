"""Data sets: what is loaded, what is refused, and where files come from. No network: mirrors are a local server."""

import functools
import gzip
import hashlib
import http.server
import importlib.machinery
import os
import struct
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pooch
import pytest

from comparisons.data import DATA, Data, base, check, digest, files, frey, load, mnist, take
from comparisons.data.files import File, data_folder, fetch
from comparisons.data.frey import read_frey
from comparisons.data.mnist import read_idx
from comparisons.data.synthetic import synthetic_theta
from comparisons.errors import DataError, FlagError
from models import MODELS

FOLDER = Path(os.environ.get("AEVB_DATA") or Path(__file__).parents[3] / "shared" / "data")
NEEDS = {
    "mnist": "mnist",
    "mnist_255": "mnist",
    "mnist_binary": "mnist",
    "frey": "frey",
}  # the folder that a name reads; others need none

TRAIN = "mnist/train-images-idx3-ubyte.gz"
TEST = "mnist/t10k-images-idx3-ubyte.gz"
FREY = "frey/frey_rawface.mat"

# One name = one array: name, (train, test) shapes, shape of an image, support, fresh, the arrays' identity.
EXPECTED = {
    "digits": (
        ((1297, 64), (500, 64), (8, 8), "unit", False),
        "28176ab136f6d662f80355a1c8af4234b8623052daef93a0f91b571f75093589",
    ),
    "mnist": (
        ((50_000, 784), (10_000, 784), (28, 28), "unit", False),
        "ebfd4903ec51a46e76eb2eb5bf34b8fb7c0b496eb46004d85399799514d447b0",
    ),
    "mnist_255": (
        ((50_000, 784), (10_000, 784), (28, 28), "unit", False),
        "4cd54908d0632a6e335381d41a5677eabb82628f99cb09505c77a8c0d42c3b31",
    ),
    "mnist_binary": (
        ((50_000, 784), (10_000, 784), (28, 28), "binary", True),
        "492ce00b3d34e5c6f887c1fd59b0d4fc6908597a3b2996d18f7549e725960bd6",
    ),
    "frey": (
        ((1600, 560), (365, 560), (28, 20), "unit", False),
        "9a0fc0359c855719120bc55865476b3fcfbbb01b786d7ccba165bc3222ceabdb",
    ),
    "synthetic": (
        ((2000, 10), (1000, 10), (1, 10), "real", False),
        "d5d64a9e47bf1a1d169f0936c98de35037d2483065ea5b9afc65b892231124e8",
    ),
}


@functools.cache
def loaded(name: str) -> Data:
    """`load`, once for each name; skips the test where the files are not there."""
    if name in NEEDS and not (FOLDER / NEEDS[name]).is_dir():
        pytest.skip(f"no folder {NEEDS[name]} in {FOLDER}: set AEVB_DATA")
    return load(name, FOLDER)


def message(error: type[Exception], function: Callable[..., object], *args: object) -> str:
    """The error's message, which must be one line."""
    with pytest.raises(error) as caught:
        function(*args)
    text = str(caught.value)
    assert text and "\n" not in text
    return text


Server = tuple[str, dict[str, bytes | int], list[str]]  # address, path -> content or error code, paths asked for

# What is loaded


@pytest.mark.parametrize("name", DATA)
def test_a_name_is_one_array(name: str) -> None:
    found, identity = loaded(name), EXPECTED[name][1]
    assert (found.train.shape, found.test.shape, found.shape, found.support, found.fresh) == EXPECTED[name][0]
    assert found.name == name and found.note
    card = DATA[name]
    assert (card.n_train, card.shape) == (len(found.train), found.shape) and card.title and card.model in MODELS
    assert found.shape[0] * found.shape[1] == found.train.shape[1]
    for array in (found.train, found.test):
        assert array.dtype == np.float32 and array.flags.c_contiguous
    assert digest(found) == identity


@pytest.mark.parametrize("name", ["digits", "frey", "synthetic"])
def test_two_loads_agree_bit_for_bit(name: str) -> None:
    first = loaded(name)
    second = load(name, FOLDER)
    assert first.train is not second.train
    np.testing.assert_array_equal(first.train, second.train)
    np.testing.assert_array_equal(first.test, second.test)


@pytest.mark.parametrize("name", ["digits", "mnist", "frey", "synthetic"])
def test_train_and_test_share_no_row(name: str) -> None:
    train = {row.tobytes() for row in loaded(name).train}
    assert not any(row.tobytes() in train for row in loaded(name).test)


def test_the_scales_are_the_documented_ones() -> None:
    assert set(np.unique(loaded("digits").train * 16)) == set(range(17))
    mnist = loaded("mnist")
    assert set(np.unique(mnist.test * 256)) == set(range(256)) and loaded("mnist_binary").train.max() == 1
    frey = loaded("frey")
    np.testing.assert_array_equal(frey.train * 256, np.rint(frey.train * 256))
    assert frey.train.min() > 0 and 0.9 < frey.train.max() < 1


def test_mnist_keeps_the_order_of_the_file() -> None:
    train = loaded("mnist").train
    images = read_idx(FOLDER / TRAIN)
    assert images.shape == (60_000, 28, 28)
    for row in (0, 49_999):
        np.testing.assert_array_equal(train[row] * 256, images[row].ravel())


def test_frey_is_shuffled_and_complete() -> None:
    found, original = loaded("frey"), read_frey(FOLDER / FREY).astype(np.float32)
    rows = np.concatenate([found.train, found.test]) * np.float32(256)
    assert sorted(row.tobytes() for row in rows) == sorted(row.tobytes() for row in original)
    assert not np.array_equal(rows, original)


def test_digits_are_scikit_learns_shuffled_to_the_bit() -> None:
    from sklearn.datasets import load_digits

    train, test = base.split(load_digits().data.astype(np.float32) / 16, 1297)
    assert loaded("digits").train.tobytes() == train.tobytes() and loaded("digits").test.tobytes() == test.tobytes()


DIGITS_FILE = Path("datasets", "data", "digits.csv.gz")


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The digits' file, of a package in the place of scikit-learn."""
    path = tmp_path / DIGITS_FILE
    path.parent.mkdir(parents=True)
    package = importlib.machinery.ModuleSpec("sklearn", None, is_package=True)
    package.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr("comparisons.data.digits.find_spec", lambda name: package)
    return path


def test_digits_without_scikit_learn_or_its_file_are_refused(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"digits.csv.gz of scikit-learn cannot be read .*; install it again with pip"):
        load("digits")
    monkeypatch.setattr("comparisons.data.digits.find_spec", lambda name: None)
    with pytest.raises(DataError, match="which is missing; install it with pip install scikit-learn"):
        load("digits")


def test_damaged_digits_are_refused(shipped: Path) -> None:
    import sklearn

    whole = (Path(sklearn.__file__).parent / DIGITS_FILE).read_bytes()
    fewer = gzip.compress(b"".join(gzip.decompress(whole).splitlines(keepends=True)[1:]))
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (*(whole[:cut] for cut in (0, 1, 9, 10_000, len(whole) - 1)), bytes(flipped), fewer):
        shipped.write_bytes(damaged)
        with pytest.raises(DataError, match=r"of scikit-learn .*; install it again with pip"):
            load("digits")


def test_binary_mnist_is_drawn_from_the_grey_values() -> None:
    binary, grey = loaded("mnist_binary"), loaded("mnist")
    # Pixels / 255 here, so that a white one is always on, and / 256 there.
    np.testing.assert_allclose(binary.train * 255, grey.train * 256, rtol=1e-6)
    probability = grey.test.astype(np.float64) * 256 / 255
    assert set(np.unique(binary.test)) == {0, 1}
    assert np.all(binary.test[probability == 1] == 1) and np.all(binary.test[probability == 0] == 0)
    stderr = np.sqrt((probability * (1 - probability)).sum())
    assert abs(binary.test.sum(dtype=np.float64) - probability.sum()) < 5 * stderr


def test_digits_and_synthetic_need_neither_files_nor_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooch, "retrieve", None)
    for name in ("digits", "synthetic"):
        load(name, tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


def test_synthetic_has_the_moments_of_its_theta() -> None:
    found, theta = loaded("synthetic"), synthetic_theta()
    assert {name: value.shape for name, value in theta.items()} == {"w": (3, 10), "b": (10,), "log_scale": ()}
    assert all(value.dtype == np.float32 for value in theta.values())
    w, b, log_scale = (theta[name].astype(np.float64) for name in ("w", "b", "log_scale"))
    covariance = w.T @ w + np.exp(2 * log_scale) * np.eye(10)
    for x in (found.train.astype(np.float64), found.test.astype(np.float64)):
        n = len(x)
        assert np.all(np.abs(x.mean(0) - b) < 5 * np.sqrt(np.diag(covariance) / n))
        # Wishart: var of an entry of the sample covariance is (S_ij^2 + S_ii S_jj) / n
        stderr = np.sqrt((covariance**2 + np.outer(np.diag(covariance), np.diag(covariance))) / n)
        assert np.all(np.abs((x - b).T @ (x - b) / n - covariance) < 5 * stderr)


@pytest.mark.parametrize("name", ["MNIST", "", "mnist ", "cifar"])
def test_an_unknown_name_is_a_flag_error(name: str) -> None:
    text = message(FlagError, load, name)
    assert repr(name) in text and all(known in text for known in DATA)


# take, check, digest


def test_take_keeps_the_first_rows() -> None:
    found = loaded("digits")
    assert take(found, None) is found
    for n in (1, 7, 1297):
        part = take(found, n)
        np.testing.assert_array_equal(part.train, found.train[:n])
        assert part.test is found.test and part._replace(train=found.train) == found


@pytest.mark.parametrize("n_train", [1298, 60_000, 0, -1])
def test_take_refuses_what_is_not_there(n_train: int) -> None:
    text = message(FlagError, take, loaded("digits"), n_train)
    assert f"n_train {n_train}" in text and "1297" in text and "digits" in text


def test_take_names_the_images_of_mnist() -> None:
    assert "n_train 60001 exceeds the 60000 training images of mnist" in message(
        FlagError, take, loaded("mnist"), 60_001
    )


@pytest.mark.parametrize("name", ["mnist", "mnist_255", "mnist_binary"])
def test_the_validation_images_follow_where_more_is_asked_for(name: str) -> None:
    """Row by row as in the file, and the 50,000 before them as they were; the test set is the same."""
    found, images = loaded(name), read_idx(FOLDER / TRAIN).reshape(60_000, -1)
    most, some = take(found, 60_000), take(found, 50_001)
    by = {"mnist": 256, "mnist_255": 255, "mnist_binary": 255}[name]
    np.testing.assert_array_equal(most.train, images.astype(np.float32) / np.float32(by))
    np.testing.assert_array_equal(most.train[:50_000], found.train)
    np.testing.assert_array_equal(some.train, most.train[:50_001])
    assert most.test is found.test and most.train.flags.c_contiguous
    assert len({digest(one) for one in (found, some, most)}) == 3 and digest(take(found, None)) == digest(found)


@pytest.mark.fault("NaN, infinite and out-of-range data", "refused with the first index")
@pytest.mark.parametrize(
    ("support", "bad"),
    [(support, bad) for support in ("unit", "binary", "real") for bad in (np.nan, np.inf, -np.inf)]
    + [("unit", -1e-6), ("unit", 1.001), ("binary", 0.5), ("binary", 2.0)],
)
def test_check_names_the_first_bad_value(support: str, bad: float) -> None:
    array = np.ones((5, 4), np.float32)
    check("x", array, support)
    array[2, 3] = array[3, 0] = bad
    text = message(DataError, check, "x", array, support)
    assert text.startswith("x: row 2, column 3 is ") and str(np.float32(bad)) in text
    assert base.SUPPORTS[support][0] in text


@pytest.mark.fault("empty and one-row data", "refused")
@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (3, 0), (6,), (2, 3, 1), ()])
def test_check_refuses_empty_single_row_and_other_shapes(shape: tuple[int, ...]) -> None:
    assert str(shape) in message(DataError, check, "x", np.zeros(shape, np.float32), "unit")


def test_check_refuses_an_unknown_support() -> None:
    assert "'grey'" in message(FlagError, check, "x", np.zeros((2, 2)), "grey")


def test_load_checks_what_it_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    good = loaded("digits")
    train, test = good.train.copy(), good.test.copy()
    train[3, 5], test[0, 1] = np.nan, 2
    for bad, where in ((good._replace(train=train), "train: row 3"), (good._replace(test=test), "test: row 0")):
        monkeypatch.setitem(DATA, "digits", DATA["digits"]._replace(load=partial(lambda arrays, _: arrays, bad[1:3])))
        assert where in message(DataError, load, "digits")


def test_digest_tells_name_split_and_bytes_apart() -> None:
    found = loaded("digits")
    other = found.test.copy()
    other[-1, -1] += 1 / 16
    variants = [
        found,
        found._replace(name="other"),
        found._replace(test=other),
        found._replace(train=found.test, test=found.train),
        take(found, 1296),
    ]
    assert len({digest(variant) for variant in variants}) == len(variants)
    assert digest(found._replace(train=found.train.copy())) == digest(found)


# Reading IDX


def idx(path: Path, images: np.ndarray, magic: int = 0x803, shape: tuple[int, ...] | None = None) -> Path:
    """Write a gzipped IDX file, with a header that may lie."""
    header = struct.pack(f">I{len(shape or images.shape)}I", magic, *(shape or images.shape))
    path.write_bytes(gzip.compress(header + images.tobytes(), mtime=0))
    return path


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)


def test_read_idx_returns_what_was_written(tmp_path: Path, images: np.ndarray) -> None:
    np.testing.assert_array_equal(read_idx(idx(tmp_path / "x.gz", images)), images)


@pytest.mark.fault("an IDX file cut at every length", "one line that names the file; nothing crashes or hangs")
def test_read_idx_refuses_a_file_cut_anywhere(tmp_path: Path, images: np.ndarray) -> None:
    path = idx(tmp_path / "x.gz", images)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert str(path) in message(DataError, read_idx, path)
    content = gzip.decompress(whole)
    for length in range(len(content)):  # a whole gzip file with part of the content
        path.write_bytes(gzip.compress(content[:length]))
        assert str(path) in message(DataError, read_idx, path)


@pytest.mark.fault(
    "an IDX file cut at every length below 1 kB, and at 100 random ones",
    "one line that names the file; nothing crashes or hangs",
)
def test_read_idx_refuses_a_longer_file_cut_anywhere(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    path = idx(tmp_path / "x.gz", rng.integers(0, 256, (100, 28, 28), np.uint8))
    whole = path.read_bytes()
    for length in (*range(1024), *rng.integers(1024, len(whole), 100)):
        path.write_bytes(whole[:length])
        assert str(path) in message(DataError, read_idx, path)


@pytest.mark.fault("an IDX file with any byte flipped", "one line that names the file; nothing crashes or hangs")
def test_read_idx_refuses_any_flipped_byte(tmp_path: Path, images: np.ndarray) -> None:
    path = idx(tmp_path / "x.gz", images)
    whole = path.read_bytes()
    for position in range(10, len(whole)):  # the first ten hold a time stamp and flags that change nothing
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        message(DataError, read_idx, path)


@pytest.mark.parametrize(
    ("magic", "shape", "says"),
    [
        (0x801, (60,), "magic number 0x00000801"),  # a file of labels
        (0x802, (5, 12), "magic number 0x00000802"),
        (0xD03, (5, 4, 3), "magic number 0x00000d03"),  # floats
        (0x03080000, (5, 4, 3), "magic number 0x03080000"),  # little-endian
        (0x803, (6, 4, 3), "72 bytes, but 60"),
        (0x803, (4, 4, 3), "48 bytes, but 60"),
        (0x803, (2**32 - 1, 2**32 - 1, 2**32 - 1), "but 60"),
        (0x803, (2**31, 2**31, 4), "but 60"),  # 0 modulo 2^64
        (0x803, (0, 4, 3), "0 bytes, but 60"),
    ],
)
def test_read_idx_says_what_is_wrong(
    tmp_path: Path, images: np.ndarray, magic: int, shape: tuple[int, ...], says: str
) -> None:
    path = idx(tmp_path / "x.gz", images, magic, shape)
    text = message(DataError, read_idx, path)
    assert says in text and str(path) in text


def test_read_idx_refuses_no_images_trailing_bytes_and_other_files(tmp_path: Path, images: np.ndarray) -> None:
    path = idx(tmp_path / "x.gz", images[:0])
    assert "0 bytes follow" in message(DataError, read_idx, path)
    path = idx(tmp_path / "x.gz", images)
    path.write_bytes(path.read_bytes() + b"<html>")
    assert "gzip" in message(DataError, read_idx, path)
    path.write_bytes(b"<html>404</html>")
    assert "gzip" in message(DataError, read_idx, path)
    for absent in (tmp_path / "absent", tmp_path):
        assert str(absent) in message(DataError, read_idx, absent)


@pytest.mark.fault("300 fuzzed IDX headers", "one line that names the file; nothing crashes or hangs")
def test_read_idx_survives_any_header(tmp_path: Path, images: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        header = bytearray(struct.pack(">4I", 0x803, *images.shape))
        for _ in range(rng.integers(1, 5)):
            header[rng.integers(16)] = rng.integers(256)
        path = tmp_path / "x.gz"
        path.write_bytes(gzip.compress(bytes(header) + images.tobytes()))
        try:
            assert read_idx(path).size == images.size
        except DataError as error:
            assert "\n" not in str(error)


@pytest.mark.fault("a header or a gzip bomb that announces gigabytes", "no more memory than the file is worth")
def test_read_idx_holds_no_more_than_the_file_does(tmp_path: Path, images: np.ndarray) -> None:
    liar = idx(tmp_path / "liar.gz", images, shape=(60_000, 28, 28))
    bomb = tmp_path / "bomb.gz"
    with gzip.open(bomb, "wb", compresslevel=1) as file:
        for _ in range(80):
            file.write(bytes(2**20))
    for path, peak in ((liar, 2**22), (bomb, 2**26)):
        tracemalloc.start()
        message(DataError, read_idx, path)
        assert tracemalloc.get_traced_memory()[1] < peak
        tracemalloc.stop()


# Reading Frey Face


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (560, 1965), np.uint8)


def mat(path: Path, **arrays: np.ndarray) -> Path:
    from scipy.io import savemat

    savemat(path, arrays)
    return path


def test_read_frey_agrees_with_scipy(tmp_path: Path, frames: np.ndarray) -> None:
    np.testing.assert_array_equal(read_frey(mat(tmp_path / "x.mat", ff=frames)), frames.T)
    if (FOLDER / FREY).is_file():
        from scipy.io import loadmat

        np.testing.assert_array_equal(read_frey(FOLDER / FREY), loadmat(FOLDER / FREY)["ff"].T)


def test_read_frey_refuses_another_array(tmp_path: Path, frames: np.ndarray) -> None:
    others = (
        {"ff": frames.T},
        {"ff": frames[:, :-1]},
        {"ff": frames.astype(np.int8)},
        {"gg": frames},
        {"ff": frames[:4]},
    )
    for arrays in others:
        path = mat(tmp_path / "x.mat", **arrays)
        assert str(path) in message(DataError, read_frey, path)


@pytest.mark.fault(
    "a .mat file cut at every length below 1 kB, at 100 random ones, or changed in its header",
    "one line that names the file; nothing crashes or hangs",
)
def test_read_frey_refuses_a_damaged_header_or_length(tmp_path: Path, frames: np.ndarray) -> None:
    path = mat(tmp_path / "x.mat", ff=frames)
    whole = path.read_bytes()
    for length in (*range(1024), *np.random.default_rng(4).integers(1024, len(whole), 100), len(whole) - 1):
        path.write_bytes(whole[:length])
        assert "not 1100584 bytes" in message(DataError, read_frey, path)
    path.write_bytes(whole + b"\0")
    assert "not 1100584 bytes" in message(DataError, read_frey, path)
    for position in range(124, 184):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x01]) + whole[position + 1 :])
        assert "'ff'" in message(DataError, read_frey, path)
    for absent in (tmp_path / "absent", tmp_path):
        assert str(absent) in message(DataError, read_frey, absent)


# Where files come from


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Stand in for the frey file by a few bytes; no mirror, and AEVB_DATA is not set."""
    monkeypatch.delenv("AEVB_DATA", raising=False)
    return b"the file, whole"


def of(content: bytes, *mirrors: str) -> File:
    """A file that lies where the frames of Frey Face do, of other content, to be had at these mirrors."""
    return File(FREY, hashlib.sha256(content).hexdigest(), mirrors)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder, in a temporary place."""
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    return tmp_path / "cache" / "aevb-comparison"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A local web server."""
    answers: dict[str, bytes | int] = {}
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            answer = answers.get(self.path, 404)
            self.send_response(answer if isinstance(answer, int) else 200)
            body = b"<html>" if isinstance(answer, int) else answer
            if self.path.startswith("/short"):
                body, length = body[:-3], len(body)
            else:
                length = len(body)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", answers, asked
        running.shutdown()
        thread.join()


def put(folder: Path, content: bytes) -> Path:
    path = folder / FREY
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_the_folder_is_the_flag_then_the_variable_then_the_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AEVB_DATA", str(tmp_path / "variable"))
    assert data_folder(tmp_path / "flag") == tmp_path / "flag"
    assert data_folder() == tmp_path / "variable"
    monkeypatch.setenv("AEVB_DATA", "")
    assert data_folder() == cache
    assert data_folder("~/x") == Path.home() / "x"


def test_a_right_file_is_used_as_it_lies(tmp_path: Path, small: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, small)
    monkeypatch.setattr(pooch, "retrieve", None)
    assert fetch(of(small), tmp_path) == path
    monkeypatch.setenv("AEVB_DATA", str(tmp_path))
    assert fetch(of(small)) == path


@pytest.mark.fault("a wrong file in the user's own folder", "refused and left as it is")
@pytest.mark.parametrize("by_variable", [False, True])
def test_a_wrong_file_of_the_user_is_never_overwritten(
    tmp_path: Path, small: bytes, monkeypatch: pytest.MonkeyPatch, by_variable: bool
) -> None:
    damaged = bytes([small[0] ^ 1]) + small[1:]
    path = put(tmp_path, damaged)
    monkeypatch.setattr(pooch, "retrieve", None)
    if by_variable:
        monkeypatch.setenv("AEVB_DATA", str(tmp_path))
    text = message(DataError, fetch, of(small), None if by_variable else tmp_path)
    assert str(path) in text and of(small).sha256 in text and hashlib.sha256(damaged).hexdigest() in text
    assert "move it away" in text
    assert path.read_bytes() == damaged and entries(tmp_path) == [path.name]


@pytest.mark.fault("a data file with a flipped byte", "found by its SHA-256")
@pytest.mark.parametrize("file", [TRAIN, TEST, FREY])
def test_one_flipped_byte_of_a_real_file_is_found(tmp_path: Path, file: str) -> None:
    if not (FOLDER / file).is_file():
        pytest.skip(f"no {file} in {FOLDER}: set AEVB_DATA")
    content = bytearray((FOLDER / file).read_bytes())
    content[len(content) // 2] ^= 1
    path = tmp_path / file
    path.parent.mkdir()
    path.write_bytes(content)
    name = "frey" if file == FREY else "mnist"
    if file == TEST:
        (tmp_path / TRAIN).symlink_to((FOLDER / TRAIN).resolve())
    assert "SHA-256" in message(DataError, load, name, tmp_path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("given", [False, True])
def test_a_missing_file_comes_from_the_first_mirror_that_has_it(
    tmp_path: Path, cache: Path, small: bytes, server: Server, monkeypatch: pytest.MonkeyPatch, given: bool
) -> None:
    address, answers, asked = server
    answers.update({"/gone/frey_rawface.mat": 403, "/wrong/frey_rawface.mat": b"<html>please log in</html>"})
    answers.update({f"/{mirror}/frey_rawface.mat": small for mirror in ("short", "good", "spare")})
    mirrors = [f"{address}/{mirror}/" for mirror in ("gone", "wrong", "short", "good", "spare")]
    file = of(small, "http://127.0.0.1:1/", *mirrors)
    folder = tmp_path / "given" if given else cache
    path = fetch(file, folder if given else None)
    assert path == folder / FREY and path.read_bytes() == small
    assert asked == [f"/{mirror}/frey_rawface.mat" for mirror in ("gone", "wrong", "short", "good")]
    assert entries(folder) == [path.name]  # no temporary file is left
    assert fetch(file, folder) == path and len(asked) == 4  # found the second time


@pytest.mark.fault("a damaged file in the cache, online", "downloaded anew")
def test_a_damaged_file_in_the_cache_is_replaced(
    cache: Path, small: bytes, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, answers, _ = server
    path = put(cache, b"damaged")
    text = message(DataError, fetch, of(small))
    assert "damaged" in text and str(path) in text and path.read_bytes() == b"damaged"
    answers["/good/frey_rawface.mat"] = small
    assert fetch(of(small, f"{address}/good/")) == path and path.read_bytes() == small


@pytest.mark.fault("a missing or damaged file in the cache, offline", "one line with the path and what to do")
def test_offline_says_what_to_put_where(
    tmp_path: Path, cache: Path, small: bytes, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, answers, _ = server
    answers["/wrong/frey_rawface.mat"] = b"<html>"
    file = of(small, "http://127.0.0.1:1/", f"{address}/gone/", f"{address}/wrong/")
    for folder, data_dir in ((tmp_path / "given", tmp_path / "given"), (cache, None)):
        text = message(DataError, fetch, file, data_dir)
        assert str(folder / FREY) in text and "put frey_rawface.mat there" in text
        assert "AEVB_DATA" in text and "--data-dir" in text
        assert "ConnectionError" in text and "HTTPError" in text and "wrong SHA-256" in text
        assert entries(folder) == []


def test_every_mirror_is_tried_with_a_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def retrieve(url: str, known_hash: str, fname: str, path: Path, downloader: pooch.HTTPDownloader) -> None:
        assert known_hash == f"sha256:{wanted.sha256}"
        assert 0 < downloader.kwargs["timeout"] <= 60
        tried.append(url)
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    for name, wanted in (("mnist", mnist.TRAIN), ("mnist_binary", mnist.TRAIN), ("frey", frey.FRAMES)):
        tried.clear()
        text = message(DataError, load, name, tmp_path)
        assert tried == [mirror + Path(wanted.path).name for mirror in wanted.mirrors] and len(tried) > 1
        assert text.count("Network is unreachable") == len(tried) and str(tmp_path / wanted.path) in text


def test_a_silent_mirror_is_given_up(tmp_path: Path, small: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(files, "TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, never answers
        file = of(small, f"http://127.0.0.1:{silent.getsockname()[1]}/")
        assert "ReadTimeout" in message(DataError, fetch, file, tmp_path)


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, small: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooch, "retrieve", None)
    (tmp_path / "file").write_text("")
    assert "put frey_rawface.mat there" in message(
        DataError, fetch, of(small), tmp_path / "plain"
    )  # no mirror, but written
    with pytest.raises(DataError, match="cannot be"):
        fetch(of(small), tmp_path / "file")

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)  # as root, no folder refuses by itself
    text = message(DataError, fetch, of(small), tmp_path / "plain")
    assert "cannot be written (Permission denied)" in text and str(tmp_path / "plain" / FREY) in text


def test_a_read_only_folder_is_read_but_not_written(tmp_path: Path, small: bytes) -> None:
    path = put(tmp_path, small)
    for folder in (path.parent, tmp_path):
        folder.chmod(0o500)
    try:
        if os.access(tmp_path, os.W_OK):
            pytest.skip("this user, root for one, may write anywhere")
        assert fetch(of(small), tmp_path) == path
        assert "cannot be written" in message(DataError, fetch, mnist.TEST, tmp_path)
    finally:
        for folder in (tmp_path, path.parent):
            folder.chmod(0o700)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, small: bytes) -> None:
    (tmp_path / FREY).mkdir(parents=True)
    text = message(DataError, fetch, of(small), tmp_path)
    assert str(tmp_path / FREY) in text and "cannot be read" in text
