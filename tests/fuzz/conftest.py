from tests.integration.transport.conftest import _no_proxy_of_the_environment, drive

__all__ = ["_no_proxy_of_the_environment", "drive"]
