"""The confidence interval of a mean."""

import math
from typing import Final

# Student's t for a two-sided interval of 95 percent, by degrees of freedom from 1.
_T: Final = (12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157, 2.228139)
# The coefficients of its expansion in 1/df for more (Abramowitz and Stegun, 26.7.5), from the normal quantile.
_EXPANSION: Final = (1.959964, 2.372271, 2.822499, 2.555850, 1.589534)


def half_width(n: int, std: float | None) -> float | None:
    """Half the width of the 95 percent interval of the mean of `n` values; None if there is no standard deviation."""
    if std is None or n < 2:
        return None
    freedom = n - 1
    if freedom <= len(_T):
        t = _T[freedom - 1]
    else:
        t = sum(coefficient / freedom**power for power, coefficient in enumerate(_EXPANSION))
    return t * std / math.sqrt(n)
