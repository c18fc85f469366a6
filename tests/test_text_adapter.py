"""The LLM-text adapter: its losses, its Q-Former, what may train the converter, heads in a stack."""

import json

import pytest
import tiny
import torch
import torch.nn.functional as F

from fewshot import texts
from fewshot.clip import unit
from fewshot.converters import closed_form, conversion_loss, pooled
from fewshot.converters import optimizer as stage1_optimizer
from fewshot.converters import schedule as stage1_schedule
from fewshot.errors import FewshotError
from fewshot.heads import Pool, train_heads
from fewshot.methods.method import load_method, make_config
from fewshot.methods.text_adapter import PAPER, TextAdapter, farthest
from fewshot.pair_losses import LOSSES, pair_loss
from fewshot.pairs import LISTS, PAIRS, Bank, make_pairs
from fewshot.qformer import QFormer, start_from_bert
from fewshot.training import fit

QUICK = tiny.QUICK["text_adapter"]


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWSHOT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def features(n=6, d=8, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=rng).double(), torch.randn(n, d, generator=rng).double()


def fitted(**config):
    return fit("text_adapter", tiny.clip(), tiny.task(), progress=False, **{**QUICK, **config})


# -- losses ------------------------------------------------------------------------------------------------------------


def cosine_embedding(i, made, diagonal, others, margin=0.0):
    """torch's loss over all N^2 pairs."""
    n = len(i)
    target = torch.full((n, n), others).fill_diagonal_(diagonal)
    left, right = i.repeat_interleave(n, dim=0), made.repeat(n, 1)
    return torch.nn.CosineEmbeddingLoss(margin=margin)(left, right, target.flatten())


def test_swapped_is_the_usual_cosine_embedding_loss():
    i, made = features()
    assert pair_loss(i, made).item() == pytest.approx(cosine_embedding(i, made, 1, -1).item(), abs=1e-12)
    with_margin = cosine_embedding(i, made, 1, -1, margin=0.2).item()
    assert pair_loss(i, made, margin=0.2).item() == pytest.approx(with_margin, abs=1e-12)


def test_printed_is_that_loss_with_negated_targets():
    i, made = features()
    expected = cosine_embedding(i, made, -1, 1).item()
    assert pair_loss(i, made, loss="printed").item() == pytest.approx(expected, abs=1e-12)


def test_the_printed_loss_leads_away_from_the_own_picture_and_the_swapped_one_to_it():
    i, made = features()
    for loss, towards in (("swapped", True), ("printed", False)):
        moved = made.clone().requires_grad_()
        pair_loss(i[:1], moved[:1], loss=loss).backward()
        after = moved.detach()[:1] - 0.1 * moved.grad[:1]
        gain = F.cosine_similarity(i[:1], after) - F.cosine_similarity(i[:1], made[:1])
        assert bool(gain > 0) if towards else bool(gain <= 0)


def test_ignored_pairs_of_one_class_have_no_gradient_and_do_not_count():
    i, made = features(4)
    labels = torch.tensor([0, 1, 0, 2])
    cos = unit(i) @ unit(made).t()
    kept = torch.ones(4, 4, dtype=torch.bool)
    kept[0, 2] = kept[2, 0] = False
    pair = torch.where(torch.eye(4, dtype=torch.bool), 1 - cos, cos.clamp(min=0))
    assert pair_loss(i, made, labels, same_class="ignore").item() == pytest.approx(pair[kept].sum().item() / 14)
    assert pair_loss(i, made, labels, same_class="negative").item() == pytest.approx(pair.mean().item())
    pair[0, 2], pair[2, 0] = 1 - cos[0, 2], 1 - cos[2, 0]
    assert pair_loss(i, made, labels, same_class="positive").item() == pytest.approx(pair.mean().item())


def test_every_loss_is_scale_free_finite_for_one_pair_and_what_its_name_says():
    i, made = features()
    cos = F.cosine_similarity(i, made)
    for loss in LOSSES:
        for same in ("negative", "ignore", "positive"):
            labels = torch.tensor([0, 0, 1, 1, 2, 3])
            value = pair_loss(i, made, labels, loss=loss, same_class=same)
            assert torch.isclose(pair_loss(3 * i, 0.1 * made, labels, loss=loss, same_class=same), value)
        assert torch.isfinite(pair_loss(i[:1], made[:1], loss=loss))
    assert pair_loss(i, made, loss="mse").item() == pytest.approx((unit(i) - unit(made)).square().mean().item())
    assert pair_loss(i, made, loss="positive_only").item() == pytest.approx((1 - cos).mean().item())
    scores, own = unit(i) @ unit(made).t() / 0.07, torch.arange(6)
    both = (F.cross_entropy(scores, own) + F.cross_entropy(scores.t(), own)) / 2
    assert pair_loss(i, made, loss="infonce").item() == pytest.approx(both.item())


# -- the Q-Former --------------------------------------------------------------------------------------------------------


def small(**sizes):
    rng = torch.Generator().manual_seed(0)
    sizes = {"hidden": 16, "layers": 3, "heads": 2, "ffn": 8, "queries": 3, "dropout": 0.0, **sizes}
    return QFormer(12, 8, rng=rng, **sizes)


@pytest.mark.parametrize(("layers", "expected"), [(1, [0]), (2, [0]), (3, [0, 2]), (4, [0, 2])])
def test_cross_attention_is_in_layers_0_2_and_so_on(layers, expected):
    assert [i for i, layer in enumerate(small(layers=layers).layers) if "cross" in layer] == expected


def test_the_norm_comes_after_each_sum():
    model = small()
    x = model.states(torch.randn(2, 5, 12))
    assert x.mean(dim=-1).abs().max() < 1e-5 and (x.var(dim=-1, unbiased=False) - 1).abs().max() < 1e-3
    feed = model.layers[-1]["ffn"]
    y = torch.randn(2, 3, 16)
    assert torch.allclose(feed(y), feed.ln(feed.fc2(F.gelu(feed.fc1(y))) + y))
    assert feed.ln.eps == 1e-12 and model.ln_kv.eps == 1e-5


def test_one_key_gives_cross_attention_nothing_to_choose_and_exactly_no_gradient():
    model, target = small(), torch.randn(4, 8)
    labels = torch.arange(4)
    for length, zero in ((1, True), (3, False)):
        model.zero_grad()
        conversion_loss(model(torch.randn(4, length, 12)), target, labels, "mean", loss="swapped").backward()
        for layer in model.layers:
            if "cross" in layer:
                assert bool(layer["cross"].q.weight.grad.any()) != zero and bool(layer["cross"].k.weight.grad.any()) != zero
                assert layer["cross"].v.weight.grad.any()


def test_masked_keys_change_nothing():
    model, kv = small(), torch.randn(2, 5, 12)
    mask = torch.tensor([[True] * 3 + [False] * 2] * 2)
    assert torch.allclose(model(kv, mask), model(kv[:, :3]), atol=1e-6)


def test_the_sizes_of_the_default_and_of_blip_2():
    with torch.device("meta"):
        count = [
            sum(p.numel() for p in QFormer(512, 512, **sizes).parameters())
            for sizes in ({}, dict(hidden=768, layers=12, heads=12, ffn=3072, queries=32))
        ]
    assert [round(n / 1e6, 2) for n in count] == [4.08, 97.3]


def test_how_the_queries_are_pooled():
    out, images = torch.randn(4, 3, 8), torch.randn(4, 8)
    assert torch.equal(pooled(out, "mean"), out.mean(dim=1)) and torch.equal(pooled(out, "first"), out[:, 0])
    assert torch.equal(pooled(out, "each"), out) and torch.equal(pooled(out, "max_cos"), out.mean(dim=1))
    best = F.cosine_similarity(out, images[:, None], dim=-1).argmax(dim=1)
    chosen = pair_loss(images, out[range(4), best])
    assert torch.isclose(conversion_loss(out, images, torch.arange(4), "max_cos"), chosen)
    each = torch.stack([pair_loss(images, out[:, q]) for q in range(3)]).mean()
    assert torch.isclose(conversion_loss(out, images, torch.arange(4), "each"), each)


def test_only_matrices_decay_and_the_schedule_rises_and_falls():
    adam = stage1_optimizer(small(), 1e-4, 0.05)
    decayed, free = adam.param_groups
    assert all(p.dim() == 2 for p in decayed["params"]) and free["weight_decay"] == 0.0
    assert any(p.dim() == 3 for p in free["params"])  # the queries
    lrs = [stage1_schedule(1e-4, step, 200) for step in range(201)]
    assert lrs[0] == pytest.approx(1e-6) and max(lrs) == pytest.approx(1e-4) == lrs[10]
    assert lrs[200] == pytest.approx(1e-5)


# -- closed forms --------------------------------------------------------------------------------------------------------


def test_closed_forms_are_what_their_formulas_say():
    t, i = (x.float() for x in features(40, 6))
    assert torch.equal(closed_form("identity", t, i)(t), t)
    assert torch.allclose(closed_form("mean_shift", t, i)(t).mean(dim=0), i.mean(dim=0), atol=1e-6)
    assert closed_form("center", t, i)(t).mean(dim=0).abs().max() < 1e-6
    from sklearn.linear_model import Ridge

    x = F.pad(t, (0, 1), value=1.0).numpy()
    ours = closed_form("linear", t, i, 0.3)(t)
    theirs = torch.as_tensor(Ridge(alpha=0.3, fit_intercept=False).fit(x, i.numpy()).predict(x))
    assert torch.allclose(ours, theirs.float(), atol=1e-4)
    rotation = torch.linalg.qr(torch.randn(6, 6))[0]
    turned = t @ rotation + 0.5
    assert torch.allclose(closed_form("procrustes", t, turned)(t), turned, atol=1e-4)


def test_center_uses_the_mean_of_training_pictures_at_the_test_too():
    model = fitted(converter="center")
    from fewshot.data.features import image_features

    mean = unit(image_features(tiny.clip(), tiny.task().train, progress=False)).mean(dim=0)
    assert torch.allclose(model.center, mean, atol=1e-6)
    x = torch.randn(5, 32)
    expected = 100 * unit(unit(x) - mean) @ model.weight.t() + model.bias
    assert torch.allclose(model.logits(x), expected, atol=1e-4)
    assert torch.allclose(model.logits(x)[1:2], model.logits(x[1:2]), atol=1e-4)  # not of the batch


# -- what the converter may see --------------------------------------------------------------------------------------------


def test_the_strict_converter_sees_the_support_pictures_and_no_other(monkeypatch):
    task, seen = tiny.task(), []
    import fewshot.data.features as module

    original = module.image_features

    def spy(clip, images, *args, **kwargs):
        seen.extend(images.ids)
        return original(clip, images, *args, **kwargs)

    monkeypatch.setattr(module, "image_features", spy)
    model = fit("text_adapter", tiny.clip(), task, selection="fixed", progress=False, **QUICK)
    assert set(seen) == set(task.train.ids) and not set(seen) & ({*task.test.ids} | {*task.val.ids})
    assert set(model.saw) == set(task.train.ids) and model.chosen["converter_saw"] == len(task.train)


def test_settings_that_see_more_say_so_and_still_no_test_picture(monkeypatch):
    dataset, task = tiny.dataset(32), tiny.task()
    monkeypatch.setattr("fewshot.data.load_dataset", lambda name: dataset)
    assert [kind for kind, what in PAIRS.items() if "ALL" in what] == ["train_class", "train_captions", "disjoint_classes"]
    for kind, count in (("train_class", 32), ("disjoint_classes", 16), ("cross_dataset", 16)):
        more = {"pairs_from": "tiny"} if kind == "cross_dataset" else {}
        if kind == "cross_dataset":
            monkeypatch.setattr("fewshot.pairs.sentences", lambda *given: [["a", "b"]] * 4)
        model = fit("text_adapter", tiny.clip(), task, progress=False, **{**QUICK, "pairs": kind, **more})
        assert len(model.saw) == count == model.chosen["converter_saw"]
        assert not set(model.saw) & {*dataset.test.ids, *dataset.val.ids}


def test_captions_belong_to_one_picture_each_and_a_missing_one_is_named(tmp_path):
    task = tiny.task()
    model = TextAdapter(tiny.clip(), task, make_config(TextAdapter, {"pairs": "fewshot_captions"}))
    path = tmp_path / "captions.jsonl"
    lines = [{"image": i, "text": f"picture {i} with {n} wings"} for i in task.train.ids for n in (1, 2)]
    path.write_text("\n".join(map(json.dumps, lines)))
    model.config = make_config(TextAdapter, {"pairs": "fewshot_captions", "pairs_from": str(path)})
    pairs = make_pairs("fewshot_captions", model, task.train, [])
    assert not pairs.by_class and pairs.lines[3] == [f"picture {task.train.ids[3]} with {n} wings" for n in (1, 2)]
    path.write_text("\n".join(map(json.dumps, lines[2:])))
    with pytest.raises(FewshotError, match="has no caption for the picture"):
        make_pairs("fewshot_captions", model, task.train, [])
    with pytest.raises(FewshotError, match="needs pairs_from="):
        make_pairs("fewshot_captions", TextAdapter(tiny.clip(), task), task.train, [])


def test_a_batch_holds_no_picture_twice(monkeypatch):
    import fewshot.converters as module

    batches = []
    original = module.deal

    def spy(*args):
        rows = original(*args)
        batches.extend(rows)
        return rows

    monkeypatch.setattr(module, "deal", spy)
    fitted(converter_batch=6)
    assert batches and all(len(set(rows.tolist())) == len(rows) == 6 for rows in batches)


@pytest.mark.parametrize(
    "options",
    [{"kv": "tokens"}, {"kv": "tokens_projected"}, {"kv": "chunks"}, {"kv": "sentences"}, {"pool": "each"},
     {"pool": "max_cos"}, {"pool": "first"}, {"converter": "mlp", "residual": True}, {"loss": "infonce"},
     {"match": "top_t", "top": 2}, {"pick": "diverse"}, {"mix": "half", "init": "class_mean", "bias": False}],
)  # fmt: skip
def test_every_option_trains_and_its_texts_have_the_labels_of_their_classes(options):
    model = fitted(**options, dropout=0.0)
    x, labels = model.converted(3)
    per_class = 1 if options.get("kv") == "sentences" else 3 * (8 if options.get("pool") == "each" else 1)
    assert torch.bincount(labels).tolist() == [per_class] * 4
    assert x.shape == (4 * per_class, 32) and torch.allclose(x.norm(dim=1), torch.ones(len(x)), atol=1e-5)
    assert set(model.accuracies(torch.randn(4, 32), torch.arange(4))) == {1, 3}


def test_a_list_of_sentences_is_encoded_once_and_only_the_last_lists_are_kept(monkeypatch):
    clip, asked = tiny.clip(), []
    original = type(clip).encode_text
    monkeypatch.setattr(type(clip), "encode_text", lambda self, tokens: asked.append(1) or original(self, tokens))
    first = Bank(clip, [["a cat", "a dog"], ["a cow"]]).features
    assert torch.equal(Bank(clip, [["a cat"], ["a dog", "a cow"]]).features, first) and len(asked) == 1
    assert torch.allclose(first, unit(original(clip, clip.tokenize(["a cat", "a dog", "a cow"]))))
    for i in range(LISTS):
        Bank(clip, [[f"number {i}"]])
    assert len(asked) == 1 + LISTS
    Bank(clip, [["a cat", "a dog"], ["a cow"]])
    assert len(asked) == 2 + LISTS


def test_the_nearest_texts_of_a_picture_are_of_its_class():
    from fewshot.pairs import nearest

    bank = Bank(tiny.clip(), [["a cat", "a dog", "a cow"], ["red", "blue"]])
    images = bank.features[[1, 4]]
    found = nearest(bank.members, images, bank.features, 2)
    assert found.shape == (2, 2) and found[:, 0].tolist() == [1, 4] and set(found[1].tolist()) == {3, 4}


# -- options that came later -------------------------------------------------------------------------------------------------


def bert_file(path, hidden=32, ffn=32, layers=2, prefix="bert.", norm=("weight", "bias")):
    """Weights as BERT's, every tensor with values of its own."""
    from safetensors.torch import save_file

    tensors, rng = {}, torch.Generator().manual_seed(0)
    shapes = {f"attention.self.{part}": (hidden, hidden) for part in ("query", "key", "value")}
    shapes |= {"attention.output.dense": (hidden, hidden), "intermediate.dense": (ffn, hidden), "output.dense": (hidden, ffn)}
    for i in range(layers):
        for name, shape in shapes.items():
            tensors[f"{prefix}encoder.layer.{i}.{name}.weight"] = torch.randn(shape, generator=rng)
            tensors[f"{prefix}encoder.layer.{i}.{name}.bias"] = torch.randn(shape[0], generator=rng)
    for where in ("embeddings", *(f"encoder.layer.{i}.{x}" for i in range(layers) for x in ("attention.output", "output"))):
        for part in norm:
            tensors[f"{prefix}{where}.LayerNorm.{part}"] = torch.randn(hidden, generator=rng)
    save_file(tensors, path)
    return tensors


@pytest.mark.parametrize(("prefix", "norm"), [("bert.", ("gamma", "beta")), ("", ("weight", "bias"))])
def test_a_q_former_starts_from_bert_where_bert_has_the_same(tmp_path, prefix, norm):
    theirs = bert_file(tmp_path / "bert.safetensors", hidden=16, ffn=8, layers=3, prefix=prefix, norm=norm)
    model, plain = small(), small()
    start_from_bert(model, tmp_path / "bert.safetensors")
    layer = f"{prefix}encoder.layer.2."
    assert torch.equal(model.layers[2]["self"].k.weight, theirs[f"{layer}attention.self.key.weight"])
    assert torch.equal(model.layers[2]["self"].o.bias, theirs[f"{layer}attention.output.dense.bias"])
    assert torch.equal(model.layers[2]["ffn"].fc2.weight, theirs[f"{layer}output.dense.weight"])
    assert torch.equal(model.layers[2]["ffn"].ln.bias, theirs[f"{layer}output.LayerNorm.{norm[1]}"])
    assert torch.equal(model.layers[0]["self"].ln.weight, theirs[f"{prefix}encoder.layer.0.attention.output.LayerNorm.{norm[0]}"])
    assert torch.equal(model.ln_in.weight, theirs[f"{prefix}embeddings.LayerNorm.{norm[0]}"])
    ours, before = dict(model.named_parameters()), dict(plain.named_parameters())
    same = {name for name in ours if torch.equal(ours[name], before[name])}
    assert same == {name for name in ours if "cross" in name or name.split(".")[0] in ("query_tokens", "ln_kv", "proj")}


def test_bert_weights_that_do_not_fit_are_refused(tmp_path):
    bert_file(tmp_path / "wide.safetensors", hidden=24, ffn=8, layers=3)
    with pytest.raises(FewshotError, match=r"is \[24\], and the Q-Former's \[16\]; take BERT's sizes"):
        start_from_bert(small(), tmp_path / "wide.safetensors")
    bert_file(tmp_path / "short.safetensors", hidden=16, ffn=8, layers=2)
    with pytest.raises(FewshotError, match=r"has no encoder.layer.2"):
        start_from_bert(small(), tmp_path / "short.safetensors")
    (tmp_path / "pickle.bin").write_bytes(b"not that")
    with pytest.raises(FewshotError, match="no safetensors file"):
        start_from_bert(small(), tmp_path / "pickle.bin")


def test_the_method_takes_berts_weights(tmp_path):
    bert_file(tmp_path / "bert.safetensors")
    start = TextAdapter(tiny.clip(), tiny.task(), make_config(TextAdapter, {**QUICK, "bert": str(tmp_path / "bert.safetensors")}))
    plain = TextAdapter(tiny.clip(), tiny.task(), make_config(TextAdapter, QUICK))
    assert not torch.equal(start.make_converter().layers[0]["self"].q.weight, plain.make_converter().layers[0]["self"].q.weight)
    assert start.learned() == plain.learned()  # counted without the file


def test_the_shift_goes_a_share_of_the_way():
    t, i = (x.float() for x in features(40, 6))
    half = closed_form("mean_shift", t, i, share=0.5)
    assert torch.allclose(half(t) - t, (i.mean(dim=0) - t.mean(dim=0)) / 2, atol=1e-6)
    none, whole = fitted(converter="mean_shift", shift=0.0), fitted(converter="mean_shift")
    assert torch.allclose(none.converted(3)[0], none.texts(3)[0], atol=1e-6)
    assert not torch.allclose(whole.converted(3)[0], whole.texts(3)[0], atol=1e-2)


def test_stage_2_may_have_sentences_of_its_own(tmp_path, monkeypatch):
    for name in ("one", "two"):
        lines = {c: [f"{name} {c.replace('_', ' ')} {i}" for i in range(3)] for c in tiny.NAMES}
        (tmp_path / f"{name}.json").write_text(json.dumps(lines))
    made = []
    original = Bank.__init__

    def spy(self, clip, lines, *rest):
        made.append(lines[0][0].split()[0])
        original(self, clip, lines, *rest)

    monkeypatch.setattr(Bank, "__init__", spy)
    first, second = str(tmp_path / "one.json"), str(tmp_path / "two.json")
    both = fitted(texts_from=first, stage2_texts=second)
    assert made == ["two", "one"]  # the heads', then the converter's
    expected = tiny.clip().encode_text([f"two {c.replace('_', ' ')} 0" for c in tiny.NAMES])
    assert torch.allclose(both.texts(1)[0], unit(expected), atol=1e-5)
    made.clear()
    fitted(texts_from=first)
    assert made == ["one"]


def test_sentences_that_name_another_class_can_be_left_out(tmp_path):
    lines = {"forest": ["The forest is green.", "Unlike a grizzly bear, it is still."]}
    lines |= {name: [f"It is {name}.", "It is wide."] for name in tiny.NAMES if name != "forest"}
    path = tmp_path / "own.json"
    path.write_text(json.dumps(lines))
    found = texts.sentences("x", tiny.NAMES, str(path), drop_others=True)
    assert found[tiny.NAMES.index("forest")] == ["The forest is green."] and len(found[0]) == 2
    assert list(fitted(texts_from=str(path), drop_other_names=True, grid=(1, 2)).heads) == [1]  # the fewest of a class
    path.write_text(json.dumps({**lines, "forest": lines["forest"][1:]}))
    with pytest.raises(FewshotError, match="every sentence about 'forest' names another class"):
        texts.sentences("x", tiny.NAMES, str(path), drop_others=True)


def test_another_class_is_told_by_its_spelling_in_the_sentences_too(tmp_path):
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"Crow": ["A crow.", "Larger than a jay."], "Florida Jay": ["A scrub-jay.", "No crow."]}))
    (tmp_path / "own.meta.json").write_text(json.dumps({"names": {"Florida Jay": "jay"}}))
    assert texts.sentences("x", ["Crow", "Florida Jay"], str(path), drop_others=True) == [["A crow."], ["A scrub-jay."]]


def test_select_val_takes_the_best_step_and_of_equals_the_last():
    from fewshot.data.features import image_features

    model = fitted(select="val", steps=40, grid=(1, 3))
    assert sorted(model.looks) == list(range(2, 41, 2)) and model.chosen["step"] in model.looks
    task = tiny.task()
    x, labels = image_features(tiny.clip(), task.val, progress=False), torch.as_tensor(task.val.labels)
    right = {}
    for step, heads in model.looks.items():
        model.heads = heads
        right |= {(step, m): value for m, value in model.accuracies(x, labels).items()}
    best = [at for at in right if right[at] == max(right.values())]
    fewest = min(m for _, m in best)
    assert model.chosen["texts"] == fewest
    assert model.chosen["step"] == max(step for step, m in best if m == fewest)
    assert torch.equal(model.weight, model.looks[model.chosen["step"]][fewest][0])
    assert "step" not in fitted().chosen and not fitted().looks


def test_looks_are_copies_and_the_last_is_the_head():
    model = fitted(select="val", steps=40, lr=0.01)
    plain = fitted(steps=40, lr=0.01)
    assert torch.equal(model.looks[40][3][0], plain.heads[3][0]) and torch.equal(model.looks[40][3][1], plain.heads[3][1])
    assert not torch.equal(model.looks[2][3][0], model.looks[40][3][0])
    assert not torch.equal(model.looks[2][3][1], model.looks[40][3][1])


def test_a_scale_that_learns_ends_up_in_the_weights():
    rng = torch.Generator().manual_seed(0)
    x, labels, start = unit(torch.randn(12, 5, generator=rng)), torch.arange(12) % 3, torch.randn(3, 5, generator=rng) / 9
    pool = Pool.of((x[:6], labels[:6]), (x[6:], labels[6:]))
    given = dict(steps=1, batch_size=99, lr=0.1, weight_decay=0.5)
    plain = train_heads([pool], start, None, [(rng, rng)], **given)
    learned = train_heads([pool], start, None, [(rng, rng)], **given, learn_scale=True)
    assert torch.allclose(plain.weight, learned.weight, atol=1e-6) and torch.equal(plain.weights(), plain.weight)
    assert abs(float(learned.stretch.abs()) - 0.1) < 1e-4  # AdamW's first step is its rate; nothing decays
    assert torch.allclose(learned.weights(), learned.stretch.exp() * plain.weight, atol=1e-6)
    assert torch.allclose(learned(x), 100 * x @ learned.weights().transpose(1, 2))
    model = fitted(learn_scale=True, lr=0.1, init="class_mean")
    assert not torch.allclose(model.heads[3][0], fitted(lr=0.1, init="class_mean").heads[3][0], atol=1e-3)


@pytest.fixture
def attributes(tmp_path):
    """The lists of a CUB of two classes with three kinds of attributes."""
    folder = tmp_path / "CUB_200_2011"
    (folder / "attributes").mkdir(parents=True)
    names = ["has_bill_shape::curved_(up_or_down)", "has_bill_shape::hooked_seabird", "has_wing_color::blue"]
    names += ["has_wing_color::grey", "has_size::small_(5_-_9_in)"]
    (tmp_path / "attributes.txt").write_text("".join(f"{i + 1} {name}\n" for i, name in enumerate(names)))
    (folder / "classes.txt").write_text("1 001.Black_footed_Albatross\n2 073.Blue_Jay\n")
    (folder / "attributes" / "class_attribute_labels_continuous.txt").write_text("10 60 0 95.5 0\n40 40 99 1 70\n")
    return folder


def test_attributes_become_sentences_the_surest_first(attributes):
    from fewshot.texts.attributes import attribute_sentences

    albatross, jay = attribute_sentences(["Black footed Albatross", "blue_jay"], attributes)
    assert albatross == [
        "The Black footed Albatross is a bird whose wing color is grey.",
        "The Black footed Albatross is a bird whose bill shape is hooked seabird.",
    ]  # no picture says a size
    assert jay == [
        "The blue jay is a bird whose wing color is blue.",
        "The blue jay is a bird whose size is small.",
        "The blue jay is a bird whose bill shape is curved.",
    ]


def test_attributes_that_are_not_there_are_said(attributes, monkeypatch):
    from fewshot.texts.attributes import attribute_sentences

    with pytest.raises(FewshotError, match="'forest' is no class of CUB's attributes"):
        attribute_sentences(["forest"], attributes)
    (attributes / "classes.txt").write_text("1 001.Blue_Jay\n")
    with pytest.raises(FewshotError, match="do not fit together"):
        attribute_sentences(["Blue Jay"], attributes)
    (attributes.parent / "attributes.txt").unlink()
    with pytest.raises(FewshotError, match="attributes.txt.*unpack the whole"):
        attribute_sentences(["Blue Jay"], attributes)
    monkeypatch.setenv("FEWSHOT_DATA", str(attributes / "nowhere"))
    with pytest.raises(FewshotError, match="cub is not on this disk"):
        texts.sentences("cub", ["Blue Jay"], texts.ATTRIBUTES)


def test_the_later_options_leave_the_stamps_of_stored_rows_as_they_are():
    from fewshot.methods.method import settings_of

    later = {"stage2_texts", "drop_other_names", "bert", "shift", "select", "learn_scale"}
    assert not later & set(settings_of(TextAdapter.Config()))
    assert settings_of(TextAdapter.Config(select="val"))["select"] == "val"


# -- heads -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("converter", ["identity", "noise"])
def test_heads_in_a_stack_are_the_heads_of_runs_of_their_own(converter):
    together = fitted(converter=converter, grid=(1, 3, 10), steps=60, lr=0.01)
    for m in (1, 3, 10):
        alone = fitted(converter=converter, texts=m, steps=60, lr=0.01)
        assert torch.allclose(alone.weight, together.heads[m][0], atol=1e-5)
        assert torch.allclose(alone.bias, together.heads[m][1], atol=1e-5)


def test_a_head_is_torchs_linear_layer_under_adamw():
    rng = torch.Generator().manual_seed(0)
    x, labels, start = unit(torch.randn(12, 5, generator=rng)), torch.arange(12) % 3, torch.randn(3, 5, generator=rng) / 9
    pool = Pool.of((x[:6], labels[:6]), (x[6:], labels[6:]), text_weight=0.5)
    ours = train_heads(
        [pool], start, torch.zeros(3), [(rng, rng)], steps=1, batch_size=99, lr=0.1, weight_decay=0.1
    )
    layer = torch.nn.Linear(5, 3)
    layer.weight.data, layer.bias.data = start.clone(), torch.zeros(3)
    adam = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.1)
    each = F.cross_entropy(100 * x @ layer.weight.t() + layer.bias, labels, reduction="none")
    ((each * torch.tensor([1.0] * 6 + [0.5] * 6)).sum() / 9).backward()
    adam.step()
    assert torch.allclose(ours.weight[0], layer.weight, atol=1e-5) and torch.allclose(ours.bias[0], layer.bias, atol=1e-5)


def test_without_texts_no_sentence_is_read_and_the_start_is_the_same(monkeypatch):
    monkeypatch.setattr("fewshot.methods.text_adapter.sentences", None)
    model = fitted(texts=0)
    assert model.chosen["texts"] == 0 and model.saw == () and model.learned() == 4 * 33


def test_half_of_a_batch_is_texts_with_mix_half():
    pool = Pool.of((torch.randn(9, 4), torch.zeros(9).long()), (torch.randn(20, 4), torch.zeros(20).long()))
    rows = pool.batches(8, 5, "half", torch.Generator())
    assert rows.shape == (5, 8) and ((rows >= 9).sum(dim=1) == 4).all()


# -- selection -------------------------------------------------------------------------------------------------------------


def test_the_number_of_texts_is_that_of_the_best_validation_accuracy_and_of_equals_the_smallest():
    task = tiny.task()
    from fewshot.data.features import image_features

    model = fit("text_adapter", tiny.clip(), task, progress=False, **{**QUICK, "grid": (1, 2, 3, 5), "steps": 40})
    right = model.accuracies(image_features(tiny.clip(), task.val, progress=False), torch.as_tensor(task.val.labels))
    assert model.chosen["texts"] == min(m for m in right if right[m] == max(right.values()))
    assert torch.equal(model.weight, model.heads[model.chosen["texts"]][0])


def test_fixed_takes_the_papers_number_or_the_next_below():
    for name, shots, expected in (("toy/cub", 4, 3), ("oxford_pets", 4, 5), ("other", 4, 10)):
        task = tiny.task(name=name, shots=shots)
        config = {**QUICK, "grid": (1, 3, 5, 10, 15)}
        model = fit("text_adapter", tiny.clip(), task, selection="fixed", progress=False, **config)
        assert model.chosen["texts"] == expected
    assert PAPER["cub"][1] == 5 and PAPER["oxford_pets"][3] == 30


def test_the_ridge_is_chosen_on_validation_pictures():
    model = fitted(converter="linear")
    assert model.chosen["ridge"] in (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    assert "ridge" not in fitted(converter="linear", ridge=1.0).chosen


def test_more_texts_than_there_are_is_an_error_and_the_grid_is_cut(tmp_path):
    path = tmp_path / "own.json"
    path.write_text(json.dumps({name: ["One of it.", "Another one."] for name in tiny.NAMES}))
    with pytest.raises(FewshotError, match="has 2 sentences; ask for fewer"):
        fitted(texts_from=str(path), texts=3)
    model = fitted(texts_from=str(path), grid=(1, 2, 30))
    assert set(model.heads) == {1, 2}


def test_a_loaded_model_has_its_head_and_says_that_its_converter_is_gone(tmp_path):
    model = load_method(fitted().save(tmp_path / "m.safetensors"), tiny.clip())
    with pytest.raises(FewshotError, match="keeps its head alone"):
        model.converted(1)
    with pytest.raises(FewshotError, match="select right after fit"):
        model.choose(torch.randn(2, 32), torch.tensor([0, 1]))


def test_farthest_takes_the_least_like_those_before():
    x = unit(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [-1.0, 0.0]]))
    assert farthest(x).tolist() == [0, 3, 2, 1]


@pytest.mark.parametrize(
    ("config", "message"),
    [({"loss": "swaped"}, "did you mean 'swapped'"), ({"kv": "token"}, "unknown kv"), ({"hidden": 30, "heads": 4}, "multiple"),
     ({"bert": "x", "converter": "mlp"}, "start of a Q-Former"), ({"shift": 0.5}, "does not shift"),
     ({"select": "best"}, "unknown select"), ({"bert": "nowhere.safetensors"}, "no such file; give model.safetensors"),
     ({"kv": "chunks", "chunks": 5}, "does not divide"), ({"same_class": "x"}, "same_class"), ({"texts": -1}, "from 0 on")],
)  # fmt: skip
def test_a_wrong_setting_is_one_sentence(config, message):
    with pytest.raises(FewshotError, match=message):
        fitted(**config)


# -- sentences -------------------------------------------------------------------------------------------------------------


def test_names_are_compared_without_case_underscores_hyphens_and_cub_numbers(tmp_path):
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"Black-footed Albatross": ["Big."], "american_bulldog": ["Strong."]}))
    found = texts.sentences("x", ["001.Black_footed_Albatross", "American Bulldog"], str(path))
    assert found == [["Big."], ["Strong."]]
    with pytest.raises(FewshotError, match="no sentence for class 'pug'"):
        texts.sentences("x", ["pug"], str(path))


def test_what_ships_is_found_by_the_data_sets_name_and_nothing_is_said_with_the_names_that_do():
    assert texts.shipped("cub").name == "cub.json"
    with pytest.raises(FewshotError, match="no sentences ship for toy/eurosat.*cub.*texts_from="):
        texts.sentences("toy/eurosat", ["forest"])


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"a": "text"}', '{"a": [""]}'],
)  # fmt: skip
def test_a_file_that_holds_something_else_is_refused(content, tmp_path):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(FewshotError, match="class name"):
        texts.read(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("policy", "line", "expected"),
    [("keep", "The Blue Jay is blue.", "The Blue Jay is blue."),
     ("mask", "The Blue Jay is blue.", "This bird is blue."),
     ("mask", "Crest of a blue-jay. Blue Jays shine.", "Crest of this bird. This bird shine."),
     ("mask", "The blue jay's crest is tall.", "This bird's crest is tall."),
     ("mask", "A bluejay is another word.", "A bluejay is another word."),
     ("prefix", "The Blue Jay is blue.", "blue jay: The Blue Jay is blue."),
     ("require", "The Blue Jay is blue.", "The Blue Jay is blue."), ("require", "It is blue.", "blue jay: It is blue.")],
)  # fmt: skip
def test_what_a_policy_does_with_the_name(policy, line, expected):
    assert texts.named(line, ["blue_jay"], policy, "bird") == expected


def test_the_spelling_of_the_sentences_is_masked_too():
    brewer = texts.named("Brewer's Blackbird is black.", ["Brewer Blackbird", "Brewer's Blackbird"], "mask", "bird")
    cardinal = texts.named("A Northern Cardinal is red.", ["Cardinal", "Northern Cardinal"], "mask", "bird")
    assert (brewer, cardinal) == ("This bird is black.", "This bird is red.")
    assert texts.domain_of("a photo of a {}, a type of bird.") == "bird" and texts.domain_of("a {}.") == "object"


def test_the_template_control_has_eighty_sentences_with_the_name():
    (lines,) = texts.sentences("anything", ["Grizzly_bear"], texts.TEMPLATES)
    assert len(lines) == 80 and all("Grizzly bear" in line for line in lines)


# -- sentences in other methods --------------------------------------------------------------------------------------------


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """Sentences for the tiny task, some without the name."""
    lines = {name: [f"A {name.replace('_', ' ')} in a row.", "It is wide and green.", "Seen from afar."] for name in tiny.NAMES}
    lines[tiny.NAMES[0]].pop()
    (tmp_path / "tiny.json").write_text(json.dumps(lines))
    monkeypatch.setattr(texts, "FOLDER", tmp_path)
    return lines


def test_zero_shot_weights_of_sentences_are_the_mean_of_unit_features(shipped):
    model = fit("zero_shot", tiny.clip(), tiny.task(), templates="sentences")
    for name, row in zip(tiny.NAMES, model.weights, strict=True):
        assert torch.allclose(row, unit(unit(tiny.clip().encode_text(shipped[name])).mean(dim=0)), atol=1e-5)
    named = fit("zero_shot", tiny.clip(), tiny.task(), templates="named_sentences")
    lines = [shipped["forest"][0], "forest: It is wide and green.", "forest: Seen from afar."]
    assert torch.allclose(named.weights[1], unit(unit(tiny.clip().encode_text(lines)).mean(dim=0)), atol=1e-5)
    with pytest.raises(FewshotError, match="did you mean 'sentences'"):
        fit("zero_shot", tiny.clip(), tiny.task(), templates="sentence")


@pytest.mark.parametrize(
    ("method", "config"),
    [("tip_adapter", {"texts": "sentences"}), ("tip_adapter_f", {"texts": "sentences"}),
     ("clip_lora", {"template": "sentences", "encoder": "vision"})],
)  # fmt: skip
def test_tip_adapter_and_clip_lora_can_start_from_these_weights(method, config, shipped, tmp_path):
    from fewshot.methods import get_method

    expected = fit("zero_shot", tiny.clip(), tiny.task(), templates="sentences").weights
    cls = get_method(method)
    model = cls(tiny.clip(), tiny.task(), make_config(cls, config))
    assert torch.equal(model.weights, expected)
    assert torch.equal(load_method(model.save(tmp_path / "m.safetensors"), tiny.clip()).weights, expected)


def test_an_encoder_that_trains_on_prompts_refuses_sentences():
    with pytest.raises(FewshotError, match="needs encoder='vision'"):
        fit("clip_lora", tiny.clip(), tiny.task(), template="sentences")


def test_a_field_that_came_later_leaves_the_stamps_of_older_rows_as_they_are():
    from fewshot.methods.method import settings_of
    from fewshot.methods.tip_adapter import Config

    assert "texts" not in settings_of(Config()) and settings_of(Config(texts="sentences"))["texts"] == "sentences"
    assert set(settings_of(Config())) == {"alpha", "beta", "search_scale", "search_step", "augment_epoch", "scale"}
