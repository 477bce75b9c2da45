"""What the suite counts on in a backend: its form, its manners, and that it fits a model whose best fit is known."""

from collections.abc import Callable
from dataclasses import fields
from functools import cached_property
from typing import Any

import numpy as np

from comparisons.checks import base
from comparisons.checks.base import NothingToCheckError, attempt, expect, expect_close, expect_shapes, needed, same_bits
from inference import AllSettings
from inference.base import Array, Backend, Batch, Engine, Info, Key, Method, Posterior, Settings, State, arrays, numpys
from inference.nested import flat, flaw, nested
from models.base import Model
from models.linear_gaussian import LinearGaussian, log_px, maximum_likelihood
from models.vae import VaeBernoulli

Values = dict[str, np.ndarray]
Factory = Callable[[Engine, Model, Settings], Backend]

# No other axis of anything has N entries: so an array's rows are known to be those of datapoints.
N, M, D, K = 20, 10, 5, 2  # datapoints, minibatch, columns, latent variables
STEP_SIZE = 0.03
CHUNK = 5  # steps of one scan
LONG, SHORT = 300, 60  # steps of a fit, and of the two that are compared with and without a prior
NEAR = 0.8  # nats per datapoint from the maximum likelihood; without w it does not come nearer than 1.8
LEARNING: dict[str, Any] = {"theta": "ml", "optimizer": "adam", "warmup": 0, "minibatch": M, "particles": 1}
LOOPS: dict[str, Any] = {"fit_steps": 50, "local_steps": 3, "leapfrog_steps": 4, "weight_updates": 2}
SETTINGS: dict[str, Any] = {**LEARNING, **LOOPS, "local_step_size": 0.03}


def check_backend(backend: Factory | Method, engine: Engine) -> list[base.Outcome]:
    """Hold a function (engine, model, settings) -> Backend, or the card of one, against every check on an engine."""
    card = backend if isinstance(backend, Method) else Method(backend, settings=AllSettings)
    return base.run(CHECKS, Case(card, engine))


def linear() -> tuple[Model, np.ndarray]:
    """Return `linear_gaussian` on data drawn from it, away from the origin."""
    rng = np.random.default_rng(1)
    w, b = rng.standard_normal((K, D)), 1.0 + rng.random(D)
    x = b + rng.standard_normal((N, K)) @ w + 0.5 * rng.standard_normal((N, D))
    return LinearGaussian(D, K), x.astype(np.float32)


class Case:
    """A backend on an engine, a model, training data [N, D] in float32, and theta and phi at random."""

    def __init__(
        self, card: Method, engine: Engine, problem: tuple[Model, np.ndarray] | None = None, **settings: Any
    ) -> None:
        self.card, self.engine = card, engine
        known = {f.name for f in fields(card.settings)}
        self.settings = card.settings(**{name: v for name, v in {**SETTINGS, **settings}.items() if name in known})
        self.model, self.x = problem or linear()
        theta, phi = self.model.init(0)
        self.theta, self.phi = base.random_like(theta, 2), base.random_like(phi, 3)

    @cached_property
    def backend(self) -> Backend:
        """The backend, built."""
        with needed("the backend could not be built; see is_a_backend"):
            built = self.card.build(self.engine, self.model, self.settings)
        if not isinstance(built, Backend):
            raise NothingToCheckError("what was built is not a Backend; see is_a_backend")
        return built

    @cached_property
    def with_prior(self) -> "Case":
        """The same with --theta map."""
        return Case(self.card, self.engine, theta="map")

    def init(self, theta: Values | None = None, phi: Values | None = None, x: np.ndarray | None = None) -> State:
        """Return the state at theta and phi for data x, those of the case unless told."""
        engine, x = self.engine, self.x if x is None else x
        placed = (arrays(engine, theta or self.theta), arrays(engine, phi or self.phi), engine.array(x))
        return self.backend.init(engine.key(0), *placed, engine.array(STEP_SIZE))

    @cached_property
    def start(self) -> State:
        """The state at theta and phi at random."""
        kind = type(self.engine.array(0.0))
        with needed("there is no state to begin with; see state_is_nested_dicts_of_arrays") as hold:
            state = self.init()
            hold(not flaw(state, self.engine.numpy))
            hold(all(isinstance(value, kind) for name, value in flat(state).items() if not name.endswith("/")))
        return state

    @cached_property
    def after(self) -> tuple[State, Info]:
        """What the first step returns."""
        with needed("the first step fails; see step_returns_state_and_info") as hold:
            state, info = self.step(self.start, 0)
            hold(isinstance(state, dict) and isinstance(info, Info))
        return state, info

    def step(self, state: State, number: int, rows: np.ndarray | None = None, x: np.ndarray | None = None) -> Any:
        """Take a step, compiled, on some rows of the data."""
        engine, rows = self.engine, rows_of(number) if rows is None else rows
        x = self.x if x is None else x
        key = engine.fold_in(engine.key(4), number)
        return self._step(key, state, engine.array(x[rows]), engine.array(rows), engine.array(len(rows) / N))

    @cached_property
    def _step(self) -> Any:
        def step(key: Key, state: State, x: Array, rows: Array, fraction: Array) -> tuple[State, Info]:
            return self.backend.step(key, state, Batch(x, rows, fraction))

        return self.engine.compile(step)

    def scan(self, state: State, first: int, x: np.ndarray) -> tuple[State, Info]:
        """Take CHUNK steps in one compiled loop, as training does, from number `first` on."""
        steps = np.arange(first, first + CHUNK)
        rows = np.stack([rows_of(int(step)) for step in steps])
        return self._scan(state, *map(self.engine.array, (x, steps, rows)))

    @cached_property
    def _scan(self) -> Any:
        engine, backend = self.engine, self.backend

        def train(state: State, x: Array, steps: Array, rows: Array) -> tuple[State, Info]:
            def one(state: State, item: tuple[Array, Array]) -> tuple[State, Info]:
                step, rows = item
                return backend.step(engine.fold_in(engine.key(4), step), state, Batch(x[rows], rows, M / N))

            return engine.scan(one, state, (steps, rows))

        return engine.compile(train)

    @cached_property
    def fit(self) -> tuple[np.ndarray, Values]:
        """Train from the model's own initial values: the objectives, and the last theta."""
        _ = self.after
        state, objectives = self.init(*self.model.init(0)), []
        with needed("it does not train; see step_returns_state_and_info"):
            for number in range(LONG):
                state, info = self.step(state, number)
                objectives.append(self.value(info.objective))
            theta = self.theta_of(state)
        return np.array(objectives), theta

    def posterior(self, count: int, of_training: bool) -> Posterior:
        """Return q(z | x) of the first rows. Raises NothingToCheckError for a backend that has none."""
        if self.backend.posterior is None:
            raise NothingToCheckError("posterior is None: this method has no q, and no lower bound is reported")
        engine, (state, _) = self.engine, self.after
        indices = engine.array(np.arange(count)) if of_training else None
        return self.backend.posterior(engine.key(5), state, engine.array(self.x[:count]), indices)

    def numpy(self, state: State) -> Values:
        """Copy a state to NumPy, flat."""
        return numpys(self.engine, flat(state))

    def theta_of(self, state: State) -> Values:
        """Copy the theta of a state to NumPy."""
        return numpys(self.engine, self.backend.theta(state))

    def value(self, number: Array) -> float:
        """Return a scalar of the engine's as a number."""
        return float(self.engine.numpy(number))


def rows_of(step: int, m: int = M) -> np.ndarray:
    """Return the rows of a step's minibatch, from the step alone."""
    return np.random.default_rng([6, step]).choice(N, m, replace=False)


# Its form


def is_a_backend(case: Case) -> None:
    """factory(engine, model, settings) returns an inference.base.Backend of three callables; the others may be None."""
    with attempt("a Backend", "accept (engine, model, settings)"):
        built = case.card.build(case.engine, case.model, case.settings)
    mend = "return Backend(init, step, theta, posterior), or None for the last where the method has no q"
    optional = ("posterior", "theta_posterior")
    expect(isinstance(built, Backend), f"a {type(built).__name__}", "an inference.base.Backend", mend)
    for name, field in built._asdict().items():
        fine = callable(field) or (name in optional and field is None)
        expect(fine, f"{name}, a {type(field).__name__}", "a callable", mend)


def state_is_nested_dicts_of_arrays(case: Case) -> None:
    """init's state is nested dicts of the engine's arrays, with words for keys: what a checkpoint can hold."""
    state, kind = case.init(), type(case.engine.array(0.0))
    mend = "keep keys, counters and numbers as arrays: engine.array(0.0)"
    expect(isinstance(state, dict), f"a state of type {type(state).__name__}", "a dict", mend)
    text = flaw(state, case.engine.numpy)
    expect(not text, text.partition(";")[0], f"a {kind.__name__} there, and words for keys", mend)
    for name, value in flat(state).items():
        if not name.endswith("/"):  # an empty dict
            expect(isinstance(value, kind), f"{name}, a {type(value).__name__}", f"a {kind.__name__}", mend)


def theta_starts_where_it_was_put(case: Case) -> None:
    """theta(init(..., theta, ...)) is that theta to the last bit, so that both engines start alike."""
    found = case.theta_of(case.start)
    mend = "keep theta as it came in `init`, and return it from `theta` by the model's own names"
    expect(found.keys() == case.theta.keys(), base.shapes(found), base.shapes(case.theta), mend)
    for name, value in case.theta.items():
        same = found[name].shape == value.shape and (found[name] == value).all()
        expect(same, f"theta[{name!r}] with {base.distance(found[name], value)}", "the values given to `init`", mend)


def init_repeats(case: Case) -> None:
    """init gives the same state from the same key, to the last bit."""
    mend = "draw all noise with engine.draw and the key that is passed in"
    expect(same_bits(case.numpy(case.init()), case.numpy(case.init())), "two states", "one", mend)


def step_returns_state_and_info(case: Case) -> None:
    """step(key, state, batch) returns (state, Info), and the new theta is finite and another one."""
    state, info = case.step(case.start, 0)
    mend = "end step with `return state, Info(objective, decoder_evals, acceptance)`"
    expect(isinstance(info, Info), f"a {type(info).__name__} in second place", "an inference.base.Info", mend)
    theta = case.theta_of(state)
    mend = "look at the gradient and step size"
    expect(_finite(theta), "a theta that is not finite after one step", "finite numbers", mend)
    moved = any((theta[name] != value).any() for name, value in case.theta.items() if name in theta)
    expect(moved, "theta as it was", "one that has moved", "add the optimiser's updates to theta, and keep the result")


def state_keeps_its_form(case: Case) -> None:
    """A step keeps the state's names, shapes and types, as a compiled loop over steps needs, and drops gradients."""
    before, after = flat(case.start), flat(case.after[0])
    form, found = ({k: (tuple(v.shape), str(v.dtype)) for k, v in state.items()} for state in (before, after))
    differ = {name for name in {*form, *found} if form.get(name) != found.get(name)}
    words = "; ".join(
        f"{name} {form.get(name, 'missing')} before and {found.get(name, 'missing')} after" for name in sorted(differ)
    )
    mend = "let `init` and `step` return the same names, shapes and types"
    expect(not differ, words, "the same form before and after", mend)
    tracked = sorted(name for name, value in after.items() if getattr(value, "requires_grad", False))
    expect(not tracked, f"{', '.join(tracked)} still tracked for gradients", "plain arrays", "detach what is kept")


def theta_keeps_the_models_names(case: Case) -> None:
    """theta(state) has the names and shapes of the model's theta_shapes after a step too."""
    mend = "return the model's own names from `theta`, without a prefix"
    expect_shapes(case.theta_of(case.after[0]), case.model.theta_shapes, mend)


def info_is_finite_scalars(case: Case) -> None:
    """Info holds scalars: a finite objective, and an acceptance that is a probability, or NaN for no HMC."""
    info = Info(*(np.asarray(case.engine.numpy(value)) for value in case.after[1]))
    mend = "take its mean over the minibatch"
    for name, value in info._asdict().items():
        expect(value.shape == (), f"{name} of shape {list(value.shape)}", "a scalar", mend)
    finite = "a finite number of nats per datapoint"
    expect(np.isfinite(info.objective), f"an objective of {info.objective}", finite, "look at how it is computed")
    probability = np.isnan(info.acceptance) or 0 <= info.acceptance <= 1
    expect(probability, f"an acceptance of {info.acceptance}", "0 to 1, or NaN", 'say float("nan") without HMC')


def objective_is_per_datapoint(case: Case) -> None:
    """The objective is a mean over the datapoints of a batch: of single ones it is of the same size as of many."""
    rows, together = rows_of(0), case.value(case.after[1].objective)
    with needed("there is no objective of a single datapoint; see one_datapoint_will_do") as hold:
        each = [case.value(case.step(case.start, 0, rows[i : i + 1])[1].objective) for i in range(M)]
        alone = float(np.mean(each))
        hold(np.isfinite(alone))
    words = f"{together:.2f} for {M} datapoints, and {alone:.2f} on average for each of them alone"
    mend = "divide the minibatch's sum by its number of rows"
    expect(0.5 < abs(together / alone) < 2, words, "about the same", mend)


def decoder_evals_are_counted(case: Case) -> None:
    """decoder_evals says how often a step evaluated p(x | z): at least once for each datapoint of the batch."""
    found = case.value(case.after[1].decoder_evals)
    mend = "count every datapoint and draw for which p(x | z) is evaluated or differentiated"
    expect(np.isfinite(found) and found >= M, f"{found:g}", f"at least {M} for {M} datapoints", mend)


# Its manners


def step_repeats(case: Case) -> None:
    """The same key, state and batch give the same state and objective, to the last bit."""
    (one, first), (two, second) = case.step(case.after[0], 1), case.step(case.after[0], 1)
    mend = "keep nothing outside the state, and draw all noise from the key"
    expect(same_bits(case.numpy(one), case.numpy(two)), "two states", "one", mend)
    objectives = case.value(first.objective), case.value(second.objective)
    expect(objectives[0] == objectives[1], f"objectives {objectives}", "one", mend)


def step_leaves_its_input(case: Case) -> None:
    """A step does not change the state that it was given."""
    _ = case.after
    state = case.init()  # a fresh one: a change in place may be one that is made once
    before = case.numpy(state)
    case.step(state, 0)
    after = case.numpy(state)
    changed = [name for name in before if not same_bits({name: before[name]}, {name: after.get(name, np.empty(0))})]
    mend = "build a new dict, use no operation in place, and write rows with engine.put"
    expect(not changed and before.keys() == after.keys(), f"{', '.join(changed)} changed", "the state as it was", mend)


def state_survives_numpy(case: Case) -> None:
    """A state saved as NumPy arrays and read back continues as if it had not been, to the last bit."""
    saved = case.numpy(case.after[0])
    restored = nested({name: case.engine.array(value) for name, value in saved.items()})
    kept = case.numpy(restored)
    differ = [name for name in saved if not same_bits({name: saved[name]}, {name: kept[name]})]
    mend = "keep in the state all that the next step needs, as float32 or as the engine's integers"
    expect(not differ, f"{', '.join(differ)} changed on the way", "the same bits", mend)
    resumed, expected = (case.numpy(case.step(state, 1)[0]) for state in (restored, case.after[0]))
    expect(same_bits(resumed, expected), "another state after the next step", "the same one", mend)


def other_rows_stay(case: Case) -> None:
    """What the state keeps for each datapoint changes for the rows of the batch alone."""
    before, rows = case.numpy(case.after[0]), rows_of(1)
    kept = [name for name, value in before.items() if value.shape[:1] == (N,)]
    if not kept:
        raise NothingToCheckError("the state keeps nothing for each datapoint")
    after = case.numpy(case.step(case.after[0], 1)[0])
    others = np.setdiff1d(np.arange(N), rows)
    for name in kept:
        moved = others[[(before[name][i] != after[name][i]).any() for i in others]]
        words = f"{name} changed in {len(moved)} rows that were not in the batch"
        expect(not len(moved), words, "those of the batch alone", "address them by batch.indices, with engine.put")


def one_datapoint_will_do(case: Case) -> None:
    """A step takes a minibatch of one."""
    _ = case.after
    state, info = case.step(case.start, 0, rows_of(0, 1))
    finite = _finite(case.theta_of(state)) and np.isfinite(case.value(info.objective))
    mend = "divide by nothing that is zero for one row, and squeeze no axis of length one"
    expect(finite, "a theta or an objective that is not finite", "finite numbers", mend)


def not_finite_data_are_no_crash(case: Case) -> None:
    """A batch of NaN raises no exception: a run that diverges is stopped by its caller, and says so."""
    _ = case.after
    with attempt("a state and an Info", "leave it to the caller to stop such a run"):
        case.step(case.start, 0, x=np.full_like(case.x, np.nan))


def another_model_will_do(case: Case) -> None:
    """init, step and theta work for `vae_bernoulli` too, on the whole training set at once."""
    _ = case.after
    other = Case(case.card, case.engine, (VaeBernoulli(D, K, 4), (case.x > 1.5).astype(np.float32)))
    if reason := case.card.refuses(other.model, other.settings):
        raise NothingToCheckError(f"on vae_bernoulli it {reason}")
    state, info = other.step(other.init(), 0, rows_of(0, N))
    mend = "reach the model through generative, recognition, prior, theta_shapes and n_latent alone"
    expect_shapes(other.theta_of(state), other.model.theta_shapes, mend)
    objective = case.value(info.objective)
    expect(np.isfinite(objective), f"an objective of {objective}", "a finite number", mend)


# Its posterior


def posterior_of_training_rows(case: Case) -> None:
    """posterior(key, state, x, indices) is a Posterior of training rows: it draws z [n, n_latent] and scores it."""
    _hold_posterior(case, of_training=True)


def posterior_of_new_rows(case: Case) -> None:
    """posterior(key, state, x, None) is the same for datapoints outside the training set."""
    _hold_posterior(case, of_training=False)


def posterior_takes_rows(case: Case) -> None:
    """take(indices) of a Posterior is that of these datapoints: its scores of z are theirs among all."""
    q = case.posterior(7, of_training=False)
    z = np.random.default_rng(8).standard_normal((7, K)).astype(np.float32)
    rows = np.array([4, 0, 2])
    with needed("there are no scores of new rows; see posterior_of_new_rows") as hold:
        whole = _score(case, q, z)
        hold(whole.shape == (7,) and _drawn(case, q)["z"].shape == (7, K))
    expected = "those of the rows taken"
    mend = (
        "let the last of `args` hold one row for each datapoint, an array or a flat dict of them, and be all that does"
    )
    with attempt(expected, mend):
        part = _score(case, q.take(case.engine.array(rows)), z[rows])
    expect_close(part, whole[rows], "scores", expected, mend)


def posterior_leaves_the_state(case: Case) -> None:
    """posterior changes nothing of the state, theta least of all."""
    before = case.numpy(case.after[0])
    for of_training in (True, False):
        case.posterior(7, of_training)
    mend = "work on copies, and use no operation in place"
    expect(same_bits(before, case.numpy(case.after[0])), "a state that has changed", "the state as it was", mend)


# What it learns


def objective_rises(case: Case) -> None:
    """Training raises the objective, in nats per datapoint: higher is better."""
    objectives, _ = case.fit
    first, last = objectives[:20].mean(), objectives[-20:].mean()
    words = f"{first:.2f} nats on average in the first 20 of {LONG} steps and {last:.2f} in the last"
    mend = "report what is maximised, not the loss, and follow its gradient upwards"
    expect(last > first + 0.5, words, "a rise of at least 0.5", mend)


def maximum_likelihood_is_approached(case: Case) -> None:
    """With --theta ml the fitted theta comes near the maximum likelihood of `linear_gaussian`, known in closed form."""
    best = log_px(maximum_likelihood(case.x, K), case.x).mean()
    start = log_px(case.model.init(0)[0], case.x).mean()
    reached = log_px(case.fit[1], case.x).mean()
    words = f"log p(x) of {reached:.2f} nats per datapoint after {LONG} steps, from {start:.2f}"
    mend = "see that the gradient of theta is that of log p(x, z) at draws of the posterior, and scaled to the data"
    expect(reached > best - NEAR, words, f"{best:.2f} to within {NEAR}", mend)


def steps_scan(case: Case) -> None:
    """Steps run inside a compiled engine.scan, as training runs them, which stacks their Info."""
    _ = case.after
    state, infos = case.with_prior.scan(case.with_prior.init(), 0, case.x)
    mend = "return scalars in Info, and let nothing in step depend on the values of arrays"
    shape = np.shape(case.engine.numpy(infos.objective))
    expect(shape == (CHUNK,), f"objectives of shape {list(shape)}", f"[{CHUNK}]", mend)
    expect(_finite(case.theta_of(state)), f"a theta that is not finite after {CHUNK} steps", "finite numbers", mend)


def the_prior_shrinks_theta(case: Case) -> None:
    """With --theta map theta ends smaller than with ml, and a minibatch sees its fraction of the prior."""
    _ = case.after
    theta, phi = case.model.init(0)
    far = case.x + 4.0
    theta |= {"b": far.mean(0)}  # its maximum-likelihood value, from which a prior at zero draws it back
    free, bound = case.init(theta, phi, far), case.with_prior.init(theta, phi, far)
    for number in range(0, SHORT, CHUNK):
        bound, _ = case.with_prior.scan(bound, number, far)
        for one in range(number, number + CHUNK):
            free, _ = case.step(free, one, x=far)
    unshrunk, size = (float(np.linalg.norm(case.theta_of(state)["b"])) for state in (free, bound))
    words = f"a mean b of length {size:.3f} with the prior and {unshrunk:.3f} without"
    mend = "add fraction * log p(theta) to the minibatch's sum where settings.theta is map (see inference/theta.py)"
    expect(size < unshrunk, words, "a shorter one with it", mend)
    expect(size > 0.75 * unshrunk, words, "one that still follows the data", mend)


CHECKS = base.checks_of(__name__)


def _hold_posterior(case: Case, of_training: bool) -> None:
    q = case.posterior(7, of_training)
    mend = "return Posterior(program, args): program(ppl, *args) samples the site z"
    expect(isinstance(q, Posterior), f"a {type(q).__name__}", "an inference.base.Posterior", mend)
    drawn = _drawn(case, q)
    expect_shapes(drawn, {"z": (7, K)}, mend, " for 7 datapoints")
    scores = _score(case, q, drawn["z"])
    fine = scores.shape == (7,) and np.isfinite(scores).all()
    expect(fine, f"scores {scores} of its own draws", "7 finite numbers", mend)


def _drawn(case: Case, q: Posterior) -> Values:
    return numpys(case.engine, case.engine.draw(case.engine.key(6), q.program, *q.args))


def _score(case: Case, q: Posterior, z: np.ndarray) -> np.ndarray:
    return np.asarray(case.engine.numpy(case.engine.log_prob(q.program, {"z": case.engine.array(z)}, *q.args)))


def _finite(values: Values) -> bool:
    return all(np.isfinite(value).all() for value in values.values())
