"""What Airflow's provider manager reads: what there is, and the connections' forms."""

from __future__ import annotations

from typing import Any

from airflow_provider_testruns.builtin import PLATFORMS

_PACKAGE = "airflow_provider_testruns"

_VERIFY = {
    "label": "Verify certificates",
    "description": "true, false, or the path of a CA bundle on the workers, the triggerer and the API server. Default:"
    " true.",
    "schema": {"type": ["string", "null"], "default": "true"},
}
_CERT = {
    "label": "Client certificate",
    "description": "The path of a client certificate (PEM) on the workers, the triggerer and the API server, where the"
    " server asks for one. It may hold its private key, too.",
    "schema": {"type": ["string", "null"]},
}
_KEY = {
    "label": "Client certificate's key",
    "description": "The path of its private key (PEM, not encrypted), when the certificate's file does not hold it.",
    "schema": {"type": ["string", "null"]},
}
_TIMEOUT = {
    "label": "Timeout (seconds)",
    "description": "How long one request may take, from 1 to 600 seconds. Default: 30.",
    "schema": {"type": ["integer", "null"], "minimum": 1, "maximum": 600, "default": 30},
}
_MAX_FILE_SIZE = {
    "label": "Largest file",
    "description": "How large a file that is downloaded may be: 500 MB, 2 GB, or a number of bytes. Default: 1 GB.",
    "schema": {"type": ["string", "null"]},
}
_MAX_REQUESTS = {
    "label": "Requests per minute",
    "description": "How many requests each process sends in a minute at most; the others wait. Empty: any number.",
    "schema": {"type": ["integer", "null"], "minimum": 1, "maximum": 999999},
}
_MAX_STARTS = {
    "label": "Starts at once",
    "description": "How many runs each process starts at the same time; the others wait. Empty: any number.",
    "schema": {"type": ["integer", "null"], "minimum": 1, "maximum": 999999},
}
#: Addresses have their ports in them. The field is there since the button "Test" of Airflow 3.3 fails without a port
#: (apache/airflow#73298); 0 serves, and is left out when the connection is read.
_PORT = "0, or the port if the URL has none"
_AUTH_URL = {
    "label": "Token URL",
    "description": "The full URL of the token endpoint, if it is not the usual one below the host.",
    "schema": {"type": ["string", "null"], "format": "url"},
}


def _text(label: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": ["string", "null"], **schema}}


def _platform(name: str, url: str) -> dict[str, Any]:
    return {
        "integration-name": PLATFORMS[name].title,
        "external-doc-url": url,
        # In the folder docs of the repository.
        "how-to-guide": [f"/docs/howto/{name}.md"],
        "logo": "/integration-logos/testruns.svg",
        "tags": ["service"],
    }


def get_provider_info() -> dict[str, Any]:
    """The provider's description, as ``provider_info.schema.json`` of Airflow has it."""
    names = {name: platform.title for name, platform in PLATFORMS.items()}
    return {
        "package-name": "airflow-provider-testruns",
        "name": "Test runs",
        "description": "Start and await test runs on Eggplant DAI, Future AGI and Omilia Testing Studio.",
        "integrations": [
            _platform("eggplant", "https://docs.eggplantsoftware.com/dai/"),
            _platform("futureagi", "https://docs.futureagi.com/"),
            _platform("omilia", "https://learn.ocp.ai/"),
        ],
        "operators": [
            {"integration-name": title, "python-modules": [f"{_PACKAGE}.operators.{key}"]}
            for key, title in names.items()
        ],
        "sensors": [
            {"integration-name": title, "python-modules": [f"{_PACKAGE}.sensors.{key}"]} for key, title in names.items()
        ],
        "hooks": [
            {"integration-name": title, "python-modules": [f"{_PACKAGE}.hooks.{key}"]} for key, title in names.items()
        ],
        "triggers": [
            {
                "integration-name": title,
                "python-modules": [f"{_PACKAGE}.triggers.{name}" for name in ("finished", "run")],
            }
            for title in names.values()
        ],
        "extra-links": [f"{_PACKAGE}.links.run.RunLink"],
        "connection-types": [
            {
                "connection-type": "eggplant",
                "hook-class-name": f"{_PACKAGE}.hooks.eggplant.EggplantHook",
                "hook-name": names["eggplant"],
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "extra"],
                    "relabeling": {
                        "host": "DAI address",
                        "login": "Client ID (client_id)",
                        "password": "Client secret (client_secret)",
                    },
                    "placeholders": {
                        "host": "https://dai.example.com:8000",
                        "port": _PORT,
                        "login": "from the file of System > API Access > Add New",
                        "password": "from the same file",
                    },
                },
                "conn-fields": {
                    "realm": _text(
                        "Realm",
                        "The realm in the token_url of the API client's file: eggplant on premises, its own on Eggplant"
                        " Cloud. Default: eggplant.",
                    ),
                    "auth_url": {
                        **_AUTH_URL,
                        "description": "The complete token_url from the API client's file. Only needed when it is not"
                        " below the DAI URL.",
                    },
                    "auth": _text(
                        "Token endpoint",
                        "Where tokens come from: Keycloak (default), or /api/v2/auth of DAI (v2), for workers that"
                        " can't reach Keycloak. An API client has an administrator's rights: keep its secret.",
                        enum=[None, "keycloak", "v2"],
                        values_display={"null": "Keycloak"},
                    ),
                    "verify": _VERIFY,
                    "cert": _CERT,
                    "key": _KEY,
                    "timeout": _TIMEOUT,
                    "max_file_size": _MAX_FILE_SIZE,
                    "max_requests_per_minute": _MAX_REQUESTS,
                    "max_starts_at_once": _MAX_STARTS,
                    "poll_endpoint": _text(
                        "Poll endpoint",
                        "The call that polls runs. Automatic: each is tried, and the one that answers is remembered.",
                        enum=[None, "progress", "executions", "ai_executions", "runs"],
                        values_display={"null": "automatic"},
                    ),
                    "run_url_template": _text(
                        "Link to a run",
                        "A URL with {base_url}, {run_id} and {model_id}, for the link from Airflow. Default: the DAI"
                        " URL.",
                    ),
                },
            },
            {
                "connection-type": "futureagi",
                "hook-class-name": f"{_PACKAGE}.hooks.futureagi.FutureAGIHook",
                "hook-name": names["futureagi"],
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "login", "extra"],
                    "relabeling": {"host": "API address", "password": "API key"},
                    "placeholders": {
                        "host": "https://api.futureagi.com",
                        "port": _PORT,
                        "password": "from Settings > API keys",
                    },
                },
                "conn-fields": {
                    "secret_key": _text(
                        "Secret key",
                        "The secret key that belongs to the API key (Settings > API keys). Future AGI needs both keys"
                        " today; without this one requests are sent in the older, documented form (Bearer).",
                        format="password",
                    ),
                    "dialect": _text(
                        "Form of the API",
                        "current: what Future AGI accepts today, with both keys. documented: the older form (Bearer),"
                        " for"
                        " old installations only. Automatic: current with a secret key.",
                        enum=[None, "current", "documented"],
                        values_display={"null": "automatic"},
                    ),
                    "workspace_id": _text(
                        "Workspace",
                        "The id of the workspace that has the run tests, for keys that are not bound to one. Without"
                        " it the platform uses the workspace that the key's user opened last.",
                    ),
                    "app_url": _text(
                        "App address",
                        "The URL of the web app, for the link from Airflow. Only needed for self-hosted installations.",
                        format="url",
                    ),
                    "verify": _VERIFY,
                    "cert": _CERT,
                    "key": _KEY,
                    "timeout": _TIMEOUT,
                    "max_file_size": _MAX_FILE_SIZE,
                    "max_requests_per_minute": _MAX_REQUESTS,
                    "max_starts_at_once": _MAX_STARTS,
                },
            },
            {
                "connection-type": "omilia",
                "hook-class-name": f"{_PACKAGE}.hooks.omilia.OmiliaHook",
                "hook-name": names["omilia"],
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "extra"],
                    "relabeling": {
                        "host": "Testing Studio address",
                        "login": "User name or client id",
                        "password": "Password, client secret or bearer token",
                    },
                    "placeholders": {
                        "host": "https://us1-m.ocp.ai/<service path>",
                        "port": _PORT,
                        "login": "empty with a bearer token or a personal access token",
                        "password": "empty with a personal access token",
                    },
                },
                "conn-fields": {
                    "personal_access_token": _text(
                        "Personal access token",
                        "Sent as X-OCP-PERSONAL-ACCESS-TOKEN; recommended for unattended jobs, as user name and"
                        " password also need a one-time password. Leave user name and password empty. Somebody must"
                        " log in with its account every 90 days, or it becomes invalid.",
                        format="password",
                    ),
                    "grant_type": _text(
                        "Grant type",
                        "password (user name and password) or client_credentials (client id and secret). Automatic:"
                        " password, or none with a token.",
                        enum=[None, "password", "client_credentials"],
                        values_display={"null": "automatic"},
                    ),
                    "realm": _text(
                        "Realm",
                        "master on the EU1, US1 and US2 platforms, ocp on CA1 and Frankfurt. Default: by the host.",
                    ),
                    "auth_url": _AUTH_URL,
                    "verify": _VERIFY,
                    "cert": _CERT,
                    "key": _KEY,
                    "timeout": _TIMEOUT,
                    "max_file_size": _MAX_FILE_SIZE,
                    "max_requests_per_minute": _MAX_REQUESTS,
                    "max_starts_at_once": _MAX_STARTS,
                    "run_url_template": _text(
                        "Link to a run",
                        "A URL with {base_url}, {run_id} and {project_id}, for the link from Airflow. Default: the"
                        " Testing Studio URL.",
                    ),
                },
            },
        ],
        "config": {
            "testruns": {
                "description": "Settings of the provider for test runs.",
                "options": {
                    "poll_interval": {
                        "description": "How many seconds pass between two polls of a run, where a DAG does not say it:"
                        " poll_interval of the operators that start one (10 seconds without this setting), and"
                        " poke_interval of the sensors (Airflow's own default without it). At least 0.1.",
                        "version_added": "0.1.0",
                        "type": "float",
                        "example": "30",
                        "default": None,
                    },
                    "timeout": {
                        "description": "How many seconds a run is waited for, where a DAG does not say it: timeout of"
                        " the operators that start one (24 hours without this setting) and of the sensors (Airflow's"
                        " own default without it).",
                        "version_added": "0.1.0",
                        "type": "float",
                        "example": "7200",
                        "default": None,
                    },
                    "page_size": {
                        "description": "How many rows of a list Eggplant DAI and Future AGI are asked for at once, from"
                        " 10 to 1000. Larger pages are fewer requests, each of which takes longer. Omilia's lists have"
                        " no pages.",
                        "version_added": "0.1.0",
                        "type": "integer",
                        "example": "500",
                        "default": "100",
                    },
                    "event_delay": {
                        "description": "How many seconds after its deferral a task is resumed at the earliest. Airflow"
                        " fails a task that is resumed before its scheduler has processed the end of the part before"
                        " the deferral. Longer runs lose nothing, and no worker is held meanwhile. 0 turns it off.",
                        "version_added": "0.1.0",
                        "type": "float",
                        "example": "10",
                        "default": "5",
                    },
                    "max_connections": {
                        "description": "How many connections a triggerer opens to a platform at most, for each Airflow"
                        " connection. It has 8 of them, and more only while requests would have to wait: runs that are"
                        " polled individually need about (runs / poll interval) * response time. 1 to 1000.",
                        "version_added": "0.1.0",
                        "type": "integer",
                        "example": "200",
                        "default": "64",
                    },
                },
            },
        },
    }
