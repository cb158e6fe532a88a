"""The command line: python -m ppo_lab COMMAND, with the commands of `_training_commands` and `_reading_commands`.

Exit codes: 0 done; 1 an error, one line on stderr; 2 wrong usage; 130 stopped by Ctrl-C, 143 by SIGTERM.
torch is imported by the commands that need it, so that --help is quick.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ppo_lab.cli import flags, lateral
from ppo_lab.config.loading import check_live, load_config
from ppo_lab.errors import LabError, RunError

PROGRAM = "python -m ppo_lab"
RUN = "path of a run, or its name under run.root of config.yaml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say and return the exit code. Wrong usage and --help leave with SystemExit."""
    given = _parse(flags.tidied(sys.argv[1:] if arguments is None else arguments))
    try:
        code: int = given.command(given)
    except LabError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    return code


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Train PPO agents, and go on with runs you can trust.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    subparsers = _training_commands(commands) | _reading_commands(commands)
    given, unknown = parser.parse_known_args(arguments)
    if unknown:
        used = subparsers[given.name]
        name = next((argument for argument in unknown if argument.startswith("-")), None)
        used.error(
            f"unexpected {unknown[0]!r}"
            if name is None
            else flags.unknown_flag(name, takes_settings=given.name in ("train", "fork"))
        )
    return given


def _training_commands(commands: Any) -> dict[str, argparse.ArgumentParser]:
    train = _command(
        commands, "train", _train, "train a new run", "[--preset NAME] [--config FILE] [--ppo.gamma X ...]"
    )
    train.add_argument("--preset", metavar="NAME", help="settings of this name in config.yaml")
    train.add_argument("--config", metavar="FILE", help="settings; default: the nearest config.yaml here or above")
    flags.add_settings(train)

    resume = _command(commands, "resume", _resume, "go on with a run, bit for bit", "RUN [--total-timesteps N]")
    resume.add_argument("run", metavar="RUN", help=RUN)
    resume.add_argument(
        "--total-timesteps", "--ppo.total-timesteps", dest="total", metavar="N",
        help="make the run longer; anything else that changes is a fork",
    )  # fmt: skip

    fork = _command(
        commands, "fork", _fork, "train a new run from another's checkpoint", "RUN [--at WHERE] [--ppo.gamma X ...]"
    )
    fork.add_argument("run", metavar="RUN", help=RUN)
    _add_at(fork)
    flags.add_settings(fork)
    return {"train": train, "resume": resume, "fork": fork}


def _reading_commands(commands: Any) -> dict[str, argparse.ArgumentParser]:
    replay = _command(commands, "replay", _replay, "train a run again from its journal: is it the same?", "RUN")
    evaluate = _command(
        commands, "evaluate", _evaluate, "play episodes with a run's policy",
        "RUN [--episodes N] [--seed S] [--max-steps N] [--stochastic] [--at WHERE] "
        "[--data DIR --model tinyphysics.onnx ...]",
    )  # fmt: skip
    evaluate.add_argument("--episodes", type=int, metavar="N", help="whole episodes (default 100)")
    evaluate.add_argument("--seed", type=int, default=1, metavar="S", help="of environments and actions (default 1)")
    evaluate.add_argument(
        "--max-steps", type=int, metavar="N",
        help="cut episodes off after N env steps (default: run.eval_max_steps, else the environment's limit or 10,000)",
    )  # fmt: skip
    evaluate.add_argument("--stochastic", action="store_true", help="draw actions; default: the most likely ones")
    _add_at(evaluate)
    lateral.add_flags(evaluate)
    show = _command(commands, "show", _show, "settings, lineage, journal, checkpoints, last metrics of a run", "RUN")
    export = _command(commands, "export-csv", _export_csv, "write the metrics of a run as a table", "RUN FILE")
    controller = _command(
        commands, "export-controller", _export_controller, "write a LateralControl policy as a challenge controller",
        "RUN FILE [--at WHERE]",
    )  # fmt: skip
    for parser in (replay, evaluate, show, export, controller):
        parser.add_argument("run", metavar="RUN", help=RUN)
    for parser in (export, controller):
        parser.add_argument("file", metavar="FILE", type=Path)
    _add_at(controller)
    runs = _command(commands, "runs", _runs, "a table of all runs", "[ROOT]")
    runs.add_argument(
        "root", metavar="ROOT", nargs="?", type=Path, help="their folder; default: run.root of config.yaml"
    )
    parsers = (replay, evaluate, show, export, controller, runs)
    return {parser.get_default("name"): parser for parser in parsers}


def _command(commands: Any, name: str, function: Any, meaning: str, usage: str) -> argparse.ArgumentParser:
    """Add a subcommand without abbreviated flags: what abbreviates one flag today may fit two tomorrow."""
    epilog = flags.HOW if name in ("train", "fork") else None
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=meaning, description=f"{meaning[0].upper()}{meaning[1:]}".rstrip(".") + ".",
        usage=f"{PROGRAM} {name} {usage}", epilog=epilog, allow_abbrev=False,
    )  # fmt: skip
    parser.set_defaults(command=function, name=name)
    return parser


def _add_at(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--at",
        type=_where,
        default="latest",
        metavar="WHERE",
        help="best, latest (default), or the step of a checkpoint",
    )


def _where(text: str) -> int | str:
    if text in ("best", "latest"):
        return text
    if text.replace("_", "").isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"best, latest or a step, got {text!r}")


def _find(text: str) -> Path:
    """Return the folder of a run given by path or by name. Raise RunError."""
    from ppo_lab.runs.run import look_up_run

    return look_up_run(text)


def _train(given: argparse.Namespace) -> int:
    config = load_config(given.config, given.preset, flags.given_settings(given))
    from ppo_lab.cli.training import train
    from ppo_lab.training.trainer import Trainer

    return train(lambda: Trainer(config))


def _resume(given: argparse.Namespace) -> int:
    total = check_live("total_timesteps", given.total) if given.total is not None else None
    from ppo_lab.cli.training import train
    from ppo_lab.training.trainer import Trainer

    folder = _find(given.run)
    return train(lambda: Trainer.resume(folder, total))


def _fork(given: argparse.Namespace) -> int:
    from ppo_lab.cli.training import train
    from ppo_lab.training.trainer import Trainer

    folder = _find(given.run)
    return train(lambda: Trainer.fork(folder, given.at, flags.given_settings(given)))


def _replay(given: argparse.Namespace) -> int:
    from ppo_lab.training.replay import replay

    folder = _find(given.run)
    result = replay(folder)
    if result.equal:
        print(f"equal: {folder} up to update {result.update}, fingerprint {result.fingerprint}")
        return 0
    where = f"first at update {result.first_difference}"
    if result.first_difference is None:
        where = f"in the state after update {result.update}; the metrics of all updates are equal"
    print(
        f"different: {folder}, {where}; fingerprint {result.fingerprint}, recorded {result.recorded}", file=sys.stderr
    )
    return 1


def _evaluate(given: argparse.Namespace) -> int:
    from ppo_lab.evaluation import evaluate, statistics
    from ppo_lab.evaluation.policy import load_policy
    from ppo_lab.runs.run import read_config

    folder = _find(given.run)
    config = read_config(folder)
    lateral.check(given, config)
    if given.model is None:
        policy = load_policy(folder, given.at)
        if policy.envs_given:
            raise RunError(
                f"{folder} was trained in environments of a script's own: evaluate it there, with env_factory"
            )
        episodes = 100 if given.episodes is None else given.episodes
        limit = config.run.eval_max_steps if given.max_steps is None else given.max_steps
        result = evaluate(policy, config, episodes, given.seed, deterministic=not given.stochastic, max_steps=limit)
        print(f"return {statistics.describe(result.returns)}")
        print(f"length {result.lengths.mean():.1f}, {int(result.terminated.sum())} of {episodes} terminated")
        if result.cut_off.any():
            after = f"{result.lengths[result.cut_off].max():,} steps"
            print(f"{int(result.cut_off.sum())} of {episodes} cut off after {after}: their returns are those so far")
    if lateral.wanted(given):
        lateral.report(folder, given)
    return 0


def _runs(given: argparse.Namespace) -> int:
    from ppo_lab.cli.tables import runs_table
    from ppo_lab.runs.run import run_root

    print(runs_table(given.root or run_root()))
    return 0


def _show(given: argparse.Namespace) -> int:
    from ppo_lab.cli.tables import show_run

    print(show_run(_find(given.run)))
    return 0


def _export_csv(given: argparse.Namespace) -> int:
    from ppo_lab.runs import export_csv

    folder = _find(given.run)
    try:
        export_csv(folder, given.file)
    except OSError as error:
        raise RunError(f"cannot write {given.file}: {error.strerror}") from None
    print(f"{given.file}: the metrics of {folder}")
    return 0


def _export_controller(given: argparse.Namespace) -> int:
    from ppo_lab.envs.registry import our_module

    folder = _find(given.run)
    path = our_module("lateral.challenge").export_controller(folder, given.file, given.at)
    print(f"{path}: the policy of {folder} as a controller, {path.stat().st_size / 1000:.0f} kB")
    return 0
