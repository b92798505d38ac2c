"""Chat templates as our own functions, chosen by name; the only place that inserts control tokens.

Entry points: `render` turns messages into ids, `stop_ids` names the ids that end a reply, `recognise` tells
which of our functions a model's own template means. A template inside a model file is a program by a
stranger and is never run: its literals are compared with those of the templates known here. What people
write is always encoded as text, so no message can close its own turn or open somebody else's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from criadero.errors import TokenizerError
from criadero.tokenizer.tokenizer import Tokenizer

ROLES = ("system", "user", "assistant")
MAX_TEMPLATE_CHARACTERS = 100_000

SMOLLM2_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Raises:
        TokenizerError: the role is none of system, user, assistant.
    """

    role: str
    content: str

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise TokenizerError(f"the role {self.role!r} is not known, expected one of {', '.join(ROLES)}")


@dataclass(frozen=True)
class Template:
    """How one family of models writes a conversation.

    Attributes:
        write: puts messages into a prompt and opens the assistant's turn if the last one is not its own.
        stops: control tokens that end a reply, besides the vocabulary's eos.
        marks: what is literally written in this family's Jinja templates, see `_marks`; None for no such.
    """

    write: Callable[[Prompt, Sequence[Message]], None]
    stops: tuple[str, ...] = ()
    marks: frozenset[str] | None = None


@dataclass
class Prompt:
    """Ids under construction: text is encoded as text in one go up to the next control token."""

    tokenizer: Tokenizer
    _ids: list[int] = field(default_factory=list)
    _pending: list[str] = field(default_factory=list)

    def text(self, text: str) -> None:
        """Append text; whatever it spells, it stays text."""
        self._pending.append(text)

    def control(self, name: str) -> None:
        """Append a control token.

        Raises:
            TokenizerError: the vocabulary has none of this name.
        """
        self._append(control_id(self.tokenizer, name))

    def bos(self) -> None:
        """Append the token that opens a text, where the vocabulary has one."""
        if self.tokenizer.bos_id is not None:
            self._append(self.tokenizer.bos_id)

    def eos(self) -> None:
        """Append the token that closes a text, where the vocabulary has one."""
        if self.tokenizer.eos_id is not None:
            self._append(self.tokenizer.eos_id)

    def ids(self) -> list[int]:
        """Return everything appended so far."""
        self._flush()
        return list(self._ids)

    def _append(self, token_id: int) -> None:
        self._flush()
        self._ids.append(token_id)

    def _flush(self) -> None:
        if self._pending:
            self._ids += self.tokenizer.encode("".join(self._pending))
            self._pending.clear()


def render(name: str, messages: Sequence[Message], tokenizer: Tokenizer) -> list[int]:
    """Return the ids of a conversation, ready for the assistant's next reply.

    A conversation that ends with the assistant's own message is closed instead, as training wants it.

    Raises:
        TokenizerError: an unknown template, a vocabulary without its control tokens, no messages, or an
            order of roles that this template cannot write.
    """
    if not messages:
        raise TokenizerError("a conversation needs at least one message")
    prompt = Prompt(tokenizer)
    _template(name).write(prompt, messages)
    return prompt.ids()


def stop_ids(name: str, tokenizer: Tokenizer) -> frozenset[int]:
    """Return the ids that end the assistant's reply under a template.

    Raises:
        TokenizerError: an unknown template, or a vocabulary without its control tokens.
    """
    stops = {control_id(tokenizer, stop) for stop in _template(name).stops}
    return frozenset(stops if tokenizer.eos_id is None else stops | {tokenizer.eos_id})


def recognise(template_text: str | None) -> str | None:
    """Return the name of our function for a model's Jinja template, None if there is none.

    The text is read, never run: it must write exactly the literals of a known family, use the same special
    variables, and trim messages where the family does.
    """
    if not template_text or len(template_text) > MAX_TEMPLATE_CHARACTERS:
        return None
    marks = _marks(template_text)
    return next((name for name, template in TEMPLATES.items() if template.marks == marks), None)


def control_id(tokenizer: Tokenizer, name: str) -> int:
    """Return the id of a control token.

    Raises:
        TokenizerError: the vocabulary has no such token.
    """
    found = tokenizer.special_tokens.get(name)
    if found is None:
        raise TokenizerError(
            f"this vocabulary has no control token {name!r}, which the template needs",
            hint="choose another one with --template; `plain` works with every vocabulary",
        )
    return found


def _template(name: str) -> Template:
    if name not in TEMPLATES:
        raise TokenizerError(
            f"the chat template {name!r} is not known", hint=f"choose one of {', '.join(TEMPLATES)}"
        )
    return TEMPLATES[name]


def _write_plain(prompt: Prompt, messages: Sequence[Message]) -> None:
    """Write the conversation as one running text, for models that only continue."""
    if prompt.tokenizer.adds_bos:
        prompt.bos()
    prompt.text("\n".join(message.content for message in messages))


def _write_chatml(prompt: Prompt, messages: Sequence[Message]) -> None:
    for message in messages:
        prompt.control("<|im_start|>")
        prompt.text(f"{message.role}\n{message.content}")
        prompt.control("<|im_end|>")
        prompt.text("\n")
    if messages[-1].role != "assistant":
        prompt.control("<|im_start|>")
        prompt.text("assistant\n")


def _write_smollm2(prompt: Prompt, messages: Sequence[Message]) -> None:
    """ChatML that opens with the model's own system message unless one is given."""
    if messages[0].role != "system":
        messages = [Message("system", SMOLLM2_SYSTEM), *messages]
    _write_chatml(prompt, messages)


def _write_llama3(prompt: Prompt, messages: Sequence[Message]) -> None:
    prompt.bos()
    for message in messages:
        _write_llama3_header(prompt, message.role)
        prompt.text(message.content.strip())
        prompt.control("<|eot_id|>")
    if messages[-1].role != "assistant":
        _write_llama3_header(prompt, "assistant")


def _write_llama3_header(prompt: Prompt, role: str) -> None:
    prompt.control("<|start_header_id|>")
    prompt.text(role)
    prompt.control("<|end_header_id|>")
    prompt.text("\n\n")


def _write_llama2(prompt: Prompt, messages: Sequence[Message]) -> None:
    """Each question and its answer is a text of its own; the system message opens the first question."""
    system = ""
    turns = messages
    if messages[0].role == "system":
        system, turns = f"<<SYS>>\n{messages[0].content}\n<</SYS>>\n\n", messages[1:]
    expected = ("user", "assistant")
    if not turns or any(turn.role != expected[i % 2] for i, turn in enumerate(turns)):
        raise TokenizerError("the llama2 template needs user and assistant to take turns, user first")
    for turn in turns:
        if turn.role == "user":
            prompt.bos()
            prompt.text(f"[INST] {(system + turn.content).strip()} [/INST]")
            system = ""
        else:
            prompt.text(f" {turn.content.strip()} ")
            prompt.eos()


_BOS, _EOS, _TRIM = "(bos)", "(eos)", "(trim)"
_CHATML = frozenset({"<|im_start|>", "<|im_end|>", "\n"})

TEMPLATES: dict[str, Template] = {
    "plain": Template(_write_plain),
    "chatml": Template(_write_chatml, stops=("<|im_end|>",), marks=_CHATML),
    "smollm2": Template(_write_smollm2, stops=("<|im_end|>",), marks=_CHATML | {SMOLLM2_SYSTEM}),
    "llama2": Template(
        _write_llama2,
        marks=frozenset({"[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "\n", _BOS, _EOS, _TRIM}),
    ),
    "llama3": Template(
        _write_llama3,
        stops=("<|eot_id|>",),
        marks=frozenset({"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "\n", _BOS, _TRIM}),
    ),
}

_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
_REFUSAL = re.compile(r"raise_exception\(\s*(?:'[^']*'|\"[^\"]*\")\s*\)")
_BLOCK = re.compile(r"\{[{%].*?[%}]\}", re.DOTALL)
_LITERAL = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"", re.DOTALL)
_ATOM = re.compile(r"(<\|[^|]*\|>|<</?SYS>>|\[/?INST\]|\n)")
_NOT_WRITTEN = {"", "role", "content", *ROLES}


def _marks(template_text: str) -> frozenset[str]:
    """Return what a Jinja text writes literally, cut at control tokens and line ends.

    Role names are left out: every template has them. `bos_token`, `eos_token` and trimming count as marks.
    """
    text = _REFUSAL.sub("", _COMMENT.sub("", template_text))
    code = " ".join(_BLOCK.findall(text))
    outside = _BLOCK.sub("", text).strip()
    literals = ["".join(pair).replace("\\n", "\n") for pair in _LITERAL.findall(code)]
    atoms = {atom.strip(" ") for literal in [*literals, outside] for atom in _ATOM.split(literal)}
    names = _LITERAL.sub(" ", code)
    found = {
        _BOS: "bos_token" in names,
        _EOS: "eos_token" in names,
        _TRIM: "trim" in names or "strip" in names,
    }
    return frozenset(atoms - _NOT_WRITTEN | {mark for mark, present in found.items() if present})
