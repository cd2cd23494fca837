"""What hot words gain on names, and that they lose nothing elsewhere: `python -m bench.glossary [--model base]`.

Piper's `joe` says sentences with names that are rare, and the sentences of the reference conversation, without any. Each is decoded without hints, with all names as hot words, and
with twenty other names. *names* are found as they are spelt; the error rate is that of the other words.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.recordings import JOE_SENTENCES, laid_out
from bench.systems import command_environment
from bench.tables import markdown
from bench.voices import SAMPLE_RATE, SpeechUnavailableError, synthesised
from speech.schema import AsrResult, RuntimeOptions
from speech.stages import run_stage
from speech.stored import read_json

NAMED = (
    ("Siobhan Kowalczyk", "Yesterday Siobhan Kowalczyk called about the contract."),
    ("Xiomara Nguyen", "Please ask Xiomara Nguyen to send the numbers."),
    ("Anneliese Oberholtzer", "The talk by Anneliese Oberholtzer begins at nine."),
    ("Thibault", "Nobody has seen Thibault since the meeting."),
    ("Kubernetes", "We moved everything to Kubernetes last spring."),
    ("Stenoflow", "They transcribe all of it with Stenoflow."),
    ("Quetiapine", "The doctor prescribed Quetiapine for two weeks."),
    ("Gdansk", "The ship from Gdansk arrives in the evening."),
    ("Ljubljana", "Our office in Ljubljana is closed on Friday."),
    ("Grafana", "The picture in Grafana shows what happened."),
)
OTHERS = (
    "Wojciech Bartholomew Nkechi Aoife Zbigniew Prometheus Kibana Terraform Metformin Szczecin "
    "Reykjavik Oluwaseun Guadalupe Isolde Vasiliki Podman Ceph Lisinopril Brno Tallinn"
)


def decoded(texts: Sequence[str], hotwords: str | None, model: str, runtime: RuntimeOptions) -> str:
    """What is recognised of the sentences, one after the other."""
    import soundfile

    clips = synthesised(tuple(texts))
    samples, _ = laid_out(clips, [0.8] * len(clips))
    with tempfile.TemporaryDirectory() as folder:
        audio, activity, words = (Path(folder) / name for name in ("audio.flac", "activity.npz", "words.json"))
        soundfile.write(audio, np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16), SAMPLE_RATE, format="FLAC")
        run_stage("segment", {"audio": audio}, {}, runtime, activity, lambda _: None)
        params = {"model": model, "language": "en", "hotwords": hotwords}
        run_stage("asr", {"audio": audio, "segmentation": activity}, params, runtime, words, lambda _: None)
        return " ".join(segment.text for segment in read_json(AsrResult, words).segments)


def found(text: str) -> int:
    return sum(name.casefold() in text.casefold() for name, _ in NAMED)


def error_rate(text: str, sentences: Sequence[str]) -> float:
    """Of all words but the names."""
    from rapidfuzz.distance import Levenshtein

    from speech.scoring.normaliser import normalise

    names = {part for name, _ in NAMED for part in normalise(name)}
    true = [word for word in normalise(" ".join(sentences)) if word not in names]
    said = [word for word in normalise(text) if word not in names]
    return Levenshtein.distance(true, said) / len(true)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.glossary", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="base")
    model = parser.parse_args().model
    runtime = RuntimeOptions(models_dir=str(command_environment(Path.home())["STENO_MODELS_DIR"]), offline=True)
    said = [sentence for _, sentence in NAMED]
    hints = {"none": None, "the names": " ".join(name for name, _ in NAMED), "twenty other names": OTHERS}
    rows = [["hot words", "names found", "other words wrong", "sentences without names: words wrong"], ["---"] * 4]
    try:
        for label, hotwords in hints.items():
            text, plain = (decoded(texts, hotwords, model, runtime) for texts in (said, JOE_SENTENCES))
            rates = [f"{100 * error_rate(*pair):.1f} %" for pair in ((text, said), (plain, JOE_SENTENCES))]
            rows.append([label, f"{found(text)}/{len(NAMED)}", *rates])
    except SpeechUnavailableError as error:
        sys.exit(str(error))
    print(markdown(rows))


if __name__ == "__main__":
    main()
