"""Words for a method: its strategy, its parameters, its demonstrations, and a label that no other method has."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_bc.report.parameters import Chosen, Parameters, class_name, naming_callbacks
from lightning_bc.runs.results import Source


def strategy_name(config: Chosen) -> str:
    """The strategy's name, and those of the callbacks that change its policy."""
    return " with ".join(class_name(chosen) for chosen in (config["model"], *naming_callbacks(config)))


def demonstrations_in_words(data: Source | None) -> tuple[str, ...]:
    """What was learnt from: kind of actions (or the file's name), episodes, pairs."""
    if data is None:
        return ("none",)
    kind = data.actions or " + ".join(re.split(r"[/\\:]", path)[-1] for path in data.files or [data.path])
    return kind, counted(data.training_episodes, "episode"), f"{data.training_pairs:,} pairs"


def in_words(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Parameters as name and value; of a file its name alone, as its folder is another one on every machine."""
    return {name: f"{name} {_value(value)}" for name, value in parameters.items()}


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return re.split(r"[/\\]", str(value))[-1]


def counted(number: int, noun: str) -> str:
    """A number of things."""
    return f"{number:,} {noun}" + "s" * (number != 1)


def distinguishing(strategies: Sequence[str], parameters: Sequence[Parameters]) -> list[Parameters]:
    """Of each method's parameters those that another method of the same strategy has not, or has otherwise."""
    rows: dict[str, list[Parameters]] = defaultdict(list)
    for strategy, own in zip(strategies, parameters, strict=True):
        rows[strategy].append(own)
    absent = object()
    return [
        {name: value for name, value in own.items() if any(other.get(name, absent) != value for other in rows[strategy])}
        for strategy, own in zip(strategies, parameters, strict=True)
    ]


def unique_labels(strategies: Sequence[str], details: Sequence[Mapping[str, str]]) -> list[str]:
    """Name methods by their strategy, and by as many of their details as it takes to tell them apart.

    Args:
        strategies: of each method.
        details: further words on each, by what they are of; earlier ones are taken first.
    """
    labels = list(strategies)
    for name in dict.fromkeys(name for words in details for name in words):
        told: dict[str, set[str]] = defaultdict(set)
        for label, words in zip(labels, details, strict=True):
            told[label].add(words.get(name, ""))
        for place, words in enumerate(details):
            if len(told[labels[place]]) > 1 and name in words:
                labels[place] += f", {words[name]}"
    numbers: Counter[str] = Counter()
    for place, label in enumerate(labels):                          # two files of the same description
        numbers[label] += 1
        labels[place] += f" ({numbers[label]})" * (numbers[label] > 1)
    return labels
