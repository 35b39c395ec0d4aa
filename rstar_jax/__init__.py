"""rstar_jax: rStar-Math (arXiv 2501.04519) in JAX: a small model that improves by its own verified tree search."""

__version__ = "0.1.0"
