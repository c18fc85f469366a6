"""Comparisons of arms: numbers in, an effect with its interval and a verdict out.

A comparison holds when the whole interval of its effect lies on the claim's side of the threshold, does not hold when the
whole interval lies on the other side, and is undecided in between. The interval is over data sets: would it be so on
another one like these? `compare` looks a second time with the data sets as given and the interval over seeds: is it so on
these, whichever pictures are drawn? Numbers are a DataFrame with the columns arm, dataset,
half, shots, seed, accuracy and seconds_fit; one that is missing (nan) was asked for and not measured. Arms are paired
over data sets and seeds (see `fewshot.intervals`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from fewshot.intervals import Effect, effect, paired
from fewshot.report import _signed

Over = Callable[[pd.DataFrame], Effect]  # of a table data set x seed
HOLDS, FAILS, UNDECIDED, NOT_RUN = VERDICTS = ("holds", "does not hold", "undecided", "not run")
# By what numbers are found. `dataset` is the one that was tested on, `half` base, new or all, whichever run was asked for.
FIELDS = ("arm", "dataset", "half", "shots")


@dataclass(frozen=True)
class Finding:
    """What numbers say: the effect against its threshold, in points or, of a ratio, as a logarithm."""

    effect: Effect
    threshold: float = 0.0
    side: str = "above"  # where the claim lies
    scale: str = "points"
    rows: int = 0  # that are there
    asked: int = 0
    note: str = ""
    decided: str = ""  # a verdict of its own, where it is not one of a single interval
    these: Finding | None = None  # the second look: on these data sets, over seeds

    @property
    def verdict(self) -> str:
        if self.rows < self.asked or not self.effect.n:
            return NOT_RUN
        if self.decided:
            return self.decided
        where = self.effect.against(self.threshold)
        return UNDECIDED if where == "undecided" else HOLDS if where == self.side else FAILS

    @property
    def on_these(self) -> Finding:
        """The second look, or this one where there is only one."""
        return self.these or self

    @property
    def number(self) -> str:
        """The effect and its interval: "+1.8 [+0.3, +3.3]"; a single value has no interval."""
        if not self.effect.n:
            return NOT_RUN
        one, e = self._number, self.effect
        return one(e.mean) + (f" [{one(e.low)}, {one(e.high)}]" if e.n > 1 else "")

    @property
    def over(self) -> str:
        """What the interval is over: "11 data sets"; empty for a single value."""
        return f"{self.effect.n} {self.effect.unit}" if self.effect.n > 1 else ""

    @property
    def text(self) -> str:
        """The effect with its interval, and how much of it is there: "+1.8 [+0.3, +3.3] over 11 data sets; the note"."""
        if not self.effect.n:
            return NOT_RUN
        text = f"{self.number} over {self.over}" if self.over else self.number
        if self.rows < self.asked:
            text += f" ({self.rows} of {self.asked} rows: no verdict)"
        return f"{text}; {self.note}" if self.note else text

    def _number(self, value: float) -> str:
        if self.scale == "points":
            return _signed(value)
        value = math.exp(value)
        return f"{value:.2f}×" if value < 9.95 else f"{value:.0f}×"


def compare(frame: pd.DataFrame, test: Mapping[str, object]) -> Finding:
    """What numbers say about a comparison, {"kind": one of KINDS, and its arguments}, over data sets and over seeds."""
    arguments = {name: value for name, value in test.items() if name != "kind"}
    kind = KINDS[test["kind"]]
    found = kind(frame, **arguments)
    if not found.effect.n:
        return found
    these = kind(frame, **arguments, over=over_seeds)
    several = found.effect.unit != "seeds" and these.effect.n > 1
    return replace(found, these=these) if several else found


def over_seeds(table: pd.DataFrame) -> Effect:
    """The mean of a table data set x seed over the data sets, with its interval over the seeds that have them all."""
    whole = table.dropna(axis="columns")
    return effect(whole.mean(axis=0).to_frame("all").T if len(table) else table, "seeds")


def difference(frame: pd.DataFrame, of: dict, minus: dict, over: Over = effect, **rule) -> Finding:
    """One arm minus another, in points."""
    parts = _take(frame, of), _take(frame, minus)
    return _found(over(_table(*parts)), parts, rule)


def ratio(frame: pd.DataFrame, of: dict, to: dict, value: str = "seconds_fit", over: Over = effect, **rule) -> Finding:
    """The cost of one arm over that of another: a geometric mean, its interval that of the logarithms."""
    parts = [_take(frame, where, value) for where in (of, to)]
    logs = [part.assign(value=np.log(part["value"].astype(float))) for part in parts]
    rule = {side: math.log(rule[side]) for side in ("above", "below") if side in rule}
    return _found(over(_table(*logs)), parts, rule, scale="times")


def best(frame: pd.DataFrame, of: dict, among: Sequence[str], over: Over = effect, **rule) -> Finding:
    """One arm minus the best of the others: the one with the highest mean among those surely above it, or else of all."""
    mine = _take(frame, of)
    others = {arm: _take(frame, {**of, "arm": arm}) for arm in among if arm != of["arm"]}
    effects = {arm: over(_table(mine, part)) for arm, part in others.items()}
    effects = {arm: one for arm, one in effects.items() if one.n}
    if not effects:
        return _found(over(_table(mine, mine[:0])), [mine, *others.values()], rule)
    ahead = [arm for arm in effects if effects[arm].against(0) == "below"]
    rival = min(ahead or effects, key=lambda arm: effects[arm].mean)
    return _found(effects[rival], [mine, *others.values()], rule, note=f"the best other is {rival}")


def spread(frame: pd.DataFrame, of: Sequence[dict], within: float, over: Over = effect) -> Finding:
    """Whether arms are the same: every pair's interval within ± `within` points; shown is the pair furthest apart."""
    parts = [_take(frame, where) for where in of]
    names = [where["arm"] for where in of]
    pairs = {(a, b): over(_table(parts[a], parts[b])) for a in range(len(of)) for b in range(a)}
    if not all(one.n for one in pairs.values()):
        return _found(Effect(float("nan"), float("-inf"), float("inf"), 0, "data sets"), parts, {})
    a, b = max(pairs, key=lambda pair: abs(pairs[pair].mean))
    outside = [one for one in pairs.values() if one.low > within or one.high < -within]
    inside = all(-within <= one.low and one.high <= within for one in pairs.values())
    decided = FAILS if outside else HOLDS if inside else UNDECIDED
    gap = pairs[a, b]
    if gap.mean < 0:
        a, b, gap = b, a, Effect(-gap.mean, -gap.high, -gap.low, gap.n, gap.unit)
    note = f"{names[a]} minus {names[b]}" + (", the pair furthest apart" if len(of) > 2 else "")
    return _found(gap, parts, {"below": within}, note=note, decided=decided)


def trend(frame: pd.DataFrame, of: dict, minus: dict, first: dict, then: dict, over: Over = effect, **rule) -> Finding:
    """How much larger an effect is at first (say at 1 shot) than then (at 16), in points."""
    parts = [_take(frame, {**where, **when}) for when in (first, then) for where in (of, minus)]
    tables = [_table(left, right) for left, right in (parts[:2], parts[2:])]
    return _found(over((tables[0] - tables[1]).dropna(how="all").dropna(axis="columns", how="all")), parts, rule)


def fraction(frame: pd.DataFrame, of: dict, low: dict, high: dict, above: float = 0.5, over: Over = effect) -> Finding:
    """Whether an arm wins back more than a share of what `low` loses to `high`: (of - low) - share x (high - low), in points.

    Where `low` loses nothing for sure, nothing can be won back, and the claim is undecided.
    """
    parts = [_take(frame, where) for where in (of, low, high)]
    won, lost = _table(parts[0], parts[1]), _table(parts[2], parts[1])
    more, loss = over((won - above * lost).dropna(how="all")), over(lost)
    nothing = loss.n > 1 and loss.against(0) != "above"
    if nothing:
        interval = f"{_signed(loss.mean)} [{_signed(loss.low)}, {_signed(loss.high)}]"
        note = f"the loss itself is {interval}: nothing to win back"
    else:
        share = won.mean(axis=1).mean() / loss.mean
        note = f"{share:.0%} of {loss.mean:.1f} points lost are won back".replace("-", "−")
    return _found(more, parts, {"above": 0}, note=note, decided=UNDECIDED if nothing else "")


def every(frame: pd.DataFrame, of: dict, minus: dict, over: Over = effect, **rule) -> Finding:
    """Whether an effect is there on every data set: shown is the data set that speaks most against it, over its seeds."""
    parts = _take(frame, of), _take(frame, minus)
    table = _table(*parts)
    side, threshold = _rule(rule)
    sign = 1 if side == "above" else -1
    effects = {name: effect(table.loc[[name]]) for name in table.index}
    if not effects:
        return _found(effect(table), parts, rule)
    surely = {name: one for name, one in effects.items() if one.against(threshold) not in (side, "undecided")}
    worst = min(surely or effects, key=lambda name: sign * effects[name].mean)
    there = sum(sign * (one.mean - threshold) > 0 for one in effects.values())
    clear = all(one.against(threshold) == side for one in effects.values())
    decided = FAILS if surely else HOLDS if clear else UNDECIDED
    note = f"on {worst}, the least; {there} of {len(effects)} data sets on the claim's side"
    return _found(effects[worst], parts, rule, note=note, decided=decided)


def groups(frame: pd.DataFrame, of: dict, minus: dict, inside: Sequence[str], over: Over = effect, **rule) -> Finding:
    """The mean effect on some data sets minus that on the others (Welch's interval over data sets), in points."""
    from scipy.stats import ttest_ind

    parts = _take(frame, of), _take(frame, minus)
    table = _table(*parts)
    within = table.index.isin(inside)
    one, other = (table[mask].mean(axis=1) for mask in (within, ~within))
    if min(len(one), len(other)) < 2:
        return _found(effect(table[:0]), parts, rule)
    if over is effect:
        interval = ttest_ind(one, other, equal_var=False).confidence_interval()
        gap = Effect(one.mean() - other.mean(), float(interval.low), float(interval.high), len(table), "data sets")
    else:
        gap = over((table[within].mean() - table[~within].mean()).to_frame("gap").T)
    return _found(gap, parts, rule, note=f"{one.mean():.1f} on {len(one)}, {other.mean():.1f} on {len(other)}")


KINDS: dict[str, Callable[..., Finding]] = {
    one.__name__: one for one in (difference, ratio, best, spread, trend, fraction, every, groups)
}
ARGUMENTS = {  # needed, and allowed beside them
    "difference": ({"of", "minus"}, {"above", "below"}),
    "ratio": ({"of", "to"}, {"above", "below", "value"}),
    "best": ({"of", "among"}, {"above", "below"}),
    "spread": ({"of", "within"}, set()),
    "trend": ({"of", "minus", "first", "then"}, {"above", "below"}),
    "fraction": ({"of", "low", "high"}, {"above"}),
    "every": ({"of", "minus"}, {"above", "below"}),
    "groups": ({"of", "minus", "inside"}, {"above", "below"}),
}
SELECTORS = ("of", "minus", "to", "low", "high", "first", "then")


def _rule(rule: Mapping[str, float]) -> tuple[str, float]:
    return ("below", rule["below"]) if "below" in rule else ("above", rule.get("above", 0.0))


def _found(one: Effect, parts: Iterable[pd.DataFrame], rule: Mapping[str, float], **more) -> Finding:
    side, threshold = _rule(rule)
    parts = list(parts)
    asked = sum(map(len, parts)) or 1  # an arm that does not exist cannot have been run
    there = sum(int(part["value"].notna().sum()) for part in parts)
    if any(part.empty for part in parts):
        there = min(there, asked - 1)
    return Finding(one, threshold, side, rows=there, asked=asked, **more)


def _take(frame: pd.DataFrame, where: Mapping[str, object], value: str = "accuracy") -> pd.DataFrame:
    """The numbers that a selector names; what sees no pictures (0 shots) stands at every number of shots.

    Where the selector has a list of shots, their mean.
    """
    mask = pd.Series(True, index=frame.index)
    for name, wanted in where.items():
        wanted = list(wanted) if isinstance(wanted, list | tuple) else [wanted]
        mask &= frame[name].isin([0, *wanted] if name == "shots" else wanted)
    part = frame[mask].assign(value=frame.loc[mask, value] if value in frame else float("nan"))
    if isinstance(where.get("shots"), list | tuple) and len(part):
        found = part.groupby(["dataset", "seed"], sort=False)
        part = found.agg({"value": lambda a: a.mean(skipna=False), "shots": "first"}).reset_index()
    return part


def _table(left: pd.DataFrame, right: pd.DataFrame) -> pd.DataFrame:
    left, right = (part[part["value"].notna()] for part in (left, right))
    return paired(left, right, "value") if len(left) and len(right) else pd.DataFrame()
