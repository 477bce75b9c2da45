"""The models, guides and backends that flags name: registered ones, and a user's own from `path/to/file.py:NAME`.

Loading such a file RUNS its code, with every right of whoever typed the flag. Nothing else leads to it: a `Part` is
made by `find`, from a flag's text, and only a `Part` is ever loaded. The name of one in a manifest, in rows or in a
checkpoint is a plain string, which is refused.

A part is one file. Its folder is not put on sys.path, because a neighbour's content would change numbers and not the
cell's identity; `models`, `inference` and whatever is installed can be imported.
"""

import hashlib
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from comparisons.errors import FlagError, UnfitError, in_one_line
from inference import BACKENDS, METHODS, AllSettings
from inference.base import Backend, Engine, Method, Settings, State, setting
from inference.nested import flaw
from models import MODELS
from models.base import Model, Params

FORM = "path/to/file.py:NAME"
KINDS = ("model", "backend")  # the settings that may name a file
NONE = "none"  # of guides: the model has its own recognition

FIRST = next(iter(BACKENDS))
GIVEN: dict[str, Any] = {}  # what `given` was told, by the digest of its name

# Everything that may appear in rows, tables and names of folders: nothing of it means anything to a shell, a
# spreadsheet, Markdown or HTML, wherever it stands.
STEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")  # no figure names what starts with _
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
LOADED = "_part_"  # what a file's module is called, to begin with


def model_setting() -> Any:
    """Declare a setting that names a model: a registered one, or a user's own."""
    auto = "auto: vae_gaussian for frey, linear_gaussian for synthetic and real numbers, vae_poisson for counts, "
    auto += "else vae_bernoulli"
    text = f"the generative model: one of these, or {FORM}, whose code is then run ({auto})"
    return setting("auto", text, choices=("auto", *MODELS), or_file=partial(find, "model"), form=FORM)


def guide_setting() -> Any:
    """Declare a setting that names the guide of a model that is one half of a pair."""
    text = f"guide(x), where the model is model(x) of a Pyro or NumPyro pair: {FORM}, whose code is then run"
    return setting(NONE, text, choices=(NONE,), or_file=partial(find, "guide"), form=FORM)


def backend_setting(default: Any = FIRST, **limits: Any) -> Any:
    """Declare a setting that names a backend, or several: registered ones, or a user's own."""
    text = f"inference method: one of these, or {FORM}, whose code is then run"
    words: dict[str, Any] = {"choices": tuple(METHODS), "all": tuple(BACKENDS)}
    return setting(default, text, or_file=partial(find, "backend"), form=FORM, **words, **limits)


class Part(str):
    """A file's callable: as a string the harmless `file.py:NAME`, which is all that results ever show.

    `path` is where the file lies, for loading it, in this process or another; `sha256` is its content when the flag was
    read. Two are equal where content and name are, wherever the files lie.
    """

    path: str
    sha256: str

    def __new__(cls, label: str, path: str, sha256: str) -> "Part":
        part = super().__new__(cls, label)
        part.path, part.sha256 = path, sha256
        return part

    def __getnewargs__(self) -> tuple[str, str, str]:  # type: ignore[override]
        return str(self), self.path, self.sha256

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other) is True and (not isinstance(other, Part) or self.sha256 == other.sha256)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__

    @property
    def name(self) -> str:
        """The callable's name in the file."""
        return self.rpartition(":")[2]

    @property
    def folder(self) -> str:
        """The part as it may stand in the name of a folder."""
        return self.replace(".py:", "-").replace(":", "-")


def find(kind: str, text: str) -> str:
    """Return the Part that a flag's text names, or the text itself where it has not the form of one.

    `kind` is `model`, `guide` or `backend`. The file is read and not run. Raises FlagError.
    """
    if isinstance(text, Part) or not (text.endswith(".py") or ".py:" in text or ("/" in text and ":" in text)):
        return text
    file, colon, name = text.rpartition(":")
    if not colon or "/" in name:
        raise FlagError(f"{kind} {text!r} names no callable of the file; write {FORM}")
    path = Path(file)
    if path.suffix != ".py":
        raise FlagError(f"{kind} {text!r} is not in a .py file; write {FORM}")
    if not STEM.fullmatch(path.stem):
        raise FlagError(
            f"{kind} {text!r}: the file's name goes into results; rename it to 1 to 64 letters, digits, _ or -, "
            "starting with a letter or digit, before .py"
        )
    if not NAME.fullmatch(name):
        raise FlagError(f"{kind} {text!r}: {name!r} is not a Python identifier of 1 to 64 ASCII characters")
    return Part(f"{path.name}:{name}", str(path.absolute()), hashlib.sha256(_read(kind, file)).hexdigest())


def given(kind: str, name: str, found: Any) -> Part:
    """Return the Part `given:NAME` of an object that has no file, for this process. Raises FlagError for the name."""
    if not NAME.fullmatch(name):
        raise FlagError(f"{kind} {name!r} is not a Python identifier of 1 to 64 ASCII characters")
    part = Part(f"given:{name}", "", hashlib.sha256(f"given {kind} {name}".encode()).hexdigest())
    GIVEN[part.sha256] = found
    _model.cache_clear()
    _backend.cache_clear()
    return part


def model(name: str, guide: str = NONE) -> Callable[[int, int, int], Model]:
    """Return what builds a model from (n_x, n_latent, n_hidden): the registered one, or a Part's, whose file is run.

    Raises FlagError; so does a Part's, where it cannot be built. A Part's is built once for all that ask.
    """
    return _model(name, guide) if isinstance(name, Part) else named("model", name)


def factory(name: str, guide: str = NONE) -> Callable[[int, int, int], Model]:
    """Return what a file says builds a model, as it is, or with a guide what makes a model of the two."""
    found = named("model", name)
    if guide == NONE:
        return found
    other = named("guide", guide)

    def build(n_x: int, n_latent: int, n_hidden: int) -> Model:
        from inference.engines.ppl_pair import ppl_pair

        return ppl_pair(found, other, n_x=n_x, n_latent=n_latent)

    return build


def backend(name: str) -> Method:
    """Return a backend's card: the registered one, or that of a Part, whose file is run, made where it has none.

    Raises FlagError; so does the `build` of a Part's, where it cannot be built.
    """
    return _backend(name) if isinstance(name, Part) else _registered(name, named("backend", name))


@cache
def _registered(name: str, card: Method) -> Method:
    def build(engine: Engine, model: Model, settings: Settings) -> Backend:
        try:
            built: Backend = card.build(engine, model, settings)
        except ValueError as error:  # its own words about a model and settings that do not go together
            raise UnfitError(f"backend {name!r} on {engine.name}: {in_one_line(error, with_type=False)}") from error
        return built

    return card._replace(build=build)


def known(name: str) -> Method | None:
    """Return a registered backend's card; None for a Part, of which nothing is known before its file is run."""
    return None if isinstance(name, Part) else backend(name)


def named(kind: str, name: str) -> Any:
    """Return the callable itself, or a backend's card, as it stands in the registry or a Part's file, which is run.

    Raises FlagError.
    """
    registry: Mapping[str, Any] = MODELS if kind == "model" else METHODS
    if not isinstance(name, Part):
        if name not in registry:
            raise FlagError(f"{kind} {name!r} is not registered, and a file is loaded because of a flag alone")
        return registry[name]
    if not name.path and name.sha256 not in GIVEN:
        raise FlagError(f"{kind} '{name}' is known to no other process than that which was given it; write {FORM}")
    module = _module(kind, name.path, name.sha256) if name.path else None
    if module and not hasattr(module, name.name):
        raise FlagError(f"{kind} '{name}': {Path(name.path).name} defines no {name.name}")
    found = getattr(module, name.name) if module else GIVEN[name.sha256]
    if not callable(found) and not isinstance(found, Method):
        raise FlagError(f"{kind} '{name}': {name.name} is of type {type(found).__name__}, which cannot be called")
    return found


def shown(argument: str) -> str:
    """Return a command's argument as a manifest may hold it: of a part's path, the label alone."""
    return re.sub(r"^(--[a-z-]+=)?.*?([A-Za-z0-9_-]+\.py:[A-Za-z0-9_]+)$", r"\1\2", argument, flags=re.DOTALL)


@cache
def _model(part: Part, guide: str) -> Callable[[int, int, int], Model]:
    return checked(str(part), factory(part, guide))


def checked(label: str, build_it: Callable[[int, int, int], Any]) -> Callable[[int, int, int], Model]:
    """Return what builds a user's model as `build_it` does, and raises FlagError where it cannot, or builds another."""

    @cache  # a model that is made of networks is kept by itself: so is what is compiled of it
    def build(n_x: int, n_latent: int, n_hidden: int) -> Model:
        call = f"model '{label}' at ({n_x}, {n_latent}, {n_hidden})"
        if not _binds(build_it, 3) and _binds(build_it, 1):
            raise FlagError(f"{call}: it takes x alone, as the model of a Pyro or NumPyro pair; add --guide {FORM}")
        try:
            built = build_it(n_x, n_latent, n_hidden)
        except ValueError as error:  # its own words about sizes that it cannot have
            raise FlagError(f"{call}: {in_one_line(error, with_type=False)}") from error
        except (Exception, SystemExit) as error:
            raise FlagError(f"{call} raised {in_one_line(error)}") from error
        model = usable(call, built)
        sizes = getattr(model, "n_x", None), getattr(model, "n_latent", None)
        if sizes != (n_x, n_latent):
            raise FlagError(f"{call} has (n_x, n_latent) {sizes}, not {(n_x, n_latent)}")
        if model.engines and not _same(model.init(0), build_it(n_x, n_latent, n_hidden).init(0)):
            raise FlagError(
                f"{call} has other initial values each time; begin it with torch.manual_seed(0), or load a state dict"
            )
        return model

    return build


def usable(call: str, model: Any) -> Model:
    """Return a model as it is. Raises FlagError for what is none, or has no hash."""
    if not isinstance(model, Model):
        raise FlagError(f"{call} is a {type(model).__name__}, not a models.base.Model; to a model(x) add --guide")
    try:
        hash(model)
    except TypeError:
        raise FlagError(f"{call} cannot be hashed, as compiled code asks; make it a frozen dataclass") from None
    return model


def _binds(function: Callable[..., Any], count: int) -> bool:
    """Say whether a callable takes so many arguments, as far as that can be known."""
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # it does not say
        return count == 3
    return True


def _same(one: tuple[Params, Params], other: tuple[Params, Params]) -> bool:
    flat, twin = ([(name, value.tobytes()) for group in both for name, value in group.items()] for both in (one, other))
    return flat == twin


@cache
def _backend(part: Part) -> Method:
    found = named("backend", part)
    # A bare function may read whatever a backend of ours can be told.
    card = found if isinstance(found, Method) else Method(found, settings=AllSettings)

    def build(engine: Engine, model: Model, settings: Settings) -> Backend:
        call = f"backend '{part}' on {engine.name}"
        try:
            built = card.build(engine, model, settings)
        except (Exception, SystemExit) as error:
            raise UnfitError(f"{call} raised {in_one_line(error)}") from error  # at these settings, of this cell
        if not isinstance(built, Backend):
            raise UnfitError(f"{call} is a {type(built).__name__}, not an inference.base.Backend")

        def init(*args: Any) -> State:
            state = built.init(*args)
            if text := flaw(state, engine.numpy):  # else it would be found, or lost, where a run goes on
                raise UnfitError(f"{call}: {text}")
            return state

        return built._replace(init=init)

    return card._replace(build=build)


@cache
def _module(kind: str, path: str, sha256: str) -> ModuleType:
    """Run a file under a name of its own, so that two of one name do not meet. Raises FlagError."""
    source = _read(kind, path)
    if hashlib.sha256(source).hexdigest() != sha256:
        raise FlagError(f"{path} has changed since the command started; start it again")
    name = f"{LOADED}{hashlib.sha256(path.encode()).hexdigest()[:8]}_{sha256[:16]}"
    spec = spec_from_file_location(name, path)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for it
    try:
        # The bytes that were hashed, not those that a loader would read again or find in __pycache__.
        exec(compile(source, path, "exec", dont_inherit=True), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise FlagError(f"{kind} file {Path(path).name!r} raised {in_one_line(error)}") from error
    return module


def _read(kind: str, file: str) -> bytes:
    try:
        path = Path(file)
        if path.exists() and not path.is_file():
            raise FlagError(f"{kind} file {file!r} is not a file")
        return path.read_bytes()
    except FileNotFoundError:
        raise FlagError(f"{kind} file {file!r} is missing; write {FORM}") from None
    except (OSError, ValueError) as error:  # a ValueError is a path that no file can have
        reason = getattr(error, "strerror", None) or error
        raise FlagError(f"{kind} file {file!r} cannot be read ({reason})") from error
