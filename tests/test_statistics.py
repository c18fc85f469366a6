"""The study of what can be told apart: its runs, intervals, noise, calibration, cost and sentences, on invented rows."""

import json

import matplotlib
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fewshot import intervals, studies
from fewshot.errors import FewshotError
from fewshot.published import published
from fewshot.report import TITLES
from fewshot.studies import calibration, costs, rank_report, ranks, seed_noise
from fewshot.studies import statistics as study

matplotlib.use("Agg")
PROFILE = studies.profile_of("toy")
LORA = TITLES["clip_lora"]


def rows(accuracies: dict, shots=4, seeds=(1, 2, 3), **more) -> pd.DataFrame:
    """A row per method, data set and seed: {"coop": {"toy/a": [60, 61, 62]}}."""
    lines = [
        {"method": method, "arm": TITLES[method], "dataset": dataset, "shots": 0 if method == "zero_shot" else shots}
        | {"seed": seed, "accuracy": float(value), "backbone": "toy", "pretrained": None, "profile": "toy"}
        | {"selection": "fixed", "seconds_fit": 1.0, "n_test": 100} | more
        for method, by_dataset in accuracies.items()
        for dataset, values in by_dataset.items()
        for seed, value in zip(seeds, values, strict=False)
    ]  # fmt: skip
    return pd.DataFrame(lines)


def invented(k: int = 4, n: int = 11, noise: float = 1.0, shots: int = 4, seed: int = 0) -> pd.DataFrame:
    """k methods on n data sets with 3 seeds; each method is 3 points better than the one before."""
    random = np.random.default_rng(seed)
    methods = ["coop", "clip_lora", "gda", "taskres", "maple", "cocoop"][:k]
    return rows(
        {
            m: {f"toy/{d}": 50 + 3 * i + 2 * d + random.normal(0, noise, 3) for d in range(n)}
            for i, m in enumerate(methods)
        },
        shots,
    )


# -- runs --------------------------------------------------------------------------------------------------------------


def test_runs_are_the_calibration_alone_and_the_table_has_its_own():
    arms = study.arms(PROFILE)
    runs = studies.runs_of(arms)
    assert len(arms) == 16 and len(runs) == 15 * 4 * 3 + 4
    assert {one.dataset for one in runs} == {"toy/dtd", "toy/eurosat", "toy/oxford_pets", "toy/fgvc_aircraft"}
    assert {one.shots for one in runs} == {0, 4}
    table = studies.runs_of(study.table_arms(PROFILE))
    assert len(table) == 15 * 11 * 5 * 3 + 11 and {one.key for one in runs} <= {one.key for one in table}
    some = study.arms(PROFILE, ["gda"], ["toy/dtd"], [1, 2], [7])
    assert {(one.method, one.shots, one.seed) for one in some["GDA"]} == {("gda", 1, 7), ("gda", 2, 7)}
    few = study.table_arms(PROFILE, ["gda"], ["toy/dtd"], [1], [1], limit=20)["GDA"]
    assert [one.limit for one in few] == [20] and few[0].experiment == "method_table"


def test_rows_without_confidence_never_stand_for_rows_with_it(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWSHOT_RESULTS", str(tmp_path))
    for name in ("method_table", "statistics", "training_time"):
        (tmp_path / f"{name}-toy.jsonl").touch()
    assert [path.name for path in studies.stored_files("statistics", PROFILE)] == ["statistics-toy.jsonl"]
    assert [path.name for path in studies.stored_files("method_table", PROFILE)] == ["method_table-toy.jsonl"]


# -- scores, ranks and tests -------------------------------------------------------------------------------------------


def test_scores_are_means_over_seeds_and_leave_out_what_has_a_gap():
    frame = rows({"coop": {"toy/a": [60, 61, 62], "toy/b": [1, 2, 3]}, "gda": {"toy/a": [70, 70, 70]}})
    frame = pd.concat([frame, rows({"zero_shot": {"toy/a": [50], "toy/b": [40]}})])
    table = rank_report.scores(frame, 4)
    assert table.to_dict() == {"CoOp": {"toy/a": 61.0}, "GDA": {"toy/a": 70.0}, "Zero-shot CLIP": {"toy/a": 50.0}}
    assert rank_report.scores(frame, 16).empty
    double = pd.concat([frame, frame.head(1).assign(accuracy=1.0)])
    with pytest.raises(FewshotError, match="mix settings"):
        rank_report.scores(double, 4)


def test_published_scores_are_the_papers_table():
    table = rank_report.published_scores(4)
    paper = published("clip_lora").query("shots == 4 and dataset == 'dtd'").set_index("variant")["top1"]
    assert table.shape == (11, 12) and "average" not in table.index
    assert table.loc["dtd", "CoOp, 4 context vectors"] == paper["coop_ctx4"]
    assert rank_report.published_scores(2).empty
    assert rank_report.methods_of(table.columns)["CoOp, 16 context vectors"] == "coop"
    assert set(rank_report.methods_of(table.columns).values()) <= set(TITLES)


def test_tests_table_counts_what_each_test_tells_apart():
    frame = invented(4, 11, noise=0.1)
    table = rank_report.tests_table(frame, [4, 8])
    line = table.loc["4 shots, here"]
    assert line["methods on data sets"] == "4 on 11" and line["Friedman p"] == "< 0.001"
    apart = sum(
        abs(a - b) > ranks.critical_distance(4, 11) for a, b in [(1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)]
    )
    assert line["Nemenyi"] == f"{apart} of 6" and 0 < apart < 6
    assert line["Wilcoxon, each alone"] == line["Wilcoxon, Holm"] == "6 of 6" and line["most tests for Holm"] == "51"
    best = rank_report.best_table(frame, [4, 8])
    assert list(best.loc["4 shots, here"]) == ["TaskRes (1.0)", "GDA (2.0)", "+3.0", "11 – 0", "< 0.001"]
    assert set(best.loc["8 shots, here"]) == {"not run"} and best.loc["4 shots, published", "difference"] != "–"
    assert set(table.loc["8 shots, here"]) == {"not run"} and set(table.loc["8 shots, published"]) == {"–"}
    assert table.loc["4 shots, published", "methods on data sets"] == "12 on 11"
    assert "toy world" in table.caption and "CLIP-LoRA paper" in table.caption


def test_one_against_the_others_is_corrected_for_its_own_tests_only():
    frame = invented(4, 11, noise=0.1)
    table = rank_report.against_table(frame, LORA, [4, 8])
    assert LORA not in table.index and list(table.columns) == ["4 shots", "p, 4 shots"]
    assert table.loc["CoOp", "4 shots"] == "+3.0 (11 – 0)" and table.loc["TaskRes", "4 shots"] == "−6.0 (0 – 11)"
    p = 2 / 2**11
    assert table.loc["GDA", "p, 4 shots"] == rank_report.p_value(3 * p) == "0.003"
    assert set(table.marks) == {(name, "p, 4 shots") for name in ("CoOp", "GDA", "TaskRes")}
    few = frame[frame["dataset"].isin([f"toy/{i}" for i in range(5)])]  # 2/2^5 is above the level
    assert not rank_report.against_table(few, LORA, [4]).marks
    assert rank_report.against_table(frame, "MaPLe", [4]).iloc[0, 0] == "not run"


def test_diagrams_of_rows_and_of_the_published_table():
    figure = rank_report.diagrams(invented(), [1, 4])
    assert len(figure.axes) == 1 and figure.get_suptitle() == "toy world"
    paper = rank_report.diagrams(None, [1, 2, 4, 16])
    assert len(paper.axes) == 3 and paper.get_suptitle().startswith("published")
    assert rank_report.diagrams(invented(), [8]) is None
    pairs = rank_report.pair_numbers(invented(), [4, 8])
    assert pairs.groupby(["numbers", "shots"]).size().to_dict() == {("here", 4): 6, ("published", 4): 66}
    numbers = rank_report.rank_numbers(invented(), [4])
    assert set(numbers["numbers"]) == {"here", "published"} and len(numbers) == 4 + 12
    assert numbers.query("numbers == 'here'")["average_rank"].sum() == pytest.approx(4 * 5 / 2)


# -- intervals ---------------------------------------------------------------------------------------------------------


def test_bootstrap_is_seeded_and_near_students_interval():
    values = np.random.default_rng(1).normal(3, 2, 40)
    mean, low, high = intervals.bootstrap_interval([values])
    assert (mean, low, high) == intervals.bootstrap_interval([values]) and mean == pytest.approx(values.mean())
    assert (low, high) != intervals.bootstrap_interval([values], seed=1)[1:]
    expected = intervals.t_interval(values)
    assert (low, high) == pytest.approx(expected[1:], abs=0.1 * (expected[2] - expected[1]))


def test_samples_are_drawn_each_by_itself_and_three_values_are_not_too_narrow():
    """Of 11 data sets with three seeds: levels do not count, and the width is that of the estimated variance."""
    random = np.random.default_rng(0)
    samples = [100 * i + random.normal(0, 1, 3) for i in range(11)]
    _, low, high = intervals.bootstrap_interval(samples)
    error = np.mean([np.var(s, ddof=1) / 3 for s in samples]) ** 0.5 / 11**0.5
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_bootstrap_of_single_or_equal_values():
    assert intervals.bootstrap_interval([[3.0], [5.0, 5.0]]) == (4.0, -np.inf, np.inf)
    assert intervals.bootstrap_interval([[2.0, 2.0]]) == (2.0, 2.0, 2.0)
    with pytest.raises(FewshotError, match="no value"):
        intervals.bootstrap_interval([[]])


def test_interval_over_data_sets_and_over_seeds_ask_different_questions():
    """One method is 10 better on half of the data sets and 8 worse on the others, whatever the seed."""
    sign = [10 if i % 2 else -8 for i in range(10)]
    frame = rows(
        {
            "gda": {f"toy/{i}": [60, 61, 62] for i in range(10)},
            "coop": {f"toy/{i}": [60 + s, 61 + s + 0.1, 62 + s] for i, s in enumerate(sign)},
        }
    )
    numbers = seed_noise.interval_numbers(frame, [4], "GDA")
    one = numbers.set_index("method").loc["CoOp"]
    assert one["difference"] == pytest.approx(1 + 0.1 / 3) and one["average"] == pytest.approx(62 + 0.1 / 3)
    assert one["low_datasets"] < 0 < one["high_datasets"] and 0.9 < one["low_seeds"] < one["high_seeds"] < 1.2
    table = seed_noise.interval_table(numbers, frame, 4, "GDA")
    assert table.marks == {("CoOp", "other pictures and seeds?"): "strong"} and list(table.index) == ["CoOp", "GDA"]
    assert table.loc["GDA", "other data sets?"] == "–"
    axis = seed_noise.interval_figure(numbers, frame, "GDA").axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["CoOp"] and axis.get_title() == "4 shots"


def test_intervals_of_what_was_not_run():
    frame = invented()
    assert seed_noise.interval_numbers(frame, [4], "MaPLe").empty
    assert (
        seed_noise.interval_table(seed_noise.interval_numbers(frame, [8], LORA), frame, 8, LORA).iloc[0, 0] == "not run"
    )
    assert seed_noise.interval_figure(seed_noise.interval_numbers(frame, [8], LORA), frame, LORA) is None


# -- noise -------------------------------------------------------------------------------------------------------------


def planted(method: float, seed: float, rest: float, sets: int = 400, k: int = 6, n: int = 3) -> list[pd.DataFrame]:
    random = np.random.default_rng(0)
    return [
        pd.DataFrame(
            50 + random.normal(0, method, (k, 1)) + random.normal(0, seed, (1, n)) + random.normal(0, rest, (k, n))
        )
        for _ in range(sets)
    ]


def test_components_are_the_planted_ones():
    found = intervals.noise(planted(5, 2, 1))
    assert (found.method, found.seed, found.rest) == pytest.approx((5, 2, 1), rel=0.08)
    assert found.spread == pytest.approx(5**0.5, rel=0.08)
    assert (found.seeds, found.freedom, found.freedom_spread) == (3, 400 * 5 * 2, 400 * 6 * 2)


def test_what_all_methods_share_does_not_blur_a_difference():
    found = intervals.noise(planted(5, 2, 1))
    assert found.least() == pytest.approx(stats.t.ppf(0.975, 4000) * found.rest * (2 / 3) ** 0.5)
    assert found.least(same_draws=False) > 2 * found.least()


def test_one_pair_of_methods_is_the_paired_t_test():
    table = pd.DataFrame([[60.0, 61.5, 64.0], [58.0, 60.0, 60.5]])
    d = table.loc[0] - table.loc[1]
    expected = stats.t.ppf(0.975, 2) * d.std(ddof=1) / 3**0.5
    assert intervals.noise([table]).least() == pytest.approx(expected)


def test_noise_refuses_what_cannot_be_pooled_and_needs_two_of_each():
    a, b = planted(1, 1, 1, sets=1, n=3) + planted(1, 1, 1, sets=1, n=2)
    with pytest.raises(FewshotError, match="more seeds"):
        intervals.noise([a, b])
    assert intervals.noise([a.iloc[:1], a.iloc[:, :1]]) is None
    gap = a.copy()
    gap.iloc[0, 0] = np.nan
    assert intervals.noise([gap]).freedom == 4 * 2


def test_noise_tables_say_what_cannot_be_told_apart():
    frame = pd.concat([invented(4, 5, noise=2.0, shots=1), invented(4, 5, noise=0.5, shots=16)])
    numbers = seed_noise.noise_numbers(frame, [1, 4, 16]).set_index("shots")
    assert list(numbers.index) == [1, 16]
    found = intervals.noise(list(seed_noise.tables(frame, 1).values()))
    assert numbers.loc[1, "least_same_draws"] == found.least() > 3 * numbers.loc[16, "least_same_draws"]
    closer = seed_noise.gaps(seed_noise.tables(frame, 1))["gap"] < found.least()
    assert len(closer) == 5 * 6 and numbers.loc[1, "share_closer"] == pytest.approx(100 * closer.mean())
    every = seed_noise.gap_numbers(frame, [1, 4, 16])
    means = frame[frame["shots"] == 16].groupby(["dataset", "arm"])["accuracy"].mean()
    one = every.set_index(["shots", "dataset", "one", "other"]).loc[(16, "toy/3", LORA, "CoOp"), "gap"]
    assert one == pytest.approx(abs(means["toy/3", LORA] - means["toy/3", "CoOp"])) and len(every) == 2 * 5 * 6
    table = seed_noise.noise_table(frame, [1, 16])
    assert table.loc["1 shot", "told apart above, same seeds"] == f"{found.least():.1f}"
    each = seed_noise.least_table(frame, [1, 16])
    assert each.loc["all, pooled", "1 shot"] == f"{found.least():.1f}" and list(each.index[1:]) == [
        f"toy/{i}" for i in range(5)
    ]
    alone = intervals.noise([seed_noise.tables(frame, 16)["toy/2"]]).least()
    assert each.loc["toy/2", "16 shots"] == f"{alone:.1f}"
    assert len(seed_noise.gap_figure(frame, [1, 4, 16]).axes) == 2


def test_a_data_set_with_a_seed_less_is_left_out_of_the_noise():
    frame = invented(3, 3)
    part = frame[~((frame["dataset"] == "toy/0") & (frame["seed"] == 3))]
    assert set(seed_noise.tables(part, 4)) == {"toy/1", "toy/2"}
    missing = frame[~((frame["dataset"] == "toy/0") & (frame["seed"] == 3) & (frame["method"] == "gda"))]
    assert list(seed_noise.tables(missing, 4)["toy/0"].index) == [LORA, "CoOp"]
    one_seed = frame[frame["seed"] == 1]
    assert (
        seed_noise.noise_table(one_seed, [4]).iloc[0, 0]
        == seed_noise.least_table(one_seed, [4]).iloc[0, 0]
        == "not run"
    )
    assert seed_noise.gap_figure(one_seed, [4]) is None


# -- calibration -------------------------------------------------------------------------------------------------------

GOOD = [[0, 0.0, 0], [50, 30.0, 30], [50, 45.0, 45]]  # says 60 and 90 percent, and is
BAD = [[0, 0.0, 0], [50, 30.0, 20], [50, 45.0, 50]]  # 40 where it says 60, 100 where it says 90


def test_calibration_error_by_hand():
    assert calibration.calibration_error(GOOD) == 0 and calibration.overconfidence(GOOD) == 0
    assert calibration.calibration_error(BAD) == pytest.approx(0.5 * 20 + 0.5 * 10)
    assert calibration.overconfidence(BAD) == pytest.approx(5)


def test_calibration_error_is_that_of_the_evaluation():
    """From logits through evaluation's bins to the error, against a sum over the pictures' own bins."""
    from fewshot.evaluation import BINS, _reliability

    random = np.random.default_rng(0)
    confidence, right = random.uniform(0.05, 0.9999, 2000), random.random(2000) < 0.6
    place = np.floor(confidence * BINS)
    parts = [(place == b, (place == b).mean()) for b in range(BINS) if (place == b).any()]
    expected = 100 * sum(w * abs(right[m].mean() - confidence[m].mean()) for m, w in parts)
    assert calibration.calibration_error(_reliability(confidence, right)) == pytest.approx(expected)


def test_a_true_confidence_has_an_error_by_chance():
    random = np.random.default_rng(0)
    sizes, confidence = np.array([40, 0, 100, 300]), np.array([0.3, 0.5, 0.7, 0.95])
    bins = [np.stack([sizes, sizes * confidence, random.binomial(sizes, confidence)], axis=1) for _ in range(3000)]
    simulated = np.mean([calibration.calibration_error(one) for one in bins])
    assert calibration.chance_error(bins[0]) == pytest.approx(simulated, rel=0.03)


def confident(**bins) -> pd.DataFrame:
    """Rows whose reliability is given per method, the same for all data sets and seeds; a list gives one per seed."""
    parts = []
    for method, given in bins.items():
        part = rows({method: {"toy/a": [60, 60, 60], "toy/b": [70, 70, 70]}}, nll=1.25)
        each = given if isinstance(given[0][0], list) else [given] * 3
        parts.append(part.assign(reliability=[each[seed - 1] for seed in part["seed"]]))
    return pd.concat(parts, ignore_index=True)


def test_calibration_table_averages_over_data_sets_and_deviates_over_seeds():
    frame = confident(coop=[GOOD, GOOD, BAD], gda=BAD)
    table = calibration.calibration_table(frame, ["coop", "gda", "maple"], ["toy/a", "toy/b"])
    std = np.std([0, 0, 15])
    assert table.loc["CoOp", "ECE"] == f"5.0 ± {std:.1f} (3)" and table.loc["GDA", "ECE"] == "15.0 ± 0.0 (3)"
    assert (
        table.loc["GDA", "confidence − accuracy"] == "+5.0 ± 0.0 (3)" and table.loc["GDA", "NLL"] == "1.25 ± 0.00 (3)"
    )
    assert set(table.loc["MaPLe"]) == {"not run"}
    assert table.marks["CoOp", "ECE"] == "strong" and table.marks["GDA", "ECE"] == "u"
    assert "toy world" in table.caption and "4 shots" in table.caption


def test_a_method_that_lacks_a_data_set_has_no_mark():
    frame = confident(coop=GOOD, gda=BAD)
    frame = frame[~((frame["method"] == "coop") & (frame["dataset"] == "toy/b"))]
    table = calibration.calibration_table(frame, ["coop", "gda"], ["toy/a", "toy/b"])
    assert table.loc["CoOp", "ECE"] == "0.0 ± 0.0 (3), 1 of 2 sets" and ("CoOp", "ECE") not in table.marks


def test_rows_from_before_confidence_was_kept_are_no_rows():
    old = invented(2, 2)
    assert calibration.with_confidence(old).empty and calibration.reliability_figure(old) is None
    mixed = pd.concat([old, confident(gda=BAD)])
    assert len(calibration.with_confidence(mixed)) == 6
    table = calibration.calibration_table(old, ["coop"], ["toy/0"])
    assert set(table.loc["CoOp"]) == {"not run"}


def test_curve_adds_bins_and_leaves_out_small_ones():
    frame = confident(coop=[GOOD, GOOD, BAD])
    frame = frame[frame["dataset"] == "toy/a"]
    found = calibration.curve(frame, fewest=150)
    assert list(found["confidence"]) == pytest.approx([60, 90]) and list(found["pictures"]) == [150, 150]
    assert list(found["accuracy"]) == pytest.approx([100 * 80 / 150, 100 * 140 / 150])
    assert found["std"][0] == pytest.approx(np.std([60, 60, 40])) and list(found["share"]) == [50, 50]
    assert calibration.curve(frame, fewest=151).empty


def test_reliability_figure_has_few_methods_a_panel_and_zero_shot_in_all():
    bins = dict.fromkeys(["zero_shot", "coop", "gda", "linear_probe", "maple", "clip_lora"], GOOD)
    figure = calibration.reliability_figure(confident(**bins))
    names = [[text.get_text() for text in axis.get_legend().get_texts()] for axis in figure.axes if axis.get_visible()]
    assert all(found[0] == "Zero-shot CLIP" for found in names)
    assert sorted(name for found in names for name in found[1:]) == sorted(TITLES[m] for m in bins if m != "zero_shot")
    assert max(map(len, names)) <= 5


# -- cost --------------------------------------------------------------------------------------------------------------


def test_front_is_what_nobody_beats_in_both():
    cost, gain = pd.Series([1, 2, 2, 3, 4, 5.0]), pd.Series([50, 60, 55, 60, 70, 69.0])
    assert costs.front(cost, gain) == [True, True, False, False, True, False]
    assert costs.front(pd.Series([1, 1.0]), pd.Series([5, 5.0])) == [True, True]


def priced(seconds: dict, **more) -> pd.DataFrame:
    parts = [
        rows({m: {"toy/a": [60 + i] * 3, "toy/b": [70 + i] * 3}}, seconds_fit=s, **more)
        for i, (m, s) in enumerate(seconds.items())
    ]
    return pd.concat(parts, ignore_index=True)


def test_cost_is_averaged_and_says_how_it_was_measured():
    frame = priced({"coop": 10.0, "gda": 1.0, "clip_lora": 5.0})
    found = costs.costs(frame, 4).set_index("method")
    assert list(found.index) == ["gda", "clip_lora", "coop"] and found.loc["coop", "seconds"] == 10
    assert found.loc["gda", "accuracy"] == 66 and list(found["front"]) == [True, True, False]
    assert set(found["measured"]) == {costs.BESIDE}
    table = costs.cost_table(found.reset_index(), frame, 4)
    assert table.loc["CoOp", "on the front"] == "no" and costs.BESIDE in table.caption
    figure = costs.cost_figure(found.reset_index(), frame, 4)
    assert figure.axes[0].get_xscale() == "log" and costs.BESIDE in figure.axes[0].get_xlabel()
    assert {"GDA", "CoOp", LORA} <= {text.get_text() for text in figure.axes[0].texts}


def test_seconds_measured_one_by_one_are_taken_where_every_method_has_them():
    frame = priced({"coop": 10.0, "gda": 1.0})
    alone = rows({"coop": {"toy/c": [1, 1, 1]}, "gda": {"toy/c": [1, 1, 1]}})
    alone["seconds_fit"] = alone["method"].map({"coop": 0.5, "gda": 3.0})
    found = costs.costs(frame, 4, alone).set_index("method")
    assert found["seconds"].to_dict() == {"coop": 0.5, "gda": 3.0} and found.loc["gda", "accuracy"] == 66
    assert set(found["measured"]) == {f"{costs.ALONE} on toy/c"} and set(found["seconds_datasets"]) == {1}
    partial = costs.costs(frame, 4, alone[alone["method"] == "gda"])
    assert set(partial["measured"]) == {costs.BESIDE}


def test_times_of_other_settings_are_left_aside(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWSHOT_RESULTS", str(tmp_path))
    assert costs.timed_alone(PROFILE) is None
    base = {"experiment": "training_time", "method": "coop", "dataset": "toy/a", "shots": 16, "accuracy": 1.0}
    base |= {
        "backbone": "toy",
        "pretrained": None,
        "profile": "toy",
        "overrides": PROFILE.methods["coop"],
        "stamp": "s",
    }
    lines = [base | {"key": "a", "seed": 1}, base | {"key": "b", "seed": 2, "overrides": {"n_ctx": 4}},
             base | {"key": "c", "seed": 3, "limit": 20}]  # fmt: skip
    (tmp_path / "training_time-toy.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert list(costs.timed_alone(PROFILE)["seed"]) == [1]


def test_cost_of_nothing_is_nothing():
    empty = costs.costs(priced({"coop": 1.0}), 16)
    assert empty.empty and costs.cost_figure(empty, priced({"coop": 1.0}), 16) is None


# -- sentences ---------------------------------------------------------------------------------------------------------


def test_statement_says_what_the_rows_say_and_changes_with_them():
    frame = invented(4, 11, noise=0.1)
    said = study.statement(frame, confident(coop=GOOD, gda=BAD), [4, 8], LORA, 4)
    assert "4 shots: TaskRes has the best average rank, 1.0 of 4" in said and "8 shots" not in said
    assert f"{LORA} differs from 3 of 3 others after Holm's correction (better than 1, worse than 2)" in said
    assert "The best two ranks, TaskRes minus GDA: +3.0 points, Wilcoxon p < 0.001." in said
    assert "no pair can pass" not in said  # 6 pairs on 11 data sets
    assert "the error is least for CoOp (0.0 points) and largest for GDA (15.0)" in said
    assert "1 of 2 methods are more confident than right" in said
    assert f"of 3 differences to {LORA}, the interval over other seeds leaves out 0 for 3" in said
    worse = frame.assign(accuracy=frame["accuracy"].where(frame["method"] != "taskres", 10.0))
    assert "GDA has the best average rank" in study.statement(worse, frame, [4], LORA, 4)


def test_statement_of_nothing():
    nothing = invented(2, 2).iloc[:0]
    assert study.statement(nothing, nothing, [4], LORA, 4) == "Nothing was run that could be compared."


def test_statement_of_a_single_data_set_does_not_rank():
    said = study.statement(invented(3, 1), invented(3, 1), [4], LORA, 4)
    assert "average rank" not in said and "cannot be told apart" in said


def test_published_statement_counts_the_pairs():
    said = study.published_statement([1, 4, 16])
    assert (
        len(said.splitlines()) == 4 and said.count("With 11 data sets and 66 pairs of methods, no pair can pass") == 1
    )
    best = rank_report.rankings(None, [1])[1].average.index[0]
    assert said.startswith(f"Published, 1 shot: {best} has the best average rank")
    assert study.published_statement([2]) == "Nothing is published at these shots."
