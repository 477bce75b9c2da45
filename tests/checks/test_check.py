"""The checks: what is registered passes them all, and each fails what it is there for, with a readable reason."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import inference
from comparisons import check, cli
from comparisons.checks import backend as of_backend
from comparisons.checks import model as of_model
from comparisons.checks.backend import check_backend
from comparisons.checks.base import FAIL, PASS, SKIPPED, Outcome, run
from comparisons.checks.model import check_model
from inference import BACKENDS, ENGINES, METHODS
from inference.base import Array, Backend, Batch, Engine, Info, Params, Posterior, Settings, State
from inference.wake_sleep import wake_sleep
from models import MODELS
from models.base import Model, Ppl, standard_normal_latents
from models.linear_gaussian import LinearGaussian

PYRO = inference.engine("pyro")

# What is skipped for a method without a q
ABOUT_Q = {"posterior_of_training_rows", "posterior_of_new_rows", "posterior_takes_rows", "posterior_leaves_the_state"}


def failures(outcomes: list[Outcome]) -> dict[str, str]:
    return {outcome.name: outcome.text for outcome in outcomes if outcome.status == FAIL}


# What is registered


@pytest.mark.parametrize("name", MODELS)
def test_registered_models_pass_every_check(name: str, engine: Engine) -> None:
    outcomes = check_model(MODELS[name], engine)
    assert not failures(outcomes) and {outcome.status for outcome in outcomes} == {PASS}
    assert [outcome.name for outcome in outcomes] == [one.__name__ for one in of_model.CHECKS]


@pytest.mark.parametrize("name", BACKENDS)
def test_registered_backends_pass_every_check(name: str, engine: Engine) -> None:
    """All but what is about a q that it has not, or about rows of which it keeps nothing."""
    outcomes = check_backend(BACKENDS[name], engine)
    assert not failures(outcomes)
    case = of_backend.Case(BACKENDS[name], engine)
    state = case.numpy(case.start)
    expected = set() if case.backend.posterior else {*ABOUT_Q}
    expected |= set() if any(value.shape[:1] == (of_backend.N,) for value in state.values()) else {"other_rows_stay"}
    assert {outcome.name for outcome in outcomes if outcome.status == SKIPPED} == expected


@pytest.mark.parametrize("checks", [of_model.CHECKS, of_backend.CHECKS])
def test_every_check_has_a_contract_of_one_sentence(checks: tuple[Any, ...]) -> None:
    assert len({one.__name__ for one in checks}) == len(checks) >= 20
    for one in checks:
        assert re.fullmatch(r"[^\n]{20,115}\.", one.__doc__), one.__name__


# Models that break one contract each


@dataclass(frozen=True)
class Fine(LinearGaussian):
    """The ruler with the usual three sizes."""

    n_hidden: int = 0

    def decoder(self, ppl: Ppl, theta: Params, z: Array) -> Any:
        loc = ppl.xp.matmul(z, theta["w"]) + theta["b"]
        return ppl.dist.Normal(loc, ppl.xp.exp(theta["log_scale"])).to_event(1)

    def encoder(self, ppl: Ppl, phi: Params, x: Array) -> Any:
        loc = ppl.xp.matmul(x, phi["w"]) + phi["b"]
        return ppl.dist.Normal(loc, ppl.xp.exp(phi["log_scale"])).to_event(1)

    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        with ppl.plate("data", n):
            z = standard_normal_latents(ppl, self.n_latent)
            ppl.sample("x", self.decoder(ppl, theta, z))

    def recognition(self, ppl: Ppl, phi: Params, x: Array) -> None:
        with ppl.plate("data", x.shape[0]):
            ppl.sample("z", self.encoder(ppl, phi, x))


class SwappedSizes(Fine):
    def __init__(self, n_x: int, n_latent: int, n_hidden: int) -> None:
        super().__init__(n_latent, n_x)


class IdentityHash(Fine):
    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__


class OtherNames(Fine):
    def init(self, seed: int) -> tuple[Params, Params]:
        theta, phi = super().init(seed)
        return dict(reversed(theta.items())), phi


class Float64(Fine):
    def init(self, seed: int) -> tuple[Params, Params]:
        theta, phi = super().init(seed)
        return {**theta, "b": theta["b"].astype(np.float64)}, phi


class Unseeded(Fine):
    def init(self, seed: int) -> tuple[Params, Params]:
        theta, phi = super().init(0)
        return theta, phi


class FewerColumns(Fine):
    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        with ppl.plate("data", n):
            z = standard_normal_latents(ppl, self.n_latent)
            fn = self.decoder(ppl, theta, z)
            ppl.sample("x", ppl.dist.Normal(fn.base_dist.loc[..., 1:], 1.0).to_event(1))


class ThirdSiteOfQ(Fine):
    def recognition(self, ppl: Ppl, phi: Params, x: Array) -> None:
        super().recognition(ppl, phi, x)
        ppl.sample("extra", ppl.dist.Delta(phi["b"], event_dim=1))


class OwnNoise(Fine):
    """Draws from a generator of its own."""

    def encoder(self, ppl: Ppl, phi: Params, x: Array) -> Any:
        return changed(ppl, super().encoder(ppl, phi, x), lambda d: d.loc + d.scale * noise(d.loc))


def noise(like: Array) -> Array:
    return like.new_tensor(GENERATOR.standard_normal(like.shape))


GENERATOR = np.random.default_rng(0)


class OneDrawForAll(Fine):
    """Repeats one draw along the axis of samples."""

    def encoder(self, ppl: Ppl, phi: Params, x: Array) -> Any:
        def draw(d: Any) -> Array:
            fresh = d.loc + d.scale * ppl.xp.randn(d.loc.shape)
            return fresh[:1] + 0.0 * fresh if fresh.ndim > 2 else fresh

        return changed(ppl, super().encoder(ppl, phi, x), draw)


def changed(ppl: Ppl, distribution: Any, draw: Callable[[Any], Array], reparameterised: bool = True) -> Any:
    """Return a normal distribution of torch's that draws otherwise."""

    class Changed(ppl.dist.Normal):  # type: ignore[misc, name-defined]
        has_rsample = reparameterised

        def rsample(self, *args: Any, **kwargs: Any) -> Array:
            return draw(self)

        sample = __call__ = rsample

    base = distribution.base_dist
    return Changed(base.loc, base.scale).to_event(1) if ppl is PYRO.ppl else distribution


class RefusesOne(Fine):
    def decoder(self, ppl: Ppl, theta: Params, z: Array) -> Any:
        if z.shape[-2] == 1:
            raise ArithmeticError("a batch of one has no spread")
        return super().decoder(ppl, theta, z)


class NeedsTwoLatents(Fine):
    def decoder(self, ppl: Ppl, theta: Params, z: Array) -> Any:
        return super().decoder(ppl, theta, z + 0.0 * z[..., 1:2])


class OneNumberForAll(Fine):
    def recognition(self, ppl: Ppl, phi: Params, x: Array) -> None:
        ppl.sample("z", ppl.dist.Normal(self.encoder(ppl, phi, x).mean, 1.0).to_event(2))


class SampleAxes(Fine):
    """Shifts what comes with a sample axis."""

    def decoder(self, ppl: Ppl, theta: Params, z: Array) -> Any:
        shift = 0.1 if len(z.shape) > 2 else 0.0
        return super().decoder(ppl, theta, z + shift)


class Coupled(Fine):
    """Each datapoint's mean depends on the first one."""

    def decoder(self, ppl: Ppl, theta: Params, z: Array) -> Any:
        return super().decoder(ppl, theta, z + 0.3 * z[..., :1, :])


class UnnormalisedPrior(Fine):
    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        with ppl.plate("data", n):
            z = ppl.sample("z", shifted(ppl)(0.0 * theta["w"][:, 0], 1.5).to_event(1))
            ppl.sample("x", self.decoder(ppl, theta, z))


class Unnormalised(Fine):
    def decoder(self, ppl: Ppl, theta: Params, z: Array) -> Any:
        found = super().decoder(ppl, theta, z)
        return shifted(ppl)(found.base_dist.loc, found.base_dist.scale).to_event(1)


class UnnormalisedQ(Fine):
    def encoder(self, ppl: Ppl, phi: Params, x: Array) -> Any:
        found = super().encoder(ppl, phi, x)
        return shifted(ppl)(found.base_dist.loc, found.base_dist.scale).to_event(1)


def shifted(ppl: Ppl) -> Any:
    """A normal distribution whose density is 1.3 times too high."""

    class Shifted(ppl.dist.Normal):  # type: ignore[misc, name-defined]
        def log_prob(self, value: Array) -> Array:
            return super().log_prob(value) + 0.26

    return Shifted


class Validates(Fine):
    def decoder(self, ppl: Ppl, theta: Params, z: Array) -> Any:
        if ppl is PYRO.ppl and not bool(ppl.xp.isfinite(theta["b"]).all()):
            raise ArithmeticError("theta is not finite")
        return super().decoder(ppl, theta, z)


class Detached(Fine):
    def decoder(self, ppl: Ppl, theta: Params, z: Array) -> Any:
        return super().decoder(ppl, {**theta, "b": detached(theta["b"])}, z)


class DetachedQ(Fine):
    def encoder(self, ppl: Ppl, phi: Params, x: Array) -> Any:
        return super().encoder(ppl, {**phi, "log_scale": detached(phi["log_scale"])}, x)


def detached(value: Array) -> Array:
    return value.detach() if hasattr(value, "detach") else value


class NotReparameterised(Fine):
    def encoder(self, ppl: Ppl, phi: Params, x: Array) -> Any:
        def draw(d: Any) -> Array:
            return (d.loc + d.scale * ppl.xp.randn(d.loc.shape)).detach()

        return changed(ppl, super().encoder(ppl, phi, x), draw, reparameterised=False)


class PriorInOtherOrder(Fine):
    def prior(self, ppl: Ppl) -> Params:
        return {
            name: ppl.sample(name, ppl.dist.Normal(0.0, 1.0).expand(shape).to_event(len(shape)))
            for name, shape in reversed(list(self.theta_shapes.items()))
        }


class TightPrior(Fine):
    def prior(self, ppl: Ppl) -> Params:
        return {
            name: ppl.sample(name, ppl.dist.Normal(0.0, 0.5).expand(shape).to_event(len(shape)))
            for name, shape in self.theta_shapes.items()
        }


class OneEngine(Fine):
    def decoder(self, ppl: Ppl, theta: Params, z: Array) -> Any:
        shift = 0.1 if ppl is PYRO.ppl else 0.0
        return super().decoder(ppl, theta, z + shift)


MODEL_FAULTS: dict[str, Callable[[int, int, int], Any]] = {
    "is_a_model": lambda *sizes: SwappedSizes(*sizes),
    "equal_settings_are_one_model": IdentityHash,
    "init_matches_theta_shapes": OtherNames,
    "init_is_float32_numpy": Float64,
    "init_is_a_function_of_the_seed": Unseeded,
    "generative_draws_latents_and_x": FewerColumns,
    "recognition_draws_the_latents": ThirdSiteOfQ,
    "draws_are_functions_of_the_key": OwnNoise,
    "draws_gain_leading_axes": OneDrawForAll,
    "one_datapoint_is_enough": RefusesOne,
    "one_latent_is_enough": NeedsTwoLatents,
    "one_score_per_datapoint": OneNumberForAll,
    "sample_axes_stay": SampleAxes,
    "datapoints_are_independent": Coupled,
    "prior_of_z_is_normalised": UnnormalisedPrior,
    "x_given_z_is_normalised": Unnormalised,
    "recognition_is_normalised": UnnormalisedQ,
    "not_finite_theta_is_no_crash": Validates,
    "gradients_are_finite_differences": Detached,
    "recognition_gradients_are_finite_differences": DetachedQ,
    "recognition_is_reparameterised": NotReparameterised,
    "prior_samples_theta": PriorInOtherOrder,
    "prior_is_standard_normal": TightPrior,
    "engines_agree": OneEngine,
}


# Of these, those that a comparison refuses before any training.
REFUSED = {
    "generative_draws_latents_and_x",
    "recognition_draws_the_latents",
    "one_score_per_datapoint",
    "sample_axes_stay",
    "datapoints_are_independent",
    "recognition_is_reparameterised",
    "prior_samples_theta",
    "prior_is_standard_normal",
}


@pytest.mark.parametrize("name", MODEL_FAULTS)
def test_a_model_with_one_fault_fails_that_check_alone(name: str) -> None:
    """Alone but for the contract that comparisons ask, where that is broken too."""
    found = failures(check_model(MODEL_FAULTS[name], PYRO))
    assert found.keys() == {name, *({"keeps_the_contract"} if name in REFUSED else ())}, found
    for text in found.values():
        assert_readable(text)


def assert_readable(text: str) -> None:
    """What was found, what is expected, and how to mend it; or what was raised, and where."""
    mended = re.fullmatch(r"Found .+; expected .+\. To mend it, .+\.", text, re.DOTALL)
    raised = re.fullmatch(r"Found an exception; expected none\. It is \w+: .+ \(test_check\.py, line \d+\)\.", text)
    assert (mended or raised) and "Traceback" not in text and "NoneType" not in text


# Backends that break one contract each


def altered(**changes: Callable[..., Any]) -> Callable[[Engine, Model, Settings], Any]:
    """Return wake-sleep with some of its functions replaced: each is told the engine and the backend, then its own."""

    def build(engine: Engine, model: Model, settings: Settings) -> Backend:
        built = wake_sleep(engine, model, settings)
        return built._replace(**{name: partial(change, engine, built) for name, change in changes.items()})

    return build


def with_leaf(value: float, then: Callable[[Any, Batch], Any]) -> Callable[[Engine, Model, Settings], Any]:
    """Return wake-sleep with one more array in its state, [N, 2], and what a step makes of it."""

    def init(engine: Engine, built: Backend, *args: Any) -> State:
        return {**built.init(*args), "leaf": engine.array(np.full((of_backend.N, 2), value))}

    def step(engine: Engine, built: Backend, key: Any, state: State, batch: Batch) -> tuple[State, Info]:
        after, info = built.step(key, {name: state[name] for name in ("params", "optimizer")}, batch)
        return {**after, "leaf": then(state["leaf"], batch)}, info

    return altered(init=init, step=step)


def informed(change: Callable[[Info, int], Any]) -> Callable[[Engine, Model, Settings], Any]:
    """Return wake-sleep whose Info is changed, given the rows of the batch."""

    def step(engine: Engine, built: Backend, key: Any, state: State, batch: Batch) -> tuple[State, Any]:
        after, info = built.step(key, state, batch)
        return after, change(info, len(batch.x))

    return altered(step=step)


def stepped(change: Callable[[State, State, Batch], State]) -> Callable[[Engine, Model, Settings], Any]:
    """Return wake-sleep whose new state is changed, given the old one and the batch."""

    def step(engine: Engine, built: Backend, key: Any, state: State, batch: Batch) -> tuple[State, Info]:
        after, info = built.step(key, state, batch)
        return change(state, after, batch), info

    return altered(step=step)


def number_in_state(engine: Engine, built: Backend, *args: Any) -> State:
    return {**built.init(*args), "step": 0}


def scaled_theta(engine: Engine, built: Backend, key: Any, theta: Params, *args: Any) -> State:
    return built.init(key, {name: 1.01 * value for name, value in theta.items()}, *args)


def own_noise(engine: Engine, built: Backend, key: Any, theta: Params, phi: Params, *args: Any) -> State:
    return built.init(key, theta, {name: value + 0.01 * noise(value) for name, value in phi.items()}, *args)


def deeper_theta(engine: Engine, built: Backend, state: State) -> Params:
    theta = built.theta(state)
    return theta if state["optimizer"]["count"] == 0 or "b" not in theta else {**theta, "b": theta["b"][None]}


class Counted:
    """Reports another objective each time."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, info: Info, n: int) -> Info:
        self.calls += 1
        return info._replace(objective=info.objective + 1e-3 * self.calls)


class Remembering:
    """Knows the arrays that it returned, and treats others otherwise."""

    def __init__(self) -> None:
        self.known: list[Array] = []

    def __call__(self, before: State, after: State, batch: Batch) -> State:
        params = after["params"]
        if any(before["params"].get("phi.b") is known for known in self.known):
            params = {**params, "phi.b": params["phi.b"] + 1e-3}
        self.known.append(params.get("phi.b", params["theta.b1" if "theta.b1" in params else "theta.b"]))
        return {**after, "params": params}


def spoilt(leaf: Array, batch: Batch) -> Array:
    leaf.fill_(7.0)
    return leaf.clone()


def in_other_form(before: State, after: State, batch: Batch) -> State:
    return {**after, "new": after["optimizer"]["count"]}


def refusing(refuses: Callable[[State, Batch], Any]) -> Callable[[Engine, Model, Settings], Any]:
    def check(before: State, after: State, batch: Batch) -> State:
        if refuses(before, batch):
            raise ArithmeticError("this is not for me")
        return after

    return stepped(check)


def frozen_w(before: State, after: State, batch: Batch) -> State:
    params = {**after["params"]}
    if "theta.w" in params:
        params["theta.w"] = before["params"]["theta.w"]
    return {**after, "params": params}


def posterior_of(fewer: Callable[[bool], bool]) -> Callable[[Engine, Model, Settings], Any]:
    """Return wake-sleep whose posterior leaves rows out, given whether the rows are training rows."""

    def posterior(engine: Engine, built: Backend, key: Any, state: State, x: Array, indices: Any) -> Posterior:
        assert built.posterior
        return built.posterior(key, state, x[:1] if fewer(indices is not None) else x, indices)

    return altered(posterior=posterior)


def swapped_args(engine: Engine, built: Backend, key: Any, state: State, x: Array, indices: Any) -> Posterior:
    assert built.posterior
    q = built.posterior(key, state, x, indices)
    return Posterior(lambda ppl, x, phi: q.program(ppl, phi, x), (x, q.args[0]))


def moving_theta(engine: Engine, built: Backend, key: Any, state: State, x: Array, indices: Any) -> Posterior:
    assert built.posterior
    state["params"]["theta.b"] += 0.1
    return built.posterior(key, state, x, indices)


def deaf_to_prior(engine: Engine, model: Model, settings: Settings) -> Backend:
    return wake_sleep(engine, model, replace(settings, theta="ml"))


BACKEND_FAULTS: dict[str, Callable[[], Any]] = {
    "is_a_backend": lambda: lambda engine, model, settings: tuple(wake_sleep(engine, model, settings)),
    "state_is_nested_dicts_of_arrays": lambda: altered(init=number_in_state),
    "theta_starts_where_it_was_put": lambda: altered(init=scaled_theta),
    "init_repeats": lambda: altered(init=own_noise),
    "step_returns_state_and_info": lambda: informed(lambda info, n: tuple(info)),
    "state_keeps_its_form": lambda: stepped(in_other_form),
    "theta_keeps_the_models_names": lambda: altered(theta=deeper_theta),
    "info_is_finite_scalars": lambda: informed(lambda info, n: info._replace(acceptance=1.5)),
    "objective_is_per_datapoint": lambda: informed(lambda info, n: info._replace(objective=n * info.objective)),
    "decoder_evals_are_counted": lambda: informed(lambda info, n: info._replace(decoder_evals=1)),
    "step_repeats": lambda: informed(Counted()),
    "step_leaves_its_input": lambda: with_leaf(0.0, spoilt),
    "state_survives_numpy": lambda: stepped(Remembering()),
    "other_rows_stay": lambda: with_leaf(0.0, lambda leaf, batch: leaf + 1.0),
    "one_datapoint_will_do": lambda: refusing(lambda state, batch: len(batch.x) == 1),
    "not_finite_data_are_no_crash": lambda: refusing(lambda state, batch: bool(batch.x.isnan().any())),
    "another_model_will_do": lambda: refusing(lambda state, batch: "theta.w" not in state["params"]),
    "posterior_of_training_rows": lambda: posterior_of(lambda of_training: of_training),
    "posterior_of_new_rows": lambda: posterior_of(lambda of_training: not of_training),
    "posterior_takes_rows": lambda: altered(posterior=swapped_args),
    "posterior_leaves_the_state": lambda: altered(posterior=moving_theta),
    "objective_rises": lambda: informed(lambda info, n: info._replace(objective=-info.objective)),
    "maximum_likelihood_is_approached": lambda: stepped(frozen_w),
    "the_prior_shrinks_theta": lambda: deaf_to_prior,
}


@pytest.mark.parametrize("name", BACKEND_FAULTS)
def test_a_backend_with_one_fault_fails_that_check_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name != "maximum_likelihood_is_approached":  # shorter fits, which need not arrive
        for constant, value in {"LONG": 40, "SHORT": 20, "NEAR": 30.0}.items():
            monkeypatch.setattr(of_backend, constant, value)
    found = failures(check_backend(BACKEND_FAULTS[name](), PYRO))
    assert found.keys() == {name}, found
    assert_readable(found[name])


class OtherwiseCompiled(Fine):
    """Scores otherwise where it is not traced."""

    def decoder(self, ppl: Ppl, theta: Params, z: Array) -> Any:
        return super().decoder(ppl, theta, z + (0.0 if "Tracer" in type(z).__name__ else 0.1))


def test_a_model_that_is_another_when_compiled_is_found() -> None:
    case = of_model.Case(OtherwiseCompiled, inference.engine("numpyro"), 6, 2, 5)
    (outcome,) = run((of_model.compiled_is_eager,), case)
    assert outcome.status == FAIL
    assert_readable(outcome.text)


# What the checks may be pointed at


def test_decoders_of_any_kind_are_normalised() -> None:
    """Counts are summed over, heavy tails are not integrated, and a density that is too high is found in each."""

    class Counts(Fine):
        def decoder(self, ppl: Ppl, theta: Params, z: Array) -> Any:
            return ppl.dist.Poisson(ppl.xp.exp(super().decoder(ppl, theta, z).base_dist.loc)).to_event(1)

    class Heavy(Fine):
        def decoder(self, ppl: Ppl, theta: Params, z: Array) -> Any:
            return ppl.dist.Cauchy(super().decoder(ppl, theta, z).base_dist.loc, 1.0).to_event(1)

    for model, status in ((Counts, PASS), (Heavy, SKIPPED)):
        (outcome,) = run((of_model.x_given_z_is_normalised,), of_model.Case(model, PYRO, 6, 2, 5))
        assert outcome.status == status, outcome


def test_a_model_may_refuse_sizes() -> None:
    def picky(n_x: int, n_latent: int, n_hidden: int) -> Fine:
        if (n_x, n_latent) != (6, 2):
            raise ValueError("six columns and two latents are all I can do")
        return Fine(n_x, n_latent)

    outcomes = check_model(picky, PYRO)
    assert not failures(outcomes)
    skipped = {outcome.name: outcome.text for outcome in outcomes if outcome.status == SKIPPED}
    three = {"x_given_z_is_normalised", "recognition_is_normalised", "prior_of_z_is_normalised"}
    assert skipped.keys() == {"one_latent_is_enough", *three}
    assert all("six columns and two latents" in text for text in skipped.values())


@pytest.mark.parametrize("broken", [lambda *_: 1 / 0, lambda *_: None, lambda: None, None])
def test_what_cannot_be_built_fails_once_and_skips_the_rest(broken: Any) -> None:
    for outcomes in (check_model(broken, PYRO), check_backend(broken, PYRO)):
        assert failures(outcomes).keys() <= {"is_a_model", "is_a_backend"}
        assert {outcome.status for outcome in outcomes[1:]} == {SKIPPED}


def test_a_check_never_stops_the_others() -> None:
    def exits(case: Any) -> None:
        """Leaves."""
        raise SystemExit(3)

    def fine(case: Any) -> None:
        """Stays."""

    def interrupted(case: Any) -> None:
        """Is stopped by the user, which is no outcome."""
        raise KeyboardInterrupt

    assert [outcome.status for outcome in run((exits, fine), None)] == [FAIL, PASS]
    with pytest.raises(KeyboardInterrupt):
        run((interrupted,), None)


# The command

TOY = """
from models.linear_gaussian import LinearGaussian

def fine(n_x, n_latent, n_hidden):
    return LinearGaussian(n_x, n_latent)

class Broken(LinearGaussian):
    def __init__(self, n_x, n_latent, n_hidden):
        super().__init__(n_x, n_latent)

    def recognition(self, ppl, phi, x):
        raise LookupError("no network here")

def backend(engine, model, settings):
    return None
"""


def test_the_command_prints_a_line_for_each_check_and_explains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "toy.py").write_text(TOY)
    assert check.main(["--model", f"{tmp_path}/toy.py:fine", "--engine", "pyro", "--n-x", "4"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("model toy.py:fine on pyro\n") and out.endswith("\n0 of 26 checks failed.\n")
    lines = [line.split() for line in out.splitlines()[1:27]]
    assert [line[1] for line in lines] == [one.__name__ for one in of_model.CHECKS]
    assert {line[0] for line in lines} == {"pass"} and str(tmp_path) not in out

    both = ["--model", f"{tmp_path}/toy.py:Broken", "--backend", f"{tmp_path}/toy.py:backend", "--engine", "pyro"]
    assert check.main(both) == 1
    out = capsys.readouterr().out
    assert "  FAIL    recognition_draws_the_latents\n" in out and "  skipped step_repeats: " in out
    listed, explained = out.split(" checks failed.\n")
    assert listed.count("  FAIL ") == explained.count("Contract: ") == int(listed.split()[-3])
    assert "LookupError: no network here (toy.py, line 12)" in explained and "expected an inference.base" in explained
    assert "Traceback" not in out and str(tmp_path) not in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["nothing to check", "--model", "--backend"]),
        (["--model", "gan"], ["'gan'", *MODELS, "all", "path/to/file.py:NAME"]),
        (["--backend", "avb"], ["'avb'", *BACKENDS, "all", "path/to/file.py:NAME"]),
        (["--model", "all", "--engine", "stan"], ["'stan'", *ENGINES]),
        (["--model", "missing.py:f"], ["missing.py", "missing"]),
        (["--model", "toy.py:absent"], ["defines no absent"]),
        (["--model", "all", "--n-x", "0"], ["n_x 0", "at least 1"]),
        (["--model", "all", "--n-x", "many"], ["many", "--help"]),
        (["--modle", "all"], ["--modle", "--help"]),
    ],
)
def test_a_wrong_flag_ends_with_code_2(
    arguments: list[str],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        cli.main(lambda: check.main(arguments))
    out, err = capsys.readouterr()
    assert caught.value.code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert all(word in err for word in words), err


def test_all_is_every_registered_name(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("comparisons.checks.model.check_model", lambda *_, **__: [])
    monkeypatch.setattr("comparisons.checks.backend.check_backend", lambda *_: [Outcome("one", PASS, "", "")])
    assert check.main(["--model", "all", "--backend", "all", "aevb"]) == 0
    titles = [line for line in capsys.readouterr().out.splitlines() if " on " in line]
    pairs = [("model", name) for name in MODELS] + [("backend", name) for name in METHODS]
    assert titles == [f"{kind} {name} on {engine}" for kind, name in pairs for engine in ENGINES]
