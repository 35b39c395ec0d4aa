"""Pictures and pages of a run: reads a run folder, writes RUN/report/index.html."""

from rstar_jax.report.page import report

__all__ = ["report"]
