"""The command line. Commands live in planner/commands, one module each; here it starts and errors end.

Exit codes: 0 done; 1 it failed; 2 the input is wrong (one line says where, what and what is allowed); 130 Ctrl-C.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from planner import core
from planner.messages import packed, said

OURS = ("planner", "simulator", "live")  # errors defined here are written for users
FAULT = "PLANNER_FAULT_FILE"  # the browser names a file here, to say a job's fault in its own language
INTERRUPTED = 130  # Typer turns Ctrl-C into this exit code


LONGEST, TAIL = 1200, 400  # characters of an error, and how many of them are its end


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `planner` script. Exits the process."""
    core.start_quickly()
    code = run(sys.argv[1:] if arguments is None else list(arguments))
    gc.freeze()  # Python looks for cycles as it ends, through all that goes anyway: 60 ms
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command line; returns the exit code. The one place where errors become text."""
    from planner.commands import UsageError, build

    try:
        code = build("".join(arguments[:1]))(arguments or ["--help"], prog_name="planner", standalone_mode=False)
        sys.stdout.flush()  # a closed pipe shows here, not at exit
    except BrokenPipeError:  # the reader of our output has gone (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UsageError as error:
        return _say(_usage(error), 2)
    except FileNotFoundError as error:
        return _say(f"{error.filename}: no such file or folder" if error.filename else str(error), 2)
    except ValueError as error:
        if type(error).__module__.partition(".")[0] not in OURS:
            raise  # a bug, not a message
        return _say(said(error), 2 if _is_spec_error(error) else 1)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            return _say(str(error) or type(error).__name__, 1)
        return _say(f"{str(error.filename)[:200]}...: {error.strerror}; allowed: the path of a file", 2)
    except ModuleNotFoundError as error:
        return _say(f"the package {error.name} is not installed; planner doctor names what installs it", 1)
    except (ImportError, RuntimeError) as error:
        return _say(said(error) or type(error).__name__, 1)
    if code == INTERRUPTED:
        return _say("interrupted", INTERRUPTED)
    return code if isinstance(code, int) else 0


def _usage(error: Exception) -> str:
    """What is wrong with a command line. A key of the YAML is set by --set."""
    context = getattr(error, "ctx", None)
    fault = getattr(error, "format_message", error.__str__)()
    option = getattr(error, "option_name", "")
    known = context.command.params if context is not None else ()
    if option.startswith("--") and any("--set" in one.opts for one in known):
        from planner.spec import Spec
        from planner.spec.faults import MOST_PLACES, places

        keys = [f"--set {key}=..." for key in places(Spec, option.lstrip("-"))[:MOST_PLACES]]
        fault = f"No such option: {option}; it is {' or '.join(keys)}" if keys else fault
    extra = re.search(r"extra argument.*?\(((?:[\w.]+=\S* ?)+)\)$", fault)
    if extra is not None and any("--set" in one.opts for one in known):
        fault += f"; keys of the YAML take --set: {' '.join(f'--set {one}' for one in extra[1].split())}"
    return f"{fault} ({getattr(context, 'command_path', 'planner')} --help shows what is allowed)"


def _is_spec_error(error: Exception) -> bool:
    from planner.spec import SpecError  # pydantic is not imported for --help

    return isinstance(error, SpecError)


def _say(text: str, code: int) -> int:
    """One line on stderr, and in the file that FAULT names."""
    if os.environ.get(FAULT):
        Path(os.environ[FAULT]).write_text(json.dumps(packed(text)))
    line = " ".join(text.split())
    if len(line) > LONGEST:  # somebody's value is in it; the remedy is at the end
        line = f"{line[: LONGEST - TAIL]} ... {line[-TAIL:]}"
    print(f"planner: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
