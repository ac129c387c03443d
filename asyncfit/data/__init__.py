"""Data → batches: what users pass is checked, then read in batches that can be asked for again.

`plan.py` is the door for whoever trains; `arrays.py` the source, `order.py` the shuffling, `intake.py`, `options.py`
and `values.py` the checks. NumPy only, synchronous.
"""

from .arrays import Array as Array
from .arrays import ArrayData as ArrayData
from .arrays import Batch as Batch
from .arrays import Source as Source
from .order import EpochRange as EpochRange
from .order import epoch_range as epoch_range
from .order import permutation as permutation
from .plan import FitData as FitData
from .plan import FitPlan as FitPlan
from .plan import PassPlan as PassPlan
from .plan import plan_evaluate as plan_evaluate
from .plan import plan_fit as plan_fit
from .plan import plan_predict as plan_predict
from .values import check_labels as check_labels
from .values import label_range as label_range

__all__ = [
    "Array",
    "ArrayData",
    "Batch",
    "EpochRange",
    "FitData",
    "FitPlan",
    "PassPlan",
    "Source",
    "check_labels",
    "epoch_range",
    "label_range",
    "permutation",
    "plan_evaluate",
    "plan_fit",
    "plan_predict",
]
