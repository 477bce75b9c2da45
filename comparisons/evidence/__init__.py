"""The judge: estimators of bounds and of log p(x), each with its error. They never change training.

All share one signature, estimate(engine, model, theta, x, seed, **settings) -> Estimate; those that can use the
backend's approximate posterior take it as `q`.
"""
