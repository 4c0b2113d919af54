"""Tab completion: the shells' scripts, and the candidates they ask for."""

from __future__ import annotations

import argparse

from llsflow.config import complete, list_options

COMMANDS = ("run", "plan", "check", "preview", "chat", "ls", "show", "cp", "schema", "ui", "stop", "completion")

SCRIPTS = {
    "bash": """\
_llsflow() {
  local IFS=$'\\n'
  COMPREPLY=( $(COMP_WORDBREAKS=' ' llsflow complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null) )
  [[ ${COMPREPLY[0]} == *[=.] ]] && compopt -o nospace
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -F _llsflow llsflow
""",
    "zsh": """\
#compdef llsflow
_llsflow() {
  local -a found
  found=("${(@f)$(llsflow complete -- "${words[@]:1:$((CURRENT - 1))}" 2>/dev/null)}")
  compadd -S '' -- $found
}
compdef _llsflow llsflow
""",
    "fish": """\
complete -c llsflow -f -a '(llsflow complete -- (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'
""",
}


def script(options: argparse.Namespace) -> int:
    """Print the script of a shell."""
    print(SCRIPTS[options.shell], end="")
    return 0


def candidates(options: argparse.Namespace) -> int:
    """Print what may stand at the last of the words."""
    words = [word for word in options.words if word != "--"] or [""]
    for candidate in _candidates(words):
        print(candidate)
    return 0


def _candidates(words: list[str]) -> list[str]:
    command, last = words[0], words[-1]
    if len(words) == 1:
        return [name for name in COMMANDS if name.startswith(last)]
    if command in ("run", "plan", "check", "preview"):
        from llsflow.data.catalogue import registered

        return complete(words[1:], registered=registered)
    if command == "chat":
        return [word for word in complete(["", *words[1:]]) if word.startswith("agent")]
    groups = list_options()
    if command in ("ls", "schema"):
        return [group for group in groups if group.startswith(last)]
    if command in ("show", "cp"):
        files = [f"{group}/{option.name}" for group, options in groups.items() for option in options]
        return [name for name in files if name.startswith(last)]
    return [shell for shell in SCRIPTS if command == "completion" and shell.startswith(last)]
