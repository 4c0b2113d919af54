"""Which characters of a written conversation the model is to learn: those that it will write itself.

The assistant's own part of a turn is its reasoning, text, calls and end mark. Where a template marks it with
`{% generation %}` the marks say it. Elsewhere it is what the text gains from the opened turn to the written one. Where
a template writes a turn differently once others follow (reasoning models leave earlier thoughts out), the conversation
is written turn by turn, so that each answer is learned after the very prompt that the model will be given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from llsflow.data.conversation import Conversation, Message, reasoning_of, user
from llsflow.data.template import ChatTokenizer, Span, check_written, marked_spans, render
from llsflow.schema.thoughts import THOUGHTS
from llsflow.schema.training import DatasetFormat

REASONING_LEFT_OUT = "whose reasoning the chat template leaves out"
ANSWER_LEFT_OUT = "of whose answers the chat template leaves out text"
MESSAGE_LEFT_OUT = "of which the chat template leaves out a message"
NAME_LEFT_OUT = "of which the chat template leaves out the name of a message"
NO_REASONING = "without reasoning, though the chat template opens some: they are learned with an empty one"

_SQUEEZED = str.maketrans("", "", " \t\r\n\\\"'")
"""What templates change in a text they write: white space, and the escapes of JSON."""


@dataclass(frozen=True)
class Piece:
    """A text to be tokenised, and the spans of it that are learned."""

    text: str
    spans: list[Span]
    plain: bool = False
    """It is a text of its own and no conversation: the tokenizer puts its marks around it."""


@dataclass
class Written:
    """What one row became."""

    pieces: list[Piece]
    notes: set[str] = field(default_factory=set)
    """What the template did with it that its author should know."""


@dataclass(frozen=True)
class _Own:
    """One turn of the assistant, written as it will be in use."""

    text: str
    span: Span
    """The assistant's own part of `text`."""


def written(
    tokenizer: ChatTokenizer,
    conversation: Conversation,
    data_format: DatasetFormat,
    *,
    since: int = 0,
    everything: bool = False,
) -> Written:
    """Return the text of a conversation with the spans that are learned, or several where the template needs it.

    Args:
        tokenizer: with the chat template.
        conversation: what is written.
        data_format: dialog: every answer of a weight other than 0; instruct: the last one.
        since: the first turn that may be learned.
        everything: all of the text is learned.

    Raises:
        ValueError: the template refuses the row, or where an answer begins in its text cannot be seen.
    """
    whole = render(tokenizer, conversation)
    check_written(tokenizer, whole, conversation)
    if everything:
        if muted := [place for place, turn in enumerate(conversation.messages) if turn.get("weight") == 0]:
            raise ValueError(
                f"message {muted[0]} has weight: 0 (not learned), and train_on_input: true learns every token: "
                "leave one of them out"
            )
        return Written([Piece(whole, [(0, len(whole))])])
    turns = [place for place, turn in enumerate(conversation.messages) if turn["role"] == "assistant"]
    if data_format is DatasetFormat.INSTRUCT:
        turns = turns[-1:]
    turns = [place for place in turns if place >= since and conversation.messages[place].get("weight") != 0]
    found = Written([])
    own = {place: _own(tokenizer, conversation, place, whole, found.notes) for place in turns}
    found.pieces = _pieces(tokenizer, conversation, whole, own)
    every = "\0".join(piece.text for piece in found.pieces)
    contents = [_after_thoughts(message.get("content", "")) for message in conversation.messages]
    for place, message in enumerate(conversation.messages):
        if place in own:
            _note_answer(message, _text_of(own[place]), found.notes)
        elif _left_out(contents[place], every):
            found.notes.add(MESSAGE_LEFT_OUT)
    if _too_few(contents, every):
        found.notes.add(MESSAGE_LEFT_OUT)
    # who answers a call is told by its id as well
    if any(turn.get("name", "") not in every for turn in conversation.messages if turn["role"] != "tool"):
        found.notes.add(NAME_LEFT_OUT)
    return found


def _pieces(tokenizer: ChatTokenizer, conversation: Conversation, whole: str, own: dict[int, _Own]) -> list[Piece]:
    """Return as few texts as hold every learned turn as it will be in use, the whole row last."""
    pieces: list[Piece] = []
    left = dict(own)
    text: str | None = whole
    while text is not None:
        held = {
            place: span
            for place, turn in left.items()
            if (span := _place(tokenizer, text, turn, conversation.messages[place]))
        }
        if held or not own:
            pieces.append(Piece(text, [held[place] for place in sorted(held)]))
        left = {place: turn for place, turn in left.items() if place not in held}
        text = left[max(left)].text if left else None
    return pieces[::-1]


def _place(tokenizer: ChatTokenizer, text: str, turn: _Own, message: Message) -> Span | None:
    """Return where a turn's own part is in a text that may hold more turns; None: the text has it differently."""
    start, end = turn.span
    if text.startswith(turn.text[:end]):
        return turn.span
    for mark in tokenizer.all_special_tokens:
        # a mark that stands only at the very end of a conversation, after the turn's own one
        kept = turn.text[start:end].removesuffix(mark).rstrip()
        if len(kept) < end - start and text.startswith(turn.text[:start] + kept) and kept:
            return None if _ends_in_content(kept, message) else (start, start + len(kept))
    return None


def _own(tokenizer: ChatTokenizer, conversation: Conversation, place: int, whole: str, notes: set[str]) -> _Own:
    message = conversation.messages[place]
    last = place == len(conversation.messages) - 1
    until = whole if last else render(tokenizer, conversation.until(place + 1))
    if (marked := marked_spans(tokenizer, conversation.until(place + 1))) is not None:
        before = marked_spans(tokenizer, conversation.until(place)) if place else []
        return _by_marks(tokenizer, until, marked[len(before or ()) :], place)
    if place == 0:
        start = _first_turn(tokenizer, conversation, until)
        return _Own(until, (start, _end(tokenizer, until, start, message)))
    opened = render(tokenizer, conversation.until(place), prompt=True)
    if until.startswith(opened):
        return _Own(until, (len(opened), _end(tokenizer, until, len(opened), message)))
    return _reopened(tokenizer, conversation.until(place + 1), opened, until, notes)


def _by_marks(tokenizer: ChatTokenizer, until: str, spans: Sequence[Span], place: int) -> _Own:
    """The marked part of a turn, with the end mark where the template has left it out of the marks."""
    if not spans:
        raise ValueError(f"the chat template marks nothing of turn {place} as the assistant's: correct its marks")
    start, end = spans[0][0], spans[-1][1]
    rest = until[end:]
    ends = [mark for mark in tokenizer.all_special_tokens if rest.startswith(mark)]
    if ends and not any(until[start:end].rstrip().endswith(mark) for mark in tokenizer.all_special_tokens):
        end += len(max(ends, key=len))
    return _Own(until, (start, end))


def _reopened(tokenizer: ChatTokenizer, conversation: Conversation, opened: str, until: str, notes: set[str]) -> _Own:
    """The turn after the prompt that opens it, where the template writes what comes before it in another way.

    Raises:
        ValueError: the template writes the turn itself in another way than it opens it.
    """
    place, message = len(conversation.messages) - 1, conversation.messages[-1]
    closed = render(tokenizer, conversation.until(place))
    header = opened[len(closed) :] if opened.startswith(closed) else ""
    own: str | None = None
    if not until.startswith(closed + header) and (start := _after_tail(opened, header, until)) is not None:
        own = until[start : _end(tokenizer, until, start, message)]
    for marks in THOUGHTS:
        if own is None:
            own = _after_thoughts_opened(tokenizer, opened, until, message, marks, notes)
    if own is not None:
        return _Own(opened + own, (len(opened), len(opened) + len(own)))
    shared = _shared(opened, until)
    raise ValueError(
        f"the chat template opens turn {place} with {opened[shared:][-60:]!r}, and writes it without: what is learned "
        "would not be what the model is asked in use. Set model.chat_template to a template that writes the turn as it "
        "opens it"
    )


def _after_thoughts_opened(
    tokenizer: ChatTokenizer, opened: str, until: str, message: Message, marks: tuple[str, str], notes: set[str]
) -> str | None:
    """Return what the assistant writes after a prompt that opens its reasoning, or opens and closes it; None: neither.

    Such a template leaves the reasoning out of the turn that it writes, or has other white space around it.
    """
    mark, close = marks
    prompt = opened.rstrip()
    if prompt.endswith(close):
        before = prompt[: prompt.rfind(mark)] if mark in prompt else prompt
        if not until.startswith(before.rstrip()):
            return None
        own = until[len(before) : _end(tokenizer, until, len(before), message)]
        if own.lstrip().startswith(mark) and close in own:
            own = own.split(close, 1)[1]
        return own.removeprefix(opened[len(prompt) :])
    if not prompt.endswith(mark) or not until.startswith(prompt.removesuffix(mark)):
        return None
    start = len(prompt) - len(mark)
    own = until[start : _end(tokenizer, until, start, message)]
    content = message.get("content", "")
    before = content.split(close, 1)[0] if close in content else ""
    inline = before.split(mark, 1)[1] if mark in before else before
    thoughts = (reasoning_of(message) or inline).strip("\n")
    if own.startswith(mark) and close in own:
        return f"{thoughts}\n{own[own.index(close) :]}"
    if reasoning_of(message) is None and not inline:
        notes.add(NO_REASONING)
    return f"{thoughts}\n{close}" + (own if own.startswith("\n") else f"\n\n{own}")


def _after_tail(opened: str, header: str, until: str) -> int | None:
    """Return where in `until` the longest end of the prompt ends; None: it is not in there with its header."""
    low, high = 0, len(opened)
    while low < high:  # an end of the prompt that is in the text is so with every shorter one
        middle = (low + high + 1) // 2
        low, high = (middle, high) if opened[-middle:] in until else (low, middle - 1)
    # less than the header, or than a mark before it, is found anywhere
    if low <= max(len(header), 3):
        return None
    return until.rindex(opened[-low:]) + low


def _first_turn(tokenizer: ChatTokenizer, conversation: Conversation, until: str) -> int:
    """Return where a conversation's first turn begins to be the assistant's own: after what opens its turns."""
    asking = Conversation([user("?")], [], [], conversation.template_kwargs)
    closed, opened = render(tokenizer, asking), render(tokenizer, asking, prompt=True)
    header = opened[len(closed) :] if opened.startswith(closed) else ""
    place = until.find(header) if header else -1
    if place < 0:
        raise ValueError(
            "the first turn is the assistant's, and where its text begins cannot be seen with this chat template: "
            "give that message weight: 0, or remove it"
        )
    return place + len(header)


def _end(tokenizer: ChatTokenizer, text: str, start: int, message: Message) -> int:
    """Return where a turn's own part ends: with its end mark, not with what opens the next turn after it."""
    own = text[start:].rstrip()
    if not own or _ends_in_content(own, message):
        return len(text)  # the white space is the only end mark that there is
    calls = message.get("tool_calls", ())
    tail = calls[-1]["function"]["name"] if calls else message.get("content", "").rstrip()[-40:]
    mark, said = tokenizer.eos_token, own.rfind(tail)
    if mark and said >= 0 and (place := own.find(mark, said + len(tail))) >= 0:
        return start + place + len(mark)
    return start + len(own)


def _ends_in_content(own: str, message: Message) -> bool:
    tail = message.get("content", "").rstrip()[-40:]
    return bool(tail) and "tool_calls" not in message and own.endswith(tail)


def _text_of(own: _Own) -> str:
    return own.text[own.span[0] : own.span[1]]


def _note_answer(message: Message, own: str, notes: set[str]) -> None:
    """Note what of an answer is not in the text that is learned.

    Raises:
        ValueError: a call is not.
    """
    for call in message.get("tool_calls", ()):
        if call["function"]["name"] not in own:
            raise ValueError(
                f"the chat template does not write the call of {call['function']['name']!r} in its turn: set "
                "model.chat_template to one that does"
            )
    content = message.get("content", "")
    answer = _after_thoughts(content)
    thoughts = [reasoning_of(message) or "", content[: len(content) - len(answer)]]
    for mark in (part for marks in THOUGHTS for part in marks):
        thoughts[1] = thoughts[1].replace(mark, "")
    if any(_left_out(part, own) for part in thoughts):
        notes.add(REASONING_LEFT_OUT)
    if _left_out(answer, own):
        notes.add(ANSWER_LEFT_OUT)


def _after_thoughts(content: str) -> str:
    """Return an answer without the reasoning that is part of its text."""
    for _, close in THOUGHTS:
        if close in content:
            return content.rsplit(close, 1)[1]
    return content


def _left_out(part: str, text: str) -> bool:
    part = part.strip()
    return bool(part) and part not in text and part.translate(_SQUEEZED) not in text.translate(_SQUEEZED)


_SHORT = 40
"""Characters of a message that may well be part of another one."""


def _too_few(contents: Sequence[str], text: str) -> bool:
    """Return whether a short message is in the text less often than in the messages: one of them was left out."""
    short = {part for content in contents if 0 < len(part := content.translate(_SQUEEZED)) <= _SHORT}
    if not short:
        return False
    text = text.translate(_SQUEEZED)
    there = [part for content in contents if (part := content.translate(_SQUEEZED)) in text]
    return any(text.count(part) < sum(other.count(part) for other in there) for part in short)


def _shared(one: str, other: str) -> int:
    """Return how many characters two texts have in common at their start."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    return low


def mask_of(offsets: Sequence[Span], spans: Sequence[Span]) -> list[bool]:
    """Return for each token whether any of its characters is in a span; both are in order of position.

    A token across the start of a span, as of a space and the word after it, is what the model must write to say the
    word: it is learned.
    """
    mask = [False] * len(offsets)
    position = 0
    for start, end in spans:
        while position < len(offsets) and offsets[position][0] < start and offsets[position][1] <= start:
            position += 1
        while position < len(offsets) and offsets[position][0] < end:
            mask[position] = True
            position += 1
    return mask


def begins_inside(offsets: Sequence[Span], spans: Sequence[Span]) -> bool:
    """Return whether a span begins inside a token: in use the model is given the first part of that token alone."""
    starts = {start for start, _ in spans}
    return any(start < place < end for start, end in offsets for place in starts if start < place)
