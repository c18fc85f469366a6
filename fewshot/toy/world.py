"""What there is in the toy world, and how it is talked about.

A *kind* is a named conjunction of attributes ("Dalmatian": a white dotted dog with floppy ears). The tiny CLIP met most
kinds by name during pre-training, some only as pictures without their name, as the real CLIP met "golden retriever" more
often than "737-300". ``known`` says which. A caption is a sentence plus the set of scenes it is true of, so that
pre-training counts *every* true picture-caption pair of a batch as a positive, not only the pair that was drawn together.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fewshot.toy.draw import BACKGROUNDS, COLOURS, FORMS, POSES, SHAPE_NAMES, TEXTURES, Scenes

COLOUR_NAMES = tuple(COLOURS)
POSE_NAMES = tuple(POSES)
CAR_TYPES = ("sedan", "coupe", "van", "truck", "convertible")
DARK = 0.55  # light below this is called dark


@dataclass(frozen=True)
class Kind:
    """A named conjunction of attributes; attributes not given are free."""

    name: str
    known: bool = True
    attributes: dict = field(default_factory=dict)


def named(name: str, shape: str, colour: str | None = None, texture: str | None = None, form=None, accent: str | None = None,
          pattern: str | None = None, known: bool = True) -> Kind:  # fmt: skip
    given = {
        "shape": SHAPE_NAMES.index(shape),
        "colour": colour and COLOUR_NAMES.index(colour),
        "texture": texture and TEXTURES.index(texture),
        "form": form,
        "accent": accent and COLOUR_NAMES.index(accent),
        "pattern": pattern and COLOUR_NAMES.index(pattern),
    }
    return Kind(name, known, {k: v for k, v in given.items() if v is not None})


IMAGENET = (
    named("tiger", "cat", "orange", "striped", pattern="black"),
    named("leopard", "cat", "yellow", "dotted", pattern="black"),
    named("panther", "cat", "black", "solid"),
    named("lynx", "cat", "brown", "speckled", pattern="white", known=False),
    named("golden retriever", "dog", "yellow", "solid", form=0),
    named("fox", "dog", "orange", "solid", form=1),
    named("wolf", "dog", "white", "marbled", form=1, pattern="black"),
    named("bloodhound", "dog", "brown", "solid", form=0, known=False),
    named("hare", "rabbit", "brown", "solid"),
    named("snow rabbit", "rabbit", "white", "solid"),
    named("goldfish", "fish", "orange", "solid"),
    named("clownfish", "fish", "orange", "striped", pattern="white"),
    named("shark", "fish", "blue", "solid"),
    named("angelfish", "fish", "yellow", "banded", pattern="black", known=False),
    named("flamingo", "bird", "pink", "solid"),
    named("raven", "bird", "black", "solid"),
    named("canary", "bird", "yellow", "solid"),
    named("macaw", "bird", "red", "solid", accent="blue", known=False),
    named("monarch butterfly", "butterfly", "orange", "grid", pattern="black"),
    named("blue morpho", "butterfly", "blue", "solid", known=False),
    named("fire engine", "car", "red", "solid", form=3),
    named("ambulance", "car", "white", "solid", form=2),
    named("school bus", "car", "yellow", "solid", form=2),
    named("taxi", "car", "yellow", "checkered", form=0, pattern="black"),
    named("sports car", "car", "red", "solid", form=1),
    named("dump truck", "car", "orange", "solid", form=3, known=False),
    named("sailboat", "boat", "white", "solid"),
    named("pirate ship", "boat", "black", "solid", accent="black"),
    named("airliner", "plane", "white", "solid"),
    named("fighter jet", "plane", "green", "solid", known=False),
    named("barn", "house", "red", "solid"),
    named("igloo", "house", "white", "solid", accent="white"),
    named("log cabin", "house", "brown", "banded", known=False),
    named("pine", "tree", "green", "solid"),
    named("cherry tree", "tree", "pink", "speckled", pattern="white"),
    named("maple", "tree", "orange", "solid", known=False),
)
PETS = (
    named("Abyssinian", "cat", "brown", "solid"),
    named("Bengal", "cat", "orange", "dotted", pattern="brown"),
    named("Bombay", "cat", "black", "solid"),
    named("Russian Blue", "cat", "blue", "solid"),
    named("Persian", "cat", "white", "marbled", pattern="orange"),
    named("tabby", "cat", "orange", "striped", pattern="white"),
    named("Sphynx", "cat", "pink", "solid"),
    named("Ragdoll", "cat", "white", "banded", pattern="brown", known=False),
    named("beagle", "dog", "brown", "marbled", form=0, pattern="white"),
    named("Dalmatian", "dog", "white", "dotted", form=0, pattern="black"),
    named("Samoyed", "dog", "white", "solid", form=1),
    named("Shiba Inu", "dog", "orange", "solid", form=1),
    named("pug", "dog", "yellow", "solid", form=0),
    named("poodle", "dog", "black", "spiralled", form=0, pattern="white"),
    named("Newfoundland", "dog", "black", "solid", form=0, known=False),
    named("chihuahua", "dog", "brown", "solid", form=1, known=False),
)
FOOD = (
    named("pizza", "circle", "orange", "dotted", pattern="red"),
    named("donuts", "ring", "pink", "speckled", pattern="white"),
    named("bagel", "ring", "brown", "solid"),
    named("cookie", "circle", "brown", "dotted", pattern="black"),
    named("macarons", "circle", "pink", "banded", pattern="white"),
    named("sushi", "circle", "white", "spiralled", pattern="green"),
    named("guacamole", "circle", "green", "marbled", pattern="yellow"),
    named("cheesecake", "triangle", "yellow", "solid"),
    named("strawberry shortcake", "triangle", "pink", "banded", pattern="red"),
    named("chocolate cake", "square", "brown", "banded", pattern="white"),
    named("waffles", "square", "yellow", "grid", pattern="brown"),
    named("red velvet cake", "square", "red", "banded", pattern="white"),
    named("croissant", "moon", "orange", "striped", pattern="brown"),
    named("omelette", "moon", "yellow", "solid"),
    named("bruschetta", "square", "orange", "speckled", pattern="red", known=False),
    named("gnocchi", "heart", "white", "speckled", pattern="yellow", known=False),
)
FLOWERS = (
    named("daisy", "flower", "white", "solid", 3, "yellow"),
    named("sunflower", "flower", "yellow", "solid", 3, "brown"),
    named("poppy", "flower", "red", "solid", 0, "black"),
    named("violet", "flower", "purple", "solid", 1, "yellow"),
    named("bluebell", "flower", "blue", "solid", 2, "white"),
    named("orchid", "flower", "pink", "solid", 1, "purple"),
    named("lily", "flower", "white", "solid", 2, "orange"),
    named("primrose", "flower", "yellow", "solid", 1, "orange"),
    named("cornflower", "flower", "blue", "solid", 3, "purple"),
    named("marigold", "flower", "orange", "solid", 3, "brown"),
    named("tulip", "flower", "orange", "solid", 0, "yellow"),
    named("anemone", "flower", "purple", "solid", 2, "black", known=False),
    named("dahlia", "flower", "pink", "solid", 3, "red", known=False),
    named("buttercup", "flower", "yellow", "solid", 0, "green", known=False),
    named("pansy", "flower", "purple", "solid", 0, "white", known=False),
    named("hellebore", "flower", "green", "solid", 1, "white", known=False),
)
# a make is a livery: texture and colour of the stripes, the same on every type of car
MAKES = {"Aurel": ("solid", None, True), "Brisa": ("banded", "white", True), "Corvo": ("checkered", "black", False),
         "Dorado": ("dotted", "yellow", False)}  # fmt: skip
CARS = tuple(
    named(f"{make} {kind}", "car", None, texture, form, pattern=pattern, known=known)
    for make, (texture, pattern, known) in MAKES.items()
    for form, kind in enumerate(CAR_TYPES)
)
AIRCRAFT = tuple(
    named(name, "plane", None, "solid", form, accent, known=name in ("TX-100", "TX-400"))
    for (form, accent), name in zip(
        [(form, accent) for form in range(8) for accent in ("red", "blue")],
        ("TX-100", "TX-120", "TX-200", "TX-220", "TX-400", "TX-420", "Merlin 5", "Merlin 7", "Merlin 9", "Gannet A", "Gannet B",
         "Gannet C", "K-11", "K-17", "Osprey II", "Osprey IV"), strict=True)
)  # fmt: skip
UCF = tuple(
    Kind(pose, pose not in ("lunging", "stretching", "balancing"), {"shape": SHAPE_NAMES.index("person"), "form": i})
    for i, pose in enumerate(POSE_NAMES)
)
# form bits of a bird: 1 a long bill, 2 a long tail, 4 a crest; accent is the wing
BIRDS = (
    named("northern cardinal", "bird", "red", "solid", 4, "red"),
    named("scarlet tanager", "bird", "red", "solid", 0, "black"),
    named("blue jay", "bird", "blue", "striped", 4, "white", pattern="white"),
    named("indigo bunting", "bird", "blue", "solid", 0, "blue"),
    named("American goldfinch", "bird", "yellow", "solid", 0, "black"),
    named("yellow warbler", "bird", "yellow", "solid", 0, "yellow"),
    named("common crow", "bird", "black", "solid", 2, "black"),
    named("pileated woodpecker", "bird", "black", "banded", 5, "red", pattern="white"),
    named("red winged blackbird", "bird", "black", "solid", 0, "red", known=False),
    named("Baltimore oriole", "bird", "orange", "solid", 1, "black", known=False),
    named("hooded oriole", "bird", "orange", "solid", 3, "yellow", known=False),
    named("cedar waxwing", "bird", "brown", "solid", 4, "yellow", known=False),
    named("brown thrasher", "bird", "brown", "striped", 3, "brown", known=False, pattern="white"),
    named("song sparrow", "bird", "brown", "speckled", 0, "brown", known=False, pattern="white"),
    named("belted kingfisher", "bird", "blue", "banded", 5, "blue", known=False, pattern="white"),
    named("green kingfisher", "bird", "green", "dotted", 1, "green", known=False, pattern="white"),
    named("rufous hummingbird", "bird", "orange", "speckled", 1, "green", known=False, pattern="brown"),
    named("magpie", "bird", "white", "banded", 2, "black", known=False, pattern="black"),
    named("Arctic tern", "bird", "white", "solid", 3, "white", known=False),
    named("painted bunting", "bird", "purple", "solid", 0, "green", known=False),
)
UNCOMMON = {"ring": "annulus", "diamond": "lozenge"}  # words for two shapes that no caption used
CALTECH = tuple(Kind(UNCOMMON.get(name, name), name not in UNCOMMON, {"shape": i}) for i, name in enumerate(SHAPE_NAMES))
TEXTURE_KINDS = tuple(
    Kind("plain" if name == "solid" else name, name not in ("banded", "speckled", "spiralled"), {"texture": i})
    for i, name in enumerate(TEXTURES)
)
LIGHTS = {"bright": (0.8, 1.1), "dim": (0.55, 0.72), "dark": (0.3, 0.5)}  # "dim" is a word that no caption used
SCENE_KINDS = tuple(
    Kind(f"{light} {name}", light != "dim", {"background": i, "light": between})
    for i, name in enumerate(BACKGROUNDS)
    if name != "plain"
    for light, between in LIGHTS.items()
)
NAMED = (IMAGENET, PETS, FOOD, FLOWERS, CARS, AIRCRAFT, UCF, BIRDS)

# -- scenes ----------------------------------------------------------------------------------------------------------

_FORM_COUNT = torch.tensor([FORMS.get(name, 1) for name in SHAPE_NAMES])


def random_scenes(n: int, generator: torch.Generator, *, solid: float = 0.4, single: float = 0.75, size=(0.45, 0.85), shift=0.25,
                  tilt: float = 0.35, noise: float = 0.05, photo: float = 0.9, dark: float = 0.15) -> Scenes:  # fmt: skip
    """Draw the attributes of n scenes: every combination can occur.

    ``solid``, ``single``, ``photo`` and ``dark`` are probabilities; ``size`` and ``shift`` are in picture half-widths,
    ``tilt`` in radians, ``noise`` in units of full scale.
    """

    def pick(k):
        return torch.randint(k, (n,), generator=generator)

    def uniform(low, high):
        return low + (high - low) * torch.rand(n, generator=generator)

    def rarely(probability, otherwise):
        return torch.where(uniform(0, 1) < probability, 0, otherwise)

    shape, colour = pick(len(SHAPE_NAMES)), pick(len(COLOUR_NAMES))
    pattern = (colour + 1 + pick(len(COLOUR_NAMES) - 1)) % len(COLOUR_NAMES)  # differs from the colour
    is_dark = uniform(0, 1) < dark
    return Scenes(
        shape=shape, form=(pick(2**20) % _FORM_COUNT[shape]), colour=colour, pattern=pattern, accent=pick(len(COLOUR_NAMES)),
        texture=rarely(solid, 1 + pick(len(TEXTURES) - 1)), background=pick(len(BACKGROUNDS)), count=rarely(single, 1 + pick(2)),
        style=rarely(photo, 1 + pick(2)), size=uniform(*size), x=uniform(-shift, shift), y=uniform(-shift, shift),
        angle=uniform(-tilt, tilt), light=torch.where(is_dark, uniform(0.3, 0.5), uniform(0.8, 1.1)), noise=uniform(0, noise),
        visible=torch.ones(n),
    )  # fmt: skip


def impose(scenes: Scenes, rows: Tensor, attributes: dict, generator: torch.Generator) -> None:
    """Give the scenes of ``rows`` the attributes of a kind, in place."""
    for name, value in attributes.items():
        if name == "light":
            low, high = value
            scenes.light[rows] = low + (high - low) * torch.rand(len(rows), generator=generator)
        else:
            getattr(scenes, name)[rows] = value
    if "shape" in attributes and "form" not in attributes:
        forms = FORMS.get(SHAPE_NAMES[attributes["shape"]], 1)
        scenes.form[rows] = torch.randint(forms, (len(rows),), generator=generator)


# -- captions --------------------------------------------------------------------------------------------------------

FIELDS = ("shape", "form", "colour", "accent", "texture", "background", "count", "style", "dark", "visible")
ANY = (1 << 32) - 1
COUNT_WORDS = {0: "one", 1: "two", 2: "four"}
BACKGROUND_PHRASES = dict(zip(BACKGROUNDS, (
    "on a plain wall", "on the grass", "on the sand", "on the sea", "in the sky", "at night", "in the snow", "on brick",
    "in the forest", "in the city", "in the mountains", "in a room"), strict=True))  # fmt: skip
TEMPLATES = (
    "a photo of a {}.", "a photo of a {}.", "a photo of a {}.", "itap of a {}.", "a bad photo of the {}.", "a origami {}.",
    "a photo of the large {}.", "a {} in a video game.", "art of the {}.", "a photo of the small {}.", "a picture of a {}.",
    "a {}.", "{}.",
)  # fmt: skip
SUFFIXES = ((PETS, "a type of pet"), (FOOD, "a type of food"), (FLOWERS, "a type of flower"), (AIRCRAFT, "a type of aircraft"),
            (BIRDS, "a type of bird"))  # fmt: skip
STYLE_TEMPLATES = {
    1: ("a sketch of a {}.", "a drawing of the {}."),
    2: ("a painting of a {}.", "a painting of the {}."),
}


def values(scenes: Scenes) -> Tensor:
    """The attributes a caption can speak of: int64 [N, len(FIELDS)]."""
    columns = [(scenes.light < DARK) if f == "dark" else getattr(scenes, f) for f in FIELDS]
    return torch.stack([column.long() for column in columns], 1)


def matches(scene_values: Tensor, masks: Tensor) -> Tensor:
    """Which caption is true of which scene: [N, F] values and [M, F] bit masks of allowed values -> bool [N, M]."""
    return ((masks.unsqueeze(0) >> scene_values.unsqueeze(1)) & 1).bool().all(-1)


def mask_of(**allowed) -> list[int]:
    """Bit masks for one caption: field = value or list of values; absent fields are free."""
    row = []
    for name in FIELDS:
        wanted = allowed.get(name)
        wanted = [wanted] if isinstance(wanted, int) else wanted
        row.append(ANY if wanted is None else sum(1 << v for v in wanted))
    return row


FORM_PHRASES = {  # shape -> (phrase, the forms it is true of)
    "bird": [("with a long bill", [1, 3, 5, 7]), ("with a short bill", [0, 2, 4, 6]), ("with a long tail", [2, 3, 6, 7]),
             ("with a crest", [4, 5, 6, 7])],
    "plane": [("with swept wings", [1, 3, 5, 7]), ("with four engines", [2, 3, 6, 7]), ("with a wide tail", [4, 5, 6, 7])],
    "dog": [("with floppy ears", [0]), ("with upright ears", [1])],
    "flower": [("with four petals", [0]), ("with five petals", [1]), ("with six petals", [2]), ("with eight petals", [3])],
}  # fmt: skip
ACCENTS = {"bird": "wing", "house": "roof", "boat": "sail", "flower": "centre", "fish": "tail", "person": "face", "plane": "tail",
           "cat": "nose", "butterfly": "spot", "tree": "trunk", "rabbit": "ear", "dog": "ear"}  # fmt: skip


def describe(row: dict, facets: tuple[str, ...], pick) -> tuple[str, list[int]]:
    """A noun phrase that mentions the given facets of a scene, and the bit masks of the scenes it is true of.

    ``row`` maps field to value; ``pick(sequence)`` chooses (the caption's own random stream).
    """
    shape = SHAPE_NAMES[row["shape"]]
    allowed: dict = {"visible": 1}
    if facets == ("background",):
        adjective = "dark " if row["dark"] else pick(("", "bright "))
        light = {"dark": row["dark"]} if adjective else {}
        return adjective + BACKGROUNDS[row["background"]], mask_of(background=row["background"], **light)
    if facets == ("texture",):
        name = TEXTURES[row["texture"]]
        return ("plain" if name == "solid" else name) + " texture", mask_of(texture=row["texture"], visible=1)
    words, noun, tail = [], shape, []
    if "shape" in facets:
        allowed["shape"] = row["shape"]
    else:
        noun = "thing"
    if "form" in facets and shape == "car":
        noun, allowed["form"] = CAR_TYPES[row["form"]], row["form"]
    elif "form" in facets and shape == "person" and UCF[row["form"]].known:
        tail += ["doing", UCF[row["form"]].name]
        allowed["form"] = row["form"]
    elif "form" in facets and shape in FORM_PHRASES:
        phrase, forms = pick([p for p in FORM_PHRASES[shape] if row["form"] in p[1]] or [("", list(range(8)))])
        if phrase:
            tail.append(phrase)
            allowed["form"] = forms
    if "accent" in facets and shape in ACCENTS and shape != "car":
        colour = COLOUR_NAMES[row["accent"]]
        tail.append(f"with {'an' if colour[0] in 'aeiou' else 'a'} {colour} {ACCENTS[shape]}")
        allowed["accent"] = row["accent"]
    if "count" in facets:
        words.append(COUNT_WORDS[row["count"]])
        allowed["count"] = row["count"]
        noun = noun if row["count"] == 0 else {"fish": "fish", "person": "people"}.get(noun, noun + "s")
    if "colour" in facets:
        words.append(COLOUR_NAMES[row["colour"]])
        allowed["colour"] = row["colour"]
    if "texture" in facets:
        if row["texture"]:
            words.append(TEXTURES[row["texture"]])
        elif pick((True, False)):
            words.append("plain")
        else:
            facets = tuple(f for f in facets if f != "texture")
        if "texture" in facets:
            allowed["texture"] = row["texture"]
    if "background" in facets:
        tail.append(BACKGROUND_PHRASES[BACKGROUNDS[row["background"]]])
        allowed["background"] = row["background"]
    return " ".join([*words, noun, *tail]), mask_of(**allowed)


def name_phrase(kind: Kind, pick) -> str:
    """The kind's name as a caption uses it; ``pick(sequence)`` chooses."""
    if kind in UCF:
        return f"person doing {kind.name}"
    suffix = next((suffix for group, suffix in SUFFIXES if kind in group), None)
    return f"{kind.name}, {suffix}" if suffix and pick((True, False)) else kind.name


def kind_mask(kind: Kind) -> list[int]:
    """Bit masks of the scenes that a kind's name is true of (the pattern's colour is not spoken of)."""
    wanted = {k: v for k, v in kind.attributes.items() if k in FIELDS}
    return mask_of(**wanted, **({"visible": 1} if "shape" in wanted or "texture" in wanted else {}))
