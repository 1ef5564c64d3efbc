"""What is known of a step by its arguments and surroundings: recordings and plans, and what lay
inside the objects that it sees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minigrad.compiler.plan import Plan, equal_plans
from minigrad.compiler.record import Recording
from minigrad.compiler.surroundings import Place, Reach, Seen, differences

_OFTEN = 2  # calls between changes, at most, of what changes too often for a replay in between


class Signature:
    """What is known of one signature: recordings so far, then plans; and what lay inside the
    objects that the step sees.

    An attribute that has changed makes the step be recorded anew. If the program is the same then,
    the one from before is used again, and the attribute is ignored from then on if the step's code
    does not name it. So is what the step changes itself.
    """

    def __init__(self, inside: Seen) -> None:
        self.recording: Recording | None = None
        self.plans: list[Plan] = []
        self.inside = inside
        self.ignored: set[Place] = set()
        self.suspects: set[Place] = set()  # changed since the recording
        self.named: set[Place] = (
            set()
        )  # what the step's code names and changes too often for a replay
        self._calls = 0
        self._changed: dict[Place, int] = {}  # at which call it changed last
        self._restless: set[Place] = set()
        self.outdated: tuple[list[Plan], set[Place]] = (
            [],
            set(),
        )  # plans from before other changes, and these

    def look(self, inside: Seen) -> None:
        """Notice what has changed since the last call."""
        self._calls += 1
        if inside is not self.inside:
            changed = differences(inside, self.inside) - self.ignored
            self.inside = inside
            self._restless.update(
                place for place in changed if self._calls - self._changed.get(place, 0) <= _OFTEN
            )
            self._changed.update(dict.fromkeys(changed, self._calls))
            self.suspects |= changed
            if changed and self.plans:
                self.outdated, self.plans, self.recording = (self.plans, changed), [], None

    def own(self, inside: Seen) -> set[Place]:
        """Ignore what has changed during a call, which is returned."""
        if inside is self.inside:
            return set()
        changed = differences(inside, self.inside)
        self.ignored |= changed
        self.inside = inside
        return changed

    def begin(self, recording: Recording) -> None:
        """The first recording of a pair."""
        self.outdated[1].update(self.suspects)
        self.recording, self.suspects = recording, set()

    def known(self, plan: Plan, named: Callable[[Place], bool]) -> bool:
        """Note that a pair of recordings gave this plan; True if it is one from before the last
        changes: those did not matter.

        named: whether the step's code names an attribute.
        """
        plans, changed = self.outdated
        same = any(equal_plans(plan, other) for other in plans)
        harmless = self.suspects | (changed if same else set())
        kept = {place for place in harmless if named(place)}
        self.ignored |= harmless - kept
        self.named = kept & self._restless
        self.outdated, self.suspects = ([], set()), set()
        if same:
            self.plans = plans
        return same


class Entry:
    """All signatures that differ in train or eval modes only. keep: what is known by id, so it must
    live.
    """

    def __init__(self, keep: list[Any]) -> None:
        self.keep = keep
        self.reach = Reach(keep)
        self.signatures: dict[tuple[bool, ...], Signature] = {}

    def signature(self) -> Signature:
        """The one for the modes as they are now."""
        reach = self.reach
        reach.look()
        found = self.signatures.get(reach.modes)
        if found is None:
            found = self.signatures[reach.modes] = Signature(reach.inside)
        found.look(reach.inside)
        return found
