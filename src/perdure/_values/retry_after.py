"""What an activity raises to say when it wants to be tried again."""

from perdure._values.duration import Duration, describe_ms, to_ms

__all__ = ["RetryAfter"]


class RetryAfter(Exception):
    """Ends an attempt and sets the delay before the next one (R11).

    Whether there is a next one is still up to the activity's ``retry``.

    Attributes:
        delay_ms: Milliseconds until the next attempt; 0 for at once.

    Raises:
        UsageError: The delay is not a duration.

    Example:
        >>> str(RetryAfter("30 seconds"))
        'try again in 30 seconds'
    """

    def __init__(self, delay: Duration) -> None:
        """Make it from any duration; a negative one means at once."""
        # The argument itself stays in args, so that copying builds an equal one.
        super().__init__(delay)
        self.delay_ms: int = max(to_ms(delay), 0)

    def __str__(self) -> str:
        return f"try again in {describe_ms(self.delay_ms)}"
