"""Owns the word lists of the generated text, most usual first. It knows no sentence."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


HER = _words("Mia Anna Lena Nora Ella Ruby Zoe Ida Clara Maya Rosa Emma Lily Sara Eva Tara Nina Amy Julia Vera")
HIM = _words("Tom Ben Leo Max Sam Jack Paul Omar Finn Hugo Adam Ivan Noah Luke Emil Karl Oscar Theo Felix Arun")
NAMES = tuple(name for pair in zip(HER, HIM, strict=True) for name in pair)

ITEMS = _words(
    "apples marbles cards stamps coins shells books pencils cookies stickers eggs pears beads nuts buttons plums"
)
ANIMALS = _words("fox cat bear mouse rabbit owl dog duck frog wolf hedgehog goat turtle horse crow squirrel")
PLACES = _words("forest village garden meadow river mountain valley harbour market island lake castle")
OBJECTS = _words("key lantern map ring bell book hat drum kite shell boat scarf clock coin")
WEATHERS = _words("sunny rainy windy snowy foggy cold warm quiet stormy bright")
MOODS = _words("happy curious brave shy sleepy proud lonely cheerful hungry gentle clever tired")
JOBS = _words("baker teacher gardener sailor painter doctor farmer tailor pilot cook singer carpenter")
CITIES = _words("Paris Oslo Rome Cairo Lima Tokyo Delhi Lisbon Vienna Dublin Quito Seoul Athens Prague")
LIKES = _words("tea music chess bread stars rain trains honey maps dancing cheese flowers soup rivers")
COLOURS = _words("blue red green yellow purple orange white black silver pink brown golden")
FRUITS = _words("apple banana pear cherry mango plum grape peach lemon orange melon fig")
PETS = _words("Luna Coco Milo Bella Rocky Daisy Pepper Simba Ginger Nala Teddy Oreo Hazel Biscuit Mochi Shadow")


def pronoun(name: str) -> str:
    return "She" if name in HER else "He"
