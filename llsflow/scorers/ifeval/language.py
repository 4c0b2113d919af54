"""Which language a text is in."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

_CODES = (
    "af ar bg bn ca cs cy da de el en es et fa fi fr gu he hi hr hu id it ja kn ko lt lv mk ml mr ne nl no pa pl pt ro "
    "ru sk sl so sq sv sw ta te th tl tr uk ur vi zh"
)
LANGUAGES = frozenset(_CODES.split())
"""ISO 639-1. Those of the detector that the paper's checks use: with all 139 of ours, rare ones take short texts."""


def language_of(text: str) -> str | None:
    """Return the language of a text as an ISO 639-1 code; None: it has no letters."""
    if not any(map(str.isalpha, text)):
        return None
    code, _ = _identifier().classify(text)
    return str(code)


@cache
def _identifier() -> LanguageIdentifier:
    # one of our own: the module's is shared, and set_languages would change it for everybody
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages(sorted(LANGUAGES))
    return identifier
