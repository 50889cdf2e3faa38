"""The settings: read once from configuration.yaml and the documented environment variables, checked and frozen."""

from settings.loading import DEFAULT_FILE, ENVIRONMENT, SERVICE_NAME, SettingsError, get_settings, load
from settings.sections import EngineChoice, Limits, Precision, Pyroscope, Server, Settings, Tracing, Watchdog

__all__ = [
    "DEFAULT_FILE",
    "ENVIRONMENT",
    "SERVICE_NAME",
    "EngineChoice",
    "Limits",
    "Precision",
    "Pyroscope",
    "Server",
    "Settings",
    "SettingsError",
    "Tracing",
    "Watchdog",
    "get_settings",
    "load",
]
