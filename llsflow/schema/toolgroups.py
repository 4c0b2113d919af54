"""Tool groups of conf/toolgroup: tools that the server runs for an agent, and who provides them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from llsflow.schema.base import Identifier, Int, PositiveInt, Record, Text
from llsflow.schema.services import BaseUrl, Url, Variable

Seconds = Annotated[float, Field(gt=0)]


class McpServer(Record):
    """The tools of a Model Context Protocol server."""

    type: Literal["mcp"] = "mcp"
    command: Annotated[list[Text], Field(min_length=1)] | None = None
    """Program and its arguments, which is started here and spoken to over stdio."""
    environment: list[Variable] = []
    """Names of environment variables that the program gets beside PATH, HOME and the like."""
    url: Url | None = None
    """Of a server that speaks streamable HTTP."""
    api_key_env: Variable | None = None
    """Environment variable that holds the bearer token for `url`."""

    @model_validator(mode="after")
    def _one_way(self) -> McpServer:
        if (self.command is None) == (self.url is None):
            found = "neither is" if self.url is None else "both are"
            raise ValueError(f"one of command and url must be set ({found})")
        if self.url is None and self.api_key_env:
            raise ValueError("api_key_env: goes with url; name it in environment for a command")
        if self.url is not None and self.environment:
            raise ValueError("environment: goes with command: remove it")
        return self


class HttpFunction(Record):
    """A request as a tool: arguments go into the path's {names}, the rest into the query, or the body as JSON."""

    name: Text
    description: str = ""
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    path: Text
    """Below base_url, `/orders/{order_id}`."""
    input_schema: dict[str, Any] = {"type": "object", "properties": {}}
    """JSON Schema of the arguments."""
    joined: dict[Text, Literal[",", " ", "|"]] = {}
    """Lists in the query that go as one value, and what stands between their items; others go item by item."""
    objects: dict[Text, Literal["properties", "deepObject"]] = {}
    """Objects in the query that go property by property, as `a=1` or as `name[a]=1`; others go as JSON."""
    in_body: bool | None = None
    """Whether what is not in the path goes into the body; null: for POST, PUT and PATCH."""


class HttpFunctions(Record):
    """Requests to one address as tools: of its OpenAPI document, or written here."""

    type: Literal["http"] = "http"
    base_url: BaseUrl
    openapi: Text | None = None
    """The document, OpenAPI 3 in JSON or YAML: a file, or `conf://…`."""
    operations: list[Text] | None = None
    """The operationIds that become tools; null: all that the document has."""
    functions: list[HttpFunction] = []
    api_key_env: Variable | None = None
    """Environment variable that holds the key."""
    api_key_header: Text = "Authorization"
    """Where it goes; in Authorization as a bearer token."""

    @model_validator(mode="after")
    def _some(self) -> HttpFunctions:
        if self.openapi is None and not self.functions:
            raise ValueError("one of openapi and functions must be set (neither is)")
        if self.openapi is None and self.operations is not None:
            raise ValueError("operations: are of an openapi document: set openapi, or remove them")
        return self


class PythonFunctions(Record):
    """Functions of installed packages as tools: entry points of the group `llsflow.tools`."""

    type: Literal["python"] = "python"
    entry_points: Annotated[list[Text], Field(min_length=1)]
    """Their names."""


class BraveSearch(Record):
    """The tool brave_search: a web search by Brave."""

    type: Literal["brave_search"] = "brave_search"
    api_key_env: Variable = "BRAVE_SEARCH_API_KEY"
    """Environment variable that holds the key; the key itself stands in no file."""
    base_url: BaseUrl = "https://api.search.brave.com/res/v1"
    max_results: PositiveInt = Field(default=5, le=20)


class WolframAlpha(Record):
    """The tool wolfram_alpha: computed answers of Wolfram|Alpha, by its LLM API."""

    type: Literal["wolfram_alpha"] = "wolfram_alpha"
    api_key_env: Variable = "WOLFRAM_ALPHA_API_KEY"
    """Environment variable that holds the AppID."""
    base_url: BaseUrl = "https://www.wolframalpha.com/api/v1"


class CodeInterpreter(Record):
    """The tool code_interpreter: Python in a bubblewrap sandbox, without network and without files but its own."""

    type: Literal["code_interpreter"] = "code_interpreter"
    python: Text | None = None
    """Interpreter within the sandbox, with its packages; null: the one that runs the server."""
    cpu_seconds: PositiveInt = Field(default=20, le=3600)
    """Processor time of a call, of all its processes together; the group's timeout_seconds counts the clock's."""
    memory_mb: Int = Field(default=512, ge=128, le=1 << 20)
    """Of a call, of all its processes together, beside 64 MB of files."""
    max_output_characters: PositiveInt = Field(default=20_000, le=1_000_000)
    """A call that prints more is stopped."""
    at_once: PositiveInt = 4
    """Most calls that run at the same time; others wait, within their time."""


class Photogen(Record):
    """The tool photogen: images, by any server that has OpenAI's images endpoint."""

    type: Literal["photogen"] = "photogen"
    base_url: BaseUrl
    """Address as clients of the protocol write it, for example http://127.0.0.1:8000/v1."""
    model: Text | None = None
    """Its name there; null: the server's own choice."""
    api_key_env: Variable | None = None
    """Environment variable that holds the key; null: none is needed."""
    size: Text | None = None
    """For example 1024x1024; null: as the server has it."""
    response_format: Literal["b64_json", "url"] | None = "b64_json"
    """What the server is asked for; null where it takes no such field, as OpenAI's GPT image models do not."""


class KnowledgeSearch(Record):
    """The tool knowledge_search: the passages of the session's documents that answer a question."""

    type: Literal["knowledge_search"] = "knowledge_search"
    max_results: PositiveInt = 5


Provider = Annotated[
    McpServer
    | HttpFunctions
    | PythonFunctions
    | BraveSearch
    | WolframAlpha
    | CodeInterpreter
    | Photogen
    | KnowledgeSearch,
    Field(discriminator="type"),
]


class ToolGroupConfig(Record):
    """A tool group: `conf/toolgroup/<name>.yaml`."""

    toolgroup_id: Identifier
    """What agents name, with or without `/tool` behind it."""
    provider: Provider
    timeout_seconds: Seconds = 30.0
    """For one call; the model is told when it is over."""
