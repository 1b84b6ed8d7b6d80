"""Made-up records in the schema of openbmb/UltraFeedback, as long and as dirty as upstream's, for `benchmarks.data`.

The text is English to a language detector and nonsense to a reader: sentence patterns filled with common words.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from rlhf_lib.common.rows import write_jsonl
from rlhf_lib.demo.gold import ASPECTS

RawRow = dict[str, Any]

# How many records upstream has of each source.
SOURCES = {"evol_instruct": 10_000, "false_qa": 2_339, "flan": 20_939, "sharegpt": 19_949}
SOURCES |= {"truthful_qa": 811, "ultrachat": 9_929}
MODELS = ("alpaca-7b", "bard", "falcon-40b-instruct", "gpt-4", "llama-2-7b-chat", "pythia-12b", "wizardlm-13b")
COMPLETIONS = 4
PRINCIPLES = ("helpfulness", "honesty", "truthfulness", "verbalized_calibration")

# Mean characters; those of prompts and responses are upstream's.
PROMPT, RESPONSE, CRITIQUE, RATIONALE, SYSTEM_PROMPT = 670, 1200, 900, 290, 180
PROMPT_SPREAD = 1.1  # standard deviation of the logarithm: the median is 365 characters
LONGEST = 8000
SHORT = 40  # characters; below, a response is one of SHORT_ANSWERS

# Shares of the prompts; of the completions, and of the ratings.
DUPLICATE_PROMPTS, FOREIGN_PROMPTS = 0.03, 0.05
FOREIGN_RESPONSES, EMPTY_RESPONSES, NULL_SCORES, WRONG_TENS, NO_RATING = 0.03, 0.002, 0.002, 0.001, 0.01
REMEMBERED = 5_000  # prompts that a later one may repeat

STOCK = 30_000  # English sentences, which the texts are put together from
GAPS = (" ", " ", " ", " ", "\n\n")  # what follows a sentence
WORDS = {
    "noun": """account actor advantage agreement airport animal answer apple arrangement artist attempt award bag bank
bar battle bed benefit block bond border bowl breath bridge budget building cable camera cancer candidate card career
cat cause chain challenge channel chapter chemical choice citizen claim clock cloud coat code college column committee
comparison computer concert conflict corner cost course court credit crop cup curtain daughter deal decade degree demand
department desk detail dinner direction discussion document dog door dream drug economist effect effort element emotion
engine error estimate event exercise experiment factor failure farmer feature figure film flag floor formula friend
function gift girl government graph guest guide hall hand heart hill hospital hotel house image inventor issue jacket
job judge key lake language lawyer letter level line lion loan magazine market material meeting member minute mirror
moment month motor museum neighbor network nurse object officer opinion orange order organization page paper park
partner payment pen phone photograph pilot plan plant plate poet point post price prison problem program project
proposal purpose quarter question reader recipe record report request restaurant result river rocket room route sale
sample school science season secret sensor sentence shape ship sister situation skill solution song source speaker
square stage station step street structure suggestion summer survey system target task telescope temple text theater
ticket title tool town trader train tree trial trip tunnel type unit user value vehicle village visitor wage wall week
wheel window word writer yard""",
    "verb": """accept achieve add admire adopt allow announce appear arrange arrest assume attack attend balance belong
blame boil borrow bother calculate challenge change charge check choose clear close collect combine complain complete
concern connect consider continue contribute cook correct count damage decide decline defend delay demand describe
design determine develop display divide doubt educate enable encourage end enjoy enter exist expand expect explain
explore extend fail fear fill follow form gain gather help hope ignore imagine improve include influence inform inspire
install invent invite join kill last lead learn limit list maintain manage mark matter measure move need note notice
observe offer open operate organize own perform plant play point prevent print produce promise propose prove provide
question raise receive recognize recommend record reflect regard remain remember remind remove replace represent require
resolve respond return reveal save seem separate serve settle share smile start state store suggest support survive test
threaten train travel treat trust use visit wait walk want warn""",
    "adj": """able active actual angry apparent bad basic bitter black brief bright busy calm central chemical clean
clever cold complex crucial daily dead deep difficult dirty eager early efficient electric equal exact extra fair famous
fast fine firm first formal free full general good grand happy hard helpful high hot huge important independent initial
interesting late likely local long loud lucky major medical narrow national negative new normal northern official old
original particular personal physical pleasant popular possible practical private proud quick rapid raw real red regular
responsible rich royal rural scientific secret serious sharp similar simple small smart social southern special standard
steep successful sudden tall technical tiny tired tough true unusual useful valuable vast weak wet whole wild wrong""",
    "adv": """actually again almost already always carefully certainly clearly completely directly easily especially
eventually exactly finally generally gradually hardly indeed instead later mainly mostly naturally nearly never often
once only partly perhaps probably quickly quietly rarely really recently seldom simply slowly sometimes soon still
suddenly then therefore together too usually very""",
    "name": """Africa Alice America Australia Boston Canada Charles Chicago Egypt Emma Europe France George Greece Helen
India Ireland James John London Mexico Oxford Paris Robert Rome Scotland Spain Texas Turkey Washington""",
}
PATTERNS = """The {adj} {noun} {verb}ed the {noun} of the {noun}s, and it was {adj} for the {adj} {noun}s.
In {number}, the {noun} {verb}ed by {name} {adv} {verb}ed more than {number} {noun}s in the {adj} {noun}.
There are {number} {noun}s that {verb} the {noun}, but only {number} of them are {adj}.
It is {adj} to {verb} the {noun} when you want to {verb} the {noun}s with your {adj} {noun}.
For example, the {noun} in {name} was {adj}, which is why they {verb}ed the {adj} {noun}.
However, this does not mean that every {noun} should {verb} or that the {noun}s are {adj}.
First, you need to {verb} the {noun} and then {verb} it with the {adj} {noun}s.
We have {verb}ed the {noun}s in our {noun}, so that they can {verb} what is {adj} about it.
Many {noun}s are {verb}ing the {noun}, although some of them have {adv} {verb}ed to be {adj}.
On the other hand, {verb}ing the {noun} can be very {adj} for {noun}s who {verb} their {noun}.
You can {verb} the {noun} by {verb}ing the {noun}s from the {noun} to the {noun}.
What the {noun} {verb}s is that {adj} {noun}s would {verb} with the {adj} {noun} at once.
The {noun} and the {noun} are both {adj}, since they {verb} the same {noun}s as the {noun} in {name}.
I think that the {noun} is {adj}, but I am not sure whether it {verb}s the {noun}s.
When the {adj} {noun} {verb}ed, nobody in the {noun} could {verb} how {adj} the {noun}s were.
The most {adj} {noun} is the one that {verb}s the {noun}s without {verb}ing any of the {adj} {noun}.
It also {verb}s the {noun}, the {noun} and the {noun}, which makes the {noun}s more {adj} than before.
By {verb}ing the {adj} {noun}, the {noun}s were able to {verb} their {noun} and {verb} the {adj} {noun}.
In other words, {noun}s that are {adj} {verb} the {noun} better than {noun}s that are not.
She {verb}ed him to {verb} the {noun} as soon as the {noun}s had been {verb}ed.
**{adj} {noun}**: {verb} the {noun}s, so that the {noun} is {adv} {adj}.""".splitlines()
QUESTIONS = """How does the {adj} {noun} {verb} the {noun}s in the {noun}?
Why did the {noun} {verb} the {adj} {noun}s when the {noun} had {verb}ed?
Write a short story about the {adj} {noun} that {verb}ed the {noun}s of {name}.
Explain in {number} words how {adj} {noun}s {verb} the {noun} of the {noun}.
What is the difference between the {adj} {noun} and the {noun} that {verb}s the {noun}s?
Can you {verb} the {adj} {noun} of {name} without {verb}ing the {noun}s?
Give me {number} ideas for {verb}ing the {adj} {noun} with {noun}s.
Which {noun}s would you {verb} if the {noun} were {adj} and {name} had {verb}ed it?
Summarize the {noun} below, and {verb} every {noun} that is {adj}.
Is it true that the {adj} {noun} {verb}s {number} {noun}s in {name}?""".splitlines()
SHORT_ANSWERS = ("No.", "Yes.", "It is true.", "I do not know.", "Option 2", "{number}", "In {number}.")
ENGLISH = "en"
FOREIGN = {
    "de": """Wie kann ich zu Hause ein gutes Brot backen, wenn ich nur {number} Gramm Mehl habe?
Die alte Stadt hatte im Jahr {number} noch keine Brücke, und die Leute fuhren mit dem Boot über den Fluss.
Bevor Sie anfangen, sollten Sie die Anleitung auf Seite {number} gründlich lesen und alle Fragen aufschreiben.""",
    "es": """¿Cómo puedo preparar pan en casa si solamente tengo {number} gramos de harina?
La ciudad antigua no tenía ningún puente en el año {number}, y la gente cruzaba el río en barco.
Antes de empezar, usted debería leer las instrucciones de la página {number} y apuntar todas sus preguntas.""",
    "fr": """Comment puis-je faire du pain à la maison si je n'ai que {number} grammes de farine ?
La vieille ville n'avait pas encore de pont en {number}, et les gens traversaient la rivière en bateau.
Avant de commencer, vous devriez lire les consignes de la page {number} et noter toutes vos questions.""",
    "ja": """家に小麦粉が{number}グラムしかない場合、どうすればおいしいパンを焼くことができますか。
その古い町には{number}年になっても橋がなく、人々は船で川を渡っていました。
作業を始める前に、{number}ページの説明をよく読んで、質問を書き出してください。""",
    "ru": """Как мне испечь хлеб дома, если у меня есть только {number} граммов муки?
В {number} году в старом городе ещё не было моста, и люди переправлялись через реку на лодке.
Прежде чем начать, вам следует внимательно прочитать указания на странице {number} и записать все вопросы.""",
    "zh": """如果家里只有{number}克面粉，我应该怎样做面包才好吃呢？
那座老城在{number}年的时候还没有桥，人们只能坐船过河。
在开始工作之前，请仔细阅读第{number}页的说明，并且把所有的问题都写下来。""",
}
# Ways in which a duplicate differs from its original.
CHANGES: tuple[Callable[[str], str], ...] = (str.upper, str.lower, lambda text: text.rstrip(".?") + " !!")


def write(path: Path, rows: int, seed: int = 0) -> None:
    """Write `rows` records as JSON Lines, about 16 kB each; with one seed, a short file is a long one's beginning."""
    write_jsonl(path, islice(records(seed), rows))


def records(seed: int) -> Iterator[RawRow]:
    """Records without end, each made when it is asked for."""
    rng = random.Random(seed)
    texts = Texts(rng)
    earlier: list[str] = []
    while True:
        language = _language(ENGLISH, FOREIGN_PROMPTS, rng)
        prompt = texts.prompt(language)
        if language == ENGLISH and earlier and rng.random() < DUPLICATE_PROMPTS:
            prompt = rng.choice(CHANGES)(rng.choice(earlier))
        elif language == ENGLISH:
            place = rng.randrange(REMEMBERED)
            earlier[place : place + 1] = [prompt]  # past the end of the list, this adds to it
        yield _record(prompt, language, texts)


class Texts:
    """Draws texts of a language from a stock of its sentences."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self._words = {kind: words.split() for kind, words in WORDS.items()}
        self._foreign = {language: lines.splitlines() for language, lines in FOREIGN.items()}
        self._stock = {ENGLISH: [self._fill(rng.choice(PATTERNS)) + rng.choice(GAPS) for _ in range(STOCK)]}
        for language, lines in self._foreign.items():
            self._stock[language] = [self._fill(line) + " " for line in lines * 100]
        self._mean = {language: sum(map(len, stock)) / len(stock) for language, stock in self._stock.items()}

    def some(self, chars: float, language: str = ENGLISH) -> str:
        """One sentence or more, about so many characters."""
        sentences = max(1, round(chars / self._mean[language]))
        return "".join(self.rng.choices(self._stock[language], k=sentences)).rstrip()

    def prompt(self, language: str) -> str:
        """A question, and mostly some text after it."""
        question = self._fill(self.rng.choice(QUESTIONS if language == ENGLISH else self._foreign[language]))
        chars = self.rng.lognormvariate(math.log(PROMPT) - PROMPT_SPREAD**2 / 2, PROMPT_SPREAD)
        more = min(LONGEST, chars) - len(question)
        return f"{question}\n\n{self.some(more, language)}" if more > self._mean[language] / 2 else question

    def response(self, language: str) -> str:
        """An answer; a few are empty, some very short."""
        chars = min(LONGEST, self.rng.expovariate(1 / RESPONSE))
        if self.rng.random() < EMPTY_RESPONSES:
            return ""
        if language == ENGLISH and chars < SHORT:
            return self._fill(self.rng.choice(SHORT_ANSWERS))
        return self.some(chars, language)

    def _fill(self, pattern: str) -> str:
        """The pattern with a word for each of its slots, and a capital at the beginning."""
        filled = re.sub(r"{(\w+)}(ed|ing)?", lambda slot: self._word(slot[1], slot[2] or ""), pattern)
        return filled[:1].upper() + filled[1:]

    def _word(self, kind: str, ending: str) -> str:
        if kind == "number":
            return str(self.rng.randint(2, 2000))
        word = self.rng.choice(self._words[kind])
        return (word.removesuffix("e") if ending else word) + ending


def _record(prompt: str, language: str, texts: Texts) -> RawRow:
    """A record with all of upstream's fields."""
    models = texts.rng.sample(MODELS, COMPLETIONS)
    return {
        "source": texts.rng.choices(list(SOURCES), list(SOURCES.values()))[0],
        "instruction": prompt,
        "models": models,
        "completions": [_completion(model, language, texts) for model in models],
        "correct_answers": ["None"],
        "incorrect_answers": ["None"],
    }


def _completion(model: str, prompt_language: str, texts: Texts) -> RawRow:
    """An answer with its ratings, and now and then one of upstream's faults."""
    rng = texts.rng
    quality = rng.gauss(3.5, 1)
    ratings = [min(5, max(1, round(rng.gauss(quality, 0.7)))) for _ in ASPECTS]
    overall = min(10.0, max(1.0, round(sum(ratings) + rng.gauss(0, 1)) / 2))
    fault = rng.random()
    if fault < WRONG_TENS:
        ratings, overall = [1, 2, 1, 2], 10.0
    no_scores = WRONG_TENS <= fault < WRONG_TENS + NULL_SCORES
    return {
        "annotations": {aspect: _annotation(rating, texts) for aspect, rating in zip(ASPECTS, ratings, strict=True)},
        "custom_system_prompt": texts.some(SYSTEM_PROMPT),
        "model": model,
        "principle": rng.choice(PRINCIPLES),
        "response": texts.response(_language(prompt_language, FOREIGN_RESPONSES, rng)),
        "critique": texts.some(rng.gauss(CRITIQUE, CRITIQUE / 3)),
        "fine-grained_score": None if no_scores else sum(ratings) / len(ratings),
        "overall_score": None if no_scores else overall,
    }


def _annotation(rating: int, texts: Texts) -> dict[str, str]:
    rated = texts.rng.random() >= NO_RATING
    return {"Rating": str(rating) if rated else "N/A", "Rationale": texts.some(RATIONALE)}


def _language(usual: str, other_share: float, rng: random.Random) -> str:
    """Mostly the usual language, else another: English itself where that is not the usual one."""
    if rng.random() >= other_share:
        return usual
    return rng.choice(list(FOREIGN)) if usual == ENGLISH else ENGLISH
