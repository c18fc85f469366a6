"""Words that speak of what can be seen, and words that speak of what cannot."""

from __future__ import annotations

import re

VISUAL = frozenset(
    # colours and light
    """amber auburn beige black blackish blue bluish brindle bronze brown brownish buff buffy charcoal chestnut chocolate
    cinnamon colour coloured colouring colours copper cream creamy crimson dark darker dusky ebony emerald fawn ginger gold
    golden gray green greenish grey greyish indigo iridescent ivory lavender lemon lilac lime magenta mahogany maroon mustard
    ochre olive orange pale paler peach pink pinkish plum purple purplish red reddish rose rosy ruby rufous russet rust rusty
    salmon sandy scarlet silver silvery slate sooty straw tan tawny teal turquoise vermilion violet white whitish yellow
    yellowish bright brighter brilliant clear deep dull faint glossy gleaming light matt muted pure rich shaded shadow shining
    shiny soft tint tinted translucent vivid warm glow glowing creamy-white monochrome drawn drawing outline painted
    background picture
    """
    # shape and size
    """angular arched big blocky blunt boxy broad bulky bulging chunky circle circular compact conical curved curving deep-set
    domed elongated fat fine flat flattened forked heart heavy hooked huge kidney knobbly large lean leggy little long longer
    low massive medium muscular narrow notched oblong oval pear-shaped plump pointed ribbed ring round rounded shape shaped
    shaggy sharp short shorter skinny slanted slender slightly slim small smaller spherical spindle square squat stocky stout
    straight stubby sturdy tall tapered tapering thick thickset thin tiny triangle triangular tubular twisted upright wedge
    wide wrinkled five-pointed star diamond cross crescent arrow moon point points corner corners arm arms horizontal vertical
    """
    # pattern and surface
    """band banded bands bar barred bars bicolour blaze blotch blotches bold border checked contrast contrasting crosshatched
    dappled dense dimpled dots dotted downy edge edged edges feathered feathering fluffy freckled freckles fringe fringed
    furrowed fuzzy glistening hairless juicy line lines mark marked marking markings marks mottled mottling patch patches
    pattern patterned plain pleated ruffled scaly scalloped scruffy shimmering silky sleek smooth solid speckled speckles spot
    spots spotted streak streaked streaks striped stripe stripes stripy tabby textured ticked ticking tip tipped tips uniform
    veined velvety waxy wavy webbed wiry woolly wrinkles bumpy coarse crinkled curly hard leathery pitted rough
    """
    # parts of animals, fruit and drawn things
    """antenna antennae back beak beard belly bib bill body breast brow brows cap cheek cheekbones cheeks chest chin claws coat
    collar crest crown ear ears eye eyebrow eyebrows eyed eyes face faced feather feathers feet fin fins flank flanks flesh
    foot forehead forelegs frame fur furnishings hair haired head hindquarters hood jaw jaws jowl jowls leaf leaves leg legged
    legs lips lores mane mantle mask moustache mouth muzzle nape neck nose nostrils paw paws peel pit plumage plume plumes pulp
    rind ruff rump saddle seed seeds segment segments shoulder shoulders side sides silhouette skin skull snout stalk stem
    tail tailed throat toes topknot tufts undercoat underparts underside upperparts whiskers wing winged wings wingtips core
    calyx cluster crosscut fibres flower petal petals shell slice sliced stalks wheel wheels window windows
    """.split()
)

# what a picture does not show; whole words, in lower case
UNSEEN = re.compile(
    r"\b(?:songs?|sings?|singing|calls?|calling|voices?|sounds?|barks?|barking|meows?|purrs?|purring|chirps?|vocal\w*|"
    r"habitats?|forests?|woodlands?|wetlands?|migrat\w+|nests?|nesting|lays?|eggs|feeds? on|feeding on|diets?|eats?|eating|"
    r"preys? on|hunts?|hunting|forag\w+|insects|behaviou?rs?|temperaments?|personalit\w+|friendly|loyal|playful|"
    r"affectionate|intelligen\w+|gentle nature|life ?spans?|lives? for|years old|weighs?|weights?|kilograms?|kg|lbs?|pounds|"
    r"ounces|grams|tastes?|tasting|flavou?rs?|flavou?red|sweet|sour|tart|smells?|fragran\w+|aromas?|aromatic|vitamins?|"
    r"origins?|originat\w+|native to|popular|famous)\b",
    re.IGNORECASE,
)


def words(sentence: str) -> list[str]:
    """The words of a sentence in lower case; hyphens part them, apostrophes do not."""
    return re.findall(r"[^\W_]+(?:['’][^\W_]+)*", sentence.lower())


def visual_words(sentence: str) -> set[str]:
    """The words of a sentence that name something to be seen."""
    return VISUAL.intersection(words(sentence))
