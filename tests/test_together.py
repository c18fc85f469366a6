"""Several small trainings made as one give the models that each gives alone."""

import pytest
import tiny
import torch

from fewshot.errors import FewshotError
from fewshot.methods import METHODS, get_method
from fewshot.together import fit_together
from fewshot.training import fit

CASES = {
    "taskres": dict(epochs=3, batch_size=6),
    "clip_adapter": dict(epochs=3, batch_size=6),
    "tip_adapter_f": dict(augment_epoch=2, search_step=(5, 5), epochs=3, batch_size=6),
}
SETTINGS = ({"lr": 0.01}, {"lr": 0.1, "weight_decay": 0.02})


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWSHOT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.parametrize("method", CASES)
def test_each_run_of_a_stack_ends_where_it_ends_alone(method):
    clip, tasks = tiny.clip(), [tiny.task(seed=seed) for seed in (1, 2, 3)]
    settings = [{**CASES[method], **own} for own in SETTINGS]
    state = torch.get_rng_state()
    found = fit_together(method, clip, tasks, settings, progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    for task, row in zip(tasks, found, strict=True):
        for setting, model in zip(settings, row, strict=True):
            alone = fit(method, clip, task, progress=False, **setting)
            assert model.config == alone.config and model.seed == alone.seed and not model.training
            assert model.history == pytest.approx(alone.history, rel=1e-4)
            assert model.chosen == alone.chosen
            for name, value in alone.state_dict().items():
                assert torch.allclose(model.state_dict()[name], value, atol=1e-5, rtol=1e-5), name
    weights = [next(model.parameters()) for row in found for model in row]
    assert all(not torch.equal(a, b) for i, a in enumerate(weights) for b in weights[:i])


def test_only_small_heads_on_features_go_together():
    heads = [method for method in METHODS if get_method(method).head]
    assert heads == [method for method in METHODS if method in CASES]
    for method in set(METHODS) - set(CASES):
        with pytest.raises(FewshotError, match="is no small head"):
            fit_together(method, tiny.clip(), [tiny.task()])


@pytest.mark.parametrize(
    ("tasks", "settings", "says"),
    [
        ([], [{}], "one task and one setting"),
        ([1], [], "one task and one setting"),
        ([1], [{}, {"alpha": 0.3}], "differ in lr and weight_decay alone, not in alpha"),
        ([1], [{}, {"epochs": 2}], "not in epochs"),
        ([1], [{"rate": 1}], "unknown setting of taskres"),
        ([1, (2, 2)], [{}], "the same classes and as many training pictures"),
        ([1], [{"lr": 1e30, "epochs": 8}], "is not finite by step"),
    ],
)
def test_what_does_not_go_together_is_refused_in_a_sentence(tasks, settings, says):
    tasks = [tiny.task(seed=t) if isinstance(t, int) else tiny.task(seed=t[0], shots=t[1]) for t in tasks]
    with pytest.raises(FewshotError, match=says) as caught:
        fit_together("taskres", tiny.clip(), tasks, settings, progress=False)
    assert "\n" not in str(caught.value)
