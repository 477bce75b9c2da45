"""What the judge may be told, as flags: the keyword arguments of the estimators, by their names."""

from dataclasses import dataclass

from inference.base import setting

ESTIMATORS = ("quadrature", "importance", "annealed", "appendix_d", "exact")


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """How log p(x) is estimated. Each field is a flag; an estimator takes those that its signature names."""

    evidence: tuple[str, ...] = setting(
        ("auto",),
        "estimators of log p(x): quadrature (n_latent <= 3), importance, annealed, appendix_d (the paper's), exact "
        "(linear_gaussian), none; auto: exact or quadrature where they serve, else importance, some minutes a stop",
        choices=("auto", "none", *ESTIMATORS),
    )
    max_memory: float = setting(
        1e9, "bound on the working arrays of an estimator, which cuts its work to fit [bytes]", low=1e7, high=1e15
    )
    tolerance: float = setting(
        0.1, "quadrature: difference of two levels below which a datapoint is done [nats]", above=0.0, high=10.0
    )
    importance_samples: int = setting(
        1000, "importance: K, draws from the proposal for each datapoint [draws]", low=25, high=1_000_000
    )
    proposal: str = setting(
        "auto",
        "importance: a mixture fitted to HMC draws (auto is hmc), or the backend's q(z|x), whose weights do not tell "
        "of modes that it leaves out",
        choices=("auto", "q", "hmc"),
    )
    start: str = setting(
        "prior",
        "annealed, appendix_d: chains start at the prior, or at the backend's q(z|x) (annealed: half of them); "
        "appendix_d: or where annealed chains end",
        choices=("prior", "recognition", "annealed"),
    )
    temperatures: int = setting(200, "annealed: temperatures between start and posterior", low=1, high=1_000_000)
    annealed_chains: int = setting(16, "annealed: chains of a datapoint", low=2, high=10_000)
    annealed_leapfrog: int = setting(5, "annealed: leapfrog steps of a move [steps]", low=1, high=10_000)
    chains: str = setting(
        "auto",
        "appendix_d: kept along training, each going on from where it stood (authors' code), or begun anew at each "
        "stop, which is doubtful: a chain from the prior often settles in a wrong mode; auto: kept if start is prior",
        choices=("auto", "kept", "anew"),
    )
    chain_interval: int = setting(
        100,
        "appendix_d, chains kept: training points between two looks of 5 moves, or a tenth of all if more [datapoints]",
        low=1,
        high=10**9,
    )
    hmc_draws: int = setting(
        50, "appendix_d: draws of a chain, half to fit the density and half to average over [draws]", low=8, high=10**6
    )
    hmc_chains: int = setting(1, "appendix_d: chains of a datapoint", low=1, high=1000)
    hmc_warmup: int = setting(
        50, "appendix_d, chains anew: moves before the first draw, which tune the step size [moves]", low=0, high=10**6
    )
    hmc_leapfrog: int = setting(4, "appendix_d: leapfrog steps of a move [steps]", low=1, high=10_000)
    density: str = setting(
        "kde", "appendix_d: what is fitted, a kernel density or one normal", choices=("kde", "normal")
    )
    reuse_draws: bool = setting(
        False, "appendix_d: average over the draws that the density was fitted to (wrong: shows by how much)"
    )
    force: bool = setting(False, "appendix_d: run even above 10 latent variables, where it cannot be trusted")
