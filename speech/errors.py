"""The errors of the engine, which programs know as `stenoflow.errors`."""

from stenoflow.errors import AccessError as AccessError
from stenoflow.errors import ChecksumMismatch as ChecksumMismatch
from stenoflow.errors import CorruptMedia as CorruptMedia
from stenoflow.errors import EmptyMedia as EmptyMedia
from stenoflow.errors import EngineMissing as EngineMissing
from stenoflow.errors import ForbiddenMedia as ForbiddenMedia
from stenoflow.errors import GatedModel as GatedModel
from stenoflow.errors import InputError as InputError
from stenoflow.errors import InvalidOption as InvalidOption
from stenoflow.errors import InvalidReference as InvalidReference
from stenoflow.errors import MediaError as MediaError
from stenoflow.errors import MediaTooLong as MediaTooLong
from stenoflow.errors import ModelUnavailable as ModelUnavailable
from stenoflow.errors import NoAudioTrack as NoAudioTrack
from stenoflow.errors import NoSuchTrack as NoSuchTrack
from stenoflow.errors import OutOfMemory as OutOfMemory
from stenoflow.errors import Retry as Retry
from stenoflow.errors import StageCancelled as StageCancelled
from stenoflow.errors import StenoError as StenoError
from stenoflow.errors import TransientError as TransientError
from stenoflow.errors import TruncatedMedia as TruncatedMedia
from stenoflow.errors import UnknownModel as UnknownModel
from stenoflow.errors import UnreadableArtifact as UnreadableArtifact
from stenoflow.errors import UnreadableMedia as UnreadableMedia
from stenoflow.errors import UnsuitableMedia as UnsuitableMedia
