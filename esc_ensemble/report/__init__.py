"""One HTML file about a blend or a run; the figures in it, for notebooks too.

from esc_ensemble import report
r = report.load("submissions/mix")
report.confusion(r)
"""

from esc_ensemble.report.evidence import Evidence, load
from esc_ensemble.report.figures import calibration, confused_pairs, confusion, per_class, scores
from esc_ensemble.report.member_figures import contributions, curves, error_correlation, front, weights
from esc_ensemble.report.page import write_report
from esc_ensemble.report.points import embedding

__all__ = [
    "Evidence",
    "calibration",
    "confused_pairs",
    "confusion",
    "contributions",
    "curves",
    "embedding",
    "error_correlation",
    "front",
    "load",
    "per_class",
    "scores",
    "weights",
    "write_report",
]
