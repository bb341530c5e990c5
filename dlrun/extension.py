"""A run that is resumed with another length: what that means for its learning rate, and whether it is honest."""

from __future__ import annotations

import logging

from dlrun.build import Run, build_clock, build_schedule
from dlrun.config import Config
from dlrun.errors import UserError
from dlrun.schedules import Schedule

log = logging.getLogger("dlrun")
POINTS = 1000  # at which two schedules are compared


def check_extension(before: Config, after: Config, run: Run, step: int) -> None:
    """Compare the schedule that a run was begun with to the one that it would go on with after `step` steps.

    One that doesn't depend on the length goes on as if the run had been begun with the new one. One that does is
    refused, unless `scheduler.total_steps` says what is meant. Raises UserError.
    """
    batches = len(run.parts["train_batches"])
    old, new = build_clock(before, batches), build_clock(after, batches)
    if new.total_steps < step:
        raise UserError(f"trainer.max_epochs: {new.total_steps} steps, but {step} are done already; only more can be")
    if new.total_steps == old.total_steps and before.schedule == after.schedule:
        return
    done = step % old.steps_per_epoch
    if step == old.total_steps and done:
        log.warning(
            "trainer.max_steps ended the last epoch after %d of its %d steps, and that is how it stays: the run goes "
            "on with a new epoch, which one begun with %d steps wouldn't have done there",
            *(done, old.steps_per_epoch, new.total_steps),
        )
    rate, mode = run.parts["optimizer"].param_groups[0]["lr"], run.limits.mode
    was, becomes = build_schedule(before, old, rate, mode), run.parts["schedule"]
    longer = f" instead of {old.total_steps:,}" if new.total_steps != old.total_steps else ""
    epochs = f"{run.limits.max_epochs} epochs, {new.total_steps:,} steps{longer}"
    reached, goes_on = rate * was.factor(max(step - 1, 0)), rate * becomes.factor(step)
    last = rate * becomes.factor(max(new.total_steps - 1, 0))
    if new.total_steps > step and goes_on == last == 0:
        log.warning("a learning rate of 0 changes nothing: what is trained from here on is lost time")
    if before.schedule == after.schedule:
        if _same(was, becomes, min(old.total_steps, new.total_steps)):
            log.info("extended to %s; the learning rate (%s) doesn't depend on that", epochs, after.scheduler.name)
            return
        length, stays = old.total_steps, rate * was.factor(old.total_steps)
        raise UserError(
            f"scheduler={after.scheduler.name} was made for {length} steps; say how it goes on after step {step}: "
            f"scheduler.total_steps={new.total_steps} stretches it (from {reached:.2e} now to {goes_on:.2e}); "
            f"scheduler.total_steps={length} keeps to that, and the learning rate stays at {stays:.2e} after its end"
        )
    horizon = after.schedule.total_steps or new.total_steps
    if horizon < step and horizon != old.total_steps:
        raise UserError(f"scheduler.total_steps: {horizon}, but {step} steps are done already; expected more")
    log.info("goes on to %s; the learning rate from %.2e to %.2e now, %.2e at the end", epochs, reached, goes_on, last)


def _same(one: Schedule, other: Schedule, steps: int) -> bool:
    places = {place * (steps - 1) // (POINTS - 1) for place in range(POINTS)} if steps > POINTS else range(steps)
    return all(one.factor(place) == other.factor(place) for place in places)
