from __future__ import annotations

import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from models.catalogue import CATALOGUE
from settings import DEFAULT_FILE, ENVIRONMENT, Settings, SettingsError, load
from tests.serving.server import configuration


def get(settings: Settings, path: str) -> Any:
    value: Any = settings
    for part in path.split("."):
        value = getattr(value, part)
    return value


def test_the_file_of_the_checkout_is_valid_and_has_the_documented_defaults() -> None:
    settings = load(DEFAULT_FILE, {})
    assert str(settings.server.host) == "0.0.0.0"
    assert settings.server.port == 8096
    assert settings.server.keep_alive_s == 75
    assert settings.server.cors_origins == ()
    assert settings.limits.max_image_bytes == 10 * 2**20
    assert settings.limits.max_pixels == 50_000_000
    assert settings.assigned() == tuple(CATALOGUE)
    assert settings.allow_untrained is False


@pytest.mark.parametrize(
    ("variable", "value", "path", "expected"),
    [
        ("ENRICHMENT_POSE_MIN_CONFIDENCE", "0.4", "models.pose_estimator.min_confidence", "0.4"),
        ("ENRICHMENT_THREAT_IOU_THRESHOLD", "0.5", "models.threat_detector.iou_threshold", "0.5"),
        ("ENRICHMENT_REID_SAME_PERSON_THRESHOLD", "0.7", "models.person_reid.same_person_threshold", "0.7"),
        ("ENRICHMENT_REID_IDLE_TTL_S", "60", "models.person_reid.idle_ttl_s", "60.0"),
        ("ENRICHMENT_PET_PERSON_VETO", "0", "models.pet_classifier.person_veto", "0.0"),
        ("ENRICHMENT_DEPTH_INPUT_SIZE", "280", "models.depth_estimator.input_size", "280"),
        ("HOST", "127.0.0.1", "server.host", "127.0.0.1"),
        ("HOST", "::1", "server.host", "::1"),
        ("PORT", "9000", "server.port", "9000"),
        ("ENRICHMENT_DEEPSTACK", "true", "server.deepstack", "True"),
        ("ENRICHMENT_CORS_ORIGINS", "*", "server.cors_origins", "('*',)"),
        (
            "ENRICHMENT_CORS_ORIGINS",
            "https://a.example:8443, http://10.0.0.2,",
            "server.cors_origins",
            "('https://a.example:8443', 'http://10.0.0.2')",
        ),
        ("ENRICHMENT_PRELOAD_MODELS", "person_reid", "preload", "('person_reid',)"),
        (
            "ENRICHMENT_LIGHT_PRELOAD_MODELS",
            " person_reid , pose_estimator,",
            "preload",
            "('person_reid', 'pose_estimator')",
        ),
        ("ENRICHMENT_LIGHT_PRELOAD_MODELS", "", "preload", "()"),
        ("ENRICHMENT_IMPORT_AT_START", "true", "import_at_start", "True"),
        ("ENRICHMENT_CPU_THREADS", "3", "cpu_threads", "3"),
        (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "http://collector:4318/v1/traces",
            "tracing.endpoint",
            "http://collector:4318/v1/traces",
        ),
        ("ENRICHMENT_TRACING_SAMPLE_RATE", "0.1", "tracing.sample_rate", "0.1"),
        ("ENRICHMENT_ENGINE", "torch", "engine", "torch"),
        ("ENRICHMENT_PRECISION", "bf16", "precision", "bf16"),
        ("ENRICHMENT_INT8_MODELS", "none", "int8", "none"),
        ("ENRICHMENT_INT8_MODELS", "pose_estimator, threat_detector", "int8", "('pose_estimator', 'threat_detector')"),
        ("ENRICHMENT_PLACEMENT", "isolated", "placement", "isolated"),
        ("ENRICHMENT_ALLOW_UNTRAINED", "true", "allow_untrained", "True"),
        ("ENRICHMENT_POSE_SERVICE", "heavy", "models.pose_estimator.assignment", "heavy"),
        ("ENRICHMENT_THREAT_SERVICE", "heavy", "models.threat_detector.assignment", "heavy"),
        ("ENRICHMENT_REID_SERVICE", "heavy", "models.person_reid.assignment", "heavy"),
        ("ENRICHMENT_PET_SERVICE", "heavy", "models.pet_classifier.assignment", "heavy"),
        ("ENRICHMENT_DEPTH_SERVICE", "heavy", "models.depth_estimator.assignment", "heavy"),
    ],
)
def test_a_variable_wins_over_the_file(variable: str, value: str, path: str, expected: str) -> None:
    assert str(get(load(DEFAULT_FILE, {}), path)) != expected
    assert str(get(load(DEFAULT_FILE, {variable: value}), path)) == expected


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("HOST", "no-address", "IPv4"),
        ("PORT", "eighty", "integer"),
        ("PORT", "65536", "65535"),
        ("ENRICHMENT_CORS_ORIGINS", "cameras.example", "without a path"),
        ("ENRICHMENT_CORS_ORIGINS", "https://a.example,https://b.example/", "without a path"),
        ("PORT", "0", "1"),
        ("ENRICHMENT_PRELOAD_MODELS", "face_detector", "'pose_estimator'"),
        ("ENRICHMENT_LIGHT_PRELOAD_MODELS", "pose_estimator,face_detector", "'depth_estimator'"),
        ("ENRICHMENT_ENGINE", "onnx", "'auto', 'openvino' or 'torch'"),
        ("ENRICHMENT_PRECISION", "int8", "'auto', 'f32', 'bf16' or 'f16'"),
        ("ENRICHMENT_INT8_MODELS", "pose", "'pose_estimator'"),
        ("ENRICHMENT_MEMORY_BUDGET_MB", "inf", "finite"),
        ("ENRICHMENT_POSE_IDLE_TTL_S", "inf", "finite"),
        ("ENRICHMENT_PLACEMENT", "together", "'shared' or 'isolated'"),
        ("ENRICHMENT_ALLOW_UNTRAINED", "perhaps", "boolean"),
        ("ENRICHMENT_POSE_SERVICE", "medium", "'light' or 'heavy'"),
        ("ENRICHMENT_REID_SERVICE", "Light", "'light' or 'heavy'"),
        ("ENRICHMENT_PET_SERVICE", "none", "'light' or 'heavy'"),
        ("ENRICHMENT_DEPTH_SERVICE", "1", "'light' or 'heavy'"),
    ],
)
def test_a_bad_variable_is_named_with_its_value_and_what_is_allowed(variable: str, value: str, allowed: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(DEFAULT_FILE, {variable: value})
    text = str(caught.value)
    assert f"environment variable {variable} = " in text
    assert "configuration.yaml" not in text
    assert repr(value.split(",")[-1]) in text
    assert allowed in text


@pytest.mark.parametrize("variable", ["HOST", "PORT", "ENRICHMENT_ENGINE", "ENRICHMENT_POSE_SERVICE"])
def test_an_empty_variable_is_one_that_is_not_set(variable: str) -> None:
    """Compose passes `X=` where the host has no X."""
    assert load(DEFAULT_FILE, {variable: ""}) == load(DEFAULT_FILE, {})


def test_all_bad_variables_are_named_at_once() -> None:
    with pytest.raises(SettingsError, match=r"PORT.*ENRICHMENT_ENGINE|ENRICHMENT_ENGINE.*PORT"):
        load(DEFAULT_FILE, {"PORT": "x", "ENRICHMENT_ENGINE": "y"})


@pytest.mark.parametrize("light", ["pose_estimator", ""])
def test_the_variable_for_light_models_wins_over_the_one_of_the_compose_file(light: str) -> None:
    environment = {"ENRICHMENT_LIGHT_PRELOAD_MODELS": light, "ENRICHMENT_PRELOAD_MODELS": "person_reid"}
    assert load(DEFAULT_FILE, environment).preload == (("pose_estimator",) if light else ())


def test_models_for_the_heavy_service_are_not_assigned() -> None:
    settings = load(DEFAULT_FILE, {"ENRICHMENT_PET_SERVICE": "heavy", "ENRICHMENT_POSE_SERVICE": "heavy"})
    assert settings.assigned() == ("threat_detector", "person_reid", "depth_estimator")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("max_picture_mb", 450),
        ("limits.max_in_fligth", 64),
        ("models.face_detector", {"assignment": "light", "max_batch_size": 8}),
        ("models.person_reid.min_confidence", 0.5),
    ],
)
def test_an_unknown_key_of_the_file_is_refused_by_name(tmp_path: Path, path: str, value: object) -> None:
    with pytest.raises(SettingsError, match=rf"changed\.yaml: {path} = .*Extra inputs are not permitted"):
        load(configuration(tmp_path, {path: value}), {})


def test_the_largest_bodies_find_room(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="max_body_mib must be at least twice max_image_mib"):
        load(configuration(tmp_path, {"limits.max_body_mib": 19}), {})


@pytest.mark.parametrize(
    ("path", "value", "allowed"),
    [
        ("limits.max_image_mib", 0, "greater than 0"),
        ("limits.max_body_mib", 0, "greater than 0"),
        ("limits.request_timeout_s", -1, "greater than 0"),
        ("models.pose_estimator.max_batch_size", 1, "greater than or equal to 2"),
        ("models.pose_estimator.min_confidence", 1.5, "less than or equal to 1"),
        ("models.depth_estimator.input_size", 520, "multiple of 14"),
        ("models.threat_detector.assignment", "both", "'light' or 'heavy'"),
        ("preload", ["nobody"], "'pose_estimator'"),
    ],
)
def test_a_bad_value_of_the_file_is_named_with_what_is_allowed(
    tmp_path: Path, path: str, value: object, allowed: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(configuration(tmp_path, {path: value}), {})
    assert f"changed.yaml: {path}" in str(caught.value)
    assert allowed in str(caught.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("services: [", "is not YAML"),
        ("", "has no section services.ai-enrichment-light.enrichment"),
        ("services: {ai-enrichment-light: {}}", "has no section"),
        ("services: {ai-enrichment-light: {enrichment: 3}}", "must be a mapping"),
    ],
)
def test_a_file_without_our_section_is_refused_by_name(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=complaint) as caught:
        load(file, {})
    assert str(file) in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.yaml: cannot be read"):
        load(tmp_path / "nowhere.yaml", {})


def test_settings_are_frozen() -> None:
    settings = load(DEFAULT_FILE, {})
    with pytest.raises(ValidationError, match="frozen"):
        settings.limits.decode_threads = 1  # type: ignore[misc]


def test_a_bad_variable_stops_the_start_of_the_service(tmp_path: Path) -> None:
    environment = {**os.environ, "ENRICHMENT_ENGINE": "onnx", "BENTOML_HOME": str(tmp_path)}
    started = subprocess.run(
        [sys.executable, "-c", "import service"],
        env=environment,
        cwd=DEFAULT_FILE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert started.returncode != 0
    assert "environment variable ENRICHMENT_ENGINE = 'onnx'" in started.stderr.splitlines()[-1]


def test_every_setting_of_a_model_has_a_variable() -> None:
    places = {place for _, place in ENVIRONMENT}
    settings = load(DEFAULT_FILE, {})
    for name in CATALOGUE:
        assert {("models", name, field) for field in type(settings.models[name]).model_fields} <= places


def part(folder: Path, text: str) -> Path:
    """A configuration file that says a part only."""
    file = folder / "part.yaml"
    indented = "\n".join(f"      {line}" for line in text.splitlines())
    file.write_text(f"services:\n  ai-enrichment-light:\n    enrichment:\n{indented}\n", encoding="utf-8")
    return file


def test_a_file_that_says_a_part_is_laid_over_the_delivered_one(tmp_path: Path) -> None:
    text = "models: {threat_detector: {min_confidence: 0.6}}\npreload: [person_reid]\nlimits:\n  max_image_mib: 5"
    settings, delivered = load(part(tmp_path, text), {}), load(DEFAULT_FILE, {})
    assert settings.models.threat_detector.min_confidence == 0.6
    assert settings.models.threat_detector.iou_threshold == delivered.models.threat_detector.iou_threshold
    assert settings.models.pose_estimator == delivered.models.pose_estimator
    assert settings.preload == ("person_reid",)
    assert settings.limits == delivered.limits.model_copy(update={"max_image_mib": 5})
    assert (
        load(part(tmp_path, text), {"ENRICHMENT_THREAT_MIN_CONFIDENCE": "0.7"}).models.threat_detector.min_confidence
        == 0.7
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "models: {threat_detector: {min_confidense: 0.6}}",
            r"threat_detector.min_confidense = 0.6: Extra",
        ),
        (
            "models: {threat_detector: {min_confidence: 6}}",
            r"threat_detector.min_confidence = 6: .* less",
        ),
        ("models: {plate_detector: {}}", r"part.yaml: models.plate_detector = {}: Extra"),
        ("limits: 5", r"part.yaml: limits = 5: "),
        ("preload:", r"part.yaml: preload = None: "),
    ],
)
def test_what_such_a_file_says_wrongly_is_told_in_a_line(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint) as caught:
        load(part(tmp_path, text), {})
    assert len(str(caught.value)) < 200


# ── API keys ──

SECRET = "a-secret-that-nobody-may-see"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("one", ["one"]), ("one,two", ["one", "two"]), (" one ,\ntwo\r\n\nthree\n", ["one", "two", "three"])],
)
def test_keys_come_from_a_variable_and_from_a_file(tmp_path: Path, text: str, expected: list[str]) -> None:
    file = tmp_path / "keys"
    file.write_text(text, encoding="utf-8")
    assert list(load(DEFAULT_FILE, {"ENRICHMENT_API_KEY": text}).server.keys) == expected
    assert list(load(DEFAULT_FILE, {"ENRICHMENT_API_KEY_FILE": str(file)}).server.keys) == expected
    both = load(DEFAULT_FILE, {"ENRICHMENT_API_KEY": "first", "ENRICHMENT_API_KEY_FILE": str(file)})
    assert list(both.server.keys) == ["first", *expected]


@pytest.mark.parametrize("environment", [{}, {"ENRICHMENT_API_KEY": "", "ENRICHMENT_API_KEY_FILE": ""}])
def test_by_default_no_key_is_asked_for(environment: dict[str, str]) -> None:
    assert load(DEFAULT_FILE, environment).server.keys == ()


@pytest.mark.parametrize("value", [",", "\n", " ", f"{SECRET} x", f"{SECRET}\x00", f"{SECRET}ä", f"ok,{SECRET}\t1"])
def test_keys_that_nobody_could_send_stop_the_start_unseen(tmp_path: Path, value: str) -> None:
    file = tmp_path / SECRET
    file.write_text(value, encoding="utf-8")
    for environment in ({"ENRICHMENT_API_KEY": value}, {"ENRICHMENT_API_KEY_FILE": str(file)}):
        with pytest.raises(SettingsError, match="environment variable ENRICHMENT_API_KEY") as caught:
            load(DEFAULT_FILE, environment)
        assert "key" in str(caught.value)
        assert SECRET not in str(caught.value)


def test_a_file_of_keys_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name, complaint in [("nowhere", "can't be read"), ("", "can't be read"), ("binary", "is not text")]:
        with pytest.raises(SettingsError, match=f"ENRICHMENT_API_KEY_FILE = .*{complaint}"):
            load(DEFAULT_FILE, {"ENRICHMENT_API_KEY_FILE": str(tmp_path / name)})


@pytest.mark.parametrize(
    "text",
    [
        f"server: {{api_key: {SECRET}}}",  # misspelt
        f"server: {{api_keys: [1, {SECRET}]}}",
        f"server: {{api_keys: {{x: {SECRET}}}}}",
        f"server: [{SECRET}]",
        f"server: {{api_keys: [{SECRET}, }}",  # no YAML
    ],
)
def test_no_message_about_the_file_shows_a_key(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match=r"part\.yaml") as caught:
        load(part(tmp_path, text), {})
    shown = "".join(traceback.format_exception(caught.value))
    assert SECRET not in shown


def test_settings_that_are_printed_show_no_key() -> None:
    settings = load(DEFAULT_FILE, {"ENRICHMENT_API_KEY": SECRET})
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


def test_the_key_file_is_read_once_and_its_keys_are_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("of-the-file\n", encoding="utf-8")
    server = load(DEFAULT_FILE, {"ENRICHMENT_API_KEY": "of-the-variable", "ENRICHMENT_API_KEY_FILE": str(file)}).server
    assert server.keys == ("of-the-variable", "of-the-file")
    file.unlink()
    assert server.keys == ("of-the-variable", "of-the-file")
    assert "of-the" not in repr(server) + str(server.model_dump())
