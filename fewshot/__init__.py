"""Few-shot adaptation of CLIP: the methods, one interface, numbers that know where they come from.

    clip  = fewshot.load_clip("toy")
    task  = fewshot.load_task("toy/oxford_pets", shots=4, seed=1)
    model = fewshot.fit("clip_lora", clip, task)
    print(fewshot.evaluate(model, task.test))

Importing this module imports neither torch nor open_clip; both come with the first name that needs them.
"""

from importlib import import_module

_WHERE = {
    "load_clip": "clip",
    "load_dataset": "data",
    "load_task": "data",
    "from_folder": "data",
    "from_csv": "data",
    "from_arrays": "data",
    "image_features": "data.features",
    "fit": "training",
    "evaluate": "evaluation",
    "load_method": "methods.method",
    "METHODS": "methods",
    "settings": "parameters",
    "FewshotError": "errors",
}
__all__ = sorted(_WHERE)


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
