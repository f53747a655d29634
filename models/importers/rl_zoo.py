"""What lies beside an agent in a folder of the RL Zoo: environment, wrapper, normalisation.

``config.yml`` and ``args.yml`` are YAML dumps of an OrderedDict, a list of ``[key, value]`` pairs.
A few values are needed, so they are read as text: no YAML tag is ever resolved.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from eventsim.errors import FileFormatError, UnknownNameError, UnsupportedError

MAX_YAML_BYTES = 2**20

# Environments as trained, and under the name that Gymnasium gives them today. Only those whose
# observations and actions are the same; Ant, Humanoid, Reacher and the like changed theirs.
RENAMED: dict[str, str] = {
    "LunarLander-v2": "LunarLander-v3",
    "LunarLanderContinuous-v2": "LunarLanderContinuous-v3",
    "HalfCheetah-v2": "HalfCheetah-v5",
    "HalfCheetah-v3": "HalfCheetah-v5",
    "Hopper-v2": "Hopper-v5",
    "Hopper-v3": "Hopper-v5",
    "Swimmer-v2": "Swimmer-v5",
    "Swimmer-v3": "Swimmer-v5",
    "Walker2d-v2": "Walker2d-v5",
    "Walker2d-v3": "Walker2d-v5",
    "InvertedPendulum-v2": "InvertedPendulum-v5",
    "Pendulum-v0": "Pendulum-v1",
}

_ALGORITHMS = ("a2c", "ars", "ddpg", "dqn", "ppo", "qrdqn", "sac", "td3", "tqc", "trpo")
_NORMALIZATION_FILES = ("vecnormalize.pkl", "vec_normalize.pkl")
_ENV_NAME = re.compile(r"(?:[\w.]+[:/])*[A-Za-z][\w.-]*-v\d+")
_PAIR = re.compile(r"(?:- - - |  - - )([A-Za-z_]\w*)")
_MAPPING = re.compile(r"([A-Za-z_]\w*):(?: (.*))?")


@dataclass(frozen=True)
class Surroundings:
    """What the files beside an agent say about it.

    Attributes
    ----------
    env : str or None
        Environment as trained.
    algorithm : str or None
        Lower case, as the RL Zoo writes it.
    activation : str or None
        Class name such as ``"ReLU"``.
    normalize : bool or None
        Whether the observation was normalised; None if no file says.
    normalization_file : path or None
        ``vecnormalize.pkl``, where there is one.
    time_feature : bool
        Whether TimeFeatureWrapper was applied.
    max_steps : int or None
        Its argument, if given.
    test_mode : bool
        Its argument.
    notes : tuple of str
        What the user should know, one sentence each.
    """

    env: str | None = None
    algorithm: str | None = None
    activation: str | None = None
    normalize: bool | None = None
    normalization_file: Path | None = None
    time_feature: bool = False
    max_steps: int | None = None
    test_mode: bool = False
    notes: tuple[str, ...] = field(default=())


def find_agent(folder: Path) -> Path:
    """Return the agent's zip inside a folder of the RL Zoo layout.

    Raises
    ------
    UnknownNameError
        If there is none, or several and no name tells which.
    FileFormatError
        If the folder cannot be read.
    """
    try:
        zips = sorted(p for p in folder.iterdir() if p.suffix == ".zip" and p.is_file())
    except OSError as error:
        raise FileFormatError(
            f"cannot be listed ({error.strerror}); check its rights",
            where=f"folder '{folder.name}'",
        ) from error
    final = [p for p in zips if not re.fullmatch(r"(rl_model_\d+_steps|best_model)\.zip", p.name)]
    named = [p for p in final if p.stem == _env_of_folder(folder.name)]
    best = [p for p in zips if p.name == "best_model.zip"]
    for candidates in (named, final, best, zips):
        if len(candidates) == 1:
            return candidates[0]
    if not zips:
        raise UnknownNameError(
            "holds no zip file; give the agent's zip, or its folder <algorithm>/<environment>",
            where=f"folder '{folder.name}'",
        )
    raise UnknownNameError(
        f"holds several agents ({', '.join(p.name for p in zips[:5])}); give one of these files",
        where=f"folder '{folder.name}'",
    )


def surroundings(agent: Path) -> Surroundings:
    """Read what lies beside the zip `agent`, or in the one folder below that has a config.yml.

    Raises
    ------
    FileFormatError
        If ``config.yml`` or ``args.yml`` is not text.
    UnsupportedError
        If the agent was trained on stacked frames.
    """
    folder = agent.resolve().parent
    if not (folder / "config.yml").is_file():
        below = [p.parent for p in folder.glob("*/config.yml")]
        same = [p for p in below if p.name == _env_of_folder(folder.name)]
        folder = (same or below or [folder])[0] if len(same or below) == 1 else folder
    config = _pairs(folder / "config.yml")
    arguments = _pairs(folder / "args.yml")
    notes: list[str] = []

    stacked = config.get("frame_stack", "")
    if stacked.isdigit() and int(stacked) > 1:
        raise UnsupportedError(
            f"was trained on {stacked} stacked frames (frame_stack), which is not supported yet",
            where=agent.name,
        )
    wrappers = config.get("env_wrapper", "")
    for wrapper in re.findall(r"[A-Za-z_]\w*(?:\.\w+)+", wrappers):
        if not wrapper.endswith("TimeFeatureWrapper"):
            notes.append(f"trained inside the wrapper {wrapper}, which is not applied")
    if arguments.get("env_kwargs", "null") not in ("null", "{}", ""):
        notes.append(f"trained with env_kwargs {arguments['env_kwargs']}, which are not applied")
    steps = re.search(r"max_steps['\"]?\s*[:=]\s*(\d{1,9})\b", wrappers)
    activation = re.search(r"activation_fn\s*=\s*(?:\w+\.)*(\w+)", config.get("policy_kwargs", ""))
    file = next((folder / n for n in _NORMALIZATION_FILES if (folder / n).is_file()), None)
    env, env_note = _environment(agent, folder, arguments)
    if env_note:
        notes.append(env_note)
    return Surroundings(
        env=env,
        algorithm=arguments.get("algo") or _algorithm_of_folder(folder),
        activation=activation[1] if activation else None,
        normalize=_normalize(config) if config else None,
        normalization_file=file,
        time_feature="TimeFeatureWrapper" in wrappers,
        max_steps=int(steps[1]) if steps else None,
        test_mode=re.search(r"test_mode['\"]?\s*[:=]\s*[Tt]rue", wrappers) is not None,
        notes=tuple(notes),
    )


def todays_name(env: str) -> tuple[str, str | None]:
    """Return the environment's name in today's Gymnasium, and a note if it is another one."""
    today = RENAMED.get(env, env)
    return today, None if today == env else f"trained on {env}, which is {today} today"


def _environment(
    agent: Path, folder: Path, arguments: dict[str, str]
) -> tuple[str | None, str | None]:
    if _ENV_NAME.fullmatch(arguments.get("env", "")):
        return arguments["env"], None
    for name, what in ((_env_of_folder(folder.name), "folder"), (agent.stem, "file")):
        # Names on the Hugging Face Hub begin with the algorithm.
        bare = re.sub(r"^[a-z0-9]{2,8}-(?=[A-Z])", "", name)
        if _ENV_NAME.fullmatch(bare):
            return bare, f"environment {bare} taken from the {what}'s name"
    return None, None


def _env_of_folder(name: str) -> str:
    return re.sub(r"_\d+$", "", name)  # a number of the run


def _algorithm_of_folder(folder: Path) -> str | None:
    name = folder.parent.name
    return name if name in _ALGORITHMS else None


def _normalize(config: dict[str, str]) -> bool:
    value = config.get("normalize", "false")
    if value.lower() in ("false", "null", "no", ""):
        return False
    said = value + config.get("normalize_kwargs", "")
    return re.search(r"norm_obs\W+[Ff]alse", said) is None


def _pairs(path: Path) -> dict[str, str]:
    """Read the top-level keys of a YAML file and their values as text; {} without the file."""
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise FileFormatError("is too large for a settings file", where=path.name)
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(
            "cannot be read as text; mend it or move it away", where=path.name
        ) from error
    return {key: " ".join(parts).strip(" '\"") for key, parts in _entries(lines)}


def _entries(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    key, parts = "", list[str]()
    for line in lines:
        pair, mapping = _PAIR.fullmatch(line.rstrip()), _MAPPING.fullmatch(line.rstrip())
        if pair or mapping:
            if key:
                yield key, parts
            key, parts = (pair or mapping)[1], []  # type: ignore[index]
            if mapping and mapping[2]:
                parts.append(mapping[2].strip())
        elif key:
            parts.append(re.sub(r"^    - ", "", line).strip())
    if key:
        yield key, parts
