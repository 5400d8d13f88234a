"""Tokens: their one form, what they are signed with, and that nobody else can make one."""

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter

from perdure import Token, TokenError, TokenParsed, UsageError
from perdure._values import token as token_module
from perdure._values.schema import Schema
from perdure._values.token import TokenKeys

EXECUTION_ID = "fc0cd826dc208968186d2747adc6831f"
LIFE = bytes(range(16))
NOW = 1_700_000_000_000
SECRET = "an old secret of 27 bytes.."
KEYS = TokenKeys({"2026": "a new secret, long enough", "2025": SECRET})
# base64url of ["ProcessOrder","fc0c…","approval"], as other implementations of the same workflow compute it.
VECTOR = "WyJQcm9jZXNzT3JkZXIiLCJmYzBjZDgyNmRjMjA4OTY4MTg2ZDI3NDdhZGM2ODMxZiIsImFwcHJvdmFsIl0"


def signed(keys: TokenKeys = KEYS, **said: object) -> Token:
    given: dict[str, object] = {
        "workflow_name": "ProcessOrder",
        "execution_id": EXECUTION_ID,
        "deferred_name": "approval",
    }
    return keys.sign(**(given | said))  # pyright: ignore[reportArgumentType]


def encoded(said: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(said, separators=(",", ":")).encode()).rstrip(b"=").decode()


def forged(said: object, *, key_id: str = "2025", secret: str = SECRET) -> str:
    """A token with a right mac, as only somebody with a key can make it, of whatever content."""
    part = encoded(said)
    mac = hmac.new(secret.encode(), b"perdure deferred token v1\0" + f"{key_id}.{part}".encode(), hashlib.sha256)
    return f"{key_id}.{part}.{base64.urlsafe_b64encode(mac.digest()).rstrip(b'=').decode()}"


# Unsigned ------------------------------------------------------------------------------------------


def test_an_unsigned_token_is_the_base64url_of_three_names():
    said = TokenParsed(workflow_name="ProcessOrder", execution_id=EXECUTION_ID, deferred_name="approval")
    assert said.as_token == VECTOR
    assert isinstance(said.as_token, Token)


def test_a_token_tells_its_three_names():
    parsed = TokenParsed.from_string(VECTOR)
    assert (parsed.workflow_name, parsed.execution_id, parsed.deferred_name) == (
        "ProcessOrder",
        EXECUTION_ID,
        "approval",
    )
    assert (parsed.incarnation, parsed.key_id, parsed.expires_at) == (None, None, None)
    assert parsed.as_token == VECTOR


def test_names_are_written_as_javascript_writes_them():
    # JSON.stringify leaves "é" and U+2028 as they are, and escapes a control character in lower case.
    said = TokenParsed(workflow_name="é\u2028", execution_id=EXECUTION_ID, deferred_name="\x1f\n")
    raw = base64.urlsafe_b64decode(said.as_token + "==")
    assert raw.decode() == f'["é\u2028","{EXECUTION_ID}","\\u001f\\n"]'
    assert TokenParsed.from_string(said.as_token) == said


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=255),
    st.text("ab.-_", min_size=1),
)
def test_every_pair_of_names_comes_back(workflow: str, deferred: str):
    said = TokenParsed(workflow_name=workflow, execution_id=EXECUTION_ID, deferred_name=deferred)
    assert TokenParsed.from_string(said.as_token) == said
    token = signed(workflow_name=workflow, deferred_name=deferred)
    assert KEYS.verify(token, NOW).workflow_name == workflow
    assert TokenParsed.from_string(token).as_token == token


NO_TOKENS = {
    "empty": "",
    "no base64": "order-123!",
    "padding": VECTOR + "=",
    "a line end": VECTOR + "\n",
    "other spare bits at the end": VECTOR[:-1] + "1",
    "base64 of the other alphabet": base64.b64encode(json.dumps(["??>", EXECUTION_ID, "~~~"]).encode())
    .decode()
    .rstrip("="),
    "spaces in the JSON": base64.urlsafe_b64encode(json.dumps(["w", EXECUTION_ID, "d"]).encode()).decode().rstrip("="),
    "an escape that need not be": encoded(["é", EXECUTION_ID, "d"]),
    "no array": encoded({"workflow": "w"}),
    "two names": encoded(["w", EXECUTION_ID]),
    "four names": encoded(["w", EXECUTION_ID, "d", "e"]),
    "a number": encoded(["w", EXECUTION_ID, 5]),
    "no execution id": encoded(["w", "../../etc/passwd", "d"]),
    "an id in upper case": encoded(["w", EXECUTION_ID.upper(), "d"]),
    "an empty name": encoded(["w", EXECUTION_ID, ""]),
    "a NUL": encoded(["w\0", EXECUTION_ID, "d"]),
    "a lone surrogate": encoded(["\ud800", EXECUTION_ID, "d"]),
    "a long name": encoded(["w", EXECUTION_ID, "d" * 256]),
    "nested deeply": encoded([]).replace("W10", base64.urlsafe_b64encode(b"[" * 3_000).decode()),
    "endless": VECTOR * 1_000,
    "no ASCII": VECTOR + "é",
    "two parts": f"{VECTOR}.{VECTOR}",
    "four parts": "a.b.c.d",
    "a short signature": signed()[:-1],
}


@pytest.mark.parametrize("token", NO_TOKENS.values(), ids=NO_TOKENS)
def test_what_is_not_letter_by_letter_a_token_is_refused(token: str):
    with pytest.raises(TokenError) as refused:
        TokenParsed.from_string(token)
    assert refused.value.reason == "invalid"


def test_what_is_no_text_is_no_token():
    with pytest.raises(TokenError):
        TokenParsed.from_string(5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TokenError):
        KEYS.verify(None, NOW)  # pyright: ignore[reportArgumentType]


# Signed --------------------------------------------------------------------------------------------


def test_a_signed_token_carries_all_that_it_says():
    parsed = KEYS.verify(signed(incarnation=LIFE, expires_at=NOW + 1), NOW)
    assert (parsed.workflow_name, parsed.execution_id, parsed.deferred_name) == (
        "ProcessOrder",
        EXECUTION_ID,
        "approval",
    )
    assert (parsed.incarnation, parsed.key_id) == (LIFE.hex(), "2026")
    assert parsed.expires_at == datetime(2023, 11, 14, 22, 13, 20, 1_000, tzinfo=UTC)


def test_the_signed_form_is_a_promise():
    token = signed(TokenKeys(SECRET), incarnation=LIFE, expires_at=NOW)
    said = ["ProcessOrder", EXECUTION_ID, "approval", LIFE.hex(), NOW]
    assert token == forged(said, key_id="default")


def test_a_token_is_read_without_a_key_but_not_trusted():
    parsed = TokenParsed.from_string(signed(incarnation=LIFE))
    assert parsed.as_token == signed(incarnation=LIFE)
    assert parsed.key_id == "2026"


def test_the_first_key_signs_and_all_of_them_verify():
    old = TokenKeys({"2025": SECRET})
    assert signed().startswith("2026.")
    assert KEYS.verify(signed(old), NOW).key_id == "2025"
    with pytest.raises(TokenError):
        old.verify(signed(), NOW)  # a key that it does not know yet


def test_a_secret_without_a_name_is_called_default():
    alone = TokenKeys(SECRET.encode())
    rotated = TokenKeys({"2026": "a new secret, long enough", "default": SECRET})
    assert rotated.verify(signed(alone), NOW).key_id == "default"


def test_a_key_id_does_not_lend_its_name_to_another_secret():
    with pytest.raises(TokenError):
        KEYS.verify(signed().replace("2026.", "2025.", 1), NOW)


def test_a_token_is_refused_from_the_millisecond_in_which_it_expires():
    token = signed(expires_at=NOW)
    assert KEYS.verify(token, NOW - 1).as_token == token
    with pytest.raises(TokenError) as refused:
        KEYS.verify(token, NOW)
    assert refused.value.reason == "expired"


def test_an_engine_with_keys_refuses_unsigned_tokens():
    with pytest.raises(TokenError) as refused:
        KEYS.verify(VECTOR, NOW)
    assert refused.value.reason == "invalid"


FORGERIES = {
    "unsigned": VECTOR,
    "another secret": signed(TokenKeys({"2026": "somebody else's secret"})),
    "an unknown key": signed(TokenKeys({"2024": SECRET})),
    "no key id": signed()[4:],
    "no signature": signed().rpartition(".")[0] + ".",
    "other spare bits at the end of the signature": signed(TokenKeys({"2025": SECRET}))[:-1],
    "garbage": "a.b.c",
    "empty": "",
    "endless": "2026." + "A" * 100_000 + ".A",
}


@pytest.mark.parametrize("token", FORGERIES.values(), ids=FORGERIES)
def test_every_refusal_says_the_same(token: str):
    with pytest.raises(TokenError) as refused:
        KEYS.verify(token, NOW)
    assert (str(refused.value), refused.value.reason) == ("This token is not valid.", "invalid")
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None


def test_the_spare_bits_of_a_signature_have_one_form():
    token = signed()
    # 32 bytes are 43 letters, the last of which has two bits to spare: three others decode to the same bytes.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    place = alphabet.index(token[-1])
    for other in range(place + 1, place + 4):
        assert base64.urlsafe_b64decode(token[-43:-1] + alphabet[other] + "=") == base64.urlsafe_b64decode(
            token[-43:] + "="
        )
        with pytest.raises(TokenError):
            KEYS.verify(token[:-1] + alphabet[other], NOW)


@pytest.mark.parametrize(
    "said",
    [
        ["w", EXECUTION_ID, "d"],
        ["w", EXECUTION_ID, "d", None],
        ["w", EXECUTION_ID, "d", "life", None],
        ["w", EXECUTION_ID, "d", None, "soon"],
        ["w", EXECUTION_ID, "d", None, True],
        ["w", EXECUTION_ID, "d", None, 1.0],
        ["w", EXECUTION_ID, "d", None, -1],
        ["w", EXECUTION_ID, "d", None, 2**63],
        ["é", EXECUTION_ID, "d", None, None],  # escaped where it need not be
    ],
)
def test_also_what_a_key_has_signed_has_one_form(said: list[object]):
    with pytest.raises(TokenError) as refused:
        KEYS.verify(forged(said), NOW)
    assert refused.value.reason == "invalid"


def test_nothing_but_the_key_id_is_read_before_the_mac_is_compared(monkeypatch: pytest.MonkeyPatch):
    def read(_: object) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(token_module, "_from_base64", read)
    monkeypatch.setattr(token_module, "_parsed", read)
    for token in FORGERIES.values():
        with pytest.raises(TokenError):
            KEYS.verify(token, NOW)
    with pytest.raises(AssertionError, match="read"):
        KEYS.verify(signed(), NOW)


def test_an_unknown_key_costs_a_mac_and_a_comparison_too(monkeypatch: pytest.MonkeyPatch):
    compared: list[bytes] = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda one, other: compared.append(one) or real(one, other))
    with pytest.raises(TokenError):
        KEYS.verify(FORGERIES["an unknown key"], NOW)
    assert len(compared[0]) == 43


def test_what_an_unknown_key_is_compared_with_opens_nothing():
    with pytest.raises(TokenError):
        KEYS.verify(signed(TokenKeys({"2024": token_module._NOBODYS_SECRET})), NOW)


def test_what_is_longer_than_any_token_is_not_worked_on(monkeypatch: pytest.MonkeyPatch):
    longest = TokenKeys({"k" * 64: SECRET}).sign(
        workflow_name="\x01" * 255,
        execution_id=EXECUTION_ID,
        deferred_name="\x01" * 255,
        incarnation=LIFE,
        expires_at=2**52,
    )
    assert TokenParsed.from_string(longest).as_token == longest

    def read(_: object) -> bytes:
        raise AssertionError("read")

    monkeypatch.setattr(token_module, "_from_base64", read)
    for token in (VECTOR * 1_000, "2026." + VECTOR * 1_000 + ".A"):
        with pytest.raises(TokenError):
            TokenParsed.from_string(token)


TOKEN = signed(incarnation=LIFE, expires_at=NOW + 1)


ALPHABET = "ABCDwxyz0189-_.=+/ \n\0é"
GENUINE = [TOKEN, signed(), signed(TokenKeys({"2025": SECRET}))]


def mutated(random: Random) -> str:
    """A token with a few letters replaced, inserted, left out or moved."""
    letters = list(random.choice(GENUINE))
    for _ in range(random.randint(1, 3)):
        place, other = random.randrange(len(letters)), random.randrange(len(letters))
        match random.randrange(6):
            case 0:
                letters[place] = random.choice(ALPHABET)
            case 1:
                letters.insert(place, random.choice(ALPHABET))
            case 2 if len(letters) > 1:
                del letters[place]
            case 3:
                letters[place] = chr(ord(letters[place]) ^ 1 << random.randrange(7))
            case 4:
                letters[place], letters[other] = letters[other], letters[place]
            case _:
                letters = letters[: place + 1]
    return "".join(letters)


@settings(max_examples=100, deadline=None)
@given(st.integers())
def test_of_ten_thousand_mutations_none_is_accepted(seed: int):
    random = Random(seed)
    tokens = [mutated(random) for _ in range(100)]
    # Two changes may undo each other.
    accepted = [token for token in tokens if token not in GENUINE and is_accepted(token)]
    assert accepted == []


def is_accepted(token: str) -> bool:
    try:
        KEYS.verify(token, NOW)
    except TokenError:
        return False
    return True


# Keys ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "secret", ["", "fifteen bytes..", b"\0" * 15, {"a": "short"}, {"a": SECRET, "b": "short"}, {}, 5, None]
)
def test_a_secret_that_is_none_is_refused_without_being_told(secret: object):
    with pytest.raises(UsageError, match="token_secret") as refused:
        TokenKeys(secret)  # pyright: ignore[reportArgumentType]
    assert "fifteen" not in str(refused.value)


@pytest.mark.parametrize("key_id", ["", "a.b", "a b", "é", "k" * 65, "a\n", 5])
def test_a_key_id_can_stand_in_a_token(key_id: str):
    with pytest.raises(UsageError, match="key id"):
        TokenKeys({key_id: SECRET})


def test_a_secret_of_sixteen_bytes_is_enough():
    assert TokenKeys("sixteen bytes...").key_id == "default"


def test_no_secret_is_shown():
    shown = repr(KEYS)
    assert shown == "<TokenKeys 2026, 2025>"
    parsed = KEYS.verify(TOKEN, NOW)
    assert parsed.signature not in repr(parsed)


# As a type -----------------------------------------------------------------------------------------


class Mail(BaseModel):
    token: Token


def test_models_take_and_give_tokens():
    mail = Mail.model_validate({"token": VECTOR})
    assert isinstance(mail.token, Token)
    assert Mail.model_validate_json(mail.model_dump_json()) == mail
    assert TypeAdapter(Token).json_schema() == {"type": "string"}


def test_a_token_is_recorded_as_text_and_comes_back_as_a_token():
    raw, back = Schema(Token, "x").round_trip(Token(VECTOR))
    assert raw == f'"{VECTOR}"'.encode()
    assert isinstance(back, Token)
    assert Schema(list[Token], "x").round_trip([Token("a")]) == (b'["a"]', [Token("a")])
