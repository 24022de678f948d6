"""German as a school grammar has it, written down apart from the data of the corpus, to check what that data says.

A noun phrase is right if some case and number fits its article, its adjective, its noun and what governs it.
"""

from __future__ import annotations

CASES = ("nom", "acc", "dat", "gen")
Reading = tuple[str, str]  # (m, f, n or p for the plural; case)


def listed(words: str) -> list[str]:
    """The words of a table."""
    return words.split()


MASCULINE = listed("""
Mann Hund Tisch Becher Freund Brief Garten Vogel Baum Apfel Lehrer Vater Schlüssel Hut Junge Regen Arzt Mantel Schläger
Wein Stuhl Wald Student Tee Nachbar Kuchen Bahnhof Ball Bruder Sturm Fluss Kranich Kran Käse Teller Bauer Ring Kaffee
Park Fisch Löffel Bus Polizist Saft Onkel Keller Berg Regenschirm Bär Laden Eimer Koch Lärm Verein Schuh Künstler Mond
Unterricht Zug Topf Bogen Plan Turm Markt Honig Krug Sänger Schrank Computer Stau Großvater Hammer Gast Anwalt Trainer
Reisebus Stern Rock Elefant Cousin Pirat Busch Bäcker See Schal Koffer Reis Stift Prinz Lastwagen Kessel Traum König
Sessel Handschuh Frosch Journalist Wolf Bericht Teppich Gärtner Affe Löwe Kellner Spiegel Soldat Korb Esel Morgen Abend
Tag Sonntag Moment Nachmittag""")
FEMININE = listed("""
Frau Katze Tür Mutter Küche Kanne Geschichte Bank Schule Milch Flasche Lampe Kirche Zeitung Fledermaus Frage Suppe
Tasche Schwester Brücke Blume Robbe Schüssel Uhr Kuh Feier Großmutter Kiste Ziege Karte Pfeife Gitarre Tante Keule
Fahrkarte Schokolade Gabel Birne Schleife Maus Geige Krankenschwester Insel Marmelade Rose Bibliothek Wanne Halskette
Jacke Puppe Postkarte Vase Palme Handfläche Limonade Säge Mahlzeit Flöte Ente Mauer Banane Königin Locke Scheune Kamera
Leiter Zeitschrift Kartoffel Schlange Hitze Höhle Tomate Teekanne Decke Wolke Besprechung Münze Kerze Schublade
Woche""")
NEUTER = listed("""
Haus Kind Buch Wasser Auto Brot Fenster Ufer Pferd Mädchen Messer Glas Siegel Bild Hemd Dorf Bett Fahrrad Badezimmer
Lied Kleid Spiel Streichholz Museum Klavier Geheimnis Tor Hotel Rohr Ei Büro Sofa Krankenhaus Theater Geschenk Bier
Schwein Problem Konzert Restaurant Brötchen Schloss Radio Schlafzimmer Telefon Gedicht Kaninchen Gehege Schiff Fass
Regal Tagebuch""")
GENDERS = {**dict.fromkeys(MASCULINE, "m"), **dict.fromkeys(FEMININE, "f"), **dict.fromkeys(NEUTER, "n")}
WEAK = listed(
    "Junge Student Nachbar Bauer Polizist Bär Elefant Pirat Prinz Journalist Affe Löwe Soldat"
)  # den Studenten
SAME_PLURAL = listed(
    """Becher Lehrer Schlüssel Fenster Schläger Messer Siegel Kuchen Badezimmer Schlafzimmer Mädchen Teller Löffel Onkel
    Keller Eimer Künstler Theater Sänger Computer Brötchen Bäcker Koffer Kaninchen Sessel Gärtner Kellner Spiegel Esel
    Lastwagen Kessel Ufer Trainer Käse Gehege"""
)
ADJECTIVES = listed("""
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
    """Readings of every determiner, the endings it asks of an adjective, and the readings of those endings."""
    determiners: dict[str, set[Reading]] = {}
    asks: dict[str, str] = {}
    for gender, row in ENDINGS["der"].items():
        for case, form in zip(CASES, row.split(), strict=True):
            determiners.setdefault(form, set()).add((gender, case))
            asks[form] = "weak"
    for stem, (kind, genders, adjective) in STEMS.items():
        for gender in genders:
            for case, ending in zip(CASES, ENDINGS[kind][gender].split(), strict=True):
                form = stem + ending.strip("-")
                determiners.setdefault(form, set()).add((gender, case))
                asks[form] = adjective
    determiners["zwei"] = {("p", case) for case in CASES}
    asks["zwei"] = "strong"
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
    return determiners, asks, adjectives


DETERMINERS, ASKS, ADJECTIVE_READINGS = _table()
ADJECTIVE_FORMS = {stem + ending: ending for stem in ADJECTIVES for ending in ("e", "en", "er", "es", "em")}


def noun_readings(noun: str) -> set[Reading]:
    """What a noun can be by its form: der Mann, des Mannes; den Männern."""
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
    """A noun phrase found in a sentence: where it starts and ends, and what it can be."""

    def __init__(self, words: list[str], start: int):
        self.start, place = start, start
        self.determiner = words[place] if words[place] in DETERMINERS else None
        place += self.determiner is not None
        adjective = words[place] if words[place] in ADJECTIVE_FORMS else None
        place += adjective is not None
        self.noun = words[place]
        self.end = place + 1
        self.readings = noun_readings(self.noun)
        if self.determiner:
            self.readings &= DETERMINERS[self.determiner]
        if adjective:
            kind = ASKS[self.determiner] if self.determiner else "strong"
            self.readings &= ADJECTIVE_READINGS[kind][ADJECTIVE_FORMS[adjective]]
        self.preposition = words[start - 1] if start and words[start - 1] in PREPOSITIONS else None
        if self.preposition and not (self.preposition == "während" and start > 1 and words[start - 2] == ","):
            self.readings = {reading for reading in self.readings if reading[1] in PREPOSITIONS[self.preposition]}

    @property
    def cases(self) -> set[str]:
        return {case for _, case in self.readings}


def spread(words: tuple[str, ...]) -> list[str]:
    """The words in lower case where the sentence begins, with im as in dem."""
    first = words[0] if words[0] in GENDERS else words[0][0].lower() + words[0][1:]
    return [part for word in (first, *words[1:]) for part in CONTRACTED.get(word, word).split()]


def relative_pronouns(words: list[str]) -> set[int]:
    """Where relative clauses begin, if none stands inside another: the comma after one ends it."""
    found: set[int] = set()
    inside = False
    for place, word in enumerate(words):
        if word == ",":
            start = place + 1 + (words[place + 1] in PREPOSITIONS and words[place + 1] != "während")
            inside = not inside and words[start] in ("der", "die", "das", "den", "dem", "denen")
            found |= {start} if inside else set()
    return found


def noun_phrases(words: list[str]) -> list[NounPhrase]:
    """Every determiner or adjective with the noun that follows it."""
    found: list[NounPhrase] = []
    pronouns = relative_pronouns(words)
    place = 0
    while place < len(words):
        inner = place + (words[place] in DETERMINERS and place not in pronouns)
        inner += inner < len(words) and words[inner] in ADJECTIVE_FORMS
        if inner > place and inner < len(words) and words[inner][0].isupper():
            found.append(NounPhrase(words, place))
            place = found[-1].end
        else:
            place += 1
    return found
