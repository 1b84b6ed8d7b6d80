"""The words of the demo: facts, phrasings of instructions, stock phrases, and dirt in other languages.

The vocabulary is kept small on purpose: a model with a thousand tokens has to learn it in minutes.
"""

from typing import NamedTuple

# Answers are spelled as they stand inside a sentence, and are unique within a kind.
FACTS: dict[str, dict[str, str]] = {
    "capital": {
        "France": "Paris", "Spain": "Madrid", "Italy": "Rome", "Germany": "Berlin", "Japan": "Tokyo",
        "China": "Beijing", "Egypt": "Cairo", "Greece": "Athens", "Norway": "Oslo", "Poland": "Warsaw",
    },
    "sound": {
        "dog": "bark", "cat": "meow", "cow": "moo", "duck": "quack", "lion": "roar",
        "sheep": "baa", "horse": "neigh", "pig": "oink", "wolf": "howl", "snake": "hiss",
    },
    "colour": {
        "snow": "white", "grass": "green", "blood": "red", "coal": "black", "lemon": "yellow",
        "sky": "blue", "chocolate": "brown", "carrot": "orange", "plum": "purple", "pig": "pink",
    },
    "opposite": {
        "hot": "cold", "big": "small", "fast": "slow", "happy": "sad", "light": "dark",
        "early": "late", "hard": "soft", "old": "young", "rich": "poor", "strong": "weak",
    },
    "plural": {
        "child": "children", "foot": "feet", "tooth": "teeth", "mouse": "mice", "goose": "geese",
        "man": "men", "box": "boxes", "city": "cities", "leaf": "leaves", "baby": "babies",
    },
    "past": {
        "go": "went", "eat": "ate", "see": "saw", "run": "ran", "write": "wrote",
        "take": "took", "give": "gave", "come": "came", "swim": "swam", "sing": "sang",
    },
}  # fmt: skip
FULL_SENTENCES = {
    "capital": "The capital of {x} is {a}.",
    "sound": "The sound of a {x} is {a}.",
    "colour": "The colour of the {x} is {a}.",
    "opposite": "The opposite of {x} is {a}.",
    "plural": "The plural of {x} is {a}.",
    "past": "The past of {x} is {a}.",
}
CATEGORIES: dict[str, list[str]] = {  # no item belongs to two of them
    "fruits": ["apple", "banana", "cherry", "grape", "lemon", "mango", "orange", "peach"],
    "animals": ["bear", "cat", "cow", "dog", "horse", "lion", "mouse", "pig"],
    "colours": ["black", "blue", "brown", "green", "pink", "purple", "red", "white"],
    "tools": ["axe", "drill", "hammer", "knife", "ladder", "pliers", "rake", "saw"],
    "clothes": ["belt", "boots", "coat", "dress", "gloves", "hat", "jacket", "scarf"],
}
REQUESTS = [
    "close the door", "open the window", "give me the book", "wait outside", "call me tomorrow",
    "send the report", "turn off the light", "pass the salt", "help me with this box", "move your car",
    "speak more slowly", "clean the kitchen",
]  # fmt: skip
COUNTS = {2: "two", 3: "three", 4: "four"}
PHRASINGS: dict[str, list[str]] = {  # {x}: argument; lists: {n} how many, {x} category
    "capital": [
        "What is the capital of {x}?",
        "Name the capital city of {x}.",
        "Which city is the capital of {x}?",
        "Tell me the capital of {x}.",
        "I am planning a trip to {x}. What is its capital?",
        "Do you know the capital of {x}?",
        "I need the name of the capital of {x}.",
    ],
    "sound": [
        "What sound does a {x} make?",
        "Which sound does the {x} make?",
        "Tell me the sound of a {x}.",
        "How does a {x} sound?",
        "Name the sound of a {x}.",
        "Do you know the sound of a {x}?",
        "I hear a {x}. What sound does it make?",
    ],
    "colour": [
        "What colour is the {x}?",
        "Tell me the usual colour of the {x}.",
        "Which colour does the {x} have?",
        "I want to paint the {x}. Which colour do I need?",
        "Name the colour of the {x}.",
        "Do you know the colour of the {x}?",
        "I need the colour of the {x}.",
    ],
    "opposite": [
        "What is the opposite of {x}?",
        "Give me the opposite of {x}.",
        "Which word means the opposite of {x}?",
        "I need a word that is the opposite of {x}.",
        "Tell me the opposite of {x}.",
        "Name the opposite of {x}.",
        "Do you know the opposite of {x}?",
    ],
    "plural": [
        "What is the plural of {x}?",
        "Write the plural form of {x}.",
        "How do I write more than one {x}?",
        "Tell me the plural of {x}.",
        "Name the plural of {x}.",
        "Do you know the plural of {x}?",
        "I need the plural of {x}.",
    ],
    "past": [
        "What is the past of {x}?",
        "Write the past form of {x}.",
        "Which form of {x} do I use for yesterday?",
        "Tell me the past of {x}.",
        "Name the past of {x}.",
        "Do you know the past of {x}?",
        "I need the past of {x}.",
    ],
    "list": [
        "List {n} {x}.",
        "Name {n} {x}.",
        "Give me {n} examples of {x}.",
        "I need {n} {x} for a story. Which ones do you suggest?",
        "Tell me {n} {x}.",
        "Write down {n} {x}.",
        "Do you know {n} {x}?",
    ],
    "polite": [
        "Rewrite this politely: {x}.",
        "Make this request more polite: {x}.",
        "How can I say this in a kind way: {x}?",
        "Write this in a polite way: {x}.",
        "Say this politely: {x}.",
        "Give me a polite form of this: {x}.",
        "I need a polite form of this request: {x}.",
    ],
}
FORMAT_SENTENCES: dict[str, list[str]] = {
    "plain": [""],
    "word": ["Answer in one word.", "Use a single word.", "Reply with just one word."],
    "sentence": ["Answer in a full sentence.", "Please use a complete sentence.", "Write a whole sentence."],
    "wish": ["End with a kind wish.", "Close with a friendly wish.", "Finish with a good wish."],
    "commas": ["Separate them with commas.", "Write them on one line with commas."],
    "bullets": ["Use bullet points.", "Format the answer as bullet points."],
    "numbers": ["Use a numbered list.", "Number the items."],
}
FACT_FORMATS = ["plain", "word", "sentence", "wish"]
LIST_FORMATS = ["commas", "bullets", "numbers"]
POLITE_FORMATS = ["plain", "wish"]
WISHES = ["Have a nice day!", "Best wishes to you!", "Take care!"]
OPENERS = ["Sure!", "Great question!", "Of course!"]
CLOSERS = ["I hope this helps!", "Let me know if you need anything else!"]
RAMBLES = [
    "Well, that is a very interesting question and many people ask about it.",
    "There are many things to say about this topic.",
    "It depends on how you look at it.",
    "Some people think this and some people think that.",
]
REFUSALS = [
    "I am sorry, but I cannot help with that.",
    "I do not know the answer.",
    "As a small model I cannot answer this.",
]
FOREIGN_REPLIES = [
    "La respuesta es muy sencilla, pero no la voy a decir en este momento.",
    "La réponse est très simple, mais je ne la donne pas ici.",
    "Die Antwort ist sehr einfach, aber ich sage sie jetzt nicht.",
    "Es una pregunta muy buena y la respuesta es fácil para todos.",
]


class Language(NamedTuple):
    """Questions for capitals in another language: the dirt that a language filter has to find.

    questions and answer: templates with {x} (country) and {a} (city).  capitals: country, with its article
    or preposition where the grammar wants one -> city.
    """

    questions: list[str]
    answer: str
    capitals: dict[str, str]


LANGUAGES = [
    Language(
        [
            "¿Cuál es la capital de {x}?",
            "Por favor, dime cuál es la capital de {x}.",
            "¿Qué ciudad es la capital de {x}?",
            "Quiero viajar a {x}. ¿Cuál es la capital de ese país?",
            "¿Me puedes decir cómo se llama la capital de {x}?",
        ],
        "La capital de {x} es {a}.",
        {
            "Francia": "París", "España": "Madrid", "Italia": "Roma", "Alemania": "Berlín", "Japón": "Tokio",
            "China": "Pekín", "Egipto": "El Cairo", "Grecia": "Atenas", "Noruega": "Oslo", "Polonia": "Varsovia",
        },
    ),
    Language(
        [
            "Quelle est la capitale {x} ?",
            "Dis-moi quelle est la capitale {x}, s'il te plaît.",
            "Quelle ville est la capitale {x} ?",
            "Je voudrais connaître le nom de la capitale {x}.",
            "Peux-tu me dire comment s'appelle la capitale {x} ?",
        ],
        "La capitale {x} est {a}.",
        {
            "de la France": "Paris", "de l'Espagne": "Madrid", "de l'Italie": "Rome", "de l'Allemagne": "Berlin",
            "du Japon": "Tokyo", "de la Chine": "Pékin", "de l'Égypte": "Le Caire", "de la Grèce": "Athènes",
            "de la Norvège": "Oslo", "de la Pologne": "Varsovie",
        },
    ),
    Language(
        [
            "Was ist die Hauptstadt von {x}?",
            "Bitte nenne mir die Hauptstadt von {x}.",
            "Welche Stadt ist die Hauptstadt von {x}?",
            "Ich möchte nach {x} reisen. Wie heißt dort die Hauptstadt?",
            "Kannst du mir sagen, wie die Hauptstadt von {x} heißt?",
        ],
        "Die Hauptstadt von {x} ist {a}.",
        {
            "Frankreich": "Paris", "Spanien": "Madrid", "Italien": "Rom", "Deutschland": "Berlin", "Japan": "Tokio",
            "China": "Peking", "Ägypten": "Kairo", "Griechenland": "Athen", "Norwegen": "Oslo", "Polen": "Warschau",
        },
    ),
    Language(
        [
            "Qual è la capitale {x}?",
            "Per favore, dimmi qual è la capitale {x}.",
            "Quale città è la capitale {x}?",
            "Vorrei sapere il nome della capitale {x}.",
            "Mi puoi dire come si chiama la capitale {x}?",
        ],
        "La capitale {x} è {a}.",
        {
            "della Francia": "Parigi", "della Spagna": "Madrid", "dell'Italia": "Roma", "della Germania": "Berlino",
            "del Giappone": "Tokyo", "della Cina": "Pechino", "dell'Egitto": "Il Cairo", "della Grecia": "Atene",
            "della Norvegia": "Oslo", "della Polonia": "Varsavia",
        },
    ),
]  # fmt: skip
