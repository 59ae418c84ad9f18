"""Pictures of predictions, of ground truth and of the course of a training."""

from .results import draw_ground_truth, draw_prediction
from .side_by_side import side_by_side
from .training_curve import plot_metrics

__all__ = ["draw_ground_truth", "draw_prediction", "plot_metrics", "side_by_side"]
