"""One cell of a comparison: every setting that determines its numbers, validated when built."""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import inference
from comparisons.cli import parts
from comparisons.cli.limits import check
from comparisons.data import DATA
from comparisons.errors import FlagError
from comparisons.evidence.base import Facts
from comparisons.evidence.judge import ESTIMATORS, JudgeSettings, automatic
from inference import BACKENDS, CHOICE, ENGINES
from inference.base import Settings, setting
from models import MODELS
from models.base import Model
from models.vae import OneHiddenLayer

AT_A_POINT = ("monte_carlo_em", "wake_sleep")  # backends that climb no bound that a q(theta) could have a part in
DEFAULT_MODEL = {"frey": "vae_gaussian", "synthetic": "linear_gaussian"}  # vae_bernoulli for the others
STEP_SIZES = (0.01, 0.02, 0.1)  # the paper's section 5

LONG = 5000  # steps that repay the half minute it takes to compile one: each is then several ms faster

# Raise it when a change to models/ or inference/ changes numbers: old results then keep their own name. An estimator's
# own version is on its card.
NUMBERS_VERSION = 2
FULL_E_STEP_VERSION = 3  # until 2, theta saw the first 500 rows of a full E-step and no others
CARD_VERSION = 5  # until 4, jax's products of matrices were rounded to 10 bits on cards that can


@dataclass(frozen=True, kw_only=True)
class Experiment(JudgeSettings, Settings):
    """One (model, data, backend, engine, seed) and how it is run and judged. Each field is a flag.

    Raises FlagError, naming the value and what is allowed.
    """

    model: str = setting(
        "auto",
        f"the generative model: one of these, or {parts.FORM}, whose code is then run (auto: vae_gaussian for frey, "
        "linear_gaussian for synthetic, else vae_bernoulli)",
        choices=("auto", *MODELS),
        or_file=True,
    )
    data: str = setting("digits", "the data set", choices=DATA)
    backend: str = setting(
        "aevb",
        f"inference method: one of these, or {parts.FORM}, whose code is then run",
        choices=tuple(BACKENDS),
        or_file=True,
        spans=True,
    )
    engine: str = setting("numpyro", "PPL and array library", choices=tuple(ENGINES), spans=True)
    n_train: int | None = setting(
        None, "first training datapoints to use, all by default [datapoints]", low=1, spans=True
    )
    n_latent: int = setting(3, "latent variables of a datapoint", low=1, high=1000, spans=True)
    n_hidden: int = setting(100, "tanh units of the hidden layers", low=1, high=20_000)
    seed: int = setting(
        0, "seed of initial values, minibatches and noise", low=0, high=2**31 - 1, spans=True, flag="--seeds"
    )
    initial_scale: float = setting(1.0, "factor on the model's initial values of theta and phi", above=0.0, high=1000.0)
    log_variance_factor: float = setting(
        1.0,
        "vae_*: factor on the log-variance weights of q(z|x), and so on their step size (authors' wake-sleep: 0.1)",
        above=0.0,
        high=1000.0,
    )
    samples: int = setting(100_000, "training points to consume, with repetition [datapoints]", low=1, high=10**10)
    step_size: float | str = setting(
        "auto",
        f"step size of theta and phi; auto: the best of {', '.join(map(str, STEP_SIZES))} on the training set "
        "in the first iterations",
        above=0.0,
        high=1e9,
    )
    pilot_steps: int = setting(300, "step_size auto: steps that each is tried for [steps]", low=1, high=10**7)
    eval_points: int = setting(
        1000, "first points of each split that bounds and log p(x) are taken over [datapoints]", low=2, high=10**6
    )
    elbo_draws: int = setting(20, "draws of z for each point in an evaluated bound [draws]", low=2, high=100_000)
    theta_draws: int = setting(
        10, "theta vb: draws of theta that log p(x) is averaged over [draws]", low=2, high=100_000
    )
    device: str = setting("cpu", "where arrays live", choices=("cpu", "cuda"))
    threads: int = setting(1, "threads of the array library [threads]", low=1, high=4096)
    compile: str = setting(
        "auto",
        f"pyro: train with steps that torch compiles; auto: from {LONG} steps on, where device is cpu",
        choices=("auto", "on", "off"),
    )

    def __post_init__(self) -> None:
        # One name alone, or the list that JSON makes of a tuple, mean the same.
        named = (self.evidence,) if isinstance(self.evidence, str) else tuple(self.evidence)
        object.__setattr__(self, "evidence", named)
        if "bidirectional" in named:
            raise FlagError(
                f"evidence 'bidirectional' needs data simulated from the fitted model, not {self.data}; choose "
                "--evidence annealed here, or run python -m comparisons.calibration --parts simulated"
            )
        check(self)
        if self.model == "auto":
            object.__setattr__(self, "model", DEFAULT_MODEL.get(self.data, "vae_bernoulli"))
        object.__setattr__(self, "evidence", tuple(self._chosen_evidence()))
        if self.compile == "on" and self.engine in CHOICE and self.device != "cpu":
            raise FlagError(f"compile 'on' is for the cpu, not {self.device}; choose --compile off or --device cpu")
        if self.samples < self.minibatch:
            raise FlagError(f"samples {self.samples} is below the minibatch of {self.minibatch}; raise --samples")
        if self.model == "vae_bernoulli" and self.data == "synthetic":
            raise FlagError("model 'vae_bernoulli' cannot score the real values of 'synthetic'; choose linear_gaussian")
        object.__setattr__(self, "chains", self._chosen_chains())
        self.fit_backend(has_q=self.backend != "monte_carlo_em", has_q_theta=self.backend not in AT_A_POINT)

    def _chosen_evidence(self) -> Iterator[str]:
        """Yield the estimators by name, each once, in the order given: `auto` as what fits, `none` as nothing."""
        if "none" in self.evidence and len(self.evidence) > 1:
            raise FlagError(f"evidence 'none' excludes the others of {' '.join(self.evidence)}; drop one of them")
        for name in dict.fromkeys(self.evidence):
            if name != "auto":
                yield from () if name == "none" else (name,)
            else:
                yield automatic(self._facts(), self)

    def _facts(self, has_q: bool | None = None) -> Facts:
        """Return what an estimator may refuse this for."""
        build = MODELS.get(self.model)
        closed_form = build and build(self.n_latent + 1, self.n_latent, self.n_hidden).log_px is not None
        return Facts(self.model, self.n_latent, closed_form, has_q, self.backend)

    def _chosen_chains(self) -> str:
        """Return whether appendix D keeps its chains; `auto` where it is not asked for, which is then no setting."""
        if "appendix_d" not in self.evidence:
            return "auto"
        return ("kept" if self.start == "prior" else "anew") if self.chains == "auto" else self.chains

    def fit_to(self, n_train: int, n_x: int) -> None:
        """Check what depends on the data's size, and that a model or backend from a file loads. Raises FlagError."""
        if self.minibatch > n_train:
            raise FlagError(f"minibatch {self.minibatch} exceeds the {n_train} training points; lower --minibatch")
        if self.rows_per_step(n_train) > self.samples:
            raise FlagError(f"samples {self.samples} is below one full E-step over {n_train} points; raise --samples")
        if self.model == "linear_gaussian" and self.n_latent >= n_x:
            raise FlagError(f"n_latent {self.n_latent} must be below the {n_x} columns of {self.data}")
        self._admit(self._facts()._replace(closed_form=self.built(n_x).log_px is not None))
        parts.backend(self.backend)

    def built(self, n_x: int) -> Model:
        """Build the model for data of `n_x` columns. Raises FlagError."""
        model = parts.model(self.model)(n_x, self.n_latent, self.n_hidden)
        if self.log_variance_factor == 1.0:
            return model
        if not isinstance(model, OneHiddenLayer):
            raise FlagError(
                f"log_variance_factor {self.log_variance_factor} is for vae_bernoulli and vae_gaussian, "
                f"not {self.model}; drop --log-variance-factor"
            )
        return replace(model, log_variance_factor=self.log_variance_factor)

    @property
    def settings(self) -> Settings:
        """What of it the backend is told."""
        return Settings(**{f.name: getattr(self, f.name) for f in fields(Settings)})

    def fit_backend(self, has_q: bool, has_q_theta: bool) -> None:
        """Check what depends on whether the backend has a q(z|x), and can have a q(theta). Raises FlagError."""
        if self.theta == "vb" and not has_q_theta:
            raise FlagError(
                f"theta 'vb' is for the backends aevb and mean_field, not {self.backend}, which fits theta as a point; "
                "choose --theta map or ml"
            )
        self._admit(self._facts(has_q))

    def _admit(self, facts: Facts) -> None:
        """Check that no estimator refuses. Raises FlagError."""
        for refusal in (ESTIMATORS[name].refuses(facts, self) for name in self.evidence):
            if refusal:
                raise FlagError(refusal)

    def rows_per_step(self, n_train: int) -> int:
        """How many datapoints one step of the backend consumes."""
        return n_train if self.full_e_step else self.minibatch

    @property
    def full_e_step(self) -> bool:
        """Whether a step moves the chains of all training points."""
        return self.backend == "monte_carlo_em" and self.e_step == "full"

    @property
    def compiled(self) -> bool:
        """Whether training runs compiled. From the settings alone: compiled steps round otherwise than others do."""
        if self.engine not in CHOICE or self.device != "cpu":
            return False
        return self.samples // self.minibatch >= LONG if self.compile == "auto" else self.compile == "on"

    def checkpoints(self, n_train: int) -> Iterator[int]:
        """Yield the steps after which a fit is judged: 1, 2, 5 x 10^k points, from samples / 10 or 1e5 on; the last."""
        rows = self.rows_per_step(n_train)
        last = self.samples // rows
        floor = min(1e5, self.samples / 10)
        decades = range(int(math.log10(self.samples)) + 1)
        steps = {m * 10**k // rows for k in decades for m in (1, 2, 5) if floor <= m * 10**k < self.samples}
        yield from sorted({step for step in steps if 1 <= step < last} | {last})

    @property
    def method(self) -> str:
        """Settings of method and judge that are not the defaults, as one string: what else tells two results apart.

        Of a model or backend from a file that is its content: two versions of one file are two methods.
        """
        judge = (f for f in fields(JudgeSettings) if f.name not in ("evidence", "max_memory"))
        mine = (self.__dataclass_fields__[name] for name in ("initial_scale", "log_variance_factor"))
        told = [*fields(Settings), *judge, *mine]
        changed = [f"{f.name}={getattr(self, f.name)}" for f in told if getattr(self, f.name) != f.default]
        if self.step_size != "auto":
            changed.append(f"step_size={self.step_size}")
        elif self.pilot_steps != Experiment.pilot_steps:
            changed.append(f"pilot_steps={self.pilot_steps}")
        return " ".join(changed + [f"{kind}_sha256={part.sha256[:12]}" for kind, part in self._parts()])

    def identity(self, data_digest: str, numbers_version: int | None = None) -> str:
        """Name the cell: backend, engine, seed, and a hash of all settings, the data and the version of the numbers.

        Settings at their default stay out of the hash, so that a new flag does not rename old results; a default that
        changes is a new version of the numbers. A file counts by its content and the name in it, wherever it lies.
        """
        content = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        content |= {kind: {"name": part.name, "sha256": part.sha256} for kind, part in self._parts()}
        if self.compiled:  # whoever decided it: the same numbers, and not those of before there was a choice
            content["compile"] = "on"
        if self.chains == "anew":  # as all were, before there was a choice
            del content["chains"]
        process = inference.unpinned(self.engine)  # what changes numbers, and an engine cannot pin: mostly nothing
        if process:
            content["process"] = process
        content |= {"data_digest": data_digest, "numbers_version": numbers_version or self.numbers_version}
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
        backend = self.backend.folder if isinstance(self.backend, parts.Part) else self.backend
        return f"{self.data}-{backend}-{self.engine}-seed{self.seed}-{digest}"

    @property
    def numbers_version(self) -> int:
        """The version of this experiment's numbers: a change raises that of the experiments it touches."""
        trained = FULL_E_STEP_VERSION if self.full_e_step else NUMBERS_VERSION
        judged = max([NUMBERS_VERSION, *(ESTIMATORS[name].version for name in self.evidence)])
        return max(trained, judged, NUMBERS_VERSION if self.device == "cpu" else CARD_VERSION)

    def _parts(self) -> list[tuple[str, parts.Part]]:
        """Return what comes from a file, with the field's name."""
        named = [(kind, getattr(self, kind)) for kind in parts.KINDS]
        return [(kind, part) for kind, part in named if isinstance(part, parts.Part)]


def completed(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings as a run before this version kept them, with the default of each that it did not know."""
    # As all chains were, before there was a choice.
    chains = "anew" if "appendix_d" in settings.get("evidence", ()) else "auto"
    return {**{f.name: f.default for f in fields(Experiment)}, "chains": chains, **settings}
