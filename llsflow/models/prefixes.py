"""What a model has read before: the start of a new prompt that is the start of an earlier text is not read again."""

from __future__ import annotations

from collections.abc import Sequence

from llsflow.models.cache import LEAST, Prefix, shared


class Prefixes:
    """Texts as a model has read them, the one that was not used for longest leaving first."""

    def __init__(self, most_tokens: int) -> None:
        self.most_tokens = most_tokens
        self._kept: list[Prefix] = []

    def keep(self, read: Prefix) -> None:
        """Keep a text; one that is its start goes, and one that is its start and more makes it needless."""
        if not LEAST <= len(read.ids) <= self.most_tokens:
            return
        for kept in self._kept:
            if shared(kept.ids, read.ids) == len(read.ids):
                self._use(kept)
                return
        self._kept = [kept for kept in self._kept if shared(kept.ids, read.ids) < len(kept.ids)]
        self._kept.append(read)
        while sum(len(kept.ids) for kept in self._kept) > self.most_tokens:
            del self._kept[0]

    def clear(self) -> None:
        """Forget every text."""
        self._kept.clear()

    def groups(self, texts: Sequence[Sequence[int]]) -> list[tuple[Prefix | None, list[int]]]:
        """Return the texts' places in groups that are read together, each with the start that its texts share."""
        found: dict[int | None, list[int]] = {}
        for place, text in enumerate(texts):
            lengths = [shared(kept.ids, text[:-1]) for kept in self._kept]
            longest = max(lengths, default=0)
            # of equally long ones always the same: those who share it then meet in one group
            found.setdefault(lengths.index(longest) if longest >= LEAST else None, []).append(place)
        groups: list[tuple[Prefix | None, list[int]]] = []
        for number, places in found.items():
            prefix = None
            if number is not None:
                kept = self._kept[number]
                prefix = kept.cut(min(shared(kept.ids, texts[place][:-1]) for place in places))
            groups.append((prefix, places))
        for prefix, _ in groups:
            if prefix is not None:
                self._use(next(kept for kept in self._kept if kept.ids[: len(prefix.ids)] == prefix.ids))
        return groups

    def _use(self, kept: Prefix) -> None:
        self._kept = [other for other in self._kept if other is not kept] + [kept]
