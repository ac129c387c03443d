"""Data → batches: what users pass is checked, then read in batches that can be asked for again.

`plan.py` is the door for whoever trains; `arrays.py`, `blocks.py` (HDF5 data sets, `stored.py`), `lists.py`
and `feed.py` (batches that somebody yields: `kinds.py`, `batch.py`, `takers.py`) are the sources,
`order.py` the shuffling, `intake.py`, `options.py` and `values.py` the checks. NumPy only, synchronous.
"""

from .arrays import Array as Array
from .arrays import ArrayData as ArrayData
from .arrays import Batch as Batch
from .arrays import Source as Source
from .blocks import StoredData as StoredData
from .feed import Feed as Feed
from .feedpass import FeedPass as FeedPass
from .later import Later as Later
from .lists import ListData as ListData
from .order import EpochRange as EpochRange
from .order import epoch_range as epoch_range
from .order import permutation as permutation
from .plan import AnyPass as AnyPass
from .plan import FitData as FitData
from .plan import FitPlan as FitPlan
from .plan import PassPlan as PassPlan
from .plan import RowData as RowData
from .plan import check_labels_of as check_labels_of
from .plan import given_evaluate as given_evaluate
from .plan import given_fit as given_fit
from .plan import given_predict as given_predict
from .plan import plan_evaluate as plan_evaluate
from .plan import plan_fit as plan_fit
from .plan import plan_predict as plan_predict
from .values import Labels as Labels
from .values import check_labels as check_labels
from .values import label_range as label_range

__all__ = [
    "AnyPass",
    "Array",
    "ArrayData",
    "Batch",
    "EpochRange",
    "Feed",
    "FeedPass",
    "FitData",
    "FitPlan",
    "Labels",
    "Later",
    "ListData",
    "PassPlan",
    "RowData",
    "Source",
    "StoredData",
    "check_labels",
    "check_labels_of",
    "epoch_range",
    "given_evaluate",
    "given_fit",
    "given_predict",
    "label_range",
    "permutation",
    "plan_evaluate",
    "plan_fit",
    "plan_predict",
]
