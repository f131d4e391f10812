"""Which APIs are one and the same, or so alike that one gives away the other.

A model that is measured on one of them must not have trained on another of its group.
"""

from typing import Final

_SIBLINGS: Final = (
    "aws-dynamodb aws-dynamodb-glue-athena",
    "aws-ec2 aws-rds-ec2-query",
    "aws-s3 s3-xml",
    "bigquery google-bigquery",
    "clickhouse clickhouse-http",
    "couchdb ibm-cloudant",
    "elasticsearch opensearch elastic-admin",
    "ethereum-jsonrpc ethereum arbitrum-optimism-l2 arbitrum-trace optimism-base-l2",
    "github github-graphql github-actions gitea",
    "gitlab gitlab-graphql gitlab-ci",
    "huggingface tgi",
    "influxdb influxdb-flux influxdb-v1",
    "linear-graphql linear linear-like-tracker",
    "magento-graphql magento-rest magento",
    "oauth-identityserver oidc-provider ory-kratos-hydra",
    "openai azure-openai openai-like localai",
    "postgrest supabase-rest",
    "prometheus thanos victoriametrics",
    "webdav caldav carddav",
    "shopify shopify-admin shopify-storefront",
    "trino prestodb",
    "bedrock aws-bedrock-sagemaker-runtime",
    "hasura hasura-ce",
)

# They share paths, bodies and words: leaving one out still trains on its twins.
_CHAT_ALIKE: Final = (
    "openai azure-openai groq mistral openrouter llm-router-gateways huggingface tgi together "
    "deepseek fireworks xai perplexity vllm litellm llama-cpp llama-cpp-server voyageai "
    "openai-like localai litellm-proxy ollama nvidia-nim"
)


def _by_api(groups: tuple[str, ...]) -> dict[str, str]:
    return {api: group.split()[0] for group in groups for api in group.split()}


_LOOSE: Final = _by_api(_SIBLINGS)
_STRICT: Final = _LOOSE | _by_api((_CHAT_ALIKE,))


def group_of(api: str, *, strict: bool = False) -> str:
    """The name of the group of siblings an API belongs to; its own name if it has none."""
    return (_STRICT if strict else _LOOSE).get(api, api)
