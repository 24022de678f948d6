"""German grammar as in a school book, independent of the data of the corpus, which is tested against it.

A noun phrase is correct if one combination of case and number fits its article, its adjective, its noun and the
preposition that governs it.
"""

from __future__ import annotations

CASES = ("nom", "acc", "dat", "gen")
Reading = tuple[str, str]  # (gender m, f or n, or p for plural; case)


def word_list(words: str) -> list[str]:
    """The words of a text, separated by whitespace."""
    return words.split()


MASCULINE = word_list("""
Mann Hund Tisch Becher Freund Brief Garten Vogel Baum Apfel Lehrer Vater Schlüssel Hut Junge Regen Arzt Mantel Schläger
Wein Stuhl Wald Student Tee Nachbar Kuchen Bahnhof Ball Bruder Sturm Fluss Kranich Kran Käse Teller Bauer Ring Kaffee
Park Fisch Löffel Bus Polizist Saft Onkel Keller Berg Regenschirm Bär Laden Eimer Koch Lärm Verein Schuh Künstler Mond
Unterricht Zug Topf Bogen Plan Turm Markt Honig Krug Sänger Schrank Computer Stau Großvater Hammer Gast Anwalt Trainer
Reisebus Stern Rock Elefant Cousin Pirat Busch Bäcker See Schal Koffer Reis Stift Prinz Lastwagen Kessel Traum König
Sessel Handschuh Frosch Journalist Wolf Bericht Teppich Gärtner Affe Löwe Kellner Spiegel Soldat Korb Esel Morgen Abend
Tag Sonntag Moment Nachmittag""")
FEMININE = word_list("""
Frau Katze Tür Mutter Küche Kanne Geschichte Bank Schule Milch Flasche Lampe Kirche Zeitung Fledermaus Frage Suppe
Tasche Schwester Brücke Blume Robbe Schüssel Uhr Kuh Feier Großmutter Kiste Ziege Karte Pfeife Gitarre Tante Keule
Fahrkarte Schokolade Gabel Birne Schleife Maus Geige Krankenschwester Insel Marmelade Rose Bibliothek Wanne Halskette
Jacke Puppe Postkarte Vase Palme Handfläche Limonade Säge Mahlzeit Flöte Ente Mauer Banane Königin Locke Scheune Kamera
Leiter Zeitschrift Kartoffel Schlange Hitze Höhle Tomate Teekanne Decke Wolke Besprechung Münze Kerze Schublade
Woche""")
NEUTER = word_list("""
Haus Kind Buch Wasser Auto Brot Fenster Ufer Pferd Mädchen Messer Glas Siegel Bild Hemd Dorf Bett Fahrrad Badezimmer
Lied Kleid Spiel Streichholz Museum Klavier Geheimnis Tor Hotel Rohr Ei Büro Sofa Krankenhaus Theater Geschenk Bier
Schwein Problem Konzert Restaurant Brötchen Schloss Radio Schlafzimmer Telefon Gedicht Kaninchen Gehege Schiff Fass
Regal Tagebuch""")
GENDERS = {**dict.fromkeys(MASCULINE, "m"), **dict.fromkeys(FEMININE, "f"), **dict.fromkeys(NEUTER, "n")}
WEAK = word_list(
    "Junge Student Nachbar Bauer Polizist Bär Elefant Pirat Prinz Journalist Affe Löwe Soldat"
)  # masculine nouns with -n or -en in all cases but the nominative: den Studenten
SAME_PLURAL = word_list(
    """Becher Lehrer Schlüssel Fenster Schläger Messer Siegel Kuchen Badezimmer Schlafzimmer Mädchen Teller Löffel Onkel
    Keller Eimer Künstler Theater Sänger Computer Brötchen Bäcker Koffer Kaninchen Sessel Gärtner Kellner Spiegel Esel
    Lastwagen Kessel Ufer Trainer Käse Gehege"""
)
ADJECTIVES = word_list("""
alt klein groß jung schön neu rot gut glücklich weiß kalt schwer müd schwarz teur freundlich grün schmutzig sauber klug
frisch arm lang blau seltsam billig reich kaputt stark interessant warm berühmt dunkl hungrig gelb ruhig einfach
wertvoll krank modern mutig schwierig wütend rund traurig braun höflich nass hässlich leicht lustig nervös faul
vorsichtig gefährlich neugierig süß ehrlich hölzern einsam weich elegant wichtig hübsch""")

# Endings in the order of CASES.
ENDINGS = {
    "der": {"m": "der den dem des", "f": "die die der der", "n": "das das dem des", "p": "die die den der"},
    "ein": {"m": "- en em es", "f": "e e er er", "n": "- - em es", "p": "e e en er"},
    "dies": {"m": "er en em es", "f": "e e er er", "n": "es es em es", "p": "e e en er"},
    "weak": {"m": "e en en en", "f": "e e en en", "n": "e e en en", "p": "en en en en"},
    "mixed": {"m": "er en en en", "f": "e e en en", "n": "es es en en", "p": "en en en en"},
    "strong": {"m": "er en em en", "f": "e e er er", "n": "es es em en", "p": "e e en er"},
}
STEMS = {  # stem of a determiner: endings, genders it is used in, endings of the adjective after it
    "ein": ("ein", "mfn", "mixed"),
    "kein": ("ein", "mfnp", "mixed"),
    "mein": ("ein", "mfnp", "mixed"),
    "unser": ("ein", "mfnp", "mixed"),
    "dies": ("dies", "mfnp", "weak"),
    "jed": ("dies", "mfn", "weak"),
    "viel": ("dies", "p", "strong"),
    "einig": ("dies", "p", "strong"),
}
CONTRACTED = {"im": "in dem", "am": "an dem", "zum": "zu dem", "zur": "zu der", "vom": "von dem", "beim": "bei dem"}
CONTRACTED |= {"ins": "in das", "ans": "an das"}
GOVERNED = {"in auf unter hinter vor neben an": "acc dat", "zu aus nach von bei": "dat", "während trotz wegen": "gen"}
GOVERNED |= {"über": "acc"}
PREPOSITIONS = {word: set(cases.split()) for words, cases in GOVERNED.items() for word in words.split()}


def _table() -> tuple[dict[str, set[Reading]], dict[str, str], dict[str, dict[str, set[Reading]]]]:
    """Readings of each determiner, the declension of an adjective after it, and the readings of adjective endings."""
    determiners: dict[str, set[Reading]] = {}
    declensions: dict[str, str] = {}
    for gender, row in ENDINGS["der"].items():
        for case, form in zip(CASES, row.split(), strict=True):
            determiners.setdefault(form, set()).add((gender, case))
            declensions[form] = "weak"
    for stem, (kind, genders, adjective) in STEMS.items():
        for gender in genders:
            for case, ending in zip(CASES, ENDINGS[kind][gender].split(), strict=True):
                form = stem + ending.strip("-")
                determiners.setdefault(form, set()).add((gender, case))
                declensions[form] = adjective
    determiners["zwei"] = {("p", case) for case in CASES}
    declensions["zwei"] = "strong"
    adjectives = {
        kind: {
            ending: {
                (g, c)
                for g, row in ENDINGS[kind].items()
                for c, e in zip(CASES, row.split(), strict=True)
                if e == ending
            }
            for ending in ("e", "en", "er", "es", "em")
        }
        for kind in ("weak", "mixed", "strong")
    }
    return determiners, declensions, adjectives


DETERMINERS, ADJECTIVE_DECLENSIONS, ADJECTIVE_READINGS = _table()
ADJECTIVE_FORMS = {stem + ending: ending for stem in ADJECTIVES for ending in ("e", "en", "er", "es", "em")}


def noun_readings(noun: str) -> set[Reading]:
    """All readings that the form of a noun allows: der Mann, des Mannes, den Männern."""
    readings: set[Reading] = set()
    gender = GENDERS.get(noun)
    if gender:
        cases = ("nom",) if noun in WEAK else CASES if gender == "f" else CASES[:3]
        readings |= {(gender, case) for case in cases}
    for ending in ("s", "es", "ses"):
        if noun.endswith(ending) and GENDERS.get(noun.removesuffix(ending), "f") != "f":
            readings.add((GENDERS[noun.removesuffix(ending)], "gen"))
    for ending in ("n", "en"):
        if noun.endswith(ending) and noun.removesuffix(ending) in WEAK:
            readings |= {("m", case) for case in CASES[1:]}
    if gender is None or noun in SAME_PLURAL:
        readings |= {("p", case) for case in CASES if case != "dat" or noun[-1] in "ns"}
    return readings


class NounPhrase:
    """A noun phrase in a sentence: its start and end (indices of words) and its possible readings."""

    def __init__(self, words: list[str], start: int):
        self.start, index = start, start
        self.determiner = words[index] if words[index] in DETERMINERS else None
        index += self.determiner is not None
        adjective = words[index] if words[index] in ADJECTIVE_FORMS else None
        index += adjective is not None
        self.noun = words[index]
        self.end = index + 1
        self.readings = noun_readings(self.noun)
        if self.determiner:
            self.readings &= DETERMINERS[self.determiner]
        if adjective:
            kind = ADJECTIVE_DECLENSIONS[self.determiner] if self.determiner else "strong"
            self.readings &= ADJECTIVE_READINGS[kind][ADJECTIVE_FORMS[adjective]]
        self.preposition = words[start - 1] if start and words[start - 1] in PREPOSITIONS else None
        if self.preposition and not (self.preposition == "während" and start > 1 and words[start - 2] == ","):
            self.readings = {reading for reading in self.readings if reading[1] in PREPOSITIONS[self.preposition]}

    @property
    def cases(self) -> set[str]:
        return {case for _, case in self.readings}


def expand_contractions(words: tuple[str, ...]) -> list[str]:
    """The words with contractions expanded (im: in dem) and the first one in lower case, unless it is a noun."""
    first = words[0] if words[0] in GENDERS else words[0][0].lower() + words[0][1:]
    return [part for word in (first, *words[1:]) for part in CONTRACTED.get(word, word).split()]


def relative_pronouns(words: list[str]) -> set[int]:
    """Indices of relative pronouns. Relative clauses must not be nested: the next comma is taken as the end of one."""
    found: set[int] = set()
    inside = False
    for index, word in enumerate(words):
        if word == ",":
            start = index + 1 + (words[index + 1] in PREPOSITIONS and words[index + 1] != "während")
            inside = not inside and words[start] in ("der", "die", "das", "den", "dem", "denen")
            found |= {start} if inside else set()
    return found


def noun_phrases(words: list[str]) -> list[NounPhrase]:
    """All noun phrases with a determiner or an adjective."""
    found: list[NounPhrase] = []
    pronouns = relative_pronouns(words)
    index = 0
    while index < len(words):
        noun = index + (words[index] in DETERMINERS and index not in pronouns)
        noun += noun < len(words) and words[noun] in ADJECTIVE_FORMS
        if noun > index and noun < len(words) and words[noun][0].isupper():
            found.append(NounPhrase(words, index))
            index = found[-1].end
        else:
            index += 1
    return found
