"""Where the clips are: files that everybody may listen to, and in memory, for calls.

A call never asks the disk, which may be gone or out of descriptors by then. What touches files
blocks, and is called in a thread, one at a time; `find` may be called by anybody at any moment.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from sessions_app.core.agent import AgentProfile
from sessions_app.core.phrases import Clip, Clips
from sessions_app.prepared import neutral, sound, wav
from sessions_app.prepared.sound import Unfit
from sessions_app.prepared.wording import Wanted, wanted

logger = logging.getLogger(__name__)

#: Some thousand greetings.
MEMORY_MOST_BYTES = 256 * 2**20
_DAY_S = 86_400.0
#: A file that nobody has referred to for so long goes; an edit may be taken back until then.
UNUSED_AFTER_S = 30 * _DAY_S
_PART = ".part"


class Shelf:
    """The clips of one installation, as this process knows them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._clips: dict[str, Clip] = {}
        self._held_bytes = 0
        #: There, but not in memory.
        self._no_room: set[str] = set()
        #: Made, and not written yet: the disk would not take it.
        self._unwritten: dict[str, Clip] = {}
        #: What was told once already.
        self._told: set[str] = set()

    # ------------------------------------------------------------------ memory

    def find(self, agent: AgentProfile) -> Clips:
        """For one call: the agent's own clips, and neutral ones where there are none."""
        clips = {clip.phrase: clip for clip in neutral.clips(agent.language)}
        for each in wanted(agent):
            if (clip := self._clips.get(each.name)) is not None:
                clips[each.phrase] = clip
        return Clips(clips.values())

    def has(self, each: Wanted) -> bool:
        return each.name in self._clips or each.name in self._no_room

    def own(self, each: Wanted) -> Clip | None:
        return self._clips.get(each.name)

    def retain(self, all_wanted: Iterable[Wanted]) -> None:
        """Forget what no agent says any more; calls that have it keep it."""
        names = {each.name for each in all_wanted}
        self._clips = {name: clip for name, clip in self._clips.items() if name in names}
        self._no_room &= names
        self._held_bytes = sum(len(clip.pcm) for clip in self._clips.values())
        self._unwritten = {name: clip for name, clip in self._unwritten.items() if name in names}

    def _put(self, name: str, clip: Clip) -> None:
        if self._held_bytes + len(clip.pcm) > MEMORY_MOST_BYTES:
            most_mb = MEMORY_MOST_BYTES // 2**20
            self._no_room.add(name)
            self._tell_once("memory", "no room for more prepared audio", f"{most_mb} MB are taken")
            return
        self._held_bytes += len(clip.pcm)
        self._clips[name] = clip

    # ------------------------------------------------------------------ disk

    def load(self, some: Iterable[Wanted]) -> None:
        """Take in what the disk has; what cannot be read counts as absent and is told once."""
        for each in some:
            if self.has(each):
                continue
            clip = self._read(each)
            if clip is not None:
                self._put(each.name, clip)

    def usable(self, each: Wanted) -> bool:
        """Whether the disk has it; takes nothing into memory."""
        return self._read(each) is not None

    def _read(self, each: Wanted) -> Clip | None:
        try:
            text, rate_hz, pcm = wav.read((self.directory / each.name).read_bytes())
            if sound.fit(pcm, rate_hz, text) != pcm:
                # After a loss of power the right length may be there, with zeros at its end.
                raise Unfit("it is silent where it was not when it was kept")
        except FileNotFoundError:
            return None
        except OSError as refused:
            self._tell_once("read", "prepared audio cannot be read", str(refused))
            return None
        except (wav.NotAClip, Unfit) as wrong:
            self._tell_once(each.name, f"prepared audio {each.name} cannot be used", str(wrong))
            return None
        return Clip(each.phrase, text, rate_hz, pcm)

    def keep(self, each: Wanted, clip: Clip) -> None:
        """For this process at once, for all others when the disk takes it."""
        self._put(each.name, clip)
        self._unwritten[each.name] = clip
        self.write()

    def write(self) -> None:
        """Write what has not been written; a disk that refuses is told once."""
        for name, clip in list(self._unwritten.items()):
            try:
                self._write(name, wav.write(clip.text, clip.rate_hz, clip.pcm))
            except OSError as refused:
                self._tell_once("disk", "prepared audio cannot be written", str(refused))
                return
            del self._unwritten[name]
            self._told.discard("disk")
            self._told.discard(name)

    def _write(self, name: str, data: bytes) -> None:
        """Whole or not at all: under another name, to the platter, then renamed."""
        self.directory.mkdir(parents=True, exist_ok=True)
        part = self.directory / f"{secrets.token_hex(8)}{_PART}"
        try:
            with part.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.directory / name)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise

    def sweep(self, all_wanted: Iterable[Wanted], now_s: float | None = None) -> None:
        """Touch what is referred to, delete what nobody has touched for a month, and write again
        what somebody took away.

        Another installation may share the place: it touches its own files.
        """
        now_s = time.time() if now_s is None else now_s
        names = {each.name for each in all_wanted}
        try:
            seen = set(os.listdir(self.directory))
            for name in seen:
                self._sweep_one(self.directory / name, name in names, now_s)
        except FileNotFoundError:
            seen = set()
        except OSError as refused:
            self._tell_once("sweep", "old prepared audio cannot be swept", str(refused))
            return
        lost = {name: clip for name, clip in self._clips.items() if name in names - seen}
        self._unwritten = {**lost, **self._unwritten}
        self.write()

    @staticmethod
    def _sweep_one(path: Path, referred: bool, now_s: float) -> None:
        # Another process may sweep at the same time.
        with suppress(FileNotFoundError):
            age_s = now_s - path.stat().st_mtime
            if referred:
                if age_s > _DAY_S:
                    os.utime(path, (now_s, now_s))
            elif (path.suffix == ".wav" and age_s > UNUSED_AFTER_S) or (
                path.suffix == _PART and age_s > _DAY_S
            ):
                path.unlink()

    def _tell_once(self, what: str, text: str, why: str) -> None:
        if what not in self._told:
            self._told.add(what)
            logger.warning("%s: %s", text, why)
