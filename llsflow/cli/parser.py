"""What the command line takes, and the help that teaches it."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

EPILOG = """\
a first session:
  llsflow run quickstart                        fine-tune and evaluate a tiny model, two minutes on a CPU
  llsflow plan quickstart                       what that would do, and why; nothing is run
  llsflow preview quickstart                    the text that is trained on, what is learned of it coloured
  llsflow run quickstart recipe.training_config.optimizer_config.lr=1e-3
  llsflow run sft dataset.uri=my.jsonl model.path=./some-hf-folder
  llsflow chat agent.model=smollm2-135m         talk to a model, or to an agent with tools
  llsflow ui                                    look at the runs in MLflow

overrides, as in Hydra:
  group=option    dataset=iso_dates             another file of conf/dataset
  key=value       recipe.lr_schedule=linear     a value in the composed configuration
  +key=value      +dataset.metadata.licence=x   a key that is not there yet (++ sets it either way)
  ~key            ~benchmark                    remove a key or a group

`llsflow COMMAND --help` says more. State lives in ./outputs, or where LLSFLOW_HOME points.
"""
CHAT = """\
in a chat:
  /new            begin anew: what was said is forgotten
  /file PATH      a document that goes with the next message: text, HTML, JSON, YAML, PDF
  /quit           end (Ctrl-D too); Ctrl-C ends the answer under way

Where the input is no terminal, each line is said, and the answers alone are printed:
  echo '6 * 7?' | llsflow chat agent=calculator --model some-hf-folder
"""
RAW: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter}


class _Parser(argparse.ArgumentParser):
    """An unknown flag ends with the nearest right way, not only with a usage line."""

    def error(self, message: str) -> NoReturn:
        hint = "; sweeps are not available: run each point by itself" if "-m" in message.split() else ""
        self.exit(2, f"llsflow: {message}{hint}\ntry: {self.prog} --help\n")


class _Version(argparse.Action):
    """Looks the version up when it is asked for: that import costs every other command 13 ms."""

    def __call__(self, parser: argparse.ArgumentParser, *args: object) -> NoReturn:
        from importlib.metadata import version

        parser.exit(0, f"llsflow {version('llsflow')}\n")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the parsed command line; `command` is the function to call with it."""
    parser = _build()
    options, rest = parser.parse_known_args(arguments)
    flags = [word for word in rest if word.startswith("-")]
    if flags or (rest and not hasattr(options, "words")):
        parser.error(f"unrecognized arguments: {' '.join(flags or rest)}")
    if rest:  # overrides that stand after a flag
        options.words += rest
    return options


def _build() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="llsflow",
        description="Fine-tune and evaluate language models from one YAML: checked, planned, run once, recorded.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and stop")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, text in (
        ("run", "run an experiment; steps that are up to date are skipped"),
        ("plan", "print what a run would do, what it costs and why; run nothing"),
        ("check", "check an experiment's configuration, model and rows"),
    ):
        _experiment_command(commands, name, text)
    text = "show training rows as the model reads them, the tokens that it learns coloured; run nothing"
    preview = _experiment_command(commands, "preview", text)
    preview.add_argument("--rows", type=_positive, default=3, metavar="N", help="how many, from the first (3)")
    _browsing_commands(commands)
    _service_commands(commands)
    return parser


def _positive(word: str) -> int:
    if not word.isdecimal() or not int(word):
        raise argparse.ArgumentTypeError(f"found {word!r}, allowed: an integer of at least 1")
    return int(word)


def _experiment_command(commands: argparse._SubParsersAction[_Parser], name: str, text: str) -> _Parser:
    command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    command.add_argument(
        "words",
        nargs="*",
        metavar="EXPERIMENT [OVERRIDE ...]",
        help="a name of conf/experiment (see `llsflow ls experiment`), then overrides: group=option, key=value",
    )
    command.add_argument(
        "--config-dir", type=Path, metavar="DIR", help="your own configuration, over the packaged one (./conf)"
    )
    command.add_argument(
        "--config", type=Path, metavar="FILE", help="run again a configuration that an earlier run stored"
    )
    command.add_argument("--cfg", choices=["job"], help="print the composed configuration and stop")
    command.add_argument("-v", "--verbose", action="store_true", help="tell more")
    command.set_defaults(command=_lazy(f"llsflow.cli.{name}"))
    return command


def _browsing_commands(commands: argparse._SubParsersAction[_Parser]) -> None:
    ls = commands.add_parser("ls", help="list the configuration groups, or the options of one")
    ls.add_argument("group", nargs="?", help="experiment, dataset, model, recipe, benchmark, …")
    show = commands.add_parser("show", help="print a configuration file, and where it stands")
    show.add_argument("name", metavar="GROUP/NAME")
    cp = commands.add_parser("cp", help="copy a packaged configuration file into your own folder, to change it")
    cp.add_argument("name", metavar="GROUP/NAME")
    cp.add_argument("destination", nargs="?", type=Path, default=Path("conf"), help="folder (./conf)")
    schema = commands.add_parser(
        "schema", help="print the JSON Schema of an experiment, or of one group, for an editor"
    )
    schema.add_argument("group", nargs="?")
    for command, name in ((ls, "ls"), (show, "show"), (cp, "cp"), (schema, "schema")):
        command.add_argument("--config-dir", type=Path, metavar="DIR", help="your own configuration (./conf)")
        command.set_defaults(command=_lazy("llsflow.cli.browse", name))


def _service_commands(commands: argparse._SubParsersAction[_Parser]) -> None:
    text = "serve the API, and all that it needs on this machine: Prefect, a worker, the inference engine, MLflow"
    serve = commands.add_parser("serve", help=text, description=text, allow_abbrev=False)
    serve.add_argument(
        "words",
        nargs="*",
        metavar="OVERRIDE",
        help="of conf/server: server.port=8400, server.jobs.at_once=1, … (see `llsflow show server/default`)",
    )
    serve.add_argument("--config-dir", type=Path, metavar="DIR", help="your own configuration (./conf)")
    serve.set_defaults(command=_lazy("llsflow.cli.serve"))
    text = "talk to an agent of conf/agent in the terminal; its tools are shown as they are called"
    chat = commands.add_parser("chat", help=text, description=text, epilog=CHAT, allow_abbrev=False, **RAW)
    chat.add_argument(
        "words",
        nargs="*",
        metavar="OVERRIDE",
        help="agent=NAME (assistant), then agent.model=NAME, agent.instructions='Be brief.', …",
    )
    chat.add_argument("--model", metavar="NAME_OR_FOLDER", help="the agent's model: of conf/model, or a folder")
    chat.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"], help="of a model of here")
    chat.add_argument("--config-dir", type=Path, metavar="DIR", help="your own configuration (./conf)")
    chat.set_defaults(command=_lazy("llsflow.cli.chat"))
    text = "bring the schedules of conf/deployment to the Prefect server: show the difference, then apply it"
    deploy = commands.add_parser("deploy", help=text, description=text, allow_abbrev=False)
    deploy.add_argument("--dry-run", action="store_true", help="only show the difference")
    deploy.add_argument("--yes", action="store_true", help="apply it without asking")
    deploy.add_argument("--config-dir", type=Path, metavar="DIR", help="your own configuration (./conf)")
    deploy.set_defaults(command=_lazy("llsflow.cli.deploy"))
    ui = commands.add_parser("ui", help="open MLflow on the runs of this LLSFLOW_HOME")
    ui.add_argument("--port", type=int, default=5000)
    ui.add_argument("--stop", action="store_true", help="end the page")
    ui.set_defaults(command=_lazy("llsflow.cli.services", "ui"))
    stop = commands.add_parser("stop", help="end the servers that runs have started in the background")
    stop.set_defaults(command=_lazy("llsflow.cli.services", "stop"))
    completion = commands.add_parser(
        "completion", help='print tab completion for a shell: eval "$(llsflow completion bash)"'
    )
    completion.add_argument("shell", choices=["bash", "zsh", "fish"])
    completion.set_defaults(command=_lazy("llsflow.cli.completion", "script"))
    complete = commands.add_parser("complete")  # called by the completion scripts; not in the list of commands
    complete.add_argument("words", nargs=argparse.REMAINDER)
    complete.set_defaults(command=_lazy("llsflow.cli.completion", "candidates"))
    _hide(commands, "complete")


def _hide(commands: argparse._SubParsersAction[_Parser], name: str) -> None:
    commands._choices_actions = [action for action in commands._choices_actions if action.dest != name]


def _lazy(module: str, function: str = "command") -> Callable[[argparse.Namespace], int]:
    """Return a function that imports its module when it is called: help needs none of them."""

    def call(options: argparse.Namespace) -> int:
        return int(getattr(importlib.import_module(module), function)(options) or 0)

    return call
