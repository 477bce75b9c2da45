"""One cell of a comparison: every setting that determines its numbers, validated when built, and its name.

Numbers keep their names: a change that moves numbers raises the version of those that it touches, and old results then
keep their own name.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any

import inference
from comparisons.cli import parts
from comparisons.cli.flags import FITTED, JUDGED, RUN, check
from comparisons.data import DATA, Own, card_of, find
from comparisons.errors import DataError, FlagError, UnfitError
from comparisons.evidence.base import Facts
from comparisons.evidence.judge import ESTIMATORS, JudgeSettings, automatic
from inference import BACKENDS, ENGINES, AllSettings
from inference.base import Backend, Method, Settings, setting
from inference.optim import STEP_SIZES
from models.base import Model
from models.families import FAMILIES, PRIORS
from models.guides import with_fields, with_log_variance_factor
from models.vae_deep import ACTIVATIONS

FORM = "a file of your own that ends in .npz, .npy, .csv, .csv.gz, .parquet or .idx"
LONG = 5000  # steps that repay the half minute it takes to compile one: each is then several ms faster
NUMBERS_VERSION = 2  # of models, training and whatever else has no version of its own
# The data that a decoder of a support takes; one of "real" takes all.
SCORED = {"unit": ("unit", "binary"), "count": ("count", "binary")}
CARD_VERSION = 5  # until 4, jax's products of matrices were rounded to 10 bits on cards that can


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Settings that are fields of some models, and that others refuse."""

    hidden: tuple[int, ...] = setting(
        (), "vae_deep: units of each hidden layer, from x to z; none: two layers of n_hidden", low=1, high=20_000
    )
    activation: str = setting("tanh", "vae_deep: its units", choices=ACTIVATIONS)
    guide_family: str = setting(
        "normal", "models with a hidden layer: the family of q(z|x), by a path of section 2.4", choices=tuple(FAMILIES)
    )
    prior_family: str = setting("normal", "the same models: the family of p(z), its standard member", choices=PRIORS)
    levels: int | str = setting(
        "auto", "vae_categorical: the K of the values 0 to K - 1; auto: one more than the largest", low=2, high=10_000
    )


@dataclass(frozen=True, kw_only=True)
class LookSettings:
    """When a fit is judged, and how closely."""

    stops: tuple[int, ...] = setting(
        (),
        "training points after which a fit is judged, as after the last; none: 1, 2, 5 x 10^k [datapoints]",
        low=1,
        high=10**10,
        about=JUDGED,
    )
    eval_points: int = setting(
        1000,
        "first points of each split that bounds and log p(x) are taken over [datapoints]",
        low=2,
        high=10**6,
        about=JUDGED,
    )
    elbo_draws: int = setting(
        20, "draws of z for each point in an evaluated bound [draws]", low=2, high=100_000, about=JUDGED
    )
    theta_draws: int = setting(
        10, "theta vb: draws of theta that log p(x) is averaged over [draws]", low=2, high=100_000, about=JUDGED
    )


@dataclass(frozen=True, kw_only=True)
class Experiment(LookSettings, JudgeSettings, AllSettings, ModelSettings):
    """One (model, data, backend, engine, seed) and how it is run and judged. Each field is a flag.

    Raises FlagError, naming the value and what is allowed.
    """

    model: str = parts.model_setting()
    guide: str = parts.guide_setting()
    data: str = setting(
        "digits", f"the data set: one of these, or {FORM}", choices=tuple(DATA), or_file=find, form=FORM
    )
    test_share: float = setting(
        0.2, "of your own data without x_test: the share of rows that is held out", above=0.0, high=0.9
    )
    scale: float = setting(1.0, "of your own data: what all values are divided by, such as 255", above=0.0, high=1e9)
    backend: str = parts.backend_setting(spans=True)
    engine: str = setting("numpyro", "PPL and array library", choices=tuple(ENGINES), spans=True)
    n_train: int | None = setting(
        None, "first training datapoints to use, all by default [datapoints]", low=1, spans=True
    )
    n_latent: int = setting(3, "latent variables of a datapoint", low=1, high=1000, spans=True)
    n_hidden: int = setting(100, "tanh units of the hidden layers", low=1, high=20_000)
    seed: int = setting(
        0,
        "seed of initial values, minibatches and noise",
        low=0,
        high=2**31 - 1,
        spans=True,
        flag="--seeds",
        also=("--seed",),
    )
    initial_scale: float = setting(
        1.0, "factor on the model's initial values of theta and phi", above=0.0, high=1000.0, about=FITTED
    )
    log_variance_factor: float = setting(
        1.0,
        "factor on the log-variance weights of a q(z|x) that has them, and so on their step size (authors' wake-sleep: "
        "0.1)",
        above=0.0,
        high=1000.0,
        about=FITTED,
    )
    samples: int = setting(
        100_000, "training points to consume, with repetition [datapoints]", low=1, high=10**10, about=FITTED
    )
    step_size: float | str = setting(
        "auto",
        f"step size of theta and phi; auto: the best of {', '.join(map(str, STEP_SIZES['adagrad']))} on the training "
        f"set in the first iterations (sgd: of {', '.join(map(str, STEP_SIZES['sgd']))})",
        above=0.0,
        high=1e9,
        about=FITTED,
    )
    pilot_steps: int = setting(
        300, "step_size auto: steps that each is tried for [steps]", low=1, high=10**7, about=FITTED
    )
    device: str = setting("cpu", "where arrays live", choices=("cpu", "cuda"), about=RUN)
    threads: int = setting(1, "threads of the array library [threads]", low=1, high=4096, about=RUN)
    compile: str = setting(
        "auto",
        f"pyro: train with steps that torch compiles; auto: from {LONG} steps on, where device is cpu",
        choices=("auto", "on", "off"),
        about=RUN,
    )

    def __post_init__(self) -> None:
        # One name alone, or the list that JSON makes of a tuple, mean the same.
        named = (self.evidence,) if isinstance(self.evidence, str) else tuple(self.evidence)
        object.__setattr__(self, "evidence", named)
        for name in ("hidden", "stops"):
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, (tuple, list)) else (value,))
        check(self)
        if isinstance(self.data, Own):
            object.__setattr__(self, "data", self.data.taken(self.test_share, self.scale))
        elif told := [name for name in ("test_share", "scale") if getattr(self, name) != getattr(Experiment, name)]:
            raise FlagError(f"{told[0]} is for data of your own, not {self.data}; drop --{told[0].replace('_', '-')}")
        if self.model == "auto":
            object.__setattr__(self, "model", card_of(self.data).model)
        model = _at_a_size(self)
        for field, value in settled(self, _facts(self, model)).items():
            object.__setattr__(self, field, value)
        if self.compile == "on" and ENGINES[self.engine].compiling_is_a_choice and self.device != "cpu":
            raise FlagError(f"compile 'on' is for the cpu, not {self.device}; choose --compile off or --device cpu")
        if self.samples < self.minibatch:
            raise FlagError(f"samples {self.samples} is below the minibatch of {self.minibatch}; raise --samples")
        refuse(self, model)

    @property
    def card(self) -> Method:
        """What is known of the backend before it is built; a file's is run for it."""
        return parts.backend(self.backend)

    @property
    def settings(self) -> Settings:
        """What of it the backend is told."""
        kind = self.card.settings
        return kind(**{f.name: getattr(self, f.name) for f in fields(kind)})

    @property
    def step_sizes(self) -> tuple[float, ...]:
        """What `step_size` auto chooses among."""
        return STEP_SIZES[self.optimizer]

    @property
    def compiled(self) -> bool:
        """Whether training runs compiled. From the settings alone: compiled steps round otherwise than others do."""
        if not ENGINES[self.engine].compiling_is_a_choice or self.device != "cpu":
            return False
        known = parts.known(self.backend)  # a file is not run for a name
        n_train = self.n_train or card_of(self.data).n_train
        steps = self.samples // (known.batch(self, n_train) if known else self.minibatch)
        return steps >= LONG if self.compile == "auto" else self.compile == "on"


def built(experiment: Experiment, n_x: int) -> Model:
    """Build the model for data of `n_x` columns. Raises FlagError.

    Before a user's file computes anything with the library, it has the engine's threads.
    """
    if isinstance(experiment.model, parts.Part):
        with suppress(ImportError, RuntimeError, AssertionError):  # said when the engines start
            inference.engine(experiment.engine, experiment.device, experiment.threads)
    columns = dict(card_of(experiment.data).columns) or {"x": n_x}
    try:
        sizes = columns["x"], experiment.n_latent, experiment.n_hidden
        model = parts.model(experiment.model, experiment.guide)(*sizes)
        _hold_columns(experiment, model, columns)
        model = with_fields(model, {f"n_{name}": width for name, width in columns.items() if name != "x"})
        model = with_log_variance_factor(model, experiment.log_variance_factor)
        told = {f.name: getattr(experiment, f.name) for f in fields(ModelSettings)}
        model = with_fields(model, {name: v for name, v in told.items() if v != getattr(ModelSettings, name)})
    except ValueError as error:
        raise FlagError(f"model {str(experiment.model)!r}: {error}") from error
    if refusal := model.refusal():
        raise FlagError(f"model {str(experiment.model)!r}: {refusal}")
    return model


def _hold_columns(e: Experiment, model: Model, columns: Mapping[str, int]) -> None:
    """Raise DataError for an array that the model would not use, FlagError for one that it has not been given."""
    used = {*model.observed, *model.given}
    for name in sorted(columns.keys() - used):
        raise DataError(
            f"the array {name!r} of {str(e.data)!r} would not be used by model {str(e.model)!r}, which takes "
            f"{' and '.join(sorted(used))}; drop the array, or choose another --model"
        )
    for name in sorted(used - columns.keys()):
        verb = "observes" if name in model.observed else "is given"
        raise FlagError(f"model {str(e.model)!r} {verb} {name}, and {str(e.data)!r} holds no array {name}; add it")


def refuse(e: Experiment, model: Model | None = None, backend: Backend | None = None, size: int | None = None) -> None:
    """Raise UnfitError for what its model, data, backend and estimators cannot do together, as far as that is known.

    Registered ones are known before they are built; a file's when they are given here. `size` is how many coordinates
    the latent sites have, where that has been looked at.
    """
    if e.guide != parts.NONE and not isinstance(e.model, parts.Part):
        raise UnfitError(f"guide {str(e.guide)!r} is for a model(x) of yours; add --model {parts.FORM}")
    card = card_of(e.data)
    if model and (elsewhere := model.misplaced(e.engine)):
        raise UnfitError(f"model {str(e.model)!r} {elsewhere}")
    for name, gap in card.gaps if model else ():
        if not (model and model.missing and name in model.observed):
            raise DataError(gap)
    if model and "x" in model.observed and card.support not in SCORED.get(model.support, (card.support,)):
        raise UnfitError(
            f"model {str(e.model)!r} cannot score the {card.support} values of {str(e.data)!r}; choose {card.model}"
        )
    facts = _facts(e, model, backend)
    facts = facts if size is None else facts._replace(n_latent=size)
    for name in e.evidence:
        if refusal := ESTIMATORS[name].refuses(facts, e):
            raise UnfitError(refusal)
    fitted_by = parts.known(e.backend)
    has_q_theta = backend.theta_posterior is not None if backend else fitted_by and fitted_by.has_q_theta
    if e.theta == "vb" and has_q_theta is False:
        able = " and ".join(name for name, method in BACKENDS.items() if method.has_q_theta)
        raise UnfitError(
            f"theta 'vb' is for the backends {able}, not {e.backend}, which fits theta as a point; "
            "choose --theta map or ml"
        )
    if model and fitted_by and (reason := fitted_by.refuses(model, e)):
        raise UnfitError(f"backend {e.backend!r} {reason}")


def method(e: Experiment) -> str:
    """Return the settings of method and judge that are not the defaults, as one string: what else tells results apart.

    Of a model or backend from a file that is its content: two versions of one file are two methods.
    """
    judge = (f for f in fields(JudgeSettings) if f.name not in ("evidence", "max_memory"))
    mine = (f for f in fields(Experiment) if f.name in ("initial_scale", "log_variance_factor"))
    every = (*fields(AllSettings), *judge, *mine, *fields(ModelSettings))
    told = {f.name: getattr(e, f.name) for f in every if getattr(e, f.name) != f.default}
    joined = {name: ",".join(map(str, v)) if isinstance(v, tuple) else v for name, v in told.items()}  # no space in it
    changed = [f"{name}={value}" for name, value in joined.items()]
    if e.step_size != "auto":
        changed.append(f"step_size={e.step_size}")
    elif e.pilot_steps != Experiment.pilot_steps:
        changed.append(f"pilot_steps={e.pilot_steps}")
    return " ".join(changed + [f"{kind}_sha256={part.sha256[:12]}" for kind, part in _parts(e).items()])


def identity(e: Experiment, data_digest: str, version: int | None = None, process: dict[str, str] | None = None) -> str:
    """Name the cell: backend, engine, seed, and a hash of all settings, the data and the version of the numbers.

    Settings at their default stay out of the hash, so that a new flag does not rename old results; a default that
    changes is a new version of the numbers. A file counts by its content and the name in it, wherever it lies. Without
    `process`, what changes numbers and an engine cannot pin is that of this process: mostly nothing.
    """
    usual = {f.name: (f.default, f.metadata.get("before")) for f in fields(e)}
    content = {name: getattr(e, name) for name in usual if getattr(e, name) not in usual[name]}
    content |= {kind: {"name": part.name, "sha256": part.sha256} for kind, part in _parts(e).items()}
    if e.compiled:  # whoever decided it: the same numbers, and not those of before there was a choice
        content["compile"] = "on"
    if process := inference.unpinned(e.engine) if process is None else process:
        content["process"] = process
    content |= {"data_digest": data_digest, "numbers_version": version or numbers_version(e)}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
    backend = e.backend.folder if isinstance(e.backend, parts.Part) else e.backend
    data = e.data.folder if isinstance(e.data, Own) else e.data
    return f"{data}-{backend}-{e.engine}-seed{e.seed}-{digest}"


def numbers_version(e: Experiment) -> int:
    """Return the version of an experiment's numbers: a change raises that of the experiments it touches."""
    judged = [ESTIMATORS[name].version for name in e.evidence]
    card = parts.known(e.backend)  # a file has its content for a version
    trained = card.version(e) if card else 0
    return max(NUMBERS_VERSION, trained, *judged, NUMBERS_VERSION if e.device == "cpu" else CARD_VERSION)


def completed(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings as a run before this version kept them, with the value of each that it did not know.

    That is its default, or what results had before there was a choice.
    """
    known = {f.name: f.default for f in fields(Experiment)}
    asked = [ESTIMATORS[name].settings for name in settings.get("evidence", ()) if name in ESTIMATORS]
    known |= {f.name: f.metadata["before"] for kind in asked for f in fields(kind) if "before" in f.metadata}
    return {**known, **settings}


def _facts(e: Experiment, model: Model | None = None, backend: Backend | None = None) -> Facts:
    card = parts.known(e.backend)
    has_q = backend.posterior is not None if backend else card and card.has_q
    closed_form = model.log_px is not None if model else None
    k, covers = (model.n_coordinates, model.covers) if model else (e.n_latent, True)
    return Facts(str(e.model), k, closed_form, has_q, str(e.backend), covers)


def _at_a_size(e: Experiment) -> Model | None:
    """Return a registered model at some number of columns, which tells of all; None for a file's, which is not run."""
    if isinstance(e.model, parts.Part):
        return None
    return parts.model(e.model)(e.n_latent + 1, e.n_latent, e.n_hidden)


def settled(settings: JudgeSettings, facts: Facts) -> dict[str, Any]:
    """Return the settings of a judge for which `auto` or `none` may stand, with what these stand for here.

    Estimators come each once, in the order given: `auto` as the first in rank that serves, `none` as nothing. Raises
    FlagError for `none` beside others.
    """
    asked = settings.evidence
    if "none" in asked and len(asked) > 1:
        raise FlagError(f"evidence 'none' excludes the others of {' '.join(asked)}; drop one of them")
    chosen = (automatic(facts, settings) if name == "auto" else name for name in asked if name != "none")
    values: dict[str, Any] = {"evidence": tuple(dict.fromkeys(chosen))}
    for name, card in ESTIMATORS.items():
        values |= card.settle(settings, name in values["evidence"])
    return values


def _parts(e: Experiment) -> dict[str, parts.Part]:
    """Return what comes from a file, by the field's name."""
    return {kind: part for kind in (*parts.KINDS, "guide") if isinstance(part := getattr(e, kind), parts.Part)}
