"""How many runs it takes: power of a t-test, and the n that reaches one."""

from __future__ import annotations

import dataclasses
import math

from scipy import integrate, optimize, stats

from parts2whole.errors import Parts2WholeError

LARGEST_N = 1_000_000
FAR = 9.0
"""Standard deviations that a normal variable never is from its mean, as far as floats can tell."""


class PowerError(Parts2WholeError, ValueError):
    """A difference, spread or level that no sample size belongs to."""


@dataclasses.dataclass(frozen=True)
class Power:
    """What a planned comparison can see.

    Attributes:
        difference: true difference of the means, in the direction that is tested.
        sd: standard deviation within each arm, or of the paired differences.
        n: runs of each arm, or pairs.
        power: probability that the test gives p below alpha.
        alpha: level of the test.
        paired: paired t-test; otherwise Student's independent t-test.
        two_sided: sidedness of the test.
    """

    difference: float
    sd: float
    n: int
    power: float
    alpha: float
    paired: bool
    two_sided: bool

    def describe(self) -> str:
        """One line, such as: to see a difference of 0.3 with ... you need n = 24 pairs."""
        test = "paired" if self.paired else "independent Student"
        side = "two-sided" if self.two_sided else "one-sided"
        spread = "of the differences" if self.paired else "within each arm"
        return (
            f"to see a difference of {self.difference:.4g} with a standard deviation {spread} of "
            f"{self.sd:.4g} you need n = {self.n} {'pairs' if self.paired else 'each'} for power "
            f"{self.power:.2f} ({test} t-test, {side}, alpha = {self.alpha:g})"
        )


def power(
    difference: float,
    sd: float,
    n: int,
    *,
    alpha: float = 0.05,
    paired: bool = False,
    two_sided: bool = False,
) -> float:
    """Probability that a t-test sees a true difference.

    Args:
        difference: true difference of the means, above 0.
        sd: standard deviation within each arm, or of the paired differences.
        n: runs of each arm, or pairs; at least 2.
        alpha: level of the test.
        paired: paired t-test; otherwise Student's, with n runs in each arm.
        two_sided: sidedness of the test.

    Raises:
        PowerError: an argument out of its range.
    """
    if n < 2:
        raise PowerError(f"n must be at least 2, got {n}")
    if not (difference > 0 and sd > 0 and math.isfinite(difference / sd)):
        raise PowerError(f"difference and sd must be above 0, got {difference} and {sd}")
    if not 0 < alpha < 1:
        raise PowerError(f"alpha must be between 0 and 1, got {alpha}")
    df = n - 1 if paired else 2 * n - 2
    centre = difference / sd * math.sqrt(n if paired else n / 2)
    limit = float(stats.t.isf(alpha / 2 if two_sided else alpha, df))
    if centre > 35:  # where the distribution of t can no longer be computed
        return _far_power(centre, limit, df)
    found = float(stats.nct.sf(limit, df, centre))
    # The wrong direction is rarer than one in a million from 5 on, where SciPy starts to return nan.
    return found + (float(stats.nct.cdf(-limit, df, centre)) if two_sided and centre < 5 else 0.0)


def _far_power(centre: float, limit: float, df: int) -> float:
    """The probability that t is above a limit, where it can't be below minus that limit.

    t is (centre + z) / s with a normal z, and df s^2 is chi-square: s must be below (centre + z) / limit.
    """

    def small_enough(z: float) -> float:
        return float(stats.chi2.cdf(df * min((centre + z) / limit, 1e9) ** 2, df))

    if limit <= 0 or small_enough(-FAR) == 1:
        return 1.0
    return float(integrate.quad(lambda z: stats.norm.pdf(z) * small_enough(z), -FAR, FAR)[0])


def sample_size(
    difference: float,
    sd: float,
    *,
    wanted: float = 0.8,
    alpha: float = 0.05,
    paired: bool = False,
    two_sided: bool = False,
) -> Power:
    """The smallest n whose power is at least ``wanted``. Other arguments and errors as of `power`."""
    if not 0 < wanted < 1:
        raise PowerError(f"the wanted power must be between 0 and 1, got {wanted}")

    def at(n: int) -> float:
        return power(difference, sd, n, alpha=alpha, paired=paired, two_sided=two_sided)

    low, high = 1, 2
    while at(high) < wanted:
        low, high = high, 2 * high
        if high > LARGEST_N:
            raise PowerError(
                f"a difference of {difference:g} with a standard deviation of {sd:g} would need more than "
                f"{LARGEST_N} runs"
            )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if at(middle) >= wanted else (middle, high)
    return Power(difference, sd, high, at(high), alpha, paired, two_sided)


def detectable_difference(
    sd: float,
    n: int,
    *,
    wanted: float = 0.8,
    alpha: float = 0.05,
    paired: bool = False,
    two_sided: bool = False,
) -> float:
    """The true difference that n runs (or pairs) see with the ``wanted`` power. Arguments as of `power`."""
    if not 0 < wanted < 1:
        raise PowerError(f"the wanted power must be between 0 and 1, got {wanted}")

    def lack(effect: float) -> float:
        return power(effect * sd, sd, n, alpha=alpha, paired=paired, two_sided=two_sided) - wanted

    if lack(1e-9) >= 0:
        return 0.0
    high = 1.0
    while lack(high) < 0:
        high *= 2
    return float(optimize.brentq(lack, 1e-9, high)) * sd
