"""The life of a file in the collector: its stages, and which of them may follow which.

A file is what a ``file_id`` and an epoch name: content, wherever it lies. Other content at its
place is another file, and begins as UNBORN. ``LifeCycle.become`` is the only way from one stage to
the next, and it refuses what TRANSITIONS lacks.

        found by a scan                          known from the checkpoint
              |                                      |               |
              v                                      v               |
           UNBORN                               REMEMBERED           |
           |    |                               |    |   |           |
     empty |    | first line       found again  |    |   | missed    |
           |    v                       .-------'    |   v           |
           |  .-------------.           |            | REPORTED <-.  |
           |  |  FOLLOWED   | <---------+------------|--'  |      |  |
           |  |    |  ^     |           |            |     |      |  |
           |  | moved | back|           '------------|-----|---.  |  |
           |  |    v  |     |                        |     |   |  |  |
           |  |   MOVED     |                        |     |   |  |  |
           |  |    |  ^     |                        |     |   |  |  |
           |  | quiet | grown   rest is given up     |     |   |  |  |
           |  |    v  |     | -----------------------|-----|---|--'  |
           |  |   ENDED     |                        |     |   |     |
           |  |    | all    |            SEAL or GAP is there  |     |
           |  |    v spooled|                        v     v   |     v
           |  |  SEALING    | ---------------------> SEALED ---'  <--'
           |  '-------------'     SEAL is there        |
           |       | other content                     | GONE is there
           |       v                                   v
           |   TRUNCATED --------------> ERASED -----> GONE
           |               GAP is there                  ^
           '---------------------------------------------'
"""

from collections.abc import Mapping
from enum import Enum

from collector.errors import WrongStage


class Stage(Enum):
    """What is true of a file at one time; those up to SEALING are held open."""

    UNBORN = "it has no complete first line yet, and so no name"
    FOLLOWED = "it has its own name on disk, and is written to"
    MOVED = "it was renamed or unlinked, and its writer may still go on for a while"
    ENDED = "nobody has written to it for seal_quiet_ms since it moved, and nobody will"
    SEALING = "topic or spool has all of it, and its SEAL is on its way"

    REMEMBERED = "the run before knew it, and no scan of this one has found it"
    REPORTED = "it will not be read on, unless it is found again; its GAP or SEAL is on its way"
    SEALED = "topic or spool has its SEAL, or the topic its GAP"
    TRUNCATED = "other content has taken its place on disk; its GAP is on its way"
    ERASED = "the same, and the topic has its GAP"
    GONE = "nothing of it is left, on disk or in memory"


_BACK = {
    Stage.FOLLOWED: "it is found again, under its own name",
    Stage.MOVED: "it is found again, renamed",
}
_OVERWRITTEN = {
    Stage.TRUNCATED: "what was read of it is no longer there",
    Stage.REPORTED: "the same, but a copy is there, which goes on in its place",
}
_GIVEN_UP = {
    Stage.REPORTED: "its rest is given up; or a copy goes on in its place",
}

TRANSITIONS: Mapping[Stage, Mapping[Stage, str]] = {
    Stage.UNBORN: {
        Stage.FOLLOWED: "its first line is complete",
        Stage.MOVED: "its first line is complete, or all there will be, and it was renamed",
        Stage.GONE: "it has ended without a byte",
    },
    Stage.FOLLOWED: {
        Stage.MOVED: "a scan finds it renamed, or not at all",
        **_OVERWRITTEN,
    },
    Stage.MOVED: {
        Stage.FOLLOWED: _BACK[Stage.FOLLOWED],
        Stage.ENDED: "it was quiet for seal_quiet_ms",
        **_OVERWRITTEN,
        **_GIVEN_UP,
    },
    Stage.ENDED: {
        Stage.FOLLOWED: _BACK[Stage.FOLLOWED],
        Stage.MOVED: "it has grown, or was unlinked",
        Stage.SEALING: "topic or spool has all of it",
        **_OVERWRITTEN,
        **_GIVEN_UP,
    },
    Stage.SEALING: {
        Stage.FOLLOWED: _BACK[Stage.FOLLOWED],
        Stage.MOVED: "it has grown, so its SEAL no longer says where it ends",
        Stage.SEALED: "topic or spool has its SEAL",
        **_OVERWRITTEN,
    },
    Stage.REMEMBERED: {
        **_BACK,
        Stage.REPORTED: "two scans have missed it",
        Stage.SEALED: "its SEAL or GAP was in the spool that the run before has left",
    },
    Stage.REPORTED: {
        **_BACK,
        Stage.SEALED: "the topic has its GAP, or topic or spool its SEAL",
    },
    Stage.SEALED: {
        **_BACK,
        Stage.GONE: "the topic has its GONE, sent after scans have missed it for gone_after_ms",
    },
    Stage.TRUNCATED: {Stage.ERASED: "the topic has its GAP"},
    Stage.ERASED: {Stage.GONE: "the topic has its GONE"},
    Stage.GONE: {},
}
"""What may follow each stage, and why it does."""


class LifeCycle:
    """The stage of one file, from its discovery or from the checkpoint on."""

    __slots__ = ("_stage",)

    def __init__(self, stage: Stage = Stage.UNBORN) -> None:
        """Begin at ``stage``."""
        self._stage = stage

    @property
    def stage(self) -> Stage:
        """Return where the file stands now."""
        return self._stage

    def may_become(self, stage: Stage) -> bool:
        """Return whether ``stage`` may follow."""
        return stage in TRANSITIONS[self._stage]

    def become(self, stage: Stage) -> None:
        """Go on to ``stage``; raise WrongStage, and change nothing, if it may not follow."""
        if not self.may_become(stage):
            raise WrongStage(f"a file that is {self._stage.name} cannot become {stage.name}")
        self._stage = stage
