r"""What is measured of models and of data: calibration, alignment and collapse of features, information, ranks, power laws.

Functions take NumPy arrays and torch tensors; those that give one number give a Python float, or in torch a float64 tensor,
with a gradient where they say so. Dense products (`cka`, `neural_collapse`, `class_correlation`) are the library's own, whose
last bits may depend on its number of threads; all else has the same bits for any. What decides by values (calibration, ranks,
information) refuses those that are not finite.

**Parts of data.** The classes have torchmetrics' methods: ``update`` with each part, then ``compute``; ``merge_state`` and
``sync`` join what several processes have seen, the same in each. What they keep is a few arrays of the CPU (``state_dict``),
whose counts are exact.
"""

from tersor._moments import Moments
from tersor.metrics._state import Streaming
from tersor.metrics.calibration import Bins, CalibrationError, calibration_curve, calibration_error
from tersor.metrics.cka import CKA, cka, cka_matrix
from tersor.metrics.collapse import NeuralCollapse, neural_collapse
from tersor.metrics.information import Information, MutualInformation, binned_mutual_information
from tersor.metrics.layers import class_correlation, curriculum_window, loss_barrier, norm_grad, residual_contribution
from tersor.metrics.masks import Effort, human_correction_effort, relaxed_errors
from tersor.metrics.moments import RunningMoments
from tersor.metrics.power import PowerLaw, fit_power_law
from tersor.metrics.rank import kendall_rank_corrcoef, spearman_corrcoef
from tersor.metrics.sharpness import label_sharpness

__all__ = [
    "CKA",
    "Bins",
    "CalibrationError",
    "Effort",
    "Information",
    "Moments",
    "MutualInformation",
    "NeuralCollapse",
    "PowerLaw",
    "RunningMoments",
    "Streaming",
    "binned_mutual_information",
    "calibration_curve",
    "calibration_error",
    "cka",
    "cka_matrix",
    "class_correlation",
    "curriculum_window",
    "fit_power_law",
    "human_correction_effort",
    "kendall_rank_corrcoef",
    "label_sharpness",
    "loss_barrier",
    "neural_collapse",
    "norm_grad",
    "relaxed_errors",
    "residual_contribution",
    "spearman_corrcoef",
]
