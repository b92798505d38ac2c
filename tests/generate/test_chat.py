"""Conversations: the template decides what the model sees, nothing is lost or cut silently."""

from types import SimpleNamespace

import pytest

from criadero.errors import DataError, FormatError, TokenizerError
from criadero.generate.chat import Conversation, choose_template
from criadero.generate.engine import Generator
from criadero.generate.sampling import SamplingConfig
from criadero.tokenizer import chat as templates
from criadero.tokenizer.chat import Message, render
from generate.tiny_model import BOS, END, EOS, ScriptedModel, byte_tokenizer

GREEDY = SamplingConfig(temperature=0, max_tokens=30)


class ScriptedGenerator(Generator):
    """Answers with the given texts in turn and keeps the prompts it was shown."""

    def __init__(self, *answers: bytes, max_seq_len: int = 96) -> None:
        super().__init__(ScriptedModel([], max_seq_len=max_seq_len), byte_tokenizer())
        self.answers = list(answers)
        self.prompts: list[list[int]] = []

    def generate(self, prompt_ids, sampling, **options):
        self.prompts.append(list(prompt_ids))
        self.model.script = iter([*(self.answers.pop(0) if self.answers else b""), EOS])
        return super().generate(prompt_ids, sampling, **options)


def loaded(**values):
    return SimpleNamespace(
        **{"chat_template": None, "has_unknown_template": False, "source": "`m`", **values}
    )


def test_the_template_of_the_model_is_taken_unless_another_is_wanted():
    assert choose_template(loaded(chat_template="chatml")) == "chatml"
    assert choose_template(loaded(chat_template="chatml"), wanted="llama2") == "llama2"
    assert choose_template(loaded(has_unknown_template=True), wanted="plain") == "plain"


def test_a_model_without_a_template_continues_plainly_and_that_is_said(caplog, monkeypatch):
    monkeypatch.setattr("criadero.notices._said", set())
    assert choose_template(loaded()) == "plain"
    assert "base model" in caplog.text


def test_an_unknown_template_is_refused_with_a_hint_that_names_the_option():
    with pytest.raises(FormatError) as problem:
        choose_template(loaded(has_unknown_template=True))
    assert "--template" in problem.value.hint
    assert "chatml" in problem.value.hint


def test_a_template_nobody_knows_or_the_vocabulary_cannot_write_is_refused():
    for template in ("nonsense", "llama3"):
        with pytest.raises(TokenizerError):
            Conversation(ScriptedGenerator(), template)


def test_a_plain_conversation_is_one_running_text():
    generator = ScriptedGenerator(b" upon a time", b" the end")
    conversation = Conversation(generator, "plain")
    assert conversation.answer("Once", GREEDY).text == " upon a time"
    conversation.answer("And then", GREEDY)
    assert generator.prompts == [[BOS, *b"Once"], [BOS, *b"Once\n upon a time\nAnd then"]]


def test_earlier_turns_and_the_system_instruction_are_shown_again(monkeypatch):
    shown = []

    def write(name, messages, tokenizer):
        shown.append((name, [(message.role, message.content) for message in messages]))
        return [BOS]

    monkeypatch.setattr(templates, "render", write)
    conversation = Conversation(ScriptedGenerator(b" \n Hi.", b"Bye."), "llama2", system="Be brief.")
    pieces = []
    answer = conversation.answer("Hello", GREEDY, on_token=lambda token: pieces.append(token.text))
    assert answer.text == "".join(pieces) == "Hi."
    conversation.answer("Go", GREEDY)
    turns = [("system", "Be brief."), ("user", "Hello"), ("assistant", "Hi."), ("user", "Go")]
    assert shown == [("llama2", turns[:2]), ("llama2", turns)]
    conversation.clear()
    assert conversation.messages == (Message("system", "Be brief."),)


def test_the_end_of_a_turn_ends_the_answer():
    tokenizer = byte_tokenizer()
    generator = ScriptedGenerator(bytes([65, 66]))
    conversation = Conversation(generator, "llama2")
    conversation._end_ids = frozenset({END, 66})
    assert conversation.answer("Hello", GREEDY).text == "A"
    assert generator.prompts == [render("llama2", [Message("user", "Hello")], tokenizer)]


def test_what_was_written_before_an_interruption_stays_in_the_conversation():
    conversation = Conversation(ScriptedGenerator(b"abcdef", b"more"), "plain")

    def interrupt(token):
        if token.text == "c":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        conversation.answer("Go", GREEDY, on_token=interrupt)
    assert conversation.messages == (Message("user", "Go"), Message("assistant", "abc"))
    assert conversation.answer("on", GREEDY).text == "more"


def test_a_conversation_longer_than_the_context_is_refused_and_unchanged():
    conversation = Conversation(ScriptedGenerator(b"x" * 20, max_seq_len=40), "plain")
    conversation.answer("short", GREEDY)
    before = conversation.messages
    with pytest.raises(DataError, match=r"tokens.*holds 40"):
        conversation.answer("long " * 9, GREEDY)
    assert conversation.messages == before
