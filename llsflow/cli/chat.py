"""`llsflow chat`: a conversation with an agent in the terminal, with its tools shown."""

from __future__ import annotations

import argparse
import asyncio
import mimetypes
import sys
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from llsflow.config import load_agent
from llsflow.config.named import SHIELDS, TOOLGROUPS
from llsflow.errors import ConfigError, LlsflowError, Mistake
from llsflow.schema.agents import AgentConfig
from llsflow.schema.models import ModelConfig

if TYPE_CHECKING:
    from llsflow.agents.standalone import StandaloneAgent
    from llsflow.models.remote import RemoteModel

OWN = "own-folder"
"""What a model that is named by its folder is called."""


def command(options: argparse.Namespace) -> int:
    """Talk until the end of the input."""
    words = [*options.words]
    folder = Path(options.model).expanduser() if options.model else None
    is_folder = folder is not None and folder.is_dir()
    if options.model:
        words.append(f"agent.model={OWN if is_folder else options.model}")
    config = load_agent(words, config_dir=options.config_dir)
    model = ModelConfig(model_id=OWN, path=str(folder)) if is_folder else _known(config.model, options.config_dir)
    with _answering(model, options.device) as remote:
        return _talk(config, model, remote, options.config_dir)


def _known(name: str, config_dir: Path | None) -> ModelConfig:
    from llsflow.models.catalogue import find_model, known_models
    from llsflow.schema.kinds import or_known

    model = find_model(name, config_dir=config_dir)
    if model is None:
        known = known_models(config_dir=config_dir)
        sentence = f"no model {name!r}{or_known(name, known)} (a folder: --model FOLDER)"
        raise ConfigError([Mistake("agent.model", sentence)])
    return model


@contextmanager
def _answering(model: ModelConfig, device: str) -> Iterator[RemoteModel]:
    """Yield where the model answers: its endpoint, or an engine in this process."""
    from llsflow.models.remote import RemoteModel

    if model.endpoint:
        yield RemoteModel.of(model)
        return
    from llsflow.models.engine import serving_one

    with serving_one(model, batch_size=1, device=device, dtype="fp32") as url:
        yield RemoteModel.of_engine(url, model.model_id, at_once=1)


def _talk(config: AgentConfig, model: ModelConfig, remote: RemoteModel, config_dir: Path | None) -> int:
    from llsflow.agents.generating import JUDGE_TOKENS
    from llsflow.agents.standalone import StandaloneAgent
    from llsflow.models.remote import RemoteModel

    def judge(name: str, messages: Sequence[Mapping[str, Any]]) -> Awaitable[str]:
        found = _known(name, config_dir)
        asked = RemoteModel.of(found) if found.endpoint else replace(remote, name=found.model_id)
        return agent.channels.ask(asked, messages, JUDGE_TOKENS)

    agent = StandaloneAgent(
        config,
        model,
        remote,
        find_group=partial(TOOLGROUPS.find, config_dir=config_dir),
        find_shield=partial(SHIELDS.find, config_dir=config_dir),
        judge=judge,
    )
    talk = _Talk(agent, Console(highlight=False, soft_wrap=True), shown=sys.stdin.isatty())
    with asyncio.Runner() as runner:
        try:
            runner.run(agent.open())
            if talk.shown:
                talk.welcome()
            for line in talk.lines():
                talk.answer(runner, line)
        finally:
            runner.run(agent.close())
    return 1 if talk.failed and not talk.shown else 0


class _Talk:
    """One conversation after another, on a console."""

    def __init__(self, agent: StandaloneAgent, console: Console, *, shown: bool) -> None:
        self.agent, self.console, self.shown = agent, console, shown
        self.session = agent.begin_session()
        self.documents: list[str] = []
        self.failed = False

    def welcome(self) -> None:
        """Say who is there."""
        tools = ", ".join(self.agent.toolbox.names)
        told = f"{self.agent.config.name or 'agent'} with {self.agent.config.model}"
        self.console.print(Text(f"{told}{f' and the tools {tools}' if tools else ''}; /quit ends it", style="dim"))

    def lines(self) -> Iterator[str]:
        """Yield what is said; commands are done by the way."""
        if self.shown:
            with suppress(ImportError):
                import readline  # noqa: F401 - input() edits and remembers lines by it
        while True:
            try:
                line = (input("> ") if self.shown else sys.stdin.readline() or _ended()).strip()
            except EOFError:
                return
            except KeyboardInterrupt:
                self.console.print()
                continue
            if line == "/quit":
                return
            if line.startswith("/"):
                self.obey(line)
            elif line:
                yield line

    def obey(self, line: str) -> None:
        """Do a command."""
        word, _, rest = line.partition(" ")
        if word == "/new":
            self.session, self.documents = self.agent.begin_session(), []
            self.console.print(Text("a new session", style="dim"))
        elif word == "/file" and rest:
            try:
                self.documents += _texts(Path(rest.strip()).expanduser())
            except (OSError, LlsflowError) as error:
                self.console.print(Text(str(error), style="red"))
        else:
            self.console.print(Text("known are /new, /file PATH and /quit", style="dim"))

    def answer(self, runner: asyncio.Runner, line: str) -> None:
        """Have the agent answer, and show it as it comes."""
        documents, self.documents = self.documents, []
        try:
            runner.run(self._turn(line, documents))
        except KeyboardInterrupt:
            self.console.print(Text("\n(stopped)", style="dim"))
        except (ValueError, LlsflowError) as error:
            self.failed = True
            Console(stderr=True, highlight=False).print(Text(str(error), style="red"))

    async def _turn(self, line: str, documents: list[str]) -> None:
        from contextlib import aclosing

        said = [{"role": "user", "content": line}]
        work = self.agent.turn(self.session, said, documents=documents)
        async with aclosing(self.agent.events(work)) as payloads:
            async for payload in payloads:
                self._show(payload)
        if not self.shown:
            self.console.print(Text(str((work.turn.output_message or {}).get("content", ""))))

    def _show(self, payload: Any) -> None:
        """Show an event, where somebody looks."""
        if not self.shown:
            return
        if payload.event_type == "step_progress" and payload.delta.type == "text":
            self.console.print(Text(payload.delta.text), end="")
        elif payload.event_type == "step_complete":
            for line in _lines(payload.step_details):
                self.console.print(Text(line, style="dim"))
        elif payload.event_type == "turn_complete":
            self.console.print()


def _lines(step: Any) -> Iterator[str]:
    """Yield what of a step is shown beside the answer."""
    from llsflow.agents.content import text_of

    if step.step_type == "tool_execution":
        for call, response in zip(step.tool_calls, step.tool_responses, strict=True):
            yield f"[{call.tool_name} {call.arguments}]"
            yield f"[{text_of(response.content)}]"
    elif step.step_type == "shield_call" and step.violation is not None:
        yield f"[shield: {step.violation.violation_level}]"
    elif step.step_type == "memory_retrieval":
        yield "[passages of the documents were looked up]"


def _texts(path: Path) -> list[str]:
    import base64

    from llsflow.agents.documents import read_documents
    from llsflow.schema.agents import Document
    from llsflow.schema.server import FetchConfig

    kind = mimetypes.guess_type(path.name)[0] or "text/plain"
    content = f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
    return read_documents([Document(content=content, mime_type=kind)], FetchConfig())


def _ended() -> str:
    raise EOFError
