"""The hook for Acme Labs, which the entry point names."""

from __future__ import annotations

from acme_testruns.platform import AcmePlatform
from airflow_provider_testruns.hooks.base import PlatformHook
from airflow_provider_testruns.hooks.connection import Settings
from airflow_provider_testruns.transport.auth import Auth, FixedHeaders


class AcmeHook(PlatformHook[AcmePlatform]):
    """Acme Labs' API; the connection's password is its token.

    :param acme_conn_id: the Airflow connection.
    """

    conn_name_attr = "acme_conn_id"
    default_conn_name = "acme_default"
    conn_type = "acme"
    hook_name = AcmePlatform.title

    def __init__(self, acme_conn_id: str = default_conn_name) -> None:
        super().__init__(acme_conn_id)
        self.acme_conn_id = acme_conn_id

    @classmethod
    def make_platform(cls, settings: Settings) -> AcmePlatform:
        """The platform of a connection."""
        return AcmePlatform(settings.base_url)

    @classmethod
    def make_auth(cls, settings: Settings) -> tuple[Auth, str]:
        """A bearer token."""
        token = settings.required(settings.password, "password", "Fill in the token.")
        return FixedHeaders({"Authorization": f"Bearer {token}"}, (token,)), "password"
