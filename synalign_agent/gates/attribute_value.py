"""Does an attribute value say something about the texts, or is it half a sentence, noise, or the question given back?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from synalign_agent.gates.base import Verdict
from synalign_agent.gates.length import check_repetition

# All but spaces and punctuation: `\w` would cut words of many scripts at their combining marks.
_WORD = re.compile(r"[^\s!-/:-@\[-`{-~¡-¿‐-⁞、-〃「-』！-／：-＠]+")
_LONGEST_BARE_NUMBER = 5
_FUNCTION_WORDS = frozenset({
    "a", "an", "and", "any", "are", "as", "at", "be", "by", "for", "from", "how", "in", "is", "it", "of", "on", "or", "s",
    "such", "that", "the", "this", "to", "what", "which", "who", "with",
})  # fmt: skip
_SAY_NOTHING = _FUNCTION_WORDS | {
    "general", "kind", "label", "name", "none", "not", "other", "specified", "text", "type", "unclear", "undefined", "unknown",
    "unspecified", "various",
}  # fmt: skip
"""English words that alone say nothing about a text: also what models write where they have no answer."""


def check_values(
    values: Mapping[str, str],
    dimensions: Mapping[str, str],
    *,
    task: str,
    label: str,
    examples: Iterable[str],
    offers_choices: bool,
    max_repetition: float,
    limit: int | None,
) -> tuple[dict[str, str], dict[str, Verdict]]:
    """Sort the values of one reply into those that describe the texts and those that do not.

    Small models give the description of the dimension back, or the kind of text, which is true of every row, or a value of the
    prompt's examples, or one value for all dimensions. A prompt that repeats it only costs tokens, and a person would have to
    strike it out.

    Args:
        values: dimension -> value, as the model wrote it; all of `dimensions` are there.
        dimensions: name -> meaning, as the model was asked.
        task: the kind of text that the session writes.
        label: of the texts.
        examples: values that the prompt shows.
        offers_choices: whether a meaning may list what to choose from, as "yes or no" does: then words of it are an answer.
        max_repetition: as for texts (`gates.max_repetition`).
        limit: characters that the endpoint's grammar allows a value, or None where it enforces none.

    Returns:
        The values that are kept, with single spaces, and a verdict for each that is refused. An empty value is neither: the model
        had nothing to say.
    """
    kept: dict[str, str] = {}
    refused: dict[str, Verdict] = {}
    # A word or two of an example may well be true of other texts.
    seen = {value.casefold(): "an example in the prompt" for value in examples if len(value.split()) > 2}
    for name, meaning in dimensions.items():
        value = " ".join(values[name].split())
        if not value:
            continue
        verdict = None
        if limit is not None and len(values[name]) >= limit:
            verdict = Verdict("cut", f"{name}: reached the limit of {limit} characters in the schema")
        elif not (offers_choices and _is_choice(value, meaning)):
            first = seen.setdefault(value.casefold(), name)
            verdict = _check(name, value, meaning, f"{task} {label}", max_repetition)
            if verdict is None and first != name:
                verdict = Verdict("echo", f"{name}: {value!r} repeats {first}")
        if verdict is None:
            kept[name] = value
        else:
            refused[name] = verdict
    return kept, refused


def _is_choice(value: str, meaning: str) -> bool:
    """Say whether the value is among what the meaning offers, as "no" of "yes or no": some of its words, not most of them."""
    chosen, offered = _words(value), _words(meaning)
    return bool(chosen - _FUNCTION_WORDS) and chosen <= offered and 2 * len(chosen) < len(offered)


def _check(name: str, value: str, meaning: str, known: str, max_repetition: float) -> Verdict | None:
    if not any(map(str.isalpha, value)) and (len(value) > _LONGEST_BARE_NUMBER or not any(map(str.isdigit, value))):
        return Verdict("wordless", f"{name}: {value!r} has no words")
    said, asked = _content_words(value), _content_words(meaning)
    if said <= _content_words(f"{known} {name.replace('_', ' ')}"):
        return Verdict("echo", f"{name}: {value!r} says no more than the task, the label or the dimension's name")
    if said <= asked and 2 * len(said) >= len(asked):
        return Verdict("echo", f"{name}: {value!r} is the dimension's description")
    if check_repetition(value, max_repetition):
        return Verdict("repetitive", f"{name}: {value!r} says the same words over and over")
    return None


def _content_words(text: str) -> frozenset[str]:
    """Return the words of a text that say something, in lower case and without a plural s."""
    return frozenset(word.removesuffix("s") for word in _words(text) - _SAY_NOTHING)


def _words(text: str) -> frozenset[str]:
    return frozenset(word.casefold() for word in _WORD.findall(text))
