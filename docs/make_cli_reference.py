"""Writes docs/cli.md from the command line itself: every command, argument and option with its help.

python docs/make_cli_reference.py            writes the file
python docs/make_cli_reference.py --check    exits 1 when it is out of date
"""

from __future__ import annotations

import sys
from pathlib import Path

TARGET = Path(__file__).with_name("cli.md")
HEADER = """# Command reference

Written by `docs/make_cli_reference.py` from the program; the tour is in [chat.md](chat.md).

Exit codes: 0 done, 1 ran but did not succeed (no reply of `collect` was right, training diverged, a check of `doctor` failed), 2 wrong option, 65 wrong file or a reply that is not what was asked for, 66 missing file, 71 no memory, 73 and 74 output, 75 busy, 130 interrupted.
"""


def reference() -> str:
    from typer.main import get_command

    from autodeco_edge.cli import app

    return HEADER + "".join(section(command, name) for name, command in walk(get_command(app), "autodeco-edge"))


def walk(command, name: str):
    """(name, command) of everything that can be run, in the order of --help."""
    if not hasattr(command, "commands") or command.invoke_without_command and command.params[1:]:
        yield name, command  # a group that is a command, too
    if not hasattr(command, "commands"):
        return
    for each in command.commands:
        yield from walk(command.commands[each], f"{name} {each}")


def section(command, name: str) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden and p.name != "help"]
    names = [a.metavar or (f"{a.name.upper()}..." if a.nargs == -1 else a.name.upper()) for a in arguments]
    usage = " ".join([name, *names, *(["[OPTIONS]"] if options else [])])
    text = [f"\n## {name}\n", f"```\n{usage}\n```\n", *paragraphs(command.help or "")]
    if arguments or options:
        text.append("| | | Default |\n|---|---|---|")
        text += [row(f"`{a.name}`", a.help, None) for a in arguments]
        text += [row(flags(o), o.help, o) for o in options]
    return "\n".join(text) + "\n"


def paragraphs(help_text: str) -> list[str]:
    """The help, with its example as code."""
    out = []
    for block in help_text.strip().split("\n\n"):
        words = " ".join(block.split())
        out.append(
            f"```sh\n{words.removeprefix('Example: ')}\n```\n" if words.startswith("Example: ") else words + "\n"
        )
    return out


def flags(option) -> str:
    names = ", ".join(f"`{n}`" for n in [*option.opts, *option.secondary_opts])
    return names + (f" {option.metavar}" if option.metavar else "")


def row(what: str, help_text: str | None, option) -> str:
    default = (
        ""
        if option is None or option.default is None or option.default is False or callable(option.default)
        else f"`{option.default}`"
    )
    if option is not None and not option.show_default:
        default = ""
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in (what, help_text or "", default)) + " |"


def main() -> int:
    text = reference()
    if "--check" in sys.argv:
        return int(not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text)
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
