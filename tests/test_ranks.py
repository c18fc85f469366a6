"""Ranks and tests over data sets: against scipy, against printed values, and by hand."""

import itertools

import matplotlib
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fewshot.errors import FewshotError
from fewshot.studies import ranks

matplotlib.use("Agg")


def table(**columns) -> pd.DataFrame:
    return pd.DataFrame(columns, index=[f"d{i}" for i in range(len(next(iter(columns.values()))))])


def random(k: int, n: int, seed: int = 0) -> pd.DataFrame:
    values = np.random.default_rng(seed).normal(size=(n, k)) + np.arange(k) / 2
    return pd.DataFrame(values, columns=[f"m{i}" for i in range(k)])


# -- ranks and their distance ------------------------------------------------------------------------------------------


def test_best_is_first_and_equal_scores_share_their_ranks():
    found = ranks.ranking(table(a=[90.0, 80.0], b=[70.0, 80.0], c=[60.0, 50.0]))
    assert found.average.to_dict() == {"a": (1 + 1.5) / 2, "b": (2 + 1.5) / 2, "c": 3.0}
    assert list(found.average.index) == ["a", "b", "c"] and found.datasets == 2


def test_dust_behind_the_comma_is_a_tie():
    found = ranks.ranking(table(a=[0.1 + 0.2, 0.1 + 0.2], b=[0.3, 0.3]))
    assert found.average.to_dict() == {"a": 1.5, "b": 1.5} and np.isnan(found.p)


@pytest.mark.parametrize(("methods", "q"), [(4, 2.569), (5, 2.728)])
def test_critical_distance_has_the_printed_quantiles(methods, q):
    """Demšar 2006, table 5 (a): q at the 5 % level."""
    for n in (5, 11):
        root = (methods * (methods + 1) / (6 * n)) ** 0.5
        assert ranks.critical_distance(methods, n) / root == pytest.approx(q, abs=5e-4)


def test_more_data_sets_tell_finer_and_more_methods_coarser():
    assert ranks.critical_distance(5, 44) == pytest.approx(ranks.critical_distance(5, 11) / 2)
    assert ranks.critical_distance(6, 11) > ranks.critical_distance(5, 11) > ranks.critical_distance(5, 11, alpha=0.1)


def test_two_methods_are_the_sign_tests_normal_quantile():
    assert ranks.critical_distance(2, 6) == pytest.approx(stats.norm.ppf(0.975) * (2 * 3 / 36) ** 0.5, rel=1e-4)


def test_friedman_is_the_one_of_scipy():
    scores = random(5, 11)
    found = ranks.ranking(scores)
    expected = stats.friedmanchisquare(*scores.to_numpy().T)
    assert (found.statistic, found.p) == (expected.statistic, expected.pvalue)
    assert np.isnan(ranks.ranking(scores[["m0", "m1"]]).p)  # two methods: nothing to ask


def test_groups_are_the_longest_stretches_within_the_distance():
    average = pd.Series({"a": 1.0, "b": 1.8, "c": 2.5, "d": 4.0, "e": 9.0})
    found = ranks.Ranking(average, 11, 0.0, 0.0, distance=1.6, alpha=0.05)
    assert found.groups() == [(0, 2), (2, 3)]
    assert found.beside("a") == ["b", "c"] and found.beside("e") == []
    with pytest.raises(FewshotError, match="no rank"):
        found.beside("f")


def test_what_has_no_score_leaves_first():
    scores = table(a=[1.0, 2.0, 3.0], b=[np.nan] * 3, c=[1.0, np.nan, 2.0])
    whole = ranks.complete(scores)
    assert list(whole.columns) == ["a", "c"] and list(whole.index) == ["d0", "d2"]
    with pytest.raises(FewshotError, match="missing"):
        ranks.ranking(scores)
    with pytest.raises(FewshotError, match="two or more"):
        ranks.ranking(scores[["a"]])


# -- Wilcoxon and Holm -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_signed_rank_is_scipys_exact_one(seed):
    d = np.random.default_rng(seed).normal(0.5, 1, size=11)
    assert ranks.signed_rank(d) == pytest.approx(stats.wilcoxon(d, method="exact").pvalue)


def test_signed_rank_with_ties_counts_all_signs():
    d = np.array([0.1, 0.2, 0.2, -0.3, 0.3, 0.5, 0.0, -0.1])
    kept = d[d != 0]
    size = stats.rankdata(np.abs(kept))
    sums = np.array([np.sum(size[list(signs)]) for signs in itertools.product([False, True], repeat=len(kept))])
    low = min(size[kept > 0].sum(), size[kept < 0].sum())
    assert ranks.signed_rank(d) == pytest.approx(min(1, 2 * np.mean(sums <= low + 1e-9)))


def test_signed_rank_of_no_difference_and_of_a_clean_sweep():
    assert ranks.signed_rank([0.0, 0.0]) == 1.0
    assert ranks.signed_rank(np.arange(1.0, 12)) == ranks.smallest_p(11) == 2 / 2**11
    assert ranks.signed_rank([0.3 - 0.1, -0.2]) == 1.0  # equal but for dust


def test_holm_by_hand():
    assert ranks.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert list(ranks.holm([0.6, 0.9])) == [1.0, 1.0] and len(ranks.holm([])) == 0


def test_with_too_many_tests_no_pair_can_pass():
    n = 11
    limit = ranks.most_tests(n)
    clean = ranks.smallest_p(n)
    assert limit == 51
    assert ranks.holm([clean] + [1.0] * (limit - 1))[0] <= 0.05 < ranks.holm([clean] + [1.0] * limit)[0]


def test_pairs_against_all_and_against_one():
    scores = random(4, 9)
    every, one = ranks.pairs(scores), ranks.pairs(scores, "m3")
    assert len(every) == 6 and len(one) == 3 and set(one["one"]) == {"m3"}
    line = one[one["other"] == "m0"].iloc[0]
    d = scores["m3"] - scores["m0"]
    assert line["difference"] == pytest.approx(d.mean(), abs=1e-6)
    assert (line["won"], line["lost"], line["n"]) == ((d > 0).sum(), (d < 0).sum(), 9)
    assert list(one["p_holm"]) == list(ranks.holm(one["p"])) and one["p"].is_monotonic_increasing
    with pytest.raises(FewshotError, match="no scores"):
        ranks.pairs(scores, "m9")


# -- the diagram -------------------------------------------------------------------------------------------------------


def test_diagram_names_every_method_once_and_draws_a_bar_per_group():
    found = ranks.ranking(random(16, 11))
    labels = list(found.average.index)
    figure = ranks.diagram({"1 shot": found}, dict.fromkeys(labels, "coop"))
    axis = figure.axes[0]
    words = [text.get_text() for text in axis.texts]
    for label, rank in found.average.items():
        assert sum(word in (f"{label}  {rank:.1f}", f"{rank:.1f}  {label}") for word in words) == 1
    assert any(f"critical distance {found.distance:.2f}" in word for word in words)
    bars = [line for line in axis.lines if line.get_linewidth() > 2]
    assert len(bars) == len(found.groups())
    for bar, (first, last) in zip(bars, found.groups(), strict=True):
        left, right = bar.get_xdata()
        assert left < found.average.iloc[first] and right > found.average.iloc[last]


def test_bracket_is_as_long_as_the_distance_and_never_longer_than_the_axis():
    for found in (ranks.ranking(random(5, 30)), ranks.ranking(random(3, 2))):
        axis = ranks.diagram({"x": found}, {name: "coop" for name in found.average.index}).axes[0]
        (bracket,) = [line for line in axis.lines if len(line.get_xdata()) == 4]
        k = len(found.average)
        assert bracket.get_xdata()[3] - bracket.get_xdata()[0] == pytest.approx(min(found.distance, k - 1))
        assert any("longer than the axis" in t.get_text() for t in axis.texts) == (found.distance > k - 1)
