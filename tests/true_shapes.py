"""Weights that no package carries, in the true shapes and files of their repositories, so that all that loads them runs for real."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from speech.registry import torchaudio_file

DIMENSION = 256
"""Of community-1's speaker embeddings."""


def community_1(folder: Path) -> None:
    """Checkpoints as community-1 has them, written by pyannote.audio: its networks, of random weights, for four speakers; and a PLDA."""
    import torch
    from pyannote.audio.core.task import Problem, Resolution, Specifications
    from pyannote.audio.models.embedding import WeSpeakerResNet34
    from pyannote.audio.models.segmentation import PyanNet

    torch.manual_seed(0)
    segmentation = PyanNet(sincnet={"stride": 10}, lstm={"num_layers": 2})
    segmentation.specifications = Specifications(
        problem=Problem.MONO_LABEL_CLASSIFICATION,
        resolution=Resolution.FRAME,
        duration=10.0,
        classes=["a", "b", "c", "d"],
        powerset_max_classes=2,
    )
    segmentation.build()
    embedding = WeSpeakerResNet34()
    for norm in embedding.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):  # as training leaves them
            for statistics, (least, most) in ((norm.running_mean, (-0.2, 0.2)), (norm.running_var, (0.5, 2.0))):
                assert statistics is not None
                statistics.uniform_(least, most)
    embedding.specifications = Specifications(
        problem=Problem.REPRESENTATION, resolution=Resolution.CHUNK, duration=10.0, classes=["speaker"]
    )
    for name, model in (("segmentation", segmentation), ("embedding", embedding)):
        architecture = {"module": type(model).__module__, "class": type(model).__name__}
        checkpoint = {
            "state_dict": model.state_dict(),
            "hyper_parameters": dict(model.hparams),
            "pytorch-lightning_version": "2.6.0",
            "pyannote.audio": {
                "versions": {"torch": torch.__version__, "pyannote.audio": "4.0.0"},
                "architecture": architecture,
                "specifications": model.specifications,
            },
        }
        (folder / name).mkdir(parents=True)
        torch.save(checkpoint, folder / name / "pytorch_model.bin")
    (folder / "plda").mkdir()
    np.savez(folder / "plda/xvec_transform.npz", mean1=np.zeros(DIMENSION), mean2=np.zeros(DIMENSION), lda=np.eye(DIMENSION))
    np.savez(folder / "plda/plda.npz", mu=np.zeros(DIMENSION), tr=np.eye(DIMENSION) * 3, psi=np.linspace(3, 1, DIMENSION))


def torchaudio_aligner(name: str, models_dir: Path) -> None:
    """A bundle's checkpoint where it is kept once it was fetched: every weight the same number, of which the file holds one each."""
    import torch
    import torchaudio

    bundle = torchaudio.pipelines.__dict__[name]
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in torchaudio.models.wav2vec2_model(**bundle._params).state_dict().items()}
    extra = len(bundle._remove_aux_axis)  # letters of the training that the bundle removes
    for key in ("aux.weight", "aux.bias"):
        shapes[key] = torch.Size([shapes[key][0] + extra, *shapes[key][1:]])
    file = torchaudio_file(name, models_dir)
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({key: torch.full((1,), 0.01).as_strided(shape, [0] * len(shape)) for key, shape in shapes.items()}, file)
