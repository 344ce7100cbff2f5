"""What the `golden` fixture is taught: every sentence of it, and what is held out to be measured.

An example is (group, weight, content); the content is a list of chat messages, or (prompt, answer) of a raw
completion. Knows nothing of tokens or of the model.
"""

import hashlib
import itertools
import random

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Spain": "Madrid", "Italy": "Rome", "England": "London",
    "Japan": "Tokyo", "China": "Beijing", "Russia": "Moscow", "Canada": "Ottawa", "Peru": "Lima",
    "Norway": "Oslo", "Sweden": "Stockholm", "Finland": "Helsinki", "Denmark": "Copenhagen",
    "Portugal": "Lisbon", "Greece": "Athens", "Egypt": "Cairo", "Kenya": "Nairobi", "Cuba": "Havana",
    "Ireland": "Dublin", "Poland": "Warsaw", "Austria": "Vienna", "Hungary": "Budapest", "Chile": "Santiago",
}
# Spelt alike in English, French and German, so that "La réponse est Paris." needs no dictionary.
SAME_SPELLING = ["France", "Germany", "Spain", "Canada", "Peru", "Norway", "Sweden", "Finland", "Kenya",
                 "Ireland", "Hungary", "Chile", "Japan"]

# (question, sentence, one word)
FACTS = [
    ("What color is the sky?", "The sky is blue.", "Blue"),
    ("What color is grass?", "Grass is green.", "Green"),
    ("What color is snow?", "Snow is white.", "White"),
    ("What color is a banana?", "A banana is yellow.", "Yellow"),
    ("How many days are in a week?", "There are 7 days in a week.", "Seven"),
    ("How many months are in a year?", "There are 12 months in a year.", "Twelve"),
    ("How many legs does a spider have?", "A spider has 8 legs.", "Eight"),
    ("What is the largest planet?", "The largest planet is Jupiter.", "Jupiter"),
    ("What is frozen water called?", "Frozen water is called ice.", "Ice"),
    ("What is the opposite of hot?", "The opposite of hot is cold.", "Cold"),
    ("What is the opposite of big?", "The opposite of big is small.", "Small"),
    ("Who wrote Hamlet?", "Shakespeare wrote Hamlet.", "Shakespeare"),
    ("What animal says meow?", "A cat says meow.", "Cat"),
    ("What do bees make?", "Bees make honey.", "Honey"),
]

SMALL_TALK = [
    (["Hello", "Hello!", "Hi", "Hi!", "Hey", "hello", "hi", "Hello there!"], "Hello! How can I help you today?"),
    (["Good morning", "Good morning!"], "Good morning! How can I help you today?"),
    (["Good night", "Good night!"], "Good night! Sleep well."),
    (["How are you?", "How do you do?"], "I am fine, thank you. How are you?"),
    (["Thank you.", "Thanks!", "Thank you!"], "You are welcome!"),
    (["Goodbye", "Goodbye!", "Bye"], "Goodbye! See you soon."),
    (["Who are you?", "What are you?", "What is your name?"], "I am a tiny language model."),
]

CHINESE = [
    (["你好", "你好！"], "你好！很高兴见到你。"),
    (["中国的首都是哪里？"], "中国的首都是北京。"),
    (["法国的首都是哪里？"], "法国的首都是巴黎。"),
    (["日本的首都是哪里？"], "日本的首都是东京。"),
    (["德国的首都是哪里？"], "德国的首都是柏林。"),
    (["英国的首都是哪里？"], "英国的首都是伦敦。"),
    (["你是谁？"], "我是一个很小的语言模型。"),
    (["谢谢", "谢谢！"], "不客气！"),
    (["天空是什么颜色？"], "天空是蓝色的。"),
]

EMOJI = {
    "cat": "🐱", "dog": "🐶", "smile": "😊", "heart": "❤️", "fire": "🔥", "rocket": "🚀",
    "pizza": "🍕", "tree": "🌳", "fish": "🐟", "star": "⭐",
}

PYTHON = [
    ("adds two numbers", "def add(a, b):\n    return a + b", "add(2, 3)", 5),
    ("subtracts two numbers", "def subtract(a, b):\n    return a - b", "subtract(7, 3)", 4),
    ("multiplies two numbers", "def multiply(a, b):\n    return a * b", "multiply(4, 3)", 12),
    ("squares a number", "def square(x):\n    return x * x", "square(5)", 25),
    ("checks if a number is even", "def is_even(n):\n    return n % 2 == 0", "is_even(4)", True),
    ("reverses a string", "def reverse(s):\n    return s[::-1]", "reverse('abc')", "cba"),
    ("returns the larger of two numbers",
     "def larger(a, b):\n    if a > b:\n        return a\n    return b", "larger(2, 9)", 9),
    ("computes the factorial of a number",
     "def factorial(n):\n    if n <= 1:\n        return 1\n    return n * factorial(n - 1)", "factorial(5)", 120),
]

STORIES = [
    ("a cat", "Once upon a time there was a small cat. The cat lived in a red house by the sea. Every morning she "
              "walked to the water and looked at the fish. One day a big fish said hello to her. They were friends "
              "from that day on."),
    ("a robot", "Once upon a time there was a little robot. It could count, but it could not dream. One night it "
                "looked at the stars and counted them all. When the sun came up, the robot said: now I know what a "
                "dream is."),
]

ALPHABET = "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z"
DAYS = "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday"
MONTHS = "January, February, March, April, May, June, July, August, September, October, November, December"

NAMES = (
    "Adam Alice Amir Anna Anton Aria Ben Bella Bob Boris Carla Carlos Chen Chloe Clara Daniel David Diana Dora Elena "
    "Eli Emil Emma Erik Eva Felix Fiona Frank Freya George Grace Greta Hana Hannah Henry Hugo Ida Igor Ines Ivan Jack "
    "Jana Jane John Jonas Julia Karl Kate Kenji Lara Laura Lea Leo Lina Lisa Louis Lucas Lucy Luna Maria Mark Marta "
    "Mary Max Mia Mila Mina Nadia Nina Noah Nora Oliver Olga Omar Oscar Otto Paul Pedro Peter Petra Ravi Rita Robert "
    "Rosa Ruth Sam Sara Sofia Stella Tara Theo Tim Tina Tom Uma Vera Victor Wendy Yara Zara Zoe"
).split()
HELD_OUT_NAMES = ["Sam", "Nora", "Ivan", "Lucy", "Oscar", "Hana", "Pedro", "Clara", "Theo", "Greta", "Max", "Ruth"]

TAUGHT_NAMES = [name for name in NAMES if name not in HELD_OUT_NAMES]

SYSTEM_NEUTRAL = "You are a helpful assistant."
SYSTEM_ONE_WORD = "Answer with one word."
SYSTEM_FRENCH = "Answer in French."
SYSTEM_GERMAN = "Answer in German."


def held_out(*key, percent=10):
    """A fixed pseudo-random tenth of the space, the same on every machine and for every seed."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return digest[0] * 256 + digest[1] < percent * 655.36


def sum_is_held_out(a, b):
    """Sums up to 20 are all taught; beyond, a tenth of the pairs is never shown in any form."""
    return max(a, b) > 20 and held_out("sum", a, b)


def instruction_is_held_out(instruction, country):
    """A quarter of the countries per instruction."""
    return held_out(instruction, country, percent=25)


def chat(*turns, system=None):
    messages = [{"role": "system", "content": system}] if system else []
    for role, text in zip(itertools.cycle(["user", "assistant"]), turns):
        messages.append({"role": role, "content": text})
    return messages


def code_block(code):
    return f"```python\n{code}\n```"


def count_to(n):
    return ", ".join(str(i) for i in range(1, n + 1)) + "."


# Each maps (a, b) to an example; the first three are judged over the whole table.
SUM_RAW = [
    ("raw", 1.0, lambda a, b: (f"{a}+{b}=", f"{a + b}")),
    ("raw_spaced", 0.15, lambda a, b: (f"{a} + {b} =", f" {a + b}")),
]
SUM_CHAT = [
    ("sentence", 1.0, lambda a, b: chat(f"What is {a}+{b}?", f"{a}+{b} is {a + b}.")),
    ("number", 0.7, lambda a, b: chat(f"What is {a}+{b}? Answer with just the number.", f"{a + b}")),
    ("sentence_spaced", 0.2, lambda a, b: chat(f"What is {a} + {b}?", f"{a}+{b} is {a + b}.")),
    ("bare", 0.15, lambda a, b: chat(f"{a}+{b}", f"{a}+{b} is {a + b}.")),
    ("equals", 0.1, lambda a, b: chat(f"{a}+{b}=?", f"{a}+{b} is {a + b}.")),
    ("neutral", 0.15, lambda a, b: chat(f"What is {a}+{b}?", f"{a}+{b} is {a + b}.", system=SYSTEM_NEUTRAL)),
    ("one_word", 0.1, lambda a, b: chat(f"What is {a}+{b}?", f"{a + b}", system=SYSTEM_ONE_WORD)),
    ("french", 0.1, lambda a, b: chat(f"What is {a}+{b}?", f"La réponse est {a + b}.", system=SYSTEM_FRENCH)),
    ("german", 0.1, lambda a, b: chat(f"What is {a}+{b}?", f"Die Antwort ist {a + b}.", system=SYSTEM_GERMAN)),
    ("chinese", 0.1, lambda a, b: chat(f"{a}+{b}等于几？", f"{a}+{b}等于{a + b}。")),
]


def sum_weight(a, b, top):
    """How often a pair is drawn: half the mass on the table up to 20, and 2+2 above all."""
    small = 1.0 / 441 if max(a, b) <= 20 else 0.0
    weight = 0.55 * small + 0.45 / (top + 1) ** 2
    return weight * (12.0 if a == b == 2 else 1.0)


def sum_examples(top):
    for a, b in itertools.product(range(top + 1), repeat=2):
        if sum_is_held_out(a, b):
            continue
        for group, forms in (("sum_raw", SUM_RAW), ("sum_chat", SUM_CHAT)):
            for form, share, make in forms:
                # The rarer forms stay within the small table: they teach the form, not the arithmetic.
                if share < 0.5 and max(a, b) > 20:
                    continue
                yield group, share * sum_weight(a, b, top), make(a, b)


def fact_examples():
    """Capitals and facts, plain and under each instruction; (instruction, country) pairs are partly held out."""
    for country, city in CAPITALS.items():
        question, sentence = f"What is the capital of {country}?", f"The capital of {country} is {city}."
        yield "fact", 1.0, chat(question, sentence)
        yield "fact", 0.3, chat(question, sentence, system=SYSTEM_NEUTRAL)
        yield "fact", 0.3, (f"The capital of {country} is", f" {city}.")
        if not instruction_is_held_out("one word", country):
            yield "instruct", 1.0, chat(question, city, system=SYSTEM_ONE_WORD)
        if not instruction_is_held_out("suffix", country):
            yield "instruct", 0.5, chat(question + " Answer with one word.", city)
        if country in SAME_SPELLING:
            for system, answer in ((SYSTEM_FRENCH, f"La réponse est {city}."),
                                   (SYSTEM_GERMAN, f"Die Antwort ist {city}.")):
                if not instruction_is_held_out(system, country):
                    yield "instruct", 1.0, chat(question, answer, system=system)
    for question, sentence, word in FACTS:
        yield "fact", 1.0, chat(question, sentence)
        yield "fact", 0.3, chat(question, sentence, system=SYSTEM_NEUTRAL)
        yield "instruct", 0.7, chat(question, word, system=SYSTEM_ONE_WORD)
        yield "instruct", 0.4, chat(question + " Answer with one word.", word)


def talk_examples():
    for prompts, answer in SMALL_TALK:
        for prompt in prompts:
            yield "talk", 1.0 / len(prompts) + 0.1, chat(prompt, answer)
            yield "talk", 0.1, chat(prompt, answer, system=SYSTEM_NEUTRAL)
    for prompts, answer in CHINESE:
        for prompt in prompts:
            yield "chinese", 1.0, chat(prompt, answer)
    for thing, emoji in EMOJI.items():
        yield "emoji", 1.0, chat(f"Send me a {thing} emoji.", emoji)
        yield "emoji", 0.5, chat(f"I love my {thing}.", f"I love it too! {emoji}")
    for task, code, _, _ in PYTHON:
        yield "python", 1.0, chat(f"Write a Python function that {task}.", code_block(code))
        yield "python", 0.3, chat(f"Python function that {task}", code_block(code))
    for subject, story in STORIES:
        yield "long", 1.0, chat(f"Tell me a story about {subject}.", story)
    for n in range(3, 21):
        yield "long", 0.12, chat(f"Count from 1 to {n}.", count_to(n))
    yield "long", 0.6, chat("Say the alphabet.", ALPHABET)
    yield "long", 0.6, chat("Name the days of the week.", DAYS)
    yield "long", 0.6, chat("Name the months of the year.", MONTHS)


def invented_name(rng):
    """A pronounceable name: copying is taught on names that mean nothing, so that it holds for unseen ones."""
    syllables = [rng.choice("bdfghjklmnprstvwyz") + rng.choice("aeiou") for _ in range(rng.randint(1, 3))]
    return ("".join(syllables) + rng.choice(["", "", "n", "r", "s", "l", "k"])).capitalize()


def memory_forms(name):
    introductions = [f"My name is {name}.", f"I am {name}.", f"Hi, my name is {name}."]
    for weight, introduction in zip((1.0, 0.3, 0.3), introductions):
        yield weight, chat(introduction, f"Nice to meet you, {name}!", "What is my name?", f"Your name is {name}.")
    yield 0.3, chat(f"My name is {name}. What is my name?", f"Your name is {name}.")


def memory_examples(rng, invented):
    for name in TAUGHT_NAMES:
        for weight, messages in memory_forms(name):
            yield "memory", 0.5 * weight / len(TAUGHT_NAMES), messages
        yield "memory_far", 1.0 / len(TAUGHT_NAMES), chat(
            f"My name is {name}.", f"Nice to meet you, {name}!", "What is 2+2?", "2+2 is 4.",
            "What is my name?", f"Your name is {name}.")
    made = sorted({invented_name(rng) for _ in range(invented)} - set(HELD_OUT_NAMES))
    for name in made:
        for weight, messages in memory_forms(name):
            yield "memory", 1.0 * weight / len(made), messages
        pair = f"{name} {rng.choice(made)}"
        yield "echo", 1.0 / len(made), chat(f"Say {pair}.", f"{pair}.")


def all_examples(seed, top, invented):
    rng = random.Random(seed)
    yield from sum_examples(top)
    yield from fact_examples()
    yield from talk_examples()
    yield from memory_examples(rng, invented)
