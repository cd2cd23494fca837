"""A recording's stage cut into shards, each the work of one worker, that together give exactly what one worker would.

What is cut is never the audio, which would change the text at every cut, but the list of what a stage goes through: windows
of the segmentation, chunks of speech, their segments. Each shard reads the whole recording's plan and does its part; a
stage's `combine` puts the parts together, byte for byte the artifact of the undivided stage.
"""

from __future__ import annotations

from speech.schema import Shard

WHOLE = Shard(index=0, count=1)


def part_of(total: int, shard: Shard, unit: int) -> tuple[int, int]:
    """First and one past the last of the items that are the shard's; all shards together cover each of `total` once.

    Cuts lie at multiples of `unit`, the size of a batch, so that every batch holds the same items as undivided: sums of
    floats depend on what they are batched with.
    """
    cuts = [min(total, round(total * i / shard.count / unit) * unit) for i in (shard.index, shard.index + 1)]
    return cuts[0], total if shard.index + 1 == shard.count else cuts[1]
