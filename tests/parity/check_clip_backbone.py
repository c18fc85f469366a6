"""OpenAI's code: activations after every block of both encoders."""

from fewshot.clip import unit

FOLDERS = ("clip_backbone",)


def check(golden):
    clip = golden.clip
    text, vision = clip.text, clip.vision

    tokens = clip.tokenize([golden.template.replace("{}", n) for n in golden.classnames])
    golden.equal("tokens", tokens)
    eot = text.eot(tokens)
    length = golden.tensors["text.tokens_in"].shape[1]
    assert length == int(eot.max()) + 1
    x = text.embed(tokens[:, :length]) + text.module.positional_embedding[:length]
    golden.close("text.tokens_in", x)
    for i, block in enumerate(text.blocks):
        x = block(x, causal=True)
        golden.close(f"text.block{i}", x)
    golden.close("text.ln_final", text.module.ln_final(x))
    features = clip.encode_text(tokens)
    golden.close("text.features", features)

    some = golden.images[: golden.tensors["image.features"].shape[0]]
    x = vision.embed(some)
    golden.close("image.tokens_in", x)
    x = vision.module.ln_pre(x)
    golden.close("image.ln_pre", x)
    for i, block in enumerate(vision.blocks):
        x = block(x)
        golden.close(f"image.block{i}", x)
    golden.close("image.ln_post", vision.module.ln_post(x[:, 0]))
    golden.close("image.features", clip.encode_image(some))

    logits = clip.logit_scale * unit(clip.encode_image(golden.images)) @ unit(features).t()
    golden.close("logits_per_image", logits)
    golden.close("logits_per_text", logits.t())
