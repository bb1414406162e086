"""Jobs that are stopped on their way. The one rule: they stop between two parts, as a killed process may."""


class Stopped(Exception):
    pass


def stopped_after(part):
    """A progress that gives up when so much of the work is done."""

    def progress(done, total):
        if done > part * total:
            raise Stopped

    return progress
