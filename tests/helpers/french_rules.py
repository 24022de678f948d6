"""French grammar as in a school book, independent of the data of the corpus, which is tested against it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.helpers.german_rules import word_list

MASCULINE = word_list("""
homme enfant chien livre gobelet ami chat jardin pain oiseau arbre professeur père cheval lait chapeau garçon médecin
manteau journal vin sac couteau étudiant thé verre pont phoque sceau voisin gâteau tableau bol ballon frère village lit
fromage vélo fermier café parc match musée poisson piano secret bus policier portail hôtel jus tuyau oncle œuf parapluie
bureau ours magasin seau cuisinier bruit club canapé billet chocolat hôpital artiste cours train théâtre arc ruban
projet violon marché cadeau miel pichet chanteur ordinateur embouteillage grand-père marteau invité collier cochon
problème concert avocat entraîneur autocar restaurant sandwich château éléphant vase cousin palmier pirate téléphone
buisson poème lapin boulanger lac riz repas stylo enclos canard prince camion rêve mur roi fauteuil gant banc
journaliste appareil navire loup rapport tapis jardinier magazine singe serpent tonneau lion serveur nuage miroir
soldat panier âne tiroir moment après-midi matin soir""")
FEMININE = word_list("""
femme maison table lettre porte eau voiture mère cuisine pomme cruche clé histoire fenêtre rive banque école bouteille
pluie lampe église fille chauve-souris batte chaise question soupe forêt sœur fleur gare chemise horloge tempête rivière
grue assiette vache bague salle chanson fête robe grand-mère allumette boîte cuillère chèvre carte pipe cave montagne
guitare tante massue chaussure fourchette lune poire casserole souris tour infirmière armoire île confiture rose
bibliothèque bière bassine veste poupée étoile jupe radio chambre paume limonade scie écharpe valise flûte bouilloire
banane reine grenouille serrure mèche grange échelle chaleur grotte tomate théière couverture étagère réunion pièce
bougie semaine""")
GENDERS = {**dict.fromkeys(MASCULINE, "m"), **dict.fromkeys(FEMININE, "f")}
SAME_PLURAL = word_list("bus jus ours cours souris chauve-souris riz repas enclos tapis")
IRREGULAR_PLURALS = {
    "chauves-souris": "chauve-souris",
    "grands-mères": "grand-mère",
    "grands-pères": "grand-père",
    **{f"{stem}aux": f"{stem}al" for stem in ("chev", "journ", "hôpit")},
    **{
        f"{noun}x": noun
        for noun in word_list(
            "oiseau chapeau manteau couteau sceau gâteau tableau tuyau bureau seau marteau cadeau château tonneau eau"
        )
    },
}
FEMININE_ADJECTIVES = {
    word.partition("/")[0]: word.partition("/")[2]
    for word in word_list("""
petit/petite grand/grande jeune/jeune joli/jolie rouge/rouge heureux/heureuse froid/froide lourd/lourde noir/noire
fatigué/fatiguée cher/chère vert/verte sale/sale propre/propre intelligent/intelligente pauvre/pauvre bleu/bleue
étrange/étrange riche/riche cassé/cassée fort/forte intéressant/intéressante chaud/chaude célèbre/célèbre
sombre/sombre affamé/affamée jaune/jaune calme/calme simple/simple précieux/précieuse malade/malade moderne/moderne
difficile/difficile courageux/courageuse furieux/furieuse rond/ronde triste/triste brun/brune poli/polie
mouillé/mouillée laid/laide léger/légère drôle/drôle nerveux/nerveuse paresseux/paresseuse prudent/prudente
dangereux/dangereuse curieux/curieuse sucré/sucrée honnête/honnête solitaire/solitaire élégant/élégante
important/importante plein/pleine vide/vide vieux/vieille beau/belle neuf/neuve bon/bonne blanc/blanche
gentil/gentille frais/fraîche long/longue doux/douce""")
}
BEFORE_NOUN = {"petit", "grand", "jeune", "joli", "vieux", "beau", "bon", "long"}
BEFORE_VOWEL = {"vieil": "vieux", "bel": "beau"}

Reading = tuple[str, str]  # (gender m or f, number s or p)
ALL: set[Reading] = {("m", "s"), ("f", "s"), ("m", "p"), ("f", "p")}


_DETERMINERS: dict[str, set[Reading]] = {
    "le un ce cet du au": {("m", "s")},
    "la une cette ma": {("f", "s")},
    "l' chaque notre mon": {("m", "s"), ("f", "s")},
    "les des ces mes nos aux quelques deux": {("m", "p"), ("f", "p")},
    "de d'": ALL,
}
DETERMINERS = {word: readings for words, readings in _DETERMINERS.items() for word in words.split()}


def is_vowel(word: str) -> bool:
    """Whether a word begins with a vowel sound. No word of the corpus has an aspirated h."""
    return word[0].lower() in "aeiouhâàéèêîôœ"


def noun_readings(word: str) -> set[Reading]:
    """The readings of a noun; empty if it is none."""
    if word in IRREGULAR_PLURALS:
        return {(GENDERS[IRREGULAR_PLURALS[word]], "p")}
    if word in SAME_PLURAL:
        return {(GENDERS[word], "s"), (GENDERS[word], "p")} - ({(GENDERS[word], "p")} if "-" in word else set())
    if word in GENDERS:
        return {(GENDERS[word], "s")}
    regular = word.endswith("s") and word[:-1] in GENDERS and f"{word[:-1]}x" not in IRREGULAR_PLURALS
    return {(GENDERS[word[:-1]], "p")} if regular else set()


def _adjectives() -> dict[str, tuple[str, set[Reading]]]:
    found: dict[str, tuple[str, set[Reading]]] = {}
    for masculine, feminine in FEMININE_ADJECTIVES.items():
        plural = masculine if masculine[-1] in "sx" else f"{masculine}x" if masculine == "beau" else f"{masculine}s"
        readings: dict[Reading, str] = {
            ("m", "s"): masculine,
            ("f", "s"): feminine,
            ("m", "p"): plural,
            ("f", "p"): f"{feminine}s",
        }
        for reading, form in readings.items():
            found.setdefault(form, (masculine, set()))[1].add(reading)
    found |= {short: (masculine, {("m", "s")}) for short, masculine in BEFORE_VOWEL.items()}
    return {**found, "bon-marché": ("bon-marché", ALL)}


ADJECTIVES = _adjectives()
"""Form -> its masculine singular, and its readings."""


@dataclass(frozen=True)
class NounPhrase:
    """A noun phrase with a determiner or de; `readings` are the genders and numbers that fit all of its words."""

    start: int
    end: int
    determiner: str
    adjectives: tuple[tuple[str, bool], ...]  # each with whether it stands before the noun
    noun: str
    readings: frozenset[Reading]


def lower_first(words: tuple[str, ...]) -> list[str]:
    """The words, the first one in lower case, and bon marché (cheap), which never changes, as one word."""
    text = "\n".join(words).replace("bon\nmarché", "bon-marché")
    return (text[0].lower() + text[1:]).split("\n")


def noun_phrases(words: list[str]) -> list[NounPhrase]:
    """All noun phrases with a determiner or de: a noun without one can be a verb (la porte, il porte)."""
    found = []
    for index, noun in enumerate(words):
        start = index
        while start and words[start - 1] in ADJECTIVES:
            start -= 1
        determiner = words[start - 1] if start else ""
        if not noun_readings(noun) or determiner not in DETERMINERS:
            continue
        readings = noun_readings(noun) & DETERMINERS[determiner]
        end = index + 1
        for compound in COMPOUNDS:
            if words[index : index + len(compound)] == compound:
                end = index + len(compound)
        before = [(word, True) for word in words[start:index]]
        after = [(word, False) for word in words[end : end + 1] if word in ADJECTIVES]
        for adjective, _ in (*before, *after):
            readings &= ADJECTIVES[adjective][1]
        found.append(NounPhrase(start - 1, end + len(after), determiner, (*before, *after), noun, frozenset(readings)))
    return found


COMPOUNDS = [
    words.split()
    for words in """salle de bains;salles de bains;carte postale;cartes postales;appareil photo;appareils photo;
pomme de terre;pommes de terre;journal intime;journaux intimes""".replace("\n", "").split(";")
]


PLURAL = re.compile(r"(ent|ont)$")
SINGULAR_IN_ENT = {"vient", "revient", "tient", "maintient"}


def is_plural_verb(word: str) -> bool:
    """Whether a finite form of the third person is plural: ils mangent, ont, seront."""
    return bool(PLURAL.search(word)) and word not in SINGULAR_IN_ENT


def participle_readings(word: str) -> set[Reading]:
    """Genders and numbers that a participle can have by its ending."""
    if word.endswith("es"):
        return {("f", "p")}
    if word.endswith("e"):
        return {("f", "s")}
    if word in ("pris", "mis", "compris", "promis", "assis"):
        return {("m", "s"), ("m", "p")}
    return {("m", "p" if word.endswith("s") else "s")}
