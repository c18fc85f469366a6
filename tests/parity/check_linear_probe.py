"""CoOp's linear probe: every C it tried, its coefficients, and the accuracy of every search step."""

import numpy as np
import pytest
import sklearn
import torch

from fewshot.methods.linear_probe import SWEEP, logistic, search

FOLDERS = ("linear_probe",)


def check(golden):
    given = golden.meta["hyperparameters"]
    assert tuple(given["sweep"]) == SWEEP
    data = {
        part: (golden.given(f"{part}.features").double().numpy(), golden.given(f"{part}.labels").long().numpy())
        for part in ("train", "val", "test")
    }
    classes = int(data["train"][1].max()) + 1
    if sklearn.__version__ != given["scikit_learn"]:
        pytest.skip(f"the numbers are of scikit-learn {given['scikit_learn']}, here is {sklearn.__version__}")

    tried, final, by_step = [], [], []
    for shots in given["shots"]:
        for seed in range(1, given["num_run"] + 1):
            train, val = draw(data, seed, shots, given["val_shots"][str(shots)])
            fits: dict[float, object] = {}

            def fit(c, train=train, fits=fits):
                fits[c] = logistic(*train, C=c, classes=classes, max_iter=given["max_iter"])
                return fits[c]

            steps = search(fit, val, given["num_step"])
            tried.append([*SWEEP, *(c for step in steps for c in (step.left, step.right))])
            final.append(steps[-1].C)
            by_step.append([100 * step.fit.accuracy(*data["test"]) for step in steps])
            if (shots, seed) == (4, 1):
                golden.close("shot4_seed1.train_features", train[0])
                golden.equal("shot4_seed1.train_labels", train[1])
                golden.equal("shot4_seed1.n_iter", [fits[c].n_iter for c in tried[-1]])
                for key in golden.keys("shot4_seed1.C"):
                    which, what = key.split(".")[1:]
                    golden.close(key, torch.tensor(getattr(fits[SWEEP[int(which[1:])]], what)), atol=1e-6)
    golden.close("C.tried", torch.tensor(tried))
    golden.close("C.final", torch.tensor(final))
    golden.close("test_accuracy.by_step", torch.tensor(by_step).round(decimals=2))  # read off what the script prints
    last = np.array(by_step)[:, -1].reshape(len(given["shots"]), given["num_run"])
    golden.close(
        "test_accuracy.mean_std", torch.tensor(np.stack([last.mean(1), last.std(1)], axis=1)).round(decimals=2)
    )


def draw(data, seed, shots, val_shots):
    """The script's own sampling (not CoOp's few-shot sets)."""
    rng = np.random.RandomState(seed)
    chosen = []
    for part, k in (("train", shots), ("val", val_shots)):
        features, labels = data[part]
        rows = np.concatenate([rng.choice(np.flatnonzero(labels == c), k, replace=False) for c in np.unique(labels)])
        chosen.append((features[rows], labels[rows]))
    return chosen
