"""The confidence interval of a mean."""

import math
from typing import Final

# Student's t for a two-sided interval of 95 %, by degrees of freedom from 1.
_T95: Final = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
_Z95: Final = 1.959964


def half_width(n: int, std: float | None) -> float | None:
    """Half the width of the 95 % interval of the mean of `n` values; None if there is no standard deviation."""
    if std is None or n < 2:
        return None
    return _t95(n - 1) * std / math.sqrt(n)


def _t95(freedom: int) -> float:
    if freedom <= len(_T95):
        return _T95[freedom - 1]
    # The expansion of Cornish and Fisher; from ten degrees on, its error is below 0.001.
    z = _Z95
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )
