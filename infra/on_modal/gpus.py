"""GPUs by the names that Modal gives them, and the next larger one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from infra.settings import ModalSettings
from speech.stages import STAGES, StageName

_NAMES = ("B200", "H200", "H100", "A100", "L40S", "A10", "L4", "T4")


def modal_name(name: str) -> str:
    """`NVIDIA A100 80GB PCIe` → `A100-80GB`; a name of no Modal GPU as it is."""
    found = next((known for known in _NAMES if re.search(rf"\b{known}(?![0-9])", name)), None)
    if found == "A100":
        return "A100-80GB" if "80GB" in name else "A100-40GB"
    return found or name


def gpus_of(stage: StageName, settings: ModalSettings) -> tuple[str, ...]:
    """What the stage's containers are deployed with."""
    voices = STAGES[stage].machine == "Voices" and settings.voices_gpu is not None
    return (settings.voices_gpu or ()) if voices else settings.gpu


def larger_gpu(stage: StageName, larger: int, settings: ModalSettings) -> str | None:
    """The GPU of the call after `larger` steps up; None for what is deployed."""
    steps = larger_steps(stage, settings)
    return steps[min(larger, len(steps)) - 1] if larger and steps else None


def larger_steps(stage: StageName, settings: ModalSettings) -> Sequence[str]:
    """The GPUs to go through when memory does not suffice: those of the ladder above what is deployed."""
    deployed = gpus_of(stage, settings)
    ladder = settings.larger_gpus
    if not deployed:
        return ()
    return ladder[ladder.index(deployed[0]) + 1 :] if deployed[0] in ladder else ladder
