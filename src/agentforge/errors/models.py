"""AF500 to AF549: what can go wrong between an agent and its model (AF55x: `errors/embedded.py`)."""

from agentforge.errors.tree import AgentForgeError

__all__ = [
    "ModelAnswerUnrecorded",
    "ModelAuthRefused",
    "ModelCallAborted",
    "ModelCallRefused",
    "ModelError",
    "ModelRateLimited",
    "ModelRequestMalformed",
    "ModelRequestRejected",
    "ModelSilent",
    "ModelStreamBroken",
    "ModelUnreachable",
    "ModelUpstreamFailed",
    "RunTokenRejected",
    "UnknownModel",
]


class ModelError(AgentForgeError):
    """A model call failed for a reason of AgentForge's own; the other AF5xx are its special cases."""

    code = "AF500"
    origin = "model"
    http_status = 502
    default_hint = "`agentforge host logs` shows what happened."


class ModelAuthRefused(ModelError):
    """The model endpoint didn't accept the key (401, 403)."""

    code = "AF501"
    default_hint = "Check `api_key` and `base_url` of this model in agentforge.toml, and that the variable is set."


class ModelRateLimited(ModelError):
    """The model endpoint has no room for more requests now, or the account's quota is used up (429)."""

    code = "AF502"
    http_status = 503
    default_hint = "Wait and run it again, run fewer at once, or raise the quota with the provider."


class ModelRequestRejected(ModelError):
    """The model endpoint won't take this request (400, 404, 413, 422, ...)."""

    code = "AF503"
    default_hint = "Check `model` in agentforge.toml and the agent's `settings`: the endpoint says which it refuses."


class ModelUpstreamFailed(ModelError):
    """The model endpoint failed (5xx) or answered something that is no model answer."""

    code = "AF504"
    default_hint = "Try again; if it stays, check the provider's status and that `base_url` ends where its API begins."


class ModelUnreachable(ModelError):
    """No connection to the model endpoint."""

    code = "AF505"
    default_hint = "Check `base_url` in agentforge.toml and that the endpoint runs and can be reached from here."


class ModelSilent(ModelError):
    """The model endpoint said nothing for too long."""

    code = "AF506"
    http_status = 504
    default_hint = "Try again, ask for shorter answers (`max_tokens`), or use a faster model."


class ModelStreamBroken(ModelError):
    """The model endpoint's answer ended in its middle."""

    code = "AF507"
    default_hint = "Try again; if it stays, a proxy between here and the endpoint may cut long answers."


class UnknownModel(ModelError):
    """The agent asked for a model that it wasn't given."""

    code = "AF508"
    http_status = 400
    default_hint = "Name the model as an alias in agentforge.toml (`[models.NAME]`) and in the agent file."


class ModelCallRefused(ModelError):
    """AgentForge didn't let the call go to the model: a limit of the run, or the run is over."""

    code = "AF509"
    http_status = 409
    default_hint = "Raise the agent's `limits` if the run should have gone on."


class RunTokenRejected(ModelError):
    """A model request came with no run token, one that is over, or one of another worker."""

    code = "AF510"
    http_status = 401
    default_hint = "Requests to the gateway carry the current run's token as their API key; a run that ended has none."


class ModelCallAborted(ModelError):
    """The framework stopped waiting for the answer, or its run ended."""

    code = "AF511"
    http_status = 409
    default_hint = "Nothing to do if the run was cancelled; else look for a timeout in the framework's model client."


class ModelRequestMalformed(ModelError):
    """The framework sent something that is no model request: broken JSON, no model name, too large, unknown path."""

    code = "AF512"
    http_status = 400
    default_hint = (
        "The gateway speaks chat completions, embeddings and models of the OpenAI API; see its reference page."
    )


class ModelAnswerUnrecorded(ModelError):
    """The model answered but the answer couldn't be recorded, so it wasn't handed to the agent."""

    code = "AF513"
    http_status = 500
    default_hint = "`agentforge host logs` shows why; `agentforge doctor` checks the project's database."
