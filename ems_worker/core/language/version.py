"""The version of the plan language.

It is recorded with each accepted plan. A change of what an accepted plan means needs the next version here, and code
that still reads the plans of earlier ones; new keys don't.
"""

from typing import Final

VERSION: Final = 1
