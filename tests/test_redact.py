import logging
import pickle
import re
from pathlib import Path

import pytest
from canary import CANARY, LINK, told

from rs_embed import redact
from rs_embed.core.chip import Source
from rs_embed.errors import Failure, RSEmbedError, RSEmbedWarning, ServiceUnavailable, warn
from rs_embed.redact import cause_of, redacted, redacted_all

SECRETS = [
    LINK,
    f"https://b.s3.amazonaws.com/x?X-Amz-Credential={CANARY}%2F2024&X-Amz-Signature={CANARY}",
    f"https://storage.googleapis.com/b/x?GoogleAccessId={CANARY}&Expires=1&Signature={CANARY}",
    f"/vsicurl?use_head=no&url=https%3A%2F%2Fx%2Fy%3Fsig%3D{CANARY}%26se%3D1",
    f"HTTPSConnectionPool(host='x', port=443): Max retries exceeded with url: /a?token={CANARY} (Caused by X)",
    f"https://user:{CANARY}@host/p",
    f"s3://AK:{CANARY}@bucket/a",
    f"https://{CANARY}@host/",
    f"Authorization: Bearer {CANARY}",
    f"{{'Authorization': 'Basic {CANARY}'}}",
    f"headers={{'authorization': 'Bearer {CANARY}', 'x': 1}}",
    f"('Authorization', 'Bearer {CANARY}')",
    f"(b'Authorization', b'Bearer {CANARY}')",
    f'{{"private_key_id": "{CANARY}", "private_key": "-----BEGIN PRIVATE KEY-----\\n{CANARY}"}}',
    f"-----BEGIN RSA PRIVATE KEY-----\n{CANARY}\n",
    "hf_" + CANARY,
    f"RS_EMBED_HF_TOKEN={CANARY}",
    f"AWS_SECRET_ACCESS_KEY='{CANARY}'",
    f"st=1&se=2&sig={CANARY}",
    f"sig={CANARY}",
    f"password={CANARY}",
    f"https://x/y?key={CANARY}&z=1",
    f"client_secret: '{CANARY}'",
    f"AccountKey={CANARY}==;EndpointSuffix=x",
    f"X-Api-Key: {CANARY}",
    f"ya29.{CANARY}",
    f"Set-Cookie: sid={CANARY}; path=/",
    f'\\"access_token\\": \\"{CANARY}\\"',
    f"b'Bearer {CANARY}'",
    f"x-amz-security-token:{CANARY}",
    f"&amp;sig={CANARY}",
    f"'sig': '{CANARY}",
]
WORDS = [
    "Expected model_key='thor_1_0_base' (keyword or variable)",
    'fix="id=..."',
    "Expected a known keyword, got 'key'.",
    "tokens: {'10m': [18, 18]}, token_grid=1, tokens=4, patch_token: 3",
    "COPERNICUS/S2_SR_HARMONIZED/20220601T101031_20220601T101032_T33UUP",
    "https://earth-search.aws.element84.com/v1?limit=3&collections=a",
    "a private repository needs HF_TOKEN; `hf auth login`; hf_hub_download",
    "mask_token, flexivit_decode_pred.weight",
    "user@host.com has C:/a@b and s3://bucket/key@2x.png",
]


@pytest.mark.parametrize("text", SECRETS)
def test_secrets_are_taken_out_and_twice_is_as_once(text):
    told = redacted(f"found {text} there")

    assert CANARY not in told and "***" in told
    assert redacted(told) == told


@pytest.mark.parametrize("text", WORDS)
def test_ordinary_words_stay(text):
    assert redacted(text) == text


def test_what_has_no_word_around_it_is_known_by_its_shape():
    assert redacted("used AKIAIOSFODNN7EXAMPLE here") == "used *** here"


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit", ["a", "sig=a?&", "a.b-c", "://", "-----BEGIN PRIVATE KEY-----", "'token':", "key ' = "]
)
def test_long_texts_take_time_in_proportion(unit):
    redacted(unit * (1_000_000 // len(unit)))  # squared, this would never end


def test_errors_hold_no_secret_in_any_line_nor_when_they_travel():
    error = ServiceUnavailable(f"No pixels: {LINK}", said=OSError(LINK), fix=f"see {LINK}")

    for one in (error, pickle.loads(pickle.dumps(error))):
        assert CANARY not in str(one) and CANARY not in repr(one) and CANARY not in repr(vars(one))
    assert "B02.tif" in str(error)


def test_warnings_hold_no_secret():
    with pytest.warns(RSEmbedWarning) as seen:
        warn(f"odd pixels in {LINK}", RSEmbedWarning)

    assert CANARY not in str(seen[0].message)


def test_log_records_hold_no_secret_even_in_a_traceback(caplog):
    log = redact.logger("rs_embed.of_a_test")
    with caplog.at_level(logging.INFO, "rs_embed"):
        try:
            raise OSError(LINK)
        except OSError:
            log.exception("reading %s failed", LINK)

    assert CANARY not in caplog.text and "B02.tif" in caplog.text


def test_every_logger_of_the_library_is_one_that_redacts():
    package = Path(redact.__file__).parent
    bare = [
        f"{path.relative_to(package)}: {line.strip()}"
        for path in sorted(package.rglob("*.py"))
        for line in path.read_text().splitlines()
        if re.search(r"=\s*(?:logging\.)?getLogger\(", line) and path.name != "redact.py"
    ]

    assert bare == []


def test_a_failure_of_another_package_is_shown_without_secrets():
    assert CANARY not in str(Failure(3, "fetch", OSError(LINK)))


def test_metadata_of_a_source_hold_no_secret():
    source = Source("stac", "S2", scene_ids=("plain", LINK), notes=(f"skipped {LINK}",))

    assert CANARY not in repr(source) and source.scene_ids[0] == "plain"


def test_a_traceback_shows_a_stand_in_for_a_cause_that_holds_a_secret():
    def fails():
        try:
            raise OSError(f"cannot open {LINK}")
        except OSError as inner:
            raise RuntimeError("Read failed. See previous exception.") from inner

    try:
        try:
            fails()
        except RuntimeError as error:
            raise RSEmbedError("No pixels.") from cause_of(error)
    except RSEmbedError as error:
        said = told(error)

    assert CANARY not in said
    assert "RuntimeError: Read failed" in said and "in fails" in said


def test_a_cause_without_secrets_stays_itself():
    error = OSError("no such file")

    assert cause_of(error) is error
    assert redacted_all(["a", "b"]) == ("a", "b")
