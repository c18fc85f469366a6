"""The toy world: drawn pictures, a tiny CLIP that met most of them, and stand-ins for the papers' data sets.

The names are known without torch; drawing and weights are imported when they are asked for.
"""

ELEVEN = ("imagenet", "caltech101", "oxford_pets", "stanford_cars", "oxford_flowers", "food101", "fgvc_aircraft", "sun397", "dtd",
          "eurosat", "ucf101")  # fmt: skip
SHIFTED = ("imagenet_v2", "imagenet_sketch", "imagenet_a", "imagenet_r")
DATASETS = (*ELEVEN, "cub", *SHIFTED)
# Three of the eleven with many more training pictures; classes, validation and test pictures are the originals'.
LARGE = {"eurosat_large": "eurosat", "dtd_large": "dtd", "oxford_pets_large": "oxford_pets"}
MANY = 512  # their training pictures per class
ALIASES = {"pets": "oxford_pets", "cars": "stanford_cars", "flowers": "oxford_flowers", "food": "food101",
           "aircraft": "fgvc_aircraft", "caltech": "caltech101", "sun": "sun397", "ucf": "ucf101"}  # fmt: skip


def load_dataset(name: str):
    """The stand-in ``name`` as a Dataset; see fewshot.toy.benchmark.load_dataset."""
    from fewshot.toy import benchmark

    return benchmark.load_dataset(name)


def load():
    """Configuration and state dict of the tiny CLIP; see fewshot.toy.weights.load."""
    from fewshot.toy import weights

    return weights.load()
