"""What a scheduler does after each exit code: one table, from which every scheduler's own rules are rendered."""

from enum import StrEnum

from job.errors import ExitCode


class Rule(StrEnum):
    """Whether the job is run again."""

    DONE = "done"
    AGAIN = "again"  # and it is no failure
    COUNTED = "counted"  # again, a few times
    ELSEWHERE = "elsewhere"  # likewise, on other hardware
    NEVER = "never"


RULES: dict[ExitCode, Rule] = {
    ExitCode.DONE: Rule.DONE,
    ExitCode.DATA: Rule.NEVER,
    ExitCode.HARDWARE: Rule.ELSEWHERE,
    ExitCode.CRASHED: Rule.COUNTED,
    ExitCode.MEMORY: Rule.NEVER,
    ExitCode.NO_PROGRESS: Rule.NEVER,
    ExitCode.STORAGE: Rule.COUNTED,
    ExitCode.STOPPED: Rule.AGAIN,
    ExitCode.FENCED: Rule.NEVER,
    ExitCode.BUSY: Rule.NEVER,
    ExitCode.CONFIG: Rule.NEVER,
}
ANY_OTHER = Rule.COUNTED  # a supervisor that was killed, or never began
